/* How does one thread ask several peers and take their answers, without going back to Python between any two?
 *
 * Covers: sending without waiting for room, polling, taking what comes until each peer's first record or frame is
 * whole; encryption by OpenSSL's functions where the caller has found them. Does not cover: what is in the bytes
 * (rounds.c), handshakes and trust (Python's), patience beyond one limit, errors but their numbers: whoever calls goes
 * on from whatever there is.
 *
 * Sockets belong to the caller; other threads may shut them down meanwhile, which ends the waiting.
 */
#include "interface.h"
#include "transfer.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#ifdef MSG_NOSIGNAL
enum { SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
#else
enum { SEND_FLAGS = MSG_DONTWAIT }; /* Python ignores SIGPIPE */
#endif
#ifdef CLOCK_UPTIME_RAW
enum { CLOCK = CLOCK_UPTIME_RAW }; /* each the clock of Python's time.perf_counter */
#else
enum { CLOCK = CLOCK_MONOTONIC };
#endif
enum { RECORD_HEAD = 5, SEALED_ROOM = 1 << 15 };
enum { WANT_READ = 2, ZERO_RETURN = 6 }; /* of SSL_get_error */

int64_t clock_now(void) {
    struct timespec at;
    clock_gettime(CLOCK, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static ssize_t send_some(struct peer *peer, const char *bytes, ptrdiff_t count) {
    ptrdiff_t sent = 0;
    while (sent < count) {
        const ssize_t now_sent = send(peer->fd, bytes + sent, (size_t)(count - sent), SEND_FLAGS);
        if (now_sent >= 0) sent += now_sent;
        else if (errno != EINTR) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) peer->send_error = errno;
            break;
        }
    }
    return sent;
}

static void send_sealed(struct peer *peer) {
    const struct tls *tls = peer->tls;
    char sealed[SEALED_ROOM];
    int count;
    tls->functions->clear_errors();
    if (peer->out_count > 0 && tls->functions->write(tls->ssl, peer->out, (int)peer->out_count) != peer->out_count) {
        peer->send_error = EPROTO;
        return;
    }
    while ((count = tls->functions->take(tls->out, sealed, sizeof sealed)) > 0) {
        const ssize_t sent = send_some(peer, sealed, count);
        if (sent == count) continue;
        /* Only what no room was found for goes back: nothing lies behind it, for more than this is never encrypted. */
        tls->functions->put(tls->out, sealed + sent, (int)(count - sent));
        return;
    }
    peer->sent_count = peer->out_count;
}

void send_to(struct peer *peer) {
    if (peer->tls) send_sealed(peer);
    else peer->sent_count = send_some(peer, peer->out, peer->out_count);
}

uint32_t frame_length(const void *frame) {
    const unsigned char *head = frame;
    return (uint32_t)head[3] << 24 | (uint32_t)head[2] << 16 | (uint32_t)head[1] << 8 | (uint32_t)head[0];
}

/* Tell whether the first record or frame is here, or no more of it can be put anywhere. */
static int is_whole(const struct peer *peer) {
    const unsigned char *head = peer->into;
    const ptrdiff_t size = peer->framing == TLS_RECORD ? RECORD_HEAD : FRAME_HEAD;
    if (peer->received_count == peer->room) return 1;
    if (peer->received_count < size) return 0;
    const ptrdiff_t length = peer->framing == TLS_RECORD
                                 ? (ptrdiff_t)head[3] << 8 | head[4]
                                 : (ptrdiff_t)frame_length(head);
    return peer->received_count - size >= length;
}

/* Decrypt what has come, until a frame is whole or there is no more of it. */
static void open_received(struct peer *peer, const char *sealed, int sealed_count) {
    const struct tls *tls = peer->tls;
    if (tls->functions->put(tls->in, sealed, sealed_count) != sealed_count) {
        peer->receive_error = ENOMEM;
        return;
    }
    tls->functions->clear_errors();
    do {
        const int count = tls->functions->read(tls->ssl, (char *)peer->into + peer->received_count,
                                               (int)(peer->room - peer->received_count));
        if (count <= 0) {
            const int error = tls->functions->get_error(tls->ssl, count);
            if (error == ZERO_RETURN) peer->has_ended = 1;
            else if (error != WANT_READ) peer->receive_error = EPROTO;
            return;
        }
        peer->received_count += count;
    } while (!is_whole(peer));
}

void receive_from(struct peer *peer, int flags) {
    char sealed[SEALED_ROOM];
    char *into = peer->tls ? sealed : (char *)peer->into + peer->received_count;
    const ptrdiff_t room = peer->tls ? SEALED_ROOM : peer->room - peer->received_count;
    const ssize_t count = recv(peer->fd, into, (size_t)room, flags);
    if (count > 0) {
        if (peer->tls) open_received(peer, sealed, (int)count);
        else peer->received_count += count;
        if (is_whole(peer)) peer->came_nanoseconds = clock_now();
    } else if (count == 0) peer->has_ended = 1;
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) peer->receive_error = errno;
}

int is_over(const struct peer *peer) {
    return peer->came_nanoseconds || peer->has_ended || peer->receive_error || peer->send_error;
}

int begin_peer(struct peer *peer) {
    peer->sent_count = peer->received_count = 0;
    peer->came_nanoseconds = 0;
    peer->send_error = peer->receive_error = peer->has_ended = 0;
    return peer->room > 0;
}

/* Wait for whoever answers first, as long as `until`: each answer's instant is its own. */
static void receive_from_any(struct peer *peers, ptrdiff_t count, int64_t until) {
    struct pollfd polled[MOST_PEERS];
    ptrdiff_t left = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        polled[i] = (struct pollfd){.fd = is_over(peers + i) ? -1 : peers[i].fd, .events = POLLIN};
        left += polled[i].fd >= 0;
    }
    while (left) {
        const int64_t rest = until - clock_now();
        if (rest <= 0 || poll(polled, (nfds_t)count, (int)(rest / 1000000) + 1) < 0) return;
        for (ptrdiff_t i = 0; i < count; i++) {
            if (polled[i].fd < 0 || !polled[i].revents) continue;
            receive_from(peers + i, MSG_DONTWAIT);
            if (is_over(peers + i)) {
                polled[i].fd = -1;
                left--;
            }
        }
    }
}

static int has_more(const struct peer *peer, ptrdiff_t before) { return is_over(peer) || peer->received_count > before; }

/* Look for what comes next from a peer, as long as that pays. */
static int look_for(struct peer *peer) {
    const ptrdiff_t before = peer->received_count;
    struct looking looking;
    begin_looking(&looking, &peer->patience);
    do receive_from(peer, MSG_DONTWAIT);
    while (!has_more(peer, before) && looks_again(&looking));
    end_looking(&looking, has_more(peer, before));
    return has_more(peer, before);
}

void await_from(struct peer *peer) {
    if (!peer->is_near || !look_for(peer)) receive_from(peer, 0);
}

/* Wait for one peer after another: the rest have mostly answered meanwhile, and were woken by nobody. */
static void receive_in_order(struct peer *peers, ptrdiff_t count, int64_t until) {
    for (struct peer *peer = peers; peer < peers + count; peer++)
        for (look_for(peer); !is_over(peer); look_for(peer)) {
            struct pollfd polled = {.fd = peer->fd, .events = POLLIN};
            const int64_t rest = until - clock_now();
            if (rest <= 0 || poll(&polled, 1, (int)(rest / 1000000) + 1) < 0) return;
        }
}

/* Send each peer's bytes, then wait until a record or frame of each is whole, or `limit_milliseconds` have passed, or a
 * signal has come. Where a peer has not taken all its bytes, nobody is waited for. `in_order`: peers share this machine's
 * cores, and say themselves when they were done. */
EXPORT int shardmesh_exchange(struct peer *peers, ptrdiff_t count, int limit_milliseconds, int in_order,
                              int64_t *sent_nanoseconds) {
    int is_all_sent = 1;
    if (count < 1 || count > MOST_PEERS) return REFUSED;
    for (ptrdiff_t i = 0; i < count; i++)
        if (!begin_peer(peers + i)) return REFUSED;
    for (ptrdiff_t i = 0; i < count; i++) {
        send_to(peers + i);
        is_all_sent &= peers[i].sent_count == peers[i].out_count;
    }
    *sent_nanoseconds = clock_now();
    if (is_all_sent)
        (in_order ? receive_in_order : receive_from_any)(
            peers, count, *sent_nanoseconds + (int64_t)limit_milliseconds * 1000000);
    return DONE;
}

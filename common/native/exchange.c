/* How does one thread ask several peers and take their answers, without going back to Python between any two?
 *
 * Covers: sending without waiting for room, polling, taking what comes until each peer's first record or frame is
 * whole. Does not cover: what is in the bytes, encryption (Python's ssl), patience beyond one limit, errors but their
 * numbers: whoever calls goes on from whatever there is.
 *
 * Sockets belong to the caller; other threads may shut them down meanwhile, which ends the waiting.
 */
#include "interface.h"

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
enum { MOST_PEERS = 64, RECORD_HEAD = 5, FRAME_HEAD = 4 };

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void send_to(struct peer *peer) {
    while (peer->sent_count < peer->out_count) {
        const ssize_t count =
            send(peer->fd, peer->out + peer->sent_count, (size_t)(peer->out_count - peer->sent_count), SEND_FLAGS);
        if (count >= 0) peer->sent_count += count;
        else if (errno != EINTR) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) peer->send_error = errno;
            return;
        }
    }
}

/* Tell whether the first record or frame is here, or no more of it can be put anywhere. */
static int is_whole(const struct peer *peer) {
    const unsigned char *head = peer->into;
    const ptrdiff_t size = peer->framing == TLS_RECORD ? RECORD_HEAD : FRAME_HEAD;
    if (peer->received_count == peer->room) return 1;
    if (peer->received_count < size) return 0;
    const ptrdiff_t length = peer->framing == TLS_RECORD
                                 ? (ptrdiff_t)head[3] << 8 | head[4]
                                 : (ptrdiff_t)((uint32_t)head[3] << 24 | (uint32_t)head[2] << 16 |
                                               (uint32_t)head[1] << 8 | (uint32_t)head[0]);
    return peer->received_count - size >= length;
}

static void receive_from(struct peer *peer) {
    const ssize_t count = recv(peer->fd, (char *)peer->into + peer->received_count,
                               (size_t)(peer->room - peer->received_count), MSG_DONTWAIT);
    if (count > 0) {
        peer->received_count += count;
        if (is_whole(peer)) peer->came_nanoseconds = now();
    } else if (count == 0) peer->has_ended = 1;
    else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) peer->receive_error = errno;
}

/* Tell whether there is nothing to wait for from a peer. */
static int is_over(const struct peer *peer) {
    return peer->came_nanoseconds || peer->has_ended || peer->receive_error || peer->send_error;
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
        const int64_t rest = until - now();
        if (rest <= 0 || poll(polled, (nfds_t)count, (int)(rest / 1000000) + 1) < 0) return;
        for (ptrdiff_t i = 0; i < count; i++) {
            if (polled[i].fd < 0 || !polled[i].revents) continue;
            receive_from(peers + i);
            if (is_over(peers + i)) {
                polled[i].fd = -1;
                left--;
            }
        }
    }
}

/* Wait for one peer after another: the rest have mostly answered meanwhile, and were woken by nobody. */
static void receive_in_order(struct peer *peers, ptrdiff_t count, int64_t until) {
    for (struct peer *peer = peers; peer < peers + count; peer++)
        for (receive_from(peer); !is_over(peer); receive_from(peer)) {
            struct pollfd polled = {.fd = peer->fd, .events = POLLIN};
            const int64_t rest = until - now();
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
    for (ptrdiff_t i = 0; i < count; i++) {
        struct peer *peer = peers + i;
        peer->sent_count = peer->received_count = 0;
        peer->came_nanoseconds = 0;
        peer->send_error = peer->receive_error = peer->has_ended = 0;
        if (peer->room < 1) return REFUSED;
    }
    for (ptrdiff_t i = 0; i < count; i++) {
        send_to(peers + i);
        is_all_sent &= peers[i].sent_count == peers[i].out_count;
    }
    *sent_nanoseconds = now();
    if (is_all_sent)
        (in_order ? receive_in_order : receive_from_any)(
            peers, count, *sent_nanoseconds + (int64_t)limit_milliseconds * 1000000);
    return DONE;
}

/* How does a round of a few rows go without Python between its messages: a coordinator's, and a node's part in it?
 *
 *     coordinator   frame the rows, send them to every rank, take their answers, check them, add the parts in rank order
 *     node          frame the part, send it, wait for the next message
 *
 * Covers: packed rounds (common/wire/packed_round.py says where which byte lies) whose numbers are float32. Does not
 * cover: sockets and encryption (exchange.c); one round after
 * another (sweep.c); anything that is not as expected, which is left to Python as it has come.
 */
#include "interface.h"
#include "transfer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum { DONE_BYTES = 72, IN_MEMORY_AT = 1, CALL_ID_AT = 8, READY_AT = 16, COMPUTE_AT = 24, CALL_ID_IN_NEXT = 8 };

static int64_t number_at(const char *bytes) {
    int64_t number;
    memcpy(&number, bytes, sizeof number); /* little-endian, as every processor is that there are kernels for */
    return number;
}

/* Write a frame of a message's beginning and its numbers; return its length, 0 where it has no room. */
static ptrdiff_t framed(void *frame, ptrdiff_t room, const char *head, ptrdiff_t head_count, const float *numbers,
                        ptrdiff_t number_count) {
    const size_t number_bytes = sizeof(float) * (size_t)number_count, count = (size_t)head_count + number_bytes;
    char *at = frame;
    if (head_count < 1 || number_count < 0 || (size_t)room < FRAME_HEAD + count) return 0;
    for (int i = 0; i < FRAME_HEAD; i++) at[i] = (char)(count >> (8 * i) & 0xff);
    memcpy(at + FRAME_HEAD, head, (size_t)head_count);
    if (number_bytes) memcpy(at + FRAME_HEAD + head_count, numbers, number_bytes);
    return (ptrdiff_t)(FRAME_HEAD + count);
}

/* Tell whether exactly one frame of `count` bytes is here, and nothing of another. */
static int is_exactly(const struct peer *peer, ptrdiff_t count) {
    return peer->came_nanoseconds && !peer->receive_error && peer->received_count == count &&
           (ptrdiff_t)frame_length(peer->into) == count - FRAME_HEAD &&
           (!peer->tls || !peer->tls->functions->pending(peer->tls->in));
}

/* Tell whether a peer's answer is a packed one to this call, with so many numbers in it; if so, what it says. */
static int is_answer(const struct peer *peer, int64_t call_id, ptrdiff_t number_count, struct answered *answered) {
    const char *message = (const char *)peer->into + FRAME_HEAD;
    if (!is_exactly(peer, FRAME_HEAD + DONE_BYTES + (ptrdiff_t)sizeof(float) * number_count) || message[0] ||
        message[IN_MEMORY_AT] || number_at(message + CALL_ID_AT) != call_id)
        return 0;
    answered->came_nanoseconds = peer->came_nanoseconds;
    memcpy(&answered->compute_nanoseconds, message + COMPUTE_AT, DONE_BYTES - COMPUTE_AT);
    return 1;
}

int run_round(struct peer *peers, ptrdiff_t count, struct round *round, const char *head, ptrdiff_t head_count,
              const float *rows, ptrdiff_t number_count, float *sums) {
    const char *parts[MOST_PEERS];
    const ptrdiff_t length = framed(round->frame, round->room, head, head_count, rows, number_count);
    if (count < 1 || count > MOST_PEERS || !length || head_count < CALL_ID_IN_NEXT + (ptrdiff_t)sizeof(int64_t))
        return REFUSED;
    const int64_t call_id = number_at(head + CALL_ID_IN_NEXT), began = clock_now();
    for (ptrdiff_t i = 0; i < count; i++) {
        peers[i].out = round->frame;
        peers[i].out_count = length;
    }
    const int outcome =
        shardmesh_exchange(peers, count, round->limit_milliseconds, round->in_order, &round->sent_nanoseconds);
    if (outcome != DONE) return outcome;
    for (ptrdiff_t i = 0; i < count; i++) {
        if (!is_answer(peers + i, call_id, number_count, round->answered + i)) return NOT_SIMPLE;
        parts[i] = peers[i].into;
        if (round->in_order) { /* the peer has the same clock; what is impossible is not believed */
            const int64_t ready = number_at(parts[i] + FRAME_HEAD + READY_AT);
            if (began <= ready && ready <= peers[i].came_nanoseconds) round->answered[i].came_nanoseconds = ready;
        }
    }
    return shardmesh_add(parts, FRAME_HEAD + DONE_BYTES, count, number_count, sums) ? NOT_SIMPLE : DONE;
}

int send_frame(struct peer *peer, const void *frame, ptrdiff_t length) {
    peer->out = frame;
    peer->out_count = length;
    begin_peer(peer);
    send_to(peer);
    return !peer->send_error && peer->sent_count == peer->out_count;
}

int take_frame(struct peer *peer) {
    do {
        const ptrdiff_t before = peer->received_count;
        await_from(peer);
        if (peer->received_count == before && !(peer->tls && peer->tls->functions->pending(peer->tls->in))) break;
        if (peer->tls && peer->tls->functions->pending(peer->tls->out)) break; /* a change of keys wants an answer */
    } while (!is_over(peer));
    return is_exactly(peer, peer->received_count) && peer->received_count > FRAME_HEAD;
}

/* Send a node's answer in a frame, then wait for the next message, for as long as the socket itself waits. DONE: exactly
 * one whole frame is in the peer's `into`; NOT_SIMPLE: anything else, and the peer says how far it has come. */
EXPORT int shardmesh_answer(struct peer *peer, void *frame, ptrdiff_t room, const char *head, ptrdiff_t head_count,
                            const float *numbers, ptrdiff_t number_count) {
    const ptrdiff_t length = framed(frame, room, head, head_count, numbers, number_count);
    if (!length || peer->room < 1) return REFUSED;
    return send_frame(peer, frame, length) && take_frame(peer) ? DONE : NOT_SIMPLE;
}

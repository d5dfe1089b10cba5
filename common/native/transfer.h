/* What do exchange.c, rounds.c, serving.c and sweep.c share?
 *
 * Covers: the functions of the first two that are not exported. Does not cover: the memory they work on (exchange.h).
 */
#ifndef SHARDMESH_TRANSFER_H
#define SHARDMESH_TRANSFER_H

#include "exchange.h"

enum { MOST_PEERS = 64, FRAME_HEAD = 4 };

/* Return nanoseconds of the clock of Python's time.perf_counter. */
int64_t clock_now(void);
/* Forget what became of a peer's last exchange; return whether there is any room to receive in. */
int begin_peer(struct peer *peer);
/* Send what there is room for. */
void send_to(struct peer *peer);
/* Take what has come, waiting for the first byte if `flags` say so (of recv). */
void receive_from(struct peer *peer, int flags);
/* Take what comes next: look for it where the peer is near, then sleep as long as the socket itself waits. */
void await_from(struct peer *peer);
/* Tell whether there is nothing to wait for from a peer. */
int is_over(const struct peer *peer);
/* Return the length that a frame begins with. */
uint32_t frame_length(const void *frame);

/* Run one round: `head` is the beginning of a packed request, `rows` its numbers, `sums` room for as many. DONE: all
 * have answered as they should, and the sum is finite; NOT_SIMPLE: anything else, and each peer says how far it has
 * come; REFUSED: nothing has been sent. Fewer answers than that are not added up. */
int run_round(struct peer *peers, ptrdiff_t count, struct round *round, const char *head, ptrdiff_t head_count,
              const float *rows, ptrdiff_t number_count, float *sums);
/* Send one peer a frame, as far as there is room; return whether all of it is on its way. (rounds.c, as the next) */
int send_frame(struct peer *peer, const void *frame, ptrdiff_t length);
/* Then wait for its next frame, as long as the socket itself waits; return whether exactly that is in `into`. */
int take_frame(struct peer *peer);

#endif

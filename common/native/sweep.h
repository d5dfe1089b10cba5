/* What does a coordinator hand over of a sweep, so that its rounds follow one another in C?
 *
 * Covers: the memory of several rounds, shared with common/native/peers.py. Does not cover: one exchange (exchange.h),
 * running them (sweep.c), adding up what was put down of them (tally.c).
 */
#ifndef SHARDMESH_SWEEP_H
#define SHARDMESH_SWEEP_H

#include "exchange.h"

/* One block of the model. */
struct sweep_block {
    const float *norm;
    const float *late_bias; /* added once to the sum over all ranks; NULL: it has none */
    int kind; /* as packed messages number it */
    int layer;
    int lane; /* who takes part */
};

/* Those who take part in blocks of one kind. */
struct lane {
    struct peer *peers;
    ptrdiff_t count;
    struct round *round;
};

/* When what happened in one round, by the clock of Python's time.perf_counter. */
struct swept_round {
    int64_t started_nanoseconds;
    int64_t sent_nanoseconds;
    int64_t finished_nanoseconds;
};

/* Rounds that follow one another. */
struct stretch {
    const struct sweep_block *blocks;
    ptrdiff_t block_count;
    const struct lane *lanes;
    ptrdiff_t most_ranks; /* of any lane */
    int64_t first_call_id; /* each next one is one more */
    int64_t sweep_id;
    int64_t until_nanoseconds; /* no round is begun later, but for the first */
    ptrdiff_t row_count;
    ptrdiff_t width;
    float norm_epsilon;
    int flags; /* of every message */
    int has_output; /* whether `output` is still to be added to `hidden` */
    float *hidden; /* [row_count, width]: the residual stream */
    float *output; /* the same shape: the last block's, its late bias included */
    float *normed; /* the same shape: room for a block's input */
    struct swept_round *times; /* [block_count] */
    struct answered *answered; /* [block_count, most_ranks] */
};

/* One rank's share in many rounds. */
struct rank_sums {
    double trip_seconds; /* until its answers */
    double wait_seconds; /* how long they were waited for after the ones before them */
    int64_t slowest_count; /* of rounds in which it worked, or waited for weights, longest */
    int64_t last_count; /* of rounds in which everybody waited for it last */
};

/* Sums of many rounds, and what they are made with. */
struct tally {
    ptrdiff_t rank_count;
    ptrdiff_t most_ranks; /* of any round: so far apart are those of one and the next */
    const double *bounds; /* [bound_count]: up to which a bucket of times until answers goes, in seconds */
    ptrdiff_t bound_count;
    int64_t *trip_counts; /* [rank_count, bound_count + 1] */
    struct rank_sums *ranks; /* [rank_count] */
    double seconds; /* from beginnings to sums */
    int64_t compute_nanoseconds; /* of the slowest rank of each round, as the next */
    int64_t tile_wait_nanoseconds;
};

#endif

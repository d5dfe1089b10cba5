/* How do the rounds of a sweep follow one another at a coordinator, without Python between any two of them?
 *
 *     residual + the last block's output -> norm -> round -> sum, late bias -> the next block
 *
 * Covers: the order of steps, the same bits as Python's way has; what is written down of each round. Does not cover: one
 * round (rounds.c), norms themselves (steps.c), rounds that are odd in any way: they are left as they came, and with
 * them all that follow.
 */
#include "sweep.h"
#include "chosen.h"
#include "transfer.h"

#include <string.h>

enum { KIND_AT = 1, FLAGS_AT = 2, LAYER_AT = 4, CALL_ID_AT = 8, SWEEP_ID_AT = 16, NEXT_BYTES = 24 };

/* Write what the rows follow in a message (common/wire/packed_round.py). */
static void write_head(char *head, const struct stretch *stretch, const struct sweep_block *block, int64_t call_id) {
    const uint32_t layer = (uint32_t)block->layer;
    memset(head, 0, NEXT_BYTES);
    head[KIND_AT] = (char)block->kind;
    head[FLAGS_AT] = (char)stretch->flags;
    memcpy(head + LAYER_AT, &layer, sizeof layer);
    memcpy(head + CALL_ID_AT, &call_id, sizeof call_id);
    memcpy(head + SWEEP_ID_AT, &stretch->sweep_id, sizeof stretch->sweep_id);
}

/* Do once what a block's sum over all ranks is due. */
static void add_late_bias(const struct stretch *stretch, const float *bias) {
    for (ptrdiff_t row = 0; row < stretch->row_count; row++) {
        float *output = stretch->output + row * stretch->width;
        for (ptrdiff_t i = 0; i < stretch->width; i++) output[i] += bias[i];
    }
}

static int run_one(struct stretch *stretch, const struct sweep_block *block, struct swept_round *times,
                   struct answered *answered, int64_t call_id) {
    char head[NEXT_BYTES];
    const struct lane *lane = stretch->lanes + block->lane;
    chosen->normalize(stretch->hidden, stretch->has_output ? stretch->output : NULL, block->norm, stretch->row_count,
                      stretch->width, stretch->norm_epsilon, stretch->normed);
    stretch->has_output = 0;
    times->started_nanoseconds = clock_now();
    write_head(head, stretch, block, call_id);
    lane->round->answered = answered;
    const int outcome = run_round(lane->peers, lane->count, lane->round, head, NEXT_BYTES, stretch->normed,
                                  stretch->row_count * stretch->width, stretch->output);
    times->sent_nanoseconds = lane->round->sent_nanoseconds;
    if (outcome != DONE) return outcome;
    if (block->late_bias) add_late_bias(stretch, block->late_bias);
    stretch->has_output = 1;
    times->finished_nanoseconds = clock_now();
    return DONE;
}

/* Run rounds one after another until all blocks are done or `until_nanoseconds` has come; return how many are. *outcome:
 * DONE, or else what became of the one after these, which has been asked, and whose input is in `normed`: NOT_SIMPLE, its
 * peers say how far it has come; REFUSED, nothing has been sent. */
EXPORT ptrdiff_t shardmesh_run_stretch(struct stretch *stretch, int *outcome) {
    ptrdiff_t done = 0;
    *outcome = REFUSED;
    if (stretch->row_count < 1 || stretch->width < 1) return 0;
    do {
        if (done == stretch->block_count) break;
        *outcome = run_one(stretch, stretch->blocks + done, stretch->times + done,
                           stretch->answered + done * stretch->most_ranks, stretch->first_call_id + done);
        if (*outcome != DONE) break;
        done++;
    } while (clock_now() < stretch->until_nanoseconds);
    return done;
}

/* How is one tile computed, from a block's input to its part of the output?
 *
 * Covers: the products and the steps between them in one call, for any number of rows, weights in memory or in the page
 * cache; how threads share the steps.
 * Does not cover: products (kernel.c, ranges.c), steps (steps.c, attend.c, attend_block.c).
 *
 * One call and not five: between two calls from Python pass tens of microseconds, in which worker threads go to sleep.
 */
#include "chosen.h"
#include "tiles.h"
#include "workers.h"

#include <stdlib.h>

enum { LEAST_SHARED_BYTES = 32 * 1024 }; /* of keys and values: fewer are read before another thread has begun */

static int is_matrix(const struct matrix *matrix, ptrdiff_t depth) {
    return matrix->kind >= 0 && matrix->kind < WEIGHT_KINDS && matrix->depth == depth && matrix->width > 0;
}

/* sums = rows . matrix; rows have no gaps. */
static int multiply_by(const float *rows, ptrdiff_t row_count, const struct matrix *matrix, float *sums) {
    const struct product product = {
        .rows = rows, .row_pitch = matrix->depth, .row_count = row_count, .weights = matrix->memory, .fd = matrix->fd,
        .offset = matrix->offset, .kind = (enum weight_kind)matrix->kind, .depth = matrix->depth,
        .width = matrix->width, .sums = sums,
    };
    return multiply(&product);
}

static ptrdiff_t share_of(ptrdiff_t row_count, int part, int part_count) { return row_count * part / part_count; }

static void prepare_part(const void *work, int part, int part_count) {
    const struct attention *a = work;
    chosen->prepare(a, share_of(a->row_count, part, part_count), share_of(a->row_count, part + 1, part_count));
}

static ptrdiff_t blocks_of(const struct attention *a) {
    return (a->row_count * (a->query_count / a->kv_count) + QUERIES_AT_ONCE - 1) / QUERIES_AT_ONCE;
}

/* Blocks of queries of all KV heads are shared out one by one, the last ones, which look at most, first. */
static void attend_part(const void *work, int part, int part_count) {
    const struct attention *a = work;
    const ptrdiff_t blocks = blocks_of(a);
    for (ptrdiff_t number = part; number < blocks * a->kv_count; number += part_count)
        chosen->attend(a, number % a->kv_count, (blocks - 1 - number / a->kv_count) * QUERIES_AT_ONCE);
}

/* Carry one sequence's rows from the qkv product to the output product; threads take KV heads, and blocks of rows. */
static void attend(const struct attention *a) {
    const ptrdiff_t item = sizeof(float), row_bytes = (a->query_count + 2 * a->kv_count) * a->head_size * item;
    const ptrdiff_t bytes = a->kv_count * (a->first_position + a->row_count) * a->head_size * 2 * item;
    const ptrdiff_t parts = bytes < LEAST_SHARED_BYTES ? 1 : least(blocks_of(a) * a->kv_count, MOST_PARTS);
    workers_run(prepare_part, a, part_count_of(a->row_count * row_bytes, a->row_count));
    workers_run(attend_part, a, (int)parts);
}

/* What lies between an FFN tile's two products. */
struct gate {
    const struct ffn_tile *tile;
    ptrdiff_t row_count;
    float *both, *gated;
};

static void gate_part(const void *work, int part, int part_count) {
    const struct gate *gate = work;
    const ptrdiff_t first = share_of(gate->row_count, part, part_count), width = gate->tile->gate_up.width;
    const ptrdiff_t count = share_of(gate->row_count, part + 1, part_count) - first;
    float *both = gate->both + first * width;
    if (gate->tile->gate_up_bias)
        for (ptrdiff_t r = 0; r < count; r++)
            for (ptrdiff_t c = 0; c < width; c++) both[r * width + c] += gate->tile->gate_up_bias[c];
    chosen->gate(both, count, width / 2, (enum activation)gate->tile->activation, gate->gated + first * (width / 2));
}

EXPORT int shardmesh_multiply_matrix(const float *rows, ptrdiff_t row_count, const struct matrix *matrix, float *sums) {
    if (row_count < 0 || !is_matrix(matrix, matrix->depth)) return REFUSED;
    return multiply_by(rows, row_count, matrix, sums);
}

int run_ffn_tile(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part) {
    const ptrdiff_t columns = tile->gate_up.width / 2;
    if (row_count < 0 || tile->gate_up.width % 2 || !is_matrix(&tile->gate_up, tile->down.width) ||
        !is_matrix(&tile->down, columns) || tile->activation < 0 || tile->activation >= ACTIVATIONS)
        return REFUSED;
    float *const both = malloc((size_t)(row_count * columns * 3) * sizeof *both);
    if (!both) return NO_MEMORY;
    float *const gated = both + row_count * columns * 2;
    int outcome = multiply_by(rows, row_count, &tile->gate_up, both);
    if (outcome == DONE) {
        const struct gate gate = {.tile = tile, .row_count = row_count, .both = both, .gated = gated};
        workers_run(gate_part, &gate, part_count_of(row_count * columns * 3 * (ptrdiff_t)sizeof *both, row_count));
        outcome = multiply_by(gated, row_count, &tile->down, part);
    }
    free(both);
    return outcome;
}

int run_attention_tile(const float *rows, ptrdiff_t row_count, const struct attention_tile *tile,
                       struct attention *segments, ptrdiff_t segment_count, float *part) {
    const ptrdiff_t width = tile->qkv.width, context_width = tile->output.depth;
    ptrdiff_t row = 0;
    if (row_count < 0 || !is_matrix(&tile->qkv, tile->output.width) || !is_matrix(&tile->output, context_width))
        return REFUSED;
    float *const projected = malloc((size_t)(row_count * (width + context_width)) * sizeof *projected);
    if (!projected) return NO_MEMORY;
    float *const context = projected + row_count * width;
    for (ptrdiff_t s = 0; s < segment_count; s++) {
        struct attention *own = segments + s;
        const int fits = is_possible(own) && own->query_count * own->head_size == context_width &&
                         (own->query_count + 2 * own->kv_count) * own->head_size == width;
        own->projected = projected + row * width;
        own->context = context + row * context_width;
        row += own->row_count;
        if (!fits || row > row_count) row = -1, s = segment_count;
    }
    int outcome = row == row_count ? multiply_by(rows, row_count, &tile->qkv, projected) : REFUSED;
    for (ptrdiff_t s = 0; s < segment_count && outcome == DONE; s++) attend(segments + s);
    if (outcome == DONE) outcome = multiply_by(context, row_count, &tile->output, part);
    free(projected);
    return outcome;
}

EXPORT int shardmesh_feed_forward(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part) {
    return run_ffn_tile(rows, row_count, tile, part);
}

EXPORT int shardmesh_attention(const float *rows, ptrdiff_t row_count, const struct attention_tile *tile,
                               struct attention *segments, ptrdiff_t segment_count, float *part) {
    return run_attention_tile(rows, row_count, tile, segments, segment_count, part);
}

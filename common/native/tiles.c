/* How is one tile computed for a few rows, from a block's input to its part of the output?
 *
 * Covers: the products and the steps between them in one call, weights in memory or in the page cache.
 * Does not cover: products (kernel.c, ranges.c), steps (steps.c), many rows (torch: shardnode/work/kernels.py).
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

static void attend_part(const void *work, int part, int part_count) {
    (void)part_count;
    chosen->attend(work, part);
}

/* Carry one sequence's rows from the qkv product to the output product; threads take KV heads. */
static void attend(const struct attention *a) {
    chosen->prepare(a);
    const ptrdiff_t bytes = a->kv_count * (a->first_position + a->row_count) * a->head_size * 2 * (ptrdiff_t)sizeof(float);
    if (bytes >= LEAST_SHARED_BYTES && a->kv_count <= MOST_PARTS) {
        workers_run(attend_part, a, (int)a->kv_count);
        return;
    }
    for (ptrdiff_t h = 0; h < a->kv_count; h++) chosen->attend(a, h);
}

EXPORT int shardmesh_multiply_matrix(const float *rows, ptrdiff_t row_count, const struct matrix *matrix, float *sums) {
    if (row_count < 0 || !is_matrix(matrix, matrix->depth)) return REFUSED;
    return multiply_by(rows, row_count, matrix, sums);
}

int run_ffn_tile(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part) {
    const ptrdiff_t columns = tile->gate_up.width / 2;
    if (row_count < 0 || tile->gate_up.width % 2 || !is_matrix(&tile->gate_up, tile->down.width) ||
        !is_matrix(&tile->down, columns))
        return REFUSED;
    float *const both = malloc((size_t)(row_count * columns * 3) * sizeof *both);
    if (!both) return REFUSED;
    float *const gated = both + row_count * columns * 2;
    int outcome = multiply_by(rows, row_count, &tile->gate_up, both);
    if (outcome == DONE) {
        if (tile->gate_up_bias)
            for (ptrdiff_t r = 0; r < row_count; r++)
                for (ptrdiff_t c = 0; c < columns * 2; c++) both[r * columns * 2 + c] += tile->gate_up_bias[c];
        chosen->gate(both, row_count, columns, gated);
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
    if (!projected) return REFUSED;
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

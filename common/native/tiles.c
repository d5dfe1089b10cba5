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
#include <string.h>

enum { LEAST_SHARED_BYTES = 32 * 1024 }; /* of keys and values: fewer are read before another thread has begun */

static int is_matrix(const struct matrix *matrix, ptrdiff_t depth) {
    return matrix->depth == depth && matrix->width > 0 && fits_blocks(matrix->kind, depth);
}

/* Return how many columns one product with these matrices, side by side, would have; 0: they do not fit. */
static ptrdiff_t width_of(const struct matrix *matrices, int count, ptrdiff_t depth) {
    ptrdiff_t width = 0;
    for (int i = 0; i < count; i++) {
        if (!is_matrix(matrices + i, depth)) return 0;
        width += matrices[i].width;
    }
    return width;
}

/* Tell whether a matrix can be a tile's last, of which the tile has `columns` inputs. */
static int is_last(const struct matrix *matrix, ptrdiff_t skip, ptrdiff_t columns) {
    return is_matrix(matrix, matrix->depth) && columns > 0 && skip >= 0 && skip <= matrix->depth - columns;
}

/* sums[row_count, width] = rows . matrices, their results side by side; rows have no gaps. */
static int multiply_by(const float *rows, ptrdiff_t row_count, const struct matrix *matrices, int count, float *sums,
                       ptrdiff_t width) {
    struct product products[3];
    for (int i = 0; i < count; i++) {
        const struct matrix *matrix = matrices + i;
        products[i] = (struct product){
            .rows = rows, .row_pitch = matrix->depth, .row_count = row_count, .weights = matrix->memory,
            .fd = matrix->fd, .offset = matrix->offset, .kind = (enum weight_kind)matrix->kind, .depth = matrix->depth,
            .width = matrix->width, .sums = sums, .sums_pitch = width,
        };
        sums += matrix->width;
    }
    return multiply_all(products, count);
}

/* Move rows of `columns` numbers to where they are inputs of a tile's last matrix, zeros around them. They end where the
 * memory for rows of `depth` does, so that the first ones move first. */
static void spread(float *memory, ptrdiff_t row_count, ptrdiff_t columns, ptrdiff_t skip, ptrdiff_t depth) {
    const float *from = memory + row_count * (depth - columns);
    for (ptrdiff_t row = 0; row < row_count; row++, memory += depth, from += columns) {
        memmove(memory + skip, from, (size_t)columns * sizeof *from);
        memset(memory, 0, (size_t)skip * sizeof *memory);
        memset(memory + skip + columns, 0, (size_t)(depth - skip - columns) * sizeof *memory);
    }
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
    ptrdiff_t row_count, width; /* of both */
    float *both, *gated;
};

static void gate_part(const void *work, int part, int part_count) {
    const struct gate *gate = work;
    const ptrdiff_t first = share_of(gate->row_count, part, part_count), width = gate->width;
    const ptrdiff_t count = share_of(gate->row_count, part + 1, part_count) - first;
    float *both = gate->both + first * width;
    if (gate->tile->gate_up_bias)
        for (ptrdiff_t r = 0; r < count; r++)
            for (ptrdiff_t c = 0; c < width; c++) both[r * width + c] += gate->tile->gate_up_bias[c];
    chosen->gate(both, count, width / 2, (enum activation)gate->tile->activation, gate->gated + first * (width / 2));
}

EXPORT int shardmesh_multiply_matrix(const float *rows, ptrdiff_t row_count, const struct matrix *matrix, float *sums) {
    if (row_count < 0 || !is_matrix(matrix, matrix->depth)) return REFUSED;
    return multiply_by(rows, row_count, matrix, 1, sums, matrix->width);
}

int run_ffn_tile(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part) {
    const int count = tile->projection_count;
    if (row_count < 0 || count < 1 || count > 2 || tile->activation < 0 || tile->activation >= ACTIVATIONS)
        return REFUSED;
    const ptrdiff_t width = width_of(tile->gate_up, count, tile->down.width), columns = width / 2;
    if (width % 2 || (count == 2 && tile->gate_up[0].width != columns) ||
        !is_last(&tile->down, tile->down_skip, columns))
        return REFUSED;
    const ptrdiff_t depth = tile->down.depth;
    float *const both = malloc((size_t)(row_count * (width + depth)) * sizeof *both);
    if (!both) return NO_MEMORY;
    float *const inputs = both + row_count * width, *const gated = inputs + row_count * (depth - columns);
    int outcome = multiply_by(rows, row_count, tile->gate_up, count, both, width);
    if (outcome == DONE) {
        const struct gate gate = {.tile = tile, .row_count = row_count, .width = width, .both = both, .gated = gated};
        workers_run(gate_part, &gate, part_count_of(row_count * columns * 3 * (ptrdiff_t)sizeof *both, row_count));
        if (depth > columns) spread(inputs, row_count, columns, tile->down_skip, depth);
        outcome = multiply_by(inputs, row_count, &tile->down, 1, part, tile->down.width);
    }
    free(both);
    return outcome;
}

/* Tell whether a sequence's heads are those of a tile whose matrices have so many columns. */
static int has_heads_of(const struct attention_tile *tile, const struct attention *a, ptrdiff_t width) {
    const ptrdiff_t queries = a->query_count * a->head_size, keys = a->kv_count * a->head_size;
    if (queries + 2 * keys != width) return 0;
    return tile->projection_count == 1 || (tile->projections[0].width == queries && tile->projections[1].width == keys);
}

int run_attention_tile(const float *rows, ptrdiff_t row_count, const struct attention_tile *tile,
                       struct attention *segments, ptrdiff_t segment_count, float *part) {
    const int count = tile->projection_count;
    if (row_count < 0 || (count != 1 && count != 3) || (segment_count > 0 && !is_possible(segments))) return REFUSED;
    const ptrdiff_t width = width_of(tile->projections, count, tile->output.width), depth = tile->output.depth;
    const ptrdiff_t columns = segment_count > 0 ? segments->query_count * segments->head_size : depth;
    ptrdiff_t row = 0;
    if (!width || !is_last(&tile->output, tile->output_skip, columns)) return REFUSED;
    float *const projected = malloc((size_t)(row_count * (width + depth)) * sizeof *projected);
    if (!projected) return NO_MEMORY;
    float *const inputs = projected + row_count * width, *const context = inputs + row_count * (depth - columns);
    for (ptrdiff_t s = 0; s < segment_count; s++) {
        struct attention *own = segments + s;
        const int fits = is_possible(own) && own->query_count * own->head_size == columns && has_heads_of(tile, own, width);
        own->projected = projected + row * width;
        own->context = context + row * columns;
        row += own->row_count;
        if (!fits || row > row_count) row = -1, s = segment_count;
    }
    int outcome = row == row_count ? multiply_by(rows, row_count, tile->projections, count, projected, width) : REFUSED;
    for (ptrdiff_t s = 0; s < segment_count && outcome == DONE; s++) attend(segments + s);
    if (outcome == DONE && depth > columns) spread(inputs, row_count, columns, tile->output_skip, depth);
    if (outcome == DONE) outcome = multiply_by(inputs, row_count, &tile->output, 1, part, tile->output.width);
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

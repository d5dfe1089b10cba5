/* What does one row attend to: the softmax of its scores with all positions before it, times those positions' values?
 *
 * Covers: one thread, one instruction set; compiled once for each, from plain loops that compilers vectorize.
 * Does not cover: many rows at once (attend_block.c), rotation, norms (steps.c).
 *
 * A score is LANES_KEPT chains of fused multiply-adds along the head, added up in one order; positions are taken in
 * blocks, with the largest score so far; sums over positions go in their order.
 * Sources: arXiv:1706.03762 (attention), arXiv:1805.02867 (softmax in one pass).
 */
#include "functions.h"
#include "steps.h"

#include <math.h>

enum { HEADS_AT_ONCE = 16 };

/* Add the positions from `first` up to `stop` to one query head's softmax: *top is the largest score so far, *total
 * the sum of all e^(score - *top), `context` the sum of values times that. */
static void add_positions(const struct attention *a, const float *query, const float *keys, const float *values,
                          ptrdiff_t first, ptrdiff_t stop, float *top, float *total, float *context) {
    const ptrdiff_t size = a->head_size, count = stop - first;
    const float factor = 1.0f / sqrtf((float)size);
    float scores[POSITIONS_AT_ONCE], largest = *top;
    for (ptrdiff_t p = 0; p < count; p++) {
        scores[p] = dot(query, keys + (first + p) * size, size) * factor;
        largest = scores[p] > largest ? scores[p] : largest;
    }
    if (largest > *top) {
        const float shrink = *total > 0 ? exponential(*top - largest) : 0.0f;
        *total *= shrink;
        for (ptrdiff_t i = 0; i < size; i++) context[i] *= shrink;
        *top = largest;
    }
    for (ptrdiff_t p = 0; p < count; p++) scores[p] = exponential(scores[p] - largest);
    for (ptrdiff_t p = 0; p < count; p++) {
        const float *value = values + (first + p) * size;
        const float weight = scores[p];
        *total += weight;
        for (ptrdiff_t i = 0; i < size; i++) context[i] = __builtin_fmaf(weight, value[i], context[i]);
    }
}

/* At most HEADS_AT_ONCE query heads of one KV head, for one row: keys and values are read once for them, block by block. */
void VARIANT(attend_heads)(const struct attention *a, ptrdiff_t row, ptrdiff_t kv_head, ptrdiff_t first_head,
                           ptrdiff_t heads) {
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count, stop = stop_of(a, row);
    const ptrdiff_t width = (a->query_count + 2 * a->kv_count) * size, head = kv_head * group + first_head;
    const float *keys = a->keys + kv_head * a->head_pitch, *values = a->values + kv_head * a->head_pitch;
    const float *queries = a->projected + row * width + head * size;
    float *contexts = a->context + (row * a->query_count + head) * size;
    float tops[HEADS_AT_ONCE], totals[HEADS_AT_ONCE] = {0};
    for (ptrdiff_t h = 0; h < heads; h++) tops[h] = -INFINITY;
    memset(contexts, 0, (size_t)(heads * size) * sizeof *contexts);
    for (ptrdiff_t first = start_of(a, row), end; first < stop; first = end) {
        end = least(stop, (first / POSITIONS_AT_ONCE + 1) * POSITIONS_AT_ONCE);
        for (ptrdiff_t h = 0; h < heads; h++)
            add_positions(a, queries + h * size, keys, values, first, end, tops + h, totals + h, contexts + h * size);
    }
    for (ptrdiff_t h = 0; h < heads; h++)
        for (ptrdiff_t i = 0; i < size; i++) contexts[h * size + i] /= totals[h];
}

void VARIANT(attend_rows)(const struct attention *a, ptrdiff_t kv_head) {
    const ptrdiff_t group = a->query_count / a->kv_count;
    for (ptrdiff_t row = 0; row < a->row_count; row++)
        for (ptrdiff_t head = 0; head < group; head += HEADS_AT_ONCE)
            VARIANT(attend_heads)(a, row, kv_head, head, least(group - head, HEADS_AT_ONCE));
}

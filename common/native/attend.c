/* What does one query attend to: the softmax of its scores with all positions before it, times those positions' values?
 *
 * Covers: one thread, one instruction set; compiled once for each, from plain loops that compilers vectorize.
 * Does not cover: several queries at once (attend_block.c), rotation, norms (steps.c).
 *
 * A score is LANES_KEPT chains of fused multiply-adds along the head, added up in one order; positions are taken in
 * blocks, with the largest score so far; sums over positions go in their order.
 * Sources: arXiv:1706.03762 (attention), arXiv:1805.02867 (softmax in one pass).
 */
#include "functions.h"
#include "steps.h"

#include <math.h>

/* Add the positions from `first` up to `stop` to one query's softmax: *top is the largest score so far, *total
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

void VARIANT(attend_query)(const struct attention *a, ptrdiff_t row, ptrdiff_t kv_head, ptrdiff_t head) {
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count, stop = stop_of(a, row);
    const ptrdiff_t width = (a->query_count + 2 * a->kv_count) * size, place = (kv_head * group + head) * size;
    const float *keys = a->keys + kv_head * a->head_pitch, *values = a->values + kv_head * a->head_pitch;
    float *context = a->context + row * a->query_count * size + place;
    float top = -INFINITY, total = 0;
    memset(context, 0, (size_t)size * sizeof *context);
    for (ptrdiff_t first = start_of(a, row), end; first < stop; first = end) {
        end = least(stop, (first / POSITIONS_AT_ONCE + 1) * POSITIONS_AT_ONCE);
        add_positions(a, a->projected + row * width + place, keys, values, first, end, &top, &total, context);
    }
    for (ptrdiff_t i = 0; i < size; i++) context[i] /= total;
}

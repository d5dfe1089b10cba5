/* How are a few rows carried from one product to the next: rotation, attention, gate, sum of parts, norm?
 *
 * Covers: one thread, one instruction set; compiled once for each, from plain loops that compilers vectorize.
 * Does not cover: products (kernel.c), which instruction set (matmul.c).
 *
 * Why not torch: the work is microseconds, but between two rounds the weights have pushed torch's code out of the
 * caches, and each of its operations takes 40 microseconds to come back. Here the whole step is a few kilobytes.
 * Sums that run along a row are kept in LANES_KEPT parts and added up in one order, so that they are the same bits on
 * every instruction set. Sources: arXiv:1706.03762 (attention), arXiv:1805.02867 (softmax in one pass),
 * arXiv:2104.09864 (rotation), arXiv:1910.07467 (norm), arXiv:2002.05202 (gate).
 */
#include "steps.h"
#include "vectors.h"

#include <math.h>
#include <string.h>

enum { LANES_KEPT = 16, POSITIONS_AT_ONCE = 64 };

/* Return e^x, within two units in the last place; 0 and not a subnormal below -87. */
ALWAYS_INLINE float exponential(float x) {
    const float bounded = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it leaves no room for a fraction */
    const float shifted = __builtin_fmaf(bounded, 1.44269504f, rounding);
    const float whole = shifted - rounding;
    float rest = __builtin_fmaf(whole, -0.693359375f, bounded);
    rest = __builtin_fmaf(whole, 2.12194440e-4f, rest);
    float sum = 1.9875691500e-4f; /* coefficients: Cephes, expf */
    sum = __builtin_fmaf(sum, rest, 1.3981999507e-3f);
    sum = __builtin_fmaf(sum, rest, 8.3334519073e-3f);
    sum = __builtin_fmaf(sum, rest, 4.1665795894e-2f);
    sum = __builtin_fmaf(sum, rest, 1.6666665459e-1f);
    sum = __builtin_fmaf(sum, rest, 5.0000001201e-1f);
    sum = __builtin_fmaf(sum * rest, rest, rest + 1.0f);
    uint32_t bits; /* unsigned: of what is not a number, anything may be shifted out */
    memcpy(&bits, &shifted, sizeof bits);
    const uint32_t power = (bits - 0x4B400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return x < -87.0f ? 0.0f : sum * scale;
}

ALWAYS_INLINE float added_up(const float *lanes) {
    float eight[8], four[4];
    for (int i = 0; i < 8; i++) eight[i] = lanes[i] + lanes[i + 8];
    for (int i = 0; i < 4; i++) four[i] = eight[i] + eight[i + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

ALWAYS_INLINE float dot(const float *a, const float *b, ptrdiff_t count) {
    float lanes[LANES_KEPT] = {0};
    ptrdiff_t i = 0;
    for (; i + LANES_KEPT <= count; i += LANES_KEPT)
        for (int lane = 0; lane < LANES_KEPT; lane++)
            lanes[lane] = __builtin_fmaf(a[i + lane], b[i + lane], lanes[lane]);
    for (int lane = 0; i < count; i++, lane++) lanes[lane] = __builtin_fmaf(a[i], b[i], lanes[lane]);
    return added_up(lanes);
}

ALWAYS_INLINE void scale_row(float *row, const float *weight, float factor, ptrdiff_t count, float *to) {
    for (ptrdiff_t i = 0; i < count; i++) to[i] = row[i] * factor * weight[i];
}

ALWAYS_INLINE float inverse_rms(const float *row, ptrdiff_t count, float epsilon) {
    return 1.0f / sqrtf(dot(row, row, count) / (float)count + epsilon);
}

/* Norm, if there is one, and turn one head: x * cosine + (x rolled by half its size) * sine. */
static void turn(float *head, const float *norm, const struct attention *a, ptrdiff_t row) {
    const ptrdiff_t size = a->head_size, half = size / 2;
    const float *cosine = a->cosine + row * size, *sine = a->sine + row * size;
    float turned[MOST_HEAD_SIZE];
    if (norm) scale_row(head, norm, inverse_rms(head, size, a->norm_epsilon), size, head);
    for (ptrdiff_t i = 0; i < half; i++) turned[i] = __builtin_fmaf(head[i + half], sine[i], head[i] * cosine[i]);
    for (ptrdiff_t i = half; i < size; i++) turned[i] = __builtin_fmaf(head[i - half], sine[i], head[i] * cosine[i]);
    memcpy(head, turned, (size_t)size * sizeof *head);
}

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

/* All query heads of one KV head, for one row: keys and values are read once, block by block. */
static void attend_group(const struct attention *a, ptrdiff_t row, ptrdiff_t kv_head, const float *queries) {
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count, stop = a->first_position + row + 1;
    const ptrdiff_t start = a->sliding_window && stop > a->sliding_window ? stop - a->sliding_window : 0;
    const float *keys = a->keys + kv_head * a->head_pitch, *values = a->values + kv_head * a->head_pitch;
    float *contexts = a->context + (row * a->query_count + kv_head * group) * size;
    enum { HEADS_AT_ONCE = 16 };
    for (ptrdiff_t done = 0; done < group; done += HEADS_AT_ONCE) {
        const ptrdiff_t heads = group - done < HEADS_AT_ONCE ? group - done : HEADS_AT_ONCE;
        float tops[HEADS_AT_ONCE], totals[HEADS_AT_ONCE] = {0};
        for (ptrdiff_t h = 0; h < heads; h++) tops[h] = -INFINITY;
        memset(contexts + done * size, 0, (size_t)(heads * size) * sizeof *contexts);
        for (ptrdiff_t first = start; first < stop; first += POSITIONS_AT_ONCE) {
            const ptrdiff_t end = stop - first < POSITIONS_AT_ONCE ? stop : first + POSITIONS_AT_ONCE;
            for (ptrdiff_t h = 0; h < heads; h++)
                add_positions(a, queries + (done + h) * size, keys, values, first, end, tops + h, totals + h,
                              contexts + (done + h) * size);
        }
        for (ptrdiff_t h = 0; h < heads; h++)
            for (ptrdiff_t i = 0; i < size; i++) contexts[(done + h) * size + i] /= totals[h];
    }
}

void VARIANT(prepare_rows)(const struct attention *a) {
    const ptrdiff_t size = a->head_size, turned = a->query_count + a->kv_count;
    const ptrdiff_t width = (turned + a->kv_count) * size;
    for (ptrdiff_t row = 0; row < a->row_count; row++) {
        float *heads = a->projected + row * width;
        if (a->bias)
            for (ptrdiff_t i = 0; i < width; i++) heads[i] += a->bias[i];
        for (ptrdiff_t h = 0; h < turned; h++)
            turn(heads + h * size, h < a->query_count ? a->query_norm : a->key_norm, a, row);
        for (ptrdiff_t h = 0; h < a->kv_count; h++) {
            const ptrdiff_t place = h * a->head_pitch + (a->first_position + row) * size;
            memcpy(a->keys + place, heads + (a->query_count + h) * size, (size_t)size * sizeof *heads);
            memcpy(a->values + place, heads + (turned + h) * size, (size_t)size * sizeof *heads);
        }
    }
}

void VARIANT(attend_rows)(const struct attention *a, ptrdiff_t kv_head) {
    const ptrdiff_t size = a->head_size, width = (a->query_count + 2 * a->kv_count) * size;
    for (ptrdiff_t row = 0; row < a->row_count; row++)
        attend_group(a, row, kv_head, a->projected + row * width + kv_head * (a->query_count / a->kv_count) * size);
}

void VARIANT(gate_rows)(const float *both, ptrdiff_t row_count, ptrdiff_t columns, float *gated) {
    for (ptrdiff_t row = 0; row < row_count; row++) {
        const float *gate = both + row * 2 * columns, *up = gate + columns;
        float *to = gated + row * columns;
        for (ptrdiff_t i = 0; i < columns; i++) to[i] = gate[i] / (1.0f + exponential(-gate[i])) * up[i];
    }
}

int VARIANT(add_parts)(const float *const *parts, ptrdiff_t part_count, ptrdiff_t count, float *sums) {
    enum { NUMBERS_AT_ONCE = 2048 }; /* so many sums stay in the innermost cache while parts are added to them */
    int is_infinite = 0;
    for (ptrdiff_t first = 0; first < count; first += NUMBERS_AT_ONCE) {
        const ptrdiff_t size = count - first < NUMBERS_AT_ONCE ? count - first : NUMBERS_AT_ONCE;
        float *own = sums + first;
        memcpy(own, parts[0] + first, (size_t)size * sizeof *own);
        for (ptrdiff_t part = 1; part < part_count; part++)
            for (ptrdiff_t i = 0; i < size; i++) own[i] += parts[part][first + i];
        for (ptrdiff_t i = 0; i < size; i++) {
            uint32_t bits;
            memcpy(&bits, own + i, sizeof bits);
            is_infinite |= (bits & 0x7F800000u) == 0x7F800000u;
        }
    }
    return is_infinite;
}

void VARIANT(normalize_rows)(float *hidden, const float *addend, const float *weight, ptrdiff_t row_count,
                             ptrdiff_t width, float epsilon, float *normed) {
    for (ptrdiff_t row = 0; row < row_count; row++) {
        float *own = hidden + row * width;
        if (addend)
            for (ptrdiff_t i = 0; i < width; i++) own[i] += addend[row * width + i];
        scale_row(own, weight, inverse_rms(own, width, epsilon), width, normed + row * width);
    }
}

/* How are rows carried from one product to the next: rotation, gate, sum of parts, norm?
 *
 * Covers: one thread, one instruction set; compiled once for each, from plain loops that compilers vectorize.
 * Does not cover: attention (attend.c, attend_block.c), products (kernel.c), which instruction set (matmul.c).
 *
 * Why not one operation of a library after another: the work is microseconds, but between two rounds the weights have
 * pushed the library's code out of the caches (40 microseconds an operation of torch's). A whole step here is a few kilobytes.
 * Sums that run along a row are kept in LANES_KEPT parts and added up in one order, so that they are the same bits on
 * every instruction set. Sources: arXiv:2104.09864 (rotation), arXiv:1910.07467 (norm), arXiv:2002.05202 (gate),
 * arXiv:1606.08415 (gelu).
 */
#include "functions.h"
#include "steps.h"

#include <math.h>

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

void VARIANT(prepare_rows)(const struct attention *a, ptrdiff_t first, ptrdiff_t stop) {
    const ptrdiff_t size = a->head_size, turned = a->query_count + a->kv_count;
    const ptrdiff_t width = (turned + a->kv_count) * size;
    for (ptrdiff_t row = first; row < stop; row++) {
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

/* The gate of one number; `activation` is a constant where this is called. */
ALWAYS_INLINE float activated(float x, const enum activation activation) {
    if (activation == GELU) return x * normal_share(x);
    /* (1 + tanh(u)) / 2 = 1 / (1 + e^-2u), with u = sqrt(2 / pi) * (x + 0.044715 * x^3) */
    const float twice = activation == SILU ? x : x * __builtin_fmaf(x * x, 0.0713548163f, 1.59576912f);
    return x / (1.0f + exponential(-twice));
}

ALWAYS_INLINE void gate_all(const float *both, ptrdiff_t row_count, ptrdiff_t columns,
                            const enum activation activation, float *gated) {
    for (ptrdiff_t row = 0; row < row_count; row++) {
        const float *gate = both + row * 2 * columns, *up = gate + columns;
        float *to = gated + row * columns;
        for (ptrdiff_t i = 0; i < columns; i++) to[i] = activated(gate[i], activation) * up[i];
    }
}

void VARIANT(gate_rows)(const float *both, ptrdiff_t row_count, ptrdiff_t columns, enum activation activation,
                        float *gated) {
    if (activation == SILU) gate_all(both, row_count, columns, SILU, gated);
    else if (activation == GELU) gate_all(both, row_count, columns, GELU, gated);
    else gate_all(both, row_count, columns, GELU_TANH, gated);
}

/* Return a part's numbers from one on, wherever the messages around them have put them. */
ALWAYS_INLINE const float *part_from(const char *part, ptrdiff_t first_byte, ptrdiff_t number) {
    return (const float *)(const void *)(part + first_byte) + number;
}

int VARIANT(add_parts)(const char *const *parts, ptrdiff_t first_byte, ptrdiff_t part_count, ptrdiff_t count,
                       float *sums) {
    enum { NUMBERS_AT_ONCE = 2048 }; /* so many sums stay in the innermost cache while parts are added to them */
    int is_infinite = 0;
    for (ptrdiff_t first = 0; first < count; first += NUMBERS_AT_ONCE) {
        const ptrdiff_t size = count - first < NUMBERS_AT_ONCE ? count - first : NUMBERS_AT_ONCE;
        float *own = sums + first;
        memcpy(own, part_from(parts[0], first_byte, first), (size_t)size * sizeof *own);
        for (ptrdiff_t part = 1; part < part_count; part++) {
            const float *added = part_from(parts[part], first_byte, first);
            for (ptrdiff_t i = 0; i < size; i++) own[i] += added[i];
        }
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

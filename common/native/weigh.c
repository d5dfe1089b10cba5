/* How likely is each token of a vocabulary, which of them stand out, and what do the others come to?
 *
 * Covers: one row of logits, one thread, one instruction set; compiled once for each, from plain loops that compilers
 * vectorize. Does not cover: which token is chosen (sampling.c).
 *
 * The same bits everywhere, and those of numpy's way (coordinator/engine/plain_choice.py): e to the x is made of products
 * and sums of float64, each rounded for itself. Sums over a row are kept in SUMS_KEPT parts and added up in one order.
 */
#include "sampling.h"
#include "vectors.h"

#include <string.h>

enum { SUMS_KEPT = 16 };

/* As in functions.h, of float64: of `?:` compilers make branches, and then they make no vectors. */
ALWAYS_INLINE uint64_t mask_of(int condition) { return -(uint64_t)condition; }
ALWAYS_INLINE double either(uint64_t mask, double a, double b) {
    uint64_t a_bits, b_bits;
    double made;
    memcpy(&a_bits, &a, sizeof a);
    memcpy(&b_bits, &b, sizeof b);
    a_bits = (a_bits & mask) | (b_bits & ~mask);
    memcpy(&made, &a_bits, sizeof made);
    return made;
}

float VARIANT(highest_of)(const float *logits, ptrdiff_t count, int *is_finite) {
    float highest[SUMS_KEPT];
    uint32_t are_not = 0, bits;
    ptrdiff_t i = 0;
    for (int lane = 0; lane < SUMS_KEPT; lane++) highest[lane] = logits[0];
    for (; i + SUMS_KEPT <= count; i += SUMS_KEPT)
        for (int lane = 0; lane < SUMS_KEPT; lane++)
            highest[lane] = logits[i + lane] > highest[lane] ? logits[i + lane] : highest[lane];
    for (; i < count; i++) highest[0] = logits[i] > highest[0] ? logits[i] : highest[0];
    for (int lane = 1; lane < SUMS_KEPT; lane++) highest[0] = highest[lane] > highest[0] ? highest[lane] : highest[0];
    for (i = 0; i < count; i++) {
        memcpy(&bits, logits + i, sizeof bits);
        are_not |= -(uint32_t)((bits & 0x7F800000u) == 0x7F800000u);
    }
    *is_finite = !are_not;
    return highest[0];
}

void VARIANT(weigh_logits)(const float *logits, ptrdiff_t count, float highest, float temperature, double *weights) {
    const double rounding = 6755399441055744.0; /* 1.5 * 2^52: adding it leaves no room for a fraction */
    for (ptrdiff_t i = 0; i < count; i++) {
        const float score = (logits[i] - highest) / temperature;
        const double exact = (double)score * 0x1.71547652b82fep+0; /* as powers of 2 */
        const double bounded = either(mask_of(exact > -1023.0), exact, -1023.0);
        const double shifted = bounded + rounding, rest = bounded - (shifted - rounding);
        double power = 0x1.62c0223a5c823p-20; /* of 2 to the x: powers of ln 2 by factorials */
        power = power * rest + 0x1.ffcbfc588b0c6p-17;
        power = power * rest + 0x1.430912f86c787p-13;
        power = power * rest + 0x1.5d87fe78a6731p-10;
        power = power * rest + 0x1.3b2ab6fba4e77p-7;
        power = power * rest + 0x1.c6b08d704a0bfp-5;
        power = power * rest + 0x1.ebfbdff82c58ep-3;
        power = power * rest + 0x1.62e42fefa39efp-1;
        power = power * rest + 1.0;
        uint64_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        bits = (bits - UINT64_C(0x4338000000000000) + 1023u) << 52; /* 0 for the least */
        double scale;
        memcpy(&scale, &bits, sizeof scale);
        weights[i] = power * scale;
    }
}

ALWAYS_INLINE double added_up(double *sums) {
    for (int half = SUMS_KEPT / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

ptrdiff_t VARIANT(part_weights)(const double *weights, ptrdiff_t count, double least, int32_t *places, double *below) {
    double sums[SUMS_KEPT] = {0};
    ptrdiff_t found = 0, i = 0;
    for (; i + SUMS_KEPT <= count; i += SUMS_KEPT)
        for (int lane = 0; lane < SUMS_KEPT; lane++)
            sums[lane] += either(mask_of(weights[i + lane] < least), weights[i + lane], 0.0);
    for (; i < count; i++) sums[0] += weights[i] < least ? weights[i] : 0.0;
    *below = added_up(sums);
    if (!places) return 0;
    for (i = 0; i < count; i++) { /* without a branch */
        places[found] = (int32_t)i;
        found += weights[i] >= least;
    }
    return found;
}

/* What are e^x, the error function and a sum along a row, the same bits on every instruction set?
 *
 * Covers: functions of one number, which compilers vectorize; the order in which a row's products are added up.
 * Does not cover: loops over rows (steps.c, attend.c).
 */
#ifndef SHARDMESH_FUNCTIONS_H
#define SHARDMESH_FUNCTIONS_H

#include "vectors.h"

#include <stddef.h>
#include <string.h>

enum { LANES_KEPT = 16 }; /* sums along a row are kept in so many parts, whatever the instruction set has */

/* A loop that becomes straight code. */
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

/* Return a where the bits of `mask` are set and b where they are not: of `?:` compilers make branches, and then they make
 * no vectors. */
ALWAYS_INLINE float either(uint32_t mask, float a, float b) {
    uint32_t a_bits, b_bits;
    float made;
    memcpy(&a_bits, &a, sizeof a);
    memcpy(&b_bits, &b, sizeof b);
    a_bits = (a_bits & mask) | (b_bits & ~mask);
    memcpy(&made, &a_bits, sizeof made);
    return made;
}
ALWAYS_INLINE uint32_t mask_of(int condition) { return -(uint32_t)condition; }

/* Return e^x, within two units in the last place; 0 and not a subnormal below -87. */
ALWAYS_INLINE float exponential(float x) {
    const uint32_t is_small = mask_of(x < -87.0f);
    const float least = either(is_small, -87.0f, x), bounded = least > 88.0f ? 88.0f : least;
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
    return either(is_small, 0.0f, sum * scale);
}

/* Return the value at x of the polynomial with these coefficients, the highest power's first. */
#define POLYNOMIAL(x, ...)                                                                                            \
    polynomial(x, (const float[]){__VA_ARGS__}, (int)(sizeof(float[]){__VA_ARGS__} / sizeof(float)))
ALWAYS_INLINE float polynomial(float x, const float *coefficients, const int count) {
    float sum = coefficients[0];
    UNROLLED for (int i = 1; i < count; i++) sum = __builtin_fmaf(sum, x, coefficients[i]);
    return sum;
}

/* Return the share of a normal distribution that lies below x: (1 + erf(x / sqrt(2))) / 2, within 1e-7.
 * Coefficients: Cephes, erff and erfcf. */
ALWAYS_INLINE float normal_share(float x) {
    const float at = x * 0.70710678f, size = at < 0.0f ? -at : at, square = at * at;
    const float inner = at * POLYNOMIAL(square, 7.853861353153693e-5f, -8.010193625184903e-4f, 5.188327685732524e-3f,
                                        -2.685381193529856e-2f, 1.128358514861418e-1f, -3.761262582423300e-1f,
                                        1.128379165726710f);
    const float inverse = 1.0f / (size < 1.0f ? 1.0f : size), small = inverse * inverse;
    const float near = POLYNOMIAL(small, 2.326819970068386e-2f, -1.387039388740657e-1f, 3.687424674597105e-1f,
                                  -5.824733027278666e-1f, 6.210004621745983e-1f, -4.944515323274145e-1f,
                                  3.404879937665872e-1f, -2.741127028184656e-1f, 5.638259427386472e-1f);
    const float far = POLYNOMIAL(small, -1.047766399936249e1f, 1.297719955372516e1f, -7.495518717768503f,
                                 2.921019019210786f, -1.015265279202700f, 4.218463358204948e-1f,
                                 -2.820767439740514e-1f, 5.641895067754075e-1f);
    const float outer = exponential(-square) * inverse * either(mask_of(size < 2.0f), near, far); /* erfc(|at|) */
    const float beyond = either(mask_of(at < 0.0f), 0.5f * outer, 1.0f - 0.5f * outer);
    return either(mask_of(size < 1.0f), 0.5f + 0.5f * inner, beyond);
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

#endif

/* How are codes of four inputs multiplied with four whole numbers and added up, in each lane of a vector?
 *
 * Covers: one section for each instruction set; how many such words a partial sum has room for; inputs of 8 bits.
 * Does not cover: taking codes out of words (fours.h), scales (integers.c). Every sum is exact, so that all sections agree.
 */
#ifndef SHARDMESH_DOTS_H
#define SHARDMESH_DOTS_H

#include "rounded.h"
#include "scales.h"

/* Four numbers in every lane. */
ALWAYS_INLINE int32_t four_at(const int8_t *numbers) {
    int32_t four;
    memcpy(&four, numbers, sizeof four);
    return four;
}

enum { ROWS_OF_8 = 4 }; /* whose products with codes of 8 bits are made at once */
enum { SIZE_OF_8 = 128 }; /* what is added to codes of 8 bits where they have to be without a sign */

#if defined(__clang__)
#define ROLLED _Pragma("unroll 2")
#else
#define ROLLED _Pragma("GCC unroll 2")
#endif
#define EACH_OF_8(r, count) UNROLLED for (int r = 0; r < ROWS_OF_8; r++) if (r < (count))

#if defined(SHARDMESH_VNNI)

typedef __m512i partial;
ALWAYS_INLINE int words_at_once(const int bits) { return bits * 0 + 8; }
ALWAYS_INLINE partial no_products(void) { return _mm512_setzero_si512(); }
ALWAYS_INLINE partial add_products(partial sum, words codes, const int8_t *numbers) {
    return _mm512_dpbusd_epi32(sum, (__m512i)codes, _mm512_set1_epi32(four_at(numbers)));
}
ALWAYS_INLINE whole_numbers added(partial sum) { return (whole_numbers)sum; }

/* Four neighbouring inputs' bytes of 16 outputs are one vector: they change places, then lie four to a lane. */
ALWAYS_INLINE void dots_of_8(const char *codes, const struct rounded_piece *const *rows, const int count,
                             whole_numbers (*dots)[GROUP / LANES]) {
    const __m512i lanes = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i sum[ROWS_OF_8];
    EACH_OF_8(r, count) sum[r] = _mm512_set1_epi32(-SIZE_OF_8 * rows[r]->whole_sum);
    UNROLLED for (int i = 0; i < PIECE; i += 4) {
        const __m512i four = _mm512_loadu_si512(codes + i * GROUP);
        const __m512i turned = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes, four), bytes);
        const __m512i own = _mm512_xor_si512(turned, _mm512_set1_epi8((char)SIZE_OF_8));
        EACH_OF_8(r, count)
            sum[r] = _mm512_dpbusd_epi32(sum[r], own, _mm512_set1_epi32(four_at(rows[r]->numbers + i)));
    }
    EACH_OF_8(r, count) dots[r][0] = (whole_numbers)sum[r];
}

#elif defined(SHARDMESH_AVX2)

/* Sums of two products in 16 bits: 2 * 127 * (2^bits - 1) each, of 5 bits twice that (fours.h). */
typedef __m256i partial;
ALWAYS_INLINE int words_at_once(const int bits) { return bits == 6 || bits == 5 ? 2 : 8; }
ALWAYS_INLINE partial no_products(void) { return _mm256_setzero_si256(); }
ALWAYS_INLINE partial add_products(partial sum, words codes, const int8_t *numbers) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16((__m256i)codes, _mm256_set1_epi32(four_at(numbers))));
}
ALWAYS_INLINE whole_numbers added(partial sum) { return (whole_numbers)_mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

/* Two neighbouring inputs at a time, each output's side by side and widened to 16 bits. Loops stay loops: compilers would
 * load all of a piece before the first product, and have registers for an eighth of it. */
ALWAYS_INLINE void dots_of_8(const char *codes, const struct rounded_piece *const *rows, const int count,
                             whole_numbers (*dots)[GROUP / LANES]) {
    int16_t numbers[ROWS_OF_8][PIECE] __attribute__((aligned(32)));
    __m256i low[ROWS_OF_8], high[ROWS_OF_8];
    EACH_OF_8(r, count) {
        low[r] = high[r] = _mm256_setzero_si256();
        UNROLLED for (int i = 0; i < PIECE; i += 16)
            _mm256_store_si256((__m256i *)(void *)(numbers[r] + i),
                _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)(rows[r]->numbers + i))));
    }
    ROLLED for (int i = 0; i < PIECE; i += 2) {
        const __m128i one = _mm_loadu_si128((const __m128i *)(const void *)(codes + i * GROUP));
        const __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(codes + (i + 1) * GROUP));
        const __m256i first = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(one, next));
        const __m256i second = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(one, next));
        EACH_OF_8(r, count) {
            int32_t two;
            memcpy(&two, numbers[r] + i, sizeof two);
            low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(first, _mm256_set1_epi32(two)));
            high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(second, _mm256_set1_epi32(two)));
        }
    }
    EACH_OF_8(r, count) dots[r][0] = (whole_numbers)low[r], dots[r][1] = (whole_numbers)high[r];
}

#else

#if defined(SHARDMESH_DOTPROD)

typedef int32x4_t partial;
ALWAYS_INLINE int words_at_once(const int bits) { return bits * 0 + 8; }
ALWAYS_INLINE partial no_products(void) { return vdupq_n_s32(0); }
ALWAYS_INLINE partial add_products(partial sum, words codes, const int8_t *numbers) {
    return vdotq_s32(sum, vreinterpretq_s8_u32((uint32x4_t)codes), vreinterpretq_s8_s32(vdupq_n_s32(four_at(numbers))));
}
ALWAYS_INLINE whole_numbers added(partial sum) { return (whole_numbers)sum; }

#else

/* Products in 16 bits: 127 * (2^bits - 1) each. */
typedef int16x8x2_t partial;
ALWAYS_INLINE int words_at_once(const int bits) { return bits == 6 ? 4 : 8; }
ALWAYS_INLINE partial no_products(void) { return (partial){{vdupq_n_s16(0), vdupq_n_s16(0)}}; }
ALWAYS_INLINE partial add_products(partial sum, words codes, const int8_t *numbers) {
    const int8x16_t own = vreinterpretq_s8_u32((uint32x4_t)codes);
    const int8x8_t four = vreinterpret_s8_s32(vdup_n_s32(four_at(numbers)));
    return (partial){{vmlal_s8(sum.val[0], vget_low_s8(own), four), vmlal_s8(sum.val[1], vget_high_s8(own), four)}};
}
ALWAYS_INLINE whole_numbers added(partial sum) {
    return (whole_numbers)vpaddq_s32(vpaddlq_s16(sum.val[0]), vpaddlq_s16(sum.val[1]));
}

#endif

/* Two inputs' products fit 16 bits. */
ALWAYS_INLINE void dots_of_8(const char *codes, const struct rounded_piece *const *rows, const int count,
                             whole_numbers (*dots)[GROUP / LANES]) {
    int32x4_t sum[ROWS_OF_8][4];
    EACH_OF_8(r, count) UNROLLED for (int v = 0; v < 4; v++) sum[r][v] = vdupq_n_s32(0);
    ROLLED for (int i = 0; i < PIECE; i += 2) {
        const int8x16_t one = vld1q_s8((const int8_t *)codes + i * GROUP);
        const int8x16_t next = vld1q_s8((const int8_t *)codes + (i + 1) * GROUP);
        EACH_OF_8(r, count) {
            const int8x8_t number = vld1_dup_s8(rows[r]->numbers + i), following = vld1_dup_s8(rows[r]->numbers + i + 1);
            const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(one), number), vget_low_s8(next), following);
            const int16x8_t high = vmlal_s8(vmull_s8(vget_high_s8(one), number), vget_high_s8(next), following);
            sum[r][0] = vaddw_s16(sum[r][0], vget_low_s16(low));
            sum[r][1] = vaddw_s16(sum[r][1], vget_high_s16(low));
            sum[r][2] = vaddw_s16(sum[r][2], vget_low_s16(high));
            sum[r][3] = vaddw_s16(sum[r][3], vget_high_s16(high));
        }
    }
    EACH_OF_8(r, count) UNROLLED for (int v = 0; v < 4; v++) dots[r][v] = (whole_numbers)sum[r][v];
}

#endif

#endif

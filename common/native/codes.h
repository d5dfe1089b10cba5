/* How do the codes of encoded weights become float32 numbers, in registers?
 *
 * Covers: codes of any width to whole numbers or a codebook's, for one instruction set (vectors.h).
 * Does not cover: scales and loops (blocks.c), where codes lie (encodings.h).
 *
 * AVX-512 looks a shifted word up in a table of 16 or 32 floats by its lowest bits, so that no code is masked, converted
 * or offset; the others convert. A whole number as a float is the same either way.
 */
#ifndef SHARDMESH_CODES_H
#define SHARDMESH_CODES_H

#include "encodings.h"
#include "vectors.h"

#include <string.h>

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef int32_t whole_numbers __attribute__((vector_size(4 * LANES)));

/* What codes mean, and how many inputs share a scale. */
enum coding {
    CODES_8,        /* signed, 32 inputs a scale, as all but three */
    CODES_4,        /* less 8 */
    CODES_4_MORE,   /* with a number added to each weight */
    CODES_BOOK,     /* 4 bits: iq4's codebook */
    CODES_5,        /* less 16 */
    CODES_5_MORE,   /* with a number added */
    CODES_2_MORE,   /* with a number added; 16 inputs a scale */
    CODES_3,        /* less 4; 16 inputs a scale */
    CODES_6,        /* less 32; 16 inputs a scale */
    CODINGS
};

ALWAYS_INLINE int has_more(const enum coding coding) {
    return coding == CODES_4_MORE || coding == CODES_5_MORE || coding == CODES_2_MORE;
}
ALWAYS_INLINE int has_two_scales(const enum coding coding) {
    return coding == CODES_2_MORE || coding == CODES_3 || coding == CODES_6;
}
ALWAYS_INLINE int bits_of(const enum coding coding) {
    switch (coding) {
    case CODES_8: return 8;
    case CODES_5: case CODES_5_MORE: return 5;
    case CODES_2_MORE: return 2;
    case CODES_3: return 3;
    case CODES_6: return 6;
    default: return 4;
    }
}
ALWAYS_INLINE int offset_of(const enum coding coding) {
    return coding == CODES_4 ? 8 : coding == CODES_5 ? 16 : coding == CODES_3 ? 4 : coding == CODES_6 ? 32 : 0;
}

ALWAYS_INLINE words load_word(const char *plane, int word, int v) {
    words loaded;
    memcpy(&loaded, plane + (word * GROUP + v * LANES) * 4, sizeof loaded);
    return loaded;
}
ALWAYS_INLINE vector as_floats(words numbers) {
    return (vector)__builtin_convertvector((whole_numbers)numbers, vector);
}
ALWAYS_INLINE vector as_signed_floats(whole_numbers numbers) { return (vector)__builtin_convertvector(numbers, vector); }

/* Return words whose lowest bits are the code of an input; what is above them means nothing. */
ALWAYS_INLINE words code_at(const int bits, const words *word, const int input) {
    const int a_word = 32 / bits, half = bits / 2;
    if (input < a_word * bits) return word[input / a_word] >> (input % a_word * bits);
    const int e = input - 30;
    words code = word[e * half] >> 30;
    for (int n = 1; n < half; n++) code |= word[e * half + n] >> 30 << 2 * n;
    if (bits % 2) code |= word[bits - 1] >> (30 + e) << 31 >> (31 - 2 * half);
    return code;
}

#define CODEBOOK {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
#if defined(SHARDMESH_NEON)
static const int8_t book[16] = CODEBOOK;
#else
static const float codebook[16] __attribute__((aligned(64))) = CODEBOOK;
#endif

/* What is looked up, or added, for each code: made once before a loop. */
struct table {
#if defined(SHARDMESH_AVX512)
    vector first, second;
#else
    vector first;
    words mask, exponent;
#endif
};

#if defined(SHARDMESH_AVX512)

ALWAYS_INLINE struct table table_of(const enum coding coding) {
    float numbers[32] = {0};
    const int bits = bits_of(coding), offset = offset_of(coding);
    struct table table = {zero(), zero()};
    if (coding == CODES_8) return table;
    if (coding == CODES_BOOK) return (struct table){load(codebook), zero()};
    if (coding == CODES_6) return (struct table){_mm512_set1_ps(8388608.0f + 32), zero()};
    for (int i = 0; i < 32; i++) numbers[i] = (float)((i & ((1 << bits) - 1)) - offset);
    return (struct table){load(numbers), load(numbers + 16)};
}

/* Codes of 6 bits become the lowest bits of 2^23 + code, from which a subtraction leaves the number. */
ALWAYS_INLINE vector number_of(const enum coding coding, words code, const struct table *table) {
    const __m512i bits = (__m512i)code;
    if (coding == CODES_6)
        return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(
                                 bits, _mm512_set1_epi32(63), _mm512_set1_epi32(0x4B000000), 0xEA)),
                             table->first);
    if (bits_of(coding) == 5) return _mm512_permutex2var_ps(table->first, bits, table->second);
    return _mm512_permutexvar_ps(bits, table->first);
}
ALWAYS_INLINE vector signed_bytes(const char *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)from)));
}

#else

ALWAYS_INLINE struct table table_of(const enum coding coding) {
    const words none = {0};
    const vector nothing = zero();
    return (struct table){nothing + (8388608.0f + (float)offset_of(coding)), none + ((1u << bits_of(coding)) - 1),
                          none + 0x4B000000u};
}

#if defined(SHARDMESH_AVX2)
ALWAYS_INLINE vector from_codebook(words code) {
    const __m256i index = (__m256i)code;
    const vector low = _mm256_permutevar8x32_ps(load(codebook), index);
    const vector high = _mm256_permutevar8x32_ps(load(codebook + 8), index);
    return _mm256_blendv_ps(low, high, (vector)(code << 28));
}
ALWAYS_INLINE vector signed_bytes(const char *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from)));
}
#else
ALWAYS_INLINE vector from_codebook(words code) {
    const uint8x16_t bytes = vqtbl1q_u8(vld1q_u8((const uint8_t *)book), vreinterpretq_u8_u32((uint32x4_t)(code & 15)));
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_u8(bytes), 24), 24));
}
ALWAYS_INLINE vector signed_bytes(const char *from) {
    uint32_t four;
    memcpy(&four, from, sizeof four);
    const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
#endif

ALWAYS_INLINE vector number_of(const enum coding coding, words code, const struct table *table) {
    if (coding == CODES_BOOK) return from_codebook(code);
    if (!offset_of(coding)) return as_floats(code & table->mask);
    return (vector)((code & table->mask) | table->exponent) - table->first;
}

#endif

#endif

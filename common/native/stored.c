/* How do numbers become float32, and float32 numbers what is stored?
 *
 * Covers: one thread, one instruction set (vectors.h); compiled once for each.
 * Does not cover: threads (conversions.c), weights in a product, which are widened as they are read (kernel.c).
 */
#include "stored.h"
#include "vectors.h"

#include <string.h>

/* A vector of float32 as float16, the nearest, ties to even: the order of vectors.h's sections. */
#if defined(SHARDMESH_AVX512)
ALWAYS_INLINE void store_float16(uint16_t *to, vector value) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(SHARDMESH_AVX2)
ALWAYS_INLINE void store_float16(uint16_t *to, vector value) {
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
#else
ALWAYS_INLINE void store_float16(uint16_t *to, vector value) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(value))); }
#endif

static void widen_float16(const char *from, ptrdiff_t count, float *to) {
    uint16_t left[LANES] = {0};
    float widened[LANES];
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, load_float16((const uint16_t *)(from + 2 * i)));
    memcpy(left, from + 2 * i, (size_t)(count - i) * sizeof *left);
    store(widened, load_float16(left));
    memcpy(to + i, widened, (size_t)(count - i) * sizeof *to);
}

static void widen_bfloat16(const char *from, ptrdiff_t count, float *to) {
    for (ptrdiff_t i = 0; i < count; i++) {
        uint16_t high;
        memcpy(&high, from + 2 * i, sizeof high);
        const uint32_t bits = (uint32_t)high << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

void VARIANT(widen_numbers)(const char *from, enum weight_kind kind, ptrdiff_t count, float *to) {
    if (kind == FLOAT32) memcpy(to, from, (size_t)count * sizeof *to);
    else if (kind == FLOAT16) widen_float16(from, count, to);
    else widen_bfloat16(from, count, to);
}

static void narrow_float16(const float *from, ptrdiff_t count, uint16_t *to) {
    float left[LANES] = {0};
    uint16_t narrowed[LANES];
    ptrdiff_t i = 0;
    for (; i + LANES <= count; i += LANES) store_float16(to + i, load(from + i));
    memcpy(left, from + i, (size_t)(count - i) * sizeof *left);
    store_float16(narrowed, load(left));
    memcpy(to + i, narrowed, (size_t)(count - i) * sizeof *to);
}

static void narrow_bfloat16(const float *from, ptrdiff_t count, uint16_t *to) {
    for (ptrdiff_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
        const uint32_t quiet = bits >> 16 | 0x40u; /* adding could make a number of one that is none */
        to[i] = (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
    }
}

void VARIANT(narrow_numbers)(const float *from, enum weight_kind kind, ptrdiff_t count, char *to) {
    if (kind == FLOAT32) memcpy(to, from, (size_t)count * sizeof *from);
    else if (kind == FLOAT16) narrow_float16(from, count, (uint16_t *)(void *)to);
    else narrow_bfloat16(from, count, (uint16_t *)(void *)to);
}

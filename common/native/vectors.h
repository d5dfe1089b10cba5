/* What is a vector here, and how are stored weights read into one? One section per instruction set.
 *
 * Covers: load, store, multiply-add, and widening of float16 and bfloat16, which is exact.
 * Does not cover: loops over matrices (kernel.c). build.py defines one SHARDMESH_* name per object it compiles.
 */
#ifndef SHARDMESH_VECTORS_H
#define SHARDMESH_VECTORS_H

#include <stdint.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(SHARDMESH_AVX512) /* AVX512F alone */

#include <immintrin.h>
#if defined(SHARDMESH_VNNI) /* and AVX512BW and AVX512_VNNI */
#define VARIANT(name) name##_avx512vnni
#else
#define VARIANT(name) name##_avx512
#endif
#define LANES 16
typedef __m512 vector;
ALWAYS_INLINE vector load(const float *from) { return _mm512_loadu_ps(from); }
ALWAYS_INLINE void store(float *to, vector value) { _mm512_storeu_ps(to, value); }
ALWAYS_INLINE vector zero(void) { return _mm512_setzero_ps(); }
ALWAYS_INLINE vector add(vector a, vector b) { return _mm512_add_ps(a, b); }
ALWAYS_INLINE vector multiply_add(const float *factor, vector value, vector sum) {
    return _mm512_fmadd_ps(_mm512_set1_ps(*factor), value, sum);
}
ALWAYS_INLINE vector fused(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); }
ALWAYS_INLINE vector load_float16(const uint16_t *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
ALWAYS_INLINE vector load_bfloat16(const uint16_t *from) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)), 16));
}

#elif defined(SHARDMESH_AVX2) /* AVX2, FMA and F16C */

#include <immintrin.h>
#define VARIANT(name) name##_avx2
#define LANES 8
typedef __m256 vector;
ALWAYS_INLINE vector load(const float *from) { return _mm256_loadu_ps(from); }
ALWAYS_INLINE void store(float *to, vector value) { _mm256_storeu_ps(to, value); }
ALWAYS_INLINE vector zero(void) { return _mm256_setzero_ps(); }
ALWAYS_INLINE vector add(vector a, vector b) { return _mm256_add_ps(a, b); }
ALWAYS_INLINE vector multiply_add(const float *factor, vector value, vector sum) {
    return _mm256_fmadd_ps(_mm256_broadcast_ss(factor), value, sum);
}
ALWAYS_INLINE vector fused(vector a, vector b, vector c) { return _mm256_fmadd_ps(a, b, c); }
ALWAYS_INLINE vector load_float16(const uint16_t *from) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
}
ALWAYS_INLINE vector load_bfloat16(const uint16_t *from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16));
}

#elif defined(SHARDMESH_NEON) /* part of every 64-bit Arm */

#include <arm_neon.h>
#if defined(SHARDMESH_DOTPROD) /* of Armv8.2 */
#define VARIANT(name) name##_neon_dotprod
#else
#define VARIANT(name) name##_neon
#endif
#define LANES 4
typedef float32x4_t vector;
ALWAYS_INLINE vector load(const float *from) { return vld1q_f32(from); }
ALWAYS_INLINE void store(float *to, vector value) { vst1q_f32(to, value); }
ALWAYS_INLINE vector zero(void) { return vdupq_n_f32(0); }
ALWAYS_INLINE vector add(vector a, vector b) { return vaddq_f32(a, b); }
ALWAYS_INLINE vector multiply_add(const float *factor, vector value, vector sum) {
    return vfmaq_f32(sum, vld1q_dup_f32(factor), value);
}
ALWAYS_INLINE vector fused(vector a, vector b, vector c) { return vfmaq_f32(c, a, b); }
ALWAYS_INLINE vector load_float16(const uint16_t *from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}
ALWAYS_INLINE vector load_bfloat16(const uint16_t *from) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16));
}

#else
#error "build.py names the instruction set"
#endif

#endif

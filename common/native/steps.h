/* What lies between the products of a few rows, and which functions does each instruction set offer for it?
 *
 * Covers: the types that steps.c (one object for each instruction set) and matmul.c (which picks one) share.
 */
#ifndef SHARDMESH_STEPS_H
#define SHARDMESH_STEPS_H

#include <stddef.h>

enum { MOST_HEAD_SIZE = 512 };

/* Neighbouring rows of one sequence in one attention tile, after the product with its qkv matrix. */
struct attention {
    float *projected; /* [row_count, (query_count + 2 * kv_count) * head_size]; changed in place */
    ptrdiff_t row_count, query_count, kv_count, head_size;
    const float *bias;                  /* one for each column of `projected`, or NULL */
    const float *query_norm, *key_norm; /* [head_size], or NULL */
    float norm_epsilon;
    const float *cosine, *sine; /* [row_count, head_size]; the first half of each row of `sine` negated */
    float *keys, *values;       /* of the tile's first KV head, position 0 */
    ptrdiff_t head_pitch;       /* floats from one KV head's position 0 to the next one's */
    ptrdiff_t first_position;   /* of the first row */
    ptrdiff_t sliding_window;   /* 0 for none */
    float *context;             /* [row_count, query_count * head_size]: what comes out */
};

/* Add the bias, norm and turn queries and keys, and write keys and values where they belong. */
typedef void prepare_rows(const struct attention *attention);
/* Write what the queries of one KV head attend to, after prepare_rows; KV heads may be computed by several threads. */
typedef void attend_rows(const struct attention *attention, ptrdiff_t kv_head);
/* gated[r, c] = silu(both[r, c]) * both[r, columns + c] */
typedef void gate_rows(const float *both, ptrdiff_t row_count, ptrdiff_t columns, float *gated);
/* sums = parts[0] + parts[1] + ..., in that order; nonzero when a sum is not finite. */
typedef int add_parts(const float *const *parts, ptrdiff_t part_count, ptrdiff_t count, float *sums);
/* hidden += addend (NULL: nothing); normed = hidden / root mean square of its row * weight */
typedef void normalize_rows(float *hidden, const float *addend, const float *weight, ptrdiff_t row_count,
                            ptrdiff_t width, float epsilon, float *normed);

prepare_rows prepare_rows_avx512, prepare_rows_avx2, prepare_rows_neon;
attend_rows attend_rows_avx512, attend_rows_avx2, attend_rows_neon;
gate_rows gate_rows_avx512, gate_rows_avx2, gate_rows_neon;
add_parts add_parts_avx512, add_parts_avx2, add_parts_neon;
normalize_rows normalize_rows_avx512, normalize_rows_avx2, normalize_rows_neon;

#endif

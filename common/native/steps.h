/* What lies between two products, attention included, and which functions does each instruction set offer for it?
 *
 * Covers: the types that steps.c (one object for each instruction set) and matmul.c (which picks one) share.
 */
#ifndef SHARDMESH_STEPS_H
#define SHARDMESH_STEPS_H

#include <stddef.h>

enum activation { SILU, GELU, GELU_TANH, ACTIVATIONS };

enum {
    MOST_HEAD_SIZE = 512,
    POSITIONS_AT_ONCE = 64, /* in a block of a softmax, which begins at a multiple of that */
    QUERIES_AT_ONCE = 64,   /* in a block of queries */
};

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

static inline ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
static inline ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }

/* The positions that a row looks at: from start_of up to stop_of. */
static inline ptrdiff_t stop_of(const struct attention *a, ptrdiff_t row) { return a->first_position + row + 1; }
static inline ptrdiff_t start_of(const struct attention *a, ptrdiff_t row) {
    return a->sliding_window ? most(0, stop_of(a, row) - a->sliding_window) : 0;
}

/* Add the bias, norm and turn queries and keys of the rows from `first` up to `stop`; write keys and values where they
 * belong. Then, when all rows are prepared, any threads may compute what different queries attend to. */
typedef void prepare_rows(const struct attention *attention, ptrdiff_t first, ptrdiff_t stop);
/* Write what one query of a row attends to: the one of `head`, of those of a KV head. */
typedef void attend_query(const struct attention *attention, ptrdiff_t row, ptrdiff_t kv_head, ptrdiff_t head);
/* The same bits for a block of a KV head's queries, which are counted row by row and in it head by head: for
 * QUERIES_AT_ONCE from `first` on, or as many as there are. */
typedef void attend_block(const struct attention *attention, ptrdiff_t kv_head, ptrdiff_t first);
/* gated[r, c] = activation(both[r, c]) * both[r, columns + c] */
typedef void gate_rows(const float *both, ptrdiff_t row_count, ptrdiff_t columns, enum activation activation,
                       float *gated);
/* sums = parts[0] + parts[1] + ..., in that order; nonzero when a sum is not finite. */
typedef int add_parts(const char *const *parts, ptrdiff_t first_byte, ptrdiff_t part_count, ptrdiff_t count,
                      float *sums);
/* hidden += addend (NULL: nothing); normed = hidden / root mean square of its row * weight */
typedef void normalize_rows(float *hidden, const float *addend, const float *weight, ptrdiff_t row_count,
                            ptrdiff_t width, float epsilon, float *normed);

prepare_rows prepare_rows_avx512, prepare_rows_avx2, prepare_rows_neon;
attend_query attend_query_avx512, attend_query_avx2, attend_query_neon;
attend_block attend_block_avx512, attend_block_avx2, attend_block_neon;
gate_rows gate_rows_avx512, gate_rows_avx2, gate_rows_neon;
add_parts add_parts_avx512, add_parts_avx2, add_parts_neon;
normalize_rows normalize_rows_avx512, normalize_rows_avx2, normalize_rows_neon;

#endif

/* What is one product, and which functions does each instruction set offer for it?
 *
 * Covers: the types that kernel.c (one object for each instruction set) and matmul.c (which picks one) share.
 */
#ifndef SHARDMESH_PRODUCT_H
#define SHARDMESH_PRODUCT_H

#include <stddef.h>

enum weight_kind { FLOAT32, FLOAT16, BFLOAT16, WEIGHT_KINDS };

enum {
    MOST_ROWS = 32,  /* in one product; matmul.c cuts what has more */
    SPLIT_COLUMNS = 32 /* parts of a product begin at multiples of this: at least a cache line of any kind */
};

/* sums[r, n] = rows[r, :] . weights[:, n]. Pitches are the distances of neighbouring rows, in items. */
struct product {
    const float *rows;
    ptrdiff_t row_pitch;
    ptrdiff_t row_count; /* 1..MOST_ROWS */
    const char *weights; /* [depth, width], row-major, without gaps */
    enum weight_kind kind;
    ptrdiff_t depth;
    ptrdiff_t width;
    float *sums; /* [row_count, width], row-major, without gaps */
};

/* Compute the columns from `first` up to `stop`, which are more than a vector's unless they are all. */
typedef void multiply_columns(const struct product *product, ptrdiff_t first, ptrdiff_t stop);

/* Return the sum of `count` numbers: what reading alone costs, for benchmarks. */
typedef double sum_of(const float *numbers, ptrdiff_t count);

multiply_columns multiply_columns_avx512, multiply_columns_avx2, multiply_columns_neon;
sum_of sum_of_avx512, sum_of_avx2, sum_of_neon;

#endif

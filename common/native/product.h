/* What is one product, and which functions does each instruction set offer for it?
 *
 * Covers: the types that kernel.c (one object for each instruction set), matmul.c (which picks one) and ranges.c share.
 */
#ifndef SHARDMESH_PRODUCT_H
#define SHARDMESH_PRODUCT_H

#include "encodings.h"

#include <stddef.h>

enum {
    MOST_ROWS = 32,  /* of a few: more go to gemm.c, or are cut when their weights are in the page cache */
    SPLIT_COLUMNS = 32, /* parts of a product begin at multiples of this: at least a cache line of any kind */
    DEPTH_RANGES = 4,   /* chains of one sum; so many threads can share a product whose rows come one after another */
    RANGE_UNIT = 8,     /* rows that a range is made of, but for the last one's; PIECE where weights are encoded */
    MOST_BLOCK_ROWS = 8 /* whose sums are in registers while encoded weights are decoded */
};

struct rounded_piece; /* rounded.h */

/* sums[r, n] = rows[r, :] . weights[:, n]. Pitches are the distances of neighbouring rows, in items. */
struct product {
    const float *rows;
    ptrdiff_t row_pitch;
    ptrdiff_t row_count; /* 1..MOST_ROWS */
    const char *weights; /* [depth, width], row-major, without gaps, or packed (encodings.h); NULL: in the page cache */
    int fd;              /* of the page cache's file, and where in it they begin, when `weights` is NULL */
    long long offset;
    enum weight_kind kind;
    ptrdiff_t depth;
    ptrdiff_t width;
    float *sums; /* [row_count, width] */
    ptrdiff_t sums_pitch;
    const struct rounded_piece *rounded; /* rounded.h's rows, which count instead of `rows`, or NULL */
};

/* Bytes of one row of weights that are not encoded. */
static inline ptrdiff_t row_bytes_of(const struct product *product) {
    return product->width * (product->kind == FLOAT32 ? 4 : 2);
}

static inline ptrdiff_t range_start(const struct product *product, int range) {
    const ptrdiff_t unit = is_encoded(product->kind) ? PIECE : RANGE_UNIT;
    return range == DEPTH_RANGES ? product->depth : product->depth / DEPTH_RANGES / unit * unit * range;
}

/* Compute the columns from `first` up to `stop`, which are more than a vector's unless they are all. */
typedef void multiply_columns(const struct product *product, ptrdiff_t first, ptrdiff_t stop);

/* Return how many floats `add_piece` needs for the sums of one range. */
typedef ptrdiff_t piece_sums(const struct product *product);
/* Add rows `k` up to `stop`, which lie at `weights` and are all of one range, to that range's sums, zero at first. */
typedef void add_piece(const struct product *product, const char *weights, ptrdiff_t k, ptrdiff_t stop, float *sums);
/* Write the sum of all ranges' sums, in their order, to the product's; a range's are `sums_of_range` after the last's. */
typedef void put_pieces(const struct product *product, const float *sums, ptrdiff_t sums_of_range);

/* Compute the columns of groups `first` up to `stop` of encoded weights, of which group `first` lies at `weights`. */
typedef void multiply_groups(const struct product *product, const char *weights, ptrdiff_t first, ptrdiff_t stop);
/* Decode pieces `piece` up to `stop` of a group's inputs: to[v] + i * pitch is where vector v of input i goes. */
typedef void decode_group(enum weight_kind kind, const char *group, ptrdiff_t piece, ptrdiff_t stop, float *const *to,
                          ptrdiff_t pitch);
/* Return how many floats a vector has. */
typedef ptrdiff_t vector_lanes(void);

/* Return the sum of `count` numbers: what reading alone costs, for benchmarks. */
typedef double sum_of(const float *numbers, ptrdiff_t count);

/* One range of k of a product of many rows, whose rows are laid out for it. */
struct many_rows {
    const struct product *product; /* its weights in memory */
    float *packed; /* [row blocks, stop - k, packed_rows()]: blocks of neighbouring rows, the last filled up with zeros */
    ptrdiff_t k, stop;
    int adds; /* to what the product's sums hold already */
};

/* Some columns and some rows of a product; rows begin at a multiple of packed_rows(). */
struct columns {
    ptrdiff_t first, stop, first_row, stop_row;
};

/* Return how many rows are laid side by side. */
typedef ptrdiff_t packed_rows(void);
/* Lay out packed_rows() rows from `first` on, numbers `k` up to k + depth: packed[depth, packed_rows()]. */
typedef void pack_rows(const struct product *product, ptrdiff_t first, ptrdiff_t k, ptrdiff_t depth, float *packed);
/* Compute one part of one range of k; nonzero when there is no memory for it. */
typedef int multiply_packed(const struct many_rows *many, const struct columns *part);

multiply_columns multiply_columns_avx512, multiply_columns_avx2, multiply_columns_neon;
piece_sums piece_sums_avx512, piece_sums_avx2, piece_sums_neon;
add_piece add_piece_avx512, add_piece_avx2, add_piece_neon;
put_pieces put_pieces_avx512, put_pieces_avx2, put_pieces_neon;
multiply_groups multiply_groups_avx512, multiply_groups_avx2, multiply_groups_neon;
decode_group decode_group_avx512, decode_group_avx2, decode_group_neon;
vector_lanes vector_lanes_avx512, vector_lanes_avx2, vector_lanes_neon;
sum_of sum_of_avx512, sum_of_avx2, sum_of_neon;
packed_rows packed_rows_avx512, packed_rows_avx2, packed_rows_neon;
pack_rows pack_rows_avx512, pack_rows_avx2, pack_rows_neon;
multiply_packed multiply_packed_avx512, multiply_packed_avx2, multiply_packed_neon;

#endif

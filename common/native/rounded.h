/* What are rows as whole numbers of 8 bits, and which functions does each instruction set offer for them?
 *
 * Covers: the types that integers.c (one object for each instruction set), matmul.c and groups.c share.
 * Does not cover: rows in 8 bits on their way between devices (rounding.c).
 *
 * A piece of 32 inputs has one scale, the largest of their sizes / 127; a number is an input / scale, the nearest, ties to
 * even. A piece whose largest is below 2^-100 is all zeros; one with a number that is none has a scale that is none.
 */
#ifndef SHARDMESH_ROUNDED_H
#define SHARDMESH_ROUNDED_H

#include "product.h"

#include <stdint.h>

/* In which order a piece's inputs lie, four of them for each word of four codes: as fours.h takes codes out of words. */
enum order { IN_A_ROW, BY_TWO, BY_FOUR, BY_WORDS, ORDERS };

struct rounded_piece {
    int8_t numbers[PIECE];
    float scale;
    float sums[2], sum;          /* scale * the numbers' sums: of the first 16 inputs and of the others, and of all */
    int32_t whole_sums[2], whole_sum; /* those sums */
    int32_t unused;
} __attribute__((aligned(64)));

static inline enum order order_of(enum weight_kind kind) {
    const int bits = encodings[kind].bits;
    return bits == 4 ? BY_TWO : bits == 2 ? BY_FOUR : bits == 5 ? BY_WORDS : IN_A_ROW;
}

/* rounded[depth / PIECE] = one row of `depth` numbers. */
typedef void round_inputs(const float *row, ptrdiff_t depth, enum order order, struct rounded_piece *rounded);
/* As multiply_groups, of rows that were rounded in the order of the product's kind: [row, piece]. */
typedef void multiply_rounded(const struct product *product, const char *weights, ptrdiff_t first, ptrdiff_t stop);

round_inputs round_inputs_avx512vnni, round_inputs_avx2, round_inputs_neon, round_inputs_neon_dotprod;
multiply_rounded multiply_rounded_avx512vnni, multiply_rounded_avx2, multiply_rounded_neon, multiply_rounded_neon_dotprod;

#endif

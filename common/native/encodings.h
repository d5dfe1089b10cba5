/* Which kinds of weights are there, and how do those that come in GGUF's blocks lie in memory for our kernels?
 *
 * Covers: sizes of each encoding's blocks, where everything of a packed matrix lies. common/weights/encodings.py has the
 * same sizes, and a test compares the two, and both with the gguf package.
 * Does not cover: putting it there (pack.c), reading it (blocks.c).
 *
 * A packed matrix [depth, width] has the bytes of its blocks in a file, in another order: groups of GROUP neighbouring
 * outputs one after another, outputs that the last one lacks as zeros. A group is units of one block of each output, one
 * after another along the inputs. A unit is planes, of which lane l is output l of the group:
 *
 *   d           16 float16
 *   m           16 float16: q4_1 and q5_1 m, q2_k, q4_k and q5_k dmin; iq4_xs scales_h; others have none
 *   scales      of 256 inputs, as in the file, as words: word i of all outputs side by side: q2_k and q6_k 4 words,
 *               q3_k, q4_k and q5_k 3, iq4_xs 1 (scales_l)
 *   codes       for each PIECE of 32 inputs, `bits` words of 32 bits, word i of all outputs side by side; q8_0: 16 bytes
 *               for each input
 *
 * A code is what the file has of one weight, low and high bits together. A word has 32 / bits of them, from its lowest
 * bits on, in the order of inputs. Of 3, 5 and 6 bits that are 30 inputs; inputs 30 and 31 lie in the words' two highest
 * bits: of input 30 + e, bits 2n and 2n + 1 in word e * (bits / 2) + n, and of an odd number of bits the highest one at
 * bit 30 + e of the last word. So a shift brings any code to where a table is looked up, for every number of bits.
 */
#ifndef SHARDMESH_ENCODINGS_H
#define SHARDMESH_ENCODINGS_H

#include <stddef.h>

enum weight_kind {
    FLOAT32, FLOAT16, BFLOAT16, FLOAT_KINDS,
    Q8_0 = FLOAT_KINDS, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, WEIGHT_KINDS
};

enum {
    GROUP = 16, /* outputs */
    PIECE = 32, /* inputs */
    MOST_BLOCK_VALUES = 256,
};

struct encoding {
    int block_values, block_bytes, bits;
};

static const struct encoding encodings[WEIGHT_KINDS] = {
    [Q8_0] = {32, 34, 8},    [Q4_0] = {32, 18, 4},    [Q4_1] = {32, 20, 4},    [Q5_0] = {32, 22, 5},
    [Q5_1] = {32, 24, 5},    [Q2_K] = {256, 84, 2},   [Q3_K] = {256, 110, 3},  [Q4_K] = {256, 144, 4},
    [Q5_K] = {256, 176, 5},  [Q6_K] = {256, 210, 6},  [IQ4_NL] = {32, 18, 4},  [IQ4_XS] = {256, 136, 4},
};

static inline int is_encoded(enum weight_kind kind) { return kind >= FLOAT_KINDS && kind < WEIGHT_KINDS; }

/* Tell whether weights of this kind can have that many inputs. */
static inline int fits_blocks(int kind, ptrdiff_t depth) {
    if (kind < 0 || kind >= WEIGHT_KINDS || depth < 0) return 0;
    return kind < FLOAT_KINDS || depth % encodings[kind].block_values == 0;
}

static inline ptrdiff_t groups_of(ptrdiff_t width) { return (width + GROUP - 1) / GROUP; }
static inline ptrdiff_t unit_bytes(enum weight_kind kind) { return (ptrdiff_t)GROUP * encodings[kind].block_bytes; }
static inline ptrdiff_t group_bytes(enum weight_kind kind, ptrdiff_t depth) {
    return depth / encodings[kind].block_values * unit_bytes(kind);
}
static inline ptrdiff_t piece_bytes(enum weight_kind kind) { return (ptrdiff_t)GROUP * PIECE / 8 * encodings[kind].bits; }

/* Return what lies before the codes of a unit. */
static inline ptrdiff_t scale_bytes(enum weight_kind kind) {
    return unit_bytes(kind) - encodings[kind].block_values / PIECE * piece_bytes(kind);
}

#endif

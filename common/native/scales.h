/* What are neighbouring pieces of encoded weights multiplied with, and where do their codes and their sums lie?
 *
 * Covers: scales of every encoding as float32, for one instruction set (vectors.h); which codes may be taken at once.
 * Does not cover: codes to numbers (codes.h), products (blocks.c, integers.c).
 */
#ifndef SHARDMESH_SCALES_H
#define SHARDMESH_SCALES_H

#include "codes.h"
#include "product.h"

enum {
    VECTORS = GROUP / LANES, /* of a group */
    PIECES_AT_ONCE = MOST_BLOCK_VALUES / PIECE,
    GROUPS_AT_ONCE = 4,
    LINE_BYTES = 64,
    BYTES_AHEAD = 2048, /* of each group's stream */
};

#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 32")
#endif
#define EACH_VECTOR(v) UNROLLED for (int v = 0; v < VECTORS; v++)

/* What neighbouring pieces of a group are multiplied with and what is added: [16 inputs, or 32, output]. */
struct scales {
    float scale[2 * PIECES_AT_ONCE][GROUP], more[2 * PIECES_AT_ONCE][GROUP];
} __attribute__((aligned(64)));

ALWAYS_INLINE vector halves(const char *plane, int v) { return load_float16((const uint16_t *)(const void *)plane + v * LANES); }
ALWAYS_INLINE vector byte_at(words word, int byte) { return as_floats(word >> 8 * byte & 255); }
ALWAYS_INLINE vector signed_byte_at(words word, int byte) {
    return as_signed_floats((whole_numbers)(word << (24 - 8 * byte)) >> 24);
}

/* The six bits of q4_k's and q5_k's scales and of what they take away. */
static void scales_of_6_bits(const char *unit, int v, struct scales *scales) {
    const vector d = halves(unit, v), least = -halves(unit + 2 * GROUP, v);
    const words low = load_word(unit + 4 * GROUP, 0, v), lows = load_word(unit + 4 * GROUP, 1, v);
    const words high = load_word(unit + 4 * GROUP, 2, v);
    const words scale[2] = {low & 0x3F3F3F3Fu, (high & 0x0F0F0F0Fu) | (low >> 2 & 0x30303030u)};
    const words more[2] = {lows & 0x3F3F3F3Fu, (high >> 4 & 0x0F0F0F0Fu) | (lows >> 2 & 0x30303030u)};
    UNROLLED for (int i = 0; i < 8; i++) {
        store(scales->scale[i] + v * LANES, d * byte_at(scale[i / 4], i % 4));
        store(scales->more[i] + v * LANES, least * byte_at(more[i / 4], i % 4));
    }
}

static void scales_of_q3_k(const char *unit, int v, struct scales *scales) {
    const vector d = halves(unit, v), offset = zero() + 32.0f;
    const words low[2] = {load_word(unit + 2 * GROUP, 0, v), load_word(unit + 2 * GROUP, 1, v)};
    const words high = load_word(unit + 2 * GROUP, 2, v);
    UNROLLED for (int i = 0; i < 4; i++) {
        const words four = (low[i % 2] >> 4 * (i / 2) & 0x0F0F0F0Fu) | (high >> 2 * i & 0x03030303u) << 4;
        UNROLLED for (int b = 0; b < 4; b++)
            store(scales->scale[4 * i + b] + v * LANES, d * (byte_at(four, b) - offset));
    }
}

static void scales_of_bytes(enum weight_kind kind, const char *unit, int v, struct scales *scales) {
    const vector d = halves(unit, v), least = -halves(unit + 2 * GROUP, v);
    const char *plane = unit + (kind == Q2_K ? 4 : 2) * GROUP;
    UNROLLED for (int i = 0; i < 16; i++) {
        const words word = load_word(plane, i / 4, v);
        if (kind == Q6_K) {
            store(scales->scale[i] + v * LANES, d * signed_byte_at(word, i % 4));
        } else {
            store(scales->scale[i] + v * LANES, d * as_floats(word >> 8 * (i % 4) & 15));
            store(scales->more[i] + v * LANES, least * as_floats(word >> (8 * (i % 4) + 4) & 15));
        }
    }
}

static void scales_of_iq4_xs(const char *unit, int v, struct scales *scales) {
    const vector d = halves(unit, v), offset = zero() + 32.0f;
    const words low = load_word(unit + 4 * GROUP, 0, v);
    uint16_t two_bits[LANES];
    words high;
    memcpy(two_bits, unit + 2 * GROUP + v * LANES * 2, sizeof two_bits);
    UNROLLED for (int lane = 0; lane < LANES; lane++) high[lane] = two_bits[lane];
    UNROLLED for (int i = 0; i < 8; i++) {
        const words six = (low >> 4 * i & 15) | (high >> 2 * i & 3) << 4;
        store(scales->scale[i] + v * LANES, d * (as_floats(six) - offset));
    }
}

/* Make the scales of `count` pieces from `piece` on, which are of one unit where units are of more than a piece. */
static void find_scales(enum weight_kind kind, const char *group, ptrdiff_t piece, int count, struct scales *scales) {
    const ptrdiff_t pieces = encodings[kind].block_values / PIECE;
    const char *unit = group + piece / pieces * unit_bytes(kind);
    for (ptrdiff_t byte = 0; byte < scale_bytes(kind); byte += LINE_BYTES)
        __builtin_prefetch(unit + BYTES_AHEAD + byte, 0, 3);
    if (pieces == 1) {
        const int has_numbers = kind == Q4_1 || kind == Q5_1;
        for (int i = 0; i < count; i++, unit += unit_bytes(kind)) {
            __builtin_prefetch(unit + BYTES_AHEAD, 0, 3);
            EACH_VECTOR(v) {
                store(scales->scale[i] + v * LANES, halves(unit, v));
                if (has_numbers) store(scales->more[i] + v * LANES, halves(unit + 2 * GROUP, v));
            }
        }
        return;
    }
    EACH_VECTOR(v) {
        if (kind == Q4_K || kind == Q5_K) scales_of_6_bits(unit, v, scales);
        else if (kind == Q3_K) scales_of_q3_k(unit, v, scales);
        else if (kind == IQ4_XS) scales_of_iq4_xs(unit, v, scales);
        else scales_of_bytes(kind, unit, v, scales);
    }
}

static const enum coding coding_of[WEIGHT_KINDS] = {
    [Q8_0] = CODES_8,      [Q4_0] = CODES_4,      [Q4_1] = CODES_4_MORE, [Q5_0] = CODES_5, [Q5_1] = CODES_5_MORE,
    [Q2_K] = CODES_2_MORE, [Q3_K] = CODES_3,      [Q4_K] = CODES_4_MORE, [Q5_K] = CODES_5_MORE, [Q6_K] = CODES_6,
    [IQ4_NL] = CODES_BOOK, [IQ4_XS] = CODES_BOOK,
};

/* Neighbouring pieces of some groups, whose codes lie in equal steps. */
struct pieces {
    const char *codes[GROUPS_AT_ONCE];
    struct scales scales[GROUPS_AT_ONCE];
    ptrdiff_t step;
    int first_scale, count;
};

/* Point at as many pieces as can be taken at once; return how many. Args: with_halves: find scales of blocks that begin with
 * them too. */
static int point_at(enum weight_kind kind, const char *group, ptrdiff_t piece, ptrdiff_t stop, int own,
                    struct pieces *pieces, int with_halves) {
    const ptrdiff_t in_unit = encodings[kind].block_values / PIECE, before = piece % in_unit;
    const ptrdiff_t most = in_unit == 1 ? PIECES_AT_ONCE : in_unit - before, left = stop - piece;
    pieces->count = (int)(left < most ? left : most);
    pieces->first_scale = (int)before;
    pieces->step = in_unit == 1 ? unit_bytes(kind) : piece_bytes(kind);
    pieces->codes[own] = group + piece / in_unit * unit_bytes(kind) + scale_bytes(kind) + before * piece_bytes(kind);
    if (in_unit > 1 || with_halves) find_scales(kind, group, piece, pieces->count, pieces->scales + own);
    return pieces->count;
}

/* Write the sums of a group's outputs that there are, or add them to what is there. */
static void put_sums(const struct product *product, ptrdiff_t group, ptrdiff_t first_row, int rows,
                     float (*sum)[GROUP], int adds) {
    const ptrdiff_t left = product->width - group * GROUP, columns = left < GROUP ? left : GROUP;
    float *to = product->sums + first_row * product->sums_pitch + group * GROUP;
    for (int r = 0; r < rows; r++, to += product->sums_pitch) {
        if (adds) for (ptrdiff_t c = 0; c < columns; c++) to[c] += sum[r][c];
        else memcpy(to, sum[r], (size_t)columns * sizeof *to);
    }
}

#endif

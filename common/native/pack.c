/* How do a GGUF file's blocks become packed ones, and what do they say?
 *
 * Covers: packing rows of blocks (encodings.h has both ends' order), scales that are no numbers, one output's weights,
 * all weights. Does not cover: products (blocks.c), which tensors are packed (coordinator/slicing).
 *
 * Bits only change places: a packed matrix is as lossless as a copy.
 */
#include "chosen.h"
#include "workers.h"

#include <stdint.h>
#include <string.h>

/* Where a block of a file has its scales: so many bytes of float16 `d` and, maybe, `m`, and of words of scales. */
struct place {
    short d, m, scales, scale_words;
};
static const struct place places[WEIGHT_KINDS] = {
    [Q8_0] = {0, -1, 0, 0},    [Q4_0] = {0, -1, 0, 0},  [Q4_1] = {0, 2, 0, 0},      [Q5_0] = {0, -1, 0, 0},
    [Q5_1] = {0, 2, 0, 0},     [Q2_K] = {80, 82, 0, 4}, [Q3_K] = {108, -1, 96, 3},  [Q4_K] = {0, 2, 4, 3},
    [Q5_K] = {0, 2, 4, 3},     [Q6_K] = {208, -1, 192, 4}, [IQ4_NL] = {0, -1, 0, 0}, [IQ4_XS] = {0, 2, 4, 1},
};

/* codes[32] = the codes of inputs 32 * `piece` up to 32 * piece + 32 of a block. */
static inline void codes_of(const enum weight_kind kind, const uint8_t *block, int piece, uint8_t *codes) {
    if (kind == Q2_K || kind == Q3_K) { /* 128 inputs share 32 bytes, two bits each */
        const uint8_t *low = block + (kind == Q2_K ? 16 : 32) + piece / 4 * 32;
        for (int i = 0; i < PIECE; i++) codes[i] = low[i] >> 2 * (piece % 4) & 3;
        if (kind == Q3_K)
            for (int i = 0; i < PIECE; i++) codes[i] |= (uint8_t)((block[i] >> piece & 1) << 2);
    } else if (kind == Q4_K || kind == Q5_K) { /* 64 inputs share 32 bytes, four bits each */
        const uint8_t *low = block + (kind == Q4_K ? 16 : 48) + piece / 2 * 32;
        for (int i = 0; i < PIECE; i++) codes[i] = low[i] >> 4 * (piece % 2) & 15;
        if (kind == Q5_K)
            for (int i = 0; i < PIECE; i++) codes[i] |= (uint8_t)((block[16 + i] >> piece & 1) << 4);
    } else if (kind == Q6_K) { /* 128 inputs share 64 bytes, four bits each, and 32 bytes, two bits each */
        const uint8_t *low = block + piece / 4 * 64 + piece % 2 * 32, *high = block + 128 + piece / 4 * 32;
        for (int i = 0; i < PIECE; i++)
            codes[i] = (uint8_t)((low[i] >> 4 * (piece / 2 % 2) & 15) | (high[i] >> 2 * (piece % 4) & 3) << 4);
    } else { /* 32 inputs share 16 bytes, the first half the lower bits */
        const int at = kind == Q4_1 ? 4 : kind == Q5_0 ? 6 : kind == Q5_1 ? 8 : kind == IQ4_XS ? 8 + 16 * piece : 2;
        for (int i = 0; i < PIECE / 2; i++) codes[i] = block[at + i] & 15, codes[i + 16] = block[at + i] >> 4;
        if (kind == Q5_0 || kind == Q5_1) {
            uint32_t high;
            memcpy(&high, block + at - 4, sizeof high);
            for (int i = 0; i < PIECE; i++) codes[i] |= (uint8_t)((high >> i & 1) << 4);
        }
    }
}

/* words[bits] = 32 codes, as encodings.h has them. */
static inline void fill_words(const int bits, const uint8_t *codes, uint32_t *words) {
    const int a_word = 32 / bits, half = bits / 2;
    for (int w = 0; w < bits; w++) {
        uint32_t word = 0;
        for (int i = 0; i < a_word; i++) word |= (uint32_t)codes[w * a_word + i] << i * bits;
        words[w] = word;
    }
    for (int input = a_word * bits; input < PIECE; input++) {
        const int e = input - 30;
        for (int n = 0; n < half; n++) words[e * half + n] |= (uint32_t)(codes[input] >> 2 * n & 3) << 30;
        if (bits % 2) words[bits - 1] |= (uint32_t)(codes[input] >> 2 * half & 1) << (30 + e);
    }
}

static inline void pack_block(const enum weight_kind kind, const uint8_t *block, int lane, char *unit) {
    const struct place *place = places + kind;
    char *scales = unit + (place->m < 0 ? 2 : 4) * GROUP, *codes = unit + scale_bytes(kind);
    memcpy(unit + 2 * lane, block + place->d, 2);
    if (place->m >= 0) memcpy(unit + 2 * GROUP + 2 * lane, block + place->m, 2);
    for (int word = 0; word < place->scale_words; word++)
        memcpy(scales + 4 * (word * GROUP + lane), block + place->scales + 4 * word, 4);
    if (kind == Q8_0) {
        for (int i = 0; i < PIECE; i++) codes[i * GROUP + lane] = (char)block[2 + i];
        return;
    }
    for (int piece = 0; piece < encodings[kind].block_values / PIECE; piece++, codes += piece_bytes(kind)) {
        uint8_t own[PIECE];
        uint32_t words[8];
        codes_of(kind, block, piece, own);
        fill_words(encodings[kind].bits, own, words);
        for (int word = 0; word < encodings[kind].bits; word++) memcpy(codes + 4 * (word * GROUP + lane), words + word, 4);
    }
}

struct packing {
    enum weight_kind kind;
    const char *rows;
    ptrdiff_t row_pitch, row_count, blocks;
    char *packed;
};

#define CASE(kind) case kind: pack_block(kind, block, lane, unit); break;
static void pack_part(const void *work, int part, int part_count) {
    const struct packing *own = work;
    const ptrdiff_t groups = groups_of(own->row_count), step = unit_bytes(own->kind);
    for (ptrdiff_t group = groups * part / part_count; group < groups * (part + 1) / part_count; group++) {
        char *unit = own->packed + group * own->blocks * step;
        const ptrdiff_t left = own->row_count - group * GROUP;
        const int lanes = left < GROUP ? (int)left : GROUP;
        if (lanes < GROUP) memset(unit, 0, (size_t)(own->blocks * step));
        for (ptrdiff_t b = 0; b < own->blocks; b++, unit += step)
            for (int lane = 0; lane < lanes; lane++) {
                const char *at = own->rows + (group * GROUP + lane) * own->row_pitch + b * encodings[own->kind].block_bytes;
                const uint8_t *block = (const uint8_t *)at;
                switch (own->kind) { /* each compiled for itself */
                CASE(Q8_0) CASE(Q4_0) CASE(Q4_1) CASE(Q5_0) CASE(Q5_1) CASE(Q2_K) CASE(Q3_K) CASE(Q4_K) CASE(Q5_K)
                CASE(Q6_K) CASE(IQ4_NL) CASE(IQ4_XS)
                default: break;
                }
            }
    }
}

static int is_refused(int kind, ptrdiff_t count, ptrdiff_t depth) {
    return kind < FLOAT_KINDS || count < 0 || !fits_blocks(kind, depth);
}

/* packed = rows of blocks as a file has them, `row_pitch` bytes apart, each of `depth` numbers: outputs of a matrix. */
EXPORT int shardmesh_pack_blocks(int kind, const char *rows, ptrdiff_t row_pitch, ptrdiff_t row_count, ptrdiff_t depth,
                                 char *packed) {
    if (is_refused(kind, row_count, depth)) return REFUSED;
    const struct packing own = {
        .kind = (enum weight_kind)kind, .rows = rows, .row_pitch = row_pitch, .row_count = row_count,
        .blocks = depth / encodings[kind].block_values, .packed = packed,
    };
    workers_run(pack_part, &own, part_count_of(depth * row_count * 2, groups_of(row_count)));
    return DONE;
}

/* Return the first row with a scale that is infinite or not a number; -1: none; -2: REFUSED. */
EXPORT ptrdiff_t shardmesh_blocks_not_finite(int kind, const char *rows, ptrdiff_t row_pitch, ptrdiff_t row_count,
                                             ptrdiff_t depth) {
    if (is_refused(kind, row_count, depth)) return -2;
    const struct place *place = places + kind;
    const int m = kind == IQ4_XS || place->m < 0 ? place->d : place->m;
    for (ptrdiff_t row = 0; row < row_count; row++) {
        const char *block = rows + row * row_pitch;
        for (ptrdiff_t b = depth / encodings[kind].block_values; b > 0; b--, block += encodings[kind].block_bytes) {
            uint16_t first, second;
            memcpy(&first, block + place->d, sizeof first);
            memcpy(&second, block + m, sizeof second);
            if ((first & 0x7C00) == 0x7C00 || (second & 0x7C00) == 0x7C00) return row;
        }
    }
    return -1;
}

/* Decode a unit or a piece of one group: numbers[inputs, GROUP]; return how many inputs it has. */
static ptrdiff_t decode(enum weight_kind kind, const char *group, ptrdiff_t k, ptrdiff_t depth, float *numbers) {
    float *to[GROUP];
    const ptrdiff_t count = least(MOST_BLOCK_VALUES, depth - k);
    for (ptrdiff_t v = 0; v * chosen->lanes() < GROUP; v++) to[v] = numbers + v * chosen->lanes();
    chosen->decode_group(kind, group, k / PIECE, (k + count) / PIECE, to, GROUP);
    return count;
}

/* to[depth, width] = what packed weights are, to the bit what the gguf package's dequantize gives. */
EXPORT int shardmesh_unpack(int kind, const char *packed, ptrdiff_t depth, ptrdiff_t width, float *to) {
    float numbers[MOST_BLOCK_VALUES * GROUP] __attribute__((aligned(64)));
    if (is_refused(kind, width, depth)) return REFUSED;
    for (ptrdiff_t first = 0; first < width; first += GROUP, packed += group_bytes((enum weight_kind)kind, depth)) {
        const size_t bytes = (size_t)least(GROUP, width - first) * sizeof *to;
        for (ptrdiff_t k = 0; k < depth;) {
            const ptrdiff_t count = decode((enum weight_kind)kind, packed, k, depth, numbers);
            for (ptrdiff_t i = 0; i < count; i++, k++) memcpy(to + k * width + first, numbers + i * GROUP, bytes);
        }
    }
    return DONE;
}

/* row[depth] = the weights of output `lane` of a packed group, as shardmesh_unpack: of an embedding, one token's row. */
EXPORT int shardmesh_unpack_output(int kind, const char *group, ptrdiff_t depth, ptrdiff_t lane, float *row) {
    float numbers[MOST_BLOCK_VALUES * GROUP] __attribute__((aligned(64)));
    if (is_refused(kind, 0, depth) || lane < 0 || lane >= GROUP) return REFUSED;
    for (ptrdiff_t k = 0; k < depth;) {
        const ptrdiff_t count = decode((enum weight_kind)kind, group, k, depth, numbers);
        for (ptrdiff_t i = 0; i < count; i++) row[k++] = numbers[i * GROUP + lane];
    }
    return DONE;
}

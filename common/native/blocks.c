/* How are a few rows multiplied with weights that stay encoded, and how are those decoded for many?
 *
 * Covers: groups of 16 outputs (encodings.h), one thread, one instruction set (vectors.h); compiled once for each.
 * Does not cover: threads, the page cache (groups.c), codes to numbers (codes.h), scales (scales.h), rows of whole
 * numbers (integers.c), many rows (gemm.c).
 *
 * A weight is d * code, plus a number where its encoding has one: the float32 bits that the gguf package's dequantize
 * gives. A scale times a code is exact (11 bits of float16, 6 of a k-quant's scale, 6 of a code), so that one fused
 * multiply-add with the number rounds as the package's addition does. Then every sum is the chain of fused multiply-adds
 * in the order of k that other weights have (kernel.c), over ranges that begin at whole pieces. Two groups take turns
 * piece by piece, so that one's chain is not waited for.
 */
#include "scales.h"

#define EACH_INPUT(i) UNROLLED for (int i = 0; i < PIECE; i++)
#define EACH_OF(v, count) EACH_VECTOR(v) if (v < (count))
#define EACH_ROW(r, rows) UNROLLED for (int r = 0; r < MOST_BLOCK_ROWS; r++) if (r < (rows))

/* Where the numbers that pieces are multiplied with lie, or, without any rows, where weights go. */
struct sums {
    const float *row[MOST_BLOCK_ROWS];
    float (*sum)[MOST_BLOCK_ROWS][GROUP]; /* [group] */
    float **to; /* [VECTORS] */
    ptrdiff_t pitch;
};

/* Take `count` vectors of a piece: their first one's codes, scales, sums, or where weights go. Constants unroll everything
 * inside. One row's sum is a chain as long as a processor looks ahead, so that two vectors' are made side by side. */
ALWAYS_INLINE void take_piece(const enum coding coding, const int rows, const int count, const struct table *table,
                              const char *codes, const float *scale, const float *more, const float *const *row,
                              ptrdiff_t k, float (*sum_at)[GROUP], float *const *to, ptrdiff_t pitch) {
    const int bits = bits_of(coding), a_word = 32 / bits;
    words word[VECTORS][8];
    vector sum[VECTORS][MOST_BLOCK_ROWS], own_scale[VECTORS], own_more[VECTORS];
    const float *from[MOST_BLOCK_ROWS];
    EACH_ROW(r, rows) from[r] = row[r] + k;
    EACH_OF(v, count) {
        own_scale[v] = load(scale + v * LANES), own_more[v] = has_more(coding) ? load(more + v * LANES) : zero();
        EACH_ROW(r, rows) sum[v][r] = load(sum_at[r] + v * LANES);
    }
    EACH_INPUT(i) EACH_OF(v, count) {
        const int own = i / a_word;
        if (coding != CODES_8 && i % a_word == 0 && own < bits) word[v][own] = load_word(codes, own, v);
        if (has_two_scales(coding) && i == PIECE / 2) {
            own_scale[v] = load(scale + GROUP + v * LANES);
            if (has_more(coding)) own_more[v] = load(more + GROUP + v * LANES);
        }
        const vector number = coding == CODES_8 ? signed_bytes(codes + i * GROUP + v * LANES)
                                                : number_of(coding, code_at(bits, word[v], i), table);
        const vector weight =
            has_more(coding) ? fused(own_scale[v], number, own_more[v]) : (vector)(own_scale[v] * number);
        EACH_ROW(r, rows) sum[v][r] = multiply_add(from[r] + i, weight, sum[v][r]);
        if (!rows) store(to[v] + i * pitch, weight);
    }
    EACH_OF(v, count) EACH_ROW(r, rows) store(sum_at[r] + v * LANES, sum[v][r]);
}

/* Take piece `p` of one group, a vector after the other, or two at a time. */
ALWAYS_INLINE void take_group(const enum coding coding, const int rows, const struct table *table,
                              const struct pieces *pieces, const struct sums *sums, int g, int p) {
    const int own = (pieces->first_scale + p) * (has_two_scales(coding) ? 2 : 1);
    const int at_once = rows == 1 && VECTORS > 1 ? 2 : 1;
    const char *codes = pieces->codes[g] + p * pieces->step;
    const float *scale = pieces->scales[g].scale[own], *more = pieces->scales[g].more[own];
    if (rows) UNROLLED for (int line = 0; line < GROUP * PIECE / 8 * bits_of(coding) / LINE_BYTES; line++)
        __builtin_prefetch(codes + BYTES_AHEAD + line * LINE_BYTES, 0, 3);
    for (int v = 0; v < VECTORS; v += at_once) {
        float *to[2] = {rows ? NULL : sums->to[v] + p * PIECE * sums->pitch, NULL};
        float(*const sum)[GROUP] = rows ? (float(*)[GROUP])(sums->sum[g][0] + v * LANES) : NULL;
        take_piece(coding, rows, at_once, table, codes + v * LANES * (coding == CODES_8 ? 1 : 4), scale + v * LANES,
                   more + v * LANES, sums->row, p * PIECE, sum, to, sums->pitch);
    }
}

ALWAYS_INLINE void take_pieces(const enum coding coding, const int rows, const struct pieces *pieces,
                               const struct sums *sums, int groups) {
    const struct table table = table_of(coding);
    for (int p = 0; p < pieces->count; p++)
        for (int g = 0; g < groups; g++) take_group(coding, rows, &table, pieces, sums, g, p);
}

typedef void take_function(const struct pieces *pieces, const struct sums *sums, int groups);

#define DEFINE(coding, rows)                                                                                          \
    static void take_##coding##_##rows(const struct pieces *p, const struct sums *s, int groups) {                    \
        take_pieces(coding, rows, p, s, groups);                                                                      \
    }
#define DEFINE_ROWS(coding)                                                                                           \
    DEFINE(coding, 0) DEFINE(coding, 1) DEFINE(coding, 2) DEFINE(coding, 4) DEFINE(coding, 8)
/* Functions for 1, 2, 4 and 8 rows; where there are fewer, the last one is taken for the others too, and left out. */
#define ENTRIES(coding)                                                                                               \
    {take_##coding##_0, take_##coding##_1, take_##coding##_2, take_##coding##_4, take_##coding##_4,                   \
     take_##coding##_8, take_##coding##_8, take_##coding##_8, take_##coding##_8}

DEFINE_ROWS(CODES_8) DEFINE_ROWS(CODES_4) DEFINE_ROWS(CODES_4_MORE) DEFINE_ROWS(CODES_BOOK) DEFINE_ROWS(CODES_5)
DEFINE_ROWS(CODES_5_MORE) DEFINE_ROWS(CODES_2_MORE) DEFINE_ROWS(CODES_3) DEFINE_ROWS(CODES_6)

static take_function *const takes[CODINGS][MOST_BLOCK_ROWS + 1] = {
    ENTRIES(CODES_8), ENTRIES(CODES_4), ENTRIES(CODES_4_MORE), ENTRIES(CODES_BOOK), ENTRIES(CODES_5),
    ENTRIES(CODES_5_MORE), ENTRIES(CODES_2_MORE), ENTRIES(CODES_3), ENTRIES(CODES_6),
};

ptrdiff_t VARIANT(vector_lanes)(void) { return LANES; }

void VARIANT(decode_group)(enum weight_kind kind, const char *group, ptrdiff_t piece, ptrdiff_t stop, float *const *to,
                           ptrdiff_t pitch) {
    struct pieces pieces;
    float *at[VECTORS];
    EACH_VECTOR(v) at[v] = to[v];
    const struct sums sums = {.to = at, .pitch = pitch};
    while (piece < stop) {
        const int count = point_at(kind, group, piece, stop, 0, &pieces, 1);
        takes[coding_of[kind]][0](&pieces, &sums, 1);
        EACH_VECTOR(v) at[v] += count * PIECE * pitch;
        piece += count;
    }
}

/* Compute some groups and rows, range by range of k; group `first` lies at `weights`. */
static void multiply_some(const struct product *product, const char *weights, ptrdiff_t first, const ptrdiff_t *group,
                          int groups, ptrdiff_t first_row, int rows) {
    const ptrdiff_t own_bytes = group_bytes(product->kind, product->depth);
    take_function *const take = takes[coding_of[product->kind]][rows];
    float sum[GROUPS_AT_ONCE][MOST_BLOCK_ROWS][GROUP] __attribute__((aligned(64)));
    struct pieces pieces;
    for (int range = 0; range < DEPTH_RANGES; range++) {
        const ptrdiff_t stop = range_start(product, range + 1) / PIECE;
        ptrdiff_t piece = range_start(product, range) / PIECE;
        memset(sum, 0, sizeof sum);
        while (piece < stop) {
            struct sums sums = {.sum = sum};
            for (int r = 0; r < MOST_BLOCK_ROWS; r++)
                sums.row[r] = product->rows + (first_row + (r < rows ? r : rows - 1)) * product->row_pitch + piece * PIECE;
            for (int g = 0; g < groups; g++)
                point_at(product->kind, weights + (group[g] - first) * own_bytes, piece, stop, g, &pieces, 1);
            take(&pieces, &sums, groups);
            piece += pieces.count;
        }
        for (int g = 0; g < groups; g++) put_sums(product, group[g], first_row, rows, sum[g], range);
    }
}

/* Groups that are taken at once lie far from each other: each is the next of its own stream through memory. */
void VARIANT(multiply_groups)(const struct product *product, const char *weights, ptrdiff_t first, ptrdiff_t stop) {
    const ptrdiff_t count = (stop - first + GROUPS_AT_ONCE - 1) / GROUPS_AT_ONCE; /* of the longest stream */
    for (ptrdiff_t step = 0; step < count; step++) {
        ptrdiff_t group[GROUPS_AT_ONCE];
        int groups = 0;
        for (ptrdiff_t at = first + step; at < stop; at += count) group[groups++] = at;
        for (ptrdiff_t row = 0; row < product->row_count; row += MOST_BLOCK_ROWS) {
            const ptrdiff_t left = product->row_count - row;
            multiply_some(product, weights, first, group, groups, row,
                          (int)(left < MOST_BLOCK_ROWS ? left : MOST_BLOCK_ROWS));
        }
    }
}

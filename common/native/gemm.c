/* How are many rows multiplied with a weight matrix, at the speed of arithmetic?
 *
 * Covers: one range of k, some rows and some columns, for one instruction set (vectors.h); compiled once for each.
 * Does not cover: threads and ranges (many_rows.c), few rows (kernel.c).
 *
 * Sums of ROWS_AT_ONCE x VECTORS_AT_ONCE vectors stay in registers while they walk along k; weights are widened and laid
 * side by side for that, rows are laid so before (Goto and van de Geijn, Anatomy of High-Performance Matrix
 * Multiplication, 2008). Every sum is the chain of fused multiply-adds in the order of k that kernel.c makes for a few
 * rows: pieces of a range only interrupt it. So a row's result is the same bits here and there.
 */
#include "product.h"
#include "vectors.h"

#include <stdlib.h>
#include <string.h>

enum {
#if defined(SHARDMESH_AVX512)
    ROWS_AT_ONCE = 14, /* 32 registers: 14 x 2 sums and 2 of weights; factors are read by the instructions themselves */
    VECTORS_AT_ONCE = 2,
#elif defined(SHARDMESH_AVX2)
    ROWS_AT_ONCE = 6, /* 16 registers: 6 x 2 sums, 2 of weights and a factor */
    VECTORS_AT_ONCE = 2,
#else
    ROWS_AT_ONCE = 8, /* 32 registers: 8 x 3 sums, 3 of weights and a factor */
    VECTORS_AT_ONCE = 3,
#endif
    STRIP = VECTORS_AT_ONCE * LANES, /* columns whose sums are in registers at a time */
    LINE_BYTES = 64,
    FETCHED_AHEAD = 8, /* rows of weights */
    PIECE_DEPTH = 256,               /* a strip's weights that stay in the first-level cache */
    BLOCK_ROWS = 112 / ROWS_AT_ONCE * ROWS_AT_ONCE, /* rows that stay in the second-level cache, 256 numbers of each */
    CHAINED_ROWS = 8 * BLOCK_ROWS, /* whose chains are kept at a time: 1.4 MB a thread, however long a round is */
};

#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#define EACH_ROW(r, rows) UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) if (r < (rows))
#define EACH_VECTOR(v) UNROLLED for (int v = 0; v < VECTORS_AT_ONCE; v++)

ptrdiff_t VARIANT(packed_rows)(void) { return ROWS_AT_ONCE; }

void VARIANT(pack_rows)(const struct product *product, ptrdiff_t first, ptrdiff_t k, ptrdiff_t depth, float *packed) {
    const ptrdiff_t left = product->row_count - first, rows = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
    const float *from = product->rows + first * product->row_pitch + k;
    if (rows < ROWS_AT_ONCE) memset(packed, 0, (size_t)(depth * ROWS_AT_ONCE) * sizeof *packed);
    enum { AT_ONCE = 16 }; /* a cache line of each row */
    for (ptrdiff_t d = 0; d < depth; d += AT_ONCE) {
        const ptrdiff_t stop = depth - d < AT_ONCE ? depth : d + AT_ONCE;
        for (ptrdiff_t r = 0; r < rows; r++)
            for (ptrdiff_t i = d; i < stop; i++) packed[i * ROWS_AT_ONCE + r] = from[r * product->row_pitch + i];
    }
}

ALWAYS_INLINE vector load_weights(const enum weight_kind kind, const char *from) {
    if (kind == FLOAT32) return load((const float *)from);
    return kind == FLOAT16 ? load_float16((const uint16_t *)from) : load_bfloat16((const uint16_t *)from);
}

/* Widen `depth` rows of some columns of weights, strip by strip; columns that there are not become zeros. Rows are read
 * one after another, whole lines, and fetched ahead: a strip at a time they would be short reads far from each other. */
ALWAYS_INLINE void pack(const enum weight_kind kind, const char *weights, ptrdiff_t row_bytes, ptrdiff_t depth,
                        ptrdiff_t columns, float *to) {
    const ptrdiff_t item = kind == FLOAT32 ? 4 : 2, whole = columns / STRIP, rest = columns - whole * STRIP;
    char padded[STRIP * 4] = {0};
    for (ptrdiff_t d = 0; d < depth; d++, weights += row_bytes, to += STRIP) {
        const char *ahead = weights + (d + FETCHED_AHEAD < depth ? FETCHED_AHEAD * row_bytes : 0);
        for (ptrdiff_t strip = 0; strip < whole; strip++) {
            const char *from = weights + strip * STRIP * item;
            for (ptrdiff_t byte = 0; byte < STRIP * item; byte += LINE_BYTES)
                __builtin_prefetch(ahead + strip * STRIP * item + byte, 0, 2);
            EACH_VECTOR(v) store(to + strip * depth * STRIP + v * LANES, load_weights(kind, from + v * LANES * item));
        }
        if (!rest) continue;
        memcpy(padded, weights + whole * STRIP * item, (size_t)(rest * item));
        EACH_VECTOR(v) store(to + whole * depth * STRIP + v * LANES, load_weights(kind, padded + v * LANES * item));
    }
}

/* The same of encoded weights; `k` and `depth` are of whole pieces. */
static void pack_groups(const struct product *product, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t first, ptrdiff_t stop,
                        float *to) {
    const ptrdiff_t own_bytes = group_bytes(product->kind, product->depth), columns = stop - first;
    const ptrdiff_t decoded = groups_of(columns) * GROUP, padded = (columns + STRIP - 1) / STRIP * STRIP;
    for (ptrdiff_t column = 0; column < decoded; column += GROUP) {
        float *at[GROUP / LANES];
        for (ptrdiff_t v = 0; v < GROUP / LANES; v++) {
            const ptrdiff_t own = column + v * LANES;
            at[v] = to + own / STRIP * STRIP * depth + own % STRIP;
        }
        VARIANT(decode_group)(product->kind, product->weights + (first + column) / GROUP * own_bytes, k / PIECE,
                              (k + depth) / PIECE, at, STRIP);
    }
    for (ptrdiff_t own = decoded; own < padded; own += LANES)
        for (ptrdiff_t d = 0; d < depth; d++) store(to + own / STRIP * STRIP * depth + d * STRIP + own % STRIP, zero());
}

static void pack_weights(const struct product *product, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t first, ptrdiff_t stop,
                         float *to) {
    if (is_encoded(product->kind)) {
        pack_groups(product, k, depth, first, stop, to);
        return;
    }
    const ptrdiff_t item = product->kind == FLOAT32 ? 4 : 2, row_bytes = row_bytes_of(product);
    const char *weights = product->weights + k * row_bytes + first * item;
    if (product->kind == FLOAT32) pack(FLOAT32, weights, row_bytes, depth, stop - first, to);
    else if (product->kind == FLOAT16) pack(FLOAT16, weights, row_bytes, depth, stop - first, to);
    else pack(BFLOAT16, weights, row_bytes, depth, stop - first, to);
}

/* Where the sums of a few rows and one strip come from and go to. */
struct sums {
    float *chain;   /* [rows, STRIP]: of the pieces of this range so far */
    float *to;      /* the product's */
    ptrdiff_t pitch; /* of the product's */
    ptrdiff_t columns;
    int begins, ends; /* a range, with this piece */
    int adds;         /* to the ranges before */
};

ALWAYS_INLINE void put(const struct sums *sums, ptrdiff_t row, const vector *sum) {
    float *to = sums->to + row * sums->pitch;
    if (sums->columns >= STRIP) {
        EACH_VECTOR(v) store(to + v * LANES, sums->adds ? add(load(to + v * LANES), sum[v]) : sum[v]);
        return;
    }
    float all[STRIP];
    EACH_VECTOR(v) store(all + v * LANES, sum[v]);
    for (ptrdiff_t c = 0; c < sums->columns; c++) to[c] = sums->adds ? to[c] + all[c] : all[c];
}

/* Walk `rows` rows of one strip along a piece of k. Constants unroll everything inside. */
ALWAYS_INLINE void walk(const int rows, const float *factors, const float *weights, ptrdiff_t depth,
                        const struct sums *sums) {
    vector sum[ROWS_AT_ONCE][VECTORS_AT_ONCE];
    EACH_ROW(r, rows)
        EACH_VECTOR(v) sum[r][v] = sums->begins ? zero() : load(sums->chain + r * STRIP + v * LANES);
    for (ptrdiff_t d = 0; d < depth; d++, factors += ROWS_AT_ONCE, weights += STRIP) {
        vector own[VECTORS_AT_ONCE];
        EACH_VECTOR(v) own[v] = load(weights + v * LANES);
        EACH_ROW(r, rows)
            EACH_VECTOR(v) sum[r][v] = multiply_add(factors + r, own[v], sum[r][v]);
    }
    EACH_ROW(r, rows) {
        if (sums->ends) put(sums, r, sum[r]);
        else EACH_VECTOR(v) store(sums->chain + r * STRIP + v * LANES, sum[r][v]);
    }
}

typedef void walk_function(const float *factors, const float *weights, ptrdiff_t depth, const struct sums *sums);

#define DEFINE(rows)                                                                                                  \
    static void walk_##rows(const float *f, const float *w, ptrdiff_t d, const struct sums *s) { walk(rows, f, w, d, s); }
DEFINE(1) DEFINE(2) DEFINE(3) DEFINE(4) DEFINE(5) DEFINE(6)
#if defined(SHARDMESH_AVX512)
DEFINE(7) DEFINE(8) DEFINE(9) DEFINE(10) DEFINE(11) DEFINE(12) DEFINE(13) DEFINE(14)
static walk_function *const walks[] = {walk_1, walk_2, walk_3,  walk_4,  walk_5,  walk_6,  walk_7,
                                       walk_8, walk_9, walk_10, walk_11, walk_12, walk_13, walk_14};
#elif defined(SHARDMESH_AVX2)
static walk_function *const walks[] = {walk_1, walk_2, walk_3, walk_4, walk_5, walk_6};
#else
DEFINE(7) DEFINE(8)
static walk_function *const walks[] = {walk_1, walk_2, walk_3, walk_4, walk_5, walk_6, walk_7, walk_8};
#endif

/* What one thread needs to itself: weights of a piece, and the chains of its rows. */
struct scratch {
    float *weights, *chains;
};

static void multiply_piece(const struct many_rows *m, ptrdiff_t k, ptrdiff_t depth, const struct scratch *scratch,
                           const struct columns *part) {
    const struct product *product = m->product;
    const ptrdiff_t range_depth = m->stop - m->k, strips = (part->stop - part->first + STRIP - 1) / STRIP;
    pack_weights(product, k, depth, part->first, part->stop, scratch->weights);
    for (ptrdiff_t block = part->first_row; block < part->stop_row; block += BLOCK_ROWS) {
        const ptrdiff_t block_stop = part->stop_row - block < BLOCK_ROWS ? part->stop_row : block + BLOCK_ROWS;
        for (ptrdiff_t strip = 0; strip < strips; strip++) {
            const ptrdiff_t column = part->first + strip * STRIP;
            struct sums sums = {
                .pitch = product->sums_pitch, .columns = part->stop - column, .begins = k == m->k,
                .ends = k + depth == m->stop, .adds = m->adds,
            };
            for (ptrdiff_t row = block; row < block_stop; row += ROWS_AT_ONCE) {
                const ptrdiff_t rows = block_stop - row < ROWS_AT_ONCE ? block_stop - row : ROWS_AT_ONCE;
                sums.chain = scratch->chains + ((row - part->first_row) * strips + strip * ROWS_AT_ONCE) * STRIP;
                sums.to = product->sums + row * product->sums_pitch + column;
                walks[rows - 1](m->packed + row * range_depth + (k - m->k) * ROWS_AT_ONCE,
                                scratch->weights + strip * depth * STRIP, depth, &sums);
            }
        }
    }
}

int VARIANT(multiply_packed)(const struct many_rows *m, const struct columns *part) {
    const ptrdiff_t range_depth = m->stop - m->k, pieces = (range_depth + PIECE_DEPTH - 1) / PIECE_DEPTH;
    const ptrdiff_t unit = is_encoded(m->product->kind) ? PIECE : 1;
    const ptrdiff_t most_depth = ((range_depth + pieces - 1) / pieces + unit - 1) / unit * unit;
    const ptrdiff_t columns = part->stop - part->first; /* of which groups are decoded as a whole */
    const ptrdiff_t decoded = is_encoded(m->product->kind) ? groups_of(columns) * GROUP : columns;
    const ptrdiff_t padded_columns = (decoded + STRIP - 1) / STRIP * STRIP;
    const ptrdiff_t rows = part->stop_row - part->first_row;
    const ptrdiff_t padded_rows = (rows < CHAINED_ROWS ? rows : CHAINED_ROWS) + ROWS_AT_ONCE;
    const size_t weight_count = (size_t)(most_depth * padded_columns);
    const size_t chain_count = pieces > 1 ? (size_t)(padded_rows * padded_columns) : 0;
    void *memory;
    if (posix_memalign(&memory, 64, (weight_count + chain_count) * sizeof(float)) != 0) return 1;
    const struct scratch scratch = {.weights = memory, .chains = (float *)memory + weight_count};
    for (struct columns some = *part; some.first_row < part->stop_row; some.first_row = some.stop_row) {
        const ptrdiff_t left = part->stop_row - some.first_row;
        some.stop_row = some.first_row + (left < CHAINED_ROWS ? left : CHAINED_ROWS);
        for (ptrdiff_t k = m->k; k < m->stop; k += most_depth)
            multiply_piece(m, k, m->stop - k < most_depth ? m->stop - k : most_depth, &scratch, &some);
    }
    free(memory);
    return 0;
}

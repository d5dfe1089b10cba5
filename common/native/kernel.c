/* How are a few rows multiplied with a weight matrix that is read from memory once?
 *
 * Covers: one range of columns, for one instruction set (vectors.h); compiled once for each.
 * Does not cover: threads (workers.c), which instruction set (matmul.c).
 *
 * Columns are walked in panels whose partial sums stay in the nearest caches. In a panel, DEPTH rows of weights are
 * walked side by side, as that many sequential streams, while the next DEPTH rows are fetched ahead. Every sum is a
 * chain of fused multiply-adds in the order of k for each of DEPTH_RANGES ranges of k, added up in their order, whatever
 * the panel, the number of rows and the instruction set: so a row's result depends on nothing but the row and the
 * weights, bit for bit. Weights that come from the page cache (ranges.c) come range by range, in pieces.
 */
#include "product.h"
#include "vectors.h"

#include <string.h>

enum {
    DEPTH = 8,
    LINE_BYTES = 64,
    PANEL_SLACK = 2 * LANES, /* the last vectors of a panel overlap; their sums do not */
#if defined(SHARDMESH_AVX512)
    PANEL_SUMS = 16384,    /* floats: longer streams of weights are worth more than sums in the first-level cache */
    ROWS_AT_ONCE = 8,      /* 32 registers, and factors that instructions read from memory themselves */
    VECTORS_AT_ONCE = 1,
#elif defined(SHARDMESH_AVX2)
    PANEL_SUMS = 8192,
    ROWS_AT_ONCE = 4, /* 16 registers: 4 x 2 sums, weights and a factor */
    VECTORS_AT_ONCE = 2,
#else
    PANEL_SUMS = 8192,
    ROWS_AT_ONCE = 8, /* 32 registers: 8 x 2 sums, weights and a factor */
    VECTORS_AT_ONCE = 2,
#endif
};

/* A loop that becomes straight code. Clang unrolls before it inlines, so the bound of the loop has to be a constant
 * where it is written; what is left out with `if` is known to be after inlining. */
#if defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif
#define EACH_ROW(r, rows) UNROLLED for (int r = 0; r < ROWS_AT_ONCE; r++) if (r < (rows))
#define EACH_DEPTH(d, depth) UNROLLED for (int d = 0; d < DEPTH; d++) if (d < (depth))
#define EACH_VECTOR(v) UNROLLED for (int v = 0; v < VECTORS_AT_ONCE; v++)

ALWAYS_INLINE ptrdiff_t item_bytes(const enum weight_kind kind) { return kind == FLOAT32 ? 4 : 2; }

ALWAYS_INLINE vector load_weights(const enum weight_kind kind, const char *from) {
    if (kind == FLOAT32) return load((const float *)from);
    return kind == FLOAT16 ? load_float16((const uint16_t *)from) : load_bfloat16((const uint16_t *)from);
}

/* What a panel's walk needs; `columns` is at least LANES. */
struct panel {
    const char *weights;
    ptrdiff_t pitch_bytes;
    ptrdiff_t columns;
    ptrdiff_t sums_pitch;
    int is_piece; /* all columns of some rows, walked by one thread */
};

/* Add `depth` rows of weights, times their factors, to the sums of `rows` rows. Constants unroll everything inside. */
ALWAYS_INLINE void add_rows(const int rows, const int depth, const enum weight_kind kind, const int fetches_ahead,
                            const struct panel *panel, const float *factors, float *sums) {
    const ptrdiff_t item = item_bytes(kind), pitch_bytes = panel->pitch_bytes, sums_pitch = panel->sums_pitch;
    const ptrdiff_t columns = panel->columns, last = columns - LANES, step = LANES * VECTORS_AT_ONCE;
    for (ptrdiff_t column = 0; column < columns; column += step) {
        const char *at[VECTORS_AT_ONCE];
        vector sum[VECTORS_AT_ONCE][ROWS_AT_ONCE];
        EACH_VECTOR(v) {
            const ptrdiff_t wanted = column + v * LANES;
            at[v] = panel->weights + (wanted > last ? last : wanted) * item;
            EACH_ROW(r, rows) sum[v][r] = load(sums + r * sums_pitch + wanted);
        }
        EACH_DEPTH(d, depth) {
            vector weights[VECTORS_AT_ONCE];
            EACH_VECTOR(v) weights[v] = load_weights(kind, at[v] + d * pitch_bytes);
            if (fetches_ahead) {
                const char *next = at[0] + (depth + d) * pitch_bytes;
                if (step * item >= LINE_BYTES || !(column & (LINE_BYTES / item - 1))) __builtin_prefetch(next, 0, 2);
                if (step * item > LINE_BYTES) __builtin_prefetch(next + LINE_BYTES, 0, 2);
            }
            EACH_ROW(r, rows)
                EACH_VECTOR(v) sum[v][r] = multiply_add(factors + d * ROWS_AT_ONCE + r, weights[v], sum[v][r]);
        }
        EACH_VECTOR(v)
            EACH_ROW(r, rows) store(sums + r * sums_pitch + column + v * LANES, sum[v][r]);
        /* Keeps the compiler from holding all factors in registers, of which there are not enough. */
        __asm__ volatile("" ::: "memory");
    }
}

typedef void add_rows_function(const struct panel *panel, const float *factors, float *sums);

#define DEFINE(rows, kind)                                                                                           \
    static void add_##rows##_##kind(const struct panel *p, const float *f, float *s) {                                \
        add_rows(rows, DEPTH, kind, 1, p, f, s);                                                                      \
    }                                                                                                                 \
    static void add_again_##rows##_##kind(const struct panel *p, const float *f, float *s) {                          \
        add_rows(rows, DEPTH, kind, 0, p, f, s);                                                                      \
    }                                                                                                                 \
    static void add_one_##rows##_##kind(const struct panel *p, const float *f, float *s) {                            \
        add_rows(rows, 1, kind, 0, p, f, s);                                                                          \
    }
#define DEFINE_KINDS(rows) DEFINE(rows, FLOAT32) DEFINE(rows, FLOAT16) DEFINE(rows, BFLOAT16)
#define ENTRY(name, rows) {name##_##rows##_FLOAT32, name##_##rows##_FLOAT16, name##_##rows##_BFLOAT16}
#define ENTRIES_4(name) ENTRY(name, 1), ENTRY(name, 2), ENTRY(name, 3), ENTRY(name, 4)

DEFINE_KINDS(1) DEFINE_KINDS(2) DEFINE_KINDS(3) DEFINE_KINDS(4)
#if defined(SHARDMESH_AVX2)
#define ENTRIES(name) {ENTRIES_4(name)}
#else
DEFINE_KINDS(5) DEFINE_KINDS(6) DEFINE_KINDS(7) DEFINE_KINDS(8)
#define ENTRIES(name) {ENTRIES_4(name), ENTRY(name, 5), ENTRY(name, 6), ENTRY(name, 7), ENTRY(name, 8)}
#endif

static add_rows_function *const add_first[ROWS_AT_ONCE][FLOAT_KINDS] = ENTRIES(add);
static add_rows_function *const add_again[ROWS_AT_ONCE][FLOAT_KINDS] = ENTRIES(add_again);
static add_rows_function *const add_one[ROWS_AT_ONCE][FLOAT_KINDS] = ENTRIES(add_one);

/* Add `depth` (DEPTH or 1) rows of weights from row `k` on to the sums of all the product's rows, group by group. The
 * first group fetches ahead; not in a piece, whose rows lie one after another: the processor does that better. */
static void add_depth(const struct product *product, const struct panel *panel, ptrdiff_t k, int depth, float *sums) {
    float factors[DEPTH * ROWS_AT_ONCE];
    for (ptrdiff_t first = 0; first < product->row_count; first += ROWS_AT_ONCE) {
        const ptrdiff_t left = product->row_count - first, rows = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
        const float *from = product->rows + first * product->row_pitch + k;
        for (int d = 0; d < depth; d++)
            for (int r = 0; r < rows; r++) factors[d * ROWS_AT_ONCE + r] = from[r * product->row_pitch + d];
        const ptrdiff_t entry = rows - 1;
        add_rows_function *const add = depth == 1 ? add_one[entry][product->kind]
                                       : first || panel->is_piece ? add_again[entry][product->kind]
                                                  : add_first[entry][product->kind];
        add(panel, factors, sums + first * panel->sums_pitch);
    }
}

/* Copy `depth` rows of fewer than LANES columns to where a whole vector can be read. */
static void pad_rows(const struct product *product, ptrdiff_t k, int depth, char *padded) {
    const ptrdiff_t item = item_bytes(product->kind), row_bytes = product->width * item;
    for (int d = 0; d < depth; d++) memcpy(padded + d * LANES * item, product->weights + (k + d) * row_bytes, row_bytes);
}

/* How a panel of `columns` walks, and where its sums lie. */
static struct panel panel_of(const struct product *product, ptrdiff_t columns) {
    const ptrdiff_t item = item_bytes(product->kind);
    struct panel panel = {.pitch_bytes = product->width * item, .columns = columns};
    if (columns < LANES) panel.pitch_bytes = LANES * item, panel.columns = LANES;
    panel.sums_pitch = panel.columns + PANEL_SLACK;
    return panel;
}

/* Add rows `k` up to `stop` of weights to a panel's sums; `weights` is row `k` of its first column. */
static void add_range(const struct product *product, struct panel *panel, const char *weights, ptrdiff_t k,
                      ptrdiff_t stop, float *sums) {
    const ptrdiff_t row_bytes = product->width * item_bytes(product->kind);
    char padded[DEPTH * LANES * 4] = {0};
    while (k < stop) {
        const int depth = stop - k >= DEPTH ? DEPTH : 1;
        panel->weights = weights;
        if (product->width < LANES) {
            pad_rows(product, k, depth, padded);
            panel->weights = padded;
        }
        add_depth(product, panel, k, depth, sums);
        k += depth;
        weights += depth * row_bytes;
    }
}

/* Write a panel's sums to its columns of the result, or add them to what is there. */
static void put_sums(const struct product *product, const float *sums, ptrdiff_t columns, int adds, float *to) {
    const ptrdiff_t whole = columns < LANES ? columns : columns / LANES * LANES;
    /* The last vector of weights was read so that it ends with the columns: its sums lie that much further on. */
    const float *tail = columns < LANES ? sums : sums + whole - (columns - LANES);
    const ptrdiff_t pitch = panel_of(product, columns).sums_pitch;
    for (ptrdiff_t r = 0; r < product->row_count; r++, sums += pitch, tail += pitch, to += product->sums_pitch) {
        if (adds) {
            for (ptrdiff_t c = 0; c < whole; c++) to[c] += sums[c];
            for (ptrdiff_t c = whole; c < columns; c++) to[c] += tail[c];
        } else {
            for (ptrdiff_t c = 0; c < whole; c++) to[c] = sums[c];
            for (ptrdiff_t c = whole; c < columns; c++) to[c] = tail[c];
        }
    }
}

/* Panels of about equal width, so that none is narrower than a vector unless the matrix is. */
static ptrdiff_t panel_columns(const struct product *product, ptrdiff_t left) {
    const ptrdiff_t most = PANEL_SUMS / product->row_count / SPLIT_COLUMNS * SPLIT_COLUMNS;
    const ptrdiff_t panels = (left + most - 1) / most;
    const ptrdiff_t rounded = (left / panels + SPLIT_COLUMNS - 1) / SPLIT_COLUMNS * SPLIT_COLUMNS;
    return left < rounded ? left : rounded;
}

void VARIANT(multiply_columns)(const struct product *product, ptrdiff_t first, ptrdiff_t stop) {
    float sums[PANEL_SUMS + MOST_ROWS * (PANEL_SLACK + LANES)] __attribute__((aligned(64)));
    const ptrdiff_t item = item_bytes(product->kind);
    while (first < stop) {
        const ptrdiff_t columns = panel_columns(product, stop - first);
        struct panel panel = panel_of(product, columns);
        for (int range = 0; range < DEPTH_RANGES; range++) {
            const ptrdiff_t k = range_start(product, range), end = range_start(product, range + 1);
            memset(sums, 0, (size_t)(product->row_count * panel.sums_pitch) * sizeof *sums);
            add_range(product, &panel, product->weights + (k * product->width + first) * item, k, end, sums);
            put_sums(product, sums, columns, range, product->sums + first);
        }
        first += columns;
    }
}

ptrdiff_t VARIANT(piece_sums)(const struct product *product) {
    ptrdiff_t count = 0;
    for (ptrdiff_t first = 0; first < product->width;) {
        const ptrdiff_t columns = panel_columns(product, product->width - first);
        count += product->row_count * panel_of(product, columns).sums_pitch;
        first += columns;
    }
    return count;
}

void VARIANT(add_piece)(const struct product *product, const char *weights, ptrdiff_t k, ptrdiff_t stop, float *sums) {
    for (ptrdiff_t first = 0; first < product->width;) {
        const ptrdiff_t columns = panel_columns(product, product->width - first);
        struct panel panel = panel_of(product, columns);
        panel.is_piece = 1;
        add_range(product, &panel, weights + first * item_bytes(product->kind), k, stop, sums);
        sums += product->row_count * panel.sums_pitch;
        first += columns;
    }
}

/* One row of a panel: what put_sums would make of one range after another, in one pass. */
static void put_ranges(const float *sums, ptrdiff_t sums_of_range, ptrdiff_t count, float *to) {
    for (ptrdiff_t c = 0; c < count; c++) {
        float sum = sums[c];
        UNROLLED for (int range = 1; range < DEPTH_RANGES; range++) sum += sums[range * sums_of_range + c];
        to[c] = sum;
    }
}

void VARIANT(put_pieces)(const struct product *product, const float *sums, ptrdiff_t sums_of_range) {
    for (ptrdiff_t first = 0; first < product->width;) {
        const ptrdiff_t columns = panel_columns(product, product->width - first);
        const ptrdiff_t whole = columns / LANES * LANES, pitch = panel_of(product, columns).sums_pitch;
        for (ptrdiff_t r = 0; r < product->row_count; r++, sums += pitch) {
            float *to = product->sums + r * product->sums_pitch + first;
            put_ranges(sums, sums_of_range, whole, to);
            if (whole < columns) put_ranges(sums + whole, sums_of_range, LANES, to + columns - LANES);
        }
        first += columns;
    }
}

double VARIANT(sum_of)(const float *numbers, ptrdiff_t count) {
    enum { STREAMS = 8 };
    vector sum[STREAMS];
    double total = 0;
    float lanes[LANES];
    for (int s = 0; s < STREAMS; s++) sum[s] = zero();
    ptrdiff_t i = 0;
    for (; i + STREAMS * LANES <= count; i += STREAMS * LANES)
        UNROLLED for (int s = 0; s < STREAMS; s++) sum[s] = add(sum[s], load(numbers + i + s * LANES));
    for (int s = 0; s < STREAMS; s++) {
        store(lanes, sum[s]);
        for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
    }
    for (; i < count; i++) total += numbers[i];
    return total;
}

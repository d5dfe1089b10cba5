/* How are rows of whole numbers multiplied with weights that stay encoded?
 *
 * Covers: rounding rows to 8 bits (rounded.h), products with all encodings but iq4's, for one instruction set (dots.h).
 * Does not cover: rows of floats (blocks.c), threads (groups.c), when rows are rounded (rounded.c).
 *
 * Of 32 inputs, or of 16 where they share a scale, codes times numbers are added up exactly; that sum times
 * (weights' scale * row's scale) is added to an output's chain, and so is what the encoding adds to each weight, times the
 * numbers' sum, after it. Chains are over the ranges of blocks.c. So here too a row's result is the same bits in any
 * company and on any instruction set.
 */
#include "fours.h"

ALWAYS_INLINE void round_all(const float *row, ptrdiff_t depth, const enum order order, struct rounded_piece *to) {
    for (ptrdiff_t k = 0; k < depth; k += PIECE, row += PIECE, to++) {
        uint32_t bits[PIECE], largest = 0;
        int32_t whole[PIECE], sums[2] = {0, 0};
        float size;
        memcpy(bits, row, sizeof bits);
        for (int i = 0; i < PIECE; i++) {
            const uint32_t own = bits[i] & 0x7FFFFFFFu;
            largest = own > largest ? own : largest;
        }
        memcpy(&size, &largest, sizeof size);
        const int is_zero = largest < 0x0D800000u, is_number = largest < 0x7F800000u;
        const float scale = is_zero ? 0.0f : size / 127.0f, factor = is_zero || !is_number ? 0.0f : 127.0f / size;
        for (int i = 0; i < PIECE; i++) { /* 1.5 * 2^23 leaves no room for a fraction */
            const float shifted = (is_number ? row[i] : 0.0f) * factor + 12582912.0f;
            memcpy(whole + i, &shifted, sizeof shifted);
        }
        for (int i = 0; i < PIECE; i++) whole[i] -= 0x4B400000;
        for (int i = 0; i < PIECE / 2; i++) sums[0] += whole[i];
        for (int i = PIECE / 2; i < PIECE; i++) sums[1] += whole[i];
        for (int i = 0; i < PIECE; i++) to->numbers[i] = (int8_t)whole[input_at(order, i)];
        to->scale = scale;
        to->whole_sum = sums[0] + sums[1];
        to->sum = scale * (float)to->whole_sum;
        for (int half = 0; half < 2; half++) {
            to->whole_sums[half] = sums[half];
            to->sums[half] = scale * (float)sums[half];
        }
    }
}

void VARIANT(round_inputs)(const float *row, ptrdiff_t depth, enum order order, struct rounded_piece *rounded) {
    if (order == BY_TWO) round_all(row, depth, BY_TWO, rounded);
    else if (order == BY_FOUR) round_all(row, depth, BY_FOUR, rounded);
    else if (order == BY_WORDS) round_all(row, depth, BY_WORDS, rounded);
    else round_all(row, depth, IN_A_ROW, rounded);
}

/* Where the rows of neighbouring pieces lie, and their sums. */
struct row_sums {
    const struct rounded_piece *rows;
    ptrdiff_t pitch; /* of rows, in pieces */
    int row_count;
    float (*sum)[MOST_BLOCK_ROWS][GROUP]; /* [group] */
};

/* Where a piece's scales, and what is added, lie: as floats, 16 outputs' for each 16 or 32 inputs, or as the halves that a
 * block of 32 inputs begins with. */
struct piece_scales {
    const float *scale, *more;
    const char *halves; /* or NULL */
};

ALWAYS_INLINE vector scale_of(const struct piece_scales *at, int part, int v) {
    return at->halves ? halves(at->halves, v) : load(at->scale + part * GROUP + v * LANES);
}
ALWAYS_INLINE vector more_of(const struct piece_scales *at, int part, int v) {
    return at->halves ? halves(at->halves + 2 * GROUP, v) : load(at->more + part * GROUP + v * LANES);
}

/* Add one product to a vector of sums: of all inputs of a piece, or of one half. */
ALWAYS_INLINE vector add_scaled(vector sum, vector scale, float row_scale, whole_numbers dots) {
    return fused(scale * row_scale, as_signed_floats(dots), sum);
}

/* Take one piece of one group. Constants unroll everything inside but rows. */
ALWAYS_INLINE void take_piece(const enum coding coding, const char *codes, const struct piece_scales at,
                              const struct row_sums *rows, ptrdiff_t piece, float (*sums)[GROUP]) {
    const int bits = bits_of(coding), offset = offset_of(coding), has_two = has_two_scales(coding);
    EACH_VECTOR(v) {
        words word[8], own[WORDS];
        const vector scale = scale_of(&at, 0, v), more = has_more(coding) ? more_of(&at, 0, v) : zero();
        UNROLLED for (int i = 0; i < 8; i++) if (i < bits) word[i] = load_word(codes, i, v);
        take_codes(bits, word, own);
        for (int r = 0; r < rows->row_count; r++) {
            const struct rounded_piece *row = rows->rows + r * rows->pitch + piece;
            float *to = sums[r] + v * LANES;
            vector sum = load(to);
            if (has_two) {
                const whole_numbers first = dot(bits, own, row->numbers, 0, WORDS / 2) - offset * row->whole_sums[0];
                const whole_numbers next = dot(bits, own, row->numbers, WORDS / 2, WORDS) - offset * row->whole_sums[1];
                sum = add_scaled(sum, scale, row->scale, first);
                sum = add_scaled(sum, scale_of(&at, 1, v), row->scale, next);
                if (has_more(coding)) {
                    sum = multiply_add(row->sums, more, sum);
                    sum = multiply_add(row->sums + 1, more_of(&at, 1, v), sum);
                }
            } else {
                const whole_numbers all = dot(bits, own, row->numbers, 0, WORDS) - offset * row->whole_sum;
                sum = add_scaled(sum, scale, row->scale, all);
                if (has_more(coding)) sum = multiply_add(&row->sum, more, sum);
            }
            store(to, sum);
        }
    }
}

/* The same of codes of 8 bits, which have a sign. */
ALWAYS_INLINE void take_piece_of_8(const char *codes, const struct piece_scales at, const struct row_sums *rows,
                                   ptrdiff_t piece, float (*sums)[GROUP]) {
    for (int first = 0; first < rows->row_count; first += ROWS_OF_8) {
        const int left = rows->row_count - first, count = left < ROWS_OF_8 ? left : ROWS_OF_8;
        const struct rounded_piece *row[ROWS_OF_8];
        whole_numbers dots[ROWS_OF_8][VECTORS];
        for (int r = 0; r < ROWS_OF_8; r++) /* rows that there are not are the last one again, and left out */
            row[r] = rows->rows + (first + (r < count ? r : count - 1)) * rows->pitch + piece;
        if (count == 1) dots_of_8(codes, row, 1, dots);
        else dots_of_8(codes, row, ROWS_OF_8, dots);
        for (int r = 0; r < count; r++)
            EACH_VECTOR(v) {
                float *to = sums[first + r] + v * LANES;
                store(to, add_scaled(load(to), scale_of(&at, 0, v), row[r]->scale, dots[r][v]));
            }
    }
}

ALWAYS_INLINE void take_pieces(const enum coding coding, const int in_blocks, const struct pieces *pieces,
                               const struct row_sums *rows, int groups) {
    const int scales = has_two_scales(coding) ? 2 : 1, before = in_blocks ? (has_more(coding) ? 4 : 2) * GROUP : 0;
    const int bytes = before + GROUP * PIECE / 8 * bits_of(coding);
    for (int p = 0; p < pieces->count; p++) {
        const int own = (pieces->first_scale + p) * scales;
        for (int g = 0; g < groups; g++) {
            const char *codes = pieces->codes[g] + p * pieces->step;
            const struct piece_scales at = {
                .scale = pieces->scales[g].scale[own], .more = pieces->scales[g].more[own],
                .halves = in_blocks ? codes - before : NULL,
            };
            UNROLLED for (int byte = 0; byte < bytes; byte += LINE_BYTES)
                __builtin_prefetch(codes - before + BYTES_AHEAD + byte, 0, 3);
            if (coding == CODES_8) take_piece_of_8(codes, at, rows, p, rows->sum[g]);
            else take_piece(coding, codes, at, rows, p, rows->sum[g]);
        }
    }
}

typedef void take_function(const struct pieces *pieces, const struct row_sums *rows, int groups);

#define DEFINE(coding, in_blocks)                                                                                     \
    static void take_##coding##_##in_blocks(const struct pieces *p, const struct row_sums *r, int groups) {           \
        take_pieces(coding, in_blocks, p, r, groups);                                                                 \
    }
DEFINE(CODES_8, 1) DEFINE(CODES_4, 1) DEFINE(CODES_4_MORE, 1) DEFINE(CODES_5, 1) DEFINE(CODES_5_MORE, 1)
DEFINE(CODES_4_MORE, 0) DEFINE(CODES_5_MORE, 0) DEFINE(CODES_2_MORE, 0) DEFINE(CODES_3, 0) DEFINE(CODES_6, 0)

static take_function *const takes[WEIGHT_KINDS] = {
    [Q8_0] = take_CODES_8_1,      [Q4_0] = take_CODES_4_1,      [Q4_1] = take_CODES_4_MORE_1,
    [Q5_0] = take_CODES_5_1,      [Q5_1] = take_CODES_5_MORE_1, [Q2_K] = take_CODES_2_MORE_0,
    [Q3_K] = take_CODES_3_0,      [Q4_K] = take_CODES_4_MORE_0, [Q5_K] = take_CODES_5_MORE_0,
    [Q6_K] = take_CODES_6_0,
};

/* Compute some groups and rows, range by range of k; group `first` lies at `weights`. */
static void multiply_some(const struct product *product, const char *weights, ptrdiff_t first, const ptrdiff_t *group,
                          int groups, ptrdiff_t first_row, int rows) {
    const ptrdiff_t own_bytes = group_bytes(product->kind, product->depth), pitch = product->depth / PIECE;
    take_function *const take = takes[product->kind];
    float sum[GROUPS_AT_ONCE][MOST_BLOCK_ROWS][GROUP] __attribute__((aligned(64)));
    struct pieces pieces;
    for (int range = 0; range < DEPTH_RANGES; range++) {
        const ptrdiff_t stop = range_start(product, range + 1) / PIECE;
        ptrdiff_t piece = range_start(product, range) / PIECE;
        for (int g = 0; g < groups; g++)
            for (int r = 0; r < rows; r++) EACH_VECTOR(v) store(sum[g][r] + v * LANES, zero());
        while (piece < stop) {
            const struct row_sums own = {
                .rows = product->rounded + first_row * pitch + piece, .pitch = pitch, .row_count = rows, .sum = sum,
            };
            for (int g = 0; g < groups; g++)
                point_at(product->kind, weights + (group[g] - first) * own_bytes, piece, stop, g, &pieces, 0);
            take(&pieces, &own, groups);
            piece += pieces.count;
        }
        for (int g = 0; g < groups; g++) put_sums(product, group[g], first_row, rows, sum[g], range);
    }
}

void VARIANT(multiply_rounded)(const struct product *product, const char *weights, ptrdiff_t first, ptrdiff_t stop) {
    const ptrdiff_t count = (stop - first + GROUPS_AT_ONCE - 1) / GROUPS_AT_ONCE; /* of the longest stream (blocks.c) */
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

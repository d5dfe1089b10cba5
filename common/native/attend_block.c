/* What does a block of queries attend to, bit for bit what attend.c gives each of them?
 *
 * Covers: queries of one KV head, one thread, one instruction set (vectors.h); compiled once for each.
 * Does not cover: threads (tiles.c).
 *
 * Vectors lie across queries, not along the head: each score keeps its own chains and the order in which they are added
 * up, nothing is summed within a vector, and the softmax is plain. Queries share the keys and values that are read;
 * there is no [rows, positions] matrix, only a block of scores that stays in the first-level cache.
 * Sources: arXiv:1805.02867 (softmax in one pass), arXiv:2205.14135 (attention in blocks).
 */
#include "functions.h"
#include "steps.h"

#include <math.h>
#include <stdlib.h>

enum {
    QUERIES = QUERIES_AT_ONCE,
    POSITIONS = POSITIONS_AT_ONCE,
    VECTORS = 2,             /* of queries, whose scores are computed side by side */
    PANEL = VECTORS * LANES, /* queries in them; they lie [head_size, PANEL] */
    FEWEST = 3,              /* queries: fewer are sooner done one by one */
    CONTEXTS = 4,            /* queries whose contexts are computed side by side */
#if defined(SHARDMESH_AVX2)
    SCORES = 2, /* positions whose scores are: 2 x 2 x 2 sums of 16 registers */
    WIDE = 2,   /* vectors of a context: 4 x 2 sums */
#else
    SCORES = 4, /* 4 x 2 x 2 sums of 32 registers */
    WIDE = 4,   /* 4 x 4 sums */
#endif
};

ALWAYS_INLINE ptrdiff_t rounded_up(ptrdiff_t count, ptrdiff_t unit) { return (count + unit - 1) / unit * unit; }

/* QUERIES or fewer neighbouring queries of one KV head, row by row and in it head by head, and what is known of them. */
struct block {
    const struct attention *attention;
    ptrdiff_t kv_head, first, count; /* the first query, of all the KV head's, and how many */
    ptrdiff_t pitch;                 /* of contexts and of `padded`: head_size, and what fills the last vector */
    float *queries;                  /* [QUERIES / PANEL, head_size, PANEL] */
    float *contexts;                 /* [QUERIES, pitch] */
    float *weights;                  /* [POSITIONS, QUERIES]: scores, then e^(score - top) */
    float *padded;                   /* [POSITIONS, pitch]: values, when a row of them is not whole vectors */
    float tops[QUERIES], totals[QUERIES], shrinks[QUERIES];
    int starts[QUERIES], stops[QUERIES]; /* what each query looks at, in the block of positions that is under way */
};

#define EACH_SCORE(p, v) UNROLLED for (int p = 0; p < SCORES; p++) UNROLLED for (int v = 0; v < VECTORS; v++)

/* sums[p][v] = the chains `lane` and `lane` + LANES_KEPT / 2 of the scores of some positions and queries, added up. */
ALWAYS_INLINE void eighth_of_scores(const float *queries, const float *keys, ptrdiff_t size, ptrdiff_t lane,
                                    vector sums[SCORES][VECTORS]) {
    vector lower[SCORES][VECTORS], upper[SCORES][VECTORS];
    ptrdiff_t i = lane;
    EACH_SCORE(p, v) lower[p][v] = upper[p][v] = zero();
    for (; i + LANES_KEPT / 2 < size; i += LANES_KEPT) {
        const float *own = queries + i * PANEL, *others = own + LANES_KEPT / 2 * PANEL;
        EACH_SCORE(p, v) {
            const float *key = keys + p * size + i;
            lower[p][v] = multiply_add(key, load(own + v * LANES), lower[p][v]);
            upper[p][v] = multiply_add(key + LANES_KEPT / 2, load(others + v * LANES), upper[p][v]);
        }
    }
    if (i < size)
        EACH_SCORE(p, v)
            lower[p][v] = multiply_add(keys + p * size + i, load(queries + i * PANEL + v * LANES), lower[p][v]);
    EACH_SCORE(p, v) sums[p][v] = add(lower[p][v], upper[p][v]);
}

ALWAYS_INLINE void fourth_of_scores(const float *queries, const float *keys, ptrdiff_t size, ptrdiff_t lane,
                                    vector sums[SCORES][VECTORS]) {
    vector others[SCORES][VECTORS];
    eighth_of_scores(queries, keys, size, lane, sums);
    eighth_of_scores(queries, keys, size, lane + 4, others);
    EACH_SCORE(p, v) sums[p][v] = add(sums[p][v], others[p][v]);
}

ALWAYS_INLINE void half_of_scores(const float *queries, const float *keys, ptrdiff_t size, ptrdiff_t lane,
                                  vector sums[SCORES][VECTORS]) {
    vector others[SCORES][VECTORS];
    fourth_of_scores(queries, keys, size, lane, sums);
    fourth_of_scores(queries, keys, size, lane + 2, others);
    EACH_SCORE(p, v) sums[p][v] = add(sums[p][v], others[p][v]);
}

/* scores[p, q] = a panel's queries times SCORES positions' keys, with additions in the order of `dot`. */
static void score(const float *queries, const float *keys, ptrdiff_t size, float *scores) {
    vector sums[SCORES][VECTORS], others[SCORES][VECTORS];
    half_of_scores(queries, keys, size, 0, sums);
    half_of_scores(queries, keys, size, 1, others);
    EACH_SCORE(p, v) store(scores + p * QUERIES + v * LANES, add(sums[p][v], others[p][v]));
}

/* Make weights of all scores with `count` positions. `all`: every query looks at every one of them. */
ALWAYS_INLINE void weigh(struct block *block, int count, const int all) {
    const float factor = 1.0f / sqrtf((float)block->attention->head_size);
    const int width = (int)rounded_up(block->count, PANEL), *starts = block->starts, *stops = block->stops;
    float largest[QUERIES], totals[QUERIES]; /* of which compilers know that they are apart from weights */
    memcpy(largest, block->tops, sizeof largest);
    memcpy(totals, block->totals, sizeof totals);
    for (int p = 0; p < count; p++) {
        float *scores = block->weights + p * QUERIES;
        for (int q = 0; q < width; q++) {
            const float scaled = scores[q] * factor;
            scores[q] = all ? scaled : either(mask_of((starts[q] <= p) & (p < stops[q])), scaled, -INFINITY);
            largest[q] = scores[q] > largest[q] ? scores[q] : largest[q];
        }
    }
    for (int q = 0; q < width; q++) {
        const float top = block->tops[q];
        const float shrink = either(mask_of(totals[q] > 0), exponential(top - largest[q]), 0.0f);
        block->shrinks[q] = either(mask_of(largest[q] > top), shrink, 1.0f);
        totals[q] *= block->shrinks[q];
    }
    for (int p = 0; p < count; p++) {
        float *weights = block->weights + p * QUERIES;
        for (int q = 0; q < width; q++) {
            const float weight = exponential(weights[q] - largest[q]);
            weights[q] = all ? weight : either(mask_of((starts[q] <= p) & (p < stops[q])), weight, 0.0f);
            totals[q] += weights[q];
        }
    }
    memcpy(block->tops, largest, sizeof largest);
    memcpy(block->totals, totals, sizeof totals);
}

/* Add values of the positions from `first` up to `stop`, times their weights, to the contexts of some queries. */
ALWAYS_INLINE void add_values(const int queries, const int vectors, const float *weights, const float *values,
                              ptrdiff_t value_pitch, ptrdiff_t first, ptrdiff_t stop, float *contexts,
                              ptrdiff_t pitch) {
    vector sums[CONTEXTS][WIDE];
    UNROLLED for (int q = 0; q < CONTEXTS; q++) if (q < queries)
        UNROLLED for (int v = 0; v < WIDE; v++) if (v < vectors) sums[q][v] = load(contexts + q * pitch + v * LANES);
    for (ptrdiff_t p = first; p < stop; p++) {
        vector value[WIDE];
        UNROLLED for (int v = 0; v < WIDE; v++) if (v < vectors) value[v] = load(values + p * value_pitch + v * LANES);
        UNROLLED for (int q = 0; q < CONTEXTS; q++) if (q < queries)
            UNROLLED for (int v = 0; v < WIDE; v++) if (v < vectors)
                sums[q][v] = multiply_add(weights + p * QUERIES + q, value[v], sums[q][v]);
    }
    UNROLLED for (int q = 0; q < CONTEXTS; q++) if (q < queries)
        UNROLLED for (int v = 0; v < WIDE; v++) if (v < vectors) store(contexts + q * pitch + v * LANES, sums[q][v]);
}

/* Carry CONTEXTS neighbouring queries (or one) over the block of positions: together where all of them look, else each
 * by itself, for a value that a query does not look at may be no number. Rows only ever look further on. */
ALWAYS_INLINE void add_columns(struct block *block, const int queries, const int vectors, ptrdiff_t query,
                               ptrdiff_t column, const float *values, ptrdiff_t value_pitch) {
    const float *weights = block->weights + query;
    float *contexts = block->contexts + query * block->pitch + column;
    const int *starts = block->starts + query, *stops = block->stops + query;
    const int begin = starts[queries - 1], end = (int)most(begin, stops[0]);
    for (int q = 0; q < queries && queries > 1; q++)
        add_values(1, vectors, weights + q, values + column, value_pitch, starts[q], least(begin, stops[q]),
                   contexts + q * block->pitch, block->pitch);
    add_values(queries, vectors, weights, values + column, value_pitch, begin, end, contexts, block->pitch);
    for (int q = 0; q < queries && queries > 1; q++)
        add_values(1, vectors, weights + q, values + column, value_pitch, end, stops[q],
                   contexts + q * block->pitch, block->pitch);
}

static void add_contexts(struct block *block, const float *values, ptrdiff_t value_pitch) {
    for (ptrdiff_t q = 0; q < block->count; q++)
        if (block->shrinks[q] != 1.0f)
            for (ptrdiff_t i = 0; i < block->pitch; i++) block->contexts[q * block->pitch + i] *= block->shrinks[q];
    for (ptrdiff_t column = 0, columns; column < block->pitch; column += columns) {
        const int is_wide = column + WIDE * LANES <= block->pitch;
        ptrdiff_t q = 0;
        columns = is_wide ? WIDE * LANES : LANES;
        for (; q + CONTEXTS <= block->count; q += CONTEXTS) {
            if (is_wide) add_columns(block, CONTEXTS, WIDE, q, column, values, value_pitch);
            else add_columns(block, CONTEXTS, 1, q, column, values, value_pitch);
        }
        for (; q < block->count; q++) {
            if (is_wide) add_columns(block, 1, WIDE, q, column, values, value_pitch);
            else add_columns(block, 1, 1, q, column, values, value_pitch);
        }
    }
}

/* Carry the queries over the positions from `first` on, `count` of them, that none but they may look at. */
static void add_block(struct block *block, ptrdiff_t first, int count) {
    const struct attention *a = block->attention;
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count;
    const float *keys = a->keys + block->kv_head * a->head_pitch + first * size;
    const float *values = a->values + block->kv_head * a->head_pitch + first * size;
    int all = 1;
    for (ptrdiff_t q = 0; q < block->count; q++) {
        const ptrdiff_t row = (block->first + q) / group;
        block->starts[q] = (int)least(count, most(0, start_of(a, row) - first));
        block->stops[q] = (int)least(count, most(0, stop_of(a, row) - first));
        all &= block->starts[q] == 0 && block->stops[q] == count;
    }
    for (ptrdiff_t panel = 0; panel < block->count; panel += PANEL)
        for (int p = 0; p < count; p += SCORES) {
            /* The last ones overlap others; in a short block those before it, and there are some. */
            const int at = (int)least(p, count - SCORES);
            score(block->queries + panel * size, keys + at * size, size, block->weights + at * QUERIES + panel);
        }
    if (all) weigh(block, count, 1);
    else weigh(block, count, 0);
    if (block->pitch == size) {
        add_contexts(block, values, size);
        return;
    }
    for (int p = 0; p < count; p++)
        memcpy(block->padded + p * block->pitch, values + p * size, (size_t)size * sizeof *values);
    add_contexts(block, block->padded, block->pitch);
}

static void take_queries(struct block *block) {
    const struct attention *a = block->attention;
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count;
    const ptrdiff_t width = (a->query_count + 2 * a->kv_count) * size;
    for (ptrdiff_t q = 0; q < block->count; q++) {
        const ptrdiff_t row = (block->first + q) / group, head = (block->first + q) % group;
        const float *query = a->projected + row * width + (block->kv_head * group + head) * size;
        float *to = block->queries + q / PANEL * PANEL * size + q % PANEL;
        for (ptrdiff_t i = 0; i < size; i++) to[i * PANEL] = query[i];
    }
    for (ptrdiff_t q = 0; q < QUERIES; q++) block->tops[q] = -INFINITY;
}

static void put_contexts(const struct block *block) {
    const struct attention *a = block->attention;
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count;
    for (ptrdiff_t q = 0; q < block->count; q++) {
        const ptrdiff_t row = (block->first + q) / group, head = (block->first + q) % group;
        float *to = a->context + (row * a->query_count + block->kv_head * group + head) * size;
        for (ptrdiff_t i = 0; i < size; i++) to[i] = block->contexts[q * block->pitch + i] / block->totals[q];
    }
}

void VARIANT(attend_block)(const struct attention *a, ptrdiff_t kv_head, ptrdiff_t first) {
    const ptrdiff_t size = a->head_size, group = a->query_count / a->kv_count, pitch = rounded_up(size, LANES);
    struct block block = {
        .attention = a, .kv_head = kv_head, .first = first, .count = least(QUERIES, a->row_count * group - first),
        .pitch = pitch,
    };
    const ptrdiff_t last_row = (first + block.count - 1) / group, stop = stop_of(a, last_row);
    const ptrdiff_t padded = pitch == size ? 0 : POSITIONS * pitch; /* a multiple of 64 bytes, as all of these are */
    const ptrdiff_t floats = QUERIES * (size + pitch + POSITIONS + SCORES) + padded;
    const int is_possible = block.count >= FEWEST && stop >= SCORES; /* else `score` would read what lies before keys */
    float *const memory = !is_possible ? NULL : aligned_alloc(64, (size_t)floats * sizeof *memory);
    if (!memory) { /* or there is none left */
        for (ptrdiff_t q = first; q < first + block.count; q++) VARIANT(attend_query)(a, q / group, kv_head, q % group);
        return;
    }
    memset(memory, 0, (size_t)(rounded_up(block.count, PANEL) * size) * sizeof *memory);
    memset(memory + QUERIES * size, 0, (size_t)(block.count * pitch) * sizeof *memory);
    memset(memory + floats - padded, 0, (size_t)padded * sizeof *memory);
    block.queries = memory;
    block.contexts = block.queries + QUERIES * size;
    block.weights = block.contexts + QUERIES * pitch + SCORES * QUERIES; /* before them, what overlaps the block's begin */
    block.padded = block.weights + POSITIONS * QUERIES;
    take_queries(&block);
    for (ptrdiff_t at = start_of(a, first / group) / POSITIONS * POSITIONS; at < stop; at += POSITIONS)
        add_block(&block, at, (int)least(POSITIONS, stop - at));
    put_contexts(&block);
    free(memory);
}

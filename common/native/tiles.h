/* What are tiles, and the layers that they make up, to a kernel? library.py declares the same for ctypes.
 *
 * Covers: the types that tiles.c and layers.c take, and what they offer each other.
 */
#ifndef SHARDMESH_TILES_H
#define SHARDMESH_TILES_H

#include <stddef.h>

/* Weights [depth, width], row-major, without gaps, or packed (encodings.h). */
struct matrix {
    const char *memory; /* where they lie, or NULL: in the page cache */
    long long offset;   /* of the file, when `memory` is NULL */
    int fd;
    int kind; /* product.h's */
    ptrdiff_t depth, width;
};

/* A tile's inputs of its last matrix are `skip` up to `skip` and as many as the tile has columns: where a cut between
 * two ranks lies inside a block of encoded weights, both have the whole block, and what is the other's counts as zero. */

struct ffn_tile {
    struct matrix gate_up[2]; /* gate and up side by side in one, or one of each */
    int projection_count;     /* 1 or 2 */
    int activation;           /* steps.h's */
    struct matrix down;
    ptrdiff_t down_skip;
    const float *gate_up_bias; /* one for each column of gate and up, side by side, or NULL */
};

struct attention_tile {
    struct matrix projections[3]; /* q, k and v side by side in one, or one of each */
    int projection_count;         /* 1 or 3 */
    struct matrix output;
    ptrdiff_t output_skip;
};

/* One block of one layer; its tiles are added up in their order. */
struct layer_block {
    const struct ffn_tile *ffn_tiles;  /* NULL in a block of attention */
    const struct head_tile *head_tiles; /* NULL in an FFN */
    ptrdiff_t tile_count;
    const float *norm;      /* of the block's input: [hidden_size] */
    const float *late_bias; /* [hidden_size], or NULL */
    ptrdiff_t sliding_window; /* 0 for none */
};

/* An attention tile with everything that its heads need. */
struct head_tile {
    struct attention_tile matrices;
    const float *bias, *query_norm, *key_norm; /* as in struct attention */
    ptrdiff_t query_count, kv_count;
    ptrdiff_t first_kv_head; /* of those that this node holds */
};

/* Neighbouring rows of one sequence, and its keys and values: [layer, key or value, kv_head, position, head_size]. */
struct sequence_rows {
    ptrdiff_t row_count, first_position, capacity;
    float *store;
    const float *cosine, *sine; /* as in struct attention */
    ptrdiff_t *lengths; /* [layer], how many positions it has; NULL: Python looks at them */
};

struct layers_model {
    ptrdiff_t hidden_size, head_size, kv_head_count;
    float norm_epsilon;
};

struct attention; /* steps.h */
int run_ffn_tile(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part);
int run_attention_tile(const float *rows, ptrdiff_t row_count, const struct attention_tile *tile,
                       struct attention *segments, ptrdiff_t segment_count, float *part);

#endif

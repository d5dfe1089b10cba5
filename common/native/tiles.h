/* What is one tile to a kernel? library.py declares the same for ctypes.
 *
 * Covers: the types that tiles.c takes.
 */
#ifndef SHARDMESH_TILES_H
#define SHARDMESH_TILES_H

#include <stddef.h>

/* Weights [depth, width], row-major, without gaps. */
struct matrix {
    const char *memory; /* where they lie, or NULL: in the page cache */
    long long offset;   /* of the file, when `memory` is NULL */
    int fd;
    int kind; /* product.h's */
    ptrdiff_t depth, width;
};

struct ffn_tile {
    struct matrix gate_up, down;
    const float *gate_up_bias; /* one for each column of gate_up, or NULL */
};

struct attention_tile {
    struct matrix qkv, output;
};

#endif

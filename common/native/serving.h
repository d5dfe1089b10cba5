/* What do Python and C share of a node that answers block after block without Python between them?
 *
 * Covers: the memory of serving.c, shared with common/native/served.py. Does not cover: messages (exchange.h), tiles and
 * sequences (tiles.h).
 */
#ifndef SHARDMESH_SERVING_H
#define SHARDMESH_SERVING_H

#include "exchange.h"
#include "tiles.h"

#include <stddef.h>
#include <stdint.h>

enum { KINDS_OF_BLOCKS = 2 }; /* attention, FFN */

struct lock; /* taken by threads of Python and by C (common/native/lock.py) */

/* Amounts by size (common/program/tallies.py). */
struct distribution {
    const double *bounds; /* ascending, in seconds */
    ptrdiff_t bound_count;
    int64_t *counts; /* [bound_count + 1]; the last one: of what is above all bounds */
    double total;
};

/* What all sessions of a node have in common; whoever has `turn` may compute, and change it. */
struct node_work {
    struct lock *turn;
    int64_t compute_nanoseconds;
    int64_t queue_nanoseconds; /* that blocks of one session took, and others waited for */
    struct distribution *compute_seconds[KINDS_OF_BLOCKS];
};

/* Weights that kernels take from the page cache (common/weights/cached_reads.py). */
struct shared_reads {
    struct lock *in_use; /* who has it may use the files, and change what follows */
    int is_allowed, has_given_up, is_closed;
    int64_t bytes_total, tiles_total;
};

/* What a block takes from there. */
struct cached_block {
    ptrdiff_t tile_count; /* 0: nothing, all of it is in memory */
    int64_t byte_count;
    int is_first; /* of a sweep */
};

/* Blocks of a slice that need nothing but memory, or the page cache. They change while `turn` is taken only. */
struct ready_blocks {
    const struct layers_model *model;
    const struct layer_block **blocks; /* [layer_count][KINDS_OF_BLOCKS]; NULL: Python computes it */
    ptrdiff_t layer_count;
    const struct cached_block *cached; /* as `blocks` */
    struct shared_reads *reads; /* NULL: no block takes anything from there */
};

struct session_counts {
    int64_t sweeps, rounds, received_bytes, sent_bytes;
};

/* One session. Its thread alone writes, in Python or in C. */
struct served_session {
    struct node_work *work;
    const struct ready_blocks *ready;
    struct session_counts *counts;
    struct lock *writing; /* who has it may send */
    const int *must_look;        /* not 0: Python looks at each message first; NULL: it never has to */
    const struct sequence_rows *sequences; /* whose rows the blocks of this sweep are of */
    ptrdiff_t sequence_count, row_count;
    int thread_count; /* that so few rows are to have */
    int activations; /* what rows are in products with encoded weights (rounded.c) */
    int64_t sweep_id;
    int64_t last_call_id;
    int64_t working_on; /* the call that is worked on, for who tells the peer that it still is; 0: none */
};

#endif

/* Which instruction set's functions compute now, and how is a product cut for threads?
 *
 * Covers: what matmul.c, which chooses, shares with ranges.c, tiles.c and layers.c.
 */
#ifndef SHARDMESH_CHOSEN_H
#define SHARDMESH_CHOSEN_H

#include "interface.h"
#include "product.h"
#include "rounded.h"
#include "sampling.h"
#include "steps.h"
#include "stored.h"

struct variant {
    const char *name;
    multiply_columns *multiply;
    piece_sums *piece_sums;
    add_piece *add_piece;
    put_pieces *put_pieces;
    packed_rows *packed_rows;
    pack_rows *pack_rows;
    multiply_packed *multiply_packed;
    multiply_groups *multiply_groups;
    decode_group *decode_group;
    vector_lanes *lanes;
    sum_of *sum;
    prepare_rows *prepare;
    attend_block *attend;
    gate_rows *gate;
    add_parts *add;
    normalize_rows *normalize;
    widen_numbers *widen;
    narrow_numbers *narrow;
    round_inputs *round;
    multiply_rounded *multiply_rounded;
    highest_of *highest;
    weigh_logits *weigh;
    part_weights *part;
};

extern const struct variant *chosen;

/* Return into how many of `units` parts a product with that many bytes of weights is cut: 1 when it is too small. */
int part_count_of(ptrdiff_t bytes, ptrdiff_t units);

/* Compute a product, whatever its number of rows. With weights in memory this is always DONE; from the page cache it is
 * NOT_CACHED when some of them are not there, NEVER_CACHED when this system cannot tell. */
int multiply(const struct product *product);

enum { PIECE_BYTES = 256 * 1024 }; /* of rows, at least one, that are taken from the page cache at a time */

/* Return PIECE_BYTES of the calling thread's own. */
char *cached_piece(void);
/* Read that many bytes from the page cache; return what became of it. */
int take_cached(int fd, char *piece, size_t count, long long offset);

/* Compute products of the same few rows with encoded weights, group by group; as multiply. */
int multiply_by_groups(const struct product *products, int count);

/* Tell whether products with such weights round their rows, in this thread. */
int rounds_rows(enum weight_kind kind);

/* Compute products of the same rows that do; as multiply, but NO_MEMORY when there is none. */
int multiply_rounding(const struct product *products, int count);

/* Compute products of the same rows, in one piece of work where that can be; as multiply. */
int multiply_all(const struct product *products, int count);

/* Compute a product of at most MOST_ROWS rows, range by range of k; NOT_CACHED also when there is no memory for sums. */
int multiply_by_ranges(const struct product *product);

/* Compute a product of many rows whose weights are in memory; nonzero, with sums half made, when there is no memory. */
int multiply_many_rows(const struct product *product);

/* Tell whether an attention is one that attend_block can compute. */
int is_possible(const struct attention *attention);

#endif

/* How is a product with encoded weights shared by threads, and taken from the page cache?
 *
 * Covers: parts of whole groups of outputs (encodings.h), in memory, or read piece by piece into a buffer that stays in
 * the second-level cache.
 * Does not cover: the computation (blocks.c), many rows with weights in memory (many_rows.c).
 */
#include "chosen.h"
#include "workers.h"

#include <stdatomic.h>
#include <string.h>

enum { BYTES_PER_WEIGHT = 2 }; /* that an encoded weight's time is worth, where it is asked if a thread is to be woken */

struct grouped {
    const struct product *product;
    atomic_int outcome;
};

static void multiply_cached(struct grouped *grouped, ptrdiff_t first, ptrdiff_t stop) {
    static _Thread_local char piece[PIECE_BYTES] __attribute__((aligned(64)));
    const struct product *product = grouped->product;
    const ptrdiff_t own_bytes = group_bytes(product->kind, product->depth), at_once = PIECE_BYTES / own_bytes;
    while (first < stop && atomic_load(&grouped->outcome) == DONE) {
        const ptrdiff_t count = least(stop - first, at_once);
        const int outcome =
            take_cached(product->fd, piece, (size_t)(count * own_bytes), product->offset + first * own_bytes);
        if (outcome != DONE) {
            atomic_store(&grouped->outcome, outcome);
            return;
        }
        chosen->multiply_groups(product, piece, first, first + count);
        first += count;
    }
}

static void multiply_part(const void *work, int part, int part_count) {
    struct grouped *grouped = (struct grouped *)(size_t)work;
    const struct product *product = grouped->product;
    const ptrdiff_t groups = groups_of(product->width), own_bytes = group_bytes(product->kind, product->depth);
    const ptrdiff_t first = groups * part / part_count, stop = groups * (part + 1) / part_count;
    if (product->weights) chosen->multiply_groups(product, product->weights + first * own_bytes, first, stop);
    else multiply_cached(grouped, first, stop);
}

int multiply_by_groups(const struct product *product) {
    struct grouped grouped = {.product = product};
    if (!product->row_count || !product->width) return DONE;
    /* A group that no piece has room for has 30,000 inputs: nothing that a slice has. */
    if (!product->weights && group_bytes(product->kind, product->depth) > PIECE_BYTES) return NOT_CACHED;
    const ptrdiff_t bytes = product->depth * product->width * BYTES_PER_WEIGHT;
    if (!product->depth)
        for (ptrdiff_t row = 0; row < product->row_count; row++)
            memset(product->sums + row * product->sums_pitch, 0, (size_t)product->width * sizeof(float));
    else
        workers_run(multiply_part, &grouped, part_count_of(bytes, groups_of(product->width)));
    return atomic_load(&grouped.outcome);
}

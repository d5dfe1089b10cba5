/* How do threads share products with encoded weights, and how are those taken from the page cache?
 *
 * Covers: parts of whole groups of outputs (encodings.h), in memory, or read piece by piece into a buffer that stays in
 * the second-level cache.
 * Does not cover: the computation (blocks.c, integers.c), many rows with weights in memory (many_rows.c).
 */
#include "chosen.h"
#include "workers.h"

#include <stdatomic.h>

enum { BYTES_PER_WEIGHT = 4 }; /* that a weight counts as where it is asked if another thread is worth it */

struct grouped {
    const struct product *products;
    int count;
    atomic_int outcome;
};

static void multiply_in_memory(const struct product *product, const char *weights, ptrdiff_t first, ptrdiff_t stop) {
    (product->rounded ? chosen->multiply_rounded : chosen->multiply_groups)(product, weights, first, stop);
}

static void multiply_cached(struct grouped *grouped, const struct product *product, ptrdiff_t first, ptrdiff_t stop) {
    char *const piece = cached_piece();
    const ptrdiff_t own_bytes = group_bytes(product->kind, product->depth), at_once = PIECE_BYTES / own_bytes;
    while (first < stop && atomic_load(&grouped->outcome) == DONE) {
        const ptrdiff_t count = least(stop - first, at_once);
        const int outcome =
            take_cached(product->fd, piece, (size_t)(count * own_bytes), product->offset + first * own_bytes);
        if (outcome != DONE) {
            atomic_store(&grouped->outcome, outcome);
            return;
        }
        multiply_in_memory(product, piece, first, first + count);
        first += count;
    }
}

/* Parts are of the groups of all products, one product's after another's. */
static void multiply_part(const void *work, int part, int part_count) {
    struct grouped *grouped = (struct grouped *)(size_t)work;
    ptrdiff_t all = 0, before = 0;
    for (int i = 0; i < grouped->count; i++) all += groups_of(grouped->products[i].width);
    const ptrdiff_t part_first = all * part / part_count, part_stop = all * (part + 1) / part_count;
    for (int i = 0; i < grouped->count; i++) {
        const struct product *product = grouped->products + i;
        const ptrdiff_t groups = groups_of(product->width), own_bytes = group_bytes(product->kind, product->depth);
        const ptrdiff_t first = most(part_first - before, 0), stop = least(part_stop - before, groups);
        before += groups;
        if (first >= stop) continue;
        if (product->weights || !product->depth) multiply_in_memory(product, product->weights + first * own_bytes, first, stop);
        else multiply_cached(grouped, product, first, stop);
    }
}

int multiply_by_groups(const struct product *products, int count) {
    struct grouped grouped = {.products = products, .count = count};
    ptrdiff_t bytes = 0, groups = 0;
    for (int i = 0; i < count; i++) {
        const struct product *product = products + i;
        /* A group that no piece has room for has 14,000 inputs or more: no part of a model's matrix on its way has. */
        if (!product->weights && group_bytes(product->kind, product->depth) > PIECE_BYTES) return NOT_CACHED;
        bytes += product->depth * product->width * BYTES_PER_WEIGHT;
        groups += groups_of(product->width);
    }
    if (products->row_count && groups) workers_run(multiply_part, &grouped, part_count_of(bytes, groups));
    return atomic_load(&grouped.outcome);
}

/* When are the rows of a product rounded to whole numbers of 8 bits, and by whom?
 *
 * Covers: the choice, which is each calling thread's own; rounding rows once for all products that share them.
 * Does not cover: rounding one row, products (integers.c), parts of products (groups.c).
 *
 * All rows are rounded then, of a prompt as of a token: a row's numbers depend on no company. Weights that are floats or
 * iq4's are multiplied with rows as they are.
 */
#include "chosen.h"
#include "workers.h"

#include <stdlib.h>

static _Thread_local int rounds = 0;

/* Let products of this thread have rows of floats (0) or of 8 bits (1); nonzero: there are no others. */
EXPORT int shardmesh_use_activations(int activations) {
    if (activations < 0 || activations > 1) return REFUSED;
    rounds = activations;
    return DONE;
}

int rounds_rows(enum weight_kind kind) { return rounds && is_encoded(kind) && kind != IQ4_NL && kind != IQ4_XS; }

struct rounding {
    const struct product *product;
    enum order order;
    struct rounded_piece *rounded;
};

static void round_part(const void *work, int part, int part_count) {
    const struct rounding *own = work;
    const struct product *product = own->product;
    const ptrdiff_t first = product->row_count * part / part_count, stop = product->row_count * (part + 1) / part_count;
    for (ptrdiff_t row = first; row < stop; row++)
        chosen->round(product->rows + row * product->row_pitch, product->depth, own->order,
                      own->rounded + row * (product->depth / PIECE));
}

int multiply_rounding(const struct product *products, int count) {
    enum { MOST_PRODUCTS = 3 };
    struct product own[MOST_PRODUCTS];
    const struct rounded_piece *in_order[ORDERS] = {NULL};
    const ptrdiff_t pieces = products->row_count * (products->depth / PIECE);
    void *memory;
    if (count > MOST_PRODUCTS) return REFUSED;
    if (posix_memalign(&memory, 64, (size_t)(pieces * ORDERS + 1) * sizeof(struct rounded_piece)) != 0) return NO_MEMORY;
    for (int i = 0; i < count; i++) {
        const enum order order = order_of(products[i].kind);
        const struct rounding rounding = {
            .product = products + i, .order = order, .rounded = (struct rounded_piece *)memory + pieces * order,
        };
        if (!in_order[order])
            workers_run(round_part, &rounding, part_count_of(pieces * PIECE * 4, products->row_count));
        in_order[order] = rounding.rounded;
        own[i] = products[i];
        own[i].rounded = rounding.rounded;
    }
    const int outcome = multiply_by_groups(own, count);
    free(memory);
    return outcome;
}

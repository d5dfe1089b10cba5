/* How is a product of many rows cut into work for threads?
 *
 * Covers: ranges of k one after another, rows laid out once for all threads, parts of columns (and of rows, where columns
 * are few). Does not cover: the computation (gemm.c), few rows and weights in the page cache (matmul.c, ranges.c).
 */
#include "chosen.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>

enum {
    PART_COLUMNS = 384,   /* a multiple of every instruction set's strip: their weights stay in the second-level cache */
    COLUMN_UNIT = 96,     /* parts begin at multiples of this: of 12, 16 and 32 */
    LEAST_PART_ROWS = 112,
    LEAST_THREADED_SUMS = 1 << 18, /* multiplications: fewer are done before another thread is awake */
};

struct cut {
    struct many_rows many;
    ptrdiff_t column_parts, part_columns, row_parts, part_rows;
    int has_failed; /* only ever set */
};

static ptrdiff_t rounded_up(ptrdiff_t count, ptrdiff_t unit) { return (count + unit - 1) / unit * unit; }

static void pack_part(const void *work, int part, int part_count) {
    const struct many_rows *many = &((const struct cut *)work)->many;
    const ptrdiff_t unit = chosen->packed_rows(), blocks = (many->product->row_count + unit - 1) / unit;
    for (ptrdiff_t block = blocks * part / part_count; block < blocks * (part + 1) / part_count; block++)
        chosen->pack_rows(many->product, block * unit, many->k, many->stop - many->k,
                          many->packed + block * unit * (many->stop - many->k));
}

static void multiply_part(const void *work, int part, int part_count) {
    struct cut *cut = (struct cut *)(size_t)work;
    const struct product *product = cut->many.product;
    const ptrdiff_t first = part / cut->row_parts * cut->part_columns, row = part % cut->row_parts * cut->part_rows;
    (void)part_count;
    const struct columns columns = {
        .first = first, .stop = least(first + cut->part_columns, product->width),
        .first_row = row, .stop_row = least(row + cut->part_rows, product->row_count),
    };
    if (columns.first < columns.stop && columns.first_row < columns.stop_row &&
        chosen->multiply_packed(&cut->many, &columns) != 0)
        __atomic_store_n(&cut->has_failed, 1, __ATOMIC_RELAXED);
}

/* Parts of PART_COLUMNS, or narrower where there would be fewer than threads want; then of some rows too. */
static int cut_for_threads(struct cut *cut) {
    const struct product *product = cut->many.product;
    const ptrdiff_t threads = workers_thread_count(), unit = chosen->packed_rows();
    const int alone = threads == 1 || product->row_count * product->width * product->depth < LEAST_THREADED_SUMS;
    const ptrdiff_t wanted = alone ? 1 : threads * 2;
    cut->part_columns = least(PART_COLUMNS, rounded_up((product->width + wanted - 1) / wanted, COLUMN_UNIT));
    cut->column_parts = (product->width + cut->part_columns - 1) / cut->part_columns;
    cut->part_rows = product->row_count;
    if (cut->column_parts < wanted) {
        const ptrdiff_t row_parts = (wanted + cut->column_parts - 1) / cut->column_parts;
        const ptrdiff_t rows = (product->row_count + row_parts - 1) / row_parts;
        cut->part_rows = rounded_up(rows > LEAST_PART_ROWS ? rows : LEAST_PART_ROWS, unit);
    }
    while (rounded_up(product->row_count, cut->part_rows) / cut->part_rows * cut->column_parts > MOST_PARTS)
        cut->part_columns += COLUMN_UNIT, cut->column_parts = (product->width + cut->part_columns - 1) / cut->part_columns;
    cut->row_parts = rounded_up(product->row_count, cut->part_rows) / cut->part_rows;
    return alone;
}

int multiply_many_rows(const struct product *product) {
    const ptrdiff_t unit = chosen->packed_rows(), longest = product->depth - range_start(product, DEPTH_RANGES - 1);
    struct cut cut = {.many = {.product = product}};
    void *packed;
    if (posix_memalign(&packed, 64, (size_t)(rounded_up(product->row_count, unit) * longest) * sizeof(float)) != 0)
        return 1;
    cut.many.packed = packed;
    const int alone = cut_for_threads(&cut);
    if (!range_start(product, 1)) { /* the first ranges are empty: their sums are zeros, to which the last is added */
        for (ptrdiff_t row = 0; row < product->row_count; row++)
            memset(product->sums + row * product->sums_pitch, 0, (size_t)product->width * sizeof *product->sums);
        cut.many.adds = 1;
    }
    for (int range = 0; range < DEPTH_RANGES && !cut.has_failed; range++) {
        cut.many.k = range_start(product, range);
        cut.many.stop = range_start(product, range + 1);
        if (cut.many.k == cut.many.stop) continue;
        workers_run(pack_part, &cut, alone ? 1 : workers_thread_count());
        workers_run(multiply_part, &cut, (int)(cut.column_parts * cut.row_parts));
        cut.many.adds = 1;
    }
    free(packed);
    return cut.has_failed;
}

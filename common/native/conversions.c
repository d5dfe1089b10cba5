/* How are whole arrays of stored numbers widened, narrowed and transposed, by all threads that products have?
 *
 * Covers: cutting them into parts; transposing, which is the same for every instruction set.
 * Does not cover: the numbers themselves (stored.c).
 */
#include "chosen.h"
#include "workers.h"

#include <string.h>

enum {
    UNIT = 4096, /* numbers: parts begin at multiples of it */
    SIDE = 32,   /* of a square that is transposed at a time: its lines stay in the first-level cache */
};

struct conversion {
    const char *from;
    char *to;
    enum weight_kind kind;
    ptrdiff_t count;
};

static ptrdiff_t item_bytes(enum weight_kind kind) { return kind == FLOAT32 ? 4 : 2; }

static ptrdiff_t start_of_part(ptrdiff_t count, int part, int part_count) {
    return part == part_count ? count : count / UNIT * part / part_count * UNIT;
}

static void widen_part(const void *work, int part, int part_count) {
    const struct conversion *own = work;
    const ptrdiff_t first = start_of_part(own->count, part, part_count);
    const ptrdiff_t stop = start_of_part(own->count, part + 1, part_count);
    chosen->widen(own->from + first * item_bytes(own->kind), own->kind, stop - first, (float *)(void *)own->to + first);
}

static void narrow_part(const void *work, int part, int part_count) {
    const struct conversion *own = work;
    const ptrdiff_t first = start_of_part(own->count, part, part_count);
    const ptrdiff_t stop = start_of_part(own->count, part + 1, part_count);
    chosen->narrow((const float *)(const void *)own->from + first, own->kind, stop - first,
                   own->to + first * item_bytes(own->kind));
}

static int convert(work_function *do_part, const void *from, int kind, ptrdiff_t count, void *to) {
    if (kind < 0 || kind >= WEIGHT_KINDS || count < 0) return REFUSED;
    const struct conversion whole = {.from = from, .to = to, .kind = (enum weight_kind)kind, .count = count};
    workers_run(do_part, &whole, part_count_of(count * (ptrdiff_t)sizeof(float), count / UNIT));
    return DONE;
}

/* to[count] = stored numbers of a kind of product.h as float32, exactly. */
EXPORT int shardmesh_widen(const void *from, int kind, ptrdiff_t count, float *to) {
    return convert(widen_part, from, kind, count, to);
}

/* to[count] = float32 numbers as a kind of product.h: the nearest, ties to even; too large ones become infinity. */
EXPORT int shardmesh_narrow(const float *from, int kind, ptrdiff_t count, void *to) {
    return convert(narrow_part, from, kind, count, to);
}

struct transposition {
    const char *from;
    char *to;
    ptrdiff_t from_pitch, rows, columns;
    int bytes;
};

/* Put the square of items at (row, column) where its mirror image belongs; `bytes` is a constant where this is called. */
static inline __attribute__((always_inline)) void transpose_square(const struct transposition *own, ptrdiff_t row,
                                                                   ptrdiff_t column, const int bytes) {
    const ptrdiff_t row_stop = least(row + SIDE, own->rows), column_stop = least(column + SIDE, own->columns);
    for (ptrdiff_t c = column; c < column_stop; c++) {
        char *to = own->to + (c * own->rows + row) * bytes;
        const char *from = own->from + (row * own->from_pitch + c) * bytes;
        for (ptrdiff_t r = row; r < row_stop; r++, to += bytes, from += own->from_pitch * bytes)
            memcpy(to, from, (size_t)bytes);
    }
}

/* Parts are rows of the result: each thread writes lines that lie one after another. */
static void transpose_part(const void *work, int part, int part_count) {
    const struct transposition *own = work;
    const ptrdiff_t squares = (own->columns + SIDE - 1) / SIDE;
    const ptrdiff_t stop = least(squares * (part + 1) / part_count * SIDE, own->columns);
    for (ptrdiff_t column = squares * part / part_count * SIDE; column < stop; column += SIDE)
        for (ptrdiff_t row = 0; row < own->rows; row += SIDE) {
            if (own->bytes == 4) transpose_square(own, row, column, 4);
            else transpose_square(own, row, column, 2);
        }
}

/* to[columns, rows] = from[rows, columns] transposed, items of 2 or 4 bytes; `to` has no gaps. */
EXPORT int shardmesh_transpose(const void *from, ptrdiff_t from_pitch_items, ptrdiff_t rows, ptrdiff_t columns,
                               int item_bytes, void *to) {
    if ((item_bytes != 2 && item_bytes != 4) || rows < 0 || columns < 0) return REFUSED;
    const struct transposition whole = {
        .from = from, .to = to, .from_pitch = from_pitch_items, .rows = rows, .columns = columns, .bytes = item_bytes,
    };
    workers_run(transpose_part, &whole, part_count_of(rows * columns * item_bytes, columns / SIDE));
    return DONE;
}

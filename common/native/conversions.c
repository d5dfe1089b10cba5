/* How are whole arrays of stored numbers widened and narrowed, by all threads that products have?
 *
 * Covers: cutting them into parts.
 * Does not cover: the numbers themselves (stored.c).
 */
#include "chosen.h"
#include "workers.h"

enum { UNIT = 4096 }; /* numbers: parts begin at multiples of it */

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
    if (kind < 0 || kind >= FLOAT_KINDS || count < 0) return REFUSED;
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

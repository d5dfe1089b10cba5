/* How do a prompt's rows become numbers of 8 bits, a scale for each block of them, and float32 again?
 *
 * Covers: rows cut over all threads that products have; the same bits as common/wire/eight_bits.py has in numpy.
 * Does not cover: where that is worth it (coordinator/ranks), weights (stored.c).
 *
 * A number becomes the nearest of 255 from minus to plus the largest of its block. A block with a number that is none
 * has a scale that is none, so that all its numbers are none afterwards, and whoever looks for them finds them.
 */
#include "chosen.h"
#include "workers.h"

#include <math.h>

enum { MOST = 127 };

struct rounding {
    const float *from_rows;
    float *to_rows;
    const float *from_scales;
    float *to_scales;
    const int8_t *from_numbers;
    int8_t *to_numbers;
    ptrdiff_t row_count, width;
};

static ptrdiff_t blocks_of(ptrdiff_t width) { return (width + NUMBERS_PER_SCALE - 1) / NUMBERS_PER_SCALE; }

static ptrdiff_t first_row(const struct rounding *own, int part, int part_count) {
    return own->row_count * part / part_count;
}

static float largest_of(const float *numbers, ptrdiff_t count) {
    float most = 0;
    int is_number = 1;
    for (ptrdiff_t i = 0; i < count; i++) {
        const float size = fabsf(numbers[i]);
        is_number &= size <= INFINITY;
        most = size > most ? size : most;
    }
    return is_number ? most : NAN;
}

static void round_block(const float *from, ptrdiff_t count, float *scale, int8_t *to) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it leaves no room for a fraction */
    const float most = largest_of(from, count), inverse = most > 0 && most < INFINITY ? MOST / most : 0;
    *scale = most / MOST;
    for (ptrdiff_t i = 0; i < count; i++) {
        const float shifted = from[i] * inverse + rounding, whole = shifted - rounding;
        to[i] = (int8_t)(inverse > 0 && whole >= -MOST && whole <= MOST ? (int)whole : 0);
    }
}

static void round_part(const void *work, int part, int part_count) {
    const struct rounding *own = work;
    const ptrdiff_t blocks = blocks_of(own->width), stop = first_row(own, part + 1, part_count);
    for (ptrdiff_t row = first_row(own, part, part_count); row < stop; row++)
        for (ptrdiff_t block = 0; block < blocks; block++) {
            const ptrdiff_t at = block * NUMBERS_PER_SCALE, left = own->width - at;
            round_block(own->from_rows + row * own->width + at, left < NUMBERS_PER_SCALE ? left : NUMBERS_PER_SCALE,
                        own->to_scales + row * blocks + block, own->to_numbers + row * own->width + at);
        }
}

static void unround_part(const void *work, int part, int part_count) {
    const struct rounding *own = work;
    const ptrdiff_t blocks = blocks_of(own->width), stop = first_row(own, part + 1, part_count);
    for (ptrdiff_t row = first_row(own, part, part_count); row < stop; row++)
        for (ptrdiff_t i = 0; i < own->width; i++)
            own->to_rows[row * own->width + i] = (float)own->from_numbers[row * own->width + i] *
                                                 own->from_scales[row * blocks + i / NUMBERS_PER_SCALE];
}

static int do_rows(work_function *do_part, const struct rounding *whole) {
    if (whole->row_count < 0 || whole->width < 1) return REFUSED;
    workers_run(do_part, whole, part_count_of(whole->row_count * whole->width * (ptrdiff_t)sizeof(float),
                                              whole->row_count));
    return DONE;
}

/* scales[row_count, blocks], numbers[row_count, width] = rows, a block of NUMBERS_PER_SCALE for each scale. */
EXPORT int shardmesh_round_rows(const float *rows, ptrdiff_t row_count, ptrdiff_t width, float *scales,
                                void *numbers) {
    const struct rounding whole = {
        .from_rows = rows, .to_scales = scales, .to_numbers = numbers, .row_count = row_count, .width = width};
    return do_rows(round_part, &whole);
}

/* rows = what shardmesh_round_rows has made of them. */
EXPORT int shardmesh_unround_rows(const float *scales, const void *numbers, ptrdiff_t row_count, ptrdiff_t width,
                                  float *rows) {
    const struct rounding whole = {
        .from_scales = scales, .from_numbers = numbers, .to_rows = rows, .row_count = row_count, .width = width};
    return do_rows(unround_part, &whole);
}

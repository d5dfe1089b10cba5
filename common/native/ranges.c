/* How is a product computed range by range of k, so that each thread reads rows that lie one after another?
 *
 * Covers: threads that take a range each; weights in memory, and in the page cache, from where rows are taken piece by
 * piece into a buffer that stays in the second-level cache.
 * Does not cover: sums (kernel.c), which files may be read so (common/weights/cached_reads.py).
 *
 * A read from the page cache into a window is a copy that goes out to memory and comes back for the product. A piece
 * that is used while it is still in the nearest caches costs little more than weights that lie in memory. Only what the
 * system has in memory is taken (RWF_NOWAIT): nothing here ever waits for a disk.
 */
#include "chosen.h"
#include "workers.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <errno.h>
#include <sys/uio.h>
#endif

struct ranges {
    const struct product *product;
    float *sums; /* [DEPTH_RANGES, sums_of_range] */
    ptrdiff_t sums_of_range;
    atomic_int outcome;
};

#if defined(__linux__) && defined(RWF_NOWAIT)

int take_cached(int fd, char *piece, size_t count, long long offset) {
    const struct iovec place = {.iov_base = piece, .iov_len = count};
    const ssize_t taken = preadv2(fd, &place, 1, (off_t)offset, RWF_NOWAIT);
    if (taken == (ssize_t)count) return DONE;
    return taken < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) ? NEVER_CACHED : NOT_CACHED;
}

#else

int take_cached(int fd, char *piece, size_t count, long long offset) {
    (void)fd, (void)piece, (void)count, (void)offset;
    return NEVER_CACHED;
}

#endif

/* One for both ways: what threads have to themselves may be taken from their stacks, which are small. */
char *cached_piece(void) {
    static _Thread_local char piece[PIECE_BYTES] __attribute__((aligned(64)));
    return piece;
}

static void add_from_cache(struct ranges *ranges, ptrdiff_t k, ptrdiff_t stop, float *sums) {
    char *const piece = cached_piece();
    const struct product *product = ranges->product;
    const ptrdiff_t row_bytes = row_bytes_of(product), fitting = PIECE_BYTES / row_bytes;
    const ptrdiff_t rows_at_once = fitting < RANGE_UNIT ? fitting : fitting / RANGE_UNIT * RANGE_UNIT;
    while (k < stop && atomic_load(&ranges->outcome) == DONE) {
        const ptrdiff_t count = stop - k < rows_at_once ? stop - k : rows_at_once;
        const int outcome = take_cached(product->fd, piece, (size_t)(count * row_bytes), product->offset + k * row_bytes);
        if (outcome != DONE) {
            atomic_store(&ranges->outcome, outcome);
            return;
        }
        chosen->add_piece(product, piece, k, k + count, sums);
        k += count;
    }
}

static void add_range(const void *work, int range, int range_count) {
    struct ranges *ranges = (struct ranges *)(size_t)work;
    const struct product *product = ranges->product;
    const ptrdiff_t k = range_start(product, range), stop = range_start(product, range + 1);
    float *sums = ranges->sums + range * ranges->sums_of_range;
    (void)range_count;
    memset(sums, 0, (size_t)ranges->sums_of_range * sizeof *sums);
    if (product->weights) chosen->add_piece(product, product->weights + k * row_bytes_of(product), k, stop, sums);
    else add_from_cache(ranges, k, stop, sums);
}

int multiply_by_ranges(const struct product *product) {
    struct ranges ranges = {.product = product, .sums_of_range = chosen->piece_sums(product)};
    ranges.sums = malloc((size_t)(DEPTH_RANGES * ranges.sums_of_range) * sizeof *ranges.sums);
    if (!ranges.sums) return NOT_CACHED;
    workers_run(add_range, &ranges, DEPTH_RANGES);
    const int outcome = atomic_load(&ranges.outcome);
    if (outcome == DONE) chosen->put_pieces(product, ranges.sums, ranges.sums_of_range);
    free(ranges.sums);
    return outcome;
}

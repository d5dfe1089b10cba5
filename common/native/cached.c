/* How is a product computed with weights that lie in the page cache, without memory for them?
 *
 * Covers: taking rows of weights piece by piece into a buffer that stays in the second-level cache, and adding each
 * piece to the sums at once; threads that take a range of k each.
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

#if defined(__linux__) && defined(RWF_NOWAIT)

enum { PIECE_BYTES = 256 * 1024 };

struct cached_product {
    const struct product *product;
    int fd;
    long long offset;
    float *sums; /* [DEPTH_RANGES, sums_of_range] */
    ptrdiff_t sums_of_range;
    atomic_int outcome;
};

static ptrdiff_t row_bytes_of(const struct product *product) {
    return product->width * (product->kind == FLOAT32 ? 4 : 2);
}

/* Return what became of reading `count` bytes. */
static int take(int fd, char *piece, size_t count, long long offset) {
    const struct iovec place = {.iov_base = piece, .iov_len = count};
    const ssize_t taken = preadv2(fd, &place, 1, (off_t)offset, RWF_NOWAIT);
    if (taken == (ssize_t)count) return DONE;
    return taken < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) ? NEVER_CACHED : NOT_CACHED;
}

static void add_cached_range(const void *work, int range, int range_count) {
    static _Thread_local char piece[PIECE_BYTES] __attribute__((aligned(64)));
    struct cached_product *cached = (struct cached_product *)(size_t)work;
    const struct product *product = cached->product;
    const ptrdiff_t row_bytes = row_bytes_of(product), fitting = PIECE_BYTES / row_bytes;
    const ptrdiff_t rows_at_once = fitting < RANGE_UNIT ? fitting : fitting / RANGE_UNIT * RANGE_UNIT;
    const ptrdiff_t stop = range_start(product, range + 1);
    float *sums = cached->sums + range * cached->sums_of_range;
    (void)range_count;
    memset(sums, 0, (size_t)cached->sums_of_range * sizeof *sums);
    for (ptrdiff_t k = range_start(product, range); k < stop && atomic_load(&cached->outcome) == DONE;) {
        const ptrdiff_t count = stop - k < rows_at_once ? stop - k : rows_at_once;
        const int outcome = take(cached->fd, piece, (size_t)(count * row_bytes), cached->offset + k * row_bytes);
        if (outcome != DONE) {
            atomic_store(&cached->outcome, outcome);
            return;
        }
        chosen->add_piece(product, piece, k, k + count, sums);
        k += count;
    }
}

int multiply_from_cache(const struct product *product, int fd, long long offset) {
    /* Narrower than any vector, or a row that no piece has room for: nothing that weights of a model are. */
    if (product->width < 16 || row_bytes_of(product) > PIECE_BYTES || product->row_count > MOST_ROWS) return NOT_CACHED;
    const ptrdiff_t sums_of_range = chosen->piece_sums(product);
    struct cached_product cached = {.product = product, .fd = fd, .offset = offset, .sums_of_range = sums_of_range};
    cached.sums = malloc((size_t)(DEPTH_RANGES * sums_of_range) * sizeof *cached.sums);
    if (!cached.sums) return NOT_CACHED;
    workers_run(add_cached_range, &cached, DEPTH_RANGES);
    const int outcome = atomic_load(&cached.outcome);
    for (int range = 0; range < DEPTH_RANGES && outcome == DONE; range++)
        chosen->put_pieces(product, cached.sums + range * sums_of_range, range);
    free(cached.sums);
    return outcome;
}

#else

int multiply_from_cache(const struct product *product, int fd, long long offset) {
    (void)product, (void)fd, (void)offset;
    return NEVER_CACHED;
}

#endif

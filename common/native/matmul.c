/* Which functions does Python call, and which instruction set computes?
 *
 * Covers: the functions of interface.h that are no tiles, layers or conversions; cutting a product of few rows into parts.
 * Does not cover: the computation (kernel.c, gemm.c), cutting a product of many rows (many_rows.c), threads (workers.c),
 * weights in the page cache (ranges.c), whole tiles (tiles.c), whole layers (layers.c), conversions (conversions.c).
 * Everything returns 0 when it did what was asked.
 */
#include "chosen.h"
#include "workers.h"

#include <stdatomic.h>

enum {
    PARTS_PER_THREAD = 2,
    MOST_RANGE_SUMS = 32768, /* floats: of each thread, in its second-level cache */
    WIDEST_VECTOR = 16,      /* floats, of any variant */
};

enum way { NOTHING_TO_DO, BY_COLUMNS, BY_RANGES, NOT_FROM_CACHE };

#define ENTRY(name, integers) ENTRY_OF(name, name, integers)
#define ENTRY_OF(called, name, integers) \
    {#called, multiply_columns_##name, piece_sums_##name, add_piece_##name, put_pieces_##name, packed_rows_##name, \
     pack_rows_##name, multiply_packed_##name, multiply_groups_##name, decode_group_##name, vector_lanes_##name, sum_of_##name, \
     prepare_rows_##name, attend_block_##name, gate_rows_##name, add_parts_##name, \
     normalize_rows_##name, widen_numbers_##name, narrow_numbers_##name, \
     round_inputs_##integers, multiply_rounded_##integers, \
     highest_of_##name, weigh_logits_##name, part_weights_##name}

/* What build.py compiled for this architecture, best first. */
#if defined(__x86_64__)
#include <cpuid.h>
static const struct variant variants[] = {
    ENTRY_OF(avx512vnni, avx512, avx512vnni),
    ENTRY(avx512, avx2), /* what AVX512F has for whole numbers is no wider */
    ENTRY(avx2, avx2),
};
/* Older compilers do not know "f16c" by its name. */
static int has_f16c(void) {
    unsigned int eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
static int is_supported(int index) {
    const int has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    const int has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f");
    if (index == 0) return has_avx512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
    return index == 1 ? has_avx512 : has_avx2;
}
#elif defined(__aarch64__)
static const struct variant variants[] = {ENTRY_OF(neon_dotprod, neon, neon_dotprod), ENTRY(neon, neon)};
#if defined(__linux__)
#include <sys/auxv.h>
enum { HAS_DOTPROD = 1 << 20 }; /* HWCAP_ASIMDDP, which older headers do not know */
static int is_supported(int index) { return index == 1 || (getauxval(AT_HWCAP) & HAS_DOTPROD) != 0; }
#else
static int is_supported(int index) { return index >= 0; } /* every Apple silicon has it */
#endif
#else
#error "no kernel for this architecture"
#endif

enum { VARIANT_COUNT = sizeof variants / sizeof *variants };

const struct variant *chosen = variants;
static _Atomic ptrdiff_t least_threaded_bytes = 0; /* set while other threads compute */

EXPORT int shardmesh_abi_version(void) { return ABI_VERSION; }

/* Return the name of the variant at `index`, best first, or NULL after the last. */
EXPORT const char *shardmesh_variant_name(int index) {
    return index >= 0 && index < VARIANT_COUNT ? variants[index].name : NULL;
}

/* Compute with the variant at `index` from now on; nonzero when this processor cannot. No product may be under way. */
EXPORT int shardmesh_choose_variant(int index) {
    if (index < 0 || index >= VARIANT_COUNT || !is_supported(index)) return 1;
    chosen = variants + index;
    return 0;
}

/* Let a product have `count` threads when its weights have at least `least_bytes`. */
EXPORT void shardmesh_use_threads(int count, ptrdiff_t least_bytes) {
    workers_set_thread_count(count);
    atomic_store_explicit(&least_threaded_bytes, least_bytes, memory_order_relaxed);
}

/* Parts begin at multiples of SPLIT_COLUMNS; the last one has what is left over too. */
static ptrdiff_t part_start(ptrdiff_t width, int part, int part_count) {
    return part == part_count ? width : width / SPLIT_COLUMNS * part / part_count * SPLIT_COLUMNS;
}

static void multiply_part(const void *work, int part, int part_count) {
    const struct product *product = work;
    const ptrdiff_t first = part_start(product->width, part, part_count);
    chosen->multiply(product, first, part_start(product->width, part + 1, part_count));
}

int part_count_of(ptrdiff_t bytes, ptrdiff_t units) {
    const int thread_count = workers_thread_count();
    if (thread_count == 1 || bytes < atomic_load_explicit(&least_threaded_bytes, memory_order_relaxed)) return 1;
    const ptrdiff_t wanted = (ptrdiff_t)thread_count * PARTS_PER_THREAD;
    return (int)(units < 1 ? 1 : units < wanted ? units : wanted);
}

/* Decide how a product of at most MOST_ROWS rows is computed; nothing else does.
 *
 * By ranges of k, each thread reads rows that lie one after another, which is faster than two threads that skip through
 * the same rows, as long as the sums of all ranges stay in the caches. Weights from the page cache come only so. By
 * columns, sums need no memory of their own. */
static enum way way_of(const struct product *product, int part_count) {
    const ptrdiff_t sums = product->row_count * product->width;
    if (!sums) return NOTHING_TO_DO;
    if (product->weights || !product->depth)
        return part_count > 1 && sums <= MOST_RANGE_SUMS && product->width >= SPLIT_COLUMNS ? BY_RANGES : BY_COLUMNS;
    /* Narrower than any vector, or a row that no piece has room for: nothing that weights of a model are. */
    return product->width < WIDEST_VECTOR || row_bytes_of(product) > PIECE_BYTES ? NOT_FROM_CACHE : BY_RANGES;
}

static int multiply_few(const struct product *product, int part_count) {
    const enum way way = way_of(product, part_count);
    if (way == NOTHING_TO_DO) return DONE;
    if (way == NOT_FROM_CACHE) return NOT_CACHED;
    if (way == BY_RANGES) {
        const int outcome = multiply_by_ranges(product);
        if (outcome == DONE || !product->weights) return outcome; /* else there was no memory, which columns do not need */
    }
    workers_run(multiply_part, product, part_count);
    return DONE;
}

/* Encoded weights are decoded once for all rows as soon as their sums are more than registers hold. */
static int multiply_encoded(const struct product *product) {
    if (product->row_count > MOST_BLOCK_ROWS && product->weights && product->width && multiply_many_rows(product) == 0)
        return DONE;
    return multiply_by_groups(product, 1);
}

int multiply_all(const struct product *products, int count) {
    int outcome = DONE, is_one = 1, are_rounded = 1;
    for (int i = 0; i < count; i++)
        is_one &= is_encoded(products[i].kind) && (products[i].row_count <= MOST_BLOCK_ROWS || !products[i].weights);
    for (int i = 0; i < count; i++) are_rounded &= rounds_rows(products[i].kind), is_one &= !rounds_rows(products[i].kind);
    if (are_rounded) return multiply_rounding(products, count);
    if (is_one) return multiply_by_groups(products, count);
    for (int i = 0; i < count && outcome == DONE; i++) outcome = multiply(products + i);
    return outcome;
}

int multiply(const struct product *product) {
    if (rounds_rows(product->kind)) return multiply_rounding(product, 1);
    if (is_encoded(product->kind)) return multiply_encoded(product);
    /* Without memory for rows laid out anew, the same sums are made a few rows at a time. */
    if (product->row_count > MOST_ROWS && product->weights && product->width && multiply_many_rows(product) == 0) return DONE;
    const int part_count = part_count_of(product->depth * row_bytes_of(product), product->width / SPLIT_COLUMNS);
    int outcome = DONE;
    for (ptrdiff_t first = 0; first < product->row_count && outcome == DONE; first += MOST_ROWS) {
        const ptrdiff_t left = product->row_count - first;
        struct product some = *product;
        some.rows += first * some.row_pitch;
        some.sums += first * some.sums_pitch;
        some.row_count = left < MOST_ROWS ? left : MOST_ROWS;
        outcome = multiply_few(&some, part_count);
    }
    return outcome;
}

/* sums[row_count, width] = rows[row_count, depth] . weights[depth, width]; `kind` is one of product.h's. */
EXPORT int shardmesh_multiply(const float *rows, ptrdiff_t row_pitch, ptrdiff_t row_count, const char *weights,
                              int kind, ptrdiff_t depth, ptrdiff_t width, float *sums) {
    if (!fits_blocks(kind, depth) || row_count < 0 || width < 0) return REFUSED;
    const struct product product = {
        .rows = rows, .row_pitch = row_pitch, .row_count = row_count, .weights = weights, .fd = -1,
        .kind = (enum weight_kind)kind, .depth = depth, .width = width, .sums = sums, .sums_pitch = width,
    };
    return multiply(&product);
}

struct numbers {
    const float *first;
    ptrdiff_t count;
    double sums[MOST_PARTS];
};

static void sum_part(const void *work, int part, int part_count) {
    struct numbers *numbers = (struct numbers *)(size_t)work;
    const ptrdiff_t first = part_start(numbers->count, part, part_count);
    numbers->sums[part] = chosen->sum(numbers->first + first, part_start(numbers->count, part + 1, part_count) - first);
}

/* Return the sum of `count` numbers, read by as many threads as a product would be. */
EXPORT double shardmesh_sum(const float *first, ptrdiff_t count) {
    struct numbers numbers = {.first = first, .count = count};
    const int part_count = part_count_of(count * 4, count / SPLIT_COLUMNS);
    double total = 0;
    workers_run(sum_part, &numbers, part_count);
    for (int part = 0; part < part_count; part++) total += numbers.sums[part];
    return total;
}

int is_possible(const struct attention *a) {
    return a->row_count >= 0 && a->first_position >= 0 && a->sliding_window >= 0 && a->kv_count >= 1 &&
           a->query_count >= a->kv_count && a->query_count % a->kv_count == 0 && a->head_size >= 2 &&
           a->head_size % 2 == 0 && a->head_size <= MOST_HEAD_SIZE;
}

/* sums[count] = all parts added in their order, each from `first_byte` of its message on, a multiple of four; 1 when a sum
 * is not finite. */
EXPORT int shardmesh_add(const char *const *parts, ptrdiff_t first_byte, ptrdiff_t part_count, ptrdiff_t count,
                         float *sums) {
    return chosen->add(parts, first_byte, part_count, count, sums);
}

/* hidden[row_count, width] += addend, unless that is NULL; normed = its rows by their root mean square, times weight. */
EXPORT int shardmesh_normalize(float *hidden, const float *addend, const float *weight, ptrdiff_t row_count,
                               ptrdiff_t width, float epsilon, float *normed) {
    chosen->normalize(hidden, addend, weight, row_count, width, epsilon, normed);
    return DONE;
}

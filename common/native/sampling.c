/* Which token comes next? Each row's choice by its own options, all rows of a sweep in one call.
 *
 * Covers: bias, penalties, temperature, top-k, top-p, min-p, the draw; the likeliest tokens and the sum that makes
 * probabilities of logits. Does not cover: weights of tokens (weigh.c), random numbers (coordinator/engine/draws.py).
 *
 * In the order and meaning of transformers' logits processors; numpy's way (coordinator/engine/plain_choice.py) chooses
 * the same. Nothing is sorted: tokens that go for certain are told by their weight alone, and of the others sums by
 * leading bits of the weight say where the edge lies, each step among those only that share the edge's bits so far.
 */
#include "chosen.h"
#include "workers.h"

#include <float.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_SHIFT = 48, /* weights with the same first 16 bits differ by a sixteenth at most */
    STEP_BITS = 12,   /* by which weights are told apart at each further step */
    GRADES = 16384,   /* that weights of up to 1 have */
    KEY_BITS = 11,    /* of scores, at each step of top-k */
    BLOCK = 16,       /* scores whose nearest top-k looks at first */
};

/* What one row needs while it is chosen from. */
struct scratch {
    double *weights;      /* [vocab_size] */
    double *sums;         /* [GRADES] */
    float *changed;       /* [vocab_size]: logits with bias and penalties */
    int32_t *ids, *kept, *edge; /* [vocab_size] each */
};

static uint64_t bits_of(double weight) {
    uint64_t bits;
    memcpy(&bits, &weight, sizeof bits);
    return bits;
}

static float bounded(float logit) { return logit > FLT_MAX ? FLT_MAX : logit < -FLT_MAX ? -FLT_MAX : logit; }

/* Repetition, presence and frequency; `counts` [vocab_size] is of the answer's tokens, 1 more for all that were there. */
static void penalize(const struct choice *choice, ptrdiff_t vocab_size, int32_t *counts, float *logits) {
    memset(counts, 0, (size_t)vocab_size * sizeof *counts);
    for (ptrdiff_t i = 0; i < choice->token_count; i++) {
        int32_t *count = counts + choice->token_ids[i];
        if (!*count) *count = 1;
        *count += i >= choice->prompt_count;
    }
    for (ptrdiff_t i = 0; i < choice->token_count; i++) {
        const int32_t id = choice->token_ids[i], count = counts[id] - 1;
        if (count < 0) continue; /* done already */
        counts[id] = 0;
        float logit = logits[id];
        if (choice->repetition != 1.0f) logit = logit < 0 ? logit * choice->repetition : logit / choice->repetition;
        if (count) logit = (logit - choice->frequency * (float)count) - choice->presence;
        logits[id] = bounded(logit);
    }
}

/* Return the logits that options go by: the model's own, or a copy. */
static const float *changed_logits(const float *logits, ptrdiff_t vocab_size, const struct choice *choice,
                                   struct scratch *scratch) {
    if (!choice->bias_count && !choice->token_ids) return logits;
    memcpy(scratch->changed, logits, (size_t)vocab_size * sizeof *logits);
    for (ptrdiff_t i = 0; i < choice->bias_count; i++) {
        float *logit = scratch->changed + choice->biased_ids[i];
        *logit = bounded(*logit + choice->biases[i]);
    }
    if (choice->token_ids) penalize(choice, vocab_size, scratch->kept, scratch->changed);
    return scratch->changed;
}

/* Return the k-th least of numbers of 0 or more, 31 bits each, by counting leading bits. */
static int32_t kth_least(const int32_t *numbers, ptrdiff_t count, ptrdiff_t k, uint32_t *counts) {
    uint32_t prefix = 0;
    for (int before = 31, shift; before; before = shift) {
        shift = before > KEY_BITS ? before - KEY_BITS : 0;
        const uint32_t mask = (1u << (before - shift)) - 1;
        uint32_t digit = 0;
        memset(counts, 0, sizeof *counts << (before - shift));
        for (ptrdiff_t i = 0; i < count; i++) {
            const uint32_t number = (uint32_t)numbers[i];
            counts[number >> shift & mask] += number >> before == prefix;
        }
        for (; (ptrdiff_t)counts[digit] < k; digit++) k -= counts[digit];
        prefix = prefix << (before - shift) | digit;
    }
    return (int32_t)prefix;
}

/* Put the ids of the k likeliest, and of what ties with the k-th, into `ids`, their logits into `changed`, and return how
 * many these are. Uses `sums`, `kept` and `edge`. */
static ptrdiff_t keep_top_k(const float *logits, ptrdiff_t vocab_size, float highest, const struct choice *choice,
                            struct scratch *scratch) {
    int32_t *keys = scratch->kept, *some = scratch->edge, bound = INT32_MAX;
    uint32_t *counts = (uint32_t *)(void *)scratch->sums;
    for (ptrdiff_t i = 0; i < vocab_size; i++) {
        const float distance = (highest - logits[i]) / choice->temperature; /* of 0 or more: ordered as its bits */
        memcpy(keys + i, &distance, sizeof distance);
    }
    const ptrdiff_t blocks = vocab_size / BLOCK;
    for (ptrdiff_t block = 0; block < blocks; block++) {
        some[block] = INT32_MAX;
        for (ptrdiff_t i = block * BLOCK; i < (block + 1) * BLOCK; i++)
            some[block] = keys[i] < some[block] ? keys[i] : some[block];
    }
    /* At least k tokens are so near: one of each of k blocks. */
    if (choice->top_k <= blocks) bound = kth_least(some, blocks, choice->top_k, counts);
    ptrdiff_t count = 0, left = 0;
    for (ptrdiff_t i = 0; i < vocab_size; i++) some[count] = keys[i], count += keys[i] <= bound;
    bound = kth_least(some, count, choice->top_k, counts);
    for (ptrdiff_t i = 0; i < vocab_size; i++) scratch->ids[left] = (int32_t)i, left += keys[i] <= bound;
    for (ptrdiff_t i = 0; i < left; i++) scratch->changed[i] = logits[scratch->ids[i]];
    return left;
}

/* Tokens are in the order of their weights, equals in that of their ids; from `weight` and `id` on they stay. */
struct edge {
    double weight;
    int32_t id;
};

struct running {
    double below, total; /* weights of what goes for certain; of all */
    float share;         /* what goes comes to that much at most */
};

/* As transformers compares, in float32: ten tokens of the same chance are a tenth each then. */
static int goes(const struct running *running, double sum) { return (float)(sum / running->total) <= running->share; }

/* Of equals in the order of their ids: return the first that stays; the last one does. */
static int32_t first_that_stays(const double *weights, const int32_t *ids, ptrdiff_t count, struct running running) {
    for (ptrdiff_t i = 0; i + 1 < count; i++)
        if (!goes(&running, running.below += weights[ids[i]])) return ids[i];
    return ids[count - 1];
}

/* Find where the running sum of these tokens, from the least likely up, is more than the share that goes. */
static struct edge edge_among(const double *weights, const int32_t *ids, ptrdiff_t count, struct running running,
                              double *sums, int32_t *among) {
    const uint64_t least = bits_of(weights[ids[0]]) >> FIRST_SHIFT;
    uint64_t first = least, last = least;
    for (ptrdiff_t i = 1; i < count; i++) {
        const uint64_t grade = bits_of(weights[ids[i]]) >> FIRST_SHIFT;
        first = grade < first ? grade : first, last = grade > last ? grade : last;
    }
    uint64_t mask = ~UINT64_C(0);
    for (int shift = FIRST_SHIFT;; shift -= STEP_BITS) {
        memset(sums, 0, (size_t)(last - first + 1) * sizeof *sums);
        for (ptrdiff_t i = 0; i < count; i++)
            sums[(bits_of(weights[ids[i]]) >> shift & mask) - first] += weights[ids[i]];
        uint64_t edge = first;
        double below = running.below;
        for (uint64_t digit = first; digit <= last; digit++) {
            const double sum = sums[digit - first];
            if (sum > 0) edge = digit, below = running.below; /* the highest that there is, if all go */
            if (sum > 0 && !goes(&running, running.below += sum)) break;
        }
        running.below = below;
        ptrdiff_t left = 0;
        for (ptrdiff_t i = 0; i < count; i++)
            among[left] = ids[i], left += (bits_of(weights[ids[i]]) >> shift & mask) == edge;
        ids = among, count = left;
        if (count == 1 || !shift) break;
        first = 0, last = mask = (UINT64_C(1) << STEP_BITS) - 1;
    }
    return (struct edge){weights[ids[0]], first_that_stays(weights, ids, count, running)};
}

/* Put the places that top-p keeps into `kept`, ascending, and return how many. */
static ptrdiff_t keep_top_p(ptrdiff_t token_count, double top_p, struct scratch *scratch) {
    const double *weights = scratch->weights;
    struct running running = {.share = (float)(1 - top_p)};
    chosen->part(weights, token_count, 2.0, NULL, &running.total);
    /* So many of less than that come to less than what goes, however many there are. */
    const double least = 0.99 * (double)running.share * running.total / (double)token_count;
    const ptrdiff_t count = chosen->part(weights, token_count, least, scratch->kept, &running.below);
    const struct edge edge = edge_among(weights, scratch->kept, count, running, scratch->sums, scratch->edge);
    ptrdiff_t left = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const int32_t id = scratch->kept[left] = scratch->kept[i];
        left += (weights[id] > edge.weight) | ((weights[id] == edge.weight) & (id >= edge.id));
    }
    return left;
}

/* Return the place of the token whose share of the line of all that stay the number falls on. */
static ptrdiff_t drawn(ptrdiff_t token_count, const struct choice *choice, struct scratch *scratch) {
    const double *weights = scratch->weights;
    const int is_all = choice->top_p >= 1;
    const ptrdiff_t count = is_all ? token_count : keep_top_p(token_count, choice->top_p, scratch);
    const int32_t *kept = scratch->kept;
    double total = 0, sum = 0;
    for (ptrdiff_t i = 0; i < count; i++) {
        const double weight = weights[is_all ? i : kept[i]];
        if ((float)weight >= choice->min_p) total += weight;
    }
    const double place = choice->number * total;
    for (ptrdiff_t i = 0; i < count; i++) {
        const double weight = weights[is_all ? i : kept[i]];
        if ((float)weight >= choice->min_p && (sum += weight) > place) return is_all ? i : kept[i];
    }
    return -1; /* not possible: the number is less than 1 */
}

/* The likeliest tokens, the first of equals first; no more than there are. */
static void find_likeliest(const float *logits, ptrdiff_t vocab_size, int32_t *ids, ptrdiff_t wanted) {
    ptrdiff_t found = 0;
    for (ptrdiff_t id = 0; id < vocab_size; id++) {
        if (found == wanted && !(logits[id] > logits[ids[found - 1]])) continue;
        ptrdiff_t at = found < wanted ? found++ : found - 1;
        for (; at && logits[id] > logits[ids[at - 1]]; at--) ids[at] = ids[at - 1];
        ids[at] = (int32_t)id;
    }
}

static void choose_one(const float *logits, ptrdiff_t vocab_size, struct choice *choice, struct scratch *scratch) {
    int is_finite;
    float highest = choice->highest = chosen->highest(logits, vocab_size, &is_finite);
    choice->token_id = -1;
    if (!is_finite) return;
    if (choice->has_total) {
        chosen->weigh(logits, vocab_size, highest, 1.0f, scratch->weights);
        chosen->part(scratch->weights, vocab_size, 2.0, NULL, &choice->total);
    }
    if (choice->likeliest_count) find_likeliest(logits, vocab_size, choice->likeliest_ids, choice->likeliest_count);
    const float *changed = changed_logits(logits, vocab_size, choice, scratch);
    if (changed != logits) highest = chosen->highest(changed, vocab_size, &is_finite);
    if (choice->temperature == 0) {
        ptrdiff_t first = 0;
        while (changed[first] != highest) first++;
        choice->token_id = first;
        return;
    }
    const int is_part = choice->top_k && choice->top_k < vocab_size;
    const ptrdiff_t count = is_part ? keep_top_k(changed, vocab_size, highest, choice, scratch) : vocab_size;
    chosen->weigh(is_part ? scratch->changed : changed, count, highest, choice->temperature, scratch->weights);
    const ptrdiff_t place = drawn(count, choice, scratch);
    choice->token_id = is_part ? scratch->ids[place] : place;
}

struct rows {
    const float *logits;
    ptrdiff_t vocab_size, count, scratch_bytes;
    struct choice *choices;
    char *scratches;       /* one a part */
    atomic_ptrdiff_t *next; /* the row that nobody has taken */
};

/* Tell whether all tokens that options name are in the vocabulary. */
static int fits(const struct choice *choice, ptrdiff_t vocab_size) {
    uint32_t largest = 0; /* of negative ids too */
    for (ptrdiff_t i = 0; i < choice->bias_count; i++)
        if ((uint32_t)choice->biased_ids[i] > largest) largest = (uint32_t)choice->biased_ids[i];
    for (ptrdiff_t i = 0; choice->token_ids && i < choice->token_count; i++)
        if ((uint32_t)choice->token_ids[i] > largest) largest = (uint32_t)choice->token_ids[i];
    return (ptrdiff_t)largest < vocab_size && choice->likeliest_count <= vocab_size;
}

/* Choose for one row after another until none is left: rows take unlike times, and memory is had once a thread. */
static void choose_part(const void *work, int part, int part_count) {
    (void)part_count;
    const struct rows *rows = work;
    const size_t vocab_size = (size_t)rows->vocab_size;
    struct scratch scratch = {.weights = (double *)(void *)(rows->scratches + part * rows->scratch_bytes)};
    scratch.sums = scratch.weights + vocab_size;
    scratch.changed = (float *)(void *)(scratch.sums + GRADES);
    scratch.ids = (int32_t *)(void *)(scratch.changed + vocab_size);
    scratch.kept = scratch.ids + vocab_size;
    scratch.edge = scratch.kept + vocab_size;
    for (ptrdiff_t row; (row = atomic_fetch_add(rows->next, 1)) < rows->count;)
        choose_one(rows->logits + row * rows->vocab_size, rows->vocab_size, rows->choices + row, &scratch);
}

/* Choose the next token of each of `count` rows of logits [count, vocab_size], which stay as they are. REFUSED, and nothing
 * is chosen, where an option names a token outside the vocabulary. */
EXPORT int shardmesh_choose_tokens(const float *logits, ptrdiff_t vocab_size, struct choice *choices, ptrdiff_t count) {
    if (vocab_size < 1 || vocab_size > INT32_MAX || count < 0) return REFUSED;
    if (!count) return DONE;
    for (ptrdiff_t row = 0; row < count; row++)
        if (!fits(choices + row, vocab_size)) return REFUSED;
    const int thread_count = workers_thread_count(), part_count = count < thread_count ? (int)count : thread_count;
    const ptrdiff_t numbers = (ptrdiff_t)(sizeof(double) + sizeof(float) + 3 * sizeof(int32_t));
    const ptrdiff_t scratch_bytes = (vocab_size * numbers + GRADES * (ptrdiff_t)sizeof(double) + 63) / 64 * 64;
    char *scratches = malloc((size_t)(part_count * scratch_bytes));
    if (!scratches) return NO_MEMORY;
    atomic_ptrdiff_t next = 0;
    const struct rows rows = {
        .logits = logits, .vocab_size = vocab_size, .count = count, .scratch_bytes = scratch_bytes,
        .choices = choices, .scratches = scratches, .next = &next,
    };
    workers_run(choose_part, &rows, part_count);
    free(scratches);
    return DONE;
}

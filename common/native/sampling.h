/* What is the choice of a next token told, and what does it tell?
 *
 * Covers: the structure that Python fills in (common/native/choices.py); the functions that weigh.c (one object for each
 * instruction set) and sampling.c share.
 */
#ifndef SHARDMESH_SAMPLING_H
#define SHARDMESH_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

/* One row's. Fields of the first part are read, those of the second written. */
struct choice {
    double number;               /* from 0 up to, not including, 1: where it falls on the line of all chances */
    double top_p;                /* 1 for all */
    float temperature;           /* 0 for the likeliest */
    float min_p;                 /* 0 for all */
    float repetition;            /* 1 for none; tokens of prompt and answer */
    float presence, frequency;   /* 0 for none; tokens of the answer */
    ptrdiff_t top_k;             /* 0 for all */
    const int32_t *token_ids;    /* of prompt and answer, all in the vocabulary; NULL where no penalty needs them */
    ptrdiff_t token_count, prompt_count;
    const int32_t *biased_ids;   /* different ones, all in the vocabulary */
    const float *biases;
    ptrdiff_t bias_count;
    int32_t *likeliest_ids;      /* [likeliest_count]: the likeliest as the model has it, before any option */
    ptrdiff_t likeliest_count;
    int has_total;               /* whether `total` is wanted */

    ptrdiff_t token_id;          /* what was chosen; -1 where a logit is not finite */
    double total;                /* of e to what each logit is below the highest, before any option */
    float highest;               /* logit, before any option */
};

/* Return the highest of at least one number, and 1 in *is_finite if all of them are finite. */
typedef float highest_of(const float *logits, ptrdiff_t count, int *is_finite);
/* weights[i] = e^((logits[i] - highest) / temperature), right to 3e-10 */
typedef void weigh_logits(const float *logits, ptrdiff_t count, float highest, float temperature, double *weights);
/* Put the places of weights of `least` or more into `places` [count], ascending, and return how many these are; NULL: put
 * none and return 0. *below becomes the sum of all others. */
typedef ptrdiff_t part_weights(const double *weights, ptrdiff_t count, double least, int32_t *places, double *below);

highest_of highest_of_avx512, highest_of_avx2, highest_of_neon;
weigh_logits weigh_logits_avx512, weigh_logits_avx2, weigh_logits_neon;
part_weights part_weights_avx512, part_weights_avx2, part_weights_neon;

#endif

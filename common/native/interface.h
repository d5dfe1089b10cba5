/* Which functions does the library export? library.py declares the same for ctypes, and a test compares the two.
 *
 * Covers: every exported function and what they return; change ABI_VERSION with any of them.
 * Does not cover: what they compute (said where each is defined: matmul.c, tiles.c, layers.c, conversions.c,
 * pack.c, rounding.c, exchange.c, rounds.c, serving.c, sweep.c, tally.c, sampling.c).
 */
#ifndef SHARDMESH_INTERFACE_H
#define SHARDMESH_INTERFACE_H

#include "exchange.h"
#include "sampling.h"
#include "serving.h"
#include "steps.h"
#include "sweep.h"
#include "tiles.h"

#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { ABI_VERSION = 12 };
enum { NUMBERS_PER_SCALE = 64 }; /* of rows that travel in 8 bits */

/* What functions return that compute with weights. REFUSED: shapes that do not fit each other, or a kind that is none.
 * NOT_SIMPLE, of messages: whoever calls has to go on by himself. */
enum { DONE, REFUSED, NOT_CACHED, NEVER_CACHED, NO_MEMORY, NOT_SIMPLE };

EXPORT int shardmesh_abi_version(void);
EXPORT const char *shardmesh_variant_name(int index);
EXPORT int shardmesh_choose_variant(int index);
EXPORT void shardmesh_use_threads(int count, ptrdiff_t least_bytes);
EXPORT int shardmesh_use_activations(int activations);

EXPORT int shardmesh_multiply(const float *rows, ptrdiff_t row_pitch, ptrdiff_t row_count, const char *weights,
                              int kind, ptrdiff_t depth, ptrdiff_t width, float *sums);
EXPORT int shardmesh_multiply_matrix(const float *rows, ptrdiff_t row_count, const struct matrix *matrix, float *sums);
EXPORT int shardmesh_feed_forward(const float *rows, ptrdiff_t row_count, const struct ffn_tile *tile, float *part);
EXPORT int shardmesh_attention(const float *rows, ptrdiff_t row_count, const struct attention_tile *tile,
                               struct attention *segments, ptrdiff_t segment_count, float *part);
EXPORT int shardmesh_run_block(const float *normed, ptrdiff_t row_count, const struct layers_model *model,
                               const struct layer_block *block, ptrdiff_t layer,
                               const struct sequence_rows *sequences, ptrdiff_t sequence_count, float *output);
EXPORT ptrdiff_t shardmesh_run_layers(float *hidden, ptrdiff_t row_count, const struct layers_model *model,
                                      const struct layer_block *blocks, ptrdiff_t first_layer, ptrdiff_t layer_count,
                                      const struct sequence_rows *sequences, ptrdiff_t sequence_count,
                                      int64_t *nanoseconds, int *outcome);

EXPORT int shardmesh_add(const char *const *parts, ptrdiff_t first_byte, ptrdiff_t part_count, ptrdiff_t count,
                         float *sums);
EXPORT int shardmesh_normalize(float *hidden, const float *addend, const float *weight, ptrdiff_t row_count,
                               ptrdiff_t width, float epsilon, float *normed);
EXPORT int shardmesh_widen(const void *from, int kind, ptrdiff_t count, float *to);
EXPORT int shardmesh_narrow(const float *from, int kind, ptrdiff_t count, void *to);

EXPORT int shardmesh_pack_blocks(int kind, const char *rows, ptrdiff_t row_pitch, ptrdiff_t row_count, ptrdiff_t depth,
                                 char *packed);
EXPORT ptrdiff_t shardmesh_blocks_not_finite(int kind, const char *rows, ptrdiff_t row_pitch, ptrdiff_t row_count,
                                             ptrdiff_t depth);
EXPORT int shardmesh_unpack(int kind, const char *packed, ptrdiff_t depth, ptrdiff_t width, float *to);
EXPORT int shardmesh_unpack_output(int kind, const char *group, ptrdiff_t depth, ptrdiff_t lane, float *row);

EXPORT int shardmesh_round_rows(const float *rows, ptrdiff_t row_count, ptrdiff_t width, float *scales,
                                void *numbers);
EXPORT int shardmesh_unround_rows(const float *scales, const void *numbers, ptrdiff_t row_count, ptrdiff_t width,
                                  float *rows);

EXPORT int shardmesh_exchange(struct peer *peers, ptrdiff_t count, int limit_milliseconds, int in_order,
                              int64_t *sent_nanoseconds);

EXPORT ptrdiff_t shardmesh_run_stretch(struct stretch *stretch, int *outcome);
EXPORT int shardmesh_tally(struct tally *tally, const struct swept_round *times, const struct answered *answered,
                           ptrdiff_t round_count, ptrdiff_t step, double *waited_seconds);
EXPORT int shardmesh_answer(struct peer *peer, void *frame, ptrdiff_t room, const char *head, ptrdiff_t head_count,
                            const float *numbers, ptrdiff_t number_count);

EXPORT struct lock *shardmesh_lock_new(void);
EXPORT void shardmesh_lock_free(struct lock *lock);
EXPORT int shardmesh_lock_take(struct lock *lock, int waits);
EXPORT void shardmesh_lock_give(struct lock *lock);
EXPORT int shardmesh_serve(struct served_session *session, struct peer *peer, char *frame, ptrdiff_t room);

EXPORT int shardmesh_choose_tokens(const float *logits, ptrdiff_t vocab_size, struct choice *choices, ptrdiff_t count);

EXPORT double shardmesh_sum(const float *first, ptrdiff_t count);

#endif

/* How are one block, or several layers, computed for a few rows in one call?
 *
 * Covers: a block of a node that holds a part of it; norm, block, late bias and residual stream, layer after layer, where
 * a node holds all of every block.
 * Does not cover: blocks' tiles (tiles.c), many rows, layers whose weights come through a window (shardnode/work/layers.py).
 *
 * Between two blocks Python takes 50 microseconds; a token of a small model has 60 blocks and 13 milliseconds of kernels.
 * Every number is what the same steps from Python give, bit for bit.
 */
#include "chosen.h"
#include "tiles.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct run {
    const struct layers_model *model;
    const struct sequence_rows *sequences;
    ptrdiff_t sequence_count, row_count;
    const float *normed; /* [row_count, hidden_size], as the next two */
    float *output, *part;
    struct attention *segments;    /* [sequence_count] */
};

static int64_t nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void point_at_heads(const struct run *run, const struct layer_block *block, const struct head_tile *tile,
                           ptrdiff_t layer) {
    const struct layers_model *model = run->model;
    for (ptrdiff_t s = 0; s < run->sequence_count; s++) {
        const struct sequence_rows *own = run->sequences + s;
        const ptrdiff_t pitch = own->capacity * model->head_size;
        float *keys = own->store + (2 * layer * model->kv_head_count + tile->first_kv_head) * pitch;
        run->segments[s] = (struct attention){
            .row_count = own->row_count, .query_count = tile->query_count, .kv_count = tile->kv_count,
            .head_size = model->head_size, .bias = tile->bias, .query_norm = tile->query_norm,
            .key_norm = tile->key_norm, .norm_epsilon = model->norm_epsilon, .cosine = own->cosine, .sine = own->sine,
            .keys = keys, .values = keys + model->kv_head_count * pitch, .head_pitch = pitch,
            .first_position = own->first_position, .sliding_window = block->sliding_window,
        };
    }
}

/* output = the block of `normed`, its late bias included. */
static int run_block(const struct run *run, const struct layer_block *block, ptrdiff_t layer) {
    const ptrdiff_t width = run->model->hidden_size, count = run->row_count * width;
    for (ptrdiff_t t = 0; t < block->tile_count; t++) {
        float *to = t ? run->part : run->output;
        int outcome;
        if (block->ffn_tiles) {
            outcome = run_ffn_tile(run->normed, run->row_count, block->ffn_tiles + t, to);
        } else {
            point_at_heads(run, block, block->head_tiles + t, layer);
            outcome = run_attention_tile(run->normed, run->row_count, &block->head_tiles[t].matrices, run->segments,
                                         run->sequence_count, to);
        }
        if (outcome != DONE) return outcome;
        if (t)
            for (ptrdiff_t i = 0; i < count; i++) run->output[i] += run->part[i];
    }
    if (!block->tile_count) memset(run->output, 0, (size_t)count * sizeof(float));
    if (block->late_bias)
        for (ptrdiff_t i = 0; i < count; i++) run->output[i] += block->late_bias[i % width];
    return DONE;
}

/* output[row_count, hidden_size] = one block of `normed`, its late bias included if it has one: a rank's part, which is
 * added to others' elsewhere. Unless DONE, `output` means nothing, and keys and values may be half written. */
EXPORT int shardmesh_run_block(const float *normed, ptrdiff_t row_count, const struct layers_model *model,
                               const struct layer_block *block, ptrdiff_t layer,
                               const struct sequence_rows *sequences, ptrdiff_t sequence_count, float *output) {
    if (row_count < 1 || sequence_count < 1 || model->hidden_size < 1) return REFUSED;
    const size_t part_bytes = block->tile_count > 1 ? (size_t)(row_count * model->hidden_size) * sizeof *output : 1;
    float *const part = malloc(part_bytes);
    struct attention *const segments = part ? malloc((size_t)sequence_count * sizeof *segments) : NULL;
    int outcome = NO_MEMORY;
    if (segments) {
        const struct run run = {
            .model = model, .sequences = sequences, .sequence_count = sequence_count, .row_count = row_count,
            .normed = normed, .output = output, .part = part, .segments = segments,
        };
        outcome = run_block(&run, block, layer);
    }
    free(part);
    free(segments);
    return outcome;
}

/* Run `layer_count` layers of two blocks each on `hidden`; nanoseconds[i] is what block i took. Return how many layers
 * are done, and what ended them in *outcome; `hidden` is the residual stream after those. */
EXPORT ptrdiff_t shardmesh_run_layers(float *hidden, ptrdiff_t row_count, const struct layers_model *model,
                                      const struct layer_block *blocks, ptrdiff_t first_layer, ptrdiff_t layer_count,
                                      const struct sequence_rows *sequences, ptrdiff_t sequence_count,
                                      int64_t *nanoseconds, int *outcome) {
    const ptrdiff_t count = row_count * model->hidden_size;
    *outcome = REFUSED;
    if (row_count < 1 || sequence_count < 1 || model->hidden_size < 1) return 0;
    float *const before = malloc((size_t)(4 * count) * sizeof *before);
    struct attention *const segments = before ? malloc((size_t)sequence_count * sizeof *segments) : NULL;
    if (!segments) {
        *outcome = NO_MEMORY;
        free(before);
        return 0;
    }
    float *const normed = before + count;
    const struct run run = {
        .model = model, .sequences = sequences, .sequence_count = sequence_count, .row_count = row_count,
        .normed = normed, .output = before + 2 * count, .part = before + 3 * count, .segments = segments,
    };
    ptrdiff_t done = 0;
    *outcome = DONE;
    for (; done < layer_count && *outcome == DONE; done++) {
        memcpy(before, hidden, (size_t)count * sizeof *hidden);
        for (ptrdiff_t b = 0; b < 2 && *outcome == DONE; b++) {
            const struct layer_block *block = blocks + 2 * done + b;
            const int64_t started = nanoseconds_now();
            chosen->normalize(hidden, b ? run.output : NULL, block->norm, row_count, model->hidden_size,
                              model->norm_epsilon, normed);
            *outcome = run_block(&run, block, first_layer + done);
            nanoseconds[2 * done + b] = nanoseconds_now() - started;
        }
        if (*outcome != DONE) {
            memcpy(hidden, before, (size_t)count * sizeof *hidden);
            break;
        }
        for (ptrdiff_t i = 0; i < count; i++) hidden[i] += run.output[i];
    }
    free(before);
    free(segments);
    return done;
}

/* What does the library make of recorded calls? `replay VARIANT CALLERS RECORDING RESULTS`
 *
 * Covers: the calls of recorded_calls.py, which has the format, with each buffer in an allocation of its own, so that a
 * sanitizer sees what lies beside it; several callers at once, each with buffers of its own.
 * Does not cover: judging what comes out, which is written to RESULTS.0, RESULTS.1, ... of each caller.
 */
#include "interface.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_ARGUMENTS = 16, MOST_CALLERS = 8, NAME_BYTES = 32 };
enum { NUMBER, ADDRESS, FRACTION };

struct buffer {
    int64_t byte_count;
    char *memory;
};

/* At `at` of a buffer lies the address of another one's `target_at`, or, with no target, the recording's descriptor. */
struct link {
    int64_t buffer, at, target, target_at;
};

struct argument {
    int64_t kind, value, at; /* `at` of buffer `value`, when that is an address */
    double fraction;
};

struct recording {
    int64_t buffer_count, link_count, call_count;
    struct buffer *buffers;
    struct link *links;
    FILE *file;
};

static const char *recording_path, *results_path;

#if defined(PREADV2_IGNORES_FLAGS)
/* The emulator of user programs has no preadv2 with flags. What was just written is in the page cache in any case. */
ssize_t preadv2(int fd, const struct iovec *places, int count, off_t offset, int flags) {
    (void)flags;
    return preadv(fd, places, count, offset);
}
#endif

static void stop(const char *reason) {
    fprintf(stderr, "replay: %s\n", reason);
    exit(2);
}

static void take(FILE *file, void *to, size_t byte_count) {
    if (byte_count && fread(to, byte_count, 1, file) != 1) stop("the recording is cut short");
}

static struct recording begin(void) {
    struct recording made = {.file = fopen(recording_path, "rb")};
    if (!made.file) stop("there is no recording");
    take(made.file, &made.buffer_count, 3 * sizeof(int64_t));
    made.buffers = calloc((size_t)made.buffer_count, sizeof *made.buffers);
    made.links = calloc((size_t)made.link_count + 1, sizeof *made.links);
    for (struct buffer *own = made.buffers; own < made.buffers + made.buffer_count; own++) {
        take(made.file, &own->byte_count, sizeof own->byte_count);
        own->memory = malloc((size_t)own->byte_count);
        take(made.file, own->memory, (size_t)own->byte_count);
    }
    take(made.file, made.links, (size_t)made.link_count * sizeof *made.links);
    for (const struct link *link = made.links; link < made.links + made.link_count; link++) {
        char *const to = made.buffers[link->buffer].memory + link->at;
        const char *const target = link->target < 0 ? NULL : made.buffers[link->target].memory + link->target_at;
        const int fd = fileno(made.file);
        if (target) memcpy(to, &target, sizeof target);
        else memcpy(to, &fd, sizeof fd);
    }
    return made;
}

#define A(i, type) ((type)(void *)address[i])
#define N(i) ((ptrdiff_t)arguments[i].value)
#define I(i) ((int)arguments[i].value)

static double call(const char *name, const struct argument *arguments, char *const *address) {
    if (!strcmp(name, "use_threads")) return shardmesh_use_threads(I(0), N(1)), 0;
    if (!strcmp(name, "use_activations")) return shardmesh_use_activations(I(0));
    if (!strcmp(name, "multiply"))
        return shardmesh_multiply(A(0, float *), N(1), N(2), address[3], I(4), N(5), N(6), A(7, float *));
    if (!strcmp(name, "multiply_matrix"))
        return shardmesh_multiply_matrix(A(0, float *), N(1), A(2, struct matrix *), A(3, float *));
    if (!strcmp(name, "feed_forward"))
        return shardmesh_feed_forward(A(0, float *), N(1), A(2, struct ffn_tile *), A(3, float *));
    if (!strcmp(name, "attention"))
        return shardmesh_attention(A(0, float *), N(1), A(2, struct attention_tile *), A(3, struct attention *), N(4),
                                   A(5, float *));
    if (!strcmp(name, "run_layers"))
        return (double)shardmesh_run_layers(A(0, float *), N(1), A(2, struct layers_model *),
                                            A(3, struct layer_block *), N(4), N(5), A(6, struct sequence_rows *), N(7),
                                            A(8, int64_t *), A(9, int *));
    if (!strcmp(name, "add")) return shardmesh_add(A(0, const char **), N(1), N(2), N(3), A(4, float *));
    if (!strcmp(name, "normalize"))
        return shardmesh_normalize(A(0, float *), A(1, float *), A(2, float *), N(3), N(4),
                                   (float)arguments[5].fraction, A(6, float *));
    if (!strcmp(name, "widen")) return shardmesh_widen(address[0], I(1), N(2), A(3, float *));
    if (!strcmp(name, "narrow")) return shardmesh_narrow(A(0, float *), I(1), N(2), address[3]);
    if (!strcmp(name, "pack_blocks")) return shardmesh_pack_blocks(I(0), address[1], N(2), N(3), N(4), address[5]);
    if (!strcmp(name, "blocks_not_finite"))
        return (double)shardmesh_blocks_not_finite(I(0), address[1], N(2), N(3), N(4));
    if (!strcmp(name, "unpack")) return shardmesh_unpack(I(0), address[1], N(2), N(3), A(4, float *));
    if (!strcmp(name, "unpack_output")) return shardmesh_unpack_output(I(0), address[1], N(2), N(3), A(4, float *));
    if (!strcmp(name, "round_rows")) return shardmesh_round_rows(A(0, float *), N(1), N(2), A(3, float *), address[4]);
    if (!strcmp(name, "unround_rows"))
        return shardmesh_unround_rows(A(0, float *), address[1], N(2), N(3), A(4, float *));
    if (!strcmp(name, "choose_tokens"))
        return shardmesh_choose_tokens(A(0, float *), N(1), A(2, struct choice *), N(3));
    if (!strcmp(name, "sum")) return shardmesh_sum(A(0, float *), N(1));
    stop("there is no such function");
    return 0;
}

static double call_next(const struct recording *recording) {
    char name[NAME_BYTES], *address[MOST_ARGUMENTS] = {0};
    struct argument arguments[MOST_ARGUMENTS];
    int64_t count;
    take(recording->file, name, sizeof name);
    take(recording->file, &count, sizeof count);
    if (count > MOST_ARGUMENTS) stop("a call has too many arguments");
    take(recording->file, arguments, (size_t)count * sizeof *arguments);
    for (int64_t i = 0; i < count; i++)
        if (arguments[i].kind == ADDRESS) address[i] = recording->buffers[arguments[i].value].memory + arguments[i].at;
    return call(name, arguments, address);
}

/* Addresses and descriptors differ from run to run: zeros are written in their place. */
static void finish(struct recording *recording, FILE *results) {
    static const char zeros[sizeof(void *)];
    for (const struct link *link = recording->links; link < recording->links + recording->link_count; link++)
        memcpy(recording->buffers[link->buffer].memory + link->at, zeros, link->target < 0 ? sizeof(int) : sizeof zeros);
    for (struct buffer *own = recording->buffers; own < recording->buffers + recording->buffer_count; own++) {
        fwrite(own->memory, 1, (size_t)own->byte_count, results);
        free(own->memory);
    }
    free(recording->buffers);
    free(recording->links);
    fclose(recording->file);
    if (fclose(results) != 0) stop("the results cannot be written");
}

static void *replay(void *number) {
    char path[4096];
    snprintf(path, sizeof path, "%s.%d", results_path, (int)(intptr_t)number);
    FILE *const results = fopen(path, "wb");
    if (!results) stop("the results cannot be written");
    struct recording recording = begin();
    for (int64_t i = 0; i < recording.call_count; i++) {
        const double answer = call_next(&recording);
        fwrite(&answer, sizeof answer, 1, results);
    }
    finish(&recording, results);
    return NULL;
}

int main(int count, char **words) {
    if (count != 5) stop("wants VARIANT CALLERS RECORDING RESULTS");
    const int callers = atoi(words[2]);
    pthread_t threads[MOST_CALLERS];
    int variant = 0;
    while (shardmesh_variant_name(variant) && strcmp(shardmesh_variant_name(variant), words[1])) variant++;
    if (shardmesh_choose_variant(variant) != 0) stop("this processor has no such variant");
    if (callers < 1 || callers > MOST_CALLERS) stop("wants from 1 to 8 callers");
    recording_path = words[3], results_path = words[4];
    for (intptr_t i = 1; i < callers; i++)
        if (pthread_create(threads + i, NULL, replay, (void *)i) != 0) stop("there is no thread");
    replay((void *)0);
    for (intptr_t i = 1; i < callers; i++) pthread_join(threads[i], NULL);
    return 0;
}

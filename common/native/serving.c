/* How does a node answer the blocks of a sweep, one after another, without Python between two messages?
 *
 *     a message is here -> is it the next block? -> take the turn -> compute -> frame, send -> wait for the next message
 *                ^                                                                                       |
 *                `---------------------------------------------------------------------------------------'
 *
 * Covers: packed blocks (common/wire/packed_round.py says where which byte lies) of few rows in float32, whose weights
 * are in memory or in the page cache; their positions, times and counts; locks that C and Python both take. Does not
 * cover: sockets and encryption (exchange.c), the maths (layers.c). Everything that is not as expected is left to Python
 * as it has come, the message unanswered: shardnode/sessions says what it is.
 *
 * Why: what a node's Python did between two messages took as long as the messages, and had left the caches each time.
 */
#include "interface.h"
#include "transfer.h"
#include "workers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { NEXT_BYTES = 24, KIND_AT = 1, FLAGS_AT = 2, LAYER_AT = 4, CALL_ID_AT = 8, SWEEP_ID_AT = 16 };
enum { ATTENTION, FFN };
enum { MOST_CACHED_ROWS = 8 }; /* common/compute/tile_products.py's */
enum { DONE_BYTES = 72, READY_AT = 16, COMPUTE_AT = 24, QUEUE_AT = 48 };

struct lock {
    pthread_mutex_t mutex;
};

/* A block that a message asks for. */
struct asked {
    const float *rows;
    int64_t call_id;
    ptrdiff_t layer;
    int kind; /* ATTENTION or FFN */
};

EXPORT struct lock *shardmesh_lock_new(void) {
    struct lock *lock = malloc(sizeof *lock);
    if (lock && pthread_mutex_init(&lock->mutex, NULL)) {
        free(lock);
        return NULL;
    }
    return lock;
}

EXPORT void shardmesh_lock_free(struct lock *lock) {
    pthread_mutex_destroy(&lock->mutex);
    free(lock);
}

/* Take a lock; return 0 if another thread has it and `waits` is 0. The thread that takes it gives it back. */
EXPORT int shardmesh_lock_take(struct lock *lock, int waits) {
    return !(waits ? pthread_mutex_lock(&lock->mutex) : pthread_mutex_trylock(&lock->mutex));
}

EXPORT void shardmesh_lock_give(struct lock *lock) { pthread_mutex_unlock(&lock->mutex); }

static void put(char *at, int64_t number) { memcpy(at, &number, sizeof number); } /* little-endian, as in rounds.c */

static ptrdiff_t number_count(const struct served_session *session) {
    return session->row_count * session->ready->model->hidden_size;
}

/* Tell whether the one frame that has come asks for the next block, as far as that can be told without the turn. */
static int is_next(const struct served_session *session, const struct peer *peer, struct asked *asked) {
    const ptrdiff_t expected = FRAME_HEAD + NEXT_BYTES + (ptrdiff_t)sizeof(float) * number_count(session);
    const char *message = (const char *)peer->into + FRAME_HEAD;
    uint32_t layer;
    int64_t sweep_id;
    if (peer->received_count != expected || (session->must_look && __atomic_load_n(session->must_look, __ATOMIC_ACQUIRE)))
        return 0;
    memcpy(&layer, message + LAYER_AT, sizeof layer);
    memcpy(&asked->call_id, message + CALL_ID_AT, sizeof asked->call_id);
    memcpy(&sweep_id, message + SWEEP_ID_AT, sizeof sweep_id);
    asked->kind = message[KIND_AT] - 1;
    asked->layer = layer;
    asked->rows = (const float *)(message + NEXT_BYTES);
    return !message[0] && !message[FLAGS_AT] && asked->kind >= 0 && asked->kind < KINDS_OF_BLOCKS &&
           asked->layer < session->ready->layer_count && sweep_id == session->sweep_id &&
           asked->call_id > session->last_call_id;
}

/* Take the turn; return the nanoseconds that other sessions' blocks took meanwhile. */
static int64_t wait_for_turn(struct node_work *work) {
    if (shardmesh_lock_take(work->turn, 0)) return 0;
    const int64_t asked = clock_now();
    shardmesh_lock_take(work->turn, 1);
    const int64_t queued = clock_now() - asked;
    work->queue_nanoseconds += queued;
    return queued;
}

/* Announce the rows to their sequences; return 0 if a position cannot be, nothing having happened. */
static int extend(const struct served_session *session, ptrdiff_t layer) {
    const struct sequence_rows *own = session->sequences, *const end = own + session->sequence_count;
    for (; own < end; own++)
        if (!own->lengths || own->first_position > own->lengths[layer] ||
            own->first_position + own->row_count > own->capacity)
            return 0;
    for (own = session->sequences; own < end; own++) own->lengths[layer] = own->first_position + own->row_count;
    return 1;
}

static void observe(struct distribution *distribution, double amount) {
    ptrdiff_t place = 0;
    while (place < distribution->bound_count && distribution->bounds[place] < amount) place++;
    distribution->counts[place]++;
    distribution->total += amount;
}

/* Have files stay open while a block is computed from them; return 0 if Python's window is better for it. */
static int begin_cached(struct shared_reads *reads, const struct cached_block *cached, ptrdiff_t row_count) {
    if (!cached->tile_count) return 1;
    if (!reads || row_count > MOST_CACHED_ROWS) return 0;
    shardmesh_lock_take(reads->in_use, 1);
    if (cached->is_first) reads->has_given_up = 0;
    if (reads->is_allowed && !reads->has_given_up && !reads->is_closed) return 1;
    shardmesh_lock_give(reads->in_use);
    return 0;
}

static void end_cached(struct shared_reads *reads, const struct cached_block *cached, int outcome) {
    if (!cached->tile_count) return;
    if (outcome == DONE) {
        reads->bytes_total += cached->byte_count;
        reads->tiles_total += cached->tile_count;
    } else if (outcome == NEVER_CACHED) reads->is_allowed = 0;
    else reads->has_given_up = 1;
    shardmesh_lock_give(reads->in_use);
}

/* Compute a block with the turn taken. NOT_SIMPLE: it is Python's, and nothing has happened that it would not repeat. */
static int compute(struct served_session *session, const struct asked *asked, float *part, int64_t *nanoseconds) {
    const int64_t started = clock_now();
    const struct ready_blocks *ready = session->ready;
    const ptrdiff_t place = asked->layer * KINDS_OF_BLOCKS + asked->kind;
    const struct layer_block *block = ready->blocks[place];
    const struct cached_block *cached = ready->cached + place;
    if (!block || workers_thread_count() != session->thread_count) return NOT_SIMPLE;
    if (shardmesh_use_activations(session->activations) != DONE) return NOT_SIMPLE;
    if (asked->kind == ATTENTION && !extend(session, asked->layer)) return NOT_SIMPLE;
    if (!begin_cached(ready->reads, cached, session->row_count)) return NOT_SIMPLE;
    const int outcome = shardmesh_run_block(asked->rows, session->row_count, ready->model, block, asked->layer,
                                            session->sequences, session->sequence_count, part);
    end_cached(ready->reads, cached, outcome);
    if (cached->tile_count && (outcome == NOT_CACHED || outcome == NEVER_CACHED)) return NOT_SIMPLE;
    session->last_call_id = asked->call_id;
    session->counts->rounds++;
    *nanoseconds = clock_now() - started;
    session->work->compute_nanoseconds += *nanoseconds;
    observe(session->work->compute_seconds[asked->kind], (double)*nanoseconds / 1e9);
    return outcome;
}

/* Write the answer's frame around its numbers. */
static void frame_answer(char *frame, ptrdiff_t count, int64_t call_id, int64_t computed, int64_t queued) {
    for (int i = 0; i < FRAME_HEAD; i++) frame[i] = (char)(count >> (8 * i) & 0xff);
    frame += FRAME_HEAD;
    memset(frame, 0, DONE_BYTES);
    put(frame + CALL_ID_AT, call_id);
    put(frame + READY_AT, clock_now());
    put(frame + COMPUTE_AT, computed);
    put(frame + QUEUE_AT, queued);
}

/* Answer the message that has come and those that follow it, as long as each is the next block of the sweep.
 *
 * `frame`: room for an answer. DONE: one whole frame has come that Python has to answer; NOT_SIMPLE: the last answer is on
 * its way, if perhaps not all of it, and the peer says how far that and the next message have come; else why a block has
 * failed, `last_call_id`, which is not answered. */
EXPORT int shardmesh_serve(struct served_session *session, struct peer *peer, char *frame, ptrdiff_t room) {
    struct asked asked;
    const int is_near = peer->is_near;
    while (is_next(session, peer, &asked)) {
        const ptrdiff_t count = DONE_BYTES + (ptrdiff_t)sizeof(float) * number_count(session);
        int64_t computed = 0;
        if (room < FRAME_HEAD + count) return DONE;
        __atomic_store_n(&session->working_on, asked.call_id, __ATOMIC_RELEASE);
        const int64_t queued = wait_for_turn(session->work);
        const int outcome = compute(session, &asked, (float *)(frame + FRAME_HEAD + DONE_BYTES), &computed);
        shardmesh_lock_give(session->work->turn);
        shardmesh_lock_take(session->writing, 1); /* who says that it is still worked on has said so by then */
        __atomic_store_n(&session->working_on, 0, __ATOMIC_RELEASE);
        shardmesh_lock_give(session->writing);
        if (outcome != DONE) return outcome == NOT_SIMPLE ? DONE : outcome;
        frame_answer(frame, count, asked.call_id, computed, queued);
        session->counts->received_bytes += peer->received_count - FRAME_HEAD;
        session->counts->sent_bytes += count;
        /* After a sweep's last block the coordinator has the cores. */
        peer->is_near = is_near && (asked.kind != FFN || asked.layer < session->ready->layer_count - 1);
        if (!send_frame(peer, frame, FRAME_HEAD + count) || !take_frame(peer)) return NOT_SIMPLE;
    }
    return DONE;
}

/* Who computes the parts of one piece of work? The caller, and threads that sleep when there is none.
 *
 * Covers: starting threads when they are first needed (again in a forked child), handing out parts, sleeping.
 * Does not cover: what a part is (matmul.c).
 *
 * Whoever is free takes the next part, so a thread that wakes late costs nothing: the caller has done its parts by
 * then. A thread without work looks for more for SPIN_NANOSECONDS and then sleeps: other processes need the cores.
 * One piece of work at a time has the threads; who comes meanwhile computes alone.
 */
#include "workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

enum { SPIN_NANOSECONDS = 60000, PAUSES_PER_LOOK = 32, STACK_BYTES = 512 * 1024 };

/* A ticket is one word: which piece of work (32 bits), how many parts it has (16), which part comes next (16). */
#define PART_BITS 16
#define PART_MASK ((UINT64_C(1) << PART_BITS) - 1)

static struct {
    pthread_mutex_t owner; /* held by the caller whose work this is */
    pthread_mutex_t lock;  /* for both conditions */
    pthread_cond_t work_came, work_done;
    _Atomic uint64_t ticket;
    _Atomic(work_function *) do_part; /* belong to the ticket; read after a part was taken */
    _Atomic(const void *) work;
    atomic_int unfinished_parts;
    atomic_int sleeping_workers;
    atomic_bool caller_sleeps;
    atomic_int thread_count;
    int started_workers; /* under `owner` */
    bool watches_forks;  /* under `owner` */
} pool = {
    .owner = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,
    .work_came = PTHREAD_COND_INITIALIZER, .work_done = PTHREAD_COND_INITIALIZER,
    .thread_count = 1,
};

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static bool has_part(uint64_t ticket) { return (ticket & PART_MASK) < ((ticket >> PART_BITS) & PART_MASK); }
static bool work_is_there(void) { return has_part(atomic_load(&pool.ticket)); }
static bool work_is_done(void) { return atomic_load(&pool.unfinished_parts) == 0; }

/* Wait for `holds` without sleeping, as long as SPIN_NANOSECONDS; tell whether it holds. */
static bool spin_until(bool (*holds)(void)) {
    const int64_t stop = nanoseconds_now() + SPIN_NANOSECONDS;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (holds()) return true;
            pause_briefly();
        }
    } while (nanoseconds_now() < stop);
    return false;
}

/* Take parts and do them until none is left. */
static void do_parts(void) {
    uint64_t ticket = atomic_load(&pool.ticket);
    while (has_part(ticket)) {
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket + 1)) continue;
        /* The work cannot be replaced before this part is done. */
        work_function *const do_part = atomic_load(&pool.do_part);
        do_part(atomic_load(&pool.work), (int)(ticket & PART_MASK), (int)((ticket >> PART_BITS) & PART_MASK));
        if (atomic_fetch_sub(&pool.unfinished_parts, 1) == 1 && atomic_load(&pool.caller_sleeps)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_signal(&pool.work_done);
            pthread_mutex_unlock(&pool.lock);
        }
        ticket = atomic_load(&pool.ticket);
    }
}

static void *run_worker(void *number) {
    const intptr_t own_number = (intptr_t)number; /* the caller is 0 */
    for (;;) {
        if (own_number < atomic_load(&pool.thread_count)) {
            do_parts();
            if (spin_until(work_is_there)) continue;
        }
        pthread_mutex_lock(&pool.lock);
        atomic_fetch_add(&pool.sleeping_workers, 1);
        while (!work_is_there() || own_number >= atomic_load(&pool.thread_count))
            pthread_cond_wait(&pool.work_came, &pool.lock);
        atomic_fetch_sub(&pool.sleeping_workers, 1);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* A forked child has none of the threads and may have copies of locks that they held. */
static void forget_workers(void) {
    pthread_mutex_init(&pool.owner, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.work_came, NULL);
    pthread_cond_init(&pool.work_done, NULL);
    atomic_store(&pool.ticket, 0);
    atomic_store(&pool.unfinished_parts, 0);
    atomic_store(&pool.sleeping_workers, 0);
    atomic_store(&pool.caller_sleeps, false);
    pool.started_workers = 0;
}

/* Start the workers that are missing, without any signals: those are for the program's own threads. */
static void start_workers(int wanted) {
    if (pool.started_workers >= wanted) return;
    if (!pool.watches_forks) pool.watches_forks = pthread_atfork(NULL, NULL, forget_workers) == 0;
    if (!pool.watches_forks) return;
    sigset_t all_signals, signals_before;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all_signals);
    pthread_sigmask(SIG_SETMASK, &all_signals, &signals_before);
    while (pool.started_workers < wanted) {
        pthread_t thread;
        const intptr_t number = pool.started_workers + 1;
        if (pthread_create(&thread, &attributes, run_worker, (void *)number) != 0) break; /* fewer do it too */
        pool.started_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &signals_before, NULL);
    pthread_attr_destroy(&attributes);
}

void workers_set_thread_count(int count) {
    atomic_store(&pool.thread_count, count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count);
}

int workers_thread_count(void) { return atomic_load(&pool.thread_count); }

void workers_run(work_function *do_part, const void *work, int part_count) {
    const int thread_count = workers_thread_count();
    if (part_count < 2 || thread_count < 2 || pthread_mutex_trylock(&pool.owner) != 0) {
        for (int part = 0; part < part_count; part++) do_part(work, part, part_count);
        return;
    }
    start_workers(thread_count - 1);
    atomic_store(&pool.do_part, do_part);
    atomic_store(&pool.work, work);
    atomic_store(&pool.unfinished_parts, part_count);
    const uint64_t number = (atomic_load(&pool.ticket) >> (2 * PART_BITS)) + 1;
    atomic_store(&pool.ticket, number << (2 * PART_BITS) | (uint64_t)part_count << PART_BITS);
    if (atomic_load(&pool.sleeping_workers) > 0) {
        pthread_mutex_lock(&pool.lock);
        pthread_cond_broadcast(&pool.work_came);
        pthread_mutex_unlock(&pool.lock);
    }
    do_parts();
    if (!spin_until(work_is_done)) {
        pthread_mutex_lock(&pool.lock);
        atomic_store(&pool.caller_sleeps, true);
        while (!work_is_done()) pthread_cond_wait(&pool.work_done, &pool.lock);
        atomic_store(&pool.caller_sleeps, false);
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_mutex_unlock(&pool.owner);
}

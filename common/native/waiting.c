/* How does somebody wait for what mostly comes sooner than the kernel would wake him?
 *
 *     begin_looking(&looking, &patience);
 *     do has_come = take_what_is_there(); while (!has_come && looks_again(&looking));
 *     end_looking(&looking, has_come);          then sleep, if it has not
 *
 * Covers: how long to look, and when it does not pay. Does not cover: what is looked at (exchange.c).
 *
 * Between two looks the core goes to whoever else can run on it (sched_yield). So nodes that share cores take turns
 * without one wake-up, and one that computes is not disturbed: what others have of the core is not counted, only what
 * looking has used up itself. To wake somebody on another core, and to be woken, takes 40 to 100 microseconds where an
 * idle core is a virtual machine's; a look takes one. A program that never sleeps keeps a core that it was given for
 * milliseconds, though, and would have been interrupted for whoever wakes: beside such a one it is better to sleep.
 */
#include "transfer.h"
#include "waiting.h"

#include <sched.h>

/* Nobody looks for longer than that: an idle node sleeps. */
enum { MOST_NANOSECONDS = 200000 };
/* Whoever comes back from sched_yield within that was alone on the core, or with others that only look: all of it
 * counts; else something was done meanwhile, and what counts is the change there and back. */
enum { ALONE_NANOSECONDS = 5000, CHANGE_NANOSECONDS = 2000 };
/* A block of a node that takes longer than this makes a wake-up cheap; a program that takes longer does not give way. */
enum { LATE_NANOSECONDS = 1000000 };
/* How much trouble a wait was that did harm or was in vain, and one that did neither for long; a good one takes away as
 * much as that. From PASSING on waits sleep at once: 64, and twice as many for each further TROUBLE. */
enum { TROUBLE = 8, LITTLE = 1, PASSING = 16, MOST_TROUBLE = 64, FIRST_PASSES = 64 };

void begin_looking(struct looking *looking, struct patience *patience) {
    *looking = (struct looking){.patience = patience, .since = clock_now(), .passes = patience->passes > 0};
    if (looking->passes) patience->passes--;
    else looking->left_nanoseconds = MOST_NANOSECONDS;
}

int looks_again(struct looking *looking) {
    if (looking->left_nanoseconds <= 0 || looking->is_late) return 0;
    const int64_t yields = clock_now();
    sched_yield();
    const int64_t back = clock_now(), away = back - yields;
    looking->left_nanoseconds -= yields - looking->since + (away < ALONE_NANOSECONDS ? away : CHANGE_NANOSECONDS);
    looking->since = back;
    looking->is_late = away > LATE_NANOSECONDS;
    return 1;
}

void end_looking(const struct looking *looking, int has_come) {
    struct patience *patience = looking->patience;
    if (looking->passes) return;
    if (has_come && !looking->is_late) {
        if (patience->trouble > 0) patience->trouble -= LITTLE;
        return;
    }
    patience->trouble += has_come || !looking->is_late ? TROUBLE : LITTLE;
    if (patience->trouble > MOST_TROUBLE) patience->trouble = MOST_TROUBLE;
    if (patience->trouble >= PASSING) patience->passes = FIRST_PASSES << (patience->trouble - PASSING) / TROUBLE;
}

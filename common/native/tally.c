/* What do many rounds of one kind come to: who was waited for, how long, and who came last?
 *
 * Covers: one walk over what sweep.c has put down, ranks by place. Does not cover: what the sums are for
 * (coordinator/ranks/round_table.py, which a test compares with the rounds one by one).
 *
 * Why not numpy: the numbers are few, and thirty of its operations cost more than all else that records of a sweep do.
 */
#include "interface.h"
#include "transfer.h"

static double seconds_of(int64_t nanoseconds) { return (double)nanoseconds / 1e9; }

/* Put places into the order in which answers came, the smaller first among equals. */
static void sort_by_arrival(const double *arrived, ptrdiff_t count, ptrdiff_t *order) {
    for (ptrdiff_t place = 0; place < count; place++) {
        ptrdiff_t at = place;
        for (; at && arrived[order[at - 1]] > arrived[place]; at--) order[at] = order[at - 1];
        order[at] = place;
    }
}

static ptrdiff_t slowest_of(const struct answered *answered, ptrdiff_t count) {
    ptrdiff_t slowest = 0;
    for (ptrdiff_t place = 1; place < count; place++)
        if (answered[place].compute_nanoseconds + answered[place].tile_wait_nanoseconds >
            answered[slowest].compute_nanoseconds + answered[slowest].tile_wait_nanoseconds)
            slowest = place;
    return slowest;
}

/* Add one round; return how long its last answer was waited for. */
static double add_round(const struct tally *tally, const struct swept_round *times, const struct answered *answered) {
    double arrived[MOST_PEERS], before;
    ptrdiff_t order[MOST_PEERS], last = 0;
    const double started = before = seconds_of(times->started_nanoseconds);
    for (ptrdiff_t place = 0; place < tally->rank_count; place++) {
        const double trip = (arrived[place] = seconds_of(answered[place].came_nanoseconds)) - started;
        ptrdiff_t bucket = 0;
        while (bucket < tally->bound_count && tally->bounds[bucket] < trip) bucket++;
        tally->trip_counts[place * (tally->bound_count + 1) + bucket]++;
        tally->ranks[place].trip_seconds += trip;
    }
    sort_by_arrival(arrived, tally->rank_count, order);
    for (ptrdiff_t at = 0; at < tally->rank_count; before = arrived[last], at++) {
        last = order[at];
        tally->ranks[last].wait_seconds += arrived[last] - before;
    }
    tally->ranks[last].last_count++;
    tally->ranks[slowest_of(answered, tally->rank_count)].slowest_count++;
    return before - started;
}

/* Add every `step`th of `round_count` rounds to what `tally` points at; waited_seconds[i] is of the i-th of these. */
EXPORT int shardmesh_tally(struct tally *tally, const struct swept_round *times, const struct answered *answered,
                           ptrdiff_t round_count, ptrdiff_t step, double *waited_seconds) {
    if (tally->rank_count < 1 || tally->rank_count > MOST_PEERS || tally->most_ranks < tally->rank_count || step < 1)
        return REFUSED;
    for (ptrdiff_t place = 0; place < round_count; place += step) {
        const struct answered *of_round = answered + place * tally->most_ranks;
        const struct answered *slowest = of_round + slowest_of(of_round, tally->rank_count);
        *waited_seconds++ = add_round(tally, times + place, of_round);
        tally->seconds += seconds_of(times[place].finished_nanoseconds) - seconds_of(times[place].started_nanoseconds);
        tally->compute_nanoseconds += slowest->compute_nanoseconds;
        tally->tile_wait_nanoseconds += slowest->tile_wait_nanoseconds;
    }
    return DONE;
}

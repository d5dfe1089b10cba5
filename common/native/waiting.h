/* How does somebody wait for what mostly comes sooner than the kernel would wake him? See waiting.c. */
#ifndef SHARDMESH_WAITING_H
#define SHARDMESH_WAITING_H

#include <stdint.h>

/* What earlier waits for one peer have taught; zero at first. */
struct patience {
    int32_t trouble; /* grows with every wait in which looking did harm, or was in vain */
    int32_t passes; /* waits that go to sleep at once, before the next one looks again */
};

/* One wait. */
struct looking {
    struct patience *patience;
    int64_t left_nanoseconds, since;
    int is_late; /* the core was away for so long that what came meanwhile has waited */
    int passes; /* looks once only */
};

void begin_looking(struct looking *looking, struct patience *patience);
/* Let others have this core, then tell whether to look again; if not, sleep. */
int looks_again(struct looking *looking);
/* Learn whether what was waited for has come. */
void end_looking(const struct looking *looking, int has_come);

#endif

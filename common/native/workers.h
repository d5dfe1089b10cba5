/* Who computes the parts of one piece of work? The caller, and threads that sleep when there is none. */
#ifndef SHARDMESH_WORKERS_H
#define SHARDMESH_WORKERS_H

enum { MOST_THREADS = 64, MOST_PARTS = 1024 };

typedef void work_function(const void *work, int part, int part_count);

/* Let pieces of work have this many threads, the caller included, from 1 to MOST_THREADS. */
void workers_set_thread_count(int count);
int workers_thread_count(void);

/* Run do_part(work, part, part_count) once for each part and return when all are done. Any thread may call it. */
void workers_run(work_function *do_part, const void *work, int part_count);

#endif

/* pool.h - threads that split fixed work.
 *
 * pf_pool_run(pool, n_tasks, fn, ctx) calls fn(ctx, task, worker) once for every task in
 * 0..n_tasks-1. What a number of the result is made of, and in which order, must not depend on the
 * split, and no task may depend on another: then the result has the same bits on any number of
 * threads. The partition is static: worker w of W begins with tasks [n·w/W, n·(w+1)/W) and walks
 * them in order, so with tasks that stand for rows each core meets in the next op the rows that it
 * wrote (and first touched) in the last one. Only who is done takes what others have not begun.
 * `worker` (0..n_workers-1) may only choose scratch memory. The caller works too; a pool of one
 * worker starts no thread. Workers spin shortly, then sleep. Nothing is allocated by run. One
 * thread at a time may call run; a run that a task starts is done in place, with that task's
 * worker. */
#ifndef PF_POOL_H
#define PF_POOL_H

#include "base/status.h"

typedef struct pf_pool pf_pool;
typedef void (*pf_task_fn)(void *ctx, int task, int worker);

peft_status pf_pool_new(pf_pool **out, int n_workers, peft_error *err); /* 0: one per usable core */
void pf_pool_free(pf_pool *pool);
int pf_pool_workers(const pf_pool *pool);                               /* 1 for NULL */
void pf_pool_run(pf_pool *pool, int n_tasks, pf_task_fn fn, void *ctx); /* NULL pool: in place */
/* Seconds that the workers together have spent on tasks so far; 0 for NULL. */
double pf_pool_busy(const pf_pool *pool);

int pf_usable_cores(void); /* affinity and cgroup quota respected */

#endif

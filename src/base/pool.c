/* pool.c - worker threads with a fixed split of tasks; see pool.h.
 *
 * Worker w does tasks w, w + n, w + 2n, ...: which worker does what is a matter of speed alone. A
 * run is published by bumping `generation`; workers that spin see it at once, sleeping ones are
 * woken through the condition variable. */
#include "base/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SPINS 4000 /* some tens of microseconds: longer than the gap between two kernels */

typedef struct worker {
    pf_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct pf_pool {
    int n_workers, n_started;
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic unsigned generation;
    _Atomic int busy;     /* workers that have not finished the current run */
    _Atomic int sleepers; /* workers on the condition variable */
    _Atomic bool stop;
    int n_tasks;
    pf_task_fn fn;
    void *ctx;
};

static _Thread_local bool inside_task;   /* a run started by a task is done in place ... */
static _Thread_local int current_worker; /* ... with the scratch of that worker */

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void do_share(pf_pool *p, int index) {
    inside_task = true;
    current_worker = index;
    for (int t = index; t < p->n_tasks; t += p->n_workers) p->fn(p->ctx, t, index);
    inside_task = false;
    current_worker = 0;
}

static void *work(void *arg) {
    worker *w = arg;
    pf_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0;
             i < SPINS && atomic_load_explicit(&p->generation, memory_order_acquire) == seen; i++)
            relax();
        if (atomic_load_explicit(&p->generation, memory_order_acquire) == seen) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (atomic_load(&p->generation) == seen) pthread_cond_wait(&p->wake, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        seen = atomic_load(&p->generation);
        if (atomic_load(&p->stop)) return NULL;
        do_share(p, w->index);
        if (atomic_fetch_sub(&p->busy, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void publish(pf_pool *p) {
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

peft_status pf_pool_new(pf_pool **out, int n_workers, peft_error *err) {
    *out = NULL;
    if (n_workers <= 0) n_workers = pf_usable_cores();
    pf_pool *p = pf_calloc(1, sizeof *p);
    worker *workers = pf_calloc((size_t)n_workers, sizeof *workers);
    if (p == NULL || workers == NULL) {
        pf_free(p);
        pf_free(workers);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    p->n_workers = n_workers;
    p->workers = workers;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < n_workers; i++) {
        workers[i] = (worker){.pool = p, .index = i};
        int e = pthread_create(&workers[i].thread, NULL, work, &workers[i]);
        if (e != 0) {
            pf_pool_free(p);
            return pf_fail_errno(err, PEFT_E_NOMEM, e, "cannot start thread %d of %d", i + 1,
                                 n_workers);
        }
        p->n_started++;
    }
    *out = p;
    return PEFT_OK;
}

void pf_pool_free(pf_pool *p) {
    if (p == NULL) return;
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->generation, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    pf_free(p->workers);
    pf_free(p);
}

int pf_pool_workers(const pf_pool *p) {
    return p != NULL ? p->n_workers : 1;
}

void pf_pool_run(pf_pool *p, int n_tasks, pf_task_fn fn, void *ctx) {
    if (p == NULL || p->n_workers == 1 || n_tasks <= 1 || inside_task) {
        for (int t = 0; t < n_tasks; t++) fn(ctx, t, current_worker);
        return;
    }
    p->n_tasks = n_tasks;
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->busy, p->n_workers - 1);
    publish(p);
    do_share(p, 0);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->busy, memory_order_acquire) > 0; i++)
        relax();
    if (atomic_load_explicit(&p->busy, memory_order_acquire) > 0) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->busy) > 0) pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

/* Cores that the cgroup's quota pays for, or 0 when it sets none. */
static int quota_cores(void) {
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f == NULL) return 0;
    long long quota, period;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    if (n != 2 || quota <= 0 || period <= 0) return 0;
    long long cores = (quota + period - 1) / period;
    return cores > 0 && cores < 4096 ? (int)cores : 0;
}

int pf_usable_cores(void) {
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* for machines with more cores than a set holds */
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)online;
    int quota = quota_cores();
    if (quota > 0 && quota < cores) cores = quota;
    return cores > 0 ? cores : 1;
}

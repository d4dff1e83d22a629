/* pool.c - worker threads that share out fixed tasks; see pool.h.
 *
 * Each worker begins with a contiguous part of the tasks, so that rows which one op left in a
 * core's cache are met again by the next; when its part is done it takes tasks from the end of the
 * others'. Which worker does what is a matter of speed alone. A part is one 64-bit word: the number
 * of the run, the next task, the end. Tasks are taken by compare-and-swap, so a worker that comes
 * late (its core was lent to someone else) finds the word of another run and takes nothing: the
 * caller waits for tasks, never for workers that have none.
 *
 * A run is published by bumping `generation`; workers that spin see it at once, sleeping ones are
 * woken through the condition variable. */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SPINS = 4000,   /* some tens of microseconds: longer than the gap between two kernels */
    TASK_BITS = 22, /* of a word, for the next task and for the end; the rest is the run */
    MOST_TASKS = (1 << TASK_BITS) - 1
};

typedef struct worker {
    pf_pool *pool;
    int index;
    pthread_t thread;
    char apart[64]; /* the rest is written while others read theirs */
    _Atomic uint64_t part;
    _Atomic uint64_t busy_ns;
    char apart_too[64];
} worker;

struct pf_pool {
    int n_workers, n_started;
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic unsigned generation;
    _Atomic int left;     /* tasks of the current run that are not finished */
    _Atomic int sleepers; /* workers on the condition variable */
    _Atomic bool stop;
    _Atomic int base; /* number of the run's first task */
    _Atomic(pf_task_fn) fn;
    _Atomic(void *) ctx;
};

static _Thread_local bool inside_task;   /* a run started by a task is done in place ... */
static _Thread_local int current_worker; /* ... with the scratch of that worker */

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* --- a worker's part of a run ----------------------------------------------------------------- */

static uint64_t part_of(unsigned generation, int next, int end) {
    return (uint64_t)generation << 2 * TASK_BITS | (uint64_t)next << TASK_BITS | (uint64_t)end;
}

/* A task of that worker's part, from its front or its end; -1 when nothing of this run is left. */
static int take(worker *w, unsigned generation, bool from_end) {
    uint64_t seen = atomic_load_explicit(&w->part, memory_order_acquire);
    for (;;) {
        const int next = (int)(seen >> TASK_BITS & MOST_TASKS), end = (int)(seen & MOST_TASKS);
        if ((seen ^ part_of(generation, next, end)) != 0 || next >= end) return -1;
        const uint64_t rest = from_end ? seen - 1 : seen + ((uint64_t)1 << TASK_BITS);
        if (atomic_compare_exchange_weak_explicit(&w->part, &seen, rest, memory_order_acq_rel,
                                                  memory_order_acquire))
            return from_end ? end - 1 : next;
    }
}

static void add_busy(worker *w, double since) {
    atomic_fetch_add_explicit(&w->busy_ns, (uint64_t)((pf_now() - since) * 1e9),
                              memory_order_relaxed);
}

/* Works on one run until nothing is left of it. What to call is read before a task is taken: as
 * long as there was one to take, the run was not over and the next one not begun. */
static void do_share(pf_pool *p, int index, unsigned generation) {
    const pf_task_fn fn = atomic_load(&p->fn);
    void *ctx = atomic_load(&p->ctx);
    const int base = atomic_load(&p->base);
    const double since = pf_now();
    int n_done = 0;
    inside_task = true;
    current_worker = index;
    for (int i = 0; i < p->n_workers; i++) {
        const int from = index + i < p->n_workers ? index + i : index + i - p->n_workers;
        for (int t; (t = take(&p->workers[from], generation, i > 0)) >= 0; n_done++)
            fn(ctx, base + t, index);
    }
    inside_task = false;
    current_worker = 0;
    if (n_done == 0) return;
    add_busy(&p->workers[index], since);
    if (atomic_fetch_sub(&p->left, n_done) == n_done && index != 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
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
        do_share(p, w->index, seen);
    }
}

static void publish(pf_pool *p, unsigned generation) {
    atomic_store(&p->generation, generation);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

/* --- life cycle ------------------------------------------------------------------------------- */

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
    for (int i = 0; i < n_workers; i++) {
        workers[i].pool = p;
        workers[i].index = i;
    }
    for (int i = 1; i < n_workers; i++) {
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

double pf_pool_busy(const pf_pool *p) {
    uint64_t ns = 0;
    for (int i = 0; p != NULL && i < p->n_workers; i++)
        ns += atomic_load_explicit(&p->workers[i].busy_ns, memory_order_relaxed);
    return (double)ns * 1e-9;
}

/* --- runs ------------------------------------------------------------------------------------- */

static void run_shared(pf_pool *p, int base, int n_tasks, pf_task_fn fn, void *ctx) {
    const unsigned generation = atomic_load(&p->generation) + 1;
    const int64_t n = p->n_workers;
    atomic_store(&p->fn, fn);
    atomic_store(&p->ctx, ctx);
    atomic_store(&p->base, base);
    atomic_store(&p->left, n_tasks);
    for (int64_t w = 0; w < n; w++)
        atomic_store_explicit(
            &p->workers[w].part,
            part_of(generation, (int)(n_tasks * w / n), (int)(n_tasks * (w + 1) / n)),
            memory_order_release);
    publish(p, generation);
    do_share(p, 0, generation);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->left, memory_order_acquire) > 0; i++)
        relax();
    if (atomic_load_explicit(&p->left, memory_order_acquire) > 0) {
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->left) > 0) pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

void pf_pool_run(pf_pool *p, int n_tasks, pf_task_fn fn, void *ctx) {
    if (p == NULL || inside_task) {
        for (int t = 0; t < n_tasks; t++) fn(ctx, t, current_worker);
        return;
    }
    if (p->n_workers == 1 || n_tasks <= 1) {
        const double since = pf_now();
        inside_task = true;
        for (int t = 0; t < n_tasks; t++) fn(ctx, t, 0);
        inside_task = false;
        if (n_tasks > 0) add_busy(&p->workers[0], since);
        return;
    }
    for (int base = 0; base < n_tasks; base += MOST_TASKS)
        run_shared(p, base, n_tasks - base < MOST_TASKS ? n_tasks - base : MOST_TASKS, fn, ctx);
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

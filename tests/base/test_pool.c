/* test_pool.c - every task runs once, results do not depend on the number of workers, runs may
 * nest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"

enum { MAX_TASKS = 1000, MAX_WORKERS = 8 };

typedef struct counts {
    _Atomic int runs[MAX_TASKS];
    _Atomic int in_use[MAX_WORKERS]; /* a worker's scratch is its own */
    _Atomic int clashes;
    int n_workers;
} counts;

static void count_task(void *ctx, int task, int worker) {
    counts *c = ctx;
    if (worker < 0 || worker >= c->n_workers || atomic_fetch_add(&c->in_use[worker], 1) != 0)
        atomic_fetch_add(&c->clashes, 1);
    atomic_fetch_add(&c->runs[task], 1);
    if (worker >= 0 && worker < c->n_workers) atomic_fetch_sub(&c->in_use[worker], 1);
}

static void every_task_runs_once(void **state) {
    (void)state;
    static const int sizes[] = {0, 1, 2, 3, 7, 8, 9, 64, MAX_TASKS};
    for (int workers = 1; workers <= MAX_WORKERS; workers++) {
        pf_pool *pool;
        assert_int_equal(pf_pool_new(&pool, workers, NULL), PEFT_OK);
        assert_int_equal(pf_pool_workers(pool), workers);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            static counts c;
            memset(&c, 0, sizeof c);
            c.n_workers = workers;
            pf_pool_run(pool, sizes[s], count_task, &c);
            for (int t = 0; t < MAX_TASKS; t++) assert_int_equal(c.runs[t], t < sizes[s]);
            assert_int_equal(c.clashes, 0);
        }
        pf_pool_free(pool);
    }
    static counts c;
    c.n_workers = 1;
    pf_pool_run(NULL, 5, count_task, &c); /* no pool: in place */
    for (int t = 0; t < 5; t++) assert_int_equal(c.runs[t], 1);
    assert_int_equal(pf_pool_workers(NULL), 1);
    pf_pool_free(NULL);
}

/* Many short runs with and without pauses: a lost wake-up or an early return would show. */
static void short_runs_never_hang(void **state) {
    (void)state;
    pf_pool *pool;
    assert_int_equal(pf_pool_new(&pool, 4, NULL), PEFT_OK);
    static counts c;
    memset(&c, 0, sizeof c);
    c.n_workers = 4;
    enum { ROUNDS = 4000 };
    for (int i = 0; i < ROUNDS; i++) {
        pf_pool_run(pool, 5, count_task, &c);
        for (int t = 0; t < 5; t++) assert_int_equal(c.runs[t], i + 1);
        if (i % 200 == 0) usleep(2000); /* long enough for the workers to fall asleep */
    }
    assert_int_equal(c.clashes, 0);
    pf_pool_free(pool);
}

static void long_task(void *ctx, int task, int worker) {
    (void)worker;
    _Atomic int *runs = ctx;
    if (task == 0) usleep(30000);
    atomic_fetch_add(&runs[task], 1);
}

/* Worker 0 holds one task for long; the others finish what was to be its part. */
static void nobody_waits_for_a_slow_worker(void **state) {
    (void)state;
    pf_pool *pool;
    assert_int_equal(pf_pool_new(&pool, 2, NULL), PEFT_OK);
    assert_true(pf_pool_busy(pool) == 0);
    static _Atomic int runs[100];
    for (int i = 0; i < 3; i++) {
        memset((void *)runs, 0, sizeof runs);
        pf_pool_run(pool, 100, long_task, runs);
        for (int t = 0; t < 100; t++) assert_int_equal(runs[t], 1);
    }
    const double busy = pf_pool_busy(pool);
    assert_true(busy >= 0.09 && busy < 30);
    assert_true(pf_pool_busy(NULL) == 0);
    pf_pool_free(pool);
}

typedef struct meeting { /* everybody holds a task until all have one */
    _Atomic int arrived;
    int n_workers;
    int by[MAX_WORKERS];
} meeting;

static void meet_task(void *ctx, int task, int worker) {
    meeting *m = ctx;
    m->by[task] = worker;
    atomic_fetch_add(&m->arrived, 1);
    while (atomic_load(&m->arrived) < m->n_workers) usleep(10);
}

/* Nobody can be early here: who has what is what each begins with. */
static void a_worker_begins_with_its_own_part(void **state) {
    (void)state;
    for (int workers = 2; workers <= MAX_WORKERS; workers++) {
        pf_pool *pool;
        assert_int_equal(pf_pool_new(&pool, workers, NULL), PEFT_OK);
        for (int i = 0; i < 5; i++) {
            static meeting m;
            memset(&m, 0, sizeof m);
            m.n_workers = workers;
            pf_pool_run(pool, workers, meet_task, &m);
            for (int t = 0; t < workers; t++) assert_int_equal(m.by[t], t);
        }
        pf_pool_free(pool);
    }
}

typedef struct sums {
    const float *x;
    float part[64];
} sums;

static void sum_task(void *ctx, int task, int worker) {
    (void)worker;
    sums *s = ctx;
    float total = 0;
    for (int i = 0; i < 257; i++) total += s->x[task * 257 + i];
    s->part[task] = total;
}

static void results_do_not_depend_on_workers(void **state) {
    (void)state;
    static float x[64 * 257];
    pf_rng_key key = pf_rng_make_key(1, PF_RNG_DATA, 0);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)pf_rng_normal_at(key, i);
    static sums first, s;
    for (int workers = 1; workers <= MAX_WORKERS; workers++) {
        pf_pool *pool;
        assert_int_equal(pf_pool_new(&pool, workers, NULL), PEFT_OK);
        s = (sums){.x = x};
        pf_pool_run(pool, 64, sum_task, &s);
        if (workers == 1) first = s;
        assert_memory_equal(s.part, first.part, sizeof s.part);
        pf_pool_free(pool);
    }
}

typedef struct nest {
    pf_pool *pool;
    counts inner[16];
    _Atomic int wrong_worker;
} nest;

typedef struct inner_ctx {
    nest *n;
    int outer_task, outer_worker;
} inner_ctx;

static void inner_task(void *ctx, int task, int worker) {
    inner_ctx *i = ctx;
    atomic_fetch_add(&i->n->inner[i->outer_task].runs[task], 1);
    if (worker != i->outer_worker) atomic_fetch_add(&i->n->wrong_worker, 1);
}

static void outer_task(void *ctx, int task, int worker) {
    inner_ctx i = {ctx, task, worker};
    pf_pool_run(i.n->pool, 10, inner_task, &i);
}

static void a_task_may_start_a_run(void **state) {
    (void)state;
    static nest n;
    memset(&n, 0, sizeof n);
    assert_int_equal(pf_pool_new(&n.pool, 4, NULL), PEFT_OK);
    pf_pool_run(n.pool, 16, outer_task, &n);
    for (int t = 0; t < 16; t++) {
        for (int k = 0; k < 10; k++) assert_int_equal(n.inner[t].runs[k], 1);
    }
    assert_int_equal(n.wrong_worker, 0); /* the scratch of the outer task's worker */
    pf_pool_free(n.pool);
}

static void two_pools_live_side_by_side(void **state) {
    (void)state;
    pf_pool *a, *b;
    assert_int_equal(pf_pool_new(&a, 3, NULL), PEFT_OK);
    assert_int_equal(pf_pool_new(&b, 0, NULL), PEFT_OK);
    assert_int_equal(pf_pool_workers(b), pf_usable_cores());
    assert_true(pf_usable_cores() >= 1);
    static counts ca, cb;
    ca.n_workers = 3;
    cb.n_workers = MAX_WORKERS;
    for (int i = 0; i < 100; i++) {
        pf_pool_run(a, 20, count_task, &ca);
        pf_pool_run(b, pf_pool_workers(b) <= MAX_WORKERS ? 20 : 1, count_task, &cb);
    }
    for (int t = 0; t < 20; t++) assert_int_equal(ca.runs[t], 100);
    assert_int_equal(cb.runs[0], 100);
    pf_pool_free(a);
    pf_pool_free(b);
}

static void run_allocates_nothing_and_new_may_fail(void **state) {
    (void)state;
    pf_pool *pool;
    for (int n = 1; n <= 2; n++) {
        peft_error err = {0};
        pf_alloc_fail_at(n);
        assert_int_equal(pf_pool_new(&pool, 3, &err), PEFT_E_NOMEM);
        pf_alloc_fail_at(0);
        assert_null(pool);
    }
    assert_int_equal(pf_pool_new(&pool, 3, NULL), PEFT_OK);
    static counts c;
    c.n_workers = 3;
    int64_t before = pf_alloc_count();
    for (int i = 0; i < 100; i++) pf_pool_run(pool, 12, count_task, &c);
    assert_int_equal(pf_alloc_count(), before);
    pf_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_once),
        cmocka_unit_test(short_runs_never_hang),
        cmocka_unit_test(nobody_waits_for_a_slow_worker),
        cmocka_unit_test(a_worker_begins_with_its_own_part),
        cmocka_unit_test(results_do_not_depend_on_workers),
        cmocka_unit_test(a_task_may_start_a_run),
        cmocka_unit_test(two_pools_live_side_by_side),
        cmocka_unit_test(run_allocates_nothing_and_new_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* adamw.c - see adamw.h. Blocks are split at fixed places: the same bits on any number of threads.
 * The step itself is elementwise in the precision of pf_real, as torch computes it; sums are in
 * double. */
#include "ops/optim/adamw.h"

#include <math.h>

#define BLOCK     16384 /* elements per task */
#define MAX_PARTS 64

typedef struct job {
    int64_t n;
    pf_real *p, *m, *v;
    const pf_real *g;
    pf_real decay, scale, b1, one_minus_b1, b2, one_minus_b2, step_size, root_bias2, eps;
} job;

static void update_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * BLOCK, to = from + BLOCK < j->n ? from + BLOCK : j->n;
    for (int64_t i = from; i < to; i++) {
        const pf_real g = j->g[i] * j->scale;
        const pf_real m = j->m[i] + (g - j->m[i]) * j->one_minus_b1; /* torch's lerp */
        const pf_real v = j->v[i] * j->b2 + g * g * j->one_minus_b2;
        const pf_real denominator = pf_rsqrt(v) / j->root_bias2 + j->eps;
        j->m[i] = m;
        j->v[i] = v;
        j->p[i] = j->p[i] * j->decay - j->step_size * (m / denominator);
    }
}

void pf_adamw_update(pf_pool *pool, const pf_adamw *o, double grad_scale, int64_t n, pf_real *p,
                     const pf_real *g, pf_real *m, pf_real *v) {
    job j = {
        .n = n,
        .p = p,
        .m = m,
        .v = v,
        .g = g,
        .decay = (pf_real)(1 - o->lr * o->weight_decay),
        .scale = (pf_real)grad_scale,
        .b1 = (pf_real)o->beta1,
        .one_minus_b1 = (pf_real)(1 - o->beta1),
        .b2 = (pf_real)o->beta2,
        .one_minus_b2 = (pf_real)(1 - o->beta2),
        .step_size = (pf_real)(o->lr / (1 - pow(o->beta1, (double)o->t))),
        .root_bias2 = (pf_real)sqrt(1 - pow(o->beta2, (double)o->t)),
        .eps = (pf_real)o->eps,
    };
    pf_pool_run(pool, (int)((n + BLOCK - 1) / BLOCK), update_task, &j);
}

/* --- passes over a block: fixed parts, put together in their order
 * ------------------------------------------------- */

typedef struct pass {
    const pf_real *x;
    int64_t n, part;
    double sum[MAX_PARTS];
    int64_t bad[MAX_PARTS]; /* -1: none */
} pass;

static int begin_pass(pass *s, int64_t n, const pf_real *x) {
    s->x = x;
    s->n = n;
    s->part = (n + MAX_PARTS - 1) / MAX_PARTS;
    if (s->part < BLOCK) s->part = BLOCK;
    return (int)((n + s->part - 1) / s->part);
}

static void sum_task(void *ctx, int task, int worker) {
    (void)worker;
    pass *s = ctx;
    const int64_t from = task * s->part, to = from + s->part < s->n ? from + s->part : s->n;
    double sum = 0;
    for (int64_t i = from; i < to; i++) sum += (double)s->x[i] * (double)s->x[i];
    s->sum[task] = sum;
}

double pf_sum_squares(pf_pool *pool, int64_t n, const pf_real *x) {
    pass s;
    const int parts = begin_pass(&s, n, x);
    pf_pool_run(pool, parts, sum_task, &s);
    double sum = 0;
    for (int i = 0; i < parts; i++) sum += s.sum[i];
    return sum;
}

static void look_task(void *ctx, int task, int worker) {
    (void)worker;
    pass *s = ctx;
    const int64_t from = task * s->part, to = from + s->part < s->n ? from + s->part : s->n;
    s->bad[task] = -1;
    for (int64_t i = from; i < to; i++) {
        if (isfinite(s->x[i])) continue;
        s->bad[task] = i;
        return;
    }
}

int64_t pf_first_nonfinite(pf_pool *pool, int64_t n, const pf_real *x) {
    pass s;
    const int parts = begin_pass(&s, n, x);
    pf_pool_run(pool, parts, look_task, &s);
    for (int i = 0; i < parts; i++) {
        if (s.bad[i] >= 0) return s.bad[i];
    }
    return -1;
}

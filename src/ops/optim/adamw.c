/* adamw.c - see adamw.h. Blocks are split at fixed places: the same bits on any number of threads.
 * The step itself is elementwise in the precision of pf_real, in torch's order; sums are in double.
 */
#include "ops/optim/adamw.h"

#include "base/cpu.h"
#include "ops/optim/adamw_kernels.h"

#include <math.h>

enum { BLOCK = 16384, /* elements per task */ MAX_PARTS = 64, LANES = 8 };

void pf_adamw_step_cpu(const pf_adamw_step *k) {
    for (int64_t i = 0; i < k->n; i++) {
        const pf_real g = k->g[i] * k->grad_scale;
        const pf_real m = k->m[i] + (g - k->m[i]) * k->one_minus_b1; /* lerp_ */
        const pf_real v = k->v[i] * k->b2 + k->one_minus_b2 * g * g; /* mul_, addcmul_ */
        const pf_real denominator = pf_rsqrt(v) / k->root_bias2 + k->eps;
        k->m[i] = m;
        k->v[i] = v;
        k->p[i] = k->p[i] * k->decay + k->minus_step * m / denominator; /* mul_, addcdiv_ */
    }
}

typedef struct job {
    pf_adamw_step k;
    void (*fn)(const pf_adamw_step *k);
} job;

static void update_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_adamw_step k = j->k;
    const int64_t from = (int64_t)task * BLOCK;
    k.p += from;
    k.g += from;
    k.m += from;
    k.v += from;
    k.n = k.n - from < BLOCK ? k.n - from : BLOCK;
    j->fn(&k);
}

void pf_adamw_update(pf_pool *pool, const pf_adamw *o, double grad_scale, int64_t n, pf_real *p,
                     const pf_real *g, pf_real *m, pf_real *v) {
    job j = {.fn = pf_adamw_step_cpu};
#ifndef PF_DOUBLE
    if (pf_cpu_level() >= PF_ISA_AVX2) j.fn = pf_adamw_step_avx2;
    if (pf_cpu_level() >= PF_ISA_AVX512) j.fn = pf_adamw_step_avx512;
#endif
    j.k = (pf_adamw_step){
        .p = p,
        .m = m,
        .v = v,
        .g = g,
        .n = n,
        .grad_scale = (pf_real)grad_scale,
        .decay = (pf_real)(1 - o->lr * o->weight_decay),
        .one_minus_b1 = (pf_real)(1 - o->beta1),
        .b2 = (pf_real)o->beta2,
        .one_minus_b2 = (pf_real)(1 - o->beta2),
        .minus_step = (pf_real)(-o->lr / (1 - pow(o->beta1, (double)o->t))),
        .root_bias2 = (pf_real)sqrt(1 - pow(o->beta2, (double)o->t)),
        .eps = (pf_real)o->eps,
    };
    pf_pool_run(pool, (int)((n + BLOCK - 1) / BLOCK), update_task, &j);
}

/* --- passes over a block: fixed parts, put together in their order ---------------------------- */

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
    double sum[LANES] = {0}; /* a fixed order that needs no waiting for the sum before */
    int64_t i = from;
    for (; i + LANES <= to; i += LANES) {
        for (int l = 0; l < LANES; l++) sum[l] += (double)s->x[i + l] * (double)s->x[i + l];
    }
    for (; i < to; i++) sum[0] += (double)s->x[i] * (double)s->x[i];
    s->sum[task] =
        ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
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

/* pair_turn.c - pairs of columns turned and stretched; see delta_maps.h. Rows are dealt out to
 * tasks; sums of a column's gradient go over the rows in order. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

#include <math.h>

enum { ROWS_A_TASK = 16, COLS_A_TASK = 64 };

void pf_pair_turn_places(const pf_pair_turn_args *a, int64_t c, int64_t *first, int64_t *second,
                         int64_t *partner) {
    const int64_t g = c / a->group, j = c % a->group, half = a->group / 2;
    *partner = j < half ? c + half : c - half;
    switch (a->kind) {
    case 1:
        *first = *second = g * half + j % half;
        return;
    case 2:
        *first = *second = c;
        return;
    default:
        *first = 2 * g * a->group + j;
        *second = *first + a->group;
    }
}

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_pair_turn_args *a = args;
    const int64_t want = in_cols * a->kind / 2, n = p[0].rows * p[0].cols;
    const bool fits = in_cols % a->group == 0 && n == want && p[1].rows * p[1].cols == want;
    return fits ? in_cols : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)args, (void)R, (void)p, (void)n_workers;
    return 4 * in_cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args, (void)p;
    return 4 * (double)in_cols;
}

typedef struct job {
    const pf_rowmap_run *r;
    const pf_pair_turn_args *a;
    pf_real *own, *other; /* (C): factors of a column itself and, with its sign, of its partner */
    pf_real *d_own, *d_other;
} job;

static job job_of(const pf_rowmap_run *r) {
    const int64_t C = r->in_cols;
    job j = {r, r->args, r->scratch, r->scratch + C, r->scratch + 2 * C, r->scratch + 3 * C};
    const pf_real *theta = r->p[0].data, *alpha = r->p[1].data;
    for (int64_t c = 0; c < C; c++) {
        int64_t first, second, partner;
        pf_pair_turn_places(j.a, c, &first, &second, &partner);
        const double s = (double)alpha[second] * sin((double)theta[second]);
        j.own[c] = (pf_real)((double)alpha[first] * cos((double)theta[first]));
        j.other[c] = (pf_real)(partner > c ? -s : s);
    }
    return j;
}

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, half = j->a->group / 2, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(j->r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const pf_real *x = j->r->x + i * C;
        pf_real *y = j->r->y + i * C;
        for (int64_t g = 0; g < C; g += j->a->group) {
            for (int64_t c = g, p = g + half; c < g + half; c++, p++) {
                y[c] = x[c] * j->own[c] + x[p] * j->other[c];
                y[p] = x[p] * j->own[p] + x[c] * j->other[p];
            }
        }
    }
}

static void dx_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, half = j->a->group / 2, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(j->r->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const pf_real *dy = j->r->dy + i * C;
        pf_real *dx = j->r->dx + i * C;
        for (int64_t g = 0; g < C; g += j->a->group) {
            for (int64_t c = g, p = g + half; c < g + half; c++, p++) {
                const pf_real a = dy[c], b = dy[p];
                dx[c] = a * j->own[c] + b * j->other[p];
                dx[p] = b * j->own[p] + a * j->other[c];
            }
        }
    }
}

static void sums_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t C = j->r->in_cols, half = j->a->group / 2, first = (int64_t)task * COLS_A_TASK,
                  end = pf_min_i64(C, first + COLS_A_TASK);
    (void)worker;
    for (int64_t c = first; c < end; c++) {
        const int64_t p = c % j->a->group < half ? c + half : c - half;
        pf_real own = 0, other = 0;
        for (int64_t i = 0; i < j->r->R; i++) {
            const pf_real *x = j->r->x + i * C, dy = j->r->dy[i * C + c];
            own += dy * x[c];
            other += dy * x[p];
        }
        j->d_own[c] = own;
        j->d_other[c] = p > c ? -other : other;
    }
}

static void forward(const pf_rowmap_run *r) {
    job j = job_of(r);
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), forward_task, &j);
}

static void parameters(const job *j) {
    const pf_real *theta = j->r->p[0].data, *alpha = j->r->p[1].data;
    pf_real *dt = j->r->d_p[0].data, *da = j->r->d_p[1].data;
    for (int64_t c = 0; c < j->r->in_cols; c++) {
        int64_t f, s, partner;
        pf_pair_turn_places(j->a, c, &f, &s, &partner);
        const double df = (double)j->d_own[c], ds = (double)j->d_other[c];
        const double tf = (double)theta[f], ts = (double)theta[s];
        if (da != NULL) {
            da[f] += (pf_real)(df * cos(tf));
            da[s] += (pf_real)(ds * sin(ts));
        }
        if (dt != NULL) {
            dt[f] -= (pf_real)(df * (double)alpha[f] * sin(tf));
            dt[s] += (pf_real)(ds * (double)alpha[s] * cos(ts));
        }
    }
}

static void backward(const pf_rowmap_run *r) {
    job j = job_of(r);
    if (r->d_p[0].data != NULL || r->d_p[1].data != NULL) {
        pf_pool_run(r->pool, (int)pf_ceil_div(r->in_cols, COLS_A_TASK), sums_task, &j);
        parameters(&j);
    }
    if (r->dx != NULL) pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), dx_task, &j);
}

const pf_rowmap pf_pair_turn = {.name = "turned pairs of columns",
                                .columns = columns,
                                .scratch = scratch,
                                .flops = flops,
                                .forward = forward,
                                .backward = backward};

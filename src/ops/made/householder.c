/* householder.c - the ops householder and householder_grad; see made.h.
 *
 * Column j of X ᵀ below the diagonal is a_j; v_j = e_j + a_j, t_j = 2 / |v_j|², and
 *
 *   H = H_1 H_2 ... H_r [:, :r],  H_j = I - t_j v_j v_jᵀ,    W = (B H S)ᵀ,  S = diag(int(X_jj))
 *
 * A reflection is its own inverse, so the backward pass walks from M_1 = H up to M_{r+1} = the
 * first columns of I without having kept any of them:
 *
 *   M_{j+1} = H_j M_j,  dv_j = -t_j (dM_j (M_{j+1}ᵀ v_j) + M_{j+1} (dM_jᵀ v_j)),
 *   dt_j = -(v_jᵀ dM_j)(v_jᵀ M_{j+1})ᵀ,  da_j = dv_j below the diagonal - t_j² dt_j a_j
 *
 * B is fixed. Everything but the products with B is in double and of one thread: n r² operations.
 */
#include "ops/made/made.h"
#include "ops/op_util.h"

#include <math.h>
#include <string.h>

enum { STRIP = 64 }; /* columns or rows of a task */

typedef struct job {
    int64_t r, n;
    const pf_real *x, *base, *dw;
    pf_real *w, *dx;
    double *m, *dm;       /* (r, n): columns of H and dH, one after the other */
    double *in_m, *in_dm; /* (r) */
} job;

peft_status pf_householder(pf_graph *g, const char *name, pf_value *x, pf_value *base, pf_value **w,
                           peft_error *err) {
    pf_value *in[2] = {x, base};
    return pf_op_emit(g, "householder", name, NULL, in, 2, w, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *x = n->in[0], *b = n->in[1];
    if (x->space != PF_SPACE_NONE || b->rows != b->cols || b->cols != x->cols ||
        x->rows >= x->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld x %lld and a base of %lld x %lld do not fit",
                       (long long)x->rows, (long long)x->cols, (long long)b->rows,
                       (long long)b->cols);
    }
    PF_CHECK_ALLOC(pf_op_out_like(g, n, x), err);
    return PEFT_OK;
}

/* dw, x, base -> dx */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1]), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[3] = {pf_grad_of(ad, n->out[0]), NULL, n->in[1]}, *dx;
    PF_ASSERT(!pf_grad_wanted(n->in[1]));
    PF_TRY(pf_op_need(ad, n->in[0], &in[1], err));
    PF_TRY(pf_op_emit(pf_grad_graph(ad), "householder_grad", n->name, NULL, in, 3, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

/* ---- reflections ----------------------------------------------------------------------------- */

/* 2 / |v_j|² */
static double tau(const job *j, int64_t k) {
    const pf_real *a = j->x + k * j->n;
    double sum = 1;
    for (int64_t i = k + 1; i < j->n; i++) sum += (double)a[i] * (double)a[i];
    return 2 / sum;
}

/* v_kᵀ c */
static double along(const job *j, int64_t k, const double *c) {
    const pf_real *a = j->x + k * j->n;
    double sum = c[k];
    for (int64_t i = k + 1; i < j->n; i++) sum += (double)a[i] * c[i];
    return sum;
}

/* c += f v_k */
static void add_v(const job *j, int64_t k, double f, double *c) {
    const pf_real *a = j->x + k * j->n;
    c[k] += f;
    for (int64_t i = k + 1; i < j->n; i++) c[i] += f * (double)a[i];
}

/* H_k on all columns of m */
static void reflect(const job *j, int64_t k, double *m) {
    const double t = tau(j, k);
    for (int64_t c = 0; c < j->r; c++) {
        double *col = m + c * j->n;
        add_v(j, k, -t * along(j, k, col), col);
    }
}

static void make_h(const job *j) {
    memset(j->m, 0, (size_t)(j->r * j->n) * sizeof *j->m);
    for (int64_t c = 0; c < j->r; c++) j->m[c * j->n + c] = 1;
    for (int64_t k = j->r - 1; k >= 0; k--) reflect(j, k, j->m);
}

static double sign_of(const job *j, int64_t k) {
    return trunc((double)j->x[k * j->n + k]);
}

/* ---- kernels --------------------------------------------------------------------------------- */

/* W[:, i] = S (B H)[i, :], rows i of B */
static void w_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t to = pf_min_i64(j->n, (task + 1) * (int64_t)STRIP);
    for (int64_t i = (int64_t)task * STRIP; i < to; i++) {
        const pf_real *b = j->base + i * j->n;
        for (int64_t k = 0; k < j->r; k++) {
            const double *h = j->m + k * j->n;
            double sum = 0;
            for (int64_t l = 0; l < j->n; l++) sum += (double)b[l] * h[l];
            j->w[k * j->n + i] = (pf_real)(sign_of(j, k) * sum);
        }
    }
}

/* dH = Bᵀ dWᵀ S, rows of dH in a strip */
static void dh_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t l0 = (int64_t)task * STRIP, to = pf_min_i64(j->n, l0 + STRIP);
    for (int64_t k = 0; k < j->r; k++) {
        double *dh = j->dm + k * j->n;
        const double s = sign_of(j, k);
        for (int64_t l = l0; l < to; l++) dh[l] = 0;
        for (int64_t i = 0; i < j->n; i++) {
            const double d = s * (double)j->dw[k * j->n + i];
            const pf_real *b = j->base + i * j->n;
            for (int64_t l = l0; l < to; l++) dh[l] += d * (double)b[l];
        }
    }
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    const pf_value *x = n->n_in == 3 ? n->in[1] : n->in[0];
    return (2 * x->rows * x->cols + 2 * x->rows) * (int64_t)sizeof(double);
}

static job job_of(const pf_exec *e, const pf_value *x, const pf_value *base) {
    job j = {.r = x->rows,
             .n = x->cols,
             .x = pf_exec_data(e, x),
             .base = pf_exec_data(e, base),
             .m = (double *)(void *)e->workspace};
    j.dm = j.m + j.r * j.n;
    j.in_m = j.dm + j.r * j.n;
    j.in_dm = j.in_m + j.r;
    return j;
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n->in[0], n->in[1]);
    j.w = pf_exec_data(x, n->out[0]);
    make_h(&j);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n, STRIP), w_task, &j);
    return PEFT_OK;
}

/* da_k from M_{k+1} (j->m, updated) and dM_k (j->dm, which becomes dM_{k+1}) */
static void step_back(const job *j, int64_t k) {
    const double t = tau(j, k);
    const pf_real *a = j->x + k * j->n;
    pf_real *da = j->dx + k * j->n;
    double dt = 0;
    reflect(j, k, j->m);
    for (int64_t c = 0; c < j->r; c++) {
        j->in_m[c] = along(j, k, j->m + c * j->n);
        j->in_dm[c] = along(j, k, j->dm + c * j->n);
        dt -= j->in_m[c] * j->in_dm[c];
    }
    for (int64_t i = 0; i < j->n; i++) {
        double dv = 0;
        for (int64_t c = 0; c < j->r && i > k; c++)
            dv -= t * (j->dm[c * j->n + i] * j->in_m[c] + j->m[c * j->n + i] * j->in_dm[c]);
        da[i] = i > k ? (pf_real)(dv - t * t * dt * (double)a[i]) : 0;
    }
    reflect(j, k, j->dm);
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n->in[1], n->in[2]);
    j.dw = pf_exec_data(x, n->in[0]);
    j.dx = pf_exec_data(x, n->out[0]);
    make_h(&j);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n, STRIP), dh_task, &j);
    for (int64_t k = 0; k < j.r; k++) step_back(&j, k);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const pf_value *x = n->n_in == 3 ? n->in[1] : n->in[0];
    return (pf_cost){.flops = 2 * (double)x->cols * (double)x->cols * (double)x->rows,
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad},
    {0},
};

extern const pf_op pf_op_householder, pf_op_householder_grad;

const pf_op pf_op_householder = {
    .name = "householder",
    .what = "W = (B H(X))^T, H a product of reflections",
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_householder_grad = {
    .name = "householder_grad",
    .what = "dX of householder",
    .shape = grad_shape,
    .workspace = workspace,
    .cost = cost,
    .kernels = grad_kernels,
};

/* dora_cpu.c - dora_norm and dora_scale on the CPU. The products of dora_norm are gemm.h's; the
 * rest is a pass over few numbers. */
#include "ops/matmul/dora.h"
#include "ops/matmul/dora_kernels.h"
#include "ops/matmul/gemm.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/op_util.h"

#include <math.h>
#include <string.h>

enum {
    OUTPUTS = 128, /* of a task of dora_norm */
    STRIP = 64     /* columns of a task of dora_scale_grad */
};

static int64_t align64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

/* --- dora_norm -------------------------------------------------------------------------------- */

typedef struct factors { /* both pairs as one: A (r, in), B (out, r) */
    int64_t in, out, r;
    pf_real *a, *b;
} factors;

static factors sizes_of(const pf_node *n) {
    const pf_value *a = n->in[PF_DORA_A], *b = n->in[PF_DORA_B], *a0 = n->in[PF_DORA_A0];
    return (factors){.in = a->cols, .out = b->rows, .r = a->rows + (a0 != NULL ? a0->rows : 0)};
}

typedef struct room {
    unsigned char *gemm;
    pf_real *a, *b, *product, *gram, *u, *squares;
    int64_t bytes;
} room;

static pf_real *part(unsigned char *base, int64_t *at, int64_t count) {
    unsigned char *p = base + *at;
    *at += align64(count * (int64_t)sizeof(pf_real));
    return (pf_real *)(void *)p;
}

/* base NULL: bytes alone are asked for. */
static room layout(unsigned char *base, const factors *f, int n_workers) {
    static unsigned char none[1];
    unsigned char *from = base != NULL ? base : none;
    room r = {.gemm = base, .bytes = align64(pf_gemm_workspace(n_workers))};
    r.a = part(from, &r.bytes, f->r * f->in);
    r.b = part(from, &r.bytes, f->out * f->r);
    r.product = part(from, &r.bytes, f->r * f->out);
    r.gram = part(from, &r.bytes, f->r * f->r);
    r.u = part(from, &r.bytes, f->out * f->r);
    r.squares = part(from, &r.bytes, f->out);
    return r;
}

int64_t pf_dora_norm_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    const factors f = sizes_of(n);
    return layout(NULL, &f, n_workers).bytes;
}

/* A over A0, and B beside -B0. */
static void stack(const pf_exec *x, const pf_node *n, factors *f) {
    const pf_value *a0 = n->in[PF_DORA_A0];
    const int64_t r = n->in[PF_DORA_A]->rows, r0 = f->r - r;
    const pf_real *b = pf_exec_data(x, n->in[PF_DORA_B]), *b0 = pf_exec_data(x, n->in[PF_DORA_B0]);
    memcpy(f->a, pf_exec_data(x, n->in[PF_DORA_A]), (size_t)(r * f->in) * sizeof *f->a);
    if (a0 != NULL)
        memcpy(f->a + r * f->in, pf_exec_data(x, a0), (size_t)(r0 * f->in) * sizeof *f->a);
    for (int64_t o = 0; o < f->out; o++) {
        memcpy(f->b + o * f->r, b + o * r, (size_t)r * sizeof *b);
        for (int64_t k = 0; k < r0; k++) f->b[o * f->r + r + k] = -b0[o * r0 + k];
    }
}

typedef struct norm_job {
    factors f;
    const pf_real *product, *u, *squares; /* W Aᵀ turned (r, out); B A Aᵀ (out, r) */
    pf_real *inverse;
    double scale;
} norm_job;

static void norm_task(void *ctx, int task, int worker) {
    (void)worker;
    const norm_job *j = ctx;
    const int64_t from = (int64_t)task * OUTPUTS, to = pf_min_i64(j->f.out, from + OUTPUTS);
    for (int64_t o = from; o < to; o++) {
        double cross = 0, own = 0;
        for (int64_t k = 0; k < j->f.r; k++) {
            const double b = (double)j->f.b[o * j->f.r + k];
            cross += b * (double)j->product[k * j->f.out + o];
            own += b * (double)j->u[o * j->f.r + k];
        }
        const double sum = (double)j->squares[o] + j->scale * (2 * cross + j->scale * own);
        j->inverse[o] = sum > 0 ? (pf_real)(1 / sqrt(sum)) : 0;
    }
}

static bool is_kept(const pf_dora_kept *k, const factors *f) {
    if (k == NULL || k->factors == NULL || !k->valid) return false;
    const size_t a = (size_t)(f->r * f->in), b = (size_t)(f->out * f->r);
    return memcmp(k->factors, f->a, a * sizeof *f->a) == 0 &&
           memcmp(k->factors + a, f->b, b * sizeof *f->b) == 0;
}

static void keep(pf_dora_kept *k, const factors *f, const pf_real *inverse) {
    if (k == NULL || k->factors == NULL) return;
    const size_t a = (size_t)(f->r * f->in), b = (size_t)(f->out * f->r);
    memcpy(k->factors, f->a, a * sizeof *f->a);
    memcpy(k->factors + a, f->b, b * sizeof *f->b);
    memcpy(k->inverse, inverse, (size_t)f->out * sizeof *inverse);
    k->valid = true;
}

static peft_status run_norm(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const pf_dora_norm_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    factors f = sizes_of(n);
    const room r = layout(x->workspace, &f, pf_pool_workers(pool));
    pf_real *inverse = pf_exec_data(x, n->out[0]);
    f.a = r.a;
    f.b = r.b;
    stack(x, n, &f);
    if (is_kept(args->kept, &f)) {
        memcpy(inverse, args->kept->inverse, (size_t)f.out * sizeof *inverse);
        return PEFT_OK;
    }
    const pf_weight w = pf_linear_matrix(x, n->in[PF_DORA_W]);
    const pf_weight a = pf_gemm_dense(f.a, f.r, f.in, f.in),
                    g = pf_gemm_dense(r.gram, f.r, f.r, f.r);
    const pf_gemm products[] = {
        {.form = args->by_column ? PF_GEMM_NN : PF_GEMM_NT, /* A Wᵀ or A W */
         .m = f.r,
         .n = f.out,
         .k = f.in,
         .a = f.a,
         .lda = f.in,
         .b = &w,
         .c = r.product,
         .ldc = f.out,
         .alpha = 1},
        {.form = PF_GEMM_NT, /* A Aᵀ */
         .m = f.r,
         .n = f.r,
         .k = f.in,
         .a = f.a,
         .lda = f.in,
         .b = &a,
         .c = r.gram,
         .ldc = f.r,
         .alpha = 1},
        {.form = PF_GEMM_NN, /* B (A Aᵀ) */
         .m = f.out,
         .n = f.r,
         .k = f.r,
         .a = f.b,
         .lda = f.r,
         .b = &g,
         .c = r.u,
         .ldc = f.r,
         .alpha = 1},
    };
    for (size_t i = 0; i < PF_COUNT(products); i++) pf_gemm_run(pool, isa, &products[i], r.gemm);
    norm_job j = {.f = f,
                  .product = r.product,
                  .u = r.u,
                  .squares = pf_op_vector(x, n->in[PF_DORA_SQUARES], r.squares),
                  .inverse = inverse,
                  .scale = args->scale};
    pf_pool_run(pool, (int)pf_ceil_div(f.out, OUTPUTS), norm_task, &j);
    keep(args->kept, &f, inverse);
    return PEFT_OK;
}

/* --- dora_scale ------------------------------------------------------------------------------- */

typedef struct scale_job {
    const pf_real *x, *v, *m, *inverse; /* x: v, or dy */
    pf_real *y, *dm, *g;
    int64_t R, C, task_rows;
} scale_job;

int64_t pf_dora_scale_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    (void)n_workers;
    return n->in[0]->cols * (int64_t)sizeof(pf_real);
}

/* g = m ⊙ inverse, in the workspace */
static void make_factor(scale_job *j, unsigned char *workspace) {
    j->g = (pf_real *)(void *)workspace;
    for (int64_t c = 0; c < j->C; c++) j->g[c] = j->m[c] * j->inverse[c];
}

static void scale_task(void *ctx, int task, int worker) {
    (void)worker;
    const scale_job *j = ctx;
    const int64_t C = j->C, to = pf_min_i64(j->R, (task + 1) * j->task_rows);
    for (int64_t i = task * j->task_rows; i < to; i++) {
        const pf_real *x = j->x + i * C;
        pf_real *y = j->y + i * C;
        int64_t c = 0;
        for (; c + STRIP <= C; c += STRIP) {
            for (int k = 0; k < STRIP; k++) y[c + k] = x[c + k] * j->g[c + k];
        }
        for (; c < C; c++) y[c] = x[c] * j->g[c];
    }
}

static peft_status run_scale(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    scale_job j = {.x = pf_exec_data(x, n->in[0]),
                   .m = pf_exec_data(x, n->in[1]),
                   .inverse = pf_exec_data(x, n->in[2]),
                   .y = pf_exec_data(x, n->out[0]),
                   .R = pf_exec_rows(x, n->in[0]),
                   .C = n->in[0]->cols};
    make_factor(&j, x->workspace);
    j.task_rows = pf_op_rows_per_task(j.C);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), scale_task, &j);
    return PEFT_OK;
}

/* A task owns columns, so that the sum over rows goes in their order; dv takes over dy's numbers
 * one by one, once they have been read. */
static void scale_grad_task(void *ctx, int task, int worker) {
    (void)worker;
    const scale_job *j = ctx;
    const int64_t c0 = (int64_t)task * STRIP, n = pf_min_i64(STRIP, j->C - c0);
    const pf_real *g = j->g + c0;
    pf_real sum[STRIP] = {0};
    for (int64_t i = 0; i < j->R; i++) {
        const int64_t at = i * j->C + c0;
        const pf_real *dy = j->x + at, *v = j->v != NULL ? j->v + at : NULL;
        pf_real *dv = j->y != NULL ? j->y + at : NULL;
        if (n == STRIP) {
            for (int c = 0; v != NULL && c < STRIP; c++) sum[c] += dy[c] * v[c];
            for (int c = 0; dv != NULL && c < STRIP; c++) dv[c] = dy[c] * g[c];
        } else {
            for (int64_t c = 0; v != NULL && c < n; c++) sum[c] += dy[c] * v[c];
            for (int64_t c = 0; dv != NULL && c < n; c++) dv[c] = dy[c] * g[c];
        }
    }
    for (int64_t c = 0; j->dm != NULL && c < n; c++) j->dm[c0 + c] += j->inverse[c0 + c] * sum[c];
}

static peft_status run_scale_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    scale_job j = {.x = pf_exec_data(x, n->in[0]),
                   .v = pf_exec_data(x, n->in[1]),
                   .m = pf_exec_data(x, n->in[2]),
                   .inverse = pf_exec_data(x, n->in[3]),
                   .dm = pf_exec_data(x, n->in[4]),
                   .y = n->n_out > 0 ? pf_exec_data(x, n->out[0]) : NULL,
                   .R = pf_exec_rows(x, n->in[0]),
                   .C = n->in[0]->cols};
    make_factor(&j, x->workspace);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.C, STRIP), scale_grad_task, &j);
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first ------------------------------------------------------ */

#define RUN(name)                                                                                  \
    static peft_status run_norm_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        (void)err;                                                                                 \
        return run_norm(x, n, &pf_gemm_##name);                                                    \
    }

RUN(plain)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_dora_norm_kernel_rows[] = {
    PF_FAST_KERNELS(run_norm, NULL)
    {.backend = "cpu", .name = "reference", .run = run_norm_plain},
    {0},
};
// clang-format on
const pf_kernel_row pf_dora_scale_kernel_rows[] = {
    {.backend = "cpu", .name = "reference", .run = run_scale}, {0}};
const pf_kernel_row pf_dora_scale_grad_kernel_rows[] = {
    {.backend = "cpu", .name = "reference", .run = run_scale_grad}, {0}};

/* weighted_rows.c - rows times the weight with a factor for each of its numbers; see delta_maps.h.
 * STRIP rows of the changed weight exist at a time, in scratch, and go through the dense
 * products. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

enum { A, B, W };
enum { STRIP = 64 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    const bool fits = p[A].rows == p[B].cols && p[A].cols == in_cols && p[W].cols == in_cols &&
                      p[W].rows == p[B].rows;
    return fits ? p[B].rows : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)args, (void)R, (void)p, (void)n_workers;
    return 2 * STRIP * in_cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    return 2.0 * (double)in_cols * (double)p[B].rows;
}

typedef struct strip {
    const pf_rowmap_run *r;
    int64_t first, n;
    pf_real *t; /* (n, in): times the rows of W */
} strip;

static void weigh_task(void *ctx, int task, int worker) {
    enum { PART = 512 };
    const strip *s = ctx;
    const pf_mat *w = &s->r->p[W];
    const int64_t in = s->r->in_cols, row = s->first + task;
    pf_real wide[PART];
    (void)worker;
    for (int64_t c = 0; c < in; c += PART) {
        const int64_t n = pf_min_i64(PART, in - c);
        const pf_real *from = wide;
        if (w->weight != NULL) {
            pf_weight_read_tile(w->weight, row, 1, c, n, wide, n);
        } else {
            from = w->data + row * in + c;
        }
        for (int64_t k = 0; k < n; k++) s->t[(int64_t)task * in + c + k] *= from[k];
    }
}

static void product(const pf_rowmap_run *r, pf_gemm g) {
    pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
}

/* T = (B A) * W of these rows */
static void make(const pf_rowmap_run *r, strip *s) {
    const int64_t R = r->p[A].rows, in = r->in_cols;
    const pf_weight a = pf_gemm_dense(r->p[A].data, R, in, in);
    s->t = r->scratch;
    product(r, (pf_gemm){.form = PF_GEMM_NN,
                         .m = s->n,
                         .n = in,
                         .k = R,
                         .a = r->p[B].data + s->first * R,
                         .lda = R,
                         .b = &a,
                         .c = s->t,
                         .ldc = in,
                         .alpha = 1});
    pf_pool_run(r->pool, (int)s->n, weigh_task, s);
}

static void forward(const pf_rowmap_run *r) {
    for (int64_t first = 0; first < r->out_cols; first += STRIP) {
        strip s = {r, first, pf_min_i64(STRIP, r->out_cols - first), NULL};
        make(r, &s);
        const pf_weight t = pf_gemm_dense(s.t, s.n, r->in_cols, r->in_cols);
        product(r, (pf_gemm){.form = PF_GEMM_NT,
                             .m = r->R,
                             .n = s.n,
                             .k = r->in_cols,
                             .a = r->x,
                             .lda = r->in_cols,
                             .b = &t,
                             .c = r->y + first,
                             .ldc = r->out_cols,
                             .alpha = 1});
    }
}

/* With G = (dyᵀ x) * W of these rows: dB += G Aᵀ, dA += Bᵀ G. */
static void factors(const pf_rowmap_run *r, const strip *at) {
    const int64_t R = r->p[A].rows, in = r->in_cols;
    strip s = *at;
    s.t = r->scratch + STRIP * in;
    const pf_weight x = pf_gemm_dense(r->x, r->R, in, in);
    product(r, (pf_gemm){.form = PF_GEMM_TN,
                         .m = s.n,
                         .n = in,
                         .k = r->R,
                         .a = r->dy + s.first,
                         .lda = r->out_cols,
                         .b = &x,
                         .c = s.t,
                         .ldc = in,
                         .alpha = 1});
    pf_pool_run(r->pool, (int)s.n, weigh_task, &s);
    if (r->d_p[B].data != NULL) {
        const pf_weight a = pf_gemm_dense(r->p[A].data, R, in, in);
        product(r, (pf_gemm){.form = PF_GEMM_NT,
                             .m = s.n,
                             .n = R,
                             .k = in,
                             .a = s.t,
                             .lda = in,
                             .b = &a,
                             .c = r->d_p[B].data + s.first * R,
                             .ldc = R,
                             .alpha = 1,
                             .accumulate = true});
    }
    if (r->d_p[A].data == NULL) return;
    const pf_weight g = pf_gemm_dense(s.t, s.n, in, in);
    product(r, (pf_gemm){.form = PF_GEMM_TN,
                         .m = R,
                         .n = in,
                         .k = s.n,
                         .a = r->p[B].data + s.first * R,
                         .lda = R,
                         .b = &g,
                         .c = r->d_p[A].data,
                         .ldc = in,
                         .alpha = 1,
                         .accumulate = true});
}

static void backward(const pf_rowmap_run *r) {
    const bool trained = r->d_p[A].data != NULL || r->d_p[B].data != NULL;
    for (int64_t first = 0; first < r->out_cols; first += STRIP) {
        strip s = {r, first, pf_min_i64(STRIP, r->out_cols - first), NULL};
        if (r->dx != NULL) {
            make(r, &s);
            const pf_weight t = pf_gemm_dense(s.t, s.n, r->in_cols, r->in_cols);
            product(r, (pf_gemm){.form = PF_GEMM_NN,
                                 .m = r->R,
                                 .n = r->in_cols,
                                 .k = s.n,
                                 .a = r->dy + first,
                                 .lda = r->out_cols,
                                 .b = &t,
                                 .c = r->dx,
                                 .ldc = r->in_cols,
                                 .alpha = 1,
                                 .accumulate = first > 0});
        }
        if (trained && r->R > 0) factors(r, &s);
    }
}

const pf_rowmap pf_weighted_rows = {.name = "weight with low-rank factors",
                                    .columns = columns,
                                    .scratch = scratch,
                                    .flops = flops,
                                    .forward = forward,
                                    .backward = backward};

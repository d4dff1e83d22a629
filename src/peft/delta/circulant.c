/* circulant.c - rows times a matrix of circulant blocks; see delta_maps.h. One row of blocks exists
 * at a time, in scratch, and goes through the dense products; sums of a kernel's gradient go along
 * the diagonals of dyᵀ x, in ascending order. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const int64_t b = ((const pf_circulant_args *)args)->size, n = in_cols / b;
    const bool fits = in_cols % b == 0 && n > 0 && p[0].cols == b && p[0].rows % n == 0;
    return fits ? p[0].rows / n * b : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)R, (void)p, (void)n_workers;
    return 2 * ((const pf_circulant_args *)args)->size * in_cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    return 2.0 * (double)in_cols * (double)columns(args, in_cols, p);
}

typedef struct strip { /* row m of blocks: T (b, in), T[u, n b + t] = scale w[m, n, (t - u) mod b]
                        */
    int64_t b, in;
    double scale;
    const pf_real *w; /* (in / b, b) */
    pf_real *t;
    const pf_real *g; /* (b, in): gradient of T */
    pf_real *dw;
} strip;

static void fill_task(void *ctx, int task, int worker) {
    const strip *s = ctx;
    const pf_real scale = (pf_real)s->scale;
    const int64_t u = task;
    (void)worker;
    for (int64_t n = 0; n < s->in / s->b; n++) {
        const pf_real *w = s->w + n * s->b;
        pf_real *t = s->t + u * s->in + n * s->b;
        for (int64_t k = 0; k < s->b; k++) t[(u + k) % s->b] = scale * w[k];
    }
}

static void diagonal_task(void *ctx, int task, int worker) {
    const strip *s = ctx;
    const pf_real scale = (pf_real)s->scale;
    const int64_t n = task;
    (void)worker;
    for (int64_t k = 0; k < s->b; k++) {
        pf_real sum = 0;
        for (int64_t u = 0; u < s->b; u++) sum += s->g[u * s->in + n * s->b + (u + k) % s->b];
        s->dw[n * s->b + k] += scale * sum;
    }
}

static strip strip_of(const pf_rowmap_run *r, int64_t m) {
    const pf_circulant_args *a = r->args;
    const int64_t first = m * r->in_cols; /* blocks of a row have in_cols numbers together */
    return (strip){.b = a->size,
                   .in = r->in_cols,
                   .scale = a->scale,
                   .w = r->p[0].data + first,
                   .t = r->scratch,
                   .g = r->scratch + a->size * r->in_cols,
                   .dw = r->d_p[0].data != NULL ? r->d_p[0].data + first : NULL};
}

static void forward(const pf_rowmap_run *r) {
    const int64_t b = ((const pf_circulant_args *)r->args)->size;
    for (int64_t m = 0; m < r->out_cols / b; m++) {
        strip s = strip_of(r, m);
        pf_pool_run(r->pool, (int)b, fill_task, &s);
        const pf_weight t = pf_gemm_dense(s.t, b, s.in, s.in);
        pf_gemm_run(r->pool, r->isa,
                    &(pf_gemm){.form = PF_GEMM_NT,
                               .m = r->R,
                               .n = b,
                               .k = s.in,
                               .a = r->x,
                               .lda = s.in,
                               .b = &t,
                               .c = r->y + m * b,
                               .ldc = r->out_cols,
                               .alpha = 1},
                    r->gemm_room);
    }
}

static void backward(const pf_rowmap_run *r) {
    const int64_t b = ((const pf_circulant_args *)r->args)->size;
    for (int64_t m = 0; m < r->out_cols / b; m++) {
        strip s = strip_of(r, m);
        if (r->dx != NULL) {
            pf_pool_run(r->pool, (int)b, fill_task, &s);
            const pf_weight t = pf_gemm_dense(s.t, b, s.in, s.in);
            pf_gemm_run(r->pool, r->isa,
                        &(pf_gemm){.form = PF_GEMM_NN,
                                   .m = r->R,
                                   .n = s.in,
                                   .k = b,
                                   .a = r->dy + m * b,
                                   .lda = r->out_cols,
                                   .b = &t,
                                   .c = r->dx,
                                   .ldc = s.in,
                                   .alpha = 1,
                                   .accumulate = m > 0},
                        r->gemm_room);
        }
        if (s.dw == NULL || r->R == 0) continue;
        const pf_weight x = pf_gemm_dense(r->x, r->R, s.in, s.in);
        pf_gemm_run(r->pool, r->isa,
                    &(pf_gemm){.form = PF_GEMM_TN,
                               .m = b,
                               .n = s.in,
                               .k = r->R,
                               .a = r->dy + m * b,
                               .lda = r->out_cols,
                               .b = &x,
                               .c = r->scratch + b * s.in,
                               .ldc = s.in,
                               .alpha = 1},
                    r->gemm_room);
        pf_pool_run(r->pool, (int)(s.in / b), diagonal_task, &s);
    }
}

const pf_rowmap pf_circulant = {.name = "circulant blocks",
                                .columns = columns,
                                .scratch = scratch,
                                .flops = flops,
                                .forward = forward,
                                .backward = backward};

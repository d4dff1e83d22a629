/* granular.c - GraLoRA's product; see delta_maps.h. Pieces of a row are multiplied by their own A,
 * the results dealt out to the pieces of the output and multiplied by its own B. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"

enum { A, B };
enum { ROWS_A_TASK = 16 };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_granular_args *a = args;
    const bool fits = p[A].rows == in_cols && in_cols % a->n == 0 && p[A].cols % a->n == 0 &&
                      p[B].rows == a->n * p[A].cols;
    return fits ? a->n * p[B].cols : 0;
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    (void)in_cols, (void)n_workers;
    return 3 * R * ((const pf_granular_args *)args)->n * p[A].cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    (void)args;
    return 2.0 * (double)p[A].cols * (double)(in_cols + p[B].rows / p[A].cols * p[B].cols);
}

typedef struct dealing { /* rows of n x (n x r / n): pieces of a piece change places, both ways */
    int64_t R, n, r;
    const pf_real *from;
    pf_real *to;
} dealing;

static void deal_task(void *ctx, int task, int worker) {
    const dealing *d = ctx;
    const int64_t part = d->r / d->n, first = (int64_t)task * ROWS_A_TASK,
                  end = pf_min_i64(d->R, first + ROWS_A_TASK);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const pf_real *from = d->from + i * d->n * d->r;
        pf_real *to = d->to + i * d->n * d->r;
        for (int64_t k = 0; k < d->n; k++)
            for (int64_t j = 0; j < d->n; j++)
                for (int64_t s = 0; s < part; s++)
                    to[j * d->r + k * part + s] = from[k * d->r + j * part + s];
    }
}

static void deal(const pf_rowmap_run *r, const pf_real *from, pf_real *to) {
    dealing d = {r->R, ((const pf_granular_args *)r->args)->n, r->p[A].cols, from, to};
    pf_pool_run(r->pool, (int)pf_ceil_div(r->R, ROWS_A_TASK), deal_task, &d);
}

static void product(const pf_rowmap_run *r, pf_gemm g) {
    pf_gemm_run(r->pool, r->isa, &g, r->gemm_room);
}

/* The dealt results of the As, (R, n r). */
static void down(const pf_rowmap_run *r, pf_real *room, pf_real *dealt) {
    const int64_t n = ((const pf_granular_args *)r->args)->n, k = r->in_cols / n, q = r->p[A].cols;
    for (int64_t i = 0; i < n; i++) {
        const pf_weight a = pf_gemm_dense(r->p[A].data + i * k * q, k, q, q);
        product(r, (pf_gemm){.form = PF_GEMM_NN,
                             .m = r->R,
                             .n = q,
                             .k = k,
                             .a = r->x + i * k,
                             .lda = r->in_cols,
                             .b = &a,
                             .c = room + i * q,
                             .ldc = n * q,
                             .alpha = 1});
    }
    deal(r, room, dealt);
}

static void forward(const pf_rowmap_run *r) {
    const pf_granular_args *a = r->args;
    const int64_t n = a->n, q = r->p[A].cols, out = r->p[B].cols;
    pf_real *dealt = r->scratch + r->R * n * q;
    down(r, r->scratch, dealt);
    for (int64_t j = 0; j < n; j++) {
        const pf_weight b = pf_gemm_dense(r->p[B].data + j * q * out, q, out, out);
        product(r, (pf_gemm){.form = PF_GEMM_NN,
                             .m = r->R,
                             .n = out,
                             .k = q,
                             .a = dealt + j * q,
                             .lda = n * q,
                             .b = &b,
                             .c = r->y + j * out,
                             .ldc = n * out,
                             .alpha = (pf_real)a->scale});
    }
}

/* Gradients of B, and those of the dealt results. */
static void backward_up(const pf_rowmap_run *r, const pf_real *dealt, pf_real *d_dealt) {
    const pf_granular_args *a = r->args;
    const int64_t n = a->n, q = r->p[A].cols, out = r->p[B].cols;
    for (int64_t j = 0; j < n; j++) {
        const pf_weight b = pf_gemm_dense(r->p[B].data + j * q * out, q, out, out),
                        dy = pf_gemm_dense(r->dy + j * out, r->R, out, n * out);
        product(r, (pf_gemm){.form = PF_GEMM_NT,
                             .m = r->R,
                             .n = q,
                             .k = out,
                             .a = r->dy + j * out,
                             .lda = n * out,
                             .b = &b,
                             .c = d_dealt + j * q,
                             .ldc = n * q,
                             .alpha = (pf_real)a->scale});
        if (r->d_p[B].data == NULL) continue;
        product(r, (pf_gemm){.form = PF_GEMM_TN,
                             .m = q,
                             .n = out,
                             .k = r->R,
                             .a = dealt + j * q,
                             .lda = n * q,
                             .b = &dy,
                             .c = r->d_p[B].data + j * q * out,
                             .ldc = out,
                             .alpha = (pf_real)a->scale,
                             .accumulate = true});
    }
}

static void backward(const pf_rowmap_run *r) {
    const int64_t n = ((const pf_granular_args *)r->args)->n, k = r->in_cols / n, q = r->p[A].cols;
    pf_real *room = r->scratch, *dealt = room + r->R * n * q, *d_dealt = dealt + r->R * n * q;
    if (r->R == 0) return;
    if (r->d_p[B].data != NULL) down(r, room, dealt);
    backward_up(r, dealt, d_dealt);
    deal(r, d_dealt, room);
    for (int64_t i = 0; i < n; i++) {
        const pf_weight a = pf_gemm_dense(r->p[A].data + i * k * q, k, q, q),
                        d = pf_gemm_dense(room + i * q, r->R, q, n * q);
        if (r->dx != NULL)
            product(r, (pf_gemm){.form = PF_GEMM_NT,
                                 .m = r->R,
                                 .n = k,
                                 .k = q,
                                 .a = room + i * q,
                                 .lda = n * q,
                                 .b = &a,
                                 .c = r->dx + i * k,
                                 .ldc = r->in_cols,
                                 .alpha = 1});
        if (r->d_p[A].data == NULL) continue;
        product(r, (pf_gemm){.form = PF_GEMM_TN,
                             .m = k,
                             .n = q,
                             .k = r->R,
                             .a = r->x + i * k,
                             .lda = r->in_cols,
                             .b = &d,
                             .c = r->d_p[A].data + i * k * q,
                             .ldc = q,
                             .alpha = 1,
                             .accumulate = true});
    }
}

const pf_rowmap pf_granular = {.name = "pieces with factors of their own",
                               .columns = columns,
                               .scratch = scratch,
                               .flops = flops,
                               .forward = forward,
                               .backward = backward};

/* linear_cpu.c - launchers of linear, linear_grad_x and linear_grad_w on the CPU: each is one
 * product of gemm.h, for any instruction set. */
#include "base/str.h"
#include "ops/matmul/gemm.h"
#include "ops/matmul/gemm_onednn.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/matmul/narrow.h"
#include "ops/op_util.h"

#include <string.h>

pf_weight pf_linear_matrix(const pf_exec *x, const pf_value *v) {
    if (v->kind == PF_VALUE_WEIGHT) {
        pf_weight w = *v->weight;
        w.row_scale = v->row_scale;
        return w;
    }
    return pf_gemm_dense(pf_exec_data(x, v), v->rows, v->cols, v->cols);
}

int64_t pf_linear_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    int64_t bytes = pf_gemm_workspace(n_workers);
    return n->in[2] != NULL ? bytes + pf_op_vector_scratch(n->in[2]) : bytes;
}

int64_t pf_linear_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n;
    (void)capacity;
    return pf_gemm_workspace(n_workers);
}

/* x, w, bias -> y */
static pf_gemm forward(const pf_exec *x, const pf_node *n, const pf_weight *w, void *scratch) {
    return (pf_gemm){.form = PF_GEMM_NT,
                     .m = pf_exec_rows(x, n->in[0]),
                     .n = w->rows,
                     .k = w->cols,
                     .a = pf_exec_data(x, n->in[0]),
                     .lda = w->cols,
                     .b = w,
                     .c = pf_exec_data(x, n->out[0]),
                     .ldc = w->rows,
                     .alpha = 1,
                     .bias = n->in[2] != NULL ? pf_op_vector(x, n->in[2], scratch) : NULL};
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const pf_gemm g =
        forward(x, n, &w, x->workspace + pf_gemm_workspace(pf_pool_workers(pf_exec_pool(x))));
    pf_gemm_run(pf_exec_pool(x), isa, &g, x->workspace);
    return PEFT_OK;
}

/* dy, w, acc -> dx */
static pf_gemm backward(const pf_exec *x, const pf_node *n, const pf_weight *w) {
    const pf_real *acc = pf_exec_data(x, n->in[2]);
    const pf_gemm g = {.form = PF_GEMM_NN,
                       .m = pf_exec_rows(x, n->in[0]),
                       .n = w->cols,
                       .k = w->rows,
                       .a = pf_exec_data(x, n->in[0]),
                       .lda = w->rows,
                       .b = w,
                       .c = pf_exec_data(x, n->out[0]),
                       .ldc = w->cols,
                       .alpha = 1,
                       .accumulate = acc != NULL};
    if (acc != NULL && acc != g.c) memcpy(g.c, acc, (size_t)(g.m * g.n) * sizeof *acc);
    return g;
}

static peft_status run_grad_x(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const pf_gemm g = backward(x, n, &w);
    pf_gemm_run(pf_exec_pool(x), isa, &g, x->workspace);
    return PEFT_OK;
}

/* dy, x, dW */
static peft_status run_grad_w(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const pf_value *dw = n->in[2];
    const int64_t R = pf_exec_rows(x, n->in[0]);
    const pf_weight b = pf_gemm_dense(pf_exec_data(x, n->in[1]), R, dw->cols, dw->cols);
    pf_gemm g = {.form = PF_GEMM_TN,
                 .m = dw->rows,
                 .n = dw->cols,
                 .k = R,
                 .a = pf_exec_data(x, n->in[0]),
                 .lda = dw->rows,
                 .b = &b,
                 .c = pf_exec_data(x, dw),
                 .ldc = dw->cols,
                 .alpha = 1,
                 .accumulate = true};
    pf_gemm_run(pf_exec_pool(x), isa, &g, x->workspace);
    return PEFT_OK;
}

/* --- narrow products ----------------------------------------------------------------------- */

#ifndef PF_DOUBLE
static bool can_bf16(const pf_node *n) {
    return ((const pf_linear_args *)n->args)->compute == PF_COMPUTE_BF16;
}
static bool can_int8(const pf_node *n) {
    return ((const pf_linear_args *)n->args)->compute == PF_COMPUTE_INT8;
}

/* Both products: rows of in[0], a sum over its columns. */
static int64_t room_narrow(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_value *a = n->in[0];
    const int64_t bytes = pf_narrow_workspace(pf_value_rows(a, capacity), a->cols, n_workers);
    const bool bias = pf_streq(n->op->name, "linear") && n->in[2] != NULL;
    return bytes + (bias ? pf_op_vector_scratch(n->in[2]) : 0);
}

static peft_status run_narrow(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_linear_args *args = n->args;
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const int64_t room = room_narrow(n, x->plan.capacity, pf_pool_workers(pf_exec_pool(x))) -
                         (n->in[2] != NULL ? pf_op_vector_scratch(n->in[2]) : 0);
    const pf_gemm g = forward(x, n, &w, x->workspace + room);
    pf_narrow_run(pf_exec_pool(x), pf_narrow_isa_for(args->compute), &g, x->workspace);
    return PEFT_OK;
}

static peft_status run_grad_x_narrow(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_linear_args *args = n->args;
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const pf_gemm g = backward(x, n, &w);
    pf_narrow_run(pf_exec_pool(x), pf_narrow_isa_for(args->compute), &g, x->workspace);
    return PEFT_OK;
}
#endif

/* --- the lists of kernels, fastest first --------------------------------------------------- */

#define RUN(name, isa)                                                                             \
    static peft_status run_##name(pf_exec *x, const pf_node *n, peft_error *err) {                 \
        (void)err;                                                                                 \
        return run(x, n, isa);                                                                     \
    }                                                                                              \
    static peft_status run_grad_x_##name(pf_exec *x, const pf_node *n, peft_error *err) {          \
        (void)err;                                                                                 \
        return run_grad_x(x, n, isa);                                                              \
    }                                                                                              \
    static peft_status run_grad_w_##name(pf_exec *x, const pf_node *n, peft_error *err) {          \
        (void)err;                                                                                 \
        return run_grad_w(x, n, isa);                                                              \
    }

RUN(plain, &pf_gemm_plain)
#ifndef PF_DOUBLE
RUN(avx2, &pf_gemm_avx2)
RUN(avx512, &pf_gemm_avx512)
#endif

#ifndef PF_DOUBLE
static bool can_onednn(const pf_node *n) {
    (void)n;
    return pf_gemm_onednn_wanted();
}

static int64_t room_onednn(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    return pf_gemm_onednn_workspace(n_workers) +
           (n->in[2] != NULL ? pf_op_vector_scratch(n->in[2]) : 0);
}

static peft_status run_onednn(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const int64_t room = pf_gemm_onednn_workspace(pf_pool_workers(pf_exec_pool(x)));
    const pf_gemm g = forward(x, n, &w, x->workspace + room);
    return pf_gemm_onednn_run(pf_exec_pool(x), &g, x->workspace, err);
}

static peft_status run_grad_x_onednn(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_weight w = pf_linear_matrix(x, n->in[1]);
    const pf_gemm g = backward(x, n, &w);
    return pf_gemm_onednn_run(pf_exec_pool(x), &g, x->workspace, err);
}
#endif

// clang-format off
#ifdef PF_DOUBLE
#define ONEDNN(fn)
#define NARROW(fn)
#else
#define NARROW(fn) \
    {.backend = "cpu", .name = "bf16", .can = can_bf16, .run = fn##_narrow, .workspace = room_narrow}, \
    {.backend = "cpu", .name = "int8", .can = can_int8, .run = fn##_narrow, .workspace = room_narrow},
#define ONEDNN(fn) {.backend = "cpu", .name = "onednn", .can = can_onednn, .run = fn##_onednn, .workspace = room_onednn},
#endif
const pf_kernel_row pf_linear_kernel_rows[] = {
    NARROW(run)
    ONEDNN(run)
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_plain},
    {0},
};
const pf_kernel_row pf_linear_grad_x_kernel_rows[] = {
    NARROW(run_grad_x)
    ONEDNN(run_grad_x)
    PF_FAST_KERNELS(run_grad_x, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_x_plain},
    {0},
};
const pf_kernel_row pf_linear_grad_w_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad_w, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_w_plain},
    {0},
};
// clang-format on

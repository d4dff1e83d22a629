/* linear_cpu.c - launchers of linear, linear_grad_x and linear_grad_w on the CPU: products of
 * gemm.h or narrow.h, those of a node in one run of the pool. */
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

/* Room for the biases of a node, one after the other. */
static int64_t bias_room(const pf_node *n) {
    int64_t bytes = 0;
    for (int p = 0; p < pf_linear_products(n); p++) {
        const pf_value *bias = pf_linear_bias(n, p);
        if (bias != NULL) bytes += (pf_op_vector_scratch(bias) + 63) / 64 * 64;
    }
    return bytes;
}

int64_t pf_linear_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    return pf_gemm_workspace(n_workers) + bias_room(n);
}

int64_t pf_linear_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n;
    (void)capacity;
    return pf_gemm_workspace(n_workers);
}

typedef struct products { /* of a node */
    pf_gemm g[PF_GEMM_SET];
    pf_weight w[PF_GEMM_SET];
    int n;
} products;

/* x; w, bias -> y. The last bytes of the workspace are for biases. */
static void forward(products *s, const pf_exec *x, const pf_node *n) {
    unsigned char *room = x->workspace + n->workspace - bias_room(n);
    s->n = pf_linear_products(n);
    for (int p = 0; p < s->n; p++) {
        const pf_value *bias = pf_linear_bias(n, p);
        s->w[p] = pf_linear_matrix(x, pf_linear_w(n, p));
        s->g[p] = (pf_gemm){.form = PF_GEMM_NT,
                            .m = pf_exec_rows(x, n->in[0]),
                            .n = s->w[p].rows,
                            .k = s->w[p].cols,
                            .a = pf_exec_data(x, n->in[0]),
                            .lda = s->w[p].cols,
                            .b = &s->w[p],
                            .c = pf_exec_data(x, n->out[p]),
                            .ldc = s->w[p].rows,
                            .alpha = 1};
        if (bias == NULL) continue;
        s->g[p].bias = pf_op_vector(x, bias, (pf_real *)(void *)room);
        room += (pf_op_vector_scratch(bias) + 63) / 64 * 64;
    }
}

/* acc; dy, w -> dx */
static void backward(products *s, const pf_exec *x, const pf_node *n) {
    const pf_real *acc = pf_exec_data(x, n->in[0]);
    pf_real *dx = pf_exec_data(x, n->out[0]);
    s->n = pf_linear_products(n);
    for (int p = 0; p < s->n; p++) {
        s->w[p] = pf_linear_matrix(x, pf_linear_grad_w(n, p));
        s->g[p] = (pf_gemm){.form = PF_GEMM_NN,
                            .m = pf_exec_rows(x, n->out[0]),
                            .n = s->w[p].cols,
                            .k = s->w[p].rows,
                            .a = pf_exec_data(x, pf_linear_grad_dy(n, p)),
                            .lda = s->w[p].rows,
                            .b = &s->w[p],
                            .c = dx,
                            .ldc = s->w[p].cols,
                            .alpha = 1,
                            .accumulate = acc != NULL || p > 0};
    }
    if (acc != NULL && acc != dx) memcpy(dx, acc, (size_t)(s->g[0].m * s->g[0].n) * sizeof *acc);
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    products s;
    forward(&s, x, n);
    pf_gemm_run_set(pf_exec_pool(x), isa, s.g, s.n, x->workspace);
    return PEFT_OK;
}

static peft_status run_grad_x(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    products s;
    backward(&s, x, n);
    pf_gemm_run_sum(pf_exec_pool(x), isa, s.g, s.n, x->workspace);
    return PEFT_OK;
}

/* dy, x; dw += dyᵀ x */
static peft_status add_dw(pf_exec *x, const pf_node *n, const pf_value *dw,
                          const pf_gemm_isa *isa) {
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

/* dy, x, dW */
static peft_status run_grad_w(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    return add_dw(x, n, n->in[2], isa);
}

/* dy, x, acc or NULL -> dW */
static peft_status run_dw(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const pf_value *dw = n->out[0];
    const size_t bytes = (size_t)(dw->rows * dw->cols) * sizeof(pf_real);
    const pf_real *acc = pf_exec_data(x, n->in[2]);
    pf_real *to = pf_exec_data(x, dw);
    if (acc == NULL) {
        memset(to, 0, bytes);
    } else if (acc != to) {
        memcpy(to, acc, bytes);
    }
    return add_dw(x, n, dw, isa);
}

/* --- narrow products ----------------------------------------------------------------------- */

#ifndef PF_DOUBLE
static bool can_bf16(const pf_node *n) {
    return ((const pf_linear_args *)n->args)->compute == PF_COMPUTE_BF16;
}
static bool can_int8(const pf_node *n) {
    return ((const pf_linear_args *)n->args)->compute == PF_COMPUTE_INT8;
}

static int64_t room_narrow(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_value *x = n->in[0];
    return bias_room(n) + pf_narrow_workspace(pf_value_rows(x, capacity), x->cols, n_workers);
}

static int64_t room_grad_x_narrow(const pf_node *n, const int64_t *capacity, int n_workers) {
    int64_t most = 0;
    for (int p = 0; p < pf_linear_products(n); p++)
        most = pf_max_i64(most, pf_linear_grad_dy(n, p)->cols);
    return pf_narrow_workspace(pf_value_rows(n->out[0], capacity), most, n_workers);
}

static peft_status run_narrow(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_linear_args *args = n->args;
    products s;
    forward(&s, x, n);
    pf_narrow_run_set(pf_exec_pool(x), pf_narrow_isa_for(args->compute), s.g, s.n, x->workspace);
    return PEFT_OK;
}

static peft_status run_grad_x_narrow(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_linear_args *args = n->args;
    products s;
    backward(&s, x, n);
    for (int p = 0; p < s.n; p++)
        pf_narrow_run(pf_exec_pool(x), pf_narrow_isa_for(args->compute), &s.g[p], x->workspace);
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
    }                                                                                              \
    static peft_status run_dw_##name(pf_exec *x, const pf_node *n, peft_error *err) {              \
        (void)err;                                                                                 \
        return run_dw(x, n, isa);                                                                  \
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
    return pf_gemm_onednn_workspace(n_workers) + bias_room(n);
}

static int64_t room_grad_x_onednn(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n;
    (void)capacity;
    return pf_gemm_onednn_workspace(n_workers);
}

static peft_status run_all_onednn(pf_exec *x, const products *s, peft_error *err) {
    for (int p = 0; p < s->n; p++)
        PF_TRY(pf_gemm_onednn_run(pf_exec_pool(x), &s->g[p], x->workspace, err));
    return PEFT_OK;
}

static peft_status run_onednn(pf_exec *x, const pf_node *n, peft_error *err) {
    products s;
    forward(&s, x, n);
    return run_all_onednn(x, &s, err);
}

static peft_status run_grad_x_onednn(pf_exec *x, const pf_node *n, peft_error *err) {
    products s;
    backward(&s, x, n);
    return run_all_onednn(x, &s, err);
}
#endif

// clang-format off
#ifdef PF_DOUBLE
#define ONEDNN(fn, room_for)
#define NARROW(fn, room_for)
#else
#define NARROW(fn, room_for) \
    {.backend = "cpu", .name = "bf16", .can = can_bf16, .run = fn##_narrow, .workspace = room_for}, \
    {.backend = "cpu", .name = "int8", .can = can_int8, .run = fn##_narrow, .workspace = room_for},
#define ONEDNN(fn, room_for) {.backend = "cpu", .name = "onednn", .can = can_onednn, .run = fn##_onednn, .workspace = room_for},
#endif
const pf_kernel_row pf_linear_kernel_rows[] = {
    NARROW(run, room_narrow)
    ONEDNN(run, room_onednn)
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_plain},
    {0},
};
const pf_kernel_row pf_linear_grad_x_kernel_rows[] = {
    NARROW(run_grad_x, room_grad_x_narrow)
    ONEDNN(run_grad_x, room_grad_x_onednn)
    PF_FAST_KERNELS(run_grad_x, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_x_plain},
    {0},
};
const pf_kernel_row pf_linear_grad_w_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad_w, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_w_plain},
    {0},
};
const pf_kernel_row pf_linear_dw_kernel_rows[] = {
    PF_FAST_KERNELS(run_dw, NULL)
    {.backend = "cpu", .name = "reference", .run = run_dw_plain},
    {0},
};
// clang-format on

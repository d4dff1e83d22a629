/* elementwise_cpu.c - reference kernels of add, mul, the activation functions and swiglu, their
 * launcher and their lists of kernels. The faster ones are in elementwise_simd.h. */
#include "ops/activation/elementwise.h"

#include "ops/op_util.h"

#define TASK_ELEMENTS 16384

static pf_real logistic(pf_real a) {
    return 1 / (1 + pf_rexp(-a));
}

void pf_add_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] + in[1][i];
}

void pf_mul_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] * in[1][i];
}

void pf_silu_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] * logistic(in[0][i]);
}

void pf_silu_grad_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *dy = in[0], *x = in[1];
    for (int64_t i = 0; i < n; i++) {
        pf_real s = logistic(x[i]);
        out[0][i] = dy[i] * (s * (1 + x[i] * (1 - s)));
    }
}

static pf_real normal_cdf(pf_real a) {
    return (pf_real)(0.5 * erfc(-0.70710678118654752440 * (double)a));
}

void pf_gelu_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] * normal_cdf(in[0][i]);
}

void pf_gelu_grad_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *dy = in[0], *x = in[1];
    for (int64_t i = 0; i < n; i++) {
        pf_real phi = (pf_real)0.39894228040143267794 * pf_rexp((pf_real)-0.5 * x[i] * x[i]);
        out[0][i] = dy[i] * (normal_cdf(x[i]) + x[i] * phi);
    }
}

/* 2u = x (a + b x²) */
#define GELU_A ((pf_real)1.59576912160573071176)  /* 2 sqrt(2 / pi) */
#define GELU_B ((pf_real)0.071354816272600247786) /* 2 sqrt(2 / pi) 0.044715 */

void pf_gelu_tanh_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *x = in[0];
    for (int64_t i = 0; i < n; i++)
        out[0][i] = x[i] * logistic(x[i] * (GELU_A + GELU_B * x[i] * x[i]));
}

void pf_gelu_tanh_grad_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *dy = in[0], *x = in[1];
    for (int64_t i = 0; i < n; i++) {
        pf_real x2 = x[i] * x[i], s = logistic(x[i] * (GELU_A + GELU_B * x2));
        out[0][i] = dy[i] * (s + x[i] * s * (1 - s) * (GELU_A + 3 * GELU_B * x2));
    }
}

void pf_relu_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] > 0 ? in[0][i] : 0;
}

void pf_relu_grad_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[0][i] = in[1][i] > 0 ? in[0][i] : 0;
}

void pf_swiglu_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *gate = in[0], *up = in[1];
    for (int64_t i = 0; i < n; i++) out[0][i] = gate[i] * logistic(gate[i]) * up[i];
}

void pf_swiglu_grad_elements_cpu(const pf_real *const *in, pf_real *const *out, int64_t n) {
    const pf_real *dy = in[0], *gate = in[1], *up = in[2];
    for (int64_t i = 0; i < n; i++) {
        pf_real s = logistic(gate[i]);
        pf_real dgate = dy[i] * up[i] * (s * (1 + gate[i] * (1 - s)));
        pf_real dup = dy[i] * (gate[i] * s); /* both before storing: out[0] may be dy's room */
        out[0][i] = dgate;
        out[1][i] = dup;
    }
}

enum { MOST_IN = 3, MOST_OUT = 2 };

typedef struct job {
    const pf_real *in[MOST_IN];
    pf_real *out[MOST_OUT];
    int n_in, n_out;
    int64_t n;
    pf_elements_fn fn;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    int64_t from = (int64_t)task * TASK_ELEMENTS;
    const pf_real *in[MOST_IN];
    pf_real *out[MOST_OUT];
    for (int i = 0; i < j->n_in; i++) in[i] = j->in[i] + from;
    for (int i = 0; i < j->n_out; i++) out[i] = j->out[i] + from;
    j->fn(in, out, pf_min_i64(TASK_ELEMENTS, j->n - from));
}

peft_status pf_elementwise_run(pf_exec *x, const pf_node *n, pf_elements_fn fn) {
    PF_ASSERT(n->n_in <= MOST_IN && n->n_out <= MOST_OUT);
    job j = {.n_in = n->n_in, .n_out = n->n_out, .fn = fn};
    for (int i = 0; i < n->n_in; i++) j.in[i] = pf_exec_data(x, n->in[i]);
    for (int i = 0; i < n->n_out; i++) j.out[i] = pf_exec_data(x, n->out[i]);
    j.n = pf_exec_rows(x, n->out[0]) * n->out[0]->cols;
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n, TASK_ELEMENTS), run_task, &j);
    return PEFT_OK;
}

/* One list of kernels per op, fastest first. */
#define RUN(op, isa)                                                                               \
    static peft_status run_##op##_##isa(pf_exec *x, const pf_node *n, peft_error *err) {           \
        (void)err;                                                                                 \
        return pf_elementwise_run(x, n, pf_##op##_elements_##isa);                                 \
    }
#ifdef PF_DOUBLE
#define RUN_FAST(op)
#else
#define RUN_FAST(op) RUN(op, avx2) RUN(op, avx512)
#endif
// clang-format off
#define KERNELS(op)                                                                                \
    RUN(op, cpu)                                                                                   \
    RUN_FAST(op)                                                                                   \
    const pf_kernel_row pf_##op##_kernels[] = {                                                    \
        PF_FAST_KERNELS(run_##op, NULL)                                                            \
        {.backend = "cpu", .name = "reference", .run = run_##op##_cpu},                            \
        {0},                                                                                       \
    };
// clang-format on

KERNELS(add)
KERNELS(mul)
KERNELS(silu)
KERNELS(silu_grad)
KERNELS(gelu)
KERNELS(gelu_grad)
KERNELS(gelu_tanh)
KERNELS(gelu_tanh_grad)
KERNELS(relu)
KERNELS(relu_grad)
KERNELS(swiglu)
KERNELS(swiglu_grad)

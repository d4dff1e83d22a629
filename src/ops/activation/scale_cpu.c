/* scale_cpu.c - reference kernels of scale and softcap, their launcher and lists of kernels. The
 * faster ones are in scale_simd.h. */
#include "ops/activation/scale.h"
#include "ops/activation/scale_kernels.h"
#include "ops/op_util.h"

enum { TASK_ELEMENTS = 16384 };

void pf_scale_numbers_cpu(const pf_real *const *in, pf_real *out, int64_t n, pf_real by) {
    for (int64_t i = 0; i < n; i++) out[i] = by * in[0][i];
}

void pf_softcap_numbers_cpu(const pf_real *const *in, pf_real *out, int64_t n, pf_real by) {
    for (int64_t i = 0; i < n; i++) out[i] = by * pf_rtanh(in[0][i] / by);
}

void pf_softcap_grad_numbers_cpu(const pf_real *const *in, pf_real *out, int64_t n, pf_real by) {
    for (int64_t i = 0; i < n; i++) {
        const pf_real t = in[1][i] / by;
        out[i] = in[0][i] * (1 - t * t);
    }
}

typedef struct job {
    const pf_real *in[2];
    pf_real *out, by;
    int n_in;
    int64_t n;
    pf_scale_fn fn;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * TASK_ELEMENTS;
    const pf_real *in[2];
    for (int i = 0; i < j->n_in; i++) in[i] = j->in[i] + from;
    j->fn(in, j->out + from, pf_min_i64(TASK_ELEMENTS, j->n - from), j->by);
}

static peft_status launch(pf_exec *x, const pf_node *n, pf_scale_fn fn) {
    const pf_scale_args *args = n->args;
    job j = {.n_in = n->n_in, .fn = fn, .by = (pf_real)args->by};
    for (int i = 0; i < n->n_in; i++) j.in[i] = pf_exec_data(x, n->in[i]);
    j.out = pf_exec_data(x, n->out[0]);
    j.n = pf_exec_rows(x, n->out[0]) * n->out[0]->cols;
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n, TASK_ELEMENTS), run_task, &j);
    return PEFT_OK;
}

/* One list of kernels per op, fastest first. */
#define RUN(op, isa)                                                                               \
    static peft_status run_##op##_##isa(pf_exec *x, const pf_node *n, peft_error *err) {           \
        (void)err;                                                                                 \
        return launch(x, n, pf_##op##_numbers_##isa);                                              \
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

KERNELS(scale)
KERNELS(softcap)
KERNELS(softcap_grad)

/* save_bf16.c - activations at half their size between the forward and the backward pass
 * (training.saved_dtype). Two bf16 numbers share the room of one pf_real; rounding is to nearest,
 * ties to even. Emitted by autodiff.c alone, which gives both nodes their place. */
#include "ops/op_util.h"
#include "tensor/dtype.h"

typedef struct job {
    const pf_real *in;
    pf_real *out;
    int64_t rows, wide, half; /* columns of the numbers and of their room */
    int64_t per_task;
} job;

static int64_t half_cols(int64_t cols) {
    return (cols + 1) / 2;
}

static void round_row(const pf_real *x, uint16_t *h, int64_t n) {
#ifdef PF_DOUBLE
    for (int64_t i = 0; i < n; i++) h[i] = pf_f32_to_bf16((float)x[i]);
#else
    pf_dtype_from_f32(PF_DTYPE_BF16, x, (size_t)n, h);
#endif
}

static void widen_row(const uint16_t *h, pf_real *x, int64_t n) {
#ifdef PF_DOUBLE
    for (int64_t i = 0; i < n; i++) x[i] = (pf_real)pf_bf16_to_f32(h[i]);
#else
    pf_dtype_to_f32(PF_DTYPE_BF16, h, (size_t)n, x);
#endif
}

static void round_rows(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->per_task, to = pf_min_i64(j->rows, from + j->per_task);
    for (int64_t i = from; i < to; i++) {
        uint16_t *h = (uint16_t *)(void *)(j->out + i * j->half);
        round_row(j->in + i * j->wide, h, j->wide);
        if (j->wide % 2 != 0) h[j->wide] = 0;
    }
}

static void widen_rows(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->per_task, to = pf_min_i64(j->rows, from + j->per_task);
    for (int64_t i = from; i < to; i++)
        widen_row((const uint16_t *)(const void *)(j->in + i * j->half), j->out + i * j->wide,
                  j->wide);
}

static void run_rows(pf_exec *x, const pf_node *n, int64_t wide,
                     void (*fn)(void *ctx, int task, int worker)) {
    job j = {.in = pf_exec_data(x, n->in[0]),
             .out = pf_exec_data(x, n->out[0]),
             .rows = pf_exec_rows(x, n->out[0]),
             .wide = wide,
             .half = half_cols(wide),
             .per_task = pf_op_rows_per_task(wide)};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.rows, j.per_task), fn, &j);
}

static peft_status run_to(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    run_rows(x, n, n->in[0]->cols, round_rows);
    return PEFT_OK;
}

static peft_status run_from(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    run_rows(x, n, n->out[0]->cols, widen_rows);
    return PEFT_OK;
}

static peft_status shape_to(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    pf_graph_out(g, n, n->in[0]->space, n->in[0]->rows, half_cols(n->in[0]->cols));
    return PEFT_OK;
}

static peft_status shape_from(pf_graph *g, pf_node *n, peft_error *err) {
    const int64_t wide = *(const int64_t *)n->args;
    if (half_cols(wide) != n->in[0]->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld columns in bf16 do not take the room of %lld",
                       (long long)wide, (long long)n->in[0]->cols);
    pf_graph_out(g, n, n->in[0]->space, n->in[0]->rows, wide);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 0);
}

static const pf_kernel_row kernels_to[] = {{.backend = "cpu", .name = "reference", .run = run_to},
                                           {0}};
static const pf_kernel_row kernels_from[] = {
    {.backend = "cpu", .name = "reference", .run = run_from}, {0}};

const pf_op pf_op_to_bf16 = {
    .name = "to_bf16",
    .what = "h = bf16(x), two in the room of one",
    .flags = PF_OP_ALWAYS_SAVED,
    .shape = shape_to,
    .cost = cost,
    .kernels = kernels_to,
};

const pf_op pf_op_from_bf16 = {
    .name = "from_bf16",
    .what = "x = h, widened",
    .args_size = sizeof(int64_t),
    .shape = shape_from,
    .cost = cost,
    .kernels = kernels_from,
};

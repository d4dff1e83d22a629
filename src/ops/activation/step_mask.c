/* step_mask.c - the ops drop_columns and drop_blocks; see step_mask.h. */
#include "ops/activation/step_mask.h"

#include "base/rng.h"
#include "ops/op_util.h"

#include <string.h>

enum { KIND_COLUMNS, KIND_MODULE, KIND_BLOCKS };

typedef struct blocks_args {
    pf_drop_blocks_args a;
    bool is_gradient; /* zeros in place of the identity */
} blocks_args;

peft_status pf_drop_columns(pf_graph *g, const char *name, pf_value *x,
                            const pf_drop_columns_args *args, pf_value **y, peft_error *err) {
    *y = x;
    if (args->p_column <= 0 && args->p_module <= 0) return PEFT_OK;
    return pf_op_emit(g, "drop_columns", name, args, &x, 1, y, err);
}

peft_status pf_drop_blocks(pf_graph *g, const char *name, pf_value *z,
                           const pf_drop_blocks_args *args, pf_value **y, peft_error *err) {
    const blocks_args all = {.a = *args};
    *y = z;
    if (args->p <= 0) return PEFT_OK;
    return pf_op_emit(g, "drop_blocks", name, &all, &z, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[0]), err);
    return PEFT_OK;
}

static peft_status blocks_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_drop_blocks_args *a = &((const blocks_args *)n->args)->a;
    const pf_value *z = n->in[0];
    if (z->space != PF_SPACE_NONE || a->sets < 1 || a->blocks < 1 ||
        z->rows != a->sets * a->blocks * z->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld x %lld numbers are not %lld x %lld square blocks",
                       (long long)z->rows, (long long)z->cols, (long long)a->sets,
                       (long long)a->blocks);
    return shape(g, n, err);
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]), *dx;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), n->op->name, n->name, n->args, &dy, 1, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static peft_status blocks_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    blocks_args args = *(const blocks_args *)n->args;
    pf_value *dy = pf_grad_of(ad, n->out[0]), *dx;
    args.is_gradient = true;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), n->op->name, n->name, &args, &dy, 1, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 1);
}

/* ---- kernels --------------------------------------------------------------------------------- */

static pf_rng_key key_of(uint64_t seed, uint64_t step, uint64_t site, uint32_t kind) {
    const pf_rng_key key = pf_rng_make_key(seed, PF_RNG_STEP_MASK, step);
    const pf_rng4 r = pf_philox(key, (uint32_t)site, (uint32_t)(site >> 32), kind, 0);
    return (pf_rng_key){{r.v[0], r.v[1]}};
}

static int64_t columns_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    return n->in[0]->cols * (int64_t)sizeof(pf_real);
}

static void fill_mask(const pf_drop_columns_args *a, uint64_t step, int64_t C, pf_real *m) {
    const pf_rng_key module = key_of(a->seed, step, a->site, KIND_MODULE),
                     column = key_of(a->seed, step, a->site, KIND_COLUMNS);
    const bool acts = a->p_module <= 0 || pf_rng_uniform_at(module, 0) >= a->p_module;
    int64_t kept = 0;
    for (int64_t c = 0; c < C; c++) {
        m[c] = acts && (a->p_column <= 0 || pf_rng_uniform_at(column, (uint64_t)c) >= a->p_column);
        if (m[c] != 0) kept++;
    }
    if (!a->scaled || kept == 0) return;
    const pf_real scale = (pf_real)((double)C / (double)kept);
    for (int64_t c = 0; c < C; c++) m[c] *= scale;
}

typedef struct job {
    const pf_real *x, *m;
    pf_real *y;
    int64_t R, C, task_rows;
} job;

static void columns_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t C = j->C, to = pf_min_i64(j->R, (task + 1) * j->task_rows);
    for (int64_t i = task * j->task_rows; i < to; i++) {
        for (int64_t c = 0; c < C; c++) j->y[i * C + c] = j->x[i * C + c] * j->m[c];
    }
}

static peft_status run_columns(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    pf_real *m = (pf_real *)(void *)x->workspace;
    job j = {.x = pf_exec_data(x, n->in[0]),
             .m = m,
             .y = pf_exec_data(x, n->out[0]),
             .R = pf_exec_rows(x, n->in[0]),
             .C = n->in[0]->cols};
    j.task_rows = pf_op_rows_per_task(j.C);
    if (!x->training) {
        if (j.x != j.y) memcpy(j.y, j.x, (size_t)(j.R * j.C) * sizeof *j.y);
        return PEFT_OK;
    }
    fill_mask(n->args, x->batch->step, j.C, m);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), columns_task, &j);
    return PEFT_OK;
}

static int64_t blocks_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity, (void)n_workers;
    return ((const blocks_args *)n->args)->a.blocks * (int64_t)sizeof(int64_t);
}

static void put_identity(pf_real *block, int64_t size, bool is_gradient) {
    memset(block, 0, (size_t)(size * size) * sizeof *block);
    for (int64_t i = 0; i < size && !is_gradient; i++) block[i * size + i] = 1;
}

static peft_status run_blocks(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const blocks_args *args = n->args;
    const pf_drop_blocks_args *a = &args->a;
    const pf_real *z = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    const int64_t size = n->in[0]->cols, dropped = (int64_t)(a->p * (double)a->blocks);
    if (y != z) memcpy(y, z, (size_t)(n->in[0]->rows * size) * sizeof *y);
    if (!x->training || dropped == 0) return PEFT_OK;
    int64_t *order = (int64_t *)(void *)x->workspace;
    const pf_rng_key key = key_of(a->seed, x->batch->step, a->site, KIND_BLOCKS);
    const int64_t set = (int64_t)pf_rng_below_at(key, (uint64_t)a->blocks, (uint64_t)a->sets);
    pf_rng_permutation(key, a->blocks, order);
    for (int64_t b = 0; b < a->blocks; b++) {
        if (order[b] < dropped)
            put_identity(y + (set * a->blocks + b) * size * size, size, args->is_gradient);
    }
    return PEFT_OK;
}

static const pf_kernel_row columns_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_columns},
    {0},
};
static const pf_kernel_row blocks_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_blocks},
    {0},
};

extern const pf_op pf_op_drop_columns, pf_op_drop_blocks;

const pf_op pf_op_drop_columns = {
    .name = "drop_columns",
    .what = "y = m x, columns left out for a whole step; in training only",
    .args_size = sizeof(pf_drop_columns_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .workspace = columns_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = columns_kernels,
};

const pf_op pf_op_drop_blocks = {
    .name = "drop_blocks",
    .what = "square blocks that become the identity for a whole step; in training only",
    .args_size = sizeof(blocks_args),
    .flags = PF_OP_CHEAP,
    .shape = blocks_shape,
    .vjp = blocks_vjp,
    .workspace = blocks_workspace,
    .cost = cost,
    .in_place = 1,
    .kernels = blocks_kernels,
};

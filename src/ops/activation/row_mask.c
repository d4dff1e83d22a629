/* row_mask.c - the ops dropout and first_rows; see row_mask.h. */
#include "ops/activation/row_mask.h"

#include "ops/matmul/dropout.h"
#include "ops/op_util.h"

#include <string.h>

typedef struct first_args {
    int64_t n;
} first_args;

peft_status pf_drop(pf_graph *g, const char *name, pf_value *x, const pf_drop_args *args,
                    pf_value **y, peft_error *err) {
    *y = x;
    return args->p > 0 ? pf_op_emit(g, "dropout", name, args, &x, 1, y, err) : PEFT_OK;
}

peft_status pf_first_rows(pf_graph *g, const char *name, pf_value *x, int64_t n, pf_value **y,
                          peft_error *err) {
    const first_args args = {n};
    return pf_op_emit(g, "first_rows", name, &args, &x, 1, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_TOKENS && !pf_space_is_routed(n->in[0]->space))
        return PF_FAIL(err, PEFT_E_SHAPE, "x has to be rows of tokens");
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]), *dx;
    PF_TRY(pf_op_emit(pf_grad_graph(ad), n->op->name, n->name, n->args, &dy, 1, &dx, err));
    return pf_grad_give(ad, n->in[0], dx, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 2);
}

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct job {
    const pf_batch *b;
    const pf_real *x;
    pf_real *y;
    int64_t R, C, task_rows, first;
    pf_dropout drop;
    bool by_sample;
} job;

static void drop_row(const job *j, int64_t i) {
    const uint32_t sample = (uint32_t)j->b->sample[i], pos = (uint32_t)j->b->pos[i];
    const pf_real scale = (pf_real)j->drop.scale, *x = j->x + i * j->C;
    pf_real *y = j->y + i * j->C;
    if (j->by_sample) {
        const bool keep = pf_dropout_keeps(&j->drop, pf_dropout_draw(&j->drop, sample, 0, 0), 0);
        for (int64_t c = 0; c < j->C; c++) y[c] = keep ? x[c] * scale : 0;
        return;
    }
    for (int64_t c = 0; c < j->C; c += 8) {
        const pf_rng4 draws = pf_dropout_draw(&j->drop, sample, pos, (uint32_t)(c / 8));
        for (int k = 0; k < 8 && c + k < j->C; k++)
            y[c + k] = pf_dropout_keeps(&j->drop, draws, k) ? x[c + k] * scale : 0;
    }
}

static void drop_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t to = pf_min_i64(j->R, (task + 1) * j->task_rows);
    for (int64_t i = task * j->task_rows; i < to; i++) drop_row(j, i);
}

static void first_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t C = j->C, to = pf_min_i64(j->R, (task + 1) * j->task_rows);
    for (int64_t i = task * j->task_rows; i < to; i++) {
        if (j->b->pos[i] >= j->first) {
            memset(j->y + i * C, 0, (size_t)C * sizeof *j->y);
        } else if (j->x != j->y) {
            memcpy(j->y + i * C, j->x + i * C, (size_t)C * sizeof *j->y);
        }
    }
}

static job job_of(const pf_exec *x, const pf_node *n) {
    job j = {.b = pf_batch_of_space(x->batch, n->in[0]->space),
             .x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->out[0]),
             .R = pf_exec_rows(x, n->in[0]),
             .C = n->in[0]->cols};
    j.task_rows = pf_op_rows_per_task(j.C);
    return j;
}

static peft_status run_dropout(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_drop_args *a = n->args;
    job j = job_of(x, n);
    if (!x->training) {
        if (j.x != j.y) memcpy(j.y, j.x, (size_t)(j.R * j.C) * sizeof *j.y);
        return PEFT_OK;
    }
    j.drop = pf_dropout_make(a->p, a->seed, x->batch->step, a->mask_key);
    j.by_sample = a->by_sample;
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), drop_task, &j);
    return PEFT_OK;
}

static peft_status run_first(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    job j = job_of(x, n);
    j.first = ((const first_args *)n->args)->n;
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.R, j.task_rows), first_task, &j);
    return PEFT_OK;
}

static const pf_kernel_row dropout_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_dropout},
    {0},
};
static const pf_kernel_row first_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_first},
    {0},
};

extern const pf_op pf_op_dropout, pf_op_first_rows;

const pf_op pf_op_dropout = {
    .name = "dropout",
    .what = "y = x / (1 - p) or 0, by number or by sample; in training only",
    .args_size = sizeof(pf_drop_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = dropout_kernels,
};

const pf_op pf_op_first_rows = {
    .name = "first_rows",
    .what = "y = x where the position is below n, else 0",
    .args_size = sizeof(first_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = first_kernels,
};

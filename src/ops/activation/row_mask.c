/* row_mask.c - the ops dropout and first_rows; see row_mask.h. */
#include "ops/activation/row_mask.h"

#include "ops/activation/row_mask_kernels.h"
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
    if (n->in[0]->space == PF_SPACE_NONE || n->in[0]->space == PF_SPACE_LABELS)
        return PF_FAIL(err, PEFT_E_SHAPE, "x has to be rows of tokens");
    pf_op_out_like(g, n, n->in[0]);
    return PEFT_OK;
}

/* Rows of label entries have the sample and position of the row that they stand on. */
static peft_status drop_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_drop_args *a = n->args;
    if (!(a->p >= 0 && a->p < 1))
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout is %g; it has to be in [0, 1)", a->p);
    if (n->in[0]->space != PF_SPACE_LABELS) return shape(g, n, err);
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
    pf_drop_row_fn *drop_row;
    const pf_real *x;
    pf_real *y;
    int64_t R, C, task_rows, first;
    pf_dropout drop;
    bool by_sample, of_labels;
} job;

static void drop_row_cpu(const pf_dropout *d, uint32_t sample, uint32_t pos, const pf_real *x,
                         pf_real *y, int64_t n) {
    const pf_real scale = (pf_real)d->scale;
    for (int64_t c = 0; c < n; c += 8) {
        const pf_rng4 draws = pf_dropout_draw(d, sample, pos, (uint32_t)(c / 8));
        for (int k = 0; k < 8 && c + k < n; k++)
            y[c + k] = pf_dropout_keeps(d, draws, k) ? x[c + k] * scale : 0;
    }
}

static void drop_row(const job *j, int64_t i) {
    const int64_t row = j->of_labels ? j->b->label_row[i] : i;
    const uint32_t sample = (uint32_t)(j->of_labels ? j->b->label_sample[i] : j->b->sample[row]);
    const pf_real *x = j->x + i * j->C;
    pf_real *y = j->y + i * j->C;
    if (!j->by_sample) {
        j->drop_row(&j->drop, sample, (uint32_t)j->b->pos[row], x, y, j->C);
        return;
    }
    const bool keep = pf_dropout_keeps(&j->drop, pf_dropout_draw(&j->drop, sample, 0, 0), 0);
    for (int64_t c = 0; c < j->C; c++) y[c] = keep ? x[c] * (pf_real)j->drop.scale : 0;
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
             .C = n->in[0]->cols,
             .of_labels = n->in[0]->space == PF_SPACE_LABELS};
    j.task_rows = pf_op_rows_per_task(j.C);
    return j;
}

static peft_status run_dropout(pf_exec *x, const pf_node *n, pf_drop_row_fn *drop_row_of) {
    const pf_drop_args *a = n->args;
    job j = job_of(x, n);
    if (!x->training) {
        if (j.x != j.y) memcpy(j.y, j.x, (size_t)(j.R * j.C) * sizeof *j.y);
        return PEFT_OK;
    }
    j.drop = pf_dropout_make(a->p, a->seed, x->batch->step, a->mask_key);
    j.by_sample = a->by_sample;
    j.drop_row = drop_row_of;
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

#define RUN(isa)                                                                                   \
    static peft_status run_dropout_##isa(pf_exec *x, const pf_node *n, peft_error *err) {          \
        (void)err;                                                                                 \
        return run_dropout(x, n, RUN_ROW(isa));                                                    \
    }
#define RUN_ROW(isa) drop_row_cpu
RUN(cpu)
#undef RUN_ROW
#ifndef PF_DOUBLE
#define RUN_ROW(isa) pf_drop_row_##isa
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
static const pf_kernel_row dropout_kernels[] = {
    PF_FAST_KERNELS(run_dropout, NULL)
    {.backend = "cpu", .name = "reference", .run = run_dropout_cpu},
    {0},
};
// clang-format on
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
    .shape = drop_shape,
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

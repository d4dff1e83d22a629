/* embed_lowrank.c - the ops embed_lowrank and embed_lowrank_grad: LoRA on an embedding; see
 * embed.h. The table's update B A is never formed: a token costs one column of A and one product
 * with B. */
#include "ops/embed/embed.h"
#include "ops/op_util.h"

peft_status pf_embed_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *a,
                             pf_value *b, double scale, pf_value **y, peft_error *err) {
    const pf_embed_lowrank_args args = {.scale = scale};
    pf_value *in[3] = {base, a, b};
    return pf_op_emit(g, "embed_lowrank", name, &args, in, 3, y, err);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *base = n->in[0], *a = n->in[1], *b = n->in[2];
    if (a->kind != PF_VALUE_PARAM || b->kind != PF_VALUE_PARAM || a->rows != b->cols ||
        b->rows != base->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "A is %lld x %lld and B %lld x %lld, an embedding of width %lld needs r x "
                       "vocabulary and %lld x r",
                       (long long)a->rows, (long long)a->cols, (long long)b->rows,
                       (long long)b->cols, (long long)base->cols, (long long)base->cols);
    }
    pf_op_out_like(g, n, base);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(n->in[1]) || pf_grad_wanted(n->in[2])) {
        pf_value *in[5] = {dy, n->in[1], n->in[2], pf_grad_sink(ad, n->in[1]),
                           pf_grad_sink(ad, n->in[2])};
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "embed_lowrank_grad", n->name, n->args, in, 5, NULL,
                             err));
    }
    return pf_grad_give(ad, n->in[0], dy, err);
}

typedef struct job {
    const pf_batch *batch;
    const pf_real *base, *dy, *a, *b;
    pf_real *y, *da, *db;
    pf_real scale;
    int64_t C, R, V, task_size;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = task * j->task_size,
                  to = pf_min_i64(from + j->task_size, j->batch->n_tokens);
    for (int64_t i = from; i < to; i++) {
        const pf_real *a = j->a + j->batch->ids[i]; /* column of A: one number every V */
        for (int64_t c = 0; c < j->C; c++) {
            pf_real sum = 0;
            for (int64_t r = 0; r < j->R; r++) sum += a[r * j->V] * j->b[c * j->R + r];
            j->y[i * j->C + c] = j->base[i * j->C + c] + j->scale * sum;
        }
    }
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    const pf_embed_lowrank_args *args = n->args;
    job j = {.batch = x->batch,
             .base = pf_exec_data(x, n->in[0]),
             .a = pf_exec_data(x, n->in[1]),
             .b = pf_exec_data(x, n->in[2]),
             .y = pf_exec_data(x, n->out[0]),
             .scale = (pf_real)args->scale,
             .C = n->in[0]->cols,
             .R = n->in[1]->rows,
             .V = n->in[1]->cols};
    for (int32_t i = 0; i < x->batch->n_tokens; i++) {
        if (x->batch->ids[i] < 0 || x->batch->ids[i] >= j.V) {
            return PF_FAIL(err, PEFT_E_SHAPE, "token row %d has id %d, A has %lld columns", (int)i,
                           (int)x->batch->ids[i], (long long)j.V);
        }
    }
    j.task_size = pf_op_rows_per_task(j.C * j.R);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(x->batch->n_tokens, j.task_size), run_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 2.0 * (double)pf_value_rows(n->out[0], rows) *
                              (double)n->out[0]->cols * (double)n->in[1]->rows};
}

/* --- gradient: dy, a, b, dA, dB --------------------------------------------------------------- */

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    (void)n;
    (void)err;
    return PEFT_OK;
}

/* Task r owns row r of dA and column r of dB; tokens go in row order. */
static void grad_task(void *ctx, int r, int worker) {
    (void)worker;
    const job *j = ctx;
    for (int32_t i = 0; i < j->batch->n_tokens; i++) {
        const pf_real *dy = j->dy + i * j->C;
        const int64_t at = r * j->V + j->batch->ids[i];
        const pf_real low = j->scale * j->a[at];
        pf_real sum = 0;
        for (int64_t c = 0; c < j->C; c++) {
            sum += dy[c] * j->b[c * j->R + r];
            j->db[c * j->R + r] += low * dy[c];
        }
        j->da[at] += j->scale * sum;
    }
}

static peft_status grad_run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_embed_lowrank_args *args = n->args;
    job j = {.batch = x->batch,
             .dy = pf_exec_data(x, n->in[0]),
             .a = pf_exec_data(x, n->in[1]),
             .b = pf_exec_data(x, n->in[2]),
             .da = pf_exec_data(x, n->in[3]),
             .db = pf_exec_data(x, n->in[4]),
             .scale = (pf_real)args->scale,
             .C = n->in[0]->cols,
             .R = n->in[1]->rows,
             .V = n->in[1]->cols};
    pf_pool_run(pf_exec_pool(x), (int)j.R, grad_task, &j);
    return PEFT_OK;
}

static pf_cost grad_cost(const pf_node *n, const int64_t *rows) {
    return (pf_cost){.flops = 4.0 * (double)pf_value_rows(n->in[0], rows) * (double)n->in[0]->cols *
                              (double)n->in[1]->rows};
}

const pf_op pf_op_embed_lowrank = {
    .name = "embed_lowrank",
    .what = "y[i] = base[i] + scale · B A[:, ids[i]]",
    .args_size = sizeof(pf_embed_lowrank_args),
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = (const pf_kernel_row[]){{.backend = "cpu", .name = "reference", .run = run}, {0}},
};

const pf_op pf_op_embed_lowrank_grad = {
    .name = "embed_lowrank_grad",
    .what = "dA[:, id] += scale · Bᵀ dy[i], dB += scale · dy[i] A[:, id]ᵀ",
    .args_size = sizeof(pf_embed_lowrank_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .cost = grad_cost,
    .kernels =
        (const pf_kernel_row[]){{.backend = "cpu", .name = "reference", .run = grad_run}, {0}},
};

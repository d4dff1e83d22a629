/* logits_ce.c - the ops logits_ce and logits_ce_grad; see logits_ce.h. */
#include "ops/loss/logits_ce.h"

#include "ops/loss/head_ce_kernels.h"
#include "ops/op_util.h"

#include <string.h>

enum { NLL, CORRECT, LSE };
enum { GRAD_Z, GRAD_LSE, GRAD_DNLL, GRAD_INPUTS };
enum { ROWS = 4 }; /* entries of a task */

peft_status pf_logits_ce(pf_graph *g, const char *name, pf_value *z, pf_value **nll,
                         pf_value **correct, peft_error *err) {
    pf_node *n;
    *nll = *correct = NULL;
    PF_TRY(pf_graph_emit(g, "logits_ce", name, NULL, &z, 1, &n, err));
    *nll = n->out[NLL];
    *correct = n->out[CORRECT];
    return PEFT_OK;
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    if (n->in[0]->space != PF_SPACE_LABELS)
        return PF_FAIL(err, PEFT_E_SHAPE, "z has to have one row per label entry");
    for (int k = NLL; k <= LSE; k++) {
        pf_value *v = pf_graph_out(g, n, PF_SPACE_LABELS, 0, 1);
        PF_CHECK_ALLOC(v, err);
        if (k != NLL) v->needs_grad = false; /* only the loss is differentiated */
    }
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[GRAD_INPUTS] = {[GRAD_DNLL] = pf_grad_of(ad, n->out[NLL])}, *dz;
    if (in[GRAD_DNLL] == NULL) return PEFT_OK;
    PF_TRY(pf_op_need(ad, n->in[0], &in[GRAD_Z], err));
    PF_TRY(pf_op_need(ad, n->out[LSE], &in[GRAD_LSE], err));
    PF_TRY(
        pf_op_emit(pf_grad_graph(ad), "logits_ce_grad", n->name, NULL, in, GRAD_INPUTS, &dz, err));
    return pf_grad_give(ad, n->in[0], dz, err);
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[GRAD_Z]), err);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 5);
}

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct job {
    const pf_exec *exec;
    const pf_head_isa *isa;
    int64_t E, V;
    const pf_real *z, *saved_lse, *dnll;
    pf_real *nll, *correct, *lse, *dz;
    pf_real *room; /* (workers, PF_HEAD_TILE) */
} job;

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n, (void)capacity;
    return (int64_t)n_workers * PF_HEAD_TILE * (int64_t)sizeof(pf_real);
}

static peft_status check_targets(const job *j, peft_error *err) {
    const pf_batch *b = j->exec->batch;
    for (int64_t e = 0; e < j->E; e++) {
        if (b->label_target[e] >= 0 && b->label_target[e] < j->V) continue;
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "label entry %lld has target %d, but there are %lld logits", (long long)e,
                       (int)b->label_target[e], (long long)j->V);
    }
    return PEFT_OK;
}

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    pf_real *tile = j->room + (int64_t)worker * PF_HEAD_TILE;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->E, from + ROWS);
    for (int64_t e = from; e < to; e++) {
        const pf_real *z = j->z + e * j->V;
        const int32_t target = j->exec->batch->label_target[e];
        const pf_real max = j->isa->max(z, j->V);
        int64_t best = 0;
        pf_real sum = 0;
        while (best + 1 < j->V && z[best] != max) best++;
        for (int64_t v = 0; v < j->V; v += PF_HEAD_TILE) {
            const int64_t n = pf_min_i64(PF_HEAD_TILE, j->V - v);
            memcpy(tile, z + v, (size_t)n * sizeof *tile);
            sum += j->isa->exp_sum(tile, n, max, 0);
        }
        j->nll[e] = (max - z[target]) + pf_rlog(sum);
        j->lse[e] = max + pf_rlog(sum);
        j->correct[e] = best == target;
    }
}

static void backward_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->E, from + ROWS);
    for (int64_t e = from; e < to; e++) {
        const pf_real *z = j->z + e * j->V;
        pf_real *dz = j->dz + e * j->V;
        if (dz != z) memcpy(dz, z, (size_t)j->V * sizeof *dz);
        j->isa->exp_scaled(dz, j->V, j->saved_lse[e], j->dnll[e], 0);
        dz[j->exec->batch->label_target[e]] -= j->dnll[e];
    }
}

static job job_of(const pf_exec *x, const pf_node *n, const pf_head_isa *isa) {
    return (job){.exec = x,
                 .isa = isa,
                 .E = pf_exec_rows(x, n->in[0]),
                 .V = n->in[0]->cols,
                 .z = pf_exec_data(x, n->in[0]),
                 .room = (pf_real *)(void *)x->workspace};
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_head_isa *isa, peft_error *err) {
    job j = job_of(x, n, isa);
    PF_TRY(check_targets(&j, err));
    j.nll = pf_exec_data(x, n->out[NLL]);
    j.correct = pf_exec_data(x, n->out[CORRECT]);
    j.lse = pf_exec_data(x, n->out[LSE]);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.E, ROWS), forward_task, &j);
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_head_isa *isa, peft_error *err) {
    job j = job_of(x, n, isa);
    PF_TRY(check_targets(&j, err));
    j.saved_lse = pf_exec_data(x, n->in[GRAD_LSE]);
    j.dnll = pf_exec_data(x, n->in[GRAD_DNLL]);
    j.dz = pf_exec_data(x, n->out[0]);
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.E, ROWS), backward_task, &j);
    return PEFT_OK;
}

#define RUN(name)                                                                                  \
    static peft_status run_##name(pf_exec *x, const pf_node *n, peft_error *err) {                 \
        return run(x, n, &pf_head_##name, err);                                                    \
    }                                                                                              \
    static peft_status run_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        return run_grad(x, n, &pf_head_##name, err);                                               \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

static const pf_kernel_row kernels[] = {
    PF_FAST_KERNELS(run, NULL){.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    PF_FAST_KERNELS(run_grad, NULL){.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};

extern const pf_op pf_op_logits_ce, pf_op_logits_ce_grad;

const pf_op pf_op_logits_ce = {
    .name = "logits_ce",
    .what = "nll[e] = logsumexp(z) - z[target] of whole rows of logits",
    .flags = PF_OP_ALWAYS_SAVED,
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_logits_ce_grad = {
    .name = "logits_ce_grad",
    .what = "dz = dnll (softmax(z) - onehot)",
    .shape = grad_shape,
    .cost = cost,
    .in_place = GRAD_Z + 1,
    .kernels = grad_kernels,
};

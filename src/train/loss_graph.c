/* loss_graph.c - see loss_graph.h. */
#include "train/loss_graph.h"

#include "nn/class_head.h"
#include "ops/loss/target_loss.h"
#include "ops/matmul/linear.h"
#include "ops/moe/router_aux.h"
#include "ops/op_table.h"

#include <string.h>

/* Is the loss one over numbers? Else it is the head's cross-entropy against ids. */
static bool has_targets(const pf_model *m, double smoothing) {
    return pf_problem_has_values(m->problem) || (smoothing > 0 && pf_task_is_classes(m->task));
}

int64_t pf_loss_graph_label_bytes(const pf_model *m, double smoothing, int64_t max_labels) {
    const int64_t numbers = 1 + (has_targets(m, smoothing) ? m->head->out_dim : 0);
    return max_labels * numbers * (int64_t)sizeof(pf_real);
}

static peft_status build_target_loss(pf_loss_graph *lg, pf_model *model, pf_build *b,
                                     pf_value *hidden, pf_backend *be,
                                     const pf_loss_graph_options *opt, peft_error *err) {
    const int64_t V = model->head->out_dim;
    pf_value *z;
    PF_TRY(pf_site_head_logits(b, model->head, hidden, &z, err));
    PF_TRY(be->alloc(be, &lg->target_buffer, (size_t)opt->max_labels * (size_t)V * sizeof(pf_real),
                     "the targets of the labels", err));
    lg->targets = pf_graph_input(lg->graph, "targets", PF_SPACE_LABELS, V, lg->target_buffer.data);
    PF_CHECK_ALLOC(lg->targets, err);
    lg->smoothing = opt->smoothing;
    return pf_target_loss(lg->graph, model->head->name, model->problem, z, lg->targets, &lg->nll,
                          &lg->correct, err);
}

static peft_status build(pf_loss_graph *lg, pf_model *model, pf_backend *be,
                         const pf_loss_graph_options *opt, peft_error *err) {
    PF_TRY(pf_graph_new(&lg->graph, pf_op_table, err));
    if (opt->training) lg->graph->params = model->params;
    lg->graph->compute = opt->compute;
    lg->graph->save_bf16 = opt->save_bf16;
    pf_build b = {.graph = lg->graph,
                  .mode = opt->training ? PF_BUILD_TRAIN : PF_BUILD_EVAL,
                  .adapters = opt->adapters};
    pf_value *hidden;
    PF_TRY(model->family->build(model, &b, &hidden, err));
    PF_TRY(pf_model_pool(model, &b, &hidden, err));
    if (opt->logits) {
        PF_TRY(pf_site_head_logits(&b, model->head, hidden, &lg->logits, err));
        lg->logits->result = true;
    } else {
        if (has_targets(model, opt->smoothing))
            PF_TRY(build_target_loss(lg, model, &b, hidden, be, opt, err));
        else
            PF_TRY(pf_site_head_loss(&b, model->head, hidden, &lg->nll, &lg->correct, err));
        if (opt->training && model->router_loss && b.n_routes > 0)
            PF_TRY(pf_router_aux(lg->graph, "router_aux", lg->nll, b.routes, b.n_routes,
                                 b.router_coef, &lg->nll, err));
        lg->nll->result = lg->correct->result = true;
    }
    if (opt->fuse) PF_TRY(pf_fusion_run(lg->graph, pf_fusion_table, &lg->n_fused, err));
    if (opt->training) {
        PF_TRY(be->alloc(be, &lg->coef_buffer, (size_t)opt->max_labels * sizeof(pf_real),
                         "the coefficients of the labels", err));
        lg->coef = pf_graph_input(lg->graph, "coef", PF_SPACE_LABELS, 1, lg->coef_buffer.data);
        PF_CHECK_ALLOC(lg->coef, err);
        if (opt->policy == PF_SAVE_SELECTED) pf_saved_set_mark(opt->saved, lg->graph);
        PF_TRY(pf_autodiff_run(lg->graph, lg->nll, lg->coef, opt->policy, err));
    }
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = opt->max_tokens,
                                              [PF_SPACE_LABELS] = opt->max_labels,
                                              [PF_SPACE_SOURCE] = opt->max_source};
    PF_TRY(pf_exec_new_in(&lg->exec, lg->graph, be, capacity, opt->lender, err));
    lg->exec->training = opt->training;
    return be->pool != NULL ? pf_linear_prepare(lg->graph, be->pool, err) : PEFT_OK;
}

peft_status pf_loss_graph_init(pf_loss_graph *lg, pf_model *model, pf_backend *be,
                               const pf_loss_graph_options *opt, peft_error *err) {
    memset(lg, 0, sizeof *lg);
    peft_status status = build(lg, model, be, opt, err);
    if (status != PEFT_OK) {
        be->free(be, &lg->coef_buffer);
        be->free(be, &lg->target_buffer);
        pf_graph_free(lg->graph);
        memset(lg, 0, sizeof *lg);
    }
    return status;
}

void pf_loss_graph_release(pf_loss_graph *lg) {
    if (lg == NULL || lg->exec == NULL) return;
    pf_backend *be = lg->exec->backend;
    be->free(be, &lg->coef_buffer);
    be->free(be, &lg->target_buffer);
    pf_exec_free(lg->exec);
    pf_graph_free(lg->graph);
    memset(lg, 0, sizeof *lg);
}

static void fill_targets(pf_loss_graph *lg, const pf_batch *b) {
    const int64_t V = lg->targets->cols;
    pf_real *y = lg->target_buffer.data;
    for (int32_t e = 0; e < b->n_labels; e++, y += V)
        for (int64_t k = 0; k < V; k++)
            y[k] = b->label_values != NULL
                       ? (pf_real)b->label_values[e][k]
                       : (pf_real)(pf_smoothed_target(lg->smoothing, V, k == b->label_target[e]));
}

peft_status pf_loss_graph_forward(pf_loss_graph *lg, const pf_batch *batch, pf_loss_sums *sums,
                                  peft_error *err) {
    PF_TRY(pf_exec_bind(lg->exec, batch, err));
    if (lg->targets != NULL) fill_targets(lg, batch);
    PF_TRY(pf_exec_forward(lg->exec, err));
    if (lg->logits != NULL) return PEFT_OK;
    const pf_real *nll = pf_exec_data(lg->exec, lg->nll);
    const pf_real *correct = pf_exec_data(lg->exec, lg->correct);
    for (int32_t e = 0; e < batch->n_labels; e++) {
        double w = batch->label_weight[e];
        sums->nll += w * (double)nll[e];
        sums->correct += w * (double)correct[e];
        sums->weight += w;
    }
    return PEFT_OK;
}

peft_status pf_loss_graph_backward(pf_loss_graph *lg, double denominator, peft_error *err) {
    const pf_batch *batch = lg->exec->batch;
    pf_real *coef = lg->coef_buffer.data;
    for (int32_t e = 0; e < batch->n_labels; e++) {
        coef[e] = (pf_real)((double)batch->label_weight[e] / denominator);
    }
    return pf_exec_backward(lg->exec, err);
}

peft_status pf_loss_graph_explain_nonfinite(pf_loss_graph *lg, bool backward, peft_error *err) {
    lg->exec->check_finite = true;
    peft_status status = pf_exec_forward(lg->exec, err);
    if (status == PEFT_OK && backward) status = pf_exec_backward(lg->exec, err);
    lg->exec->check_finite = false;
    if (status != PEFT_OK) return status;
    return PF_FAIL(err, PEFT_E_DIVERGED,
                   "the loss is not a finite number although every tensor on the way is");
}

/* speed.c - see speed.h. Each kind of node is put into a graph of its own, whose inputs are
 * buffers, and executed there. */
#include "train/speed.h"

#include "base/clock.h"
#include "base/mem.h"
#include "ops/matmul/linear.h"
#include "ops/op_table.h"
#include "ops/optim/adamw.h"
#include "train/loss_graph.h"

#include <math.h>
#include <string.h>

enum { MAX_KINDS = 256, MAX_INPUTS = 32, LEAST_ROWS = 16, TRIES = 3, BLOCK = 1 << 20 };
#define MOST_WRITTEN                                                                               \
    ((int64_t)256 << 20)  /* bytes of gradients that a kind may touch to be timed                  \
                           */
#define GUESSED_RATE 4e10 /* operations a second and thread: to find the rows */

typedef struct kind {
    const pf_node *node;
    double seconds; /* of one at `rows`; below 0: not timed */
    double scale;   /* to an average micro-batch */
    double flops;   /* at `rows` */
} kind;

typedef struct timer {
    const pf_memory_request *rq;
    pf_backend *be;
    int64_t rows[PF_SPACE_COUNT];
    double long_rows; /* attention: how much longer samples are than the rows that are timed */
    pf_batch_builder *builder;
    pf_sample *samples;
    pf_batch batch;
    kind kinds[MAX_KINDS];
    int n_kinds;
} timer;

/* ---- kinds ----------------------------------------------------------------------------------- */

static bool same_value(const pf_value *a, const pf_value *b) {
    if (a == NULL || b == NULL) return a == b;
    if (a->kind != b->kind || a->space != b->space || a->rows != b->rows || a->cols != b->cols)
        return false;
    return a->kind != PF_VALUE_WEIGHT || a->weight->dtype == b->weight->dtype;
}

static bool same_kind(const pf_node *a, const pf_node *b) {
    if (a->op != b->op || a->n_in != b->n_in || a->n_out != b->n_out) return false;
    for (int i = 0; i < a->n_in; i++) {
        if (!same_value(a->in[i], b->in[i])) return false;
    }
    for (int i = 0; i < a->n_out; i++) {
        if (!same_value(a->out[i], b->out[i])) return false;
    }
    return true;
}

/* The kind of a node, made when it is the first; NULL: there are too many. */
static kind *kind_of(timer *t, const pf_node *n) {
    for (int i = 0; i < t->n_kinds; i++) {
        if (same_kind(t->kinds[i].node, n)) return &t->kinds[i];
    }
    if (t->n_kinds == MAX_KINDS) return NULL;
    kind *k = &t->kinds[t->n_kinds++];
    *k = (kind){.node = n, .seconds = -1, .scale = 1};
    return k;
}

/* ---- one node alone -------------------------------------------------------------------------- */

typedef struct alone {
    pf_graph *graph;
    pf_exec *exec;
    pf_weight weights[MAX_INPUTS];
    pf_param params[MAX_INPUTS];
    pf_buffer buffers[MAX_INPUTS];
} alone;

static void release(alone *a, pf_backend *be) {
    pf_exec_free(a->exec);
    pf_graph_free(a->graph);
    for (int i = 0; i < MAX_INPUTS; i++) be->free(be, &a->buffers[i]);
}

/* A stand-in for the i-th input. NULL in *out, without an error: of a kind that cannot be. */
static peft_status stand_in(alone *a, timer *t, const pf_value *v, int i, pf_value **out,
                            peft_error *err) {
    *out = NULL;
    if (v->kind == PF_VALUE_STATE || pf_space_is_routed(v->space)) return PEFT_OK;
    size_t bytes = (size_t)(pf_value_rows(v, t->rows) * v->cols) * sizeof(pf_real);
    if (v->kind == PF_VALUE_WEIGHT &&
        !pf_dtype_bytes(v->weight->dtype, (uint64_t)(v->rows * v->cols), &bytes))
        return PEFT_OK;
    if (v->kind == PF_VALUE_GRAD && (int64_t)bytes > MOST_WRITTEN) return PEFT_OK;
    /* zeros: pages that are only read take no memory */
    PF_TRY(t->be->alloc(t->be, &a->buffers[i], bytes + 64, "a measurement", err));
    void *data = a->buffers[i].data;
    switch (v->kind) {
    case PF_VALUE_WEIGHT:
        a->weights[i] = pf_weight_of(v->weight->name, v->weight->dtype, data, v->rows, v->cols);
        *out = pf_graph_weight(a->graph, &a->weights[i]);
        break;
    case PF_VALUE_PARAM:
    case PF_VALUE_GRAD:
        a->params[i] = *v->param;
        a->params[i].data = a->params[i].grad = data;
        *out = v->kind == PF_VALUE_PARAM ? pf_graph_param(a->graph, &a->params[i])
                                         : pf_graph_grad(a->graph, &a->params[i]);
        break;
    default:
        *out = pf_graph_input(a->graph, "x", v->space, v->cols, data);
        if (*out != NULL) (*out)->rows = v->rows;
        break;
    }
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

/* The node in a graph of its own; false in *made when that cannot be. */
static peft_status isolate(alone *a, timer *t, const pf_node *n, bool *made, peft_error *err) {
    pf_value *in[MAX_INPUTS] = {0};
    *made = false;
    if (n->n_in > MAX_INPUTS) return PEFT_OK;
    for (int i = 0; i < n->n_out; i++) /* a router decides how many rows it has */
        if (pf_space_is_routed(n->out[i]->space)) return PEFT_OK;
    if (pf_streq(n->op->name, "route")) return PEFT_OK;
    PF_TRY(pf_graph_new(&a->graph, pf_op_table, err));
    a->graph->compute = t->rq->compute;
    a->graph->phase = PF_PHASE_BACKWARD; /* nothing here is differentiated again */
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] == NULL) continue;
        PF_TRY(stand_in(a, t, n->in[i], i, &in[i], err));
        if (in[i] == NULL) return PEFT_OK;
    }
    pf_node *copy;
    PF_TRY(pf_graph_emit(a->graph, n->op->name, n->name, n->args, in, n->n_in, &copy, err));
    if (copy->n_out != n->n_out) return PEFT_OK;
    for (int i = 0; i < copy->n_out; i++) copy->out[i]->result = true;
    PF_TRY(pf_exec_new(&a->exec, a->graph, t->be, t->rows, err));
    PF_TRY(pf_linear_prepare(a->graph, t->be->pool, err));
    a->exec->training = true;
    PF_TRY(pf_exec_bind(a->exec, &t->batch, err));
    *made = true;
    return PEFT_OK;
}

static peft_status time_kind(timer *t, kind *k, peft_error *err) {
    alone a = {0};
    bool made;
    peft_status status = isolate(&a, t, k->node, &made, err);
    for (int i = 0; i <= TRIES && status == PEFT_OK && made; i++) { /* the first warms up */
        const double start = pf_now();
        status = pf_exec_backward(a.exec, err);
        const double seconds = pf_now() - start;
        if (i > 0 && (k->seconds < 0 || seconds < k->seconds)) k->seconds = seconds;
        if (i == 1 && seconds > 0.2) break; /* long enough to be sure */
    }
    release(&a, t->be);
    return status;
}

/* ---- a typical micro-batch ------------------------------------------------------------------- */

/* Rows, labels and samples as the run's micro-batches have them on average, or fewer rows. */
static peft_status make_batch(timer *t, const pf_step_cut *cut, int64_t rows, peft_error *err) {
    const double all = (double)cut->computed, micro = (double)cut->micro;
    if (rows > (int64_t)(all / micro + 0.5)) rows = (int64_t)(all / micro + 0.5);
    double length = all > 0 ? cut->row_pairs / (double)(cut->tokens > 0 ? cut->tokens : 1) : 1;
    t->long_rows = length > (double)rows ? length / (double)rows : 1;
    if (length > (double)rows) length = (double)rows;
    if (length < 1) length = 1;
    const int64_t n = (rows + (int64_t)length - 1) / (int64_t)length;
    const double share = fmin(1, (double)cut->supervised / all);
    t->samples = pf_calloc((size_t)n, sizeof *t->samples);
    int32_t *zeros = pf_calloc((size_t)length + 3, sizeof *zeros);
    const double sources = all > 0 ? (double)cut->computed_source / all : 0;
    peft_status status =
        t->samples != NULL && zeros != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    int64_t left = rows;
    for (int64_t i = 0; i < n && status == PEFT_OK; i++) {
        const int32_t part = (int32_t)(left < (int64_t)length ? left : (int64_t)length);
        int32_t labels = (int32_t)(share * part + 0.5), target = part, source = 0;
        if (cut->computed_source > 0) {
            source = (int32_t)(sources * part + 0.5);
            if (source > part - 1) source = part - 1;
            if (source < 1) source = 1;
            target = part > source ? part - source : 1;
        }
        if (labels > target) labels = target;
        if (labels < 1) labels = 1;
        t->samples[i] = (pf_sample){.source = source > 0 ? zeros : NULL,
                                    .n_source = source,
                                    .tokens = zeros,
                                    .n_tokens = target + 1,
                                    .first_label = target + 1 - labels,
                                    .index = (int32_t)i};
        left -= part;
    }
    const pf_batch_builder_options o = {.max_tokens = (int32_t)rows + 2 * (int32_t)n,
                                        .max_samples = (int32_t)n,
                                        .share = PF_SHARE_NEVER};
    int32_t n_micro;
    if (status == PEFT_OK) status = pf_batch_builder_new(&t->builder, &o, err);
    if (status == PEFT_OK)
        status = pf_batch_builder_begin(t->builder, t->samples, (int32_t)n, 0, &n_micro, err);
    if (status == PEFT_OK) pf_batch_builder_get(t->builder, 0, &t->batch);
    pf_free(zeros); /* the batch has copies of its own */
    t->rows[PF_SPACE_TOKENS] = t->batch.n_tokens;
    t->rows[PF_SPACE_LABELS] = t->batch.n_labels;
    t->rows[PF_SPACE_SOURCE] = t->batch.source != NULL ? t->batch.source->n_tokens : 0;
    return status;
}

/* Rows at which timing every kind takes about the budget, at a guessed rate. */
static int64_t rows_within(const timer *t, const pf_memory_plan *plan, double budget) {
    double flops = 0;
    for (int i = 0; i < t->n_kinds; i++) {
        const pf_node *n = t->kinds[i].node;
        if (n->op->cost != NULL) flops += n->op->cost(n, plan->graph.capacity).flops;
    }
    const double seconds = (TRIES + 1) * flops / (GUESSED_RATE * t->be->n_workers);
    int64_t rows = plan->graph.capacity[PF_SPACE_TOKENS] + plan->graph.capacity[PF_SPACE_SOURCE];
    if (seconds > budget) rows = (int64_t)((double)rows * budget / seconds);
    return rows > LEAST_ROWS ? rows : LEAST_ROWS;
}

/* ---- adding up ------------------------------------------------------------------------------- */

static bool counts(const pf_node *n, pf_space space) {
    return n->n_out > 0 ? n->out[0]->space == (int)space
                        : n->n_in > 0 && n->in[0] != NULL && n->in[0]->space == (int)space;
}

static double seconds_of(const timer *t, const kind *k, double rate) {
    if (k == NULL) return 0;
    const double seconds = k->seconds >= 0 ? k->seconds : k->flops / rate;
    return seconds * k->scale *
           (strncmp(k->node->op->name, "attention", 9) == 0 ? t->long_rows : 1);
}

static void add_up(pf_speed *out, timer *t, const pf_graph *g, const pf_step_cut *cut) {
    double flops = 0, seconds = 0;
    for (int i = 0; i < t->n_kinds; i++) {
        kind *k = &t->kinds[i];
        const bool labels = counts(k->node, PF_SPACE_LABELS),
                   source = counts(k->node, PF_SPACE_SOURCE);
        const double have = (double)t->rows[labels   ? PF_SPACE_LABELS
                                            : source ? PF_SPACE_SOURCE
                                                     : PF_SPACE_TOKENS];
        const double want = (double)(labels   ? cut->supervised
                                     : source ? cut->computed_source
                                              : cut->computed - cut->computed_source) /
                            (double)cut->micro;
        k->scale = have > 0 ? want / have : 1;
        k->flops = k->node->op->cost != NULL ? k->node->op->cost(k->node, t->rows).flops : 0;
        if (k->seconds < 0) {
            out->guessed++;
            continue;
        }
        flops += k->flops;
        seconds += k->seconds;
    }
    const double rate = seconds > 0 && flops > 0 ? flops / seconds : 1e9;
    const double micro = (double)cut->micro / (double)cut->steps;
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        const kind *k = kind_of(t, n);
        const double times = n->of_weights ? 1 : micro; /* once a step, whatever the cut */
        const double s = times * seconds_of(t, k, rate);
        if (n->phase == PF_PHASE_FORWARD)
            out->forward += s;
        else if (n->is_recompute)
            out->recompute += s;
        else
            out->backward += s;
    }
    out->kinds = t->n_kinds;
}

/* Norm of the gradients, AdamW, zeroing: a part of the block, scaled. */
static peft_status time_optimizer(pf_speed *out, timer *t, peft_error *err) {
    const int64_t n = t->rq->trained < BLOCK ? t->rq->trained : BLOCK;
    pf_buffer b;
    PF_TRY(t->be->alloc(t->be, &b, 4 * (size_t)(n > 0 ? n : 1) * sizeof(pf_real), "a measurement",
                        err));
    pf_real *p = b.data;
    const pf_adamw how = {.lr = 0, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .t = 1};
    double best = INFINITY;
    for (int i = 0; i <= TRIES; i++) {
        const double start = pf_now();
        memset(p + n, 0, (size_t)n * sizeof *p);
        pf_sum_squares(t->be->pool, n, p + n);
        pf_adamw_update(t->be->pool, &how, 1, n, p, p + n, p + 2 * n, p + 3 * n);
        if (i > 0) best = fmin(best, pf_now() - start);
    }
    t->be->free(t->be, &b);
    out->optimizer = n > 0 ? best * (double)t->rq->trained / (double)n : 0;
    return PEFT_OK;
}

static peft_status predict(pf_speed *out, timer *t, const pf_memory_plan *plan, const pf_graph *g,
                           double budget, peft_error *err) {
    for (int i = 0; i < g->n_nodes; i++) kind_of(t, g->nodes[i]);
    PF_TRY(make_batch(t, &plan->cut, rows_within(t, plan, budget), err));
    for (int i = 0; i < t->n_kinds; i++) PF_TRY(time_kind(t, &t->kinds[i], err));
    add_up(out, t, g, &plan->cut);
    return time_optimizer(out, t, err);
}

peft_status pf_speed_predict(pf_speed *out, const pf_memory_request *rq, const pf_memory_plan *plan,
                             pf_backend *be, double budget, peft_error *err) {
    memset(out, 0, sizeof *out);
    const double start = pf_now();
    pf_backend *null;
    PF_TRY(pf_backend_open_null(&null, be->n_workers, err));
    timer *t = pf_calloc(1, sizeof *t);
    pf_loss_graph lg = {0};
    const pf_loss_graph_options opt = {.training = true,
                                       .adapters = true,
                                       .policy = plan->policy,
                                       .saved = &plan->saved,
                                       .fuse = rq->fuse,
                                       .compute = rq->compute,
                                       .save_bf16 = rq->save_bf16,
                                       .smoothing = rq->smoothing,
                                       .max_tokens = plan->max_target,
                                       .max_source = plan->max_source,
                                       .max_labels = plan->max_labels};
    peft_status status = t != NULL ? pf_loss_graph_init(&lg, rq->model, null, &opt, err)
                                   : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) {
        t->rq = rq;
        t->be = be;
        status = predict(out, t, plan, lg.graph, budget, err);
        out->rows = t->rows[PF_SPACE_TOKENS] + t->rows[PF_SPACE_SOURCE];
        pf_batch_builder_free(t->builder);
        pf_free(t->samples);
    }
    pf_loss_graph_release(&lg);
    pf_free(t);
    pf_backend_close(null);
    out->step = out->forward + out->recompute + out->backward + out->optimizer;
    if (plan->cut.steps > 0 && out->step > 0)
        out->tokens_per_second = (double)plan->cut.tokens / (double)plan->cut.steps / out->step;
    out->spent = pf_now() - start;
    return status;
}

void pf_speed_text(const pf_speed *s, pf_buf *out) {
    pf_buf_addf(out, "%.*f tokens/s, %.3g s a step (forward %.0f %%, ",
                s->tokens_per_second < 10 ? 2 : 0, s->tokens_per_second, s->step,
                100 * s->forward / s->step);
    if (s->recompute > 0) pf_buf_addf(out, "recomputed %.0f %%, ", 100 * s->recompute / s->step);
    pf_buf_addf(out, "backward %.0f %%, optimizer %.0f %%)", 100 * s->backward / s->step,
                100 * s->optimizer / s->step);
}

/* memory_plan.c - see memory_plan.h; the table that is shown is memory_table.c's. */
#include "train/memory_plan.h"

#include "base/str.h"
#include "train/loss_graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct planner {
    const pf_memory_request *rq;
    pf_backend *null;
    pf_memory_plan *p;
    int64_t eval_arenas[2]; /* loss, generation */
    int64_t eval_other;
    int64_t cut_for; /* the budget that p->cut was made for */
} planner;

/* What the head holds while the peak is reached: its outputs that live then, its scratch. */
static int64_t head_at_peak(const pf_graph *g, const pf_plan *plan) {
    int64_t bytes = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        if (!pf_starts_with(n->op->name, "head_")) continue;
        if (i == plan->peak_node) bytes += n->workspace;
        for (int k = 0; k < n->n_out; k++) {
            const pf_value *v = n->out[k];
            if (v->home != v || v->first > plan->peak_node || v->last < plan->peak_node) continue;
            bytes += pf_value_rows(v, plan->capacity) * v->cols * (int64_t)sizeof(pf_real);
        }
    }
    return bytes;
}

/* Operations of an average step. Attention is counted by the pairs that its samples have. */
static double flops_of_step(const pf_graph *g, const pf_step_cut *cut) {
    if (cut->steps == 0 || cut->micro == 0) return 0;
    const double micro = (double)cut->micro;
    const int64_t rows[PF_SPACE_COUNT] = {
        [PF_SPACE_TOKENS] = (int64_t)((double)(cut->computed - cut->computed_source) / micro + 0.5),
        [PF_SPACE_SOURCE] = (int64_t)((double)cut->computed_source / micro + 0.5),
        [PF_SPACE_LABELS] = (int64_t)((double)cut->supervised / micro + 0.5)};
    const double T = (double)rows[PF_SPACE_TOKENS], S = (double)rows[PF_SPACE_SOURCE];
    const double pairs = T > 0 ? fmin(1, cut->row_pairs / micro / (T * T + S * (S + T))) : 0;
    double flops = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        if (n->op->cost == NULL) continue;
        flops +=
            n->op->cost(n, rows).flops * (pf_starts_with(n->op->name, "attention") ? pairs : 1);
    }
    return flops * micro / (double)cut->steps;
}

/* The training graph for the budget and policy of the plan: its arena, its kinds (`find`). */
static peft_status plan_graph(planner *pl, bool find, peft_error *err) {
    pf_memory_plan *p = pl->p;
    pf_loss_graph lg;
    const pf_loss_graph_options opt = {.training = true,
                                       .adapters = true,
                                       .policy = p->policy,
                                       .saved = &p->saved,
                                       .fuse = pl->rq->fuse,
                                       .compute = pl->rq->compute,
                                       .save_bf16 = pl->rq->save_bf16,
                                       .smoothing = pl->rq->smoothing,
                                       .max_tokens = p->max_target,
                                       .max_source = p->max_source,
                                       .max_labels = p->max_labels};
    PF_TRY(pf_loss_graph_init(&lg, pl->rq->model, pl->null, &opt, err));
    p->graph = lg.exec->plan;
    p->step_flops = flops_of_step(lg.graph, &p->cut);
    p->head_bytes = head_at_peak(lg.graph, &p->graph);
    p->program_bytes = pl->rq->program_bytes + (int64_t)lg.graph->arena.reserved + pl->eval_other;
    if (find) pf_saved_set_find(&p->saved, lg.graph, &p->graph);
    pf_loss_graph_release(&lg);
    return PEFT_OK;
}

/* Arenas that the evaluation would take were it alone; its cache. */
static peft_status plan_evaluation(planner *pl, peft_error *err) {
    if (pl->rq->evaluation == NULL) return PEFT_OK;
    pf_evaluator_options o = *pl->rq->evaluation;
    o.backend = pl->null;
    o.lender = NULL;
    pf_evaluator *ev;
    PF_TRY(pf_evaluator_new(&ev, &o, err));
    const pf_evaluator_bytes b = pf_evaluator_memory(ev);
    pl->eval_arenas[0] = b.loss_arena;
    pl->eval_arenas[1] = b.generate_arena;
    pl->eval_other = b.other;
    pl->p->eval_cache = b.cache;
    pf_evaluator_free(ev);
    return PEFT_OK;
}

/* As the evaluator will do it: each takes the largest arena that rests, or one of its own. */
static int64_t evaluation_arena(const planner *pl) {
    int64_t lent = pl->p->graph.arena_bytes, own = 0;
    for (int i = 0; i < 2; i++) {
        if (pl->eval_arenas[i] <= lent) continue;
        own += pl->eval_arenas[i];
        lent = pl->eval_arenas[i];
    }
    return own;
}

/* Everything for a budget of `tokens` rows, under the policy of the plan. */
static peft_status plan_budget(planner *pl, int64_t tokens, bool find, peft_error *err) {
    pf_memory_plan *p = pl->p;
    if (pl->cut_for != tokens) {
        pf_batch_builder_options b = pl->rq->builder;
        b.max_tokens = (int32_t)tokens;
        b.max_labels = 0;
        PF_TRY(pf_step_cut_find(&p->cut, pl->rq->steps, pl->rq->set, &b, pl->rq->total_steps,
                                PF_CUT_TOKENS, err));
        pl->cut_for = tokens;
    }
    p->max_tokens = p->cut.rows;
    p->max_labels = p->cut.labels;
    p->max_target = p->cut.target;
    p->max_source = p->cut.source;
    PF_TRY(plan_graph(pl, find, err));
    p->eval_arena = evaluation_arena(pl);
    p->total = p->graph.arena_bytes +
               pf_loss_graph_label_bytes(pl->rq->model, pl->rq->smoothing, p->max_labels) +
               p->converted_bytes + 4 * pl->rq->trained * (int64_t)sizeof(pf_real) +
               pl->rq->data_bytes + p->eval_arena + p->eval_cache + p->program_bytes;
    p->first_look = pl->rq->first_look_peak > p->total ? pl->rq->first_look_peak - p->total : 0;
    p->total += p->first_look;
    return PEFT_OK;
}

static bool fits(const planner *pl) {
    return pl->rq->limit == 0 || pl->p->total <= pl->rq->limit;
}

static void count_weights(pf_memory_plan *p, const pf_model *m) {
    p->mapped_bytes = m->mapped_bytes;
    p->converted_bytes = m->converted_bytes;
    if (m->mapped_bytes == 0) return;
    for (int i = 0; i < m->n_sites; i++) { /* who reads the base's own matrix? */
        const pf_site *s = m->sites[i];
        bool read = s->trained_weight == NULL;
        for (int k = 0; k < m->n_sites && !read; k++)
            read = m->sites[k]->tied_to == s && m->sites[k]->trained_weight == NULL;
        if (!read && s->tied_to == NULL) p->unread_bytes += (int64_t)pf_weight_bytes(s->weight);
    }
}

static peft_status does_not_fit(const planner *pl, peft_error *err) {
    const pf_memory_plan *p = pl->p;
    const pf_memory_request *rq = pl->rq;
    char need[32], limit[32], act[32], params[32], data[32];
    return PF_FAIL(
        err, PEFT_E_NOMEM,
        "training.memory_limit is %s and the smallest plan needs %s (activations of the longest "
        "sample, %lld rows, with blocks recomputed: %s; trained weights with gradients and "
        "moments: %s; data, evaluation and program: %s). Try a smaller training.max_length, a "
        "smaller peft.lora.r, fewer target_modules, or a smaller per_device_eval_batch_size",
        pf_format_bytes((double)rq->limit, limit, sizeof limit),
        pf_format_bytes((double)p->total, need, sizeof need), (long long)p->max_tokens,
        pf_format_bytes((double)p->graph.arena_bytes, act, sizeof act),
        pf_format_bytes(4.0 * (double)rq->trained * (double)sizeof(pf_real), params, sizeof params),
        pf_format_bytes(
            (double)(p->total - p->graph.arena_bytes - 4 * rq->trained * (int64_t)sizeof(pf_real)),
            data, sizeof data));
}

/* ---- under a limit --------------------------------------------------------------------------- */

/* The least that has to be recomputed at this budget: the smallest number of steps of the saved set
 * that fits. False in *done where giving up all of it does not. */
static peft_status narrow(planner *pl, int64_t tokens, bool *done, peft_error *err) {
    pf_memory_plan *p = pl->p;
    *done = false;
    p->policy = PF_SAVE_SELECTED;
    int lo = 0, hi = pf_saved_set_steps(&p->saved); /* lo does not fit, hi may */
    pf_saved_set_narrow(&p->saved, hi);
    PF_TRY(plan_budget(pl, tokens, false, err));
    if (!fits(pl)) return PEFT_OK;
    while (hi - lo > 1) {
        const int mid = lo + (hi - lo) / 2;
        pf_saved_set_narrow(&p->saved, mid);
        PF_TRY(plan_budget(pl, tokens, false, err));
        if (fits(pl))
            hi = mid;
        else
            lo = mid;
    }
    pf_saved_set_narrow(&p->saved, hi);
    *done = true;
    return plan_budget(pl, tokens, false, err);
}

/* The largest budget that fits with whole blocks recomputed. */
static peft_status shrink(planner *pl, int64_t tokens, peft_error *err) {
    int64_t lo = pl->rq->longest, hi = tokens; /* hi does not fit, lo may */
    pl->p->policy = PF_SAVE_CHECKPOINT;
    PF_TRY(plan_budget(pl, lo, false, err));
    if (!fits(pl)) return does_not_fit(pl, err);
    while (hi - lo > 8) {
        const int64_t mid = lo + (hi - lo) / 2;
        PF_TRY(plan_budget(pl, mid, false, err));
        if (fits(pl))
            lo = mid;
        else
            hi = mid;
    }
    return plan_budget(pl, lo, false, err);
}

static void write_note(pf_memory_plan *p, const pf_memory_request *rq,
                       const pf_memory_plan *wanted) {
    char limit[32], before[32];
    int n = snprintf(p->note, sizeof p->note,
                     "training.memory_limit is %s and the usual plan needs %s: ",
                     pf_format_bytes((double)rq->limit, limit, sizeof limit),
                     pf_format_bytes((double)wanted->total, before, sizeof before));
    size_t at = (size_t)n;
    const double more = p->graph.recompute_flops / (double)p->max_tokens -
                        wanted->graph.recompute_flops / (double)wanted->max_tokens;
    const double all =
        (wanted->graph.forward_flops + wanted->graph.backward_flops) / (double)wanted->max_tokens;
    if (p->policy == PF_SAVE_SELECTED) {
        at += (size_t)snprintf(p->note + at, sizeof p->note - at, "the backward pass recomputes ");
        const char *comma = "";
        for (int i = 0; i < p->saved.n && at < sizeof p->note; i++) {
            const pf_saved_kind *k = &p->saved.kinds[i];
            if (k->from == 0) continue;
            at += (size_t)snprintf(p->note + at, sizeof p->note - at, "%s%.*s (%d of %d blocks)",
                                   comma, (int)strcspn(k->name, "/"), k->name, k->from,
                                   p->saved.n_blocks);
            comma = ", ";
        }
    } else if (wanted->policy != PF_SAVE_CHECKPOINT) {
        at += (size_t)snprintf(p->note + at, sizeof p->note - at,
                               "the backward pass recomputes whole blocks");
    }
    if (at < sizeof p->note && more > 0)
        at += (size_t)snprintf(p->note + at, sizeof p->note - at, ", %+.1f %% operations",
                               100 * more / all);
    if (at < sizeof p->note && p->max_tokens < wanted->max_tokens)
        snprintf(p->note + at, sizeof p->note - at,
                 "%smicro-batches have %lld rows instead of %lld",
                 p->policy == wanted->policy ? "" : "; ", (long long)p->max_tokens,
                 (long long)wanted->max_tokens);
}

static peft_status choose(planner *pl, peft_error *err) {
    const pf_memory_request *rq = pl->rq;
    pf_memory_plan *p = pl->p;
    const int64_t most = rq->step_tokens > rq->longest ? rq->step_tokens : rq->longest;
    int64_t tokens = rq->tokens_per_batch > 0 ? rq->tokens_per_batch : PF_AUTO_TOKENS;
    tokens += rq->builder.prompt_rows; /* the samples' share stays what it was */
    if (tokens > most) tokens = most;
    if (tokens < rq->longest) tokens = rq->longest;
    p->policy = rq->checkpointing ? PF_SAVE_CHECKPOINT : PF_SAVE_MINIMAL;
    count_weights(p, rq->model);
    PF_TRY(plan_evaluation(pl, err));
    PF_TRY(plan_budget(pl, tokens, rq->limit > 0, err));
    if (fits(pl)) return PEFT_OK;
    const pf_memory_plan wanted = *p;
    bool done = false;
    if (!rq->checkpointing) PF_TRY(narrow(pl, tokens, &done, err));
    if (!done) PF_TRY(shrink(pl, tokens, err));
    write_note(p, rq, &wanted);
    return PEFT_OK;
}

peft_status pf_memory_plan_make(pf_memory_plan *out, const pf_memory_request *rq, peft_error *err) {
    memset(out, 0, sizeof *out);
    planner pl = {.rq = rq, .p = out};
    PF_TRY(pf_backend_open_null(&pl.null, rq->n_workers, err));
    peft_status status = choose(&pl, err);
    pf_backend_close(pl.null);
    return status;
}

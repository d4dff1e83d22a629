/* memory_plan.c - see memory_plan.h. */
#include "train/memory_plan.h"

#include "base/buf.h"
#include "base/str.h"
#include "train/loss_graph.h"

#include <stdio.h>
#include <string.h>

const char *pf_save_policy_name(pf_save_policy policy) {
    static const char *const names[] = {"minimal exact set", "block inputs only", "everything"};
    return names[policy];
}

/* Arena of the training graph for this budget and policy. */
static peft_status plan_graph(const pf_memory_request *rq, pf_backend *null, int64_t max_tokens,
                              pf_save_policy policy, pf_plan *out, peft_error *err) {
    pf_loss_graph lg;
    const pf_loss_graph_options opt = {.training = true,
                                       .adapters = true,
                                       .policy = policy,
                                       .fuse = rq->fuse,
                                       .compute = rq->compute,
                                       .max_tokens = max_tokens,
                                       .max_labels = max_tokens};
    PF_TRY(pf_loss_graph_init(&lg, rq->model, null, &opt, err));
    *out = lg.exec->plan;
    pf_loss_graph_release(&lg);
    return PEFT_OK;
}

static int64_t total_of(const pf_memory_request *rq, const pf_memory_plan *p) {
    return p->graph.arena_bytes + p->max_labels * (int64_t)sizeof(pf_real) + p->converted_bytes +
           rq->params_bytes + rq->data_bytes + rq->eval_bytes;
}

static void count_weights(pf_memory_plan *p, const pf_model *m) {
    for (int i = 0; i < m->n_sites; i++) {
        const pf_site *s = m->sites[i];
        if (s->tied_to == NULL && s->weight != NULL)
            p->mapped_bytes += (int64_t)pf_weight_bytes(s->weight);
        if (s->bias != NULL) p->mapped_bytes += (int64_t)pf_weight_bytes(s->bias);
    }
    p->converted_bytes = m->converted_bytes;
    if (m->converted_bytes > 0) p->mapped_bytes = 0;
}

static peft_status does_not_fit(const pf_memory_request *rq, const pf_memory_plan *p,
                                peft_error *err) {
    char need[32], limit[32], act[32], params[32], data[32];
    return PF_FAIL(err, PEFT_E_NOMEM,
                   "training.memory_limit is %s and the smallest plan needs %s (activations of the "
                   "longest sample, %lld "
                   "tokens: %s; trained weights with gradients and moments: %s; data and "
                   "evaluation: %s). Try a smaller "
                   "training.max_length, a smaller peft.lora.r, fewer target_modules, or a smaller "
                   "per_device_eval_batch_size",
                   pf_format_bytes((double)rq->limit, limit, sizeof limit),
                   pf_format_bytes((double)p->total, need, sizeof need), (long long)p->max_tokens,
                   pf_format_bytes((double)p->graph.arena_bytes, act, sizeof act),
                   pf_format_bytes((double)rq->params_bytes, params, sizeof params),
                   pf_format_bytes((double)(rq->data_bytes + rq->eval_bytes), data, sizeof data));
}

static peft_status choose(pf_memory_plan *p, const pf_memory_request *rq, pf_backend *null,
                          peft_error *err) {
    int64_t most = rq->step_tokens > rq->longest ? rq->step_tokens : rq->longest;
    int64_t tokens = rq->tokens_per_batch > 0 ? rq->tokens_per_batch : PF_AUTO_TOKENS;
    if (tokens > most) tokens = most;
    if (tokens < rq->longest) tokens = rq->longest;
    const int64_t wanted = tokens;
    p->policy = rq->checkpointing ? PF_SAVE_CHECKPOINT : PF_SAVE_MINIMAL;
    count_weights(p, rq->model);
    for (;;) {
        p->max_tokens = p->max_labels = tokens;
        PF_TRY(plan_graph(rq, null, tokens, p->policy, &p->graph, err));
        p->total = total_of(rq, p);
        if (rq->limit == 0 || p->total <= rq->limit) break;
        if (p->policy != PF_SAVE_CHECKPOINT)
            p->policy = PF_SAVE_CHECKPOINT;
        else if (tokens > rq->longest)
            tokens = tokens / 2 > rq->longest ? tokens / 2 : rq->longest;
        else
            return does_not_fit(rq, p, err);
    }
    if (tokens < wanted || (p->policy == PF_SAVE_CHECKPOINT && !rq->checkpointing)) {
        snprintf(p->note, sizeof p->note,
                 "to stay under training.memory_limit: %s%s%lld tokens per micro-batch",
                 p->policy == PF_SAVE_CHECKPOINT && !rq->checkpointing
                     ? "blocks are recomputed in the backward pass, "
                     : "",
                 tokens < wanted ? "only " : "", (long long)tokens);
    }
    return PEFT_OK;
}

peft_status pf_memory_plan_make(pf_memory_plan *out, const pf_memory_request *rq, peft_error *err) {
    memset(out, 0, sizeof *out);
    pf_backend *null;
    PF_TRY(pf_backend_open_null(&null, rq->n_workers, err));
    peft_status status = choose(out, rq, null, err);
    pf_backend_close(null);
    return status;
}

typedef struct plan_row {
    const char *key, *what;
    int64_t bytes;
} plan_row;

static int list_rows(const pf_memory_plan *p, const pf_memory_request *rq, plan_row *rows) {
    const pf_plan *g = &p->graph;
    int64_t live = 0;
    for (int c = 0; c < PF_MEM_CLASS_COUNT; c++) live += g->at_peak[c];
    const plan_row all[] = {
        {"saved_activations", "saved activations", g->at_peak[PF_MEM_SAVED]},
        {"forward_activations", "other activations", g->at_peak[PF_MEM_FORWARD]},
        {"gradients_of_activations", "gradients of activations, recomputed values",
         g->at_peak[PF_MEM_BACKWARD]},
        {"workspace", "scratch of kernels", g->at_peak[PF_MEM_WORKSPACE]},
        {"fragmentation", "room lost between buffers", g->arena_bytes - live},
        {"trained", "trained weights, gradients, moments", rq->params_bytes},
        {"converted_weights", "base weights, converted", p->converted_bytes},
        {"evaluation", "evaluation: activations and KV cache", rq->eval_bytes},
        {"data", "data: token ids and texts",
         rq->data_bytes + p->max_labels * (int64_t)sizeof(pf_real)},
    };
    memcpy(rows, all, sizeof all);
    return (int)PF_COUNT(all);
}

void pf_memory_plan_text(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out) {
    plan_row rows[16];
    int n = list_rows(p, rq, rows);
    char size[32];
    pf_buf_addf(out, "memory plan: micro-batches of %lld tokens, saved for the backward pass: %s\n",
                (long long)p->max_tokens, pf_save_policy_name(p->policy));
    for (int i = 0; i < n; i++) {
        if (rows[i].bytes == 0) continue;
        pf_buf_addf(out, "  %-46s %12s\n", rows[i].what,
                    pf_format_bytes((double)rows[i].bytes, size, sizeof size));
    }
    pf_buf_addf(out, "  %-46s %12s\n", "peak",
                pf_format_bytes((double)p->total, size, sizeof size));
    pf_buf_addf(out, "  %-46s %12s\n", "base weights, mapped from the file",
                pf_format_bytes((double)p->mapped_bytes, size, sizeof size));
    if (p->note[0] != '\0') pf_buf_addf(out, "  %s\n", p->note);
}

void pf_memory_plan_json(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out) {
    plan_row rows[16];
    int n = list_rows(p, rq, rows);
    pf_buf_addf(out, "{\"tokens_per_batch\": %lld, \"saved\": \"%s\", \"bytes\": {",
                (long long)p->max_tokens, pf_save_policy_name(p->policy));
    for (int i = 0; i < n; i++) {
        pf_buf_addf(out, "%s\"%s\": %lld", i > 0 ? ", " : "", rows[i].key,
                    (long long)rows[i].bytes);
    }
    pf_buf_addf(out,
                "}, \"peak_bytes\": %lld, \"mapped_bytes\": %lld, \"forward_flops\": %.0f, "
                "\"backward_flops\": %.0f, "
                "\"recompute_flops\": %.0f}\n",
                (long long)p->total, (long long)p->mapped_bytes, p->graph.forward_flops,
                p->graph.backward_flops, p->graph.recompute_flops);
}

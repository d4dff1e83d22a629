/* memory_table.c - a memory plan as people and programs read it: one row per class of memory, and
 * what its figure follows from. */
#include "train/memory_plan.h"

#include "train/loss_graph.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum { MAX_ROWS = 20, FROM_TEXT = 128 };

typedef struct table_row {
    const char *key, *what;
    int64_t bytes;
    char from[FROM_TEXT];
} table_row;

typedef struct table {
    table_row rows[MAX_ROWS];
    int n;
} table;

const char *pf_save_policy_name(pf_save_policy policy) {
    static const char *const names[] = {"minimal exact set", "block inputs only", "everything",
                                        "part of the minimal exact set"};
    return names[policy];
}

static table_row *add(table *t, const char *key, const char *what, int64_t bytes) {
    table_row *r = &t->rows[t->n++];
    *r = (table_row){.key = key, .what = what, .bytes = bytes};
    return r;
}

static void say_from(table_row *r, const char *format, ...) PEFT_PRINTF(2, 3);
static void say_from(table_row *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(r->from, sizeof r->from, format, args);
    va_end(args);
}

static void list_rows(table *t, const pf_memory_plan *p, const pf_memory_request *rq) {
    const pf_plan *g = &p->graph;
    const int64_t block = rq->trained * (int64_t)sizeof(pf_real);
    int64_t live = 0;
    char size[32];
    for (int c = 0; c < PF_MEM_CLASS_COUNT; c++) live += g->at_peak[c];
    const int64_t coef = pf_loss_graph_label_bytes(rq->model, rq->smoothing, p->max_labels);
    t->n = 0;
    say_from(add(t, "trained_weights", "trained weights", block), "%lld numbers of 4 bytes",
             (long long)rq->trained);
    say_from(add(t, "gradients", "their gradients", block), "as many");
    say_from(add(t, "optimizer_state", "optimizer state", 2 * block), "AdamW: two moments in f32");
    /* the head's part may stand in several classes of the plan: it is taken out of them */
    int64_t head = p->head_bytes, classes[PF_MEM_CLASS_COUNT];
    for (int c = 0; c < PF_MEM_CLASS_COUNT; c++) {
        const int64_t part = head < g->at_peak[c] ? head : g->at_peak[c];
        classes[c] = g->at_peak[c] - part;
        head -= part;
    }
    say_from(add(t, "saved_activations", "saved activations", classes[PF_MEM_SAVED]),
             "%lld rows, %s", (long long)p->max_tokens, pf_save_policy_name(p->policy));
    say_from(add(t, "forward_activations", "other activations", classes[PF_MEM_FORWARD]),
             "alive at the peak");
    say_from(add(t, "gradients_of_activations", "gradients of activations, recomputed values",
                 classes[PF_MEM_BACKWARD]),
             "alive at the peak");
    say_from(add(t, "workspace", "scratch of kernels", classes[PF_MEM_WORKSPACE]), "%d thread%s",
             rq->n_workers, rq->n_workers == 1 ? "" : "s");
    say_from(add(t, "head", "head: gradient of the hidden rows, chunk of logits", p->head_bytes),
             "%lld labels", (long long)p->max_labels);
    say_from(add(t, "fragmentation", "room lost between buffers", g->arena_bytes - live),
             "placement of the arena");
    say_from(add(t, "converted_weights", "base weights, converted", p->converted_bytes),
             "model.torch_dtype, or tensors not aligned in the file");
    say_from(add(t, "evaluation", "evaluation beyond the arena of training", p->eval_arena),
             "%d at once", rq->evaluation != NULL ? rq->evaluation->batch_size : 0);
    say_from(add(t, "kv_cache", "KV cache of the evaluation", p->eval_cache),
             "longest prompt + max_new_tokens");
    say_from(add(t, "first_look", "first look at the data, beyond training", p->first_look),
             "at most %s, before the first step",
             pf_format_bytes((double)rq->first_look, size, sizeof size));
    say_from(add(t, "data", "data: token ids, texts, coefficients", rq->data_bytes + coef),
             "as read");
    say_from(add(t, "program", "program: tokenizer, graphs, tables", p->program_bytes),
             rq->assumed ? "graphs counted, the rest as measured in this process"
                         : "measured, graphs counted");
}

void pf_memory_plan_text(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out) {
    table t;
    list_rows(&t, p, rq);
    char size[32];
    pf_buf_addf(out,
                "memory plan: micro-batches of %lld rows and %lld labels%s, saved for the backward "
                "pass: %s\n",
                (long long)p->max_tokens, (long long)p->max_labels, p->cut.exact ? "" : " at most",
                pf_save_policy_name(p->policy));
    for (int i = 0; i < t.n; i++) {
        if (t.rows[i].bytes == 0) continue;
        pf_buf_addf(out, "  %-51s %10s   %s\n", t.rows[i].what,
                    pf_format_bytes((double)t.rows[i].bytes, size, sizeof size), t.rows[i].from);
    }
    pf_buf_addf(out, "  %-51s %10s\n", "peak",
                pf_format_bytes((double)p->total, size, sizeof size));
    pf_buf_addf(out, "  %-51s %10s   ", "base weights, mapped from the file",
                pf_format_bytes((double)p->mapped_bytes, size, sizeof size));
    if (p->unread_bytes > 0)
        pf_buf_addf(out,
                    "shared pages, not in the peak; %s of them stand unread behind trained "
                    "copies\n",
                    pf_format_bytes((double)p->unread_bytes, size, sizeof size));
    else
        pf_buf_adds(out, "shared pages, not in the peak\n");
    if (rq->first_look > 0 && p->first_look == 0)
        pf_buf_addf(out, "  %-51s %10s   at most, before the first step, which takes as much\n",
                    "first look at the data",
                    pf_format_bytes((double)rq->first_look, size, sizeof size));
    if (p->note[0] != '\0') pf_buf_addf(out, "  %s\n", p->note);
}

void pf_memory_plan_json(const pf_memory_plan *p, const pf_memory_request *rq, pf_buf *out) {
    table t;
    list_rows(&t, p, rq);
    pf_buf_addf(out,
                "{\"tokens_per_batch\": %lld, \"labels_per_batch\": %lld, \"saved\": \"%s\", "
                "\"bytes\": {",
                (long long)p->max_tokens, (long long)p->max_labels, pf_save_policy_name(p->policy));
    for (int i = 0; i < t.n; i++) {
        pf_buf_addf(out, "%s\"%s\": %lld", i > 0 ? ", " : "", t.rows[i].key,
                    (long long)t.rows[i].bytes);
    }
    pf_buf_addf(out,
                "}, \"peak_bytes\": %lld, \"mapped_bytes\": %lld, \"first_look_bytes\": %lld, "
                "\"forward_flops\": %.0f, "
                "\"backward_flops\": %.0f, "
                "\"recompute_flops\": %.0f, \"data_assumed\": %s",
                (long long)p->total, (long long)p->mapped_bytes, (long long)rq->first_look,
                p->graph.forward_flops, p->graph.backward_flops, p->graph.recompute_flops,
                rq->assumed ? "true" : "false");
}

/* generator.c - see generator.h. A slot holds one sequence; its cache rows are
 * [slot * max_length, slot * max_length + tokens so far). What an adapter puts before every
 * sequence (a learned prefix, a learned prompt) stands behind all slots, once: rows [n_slots *
 * max_length, ... + prefix + prompt). It is written by the first pass of a run.
 *
 * With an encoder, the prompt is the source: its rows go into the pass in which the sequence
 * begins, all at once, for each sees all; its keys and values stand in a cache of their own from
 * row slot * max_source on, and the sequence itself begins with the decoder's start. Every source
 * begins with the rows of a learned prompt, where there is one (pf_lead.each). */
#include "infer/generator.h"

#include "base/mem.h"
#include "graph/exec.h"
#include "ops/op_table.h"

#include <string.h>

typedef struct slot {
    int item;        /* index into the run's items; -1: free */
    int64_t n_total; /* prompt and continuation so far */
    int64_t n_cached;
    int64_t length; /* of the sample when its last rows were made */
    bool encoded;   /* the source has been through; true where there is none */
    int label;      /* row of the logits of this pass; -1: the prompt is not through yet */
} slot;

struct pf_generator {
    pf_arena arena;
    pf_model *model;
    pf_backend *backend;
    pf_graph *graph;
    pf_exec *exec;
    pf_value *logits;
    int64_t switches_at; /* length beyond which keys have to be made anew; 0: never */
    int n_slots;
    int64_t max_length, max_tokens;
    int64_t max_source;  /* rows of a source, those of a learned prompt too; 0: no encoder */
    int64_t source_rows; /* of a pass */
    pf_lead lead;
    bool has_prefix;        /* the learned prefix is in the cache */
    pf_buffer cache, cross; /* K and V rows of all layers; of the source */
    slot *slots;
    /* arrays of the batch, at capacity */
    int32_t *ids, *pos, *seg, *end, *sample, *kv_row, *label_row, *label_target, *label_sample;
    float *label_weight;
    pf_segment *segments;
    pf_ext_run *runs, *source_runs;
    pf_batch source; /* its arrays are ours, at capacity source_rows */
    int32_t *source_ids, *source_pos, *source_seg, *source_end, *source_sample, *source_kv_row;
    pf_segment *source_segments;
};

/* A pair of states of `rows` rows per layer. */
static peft_status make_pairs(pf_generator *g, int64_t rows, const char *what, pf_buffer *room,
                              pf_value ***k, pf_value ***v, peft_error *err) {
    const pf_model *m = g->model;
    const int64_t cols = m->n_kv_heads * m->head_dim;
    size_t bytes = 2 * (size_t)m->n_layers * (size_t)rows * (size_t)cols * sizeof(pf_real);
    PF_TRY(g->backend->alloc(g->backend, room, bytes, what, err));
    *k = PF_NEW_ARRAY(&g->arena, pf_value *, m->n_layers);
    *v = PF_NEW_ARRAY(&g->arena, pf_value *, m->n_layers);
    if (*k == NULL || *v == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_real *data = room->data;
    for (int l = 0; l < m->n_layers; l++) {
        (*k)[l] = pf_graph_state(g->graph, "cache_k", rows, cols, data);
        (*v)[l] = pf_graph_state(g->graph, "cache_v", rows, cols,
                                 data != NULL ? data + rows * cols : NULL);
        PF_CHECK_ALLOC((*k)[l], err);
        PF_CHECK_ALLOC((*v)[l], err);
        if (data != NULL) data += 2 * rows * cols;
    }
    return PEFT_OK;
}

static peft_status make_states(pf_generator *g, pf_build *b, peft_error *err) {
    const int64_t rows = g->n_slots * g->max_length + g->lead.prefix + g->lead.prompt;
    PF_TRY(make_pairs(g, rows, "the KV cache", &g->cache, &b->cache_k, &b->cache_v, err));
    if (g->max_source == 0) return PEFT_OK;
    return make_pairs(g, g->n_slots * g->max_source, "the KV cache of the sources", &g->cross,
                      &b->cross_k, &b->cross_v, err);
}

static peft_status make_arrays(pf_generator *g, peft_error *err) {
    size_t t = (size_t)g->max_tokens, s = (size_t)g->n_slots;
    int32_t **per_token[] = {&g->ids, &g->pos, &g->seg, &g->end, &g->sample, &g->kv_row};
    for (size_t i = 0; i < PF_COUNT(per_token); i++) {
        *per_token[i] = PF_NEW_ARRAY(&g->arena, int32_t, t);
        PF_CHECK_ALLOC(*per_token[i], err);
    }
    int32_t **per_slot[] = {&g->label_row, &g->label_target, &g->label_sample};
    for (size_t i = 0; i < PF_COUNT(per_slot); i++) {
        *per_slot[i] = PF_NEW_ARRAY(&g->arena, int32_t, s);
        PF_CHECK_ALLOC(*per_slot[i], err);
    }
    g->label_weight = PF_NEW_ARRAY(&g->arena, float, s);
    g->segments = PF_NEW_ARRAY(&g->arena, pf_segment, s);
    g->runs = PF_NEW_ARRAY(&g->arena, pf_ext_run, 2 * s);
    g->slots = PF_NEW_ARRAY(&g->arena, slot, s);
    if (g->label_weight == NULL || g->segments == NULL || g->runs == NULL || g->slots == NULL) {
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    if (g->max_source == 0) return PEFT_OK;
    int32_t **per_row[] = {&g->source_ids, &g->source_pos,    &g->source_seg,
                           &g->source_end, &g->source_sample, &g->source_kv_row};
    for (size_t i = 0; i < PF_COUNT(per_row); i++) {
        *per_row[i] = PF_NEW_ARRAY(&g->arena, int32_t, g->source_rows);
        PF_CHECK_ALLOC(*per_row[i], err);
    }
    g->source_segments = PF_NEW_ARRAY(&g->arena, pf_segment, s);
    g->source_runs = PF_NEW_ARRAY(&g->arena, pf_ext_run, s);
    PF_CHECK_ALLOC(g->source_segments, err);
    PF_CHECK_ALLOC(g->source_runs, err);
    return PEFT_OK;
}

static peft_status build(pf_generator *g, const pf_generator_options *opt, peft_error *err) {
    PF_TRY(pf_graph_new(&g->graph, pf_op_table, err));
    pf_build b = {.graph = g->graph, .mode = PF_BUILD_GENERATE, .adapters = opt->adapters};
    PF_TRY(make_states(g, &b, err));
    pf_value *hidden;
    PF_TRY(g->model->family->build(g->model, &b, &hidden, err));
    PF_TRY(pf_site_head_logits(&b, g->model->head, hidden, &g->logits, err));
    g->logits->result = true;
    if (opt->fuse) PF_TRY(pf_fusion_run(g->graph, pf_fusion_table, NULL, err));
    const int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = g->max_tokens,
                                              [PF_SPACE_LABELS] = g->n_slots,
                                              [PF_SPACE_SOURCE] = g->source_rows};
    return pf_exec_new_in(&g->exec, g->graph, g->backend, capacity, opt->lender, err);
}

peft_status pf_generator_new(pf_generator **out, pf_model *model, pf_backend *be,
                             const pf_generator_options *opt, peft_error *err) {
    *out = NULL;
    if (pf_task_is_classes(model->task))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is open for %s: it tells classes and writes no text; use classify",
                       model->name, pf_task_name(model->task));
    pf_generator *g = pf_calloc(1, sizeof *g);
    PF_CHECK_ALLOC(g, err);
    pf_arena_init(&g->arena, "generator");
    g->model = model;
    g->backend = be;
    g->switches_at = model->rope.type == PF_ROPE_LONGROPE ? model->rope.original_max_positions : 0;
    g->n_slots = opt->max_sequences > 0 ? opt->max_sequences : 1;
    g->max_length = opt->max_length;
    g->lead = pf_model_lead(model, opt->adapters);
    const int64_t positions = pf_model_positions(model, opt->adapters);
    if (positions > 0 && (g->max_length <= 0 || g->max_length > positions)) {
        g->max_length = positions;
    }
    g->max_tokens = opt->max_tokens > 0 ? opt->max_tokens : 512;
    if (g->max_tokens < g->n_slots) g->max_tokens = g->n_slots;
    if (g->max_tokens < g->lead.prompt) g->max_tokens = g->lead.prompt; /* in one pass */
    if (model->encoder_decoder) {
        g->max_source = opt->max_source > 0 ? opt->max_source : g->max_length;
        g->max_source += g->lead.each;
        g->source_rows = g->max_tokens > g->max_source ? g->max_tokens : g->max_source;
    }
    peft_status status = make_arrays(g, err);
    if (status == PEFT_OK) status = build(g, opt, err);
    if (status != PEFT_OK) {
        pf_generator_free(g);
        return status;
    }
    *out = g;
    return PEFT_OK;
}

void pf_generator_free(pf_generator *g) {
    if (g == NULL) return;
    pf_exec_free(g->exec);
    pf_graph_free(g->graph);
    if (g->backend != NULL) g->backend->free(g->backend, &g->cache);
    if (g->backend != NULL) g->backend->free(g->backend, &g->cross);
    pf_arena_release(&g->arena);
    pf_free(g);
}

int64_t pf_generator_cache_bytes(const pf_generator *g) {
    return (int64_t)(g->cache.size + g->cross.size);
}

int64_t pf_generator_other_bytes(const pf_generator *g) {
    return (int64_t)(g->arena.reserved + g->graph->arena.reserved);
}

int64_t pf_generator_arena_bytes(const pf_generator *g) {
    return g->exec->plan.arena_bytes;
}

/* Tokens that a sequence has before the first one that is generated. */
static int32_t n_given(const pf_generator *g, const pf_generation *it) {
    return g->max_source > 0 ? 1 : it->n_prompt;
}

static int32_t token_at(const pf_generator *g, const pf_generation *it, int64_t i) {
    const int32_t n = n_given(g, it);
    if (i >= n) return it->ids[i - n];
    return g->max_source > 0 ? g->model->decoder_start : it->prompt[i];
}

/* The source of a slot becomes rows of the next pass; false where there is no room for it now. */
static bool add_source(pf_generator *g, int s, const pf_generation *it, int32_t *n_seg) {
    pf_batch *b = &g->source;
    const int32_t start = b->n_tokens, each = g->lead.each, n = each + it->n_prompt;
    if (n > g->source_rows - start) return false;
    for (int32_t i = 0; i < n; i++) {
        g->source_ids[start + i] = i < each ? 0 : it->prompt[i - each];
        g->source_pos[start + i] = i;
        g->source_seg[start + i] = *n_seg;
        g->source_end[start + i] = start + n;
        g->source_sample[start + i] = g->slots[s].item;
        g->source_kv_row[start + i] = (int32_t)(s * g->max_source + i);
    }
    g->source_segments[(*n_seg)++] = (pf_segment){
        .start = start, .length = n, .parent = -1, .subtree_end = start + n, .rope_length = n};
    b->n_tokens += n;
    return true;
}

/* The pass before the first sequence: the rows of a learned prompt, for their keys and values. */
static peft_status run_prompt(pf_generator *g, peft_error *err) {
    const int32_t n = g->lead.prompt, base = (int32_t)(g->n_slots * g->max_length);
    if (n == 0) return PEFT_OK;
    for (int32_t i = 0; i < n; i++) {
        g->ids[i] = g->seg[i] = g->sample[i] = 0;
        g->pos[i] = (g->lead.apart ? 0 : g->lead.prefix) + i;
        g->end[i] = n;
        g->kv_row[i] = base + g->lead.prefix + i;
    }
    g->segments[0] = (pf_segment){
        .length = n, .parent = -1, .subtree_end = n, .rope_length = g->lead.prefix + n};
    g->runs[0] = (pf_ext_run){.ext = base, .length = g->lead.prefix, .row_end = n};
    const pf_batch b = {.n_tokens = n,
                        .ids = g->ids,
                        .pos = g->pos,
                        .seg = g->seg,
                        .end = g->end,
                        .sample = g->sample,
                        .segments = g->segments,
                        .n_segments = 1,
                        .n_prompt = n,
                        .label_row = g->label_row,
                        .label_target = g->label_target,
                        .label_weight = g->label_weight,
                        .label_sample = g->label_sample,
                        .ext_runs = g->runs,
                        .n_ext_runs = g->lead.prefix > 0,
                        .kv_row = g->kv_row,
                        .store_prefix = g->lead.prefix > 0,
                        .prefix_row = base};
    PF_TRY(pf_exec_bind(g->exec, &b, err));
    return pf_exec_forward(g->exec, err);
}

/* One ragged batch: of every slot as many tokens that are not cached yet as the budget allows. */
static void make_batch(pf_generator *g, const pf_generation *items, pf_batch *b) {
    int32_t rows = 0, n_seg = 0, n_runs = 0, n_labels = 0, n_source_seg = 0;
    const int32_t lead = g->lead.prefix + g->lead.prompt, /* rows, and the positions they take */
        taken = g->lead.apart ? g->lead.prompt : lead;
    g->source.n_tokens = 0;
    for (int s = 0; s < g->n_slots; s++) {
        slot *sl = &g->slots[s];
        sl->label = -1;
        if (sl->item < 0) continue;
        /* LongRoPE turns a sample that has become longer than the original context by other
         * frequencies: its keys are made anew, once, as in transformers */
        const int64_t length = taken + sl->n_total;
        if (g->switches_at > 0 && sl->length <= g->switches_at && length > g->switches_at)
            sl->n_cached = 0;
        int64_t n = sl->n_total - sl->n_cached;
        /* later slots keep a row each, so that no sequence waits for another's prompt */
        int64_t room = g->max_tokens - rows - (g->n_slots - 1 - s);
        if (n > room) n = room;
        if (n <= 0) continue;
        if (!sl->encoded && !add_source(g, s, &items[sl->item], &n_source_seg)) continue;
        sl->encoded = true;
        const int32_t start = rows;
        for (int64_t i = 0; i < n; i++, rows++) {
            int64_t p = sl->n_cached + i;
            g->ids[rows] = token_at(g, &items[sl->item], p);
            g->pos[rows] = taken + (int32_t)p;
            g->seg[rows] = n_seg;
            g->end[rows] = start + (int32_t)n;
            g->sample[rows] = sl->item;
            g->kv_row[rows] = (int32_t)(s * g->max_length + p);
        }
        g->segments[n_seg++] = (pf_segment){.start = start,
                                            .length = (int32_t)n,
                                            .parent = -1,
                                            .subtree_end = rows,
                                            .rope_length = (int32_t)length};
        if (g->max_source > 0)
            g->source_runs[n_seg - 1] =
                (pf_ext_run){.ext = (int32_t)(s * g->max_source),
                             .length = g->lead.each + items[sl->item].n_prompt,
                             .row_begin = start,
                             .row_end = rows};
        if (lead > 0) {
            g->runs[n_runs++] = (pf_ext_run){.ext = (int32_t)(g->n_slots * g->max_length),
                                             .length = lead,
                                             .row_begin = start,
                                             .row_end = rows};
        }
        if (sl->n_cached > 0) {
            g->runs[n_runs++] = (pf_ext_run){.ext = (int32_t)(s * g->max_length),
                                             .length = (int32_t)sl->n_cached,
                                             .pos = taken,
                                             .row_begin = start,
                                             .row_end = rows};
        }
        sl->n_cached += n;
        sl->length = length;
        if (sl->n_cached == sl->n_total) {
            sl->label = n_labels;
            g->label_row[n_labels] = rows - 1;
            g->label_weight[n_labels++] = 1;
        }
    }
    *b = (pf_batch){.n_tokens = rows,
                    .ids = g->ids,
                    .pos = g->pos,
                    .seg = g->seg,
                    .end = g->end,
                    .sample = g->sample,
                    .segments = g->segments,
                    .n_segments = n_seg,
                    .n_labels = n_labels,
                    .label_row = g->label_row,
                    .label_target = g->label_target,
                    .label_weight = g->label_weight,
                    .label_sample = g->label_sample,
                    .ext_runs = g->runs,
                    .n_ext_runs = n_runs,
                    .kv_row = g->kv_row,
                    .store_prefix = g->lead.prefix > 0 && !g->has_prefix,
                    .prefix_row = (int32_t)(g->n_slots * g->max_length)};
    g->has_prefix = true;
    if (g->max_source == 0) return;
    b->source_runs = g->source_runs;
    b->n_source_runs = n_seg;
    if (g->source.n_tokens == 0) return;
    g->source = (pf_batch){.n_tokens = g->source.n_tokens,
                           .ids = g->source_ids,
                           .pos = g->source_pos,
                           .seg = g->source_seg,
                           .end = g->source_end,
                           .sample = g->source_sample,
                           .segments = g->source_segments,
                           .n_segments = n_source_seg,
                           .prompt_each = g->lead.each,
                           .kv_row = g->source_kv_row};
    b->source = &g->source;
}

static bool is_eos(const pf_generate_options *opt, int32_t id) {
    for (int i = 0; i < opt->n_eos; i++) {
        if (opt->eos[i] == id) return true;
    }
    return false;
}

/* Takes the next token of a sequence; true when the sequence ends with it. */
static bool take_token(const pf_generator *g, const pf_generate_options *opt, slot *sl,
                       pf_generation *it, int32_t id) {
    if (is_eos(opt, id)) {
        it->finish = PF_FINISH_EOS;
        return true;
    }
    it->ids[it->n_ids++] = id;
    sl->n_total++;
    if (opt->on_token != NULL && opt->on_token(opt->ctx, sl->item, id)) {
        it->finish = PF_FINISH_STOP;
        return true;
    }
    if (it->n_ids >= opt->max_new_tokens) {
        it->finish = PF_FINISH_LENGTH;
        return true;
    }
    if (sl->n_total >= g->max_length) {
        it->finish = PF_FINISH_CONTEXT;
        return true;
    }
    return false;
}

static peft_status check_prompts(const pf_generator *g, const pf_generation *items, int n,
                                 peft_error *err) {
    for (int i = 0; i < n; i++) {
        if (items[i].n_prompt < 1) {
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "prompt %d has no tokens; generation needs at least one to start from",
                           i + 1);
        }
        const int64_t most = g->max_source - g->lead.each;
        if (g->max_source > 0 && items[i].n_prompt > most) {
            return PF_FAIL(
                err, PEFT_E_FORMAT,
                "prompt %d has %d tokens; the encoder was given room for %lld (--max-length)",
                i + 1, items[i].n_prompt, (long long)most);
        }
        if (g->max_source == 0 && items[i].n_prompt >= g->max_length) {
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "prompt %d has %d tokens; the context holds %lld and generation needs "
                           "room for one more",
                           i + 1, items[i].n_prompt, (long long)g->max_length);
        }
        for (int32_t k = 0; k < items[i].n_prompt; k++) {
            if (items[i].prompt[k] >= 0 && items[i].prompt[k] < g->model->vocab) continue;
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "prompt %d: token id %d is outside of the vocabulary of %lld", i + 1,
                           items[i].prompt[k], (long long)g->model->vocab);
        }
    }
    return PEFT_OK;
}

peft_status pf_generator_run(pf_generator *g, const pf_generate_options *opt, pf_generation *items,
                             int n, peft_error *err) {
    PF_TRY(check_prompts(g, items, n, err));
    for (int i = 0; i < n; i++) {
        items[i].n_ids = 0;
        items[i].finish = PF_FINISH_LENGTH;
    }
    if (opt->max_new_tokens < 1) return PEFT_OK;
    pf_arena_mark mark = pf_arena_get_mark(&g->arena);
    pf_sampler sampler;
    PF_TRY(pf_sampler_init(&sampler, &g->arena, &opt->sampling, g->model->vocab, err));
    int32_t *seen = PF_NEW_ARRAY(&g->arena, int32_t, g->max_length);
    PF_CHECK_ALLOC(seen, err);

    for (int s = 0; s < g->n_slots; s++) g->slots[s].item = -1;
    int next = 0, active = 0;
    pf_exec_weights_stay(g->exec, true); /* in this run */
    peft_status status = run_prompt(g, err);
    g->has_prefix = g->lead.prompt > 0; /* that pass has stored it */
    if (status != PEFT_OK) {
        pf_arena_rewind(&g->arena, mark);
        return status;
    }
    for (;;) {
        for (int s = 0; s < g->n_slots && next < n; s++) {
            if (g->slots[s].item >= 0) continue;
            g->slots[s] = (slot){
                .item = next, .n_total = n_given(g, &items[next]), .encoded = g->max_source == 0};
            next++;
            active++;
        }
        if (active == 0) break;
        if (opt->stop_signal != NULL && *opt->stop_signal != 0) {
            status = PF_FAIL(err, PEFT_E_INTERRUPTED, "generation was interrupted");
            break;
        }
        pf_batch batch;
        make_batch(g, items, &batch);
        if ((status = pf_exec_bind(g->exec, &batch, err)) != PEFT_OK) break;
        if ((status = pf_exec_forward(g->exec, err)) != PEFT_OK) break;
        const pf_real *logits = pf_exec_data(g->exec, g->logits);
        for (int s = 0; s < g->n_slots; s++) {
            slot *sl = &g->slots[s];
            if (sl->item < 0 || sl->label < 0) continue;
            pf_generation *it = &items[sl->item];
            for (int64_t i = 0; i < sl->n_total; i++) seen[i] = token_at(g, it, i);
            int32_t id = pf_sampler_next(&sampler, logits + sl->label * g->model->vocab, seen,
                                         sl->n_total, (uint64_t)sl->item);
            if (take_token(g, opt, sl, it, id)) {
                sl->item = -1;
                active--;
            }
        }
    }
    pf_arena_rewind(&g->arena, mark);
    return status;
}

/* first_look.c - see prepared.h: what an adapter stands on over the first batches of the training
 * data, for methods whose first weights depend on what their sites see (peft/first_look.h).
 *
 * Batches are per_device_train_batch_size samples in the order of the steps, epoch after epoch;
 * what has fewer rows than the method needs is joined with the next. They are computed in f32 and
 * without a head. The rows of all inputs together can be many times the model's activations, so
 * they are gathered for as many inputs at a time as fit, and the samples run again for the next
 * ones: the numbers do not depend on that. How many fit, and what all of it takes, is planned
 * before anything runs. */
#include "recipes/prepared.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "peft/first_look.h"
#include "recipes/look_taps.h"

#include <stdlib.h>
#include <string.h>

#define ROOM ((int64_t)1 << 30) /* bytes for rows, where there is no training.memory_limit */

enum { TOKENS, SOURCE, SPACES }; /* of inputs: rows of the (only or decoder's) stack, encoder's */

typedef struct input { /* one value that comes in at one site or at several */
    int space;
    int64_t cols;
    int group; /* that is gathered at once */
    bool live; /* more of it is wanted */
    float *x;  /* of the batch */
} input;

typedef struct look_batch {
    pf_sample *samples;
    int n, cap;
    int64_t *to[SPACES]; /* (cap + 1) row of x where a sample begins, by its number in the batch */
} look_batch;

typedef struct gather {
    pf_prepared *p;
    pf_adapter *ad; /* that wants to see */
    const pf_first_look *look;
    pf_look_wish wish;
    pf_arena arena;
    pf_look_taps taps;
    input *inputs;
    int n_inputs, n_groups;
    bool *keep;
    int64_t capacity[PF_SPACE_COUNT];       /* rows computed at once */
    int64_t least_capacity[PF_SPACE_COUNT]; /* those of the longest sample */
    int64_t most[SPACES];                   /* rows of a batch */
    int32_t most_samples;                   /* likewise */
    int64_t bytes;                          /* of all of it */
    /* where the next batch begins */
    int64_t step;
    int32_t at;
    look_batch batch;
    /* what is open now */
    pf_graph *graph;
    pf_exec *exec;
    int group; /* its group; -1: none */
    pf_batch_builder *bb;
    int64_t rows; /* seen in all */
} gather;

/* ---- which rows ------------------------------------------------------------------------------ */

/* -100: it is not learned. A decoder's row has the label of the token that it predicts, other rows
 * that of their own token, as in Hugging Face's batches. */
static int64_t label_of(const gather *g, const pf_sample *s, int32_t t) {
    if (s->classes != NULL) return s->classes[t] >= 0 ? s->classes[t] : -100;
    if (s->source != NULL) t++;
    const int32_t end = s->end_label > 0 ? s->end_label : s->n_tokens;
    (void)g;
    if (t < s->first_label || t >= end) return -100;
    return s->weights != NULL && s->weights[t] == 0 ? -100 : s->tokens[t];
}

static bool is_seen(const gather *g, const pf_sample *s, int32_t t) {
    if (s->source != NULL && t == s->n_tokens - 1) return false; /* predicts nothing */
    if (!g->wish.by_label || g->p->loaded.model->task == PF_TASK_SEQ_CLS) return true;
    return label_of(g, s, t) != g->wish.without;
}

static int64_t seen_of(const gather *g, const pf_sample *s, int space) {
    if (space == SOURCE) return s->source != NULL ? s->n_source : 0;
    int64_t n = 0;
    for (int32_t t = 0; t < s->n_tokens; t++) n += is_seen(g, s, t);
    return n;
}

/* Is there a row of every kind that is looked at, `least` of them? */
static bool is_enough(const gather *g, const look_batch *b) {
    for (int s = 0; s < SPACES; s++) {
        bool wanted = false;
        for (int i = 0; i < g->n_inputs; i++) wanted = wanted || g->inputs[i].space == s;
        if (wanted && b->to[s][b->n] < g->wish.least) return false;
    }
    return true;
}

static void add_sample(gather *g, int64_t example) {
    look_batch *b = &g->batch;
    PF_ASSERT(b->n < b->cap);
    const pf_sample s = pf_dataset_sample(&g->p->data.train_set, example, b->n);
    b->samples[b->n] = s;
    for (int k = 0; k < SPACES; k++) b->to[k][b->n + 1] = b->to[k][b->n] + seen_of(g, &s, k);
    b->n++;
}

static void next_batch(gather *g) {
    pf_prepared *p = g->p;
    const int32_t size = (int32_t)p->run.training.per_device_train_batch_size;
    g->batch.n = 0;
    do {
        pf_step step;
        pf_step_plan_get(p->steps, g->step, &step);
        const int32_t end = step.n - g->at < size ? step.n : g->at + size;
        for (int32_t k = g->at; k < end; k++) add_sample(g, step.examples[k]);
        g->at = end;
        if (end < step.n) continue;
        g->at = 0;
        g->step++;
    } while (!is_enough(g, &g->batch) && g->batch.n < p->data.train.n);
}

/* ---- what it will take ----------------------------------------------------------------------- */

static int descending(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static void set_capacity(const pf_prepared *p, int64_t *capacity, int64_t rows, int64_t samples) {
    const pf_model *m = p->loaded.model;
    const pf_lead lead = pf_model_lead(m, true);
    rows += lead.each * samples;
    capacity[PF_SPACE_TOKENS] = capacity[PF_SPACE_LABELS] = rows + lead.prompt;
    capacity[PF_SPACE_SOURCE] = m->encoder_decoder ? rows : 0;
}

/* Rows that a batch may have: those of the samples that have most. */
static peft_status bound_batches(gather *g, peft_error *err) {
    const pf_prepared *p = g->p;
    const int64_t n = p->data.train.n, size = p->run.training.per_device_train_batch_size;
    int64_t *rows = pf_calloc((size_t)n, sizeof *rows), longest = 0, all = 0;
    PF_CHECK_ALLOC(rows, err);
    for (int k = 0; k < SPACES; k++) {
        int64_t fewest = 0;
        for (int64_t i = 0; i < n; i++) {
            const pf_sample s = pf_dataset_sample(p->data.train.set, p->data.train.index[i], 0);
            rows[i] = seen_of(g, &s, k);
            const int64_t computed = k == TOKENS ? s.n_tokens : s.n_source;
            if (computed > longest) longest = computed;
            if (k == TOKENS) all += s.n_tokens + (s.source != NULL ? s.n_source : 0);
        }
        qsort(rows, (size_t)n, sizeof *rows, descending);
        for (int64_t i = 0; i < n && i < size; i++) {
            g->most[k] += rows[i];
            fewest += rows[n - 1 - i];
        }
        if (fewest < g->wish.least) g->most[k] += g->wish.least; /* some are joined */
    }
    pf_free(rows);
    if (g->most[TOKENS] == 0)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.%s: first weights that look at the data find no learned token there",
                       g->ad->method->name);
    g->most_samples = (int32_t)(size + (g->wish.least < n ? g->wish.least : n));
    int64_t chunk = all < PF_AUTO_TOKENS ? all : PF_AUTO_TOKENS;
    if (chunk < longest) chunk = longest;
    set_capacity(p, g->capacity, chunk, g->most_samples);
    set_capacity(p, g->least_capacity, longest, 1);
    return PEFT_OK;
}

/* The inputs, and what the graph takes where none is kept. */
static peft_status find_inputs(gather *g, int64_t *arena, peft_error *err) {
    pf_backend *null;
    pf_graph *graph;
    pf_exec *exec;
    PF_TRY(pf_backend_open_null(&null, g->p->loaded.backend->n_workers, err));
    g->taps.keep = NULL;
    peft_status status = pf_look_taps_build(&g->taps, null, g->capacity, &graph, &exec, err);
    if (status == PEFT_OK) {
        g->n_inputs = g->taps.n_inputs;
        g->inputs = PF_NEW_ARRAY(&g->arena, input, g->n_inputs + 1);
        g->keep = PF_NEW_ARRAY(&g->arena, bool, g->n_inputs + 1);
        if (g->inputs == NULL || g->keep == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        for (int i = 0; i < g->n_inputs && status == PEFT_OK; i++)
            g->inputs[i] =
                (input){.space = g->taps.inputs[i]->space == PF_SPACE_SOURCE ? SOURCE : TOKENS,
                        .cols = g->taps.inputs[i]->cols,
                        .live = true};
        *arena = exec->plan.arena_bytes + (int64_t)graph->arena.reserved;
        pf_exec_free(exec);
        pf_graph_free(graph);
    }
    pf_backend_close(null);
    return status;
}

/* Bytes while input i is gathered: its rows, and its value as it was computed. */
static int64_t bytes_of(const gather *g, int i) {
    const input *in = &g->inputs[i];
    const int64_t computed = g->capacity[in->space == SOURCE ? PF_SPACE_SOURCE : PF_SPACE_TOKENS];
    return (g->most[in->space] + computed) * in->cols * (int64_t)sizeof(float);
}

/* Sets the groups and g->bytes; limit 0: none. */
static peft_status plan_groups(gather *g, int64_t limit, peft_error *err) {
    int64_t fixed = 0, kept = 0, work = 0, used = 0, most = 0;
    PF_TRY(find_inputs(g, &fixed, err));
    for (int i = 0; i < g->n_inputs; i++) {
        int64_t more = 0;
        for (int t = 0; t < g->taps.n; t++) {
            if (g->taps.taps[t].input != i) continue;
            const pf_look_bytes b =
                g->look->bytes(g->ad, g->taps.taps[t].site, g->most[g->inputs[i].space]);
            if (b.kept > more) more = b.kept;
            if (b.work > work) work = b.work;
        }
        kept += more;
    }
    const int workers = g->p->loaded.backend->n_workers;
    fixed += kept + work * (workers < g->n_inputs ? workers : g->n_inputs);
    const int64_t room = limit > 0 ? limit - fixed : ROOM;
    g->n_groups = 0;
    for (int i = 0; i < g->n_inputs; i++) {
        const int64_t bytes = bytes_of(g, i);
        if (g->n_groups == 0 || used + bytes > room) {
            g->n_groups++;
            used = 0;
        }
        g->inputs[i].group = g->n_groups - 1;
        used += bytes;
        if (used > most) most = used;
    }
    g->bytes = fixed + most;
    return PEFT_OK;
}

/* Under a limit fewer rows are computed at once before it is refused. */
static peft_status plan_look(gather *g, int64_t used, peft_error *err) {
    const int64_t limit = (int64_t)g->p->run.training.memory_limit;
    const int64_t room = limit > used ? limit - used : limit > 0;
    PF_TRY(bound_batches(g, err));
    PF_TRY(plan_groups(g, room, err));
    if (limit == 0 || used + g->bytes <= limit) return PEFT_OK;
    for (int k = 0; k < PF_SPACE_COUNT; k++) g->capacity[k] = g->least_capacity[k];
    PF_TRY(plan_groups(g, room, err));
    if (used + g->bytes <= limit) return PEFT_OK;
    char is[32], need[32], look[32];
    return PF_FAIL(
        err, PEFT_E_NOMEM,
        "training.memory_limit is %s, and first weights that look at the data need %s (%s "
        "of it for batches of up to %lld rows). Try a smaller "
        "training.per_device_train_batch_size, fewer target_modules, or a smaller rank",
        pf_format_bytes((double)limit, is, sizeof is),
        pf_format_bytes((double)(used + g->bytes), need, sizeof need),
        pf_format_bytes((double)g->bytes, look, sizeof look), (long long)g->most[TOKENS]);
}

/* ---- one batch ------------------------------------------------------------------------------- */

static void close_graph(gather *g) {
    pf_exec_free(g->exec);
    pf_graph_free(g->graph);
    g->exec = NULL;
    g->graph = NULL;
    g->group = -1;
}

static peft_status open_graph(gather *g, int group, peft_error *err) {
    if (g->group == group) return PEFT_OK;
    close_graph(g);
    for (int i = 0; i < g->n_inputs; i++) g->keep[i] = g->inputs[i].group == group;
    g->taps.keep = g->keep;
    PF_TRY(
        pf_look_taps_build(&g->taps, g->p->loaded.backend, g->capacity, &g->graph, &g->exec, err));
    PF_ASSERT(g->taps.n_inputs == g->n_inputs);
    g->group = group;
    return PEFT_OK;
}

/* Rows of one space of what was computed last go to where their samples' rows stand. */
static void take_rows(gather *g, const pf_batch *rows, int space) {
    const pf_model *m = g->p->loaded.model;
    const int32_t first = space == TOKENS ? rows->n_prompt : 0;
    const int32_t each = /* learned rows that a text begins with */
        space == (m->encoder_decoder ? SOURCE : TOKENS) ? pf_model_lead(m, true).each : 0;
    int32_t segment = -1;
    int64_t to = 0;
    for (int32_t r = first; r < rows->n_tokens; r++) {
        const int32_t k = rows->sample[r], t = r - rows->segments[rows->seg[r]].start - each;
        if (rows->seg[r] != segment) { /* a sample begins */
            segment = rows->seg[r];
            to = g->batch.to[space][k];
        }
        if (t < 0 || (space == TOKENS && !is_seen(g, &g->batch.samples[k], t))) continue;
        for (int i = 0; i < g->n_inputs; i++) {
            const input *in = &g->inputs[i];
            if (in->x == NULL || in->space != space) continue;
            memcpy(in->x + to * in->cols,
                   pf_exec_data(g->exec, g->taps.inputs[i]) + (int64_t)r * in->cols,
                   (size_t)in->cols * sizeof(float));
        }
        to++;
    }
}

static peft_status compute(gather *g, peft_error *err) {
    int32_t n_micro;
    PF_TRY(pf_batch_builder_begin(g->bb, g->batch.samples, g->batch.n, 0, &n_micro, err));
    for (int32_t m = 0; m < n_micro; m++) {
        pf_batch batch;
        pf_batch_builder_get(g->bb, m, &batch);
        PF_TRY(pf_exec_bind(g->exec, &batch, err));
        PF_TRY(pf_exec_forward(g->exec, err));
        take_rows(g, &batch, TOKENS);
        if (batch.source != NULL) take_rows(g, batch.source, SOURCE);
    }
    return PEFT_OK;
}

/* What was gathered goes to the method, each input with the sites that share it. */
static peft_status show(gather *g, peft_error *err) {
    pf_look_input *in = pf_calloc((size_t)g->n_inputs + 1, sizeof *in);
    pf_site **sites = pf_calloc((size_t)g->taps.n + 1, sizeof(pf_site *));
    int used = 0, n = 0;
    peft_status status = PEFT_OK;
    if (in == NULL || sites == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int i = 0; i < g->n_inputs && status == PEFT_OK; i++) {
        if (g->inputs[i].x == NULL) continue;
        in[n] = (pf_look_input){.sites = sites + used,
                                .rows = g->batch.to[g->inputs[i].space][g->batch.n],
                                .cols = g->inputs[i].cols,
                                .x = g->inputs[i].x};
        for (int t = 0; t < g->taps.n; t++) {
            if (g->taps.taps[t].input != i) continue;
            sites[used++] = g->taps.taps[t].site;
            in[n].n_sites++;
        }
        n++;
    }
    if (status == PEFT_OK)
        status = g->look->show(g->ad, &g->p->arena, in, n, g->p->loaded.backend->pool, err);
    pf_free(in);
    pf_free(sites);
    return status;
}

static peft_status look_at_group(gather *g, int group, peft_error *err) {
    peft_status status = PEFT_OK;
    bool any = false;
    for (int i = 0; i < g->n_inputs; i++)
        any = any || (g->inputs[i].group == group && g->inputs[i].live);
    if (!any) return PEFT_OK;
    PF_TRY(open_graph(g, group, err));
    for (int i = 0; i < g->n_inputs && status == PEFT_OK; i++) {
        input *in = &g->inputs[i];
        if (in->group != group || !in->live) continue;
        const int64_t rows = g->batch.to[in->space][g->batch.n];
        in->x = pf_calloc((size_t)(rows + 1), (size_t)in->cols * sizeof *in->x);
        if (in->x == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for what the layers see: %lld rows",
                             (long long)rows);
    }
    if (status == PEFT_OK) status = compute(g, err);
    if (status == PEFT_OK) status = show(g, err);
    for (int i = 0; i < g->n_inputs; i++) {
        pf_free(g->inputs[i].x);
        g->inputs[i].x = NULL;
    }
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static peft_status make_room(gather *g, peft_error *err) {
    look_batch *b = &g->batch;
    pf_batch_builder_options o = pf_prepared_builder(g->p);
    o.max_tokens = (int32_t)(g->capacity[PF_SPACE_TOKENS] + g->capacity[PF_SPACE_SOURCE]);
    if (o.max_tokens < o.prompt_rows + 1) o.max_tokens = o.prompt_rows + 1;
    o.max_labels = (int32_t)g->capacity[PF_SPACE_LABELS];
    o.max_samples = b->cap = g->most_samples;
    o.share = PF_SHARE_NEVER;
    o.dropout = false;
    o.keep_tail = true;
    b->samples = PF_NEW_ARRAY(&g->arena, pf_sample, b->cap);
    PF_CHECK_ALLOC(b->samples, err);
    for (int k = 0; k < SPACES; k++) {
        b->to[k] = PF_NEW_ARRAY(&g->arena, int64_t, b->cap + 1);
        PF_CHECK_ALLOC(b->to[k], err);
    }
    return pf_batch_builder_new(&g->bb, &o, err);
}

static peft_status look_until_enough(gather *g, peft_error *err) {
    bool done = false;
    while (!done && g->rows < g->wish.max_rows) {
        next_batch(g);
        for (int k = 0; k < g->n_groups; k++) PF_TRY(look_at_group(g, k, err));
        PF_TRY(g->look->turn(g->ad, g->wish.sites, &done, err));
        for (int i = 0; i < g->n_inputs; i++) g->inputs[i].live = false;
        for (int t = 0; t < g->taps.n; t++) {
            const pf_look_tap *tap = &g->taps.taps[t];
            if (tap->input >= 0 && g->wish.sites[tap->site->index])
                g->inputs[tap->input].live = true;
        }
        for (int k = 0; k < SPACES; k++) g->rows += g->batch.to[k][g->batch.n];
        g->p->looked.samples += g->batch.n;
        g->p->looked.batches++;
    }
    return PEFT_OK;
}

static peft_status look(gather *g, const void **section, peft_error *err) {
    const double start = pf_now();
    const char *line;
    PF_TRY(make_room(g, err));
    PF_TRY(look_until_enough(g, err));
    PF_TRY(g->look->settle(g->ad, &g->p->arena, section, &line, err));
    char time[32];
    g->p->looked.rows += g->rows;
    PF_INFO("%s; looked at %lld rows of %lld samples in %s", line, (long long)g->rows,
            (long long)g->p->looked.samples,
            pf_format_duration(pf_now() - start, time, sizeof time));
    return PEFT_OK;
}

static bool wants(const pf_adapter *ad, pf_look_wish *wish) {
    return ad->method->first_look != NULL && ad->method->first_look->wants(ad, wish);
}

static peft_status look_for(pf_prepared *p, pf_adapter *ad, int64_t used, const void **section,
                            peft_error *err) {
    const pf_model *m = p->loaded.model;
    gather g = {.p = p, .ad = ad, .look = ad->method->first_look, .group = -1};
    pf_arena_init(&g.arena, "first look");
    g.wish.sites = PF_NEW_ARRAY(&g.arena, bool, m->n_sites);
    peft_status status = PEFT_OK;
    if (g.wish.sites == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) {
        wants(ad, &g.wish);
        status = pf_look_taps_attach(&g.taps, &g.arena, p->loaded.model, g.wish.sites,
                                     ad->method->name, err);
    }
    if (status == PEFT_OK) status = plan_look(&g, used, err);
    if (g.bytes > p->looked.bytes) p->looked.bytes = g.bytes;
    p->looked.peak = used + p->looked.bytes;
    if (status == PEFT_OK && !m->shapes_only) status = look(&g, section, err);
    close_graph(&g);
    pf_batch_builder_free(g.bb);
    pf_look_taps_detach(&g.taps);
    pf_arena_release(&g.arena);
    if (!m->shapes_only) pf_give_back();
    return status;
}

peft_status pf_prepared_first_look(pf_prepared *p, int64_t used, pf_peft_cfg *next, bool *any,
                                   peft_error *err) {
    pf_adapter *ad = p->loaded.adapter;
    pf_look_wish wish = {0};
    *any = wants(ad, &wish);
    for (int i = 0; i < ad->n_parts; i++) *any = *any || wants(ad->parts[i], &wish);
    if (!*any) return PEFT_OK;
    pf_adapter_suspend(ad);
    for (pf_adapter *b = ad->below; b != NULL; b = b->next) PF_TRY(pf_adapter_resume(b, err));
    if (ad->n_parts == 0) return look_for(p, ad, used, &next->method_cfg, err);
    for (int i = 0; i < ad->n_parts; i++) {
        if (!wants(ad->parts[i], &wish)) continue;
        PF_TRY(look_for(p, ad->parts[i], used, i == 0 ? &next->method_cfg : &next->also_cfg[i - 1],
                        err));
    }
    return PEFT_OK;
}

/* first_look.c - see prepared.h: the bare base over the first rows of the training data, for
 * methods whose first weights depend on what their sites see (peft/first_look.h).
 *
 * Samples are looked at in the order of the steps, one at a time, in f32 and without fusion, until
 * there are as many rows as wanted, or the first epoch ends. The rows of all inputs together can be
 * many times the model's activations, so they are gathered for as many inputs as fit into ROOM at
 * a time, and the samples run again for the next ones: the numbers do not depend on that. */
#include "recipes/prepared.h"

#include "base/log.h"
#include "base/mem.h"
#include "peft/first_look.h"
#include "train/loss_graph.h"

#include <string.h>

#define ROOM ((int64_t)1 << 30) /* bytes for rows, where training.memory_limit asks for no less */

typedef struct tap tap;
typedef struct gather {
    pf_prepared *p;
    const pf_first_look *look;
    pf_look_wish wish;
    pf_arena arena;
    tap *taps; /* in the order of the model's sites */
    int n_taps;
    int64_t *examples; /* that are looked at */
    int64_t n_examples, rows;
    int32_t longest;
    int64_t room; /* bytes */
    /* the build at hand: inputs by the order in which they come up */
    pf_value **inputs;
    int n_inputs, begin, end; /* those that are gathered now: [begin, end) */
    bool full;
    int64_t used;
    float **x; /* by input - begin */
} gather;

struct tap {
    gather *g;
    pf_site *site;
    int input;
};

/* ---- taps ------------------------------------------------------------------------------------ */

static peft_status note_input(pf_build *b, void *self, pf_site *site, pf_value *x,
                              uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)b, (void)mask_key, (void)y;
    tap *t = self;
    gather *g = t->g;
    if (x->space != PF_SPACE_TOKENS) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.%s: first weights that look at the data need one row for each token, "
                       "and %s sees others; leave it out of target_modules",
                       g->p->run.peft.method, site->name);
    }
    int i = g->n_inputs - 1;
    while (i >= 0 && g->inputs[i] != x) i--;
    t->input = i >= 0 ? i : g->n_inputs;
    if (i >= 0) return PEFT_OK;
    g->inputs[g->n_inputs++] = x;
    if (t->input < g->begin || g->full) return PEFT_OK;
    const int64_t bytes = g->rows * x->cols * (int64_t)sizeof(float);
    if (t->input > g->begin && g->used + bytes > g->room) {
        g->full = true;
        return PEFT_OK;
    }
    g->used += bytes;
    g->end = t->input + 1;
    x->result = true; /* its room is not reused before it is read */
    return PEFT_OK;
}

static const pf_site_hooks tap_hooks = {.output = note_input};

static peft_status attach_taps(gather *g, peft_error *err) {
    const pf_model *m = g->p->loaded.model;
    g->taps = PF_NEW_ARRAY(&g->arena, tap, m->n_sites);
    g->inputs = PF_NEW_ARRAY(&g->arena, pf_value *, m->n_sites);
    g->x = PF_NEW_ARRAY(&g->arena, float *, m->n_sites);
    PF_CHECK_ALLOC(g->taps, err);
    PF_CHECK_ALLOC(g->inputs, err);
    PF_CHECK_ALLOC(g->x, err);
    for (int i = 0; i < m->n_sites; i++) {
        if (!g->wish.sites[i]) continue;
        tap *t = &g->taps[g->n_taps];
        *t = (tap){.g = g, .site = m->sites[i], .input = -1};
        PF_TRY(pf_site_attach(&g->arena, t->site, &tap_hooks, t, err));
        g->n_taps++;
    }
    return PEFT_OK;
}

/* ---- which rows ------------------------------------------------------------------------------ */

static bool is_seen(const gather *g, const pf_sample *s, int32_t t) {
    if (!g->wish.learned_only || g->p->loaded.model->task == PF_TASK_SEQ_CLS) return true;
    if (s->classes != NULL) return s->classes[t] >= 0;
    const int32_t end = s->end_label > 0 ? s->end_label : s->n_tokens;
    if (t < s->first_label || t >= end) return false;
    return s->weights == NULL || s->weights[t] != 0;
}

static pf_sample sample_of(const gather *g, int64_t example) {
    return pf_dataset_sample(&g->p->data.train_set, example, 0);
}

static peft_status choose_rows(gather *g, peft_error *err) {
    pf_prepared *p = g->p;
    g->examples = PF_NEW_ARRAY(&g->arena, int64_t, p->data.train.n);
    PF_CHECK_ALLOC(g->examples, err);
    for (int64_t i = 0; i < p->steps_per_epoch && g->rows < g->wish.rows; i++) {
        pf_step step;
        pf_step_plan_get(p->steps, i, &step);
        for (int32_t k = 0; k < step.n && g->rows < g->wish.rows; k++) {
            const pf_sample s = sample_of(g, step.examples[k]);
            int64_t n = 0;
            for (int32_t t = 0; t < s.n_tokens; t++) n += is_seen(g, &s, t);
            if (n == 0 || g->n_examples == p->data.train.n) continue;
            g->examples[g->n_examples++] = step.examples[k];
            g->rows += n;
            if (s.n_tokens > g->longest) g->longest = s.n_tokens;
        }
    }
    if (g->rows > g->wish.rows) g->rows = g->wish.rows;
    if (g->rows > 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "peft.%s: first weights that look at the data find no learned token there",
                   p->run.peft.method);
}

/* ---- one pass -------------------------------------------------------------------------------- */

/* Rows of the sample that was computed last, behind the `done` ones that are there. */
static int64_t take_rows(gather *g, const pf_exec *exec, const pf_sample *s, int64_t done) {
    int64_t at = done;
    for (int32_t t = 0; t < s->n_tokens && at < g->rows; t++) {
        if (!is_seen(g, s, t)) continue;
        for (int i = g->begin; i < g->end; i++) {
            const int64_t cols = g->inputs[i]->cols;
            memcpy(g->x[i - g->begin] + at * cols, pf_exec_data(exec, g->inputs[i]) + t * cols,
                   (size_t)cols * sizeof(float));
        }
        at++;
    }
    return at;
}

static peft_status run_samples(gather *g, pf_loss_graph *lg, pf_batch_builder *bb,
                               peft_error *err) {
    int64_t done = 0;
    for (int64_t i = 0; i < g->n_examples; i++) {
        const pf_sample s = sample_of(g, g->examples[i]);
        pf_loss_sums sums = {0};
        int32_t n_micro;
        pf_batch batch;
        PF_TRY(pf_batch_builder_begin(bb, &s, 1, 0, &n_micro, err));
        if (n_micro != 1) continue;
        pf_batch_builder_get(bb, 0, &batch);
        PF_TRY(pf_loss_graph_forward(lg, &batch, &sums, err));
        done = take_rows(g, lg->exec, &s, done);
    }
    g->rows = done;
    return PEFT_OK;
}

/* What was gathered goes to the method, each input with the sites that share it. */
static peft_status show(gather *g, peft_error *err) {
    const int n = g->end - g->begin;
    pf_look_input *in = pf_calloc((size_t)n, sizeof *in);
    pf_site **sites = pf_calloc((size_t)g->n_taps, sizeof(pf_site *));
    int used = 0;
    peft_status status = PEFT_OK;
    if (in == NULL || sites == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        in[i] = (pf_look_input){.sites = sites + used,
                                .rows = g->rows,
                                .cols = g->inputs[g->begin + i]->cols,
                                .x = g->x[i]};
        for (int t = 0; t < g->n_taps; t++) {
            if (g->taps[t].input != g->begin + i) continue;
            sites[used++] = g->taps[t].site;
            in[i].n_sites++;
        }
    }
    if (status == PEFT_OK)
        status = g->look->show(g->p->loaded.adapter, &g->p->arena, in, n,
                               g->p->loaded.backend->pool, err);
    pf_free(in);
    pf_free(sites);
    return status;
}

static peft_status build(gather *g, pf_loss_graph *lg, pf_batch_builder **bb, peft_error *err) {
    const pf_model *m = g->p->loaded.model;
    const pf_loss_graph_options lo = {
        .adapters = true, .max_tokens = g->longest, .max_labels = g->longest};
    const pf_batch_builder_options bo = {.max_tokens = g->longest,
                                         .max_labels = g->longest,
                                         .max_samples = 1,
                                         .share = PF_SHARE_NEVER,
                                         .rope_original = pf_rope_original(&m->rope),
                                         .keep_tail = true};
    g->n_inputs = 0;
    g->end = g->begin;
    g->used = 0;
    g->full = false;
    for (int i = 0; i < g->n_taps; i++) g->taps[i].input = -1;
    PF_TRY(pf_loss_graph_init(lg, g->p->loaded.model, g->p->loaded.backend, &lo, err));
    return pf_batch_builder_new(bb, &bo, err);
}

static peft_status pass(gather *g, peft_error *err) {
    pf_loss_graph lg = {0};
    pf_batch_builder *bb = NULL;
    peft_status status = build(g, &lg, &bb, err);
    for (int i = g->begin; i < g->end && status == PEFT_OK; i++) {
        float *x = pf_calloc((size_t)g->rows, (size_t)g->inputs[i]->cols * sizeof *x);
        g->x[i - g->begin] = x;
        if (x == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for what the layers see: %lld rows",
                             (long long)g->rows);
    }
    if (status == PEFT_OK) status = run_samples(g, &lg, bb, err);
    if (status == PEFT_OK && g->end > g->begin) status = show(g, err);
    for (int i = 0; i < g->end - g->begin; i++) {
        pf_free(g->x[i]);
        g->x[i] = NULL;
    }
    pf_batch_builder_free(bb);
    pf_loss_graph_release(&lg);
    return status;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static peft_status look(gather *g, const void **section, peft_error *err) {
    pf_prepared *p = g->p;
    const char *line;
    const int64_t limit = (int64_t)p->run.training.memory_limit;
    g->room = limit > 0 && limit / 8 < ROOM ? limit / 8 : ROOM;
    PF_TRY(choose_rows(g, err));
    PF_TRY(attach_taps(g, err));
    do {
        PF_TRY(pass(g, err));
        g->begin = g->end;
    } while (g->begin < g->n_inputs);
    PF_TRY(g->look->settle(p->loaded.adapter, &p->arena, section, &line, err));
    PF_INFO("%s; looked at %lld rows of %lld samples", line, (long long)g->rows,
            (long long)g->n_examples);
    return PEFT_OK;
}

static bool wants(const pf_adapter *ad, pf_look_wish *wish) {
    return ad->method->first_look != NULL && ad->method->first_look->wants(ad, wish);
}

peft_status pf_prepared_first_look(pf_prepared *p, const void **section, peft_error *err) {
    pf_adapter *ad = p->loaded.adapter;
    gather g = {.p = p, .look = ad->method->first_look};
    *section = NULL;
    bool any = wants(ad, &g.wish);
    for (int i = 0; i < ad->n_parts; i++) any = any || wants(ad->parts[i], &g.wish);
    if (!any) return PEFT_OK;
    if (ad->n_parts > 0 || ad->below != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.%s: first weights that look at the data are there for one adapter on "
                       "the bare base, not beside %s",
                       p->run.peft.method,
                       ad->below != NULL ? "an adapter below it (model.create_new_adapter)"
                                         : "other methods");
    }
    if (p->loaded.model->shapes_only) {
        PF_INFO("peft.%s: first weights look at the data, which a plan does not; it counts the "
                "ranks as they are configured",
                p->run.peft.method);
        return PEFT_OK;
    }
    pf_arena_init(&g.arena, "first look");
    peft_status status = PEFT_OK;
    g.wish.sites = PF_NEW_ARRAY(&g.arena, bool, p->loaded.model->n_sites);
    if (g.wish.sites == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) {
        wants(ad, &g.wish);
        pf_adapter_suspend(ad);
        status = look(&g, section, err);
        for (int i = 0; i < g.n_taps; i++) pf_site_detach(g.taps[i].site, &g.taps[i]);
    }
    pf_arena_release(&g.arena);
    return status;
}

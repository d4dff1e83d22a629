/* look_taps.c - see look_taps.h. */
#include "recipes/look_taps.h"

#include "ops/matmul/linear.h"
#include "ops/op_table.h"

static peft_status note_input(pf_build *b, void *self, pf_site *site, pf_value *x,
                              uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)b, (void)mask_key, (void)y;
    pf_look_tap *tap = self;
    pf_look_taps *t = tap->all;
    if (x->space != PF_SPACE_TOKENS && x->space != PF_SPACE_SOURCE) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.%s: first weights that look at the data need one row for each token, "
                       "and %s sees others; leave it out of target_modules",
                       t->method, site->name);
    }
    int i = t->n_inputs - 1;
    while (i >= 0 && t->inputs[i] != x) i--;
    tap->input = i >= 0 ? i : t->n_inputs;
    if (i >= 0) return PEFT_OK;
    if (t->keep != NULL && t->keep[t->n_inputs]) x->result = true; /* its room is not reused */
    t->inputs[t->n_inputs++] = x;
    return PEFT_OK;
}

static const pf_site_hooks tap_hooks = {.output = note_input};

peft_status pf_look_taps_attach(pf_look_taps *t, pf_arena *a, pf_model *model, const bool *sites,
                                const char *method, peft_error *err) {
    *t = (pf_look_taps){.model = model,
                        .method = method,
                        .taps = PF_NEW_ARRAY(a, pf_look_tap, model->n_sites),
                        .inputs = PF_NEW_ARRAY(a, pf_value *, model->n_sites)};
    PF_CHECK_ALLOC(t->taps, err);
    PF_CHECK_ALLOC(t->inputs, err);
    for (int i = 0; i < model->n_sites; i++) {
        if (!sites[i]) continue;
        pf_look_tap *tap = &t->taps[t->n];
        *tap = (pf_look_tap){.all = t, .site = model->sites[i], .input = -1};
        PF_TRY(pf_site_attach(a, tap->site, &tap_hooks, tap, err));
        t->n++;
    }
    return PEFT_OK;
}

void pf_look_taps_detach(pf_look_taps *t) {
    for (int i = 0; i < t->n; i++) pf_site_detach(t->taps[i].site, &t->taps[i]);
    t->n = 0;
}

static peft_status build(pf_look_taps *t, pf_backend *be, const int64_t *capacity, pf_graph *graph,
                         pf_exec **exec, peft_error *err) {
    pf_build b = {.graph = graph, .mode = PF_BUILD_EVAL, .adapters = true};
    pf_value *hidden;
    PF_TRY(t->model->family->build(t->model, &b, &hidden, err));
    PF_TRY(pf_exec_new(exec, graph, be, capacity, err));
    return be->pool != NULL ? pf_linear_prepare(graph, be->pool, err) : PEFT_OK;
}

peft_status pf_look_taps_build(pf_look_taps *t, pf_backend *be, const int64_t *capacity,
                               pf_graph **graph, pf_exec **exec, peft_error *err) {
    *graph = NULL;
    *exec = NULL;
    t->n_inputs = 0;
    for (int i = 0; i < t->n; i++) t->taps[i].input = -1;
    PF_TRY(pf_graph_new(graph, pf_op_table, err));
    const peft_status status = build(t, be, capacity, *graph, exec, err);
    if (status == PEFT_OK) return status;
    pf_exec_free(*exec);
    pf_graph_free(*graph);
    *graph = NULL;
    *exec = NULL;
    return status;
}

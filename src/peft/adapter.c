/* adapter.c - life of an adapter: attaching, counting, trained copies, merging; files are in
 * adapter_file.c. */
#include "base/buf.h"
#include "base/mem.h"
#include "peft/several.h"
#include "peft/targets.h"

#include <stdio.h>
#include <string.h>

/* ---- for methods ----------------------------------------------------------------------------- */

/* Room for one more element of a list in the adapter's arena. */
static void *grow(pf_adapter *ad, void *list, int n, int *cap, size_t size) {
    if (n < *cap) return list;
    int new_cap = *cap == 0 ? 32 : 2 * *cap;
    void *bigger = pf_arena_array(&ad->arena, (size_t)new_cap, size);
    if (bigger == NULL) return NULL;
    if (n > 0) memcpy(bigger, list, (size_t)n * size);
    *cap = new_cap;
    return bigger;
}

peft_status pf_adapter_hook(pf_adapter *ad, pf_site *site, const pf_site_hooks *hooks, void *self,
                            peft_error *err) {
    void *list = grow(ad, ad->attached, ad->n_attached, &ad->cap_attached, sizeof *ad->attached);
    PF_CHECK_ALLOC(list, err);
    ad->attached = list;
    PF_TRY(pf_site_attach(&ad->hook_arena, site, hooks, self, err));
    ad->attached[ad->n_attached++] = (pf_attached){site, hooks, self};
    return PEFT_OK;
}

peft_status pf_adapter_add_param(pf_adapter *ad, const char *name, int64_t rows, int64_t cols,
                                 pf_param **out, peft_error *err) {
    PF_TRY(pf_params_add(&ad->params, name, rows, cols, out, err));
    ad->extra_params += rows * cols;
    return PEFT_OK;
}

peft_status pf_adapter_train_shared(pf_adapter *ad, pf_site *site, bool bias, pf_param *param,
                                    peft_error *err) {
    pf_param **place = bias ? &site->trained_bias : &site->trained_weight;
    if (*place != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: its %s is trained by another adapter of this model already", site->name,
                       bias ? "bias" : "weight");
    }
    void *list = grow(ad, ad->trained, ad->n_trained, &ad->cap_trained, sizeof *ad->trained);
    PF_CHECK_ALLOC(list, err);
    ad->trained = list;
    ad->trained[ad->n_trained++] = (pf_trained){site, param, bias};
    *place = param;
    return PEFT_OK;
}

peft_status pf_adapter_train_whole(pf_adapter *ad, pf_site *site, bool bias, const char *name,
                                   bool is_copy, peft_error *err) {
    const pf_weight *w = bias ? site->bias : site->weight;
    pf_param *p;
    PF_TRY(pf_params_add(&ad->params, name, w->rows, w->cols, &p, err));
    p->is_vector = bias || site->kind == PF_SITE_NORM;
    p->stored_turned = w->transposed;
    /* as transformers' Trainer, which goes by names: neither biases nor norms */
    p->decay = !p->is_vector && site->kind != PF_SITE_POSITION_BIAS;
    if (is_copy) ad->extra_params += w->rows * w->cols;
    return pf_adapter_train_shared(ad, site, bias, p, err);
}

/* ---- life ------------------------------------------------------------------------------------ */

static peft_status find_method(pf_adapter *ad, peft_error *err) {
    const bool several =
        ad->cfg.also.list.n > 0 || pf_streq(ad->cfg.method, pf_method_several.name);
    ad->method = several ? &pf_method_several : pf_method_find(ad->cfg.method);
    if (ad->method != NULL) return PEFT_OK;
    pf_buf names = {0};
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        pf_buf_addf(&names, "%s%s", i == 0 ? "" : ", ", pf_method_table[i]->name);
    }
    peft_status status = PF_FAIL(err, PEFT_E_UNSUPPORTED, "peft.method '%s' is not known; %s are",
                                 ad->cfg.method, pf_buf_str(&names));
    pf_buf_free(&names);
    return status;
}

static void fill_trained(pf_adapter *ad) {
    for (int i = 0; i < ad->n_parts; i++) fill_trained(ad->parts[i]);
    for (int i = 0; i < ad->n_trained; i++) {
        const pf_trained *t = &ad->trained[i];
        const pf_weight *w = t->bias ? t->site->bias : t->site->weight;
        pf_weight_read_tile(w, 0, w->rows, 0, w->cols, t->param->data, w->cols);
    }
}

/* What every method trains whole: the head of a task, unless the method has done so. */
static peft_status attach_heads(pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_site *site = ad->model->sites[i];
        if (site->always_trained && site->trained_weight == NULL)
            PF_TRY(pf_attach_whole(ad, site, err));
    }
    return PEFT_OK;
}

/* A new adapter with its method attached and its parameters counted; not yet sealed. */
static peft_status new_adapter(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                               bool strict, peft_error *err) {
    *out = NULL;
    pf_adapter *ad = pf_calloc(1, sizeof *ad);
    PF_CHECK_ALLOC(ad, err);
    pf_arena_init(&ad->arena, "adapter");
    pf_arena_init(&ad->hook_arena, "hooks");
    pf_params_init(&ad->params);
    ad->model = model;
    ad->cfg = *cfg;
    ad->strict = strict;
    ad->base_name = model->name;
    peft_status status = find_method(ad, err);
    if (status == PEFT_OK) status = ad->method->attach(ad, err);
    if (status == PEFT_OK) status = attach_heads(ad, err);
    if (status != PEFT_OK) {
        pf_adapter_close(ad);
        return status;
    }
    ad->total_params = model->n_params + ad->extra_params;
    *out = ad;
    return PEFT_OK;
}

peft_status pf_adapter_seal(pf_adapter *ad, bool with_training, peft_error *err) {
    if (ad->whole != NULL) /* a part's numbers stand in the blocks of the whole */
        return ad->whole->params.data != NULL ? PEFT_OK
                                              : pf_adapter_seal(ad->whole, with_training, err);
    for (int i = 0; i < ad->params.n && !with_training; i++) ad->params.items[i]->frozen = true;
    if (with_training && ad->model->params != &ad->params) { /* a part's whole may be sealed */
        if (ad->model->params != NULL) {
            return PF_FAIL(err, PEFT_E_STATE, "%s: another adapter of this model is being trained",
                           ad->model->name);
        }
        ad->model->params = &ad->params;
    }
    if (ad->model->shapes_only) return PEFT_OK;
    PF_TRY(pf_params_seal(&ad->params, with_training, err));
    if (ad->params.made.params != NULL)
        PF_TRY(pf_params_seal_made(ad->params.made.params, with_training, err));
    fill_trained(ad);
    return PEFT_OK;
}

peft_status pf_adapter_attach(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                              uint64_t seed, bool with_training, peft_error *err) {
    pf_adapter *ad;
    *out = NULL;
    PF_TRY(new_adapter(&ad, model, cfg, true, err));
    pf_adapter_set_seed(ad, seed);
    peft_status status = pf_adapter_seal(ad, with_training, err);
    if (status == PEFT_OK && !model->shapes_only) status = ad->method->init(ad, seed, err);
    if (status == PEFT_OK) status = pf_params_make(&ad->params, -1, err);
    if (status != PEFT_OK) {
        pf_adapter_close(ad);
        return status;
    }
    if (!model->shapes_only && ad->method->ready != NULL) ad->method->ready(ad);
    *out = ad;
    return PEFT_OK;
}

peft_status pf_adapter_attach_loaded(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                                     peft_error *err) {
    return new_adapter(out, model, cfg, false, err);
}

peft_status pf_adapter_attach_part(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                                   bool strict, peft_error *err) {
    return new_adapter(out, model, cfg, strict, err);
}

void pf_adapter_set_seed(pf_adapter *ad, uint64_t seed) {
    ad->params.seed = seed;
    for (int i = 0; i < ad->n_parts; i++) ad->parts[i]->params.seed = seed;
}

void pf_adapter_put_below(pf_adapter *ad, pf_adapter *below) {
    pf_adapter **end = &ad->below;
    while (*end != NULL) end = &(*end)->next;
    *end = below;
}

static pf_param **trained_place(const pf_trained *t) {
    return t->bias ? &t->site->trained_bias : &t->site->trained_weight;
}

void pf_adapter_suspend(pf_adapter *ad) {
    if (ad->suspended) return;
    for (int i = 0; i < ad->n_attached; i++)
        pf_site_detach(ad->attached[i].site, ad->attached[i].self);
    for (int i = 0; i < ad->n_trained; i++) *trained_place(&ad->trained[i]) = NULL;
    if (ad->leads) {
        ad->lead = ad->model->lead;
        ad->model->lead = (pf_lead){0};
    }
    pf_arena_reset(&ad->hook_arena);
    for (int i = 0; i < ad->n_parts; i++) pf_adapter_suspend(ad->parts[i]);
    for (pf_adapter *b = ad->below; b != NULL; b = b->next) pf_adapter_suspend(b);
    ad->suspended = true;
}

static peft_status act_again(pf_adapter *ad, peft_error *err) {
    for (pf_adapter *b = ad->below; b != NULL; b = b->next) PF_TRY(pf_adapter_resume(b, err));
    for (int i = 0; i < ad->n_parts; i++) PF_TRY(pf_adapter_resume(ad->parts[i], err));
    for (int i = 0; i < ad->n_trained; i++) {
        const pf_trained *t = &ad->trained[i];
        if (*trained_place(t) != NULL)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: its %s is that of another adapter already",
                           t->site->name, t->bias ? "bias" : "weight");
        *trained_place(t) = t->param;
    }
    if (ad->leads) {
        const pf_lead *now = &ad->model->lead;
        if (now->prompt + now->prefix + now->each > 0)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: two adapters cannot both begin every text",
                           ad->model->name);
        ad->model->lead = ad->lead;
    }
    for (int i = 0; i < ad->n_attached; i++) {
        const pf_attached *at = &ad->attached[i];
        PF_TRY(pf_site_attach(&ad->hook_arena, at->site, at->hooks, at->self, err));
    }
    return PEFT_OK;
}

peft_status pf_adapter_resume(pf_adapter *ad, peft_error *err) {
    if (!ad->suspended) return PEFT_OK;
    ad->suspended = false;
    peft_status status = act_again(ad, err);
    if (status != PEFT_OK) pf_adapter_suspend(ad);
    return status;
}

void pf_adapter_close(pf_adapter *ad) {
    if (ad == NULL) return;
    pf_adapter_suspend(ad);
    if (ad->model->params == &ad->params) ad->model->params = NULL;
    pf_params_release(&ad->params);
    for (int i = 0; i < ad->n_parts; i++) pf_adapter_close(ad->parts[i]);
    pf_adapter_close_chain(ad->below);
    pf_adapter_close_chain(ad->held);
    pf_arena_release(&ad->hook_arena);
    pf_arena_release(&ad->arena);
    pf_arena_release(&ad->cfg_arena);
    pf_free(ad);
}

void pf_adapter_close_chain(pf_adapter *first) {
    for (pf_adapter *next; first != NULL; first = next) {
        next = first->next;
        pf_adapter_close(first);
    }
}

/* ---- beside the optimizer -------------------------------------------------------------------- */

peft_status pf_adapter_after_backward(pf_adapter *ad, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) PF_TRY(pf_adapter_after_backward(ad->parts[i], err));
    return ad->method->after_backward == NULL ? PEFT_OK : ad->method->after_backward(ad, err);
}

peft_status pf_adapter_after_step(pf_adapter *ad, const pf_step_done *done, peft_error *err) {
    for (int i = 0; i < ad->n_parts; i++) PF_TRY(pf_adapter_after_step(ad->parts[i], done, err));
    return ad->method->after_step == NULL ? PEFT_OK : ad->method->after_step(ad, done, err);
}

/* ---- for people ------------------------------------------------------------------------------ */

/* 1234567 -> "1,234,567" */
static char *with_commas(int64_t v, char *out, size_t n) {
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)v);
    size_t k = 0;
    for (int i = 0; i < len && k + 1 < n; i++) {
        if (i > 0 && (len - i) % 3 == 0 && k + 2 < n) out[k++] = ',';
        out[k++] = digits[i];
    }
    out[k] = 0;
    return out;
}

bool pf_adapter_has_dropout(const pf_adapter *ad) {
    return ad->method->has_dropout != NULL && ad->method->has_dropout(ad);
}

int64_t pf_adapter_trained(const pf_adapter *ad) {
    if (ad->n_parts == 0) return ad->params.count;
    int64_t count = 0; /* a part may have frozen some since */
    for (int i = 0; i < ad->n_parts; i++) count += ad->parts[i]->params.count;
    return count;
}

void pf_adapter_describe(const pf_adapter *ad, char *out, size_t n) {
    char trainable[48], all[48];
    const int64_t count = pf_adapter_trained(ad);
    double percent = 100 * (double)count / (double)ad->total_params;
    snprintf(out, n, "trainable params: %s || all params: %s || trainable%%: %.4f",
             with_commas(count, trainable, sizeof trainable),
             with_commas(ad->total_params, all, sizeof all), percent);
}

/* ---- merging --------------------------------------------------------------------------------- */

const char *pf_adapter_no_merge(const pf_adapter *ad, const char **method) {
    *method = ad->method->name;
    if (ad->method->no_merge != NULL) return ad->method->no_merge;
    for (int i = 0; i < ad->n_parts; i++) {
        const char *why = pf_adapter_no_merge(ad->parts[i], method);
        if (why != NULL) return why;
    }
    for (const pf_adapter *b = ad->below; b != NULL; b = b->next) {
        const char *why = pf_adapter_no_merge(b, method);
        if (why != NULL) return why;
    }
    return NULL;
}

bool pf_adapter_touches(const pf_adapter *ad, const pf_site *site, bool bias) {
    for (const pf_adapter *b = ad->below; b != NULL; b = b->next) {
        if (pf_adapter_touches(b, site, bias)) return true;
    }
    for (int i = 0; i < ad->n_parts; i++) {
        if (pf_adapter_touches(ad->parts[i], site, bias)) return true;
    }
    for (int i = 0; i < ad->n_trained; i++) {
        if (ad->trained[i].site == site && ad->trained[i].bias == bias) return true;
    }
    const pf_method *m = ad->method;
    if (bias) return m->touches_bias != NULL && m->touches_bias(ad, site);
    return m->touches != NULL && m->touches(ad, site);
}

static void read_row(const pf_weight *w, int64_t row, float *out) {
    enum { CHUNK = 1024 };
    pf_real wide[CHUNK];
    for (int64_t j = 0; j < w->cols; j += CHUNK) {
        int64_t n = w->cols - j < CHUNK ? w->cols - j : CHUNK;
        pf_weight_read_tile(w, row, 1, j, n, wide, n);
        for (int64_t k = 0; k < n; k++) out[j + k] = (float)wide[k];
    }
}

/* What the adapter adds to a trained or base weight, after those below it. */
peft_status pf_adapter_fold(const pf_adapter *ad, const pf_site *site, bool bias, int64_t row0,
                            int64_t n, float *rows, peft_error *err) {
    for (const pf_adapter *b = ad->below; b != NULL; b = b->next)
        PF_TRY(pf_adapter_fold(b, site, bias, row0, n, rows, err));
    const pf_method *m = ad->method;
    if (bias) {
        if (m->touches_bias != NULL && m->touches_bias(ad, site)) m->merge_bias(ad, site, rows);
        return PEFT_OK;
    }
    if (m->merge_weight == NULL || m->touches == NULL || !m->touches(ad, site)) return PEFT_OK;
    return m->merge_weight(ad, site, row0, n, rows, err);
}

peft_status pf_adapter_merged_rows(const pf_adapter *ad, const pf_site *site, bool bias,
                                   int64_t row0, int64_t n, float *rows, peft_error *err) {
    const pf_weight *w = bias ? site->bias : site->weight;
    const pf_param *trained = bias ? site->trained_bias : site->trained_weight;
    PF_ASSERT(row0 >= 0 && n >= 0 && row0 + n <= w->rows);
    for (int64_t i = 0; i < n; i++) {
        float *row = rows + i * w->cols;
        if (trained != NULL) {
            const pf_real *from = trained->data + (row0 + i) * w->cols;
            for (int64_t j = 0; j < w->cols; j++) row[j] = (float)from[j];
        } else {
            read_row(w, row0 + i, row);
        }
    }
    return pf_adapter_fold(ad, site, bias, row0, n, rows, err);
}

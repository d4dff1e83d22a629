/* api_model_adapters.c - the door of model.h: several adapters on one base. */
#include "api/open_model.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

void pf_open_model_forget_graphs(peft_model *m) {
    pf_generator_free(m->generator);
    m->generator = NULL;
    pf_loss_graph_release(&m->scores);
    m->scores_room = 0;
    pf_classifier_free(m->classifier);
    m->classifier = NULL;
}

static pf_named_adapter *find(const peft_model *m, const char *name) {
    for (int i = 0; i < m->n_adapters; i++) {
        if (pf_streq(m->adapters[i].name, name)) return &m->adapters[i];
    }
    return NULL;
}

peft_status pf_open_model_add(peft_model *m, const char *name, pf_adapter *ad, peft_error *err) {
    if (m->n_adapters == m->cap_adapters) {
        const int cap = m->cap_adapters == 0 ? 8 : 2 * m->cap_adapters;
        pf_named_adapter *grown = pf_realloc(m->adapters, (size_t)cap * sizeof *grown);
        if (grown == NULL) {
            if (ad != m->loaded.adapter) pf_adapter_close(ad);
            return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        }
        m->adapters = grown;
        m->cap_adapters = cap;
    }
    char *copy = pf_malloc(strlen(name) + 1);
    if (copy == NULL) {
        if (ad != m->loaded.adapter) pf_adapter_close(ad);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    memcpy(copy, name, strlen(name) + 1);
    m->adapters[m->n_adapters++] = (pf_named_adapter){copy, ad};
    return PEFT_OK;
}

void pf_open_model_close_adapters(peft_model *m) {
    for (int i = 0; i < m->n_adapters; i++) {
        if (m->adapters[i].adapter != m->loaded.adapter) pf_adapter_close(m->adapters[i].adapter);
        pf_free(m->adapters[i].name);
    }
    pf_free(m->adapters);
}

static peft_status unknown(const peft_model *m, const char *name, peft_error *err) {
    pf_buf names = {0};
    for (int i = 0; i < m->n_adapters; i++)
        pf_buf_addf(&names, "%s%s", i > 0 ? ", " : "", m->adapters[i].name);
    peft_status status =
        PF_FAIL(err, PEFT_E_MISSING, "no adapter is loaded under the name '%s'; loaded: %s", name,
                m->n_adapters > 0 ? pf_buf_str(&names) : "none");
    pf_buf_free(&names);
    return status;
}

peft_status peft_model_load_adapter(peft_model *m, const char *name, const char *path,
                                    peft_error *err) {
    if (m->loaded.model == NULL)
        return PF_FAIL(err, PEFT_E_STATE, "the model was opened for its tokenizer alone");
    if (find(m, name) != NULL)
        return PF_FAIL(err, PEFT_E_STATE, "an adapter is loaded under the name '%s' already", name);
    pf_adapter *acting = m->loaded.adapter, *ad;
    if (acting != NULL) pf_adapter_suspend(acting); /* two cannot act, not even while one opens */
    peft_status status = pf_adapter_open(&ad, m->loaded.model, path, false, err);
    if (status == PEFT_OK) {
        pf_adapter_suspend(ad);
        status = pf_open_model_add(m, name, ad, err);
    }
    if (acting != NULL) {
        peft_error own;
        peft_status back = pf_adapter_resume(acting, &own);
        if (status == PEFT_OK && back != PEFT_OK) {
            if (err != NULL) *err = own;
            status = back;
        }
    }
    return status;
}

peft_status peft_model_set_adapter(peft_model *m, const char *name, peft_error *err) {
    pf_named_adapter *to = name != NULL ? find(m, name) : NULL;
    if (name != NULL && to == NULL) return unknown(m, name, err);
    pf_adapter *next = to != NULL ? to->adapter : NULL;
    if (next == m->loaded.adapter) return PEFT_OK;
    pf_open_model_forget_graphs(m);
    if (m->loaded.adapter != NULL) pf_adapter_suspend(m->loaded.adapter);
    m->loaded.adapter = NULL;
    if (next != NULL) PF_TRY(pf_adapter_resume(next, err));
    m->loaded.adapter = next;
    return PEFT_OK;
}

peft_status peft_model_delete_adapter(peft_model *m, const char *name, peft_error *err) {
    pf_named_adapter *gone = find(m, name);
    if (gone == NULL) return unknown(m, name, err);
    if (gone->adapter == m->loaded.adapter) PF_TRY(peft_model_set_adapter(m, NULL, err));
    pf_adapter_close(gone->adapter);
    pf_free(gone->name);
    *gone = m->adapters[--m->n_adapters];
    return PEFT_OK;
}

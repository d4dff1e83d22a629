/* adapterhub_head.c - the head that tells classes apart in AdapterHub's folders: head_config.json
 * and model_head.safetensors beside the adapter.
 *
 *   of a model with its own head:      {"config": null, "label2id", "model_class", "num_labels",
 * ...} tensors with the model's names ("classifier.weight") of a flexible one (BertAdapterModel):
 * {"config": {"head_type", "layers", "activation_function", "use_pooler", "label2id", ...}, "name":
 * "sst", ...} "heads.sst.1.weight", "heads.sst.4.weight"
 *
 * The first is written. Of the second those are read that are what a model's own head is:
 *
 *   tagging, 1 layer                     the head of TOKEN_CLS
 *   classification, 2 layers with tanh   the pooler and the head of SEQ_CLS: RoBERTa's head, and
 *                                        BERT's pooler, which is trained whole then
 *   classification, 1 layer, use_pooler  BERT's head on the base's pooler
 *
 * Without these files the base's head stays, if it has one; a new one is right only where it is
 * going to be trained. */
#include "peft/adapter_file.h"
#include "peft/targets.h"

#include "base/file.h"
#include "base/log.h"
#include "text/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG (16u << 20)
#define MAX_LABELS 100000

typedef struct head {
    const char *kind, *function; /* NULL: the model's own */
    int64_t layers;
    bool use_pooler, bias;
} head;

/* ---- writing --------------------------------------------------------------------------------- */

peft_status pf_adapterhub_write_head_config(const pf_adapter *ad, const char *path,
                                            peft_error *err) {
    const pf_model *m = ad->model;
    json_t *c = json_object(), *ids = json_object();
    int bad = json_object_set_new(c, "config", json_null());
    bad |= json_object_set_new(c, "name", json_null());
    bad |= json_object_set_new(c, "num_labels", json_integer(m->labels.n));
    for (int i = 0; i < m->labels.n && bad == 0; i++)
        bad |= json_object_set_new(ids, m->labels.items[i], json_integer(i));
    bad |= json_object_set_new(c, "label2id", ids);
    if (pf_problem_has_values(m->problem)) /* a key of ours; AdapterHub asks the base */
        bad |= json_object_set_new(c, "problem_type", json_string(pf_problem_name(m->problem)));
    bad |= pf_adapterhub_add_base(ad, c);
    peft_status status = bad == 0 ? pf_json_write(path, c, PF_JSON_HF, err)
                                  : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    json_decref(c);
    return status;
}

/* ---- head_config.json ------------------------------------------------------------------------ */

static peft_status load_config(json_t **c, const char *where, peft_error *err) {
    PF_TRY(pf_json_load(c, where, MAX_CONFIG, err));
    if (json_is_object(*c)) return PEFT_OK;
    json_decref(*c);
    *c = NULL;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
}

/* {"positive": 1, "negative": 0} to names in the order of their ids */
static peft_status read_labels(const json_t *ids, const char *where, pf_arena *a, pf_strlist *out,
                               peft_error *err) {
    const size_t n = json_object_size(ids);
    const char **names = n <= MAX_LABELS ? PF_NEW_ARRAY(a, const char *, n) : NULL, *name;
    json_t *v;
    if (n > MAX_LABELS)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: label2id has %zu classes, at most %d fit", where, n,
                       MAX_LABELS);
    PF_CHECK_ALLOC(names, err);
    json_object_foreach((json_t *)ids, name, v) {
        const json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id >= 0 && id < (json_int_t)n) names[id] = name;
    }
    for (size_t i = 0; i < n; i++) {
        if (names[i] == NULL)
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s: label2id has %zu classes and none with the id %zu; ids count "
                           "from 0",
                           where, n, i);
        PF_TRY(pf_strlist_add(out, a, names[i], err));
    }
    return PEFT_OK;
}

static peft_status read_head(const json_t *file, const char *where, head *h, peft_error *err) {
    const json_t *c;
    *h = (head){0};
    PF_TRY(pf_json_opt_object(file, where, "config", &c, err));
    if (c == NULL) return PEFT_OK;
    PF_TRY(pf_json_get_str(c, where, "head_type", &h->kind, err));
    PF_TRY(pf_json_opt_str(c, where, "activation_function", NULL, &h->function, err));
    PF_TRY(pf_json_opt_int(c, where, "layers", 1, 0, 1000, &h->layers, err));
    PF_TRY(pf_json_opt_bool(c, where, "use_pooler", false, &h->use_pooler, err));
    return pf_json_opt_bool(c, where, "bias", true, &h->bias, err);
}

static peft_status read_task(pf_adapter_task *out, pf_arena *a, const json_t *file,
                             const char *where, peft_error *err) {
    const char *class, *problem;
    const json_t *ids, *own;
    head h;
    PF_TRY(read_head(file, where, &h, err));
    PF_TRY(pf_json_opt_object(file, where, "config", &own, err));
    const json_t *c = h.kind != NULL ? own : file;
    PF_TRY(pf_json_opt_str(file, where, "model_class", NULL, &class, err));
    PF_TRY(pf_json_opt_str(file, where, "problem_type", NULL, &problem, err));
    PF_TRY(pf_json_opt_object(c, where, "label2id", &ids, err));
    PF_TRY(pf_json_opt_int(c, where, "num_labels", (int64_t)json_object_size(ids), 0, MAX_LABELS,
                           &out->n_labels, err));
    out->problem = pf_problem_find(problem);
    if (h.kind == NULL && class != NULL) pf_task_split(class, &out->task);
    if (pf_streq(h.kind, "tagging")) out->task = PF_TASK_TOKEN_CLS;
    if (pf_streq(h.kind, "classification") || pf_streq(h.kind, "multilabel_classification"))
        out->task = PF_TASK_SEQ_CLS;
    if (pf_streq(h.kind, "multilabel_classification")) out->problem = PF_PROBLEM_MULTI;
    if (pf_streq(h.kind, "classification") && out->n_labels == 1)
        out->problem = PF_PROBLEM_REGRESSION;
    if (!pf_task_is_classes(out->task)) {
        *out = (pf_adapter_task){0};
        return PEFT_OK;
    }
    if (ids == NULL || (int64_t)json_object_size(ids) != out->n_labels) return PEFT_OK;
    return read_labels(ids, where, a, &out->labels, err);
}

peft_status pf_adapterhub_task_of(pf_adapter_task *out, pf_arena *a, const char *dir,
                                  peft_error *err) {
    const char *where = pf_path_join(a, dir, PF_HEAD_CONFIG);
    json_t *c;
    PF_CHECK_ALLOC(where, err);
    if (!pf_path_exists(where)) return PEFT_OK;
    PF_TRY(load_config(&c, where, err));
    peft_status status = read_task(out, a, c, where, err);
    json_decref(c);
    return status;
}

/* ---- model_head.safetensors ------------------------------------------------------------------ */

static bool is_model_head(const pf_model *m, const head *h) {
    if (h->kind == NULL) return true;
    if (!h->bias || m->head->bias == NULL) return false;
    if (m->task == PF_TASK_TOKEN_CLS) return pf_streq(h->kind, "tagging") && h->layers == 1;
    if (!pf_streq(h->kind, "classification") && !pf_streq(h->kind, "multilabel_classification"))
        return false;
    if (m->pooler == NULL) return false;
    if (h->layers == 1) return h->use_pooler && !m->pooler->always_trained;
    return h->layers == 2 && !h->use_pooler && pf_streq(h->function, "tanh");
}

static peft_status check_config(const pf_model *m, const char *where, peft_error *err) {
    json_t *c;
    head h;
    if (!pf_path_exists(where)) return PEFT_OK;
    PF_TRY(load_config(&c, where, err));
    peft_status status = read_head(c, where, &h, err);
    if (status == PEFT_OK && !is_model_head(m, &h))
        status =
            PF_FAIL(err, PEFT_E_UNSUPPORTED,
                    "%s: a %s head of %lld layer%s%s%s%s, which %s for %s has no equal of; "
                    "take the two files of the head away to train a new one",
                    where, h.kind, (long long)h.layers, h.layers == 1 ? "" : "s",
                    h.function != NULL ? " with " : "", h.function != NULL ? h.function : "",
                    h.use_pooler ? " on the pooler" : "", m->architecture, pf_task_name(m->task));
    json_decref(c);
    return status;
}

/* "heads.<name>.<number>.": the number; 0: another name */
static long layer_of(const char *name) {
    const char *at = strrchr(name, '.'), *from = at;
    if (!pf_starts_with(name, "heads.") || at == NULL) return 0;
    while (from > name && from[-1] != '.') from--;
    if (from == at || from <= name + strlen("heads.")) return 0;
    for (const char *c = from; c < at; c++) {
        if (!isdigit((unsigned char)*c)) return 0;
    }
    return at - from > 4 ? 0 : strtol(from, NULL, 10);
}

const char *pf_adapterhub_head_tensor(const pf_model *m, const pf_safetensors *file,
                                      const char *name, char *out, size_t n) {
    const long layer = layer_of(name);
    bool more = false;
    if (layer < 1 || m->head == NULL) return NULL;
    for (int i = 0; i < file->n_tensors; i++) more |= layer_of(file->tensors[i].name) > layer;
    const pf_site *site = more ? m->pooler : m->head;
    if (site == NULL) return NULL;
    const int need = snprintf(out, n, "%s%s", site->name, strrchr(name, '.'));
    return need > 0 && (size_t)need < n ? out : NULL;
}

/* A pooler of the base that the file has another of. */
static peft_status train_pooler(pf_adapter *ad, const char *path, peft_error *err) {
    pf_site *pooler = ad->model->pooler;
    pf_safetensors file;
    bool has = false;
    char own[256];
    if (pooler == NULL || pooler->weight == NULL || pooler->trained_weight != NULL) return PEFT_OK;
    PF_TRY(pf_safetensors_open(&file, path, err));
    /* a head has a handful; what is too much is said where it is placed */
    for (int i = 0; i < file.n_tensors && i < 64; i++) {
        const char *name = file.tensors[i].name,
                   *as = pf_adapterhub_head_tensor(ad->model, &file, name, own, sizeof own);
        has |= pf_streq(as != NULL ? as : name, pooler->weight->name);
    }
    pf_safetensors_close(&file);
    if (!has) return PEFT_OK;
    if (ad->whole != NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: this head has a layer in place of %s, which only an adapter that "
                       "stands alone may have",
                       path, pooler->name);
    PF_TRY(pf_attach_whole(ad, pooler, err));
    ad->total_params = ad->model->n_params + ad->extra_params;
    return PEFT_OK;
}

peft_status pf_adapterhub_find_head(pf_adapter *ad, pf_arena *a, const char *dir, const char **path,
                                    peft_error *err) {
    const char *pickle = pf_path_join(a, dir, "pytorch_model_head.bin"),
               *config = pf_path_join(a, dir, PF_HEAD_CONFIG);
    *path = pf_path_join(a, dir, PF_HEAD_FILE);
    PF_CHECK_ALLOC(*path, err);
    PF_CHECK_ALLOC(pickle, err);
    PF_CHECK_ALLOC(config, err);
    if (pf_path_exists(*path)) {
        PF_TRY(check_config(ad->model, config, err));
        return train_pooler(ad, *path, err);
    }
    if (pf_path_exists(pickle)) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is a pickle, which can run code and is not read here. Convert it once "
                       "where torch is: "
                       "python -c \"import torch, safetensors.torch as s; "
                       "s.save_file({k: v.clone() for k, v in torch.load('pytorch_model_head.bin', "
                       "weights_only=True).items()}, '" PF_HEAD_FILE "')\"",
                       pickle);
    }
    *path = NULL;
    if (ad->model->made.n > 0)
        PF_WARN("%s: the adapter comes without a head for %s (" PF_HEAD_FILE "), and the base has "
                "none: it is new, and has to be trained",
                dir, pf_task_name(ad->model->task));
    return PEFT_OK;
}

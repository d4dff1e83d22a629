/* adapter_tensors.c - adapter_model.safetensors: each tensor to its parameter and back.
 *
 * Nothing is passed over: a tensor that has no place, a place that has no tensor and a shape that
 * differs are errors which say what the file was made for and what the base is. Numbers are read
 * from f32, f16 and bf16 and kept as pf_real; they are written as f32. */
#include "peft/adapter_file.h"

#include "base/buf.h"
#include "base/mem.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PREFIX   "base_model.model."
#define MAX_TOLD 4

enum { CHUNK = 4096 };

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct loader {
    pf_adapter *ad;
    const pf_safetensors *file;
    const pf_stored_tensor **source; /* per parameter */
    bool no_head_file;               /* and none is needed: the base's head stays */
} loader;

/* What the adapter was trained on and what it is put on: the end of every message about sizes. */
static void add_bases(pf_buf *b, const pf_adapter *ad) {
    const pf_model *m = ad->model;
    if (ad->base_name != NULL && ad->base_name != m->name) {
        pf_buf_addf(b, "The adapter was trained on '%s'; ", ad->base_name);
    }
    pf_buf_addf(b, "the base here is '%s' (%s: hidden size %lld, %d layers, vocabulary %lld)",
                m->name, m->architecture, (long long)m->hidden, m->n_layers, (long long)m->vocab);
}

/* The parameter of a tensor's name. Some writers leave the prefix out, or the adapter's name
 * ("default") in. */
static pf_param *find_param(const pf_adapter *ad, const char *name) {
    pf_param *p = pf_params_find(&ad->params, name);
    if (p == NULL && ad->method->is_adapterhub != NULL) return pf_adapterhub_param(ad, name);
    if (p != NULL || ad->method->peft_type == NULL) return p;
    char other[512];
    const char *at = strstr(name, ".default");
    const char *rest = at == NULL ? NULL : at + strlen(".default");
    int cut = rest != NULL && (*rest == '.' || *rest == 0) ? (int)(at - name) : (int)strlen(name);
    const char *prefix = pf_starts_with(name, PREFIX) ? "" : PREFIX;
    int n = snprintf(other, sizeof other, "%s%.*s%s", prefix, cut, name,
                     cut < (int)strlen(name) ? rest : "");
    return n > 0 && (size_t)n < sizeof other ? pf_params_find(&ad->params, other) : NULL;
}

bool pf_adapter_has_head_file(const pf_adapter *ad) {
    return ad->method->is_adapterhub != NULL && ad->n_trained > 0;
}

static bool in_head_file(const pf_adapter *ad, const pf_param *p) {
    if (!pf_adapter_has_head_file(ad)) return false;
    for (int i = 0; i < ad->n_trained; i++) {
        if (ad->trained[i].param == p) return true;
    }
    return false;
}

/* The shape that the file has; returns the number of dimensions. */
static int file_shape(const pf_param *p, int64_t shape[4]) {
    if (p->n_dims > 2) {
        memcpy(shape, p->dims, sizeof p->dims);
        return p->n_dims;
    }
    shape[0] = p->is_vector || p->stored_turned ? p->cols : p->rows;
    shape[1] = p->stored_turned ? p->rows : p->cols;
    return p->is_vector ? 1 : 2;
}

static bool has_shape(const pf_stored_tensor *t, const pf_param *p) {
    int64_t shape[4];
    const int n = file_shape(p, shape);
    return t->n_dims == n && memcmp(t->shape, shape, (size_t)n * sizeof *shape) == 0;
}

/* Only the rank differs: A is (r, in), B (out, r). */
static bool differs_in_rank(const pf_stored_tensor *t, const pf_param *p, int64_t *rank) {
    if (t->n_dims != 2 || p->is_vector) return false;
    const bool is_a =
        strstr(p->name, ".lora_A") != NULL || strstr(p->name, ".lora_embedding_A") != NULL;
    const bool is_b =
        strstr(p->name, ".lora_B") != NULL || strstr(p->name, ".lora_embedding_B") != NULL;
    *rank = is_a ? p->rows : p->cols;
    return (is_a && t->shape[1] == p->cols) || (is_b && t->shape[0] == p->rows);
}

static peft_status fail_shape(const loader *l, const pf_stored_tensor *t, const pf_param *p,
                              peft_error *err) {
    char found[PF_SHAPE_TEXT], place[PF_SHAPE_TEXT];
    int64_t rank;
    pf_stored_tensor wanted = {0};
    pf_buf text = {0};
    if (differs_in_rank(t, p, &rank)) {
        return PF_FAIL(
            err, PEFT_E_SHAPE, "%s: %s is %s, but adapter_config.json gives this module rank %lld",
            l->file->path, t->name, pf_shape_text(t, found, sizeof found), (long long)rank);
    }
    wanted.n_dims = file_shape(p, wanted.shape);
    pf_buf_addf(
        &text,
        "%s: size mismatch between adapter and base: %s is %s in the file, but its place is %s. ",
        l->file->path, t->name, pf_shape_text(t, found, sizeof found),
        pf_shape_text(&wanted, place, sizeof place));
    add_bases(&text, l->ad);
    pf_buf_adds(&text, ". Use the base that the adapter was trained on (model.name_or_path)");
    peft_status status = PF_FAIL(err, PEFT_E_SHAPE, "%s", pf_buf_str(&text));
    pf_buf_free(&text);
    return status;
}

static peft_status fail_nowhere(const loader *l, const pf_stored_tensor *t, peft_error *err) {
    const pf_params *ps = &l->ad->params;
    char shown[PF_NAME_TEXT];
    pf_buf text = {0};
    const char **names = pf_calloc((size_t)ps->n + 1, sizeof *names);
    if (names == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int i = 0; i < ps->n; i++) names[i] = ps->items[i]->name;
    int near = pf_nearest(t->name, names, ps->n);
    pf_buf_addf(&text, "%s: tensor %s has no place in this model", l->file->path,
                pf_name_text(t->name, shown, sizeof shown));
    if (near >= 0) pf_buf_addf(&text, " (nearest: %s)", names[near]);
    pf_buf_adds(&text, ". ");
    add_bases(&text, l->ad);
    pf_buf_adds(&text, ". Use the base that the adapter was trained on (model.name_or_path)");
    peft_status status = PF_FAIL(err, PEFT_E_SHAPE, "%s", pf_buf_str(&text));
    pf_buf_free(&text);
    pf_free(names);
    return status;
}

/* Numbers [at, at + n) of a tensor, which may stand at any address. */
static void read_stored(const pf_stored_tensor *t, int64_t at, int64_t n, float *out) {
    const unsigned char *data = t->data;
    pf_dtype_to_f32(t->dtype, data + (size_t)at * pf_dtype_info(t->dtype)->block_bytes, (size_t)n,
                    out);
}

/* Row i of a stored matrix against the base's; the copy may be rounded to a shorter type. */
static bool same_row(const pf_stored_tensor *t, const pf_weight *w, int64_t i) {
    enum { PART = 256 };
    float a[PART];
    pf_real b[PART];
    for (int64_t j = 0; j < w->cols; j += PART) {
        const int64_t n = w->cols - j < PART ? w->cols - j : PART;
        read_stored(t, i * w->cols + j, n, a);
        pf_weight_read_tile(w, i, 1, j, n, b, n);
        for (int64_t k = 0; k < n; k++) {
            const double diff = fabs((double)a[k] - (double)b[k]);
            if (!(diff <= 0.01 * fabs((double)b[k]) + 1e-6)) return false;
        }
    }
    return true;
}

/* peft stores the frozen matrix of an embedding or head that LoRA acts on beside the update. It
 * must be the base's. */
static peft_status check_base_layer(const loader *l, const pf_stored_tensor *t, bool *is_base,
                                    peft_error *err) {
    static const char suffix[] = ".base_layer.weight";
    const pf_model *m = l->ad->model;
    const char *path = pf_starts_with(t->name, PREFIX) ? t->name + strlen(PREFIX) : t->name;
    const pf_site *site = NULL;
    *is_base = false;
    for (int i = 0; i < m->n_sites && pf_ends_with(path, suffix); i++) {
        size_t n = strlen(path) - strlen(suffix);
        if (strlen(m->sites[i]->name) == n && memcmp(m->sites[i]->name, path, n) == 0)
            site = m->sites[i];
    }
    if (site == NULL || site->weight == NULL) return PEFT_OK;
    *is_base = true;
    const pf_weight *w = site->weight;
    if (t->n_dims != 2 || t->shape[0] != w->rows || t->shape[1] != w->cols) {
        const pf_param p = {.name = t->name, .rows = w->rows, .cols = w->cols};
        return fail_shape(l, t, &p, err);
    }
    pf_weight stored;
    PF_TRY(pf_stored_weight(t, l->file->path, &stored, err));
    for (int64_t i = 0; i < w->rows && !m->shapes_only; i++) {
        if (same_row(t, w, i)) continue;
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: %s holds another matrix than the base '%s' (row %lld differs): the adapter was "
            "made on a base with changed embeddings. Merge it with peft on that base first",
            l->file->path, t->name, m->name, (long long)i);
    }
    return PEFT_OK;
}

/* In the adapter's own list; a parameter of a part knows its place in the part's. */
static int index_of(const pf_adapter *ad, const pf_param *p) {
    int i = p->index;
    if (ad->n_parts == 0) return i;
    for (i = 0; i < ad->params.n && ad->params.items[i] != p;) i++;
    return i;
}

/* Where does this tensor belong? */
static peft_status place_tensor(loader *l, int index, peft_error *err) {
    const pf_stored_tensor *t = &l->file->tensors[index];
    char own[256];
    const char *name = pf_adapterhub_head_tensor(l->ad->model, l->file, t->name, own, sizeof own);
    pf_param *p = find_param(l->ad, name != NULL ? name : t->name);
    pf_weight w;
    bool is_base;
    if (p == NULL) {
        if (l->ad->method->repeats != NULL && l->ad->method->repeats(l->ad, t->name))
            return PEFT_OK;
        PF_TRY(check_base_layer(l, t, &is_base, err));
        return is_base ? PEFT_OK : fail_nowhere(l, t, err);
    }
    if (!has_shape(t, p)) return fail_shape(l, t, p, err);
    if (l->source[index_of(l->ad, p)] != NULL) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: tensor %s is there twice, under two spellings of its name",
                       l->file->path, t->name);
    }
    l->source[index_of(l->ad, p)] = t;
    return pf_stored_weight(t, l->file->path, &w, err); /* of a type that can be read */
}

/* Where number i of the file stands in the parameter. */
static int64_t place_of(const pf_param *p, int64_t i) {
    return p->stored_turned ? i % p->rows * p->cols + i / p->rows : i;
}

static void read_all(const loader *l) {
    float wide[CHUNK];
    for (int i = 0; i < l->ad->params.n; i++) {
        const pf_param *p = l->ad->params.items[i];
        if (l->source[i] == NULL) continue;
        const int64_t count = p->rows * p->cols;
        for (int64_t at = 0; at < count; at += CHUNK) {
            const int64_t n = count - at < CHUNK ? count - at : CHUNK;
            read_stored(l->source[i], at, n, wide);
            for (int64_t k = 0; k < n; k++) p->data[place_of(p, at + k)] = wide[k];
        }
    }
}

static peft_status check_covered(const loader *l, peft_error *err) {
    const pf_params *ps = &l->ad->params;
    int n = 0;
    pf_buf text = {0};
    for (int i = 0; i < ps->n; i++) {
        if (l->source[i] != NULL || ps->items[i]->unsaved) continue;
        if (l->no_head_file && in_head_file(l->ad, ps->items[i])) continue;
        if (n < MAX_TOLD) pf_buf_addf(&text, "%s%s", n == 0 ? "" : ", ", ps->items[i]->name);
        n++;
    }
    if (n == 0) return PEFT_OK;
    if (n > MAX_TOLD) pf_buf_addf(&text, " and %d more", n - MAX_TOLD);
    pf_buf_adds(&text, ". ");
    add_bases(&text, l->ad);
    peft_status status =
        PF_FAIL(err, PEFT_E_MISSING, "%s: %d tensor%s of the adapter %s missing: %s", l->file->path,
                n, n == 1 ? "" : "s", n == 1 ? "is" : "are", pf_buf_str(&text));
    pf_buf_free(&text);
    return status;
}

static peft_status load(loader *l, const pf_safetensors *head, bool with_training,
                        peft_error *err) {
    const pf_safetensors *const main = l->file;
    PF_CHECK_ALLOC(l->source, err);
    for (int i = 0; i < l->file->n_tensors; i++) PF_TRY(place_tensor(l, i, err));
    l->file = head;
    for (int i = 0; i < head->n_tensors; i++) PF_TRY(place_tensor(l, i, err));
    l->file = main;
    PF_TRY(check_covered(l, err));
    PF_TRY(
        pf_adapter_seal(l->ad, with_training, err)); /* now that the sizes are known to be true */
    read_all(l);
    return pf_params_make(&l->ad->params, -1, err);
}

peft_status pf_adapter_load_tensors(pf_adapter *ad, const char *path, const char *head,
                                    bool with_training, peft_error *err) {
    pf_safetensors file = {0}, head_file = {0};
    PF_TRY(pf_safetensors_open(&file, path, err));
    loader l = {.ad = ad,
                .file = &file,
                .source = pf_calloc((size_t)ad->params.n + 1, sizeof *l.source),
                .no_head_file = head == NULL && pf_adapter_has_head_file(ad)};
    peft_status status = head == NULL ? PEFT_OK : pf_safetensors_open(&head_file, head, err);
    if (status == PEFT_OK) status = load(&l, &head_file, with_training, err);
    pf_free(l.source);
    pf_safetensors_close(&head_file);
    pf_safetensors_close(&file);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

typedef struct writer {
    const pf_adapter *ad;
    bool head;              /* the file of the head */
    const pf_param **items; /* those that the file has */
    float *row;             /* room for one in another form */
} writer;

static peft_status fill(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    const writer *w = ctx;
    const pf_param *p = w->items[index];
    float narrow[CHUNK];
    if (w->row != NULL && t->n_dims == 2 && !p->stored_turned) {
        for (int64_t i = 0; i < t->shape[0]; i++) {
            w->ad->method->file_row(w->ad, p, i, w->row);
            PF_TRY(pf_tensor_sink_add_f32(sink, w->row, (size_t)t->shape[1], err));
        }
        return PEFT_OK;
    }
    const int64_t count = p->rows * p->cols;
    for (int64_t i = 0; i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
        for (int64_t k = 0; k < n; k++) narrow[k] = (float)p->data[place_of(p, i + k)];
        PF_TRY(pf_tensor_sink_add_f32(sink, narrow, (size_t)n, err));
    }
    return PEFT_OK;
}

/* Fills items and list; *widest is the longest row of a matrix. */
static peft_status list_tensors(const writer *w, pf_stored_tensor *list, int *n, int64_t *widest,
                                peft_error *err) {
    const pf_adapter *ad = w->ad;
    *n = 0;
    *widest = 1;
    for (int i = 0; i < ad->params.n; i++) {
        const pf_param *p = ad->params.items[i];
        int64_t shape[4];
        const int n_dims = file_shape(p, shape);
        if (p->unsaved || in_head_file(ad, p) != w->head) continue;
        if (n_dims == 2 && !p->stored_turned && ad->method->file_size != NULL)
            ad->method->file_size(ad, p, &shape[0], &shape[1]);
        if (n_dims == 2 && shape[1] > *widest) *widest = shape[1];
        w->items[*n] = p;
        PF_TRY(
            pf_stored_tensor_set(&list[(*n)++], p->name, PF_DTYPE_F32, n_dims, shape, NULL, err));
    }
    return PEFT_OK;
}

peft_status pf_adapter_write_tensors(const pf_adapter *ad, const char *path, bool head,
                                     peft_error *err) {
    const size_t most = (size_t)ad->params.n + 1;
    pf_stored_tensor *list = pf_calloc(most, sizeof *list);
    writer w = {.ad = ad, .head = head, .items = pf_calloc(most, sizeof *w.items)};
    int n = 0;
    int64_t widest = 1;
    peft_status status = PEFT_OK;
    if (list == NULL || w.items == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = list_tensors(&w, list, &n, &widest, err);
    if (status == PEFT_OK && ad->method->file_row != NULL) {
        w.row = pf_calloc((size_t)widest, sizeof *w.row);
        if (w.row == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    if (status == PEFT_OK)
        status = pf_safetensors_write(path, list, n, &pf_safetensors_pt, 1, fill, &w, err);
    pf_free(w.row);
    pf_free(w.items);
    pf_free(list);
    return status;
}

/* model.c - taking weights from files and listing sites; see model.h.
 *
 * A weight that has the wanted type is a view into the mapped file. Another one is converted once,
 * into the model's arena. What is wrong with the files as a whole (missing, left over) is collected
 * and told at once. */
#include "nn/class_head.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "formats/tensor_source.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#define MAX_TOLD 5 /* names in one message */

/* ---- weights --------------------------------------------------------------------------------- */

typedef struct wanted {
    const char *name;
    int64_t rows, cols;
    bool is_vector;
    bool make;       /* where no file has it */
    bool transposed; /* in the files */
} wanted;

static const char *wanted_shape(const wanted *w, char *out, size_t n) {
    if (w->is_vector) {
        snprintf(out, n, "[%lld]", (long long)w->cols);
    } else {
        snprintf(out, n, "[%lld,%lld]", (long long)(w->transposed ? w->cols : w->rows),
                 (long long)(w->transposed ? w->rows : w->cols));
    }
    return out;
}

static bool has_shape(const pf_stored_tensor *t, const wanted *w) {
    if (w->is_vector) return t->n_dims == 1 && t->shape[0] == w->cols;
    const int64_t rows = w->transposed ? w->cols : w->rows,
                  cols = w->transposed ? w->rows : w->cols;
    return t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

static const pf_stored_tensor *find_exact(const pf_model *m, const char *name) {
    int i = pf_tensor_source_find(m->files, name);
    return i < 0 ? NULL : &m->files->tensors[i];
}

/* "LayerNorm.gamma" for "LayerNorm.weight": what TensorFlow called it, in the first BERT files. */
static const pf_stored_tensor *find_old_norm(const pf_model *m, const char *name) {
    static const char *const renamed[][2] = {{"LayerNorm.weight", "gamma"},
                                             {"LayerNorm.bias", "beta"}};
    char old[512];
    for (size_t i = 0; i < PF_COUNT(renamed); i++) {
        const char *dot = strrchr(name, '.');
        if (!pf_ends_with(name, renamed[i][0])) continue;
        snprintf(old, sizeof old, "%.*s.%s", (int)(dot - name), name, renamed[i][1]);
        return find_exact(m, old);
    }
    return NULL;
}

/* Under our name, or under one that older files have. */
static const pf_stored_tensor *find_named(const pf_model *m, const char *name) {
    const pf_stored_tensor *t = find_exact(m, name);
    const char *const *pair = m->family->old_names;
    for (; t == NULL && pair != NULL && *pair != NULL; pair += 2) {
        char old[512];
        if (!pf_starts_with(name, pair[0])) continue;
        snprintf(old, sizeof old, "%s%s", pair[1], name + strlen(pair[0]));
        t = find_exact(m, old);
    }
    return t != NULL ? t : find_old_norm(m, name);
}

static const pf_stored_tensor *find_stored(const pf_model *m, const char *name) {
    const pf_stored_tensor *t = find_named(m, name);
    /* the files of a bare model (LlamaModel, BertModel) have no "model." or "bert." before them */
    const char *dot = strchr(name, '.');
    if (t != NULL || dot == NULL) return t;
    for (int i = 0; i < m->files->n_tensors; i++)
        if (strncmp(m->files->tensors[i].name, name, (size_t)(dot + 1 - name)) == 0) return NULL;
    return find_named(m, dot + 1);
}

/* The tensor of this name, or the one that the files' metadata names in its place: safetensors
 * stores a shared tensor once and notes the other names as metadata {removed: kept}. NULL when
 * there is neither. */
static const pf_stored_tensor *find_tensor(const pf_model *m, const char *name) {
    const pf_stored_tensor *t = find_stored(m, name);
    for (int i = 0; t == NULL && i < m->files->n_files; i++) {
        const pf_tensor_file *file = &m->files->files[i];
        for (int k = 0; t == NULL && k < file->n_metadata; k++) {
            if (pf_streq(file->metadata[k].key, name)) t = find_stored(m, file->metadata[k].value);
        }
    }
    return t;
}

static void mark_used(pf_model *m, const pf_stored_tensor *t) {
    m->tensor_used[t - m->files->tensors] = true;
}

static peft_status convert(pf_model *m, pf_weight *w, peft_error *err) {
    enum { CHUNK = 4096 };
    float wide[CHUNK];
    const pf_dtype_traits *from = pf_dtype_info(w->dtype), *to = pf_dtype_info(m->convert_to);
    int64_t count = w->rows * w->cols;
    size_t bytes;
    unsigned char *dst = NULL;
    if (m->shapes_only) { /* a plan: counted, not done */
        m->converted_bytes += (int64_t)((uint64_t)count * to->block_bytes);
        w->dtype = m->convert_to;
        w->data = NULL;
        return PEFT_OK;
    }
    if (pf_dtype_bytes(m->convert_to, (uint64_t)count, &bytes))
        dst = pf_arena_aligned(&m->arena, bytes, 64);
    if (dst == NULL) {
        char size[32];
        return PF_FAIL(
            err, PEFT_E_NOMEM,
            "out of memory: %s as %s needs %s; with model.torch_dtype=auto it stays mapped as %s",
            w->name, to->torch_name,
            pf_format_bytes((double)count * (double)to->block_bytes, size, sizeof size),
            from->torch_name);
    }
    const unsigned char *src = w->data;
    for (int64_t i = 0; i < count; i += CHUNK) {
        size_t n = (size_t)(count - i < CHUNK ? count - i : CHUNK);
        pf_dtype_to_f32(w->dtype, src + (size_t)i * from->block_bytes, n, wide);
        pf_dtype_from_f32(m->convert_to, wide, n, dst + (size_t)i * to->block_bytes);
    }
    w->data = dst;
    w->dtype = m->convert_to;
    m->converted_bytes += (int64_t)bytes;
    return PEFT_OK;
}

/* In the wanted type: as it is in the file, or converted. Then seen as (out, in). */
static peft_status settle(pf_model *m, const wanted *want, pf_weight *w, peft_error *err) {
    if (m->convert_to != PF_DTYPE_NONE && m->convert_to != w->dtype) {
        PF_TRY(convert(m, w, err));
    } else {
        m->mapped_bytes += (int64_t)pf_weight_bytes(w);
    }
    if (want->transposed) *w = pf_weight_transpose(w);
    return PEFT_OK;
}

/* Random numbers in place of a tensor that no file has: a function of seed and name. */
static peft_status make(pf_model *m, const wanted *want, pf_weight *w, peft_error *err) {
    double std;
    PF_TRY(pf_json_opt_real(m->config, m->config_path, "initializer_range", 0.02, &std, err));
    PF_TRY(pf_strlist_add(&m->made, &m->arena, want->name, err));
    *w = pf_weight_of(want->name, PF_DTYPE_F32, NULL, want->rows, want->cols);
    if (m->shapes_only) return PEFT_OK;
    const int64_t count = want->rows * want->cols;
    float *data = pf_arena_aligned(&m->arena, (size_t)count * sizeof *data, 64);
    PF_CHECK_ALLOC(data, err);
    const pf_rng_key key =
        pf_rng_make_key(m->classes.seed, PF_RNG_INIT, pf_hash64(want->name, strlen(want->name), 0));
    for (int64_t i = 0; i < count; i++)
        data[i] = want->is_vector ? 0 : (float)(std * pf_rng_normal_at(key, (uint64_t)i));
    w->data = data;
    m->converted_bytes += count * (int64_t)sizeof *data;
    return PEFT_OK;
}

/* The tensor as a weight of this model. NULL in *out when no file has it, which is noted. */
static peft_status take(pf_model *m, const wanted *want, const pf_weight **out, peft_error *err) {
    *out = NULL;
    pf_weight *w = PF_NEW(&m->arena, pf_weight);
    PF_CHECK_ALLOC(w, err);
    m->n_params += want->rows * want->cols;
    *out = w;
    if (m->files == NULL) {
        *w = pf_weight_of(want->name, m->dtype, NULL, want->transposed ? want->cols : want->rows,
                          want->transposed ? want->rows : want->cols);
        return settle(m, want, w, err);
    }
    const pf_stored_tensor *t = find_tensor(m, want->name);
    if (t == NULL && want->make) return make(m, want, w, err);
    if (t == NULL) {
        *out = NULL;
        return pf_strlist_add(&m->missing, &m->arena, want->name, err);
    }
    mark_used(m, t);
    const char *file = pf_tensor_source_path(m->files, t);
    if (!has_shape(t, want)) {
        char found[PF_SHAPE_TEXT], expected[64];
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "%s: tensor %s is %s, but %s of this config.json expects %s. Weights and "
                       "config.json come from "
                       "different models",
                       file, want->name, pf_shape_text(t, found, sizeof found), m->architecture,
                       wanted_shape(want, expected, sizeof expected));
    }
    PF_TRY(pf_stored_weight(t, file, w, err));
    w->name = want->name;
    return settle(m, want, w, err);
}

static peft_status take_member(pf_model *m, const pf_site *site, const char *member, int64_t rows,
                               int64_t cols, bool is_vector, const pf_weight **out,
                               peft_error *err) {
    const char *name = pf_arena_printf(&m->arena, "%s.%s", site->name, member);
    PF_CHECK_ALLOC(name, err);
    const wanted want = {.name = name,
                         .rows = rows,
                         .cols = cols,
                         .is_vector = is_vector,
                         .make = site->always_trained,
                         .transposed = !is_vector && site->kind == PF_SITE_LINEAR &&
                                       m->family->transposed_linears};
    return take(m, &want, out, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static peft_status new_site(pf_model *m, pf_site_kind kind, int layer, const char *name,
                            int64_t out_dim, int64_t in_dim, pf_site **out, peft_error *err) {
    if (m->n_sites == m->cap_sites) {
        int cap = m->cap_sites == 0 ? 64 : 2 * m->cap_sites;
        pf_site **sites = PF_NEW_ARRAY(&m->arena, pf_site *, cap);
        PF_CHECK_ALLOC(sites, err);
        if (m->n_sites > 0) memcpy(sites, m->sites, (size_t)m->n_sites * sizeof *sites);
        m->sites = sites;
        m->cap_sites = cap;
    }
    pf_site *s = PF_NEW(&m->arena, pf_site);
    PF_CHECK_ALLOC(s, err);
    s->name = pf_arena_strdup(&m->arena, name);
    PF_CHECK_ALLOC(s->name, err);
    s->kind = kind;
    s->layer = layer;
    s->index = m->n_sites;
    s->in_dim = in_dim;
    s->out_dim = out_dim;
    m->sites[m->n_sites++] = s;
    *out = s;
    return PEFT_OK;
}

static peft_status take_site(pf_model *m, pf_site *s, bool with_bias, peft_error *err) {
    const bool is_norm = s->kind == PF_SITE_NORM;
    PF_TRY(take_member(m, s, "weight", is_norm ? 1 : s->out_dim, is_norm ? s->out_dim : s->in_dim,
                       is_norm, &s->weight, err));
    return with_bias ? take_member(m, s, "bias", 1, s->out_dim, true, &s->bias, err) : PEFT_OK;
}

peft_status pf_model_add_site(pf_model *m, pf_site_kind kind, int layer, const char *name,
                              int64_t out_dim, int64_t in_dim, bool with_bias, pf_site **out,
                              peft_error *err) {
    pf_site *s;
    PF_TRY(new_site(m, kind, layer, name, out_dim, in_dim, &s, err));
    *out = s;
    if (kind >= PF_SITE_ATTENTION_PREFIX) return PEFT_OK; /* no weights of its own */
    return take_site(m, s, with_bias, err);
}

peft_status pf_model_add_trained_site(pf_model *m, pf_site_kind kind, const char *name,
                                      int64_t out_dim, int64_t in_dim, bool with_bias,
                                      pf_site **out, peft_error *err) {
    PF_TRY(new_site(m, kind, -1, name, out_dim, in_dim, out, err));
    (*out)->always_trained = true;
    return take_site(m, *out, with_bias, err);
}

peft_status pf_model_add_embedding_output(pf_model *m, pf_site **out, peft_error *err) {
    const char *name = pf_arena_printf(&m->arena, "%s.output", m->embedding->name);
    PF_CHECK_ALLOC(name, err);
    return pf_model_add_site(m, PF_SITE_EMBEDDING_OUTPUT, -1, name, m->hidden, m->hidden, false,
                             out, err);
}

peft_status pf_model_add_block_sites(pf_model *m, int layer, const char *block, bool parallel,
                                     pf_block_sites *out, peft_error *err) {
    const int64_t C = m->hidden;
    int before = 0; /* blocks that stand already, of any stack */
    const char *attention = pf_arena_printf(&m->arena, "%s.attention_output", block);
    const char *mlp = pf_arena_printf(&m->arena, "%s.mlp_output", block);
    PF_CHECK_ALLOC(attention, err);
    PF_CHECK_ALLOC(mlp, err);
    for (int i = 0; i < m->n_sites; i++) before += m->sites[i]->kind == PF_SITE_BLOCK_OUTPUT;
    PF_TRY(pf_model_add_site(m, PF_SITE_ATTENTION_OUTPUT, layer, attention, C, C, false,
                             &out->attention, err));
    PF_TRY(pf_model_add_site(m, PF_SITE_MLP_OUTPUT, layer, mlp, C, C, false, &out->mlp, err));
    PF_TRY(
        pf_model_add_site(m, PF_SITE_BLOCK_OUTPUT, layer, block, C, C, false, &out->output, err));
    out->mlp->parallel = parallel;
    out->attention->block = out->mlp->block = out->output->block = before;
    return PEFT_OK;
}

peft_status pf_model_add_cross_output(pf_model *m, const char *block, pf_block_sites *at,
                                      peft_error *err) {
    const int64_t C = m->hidden;
    const char *name = pf_arena_printf(&m->arena, "%s.cross_output", block);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_model_add_site(m, PF_SITE_CROSS_OUTPUT, at->output->layer, name, C, C, false,
                             &at->cross, err));
    at->cross->block = at->output->block;
    return PEFT_OK;
}

peft_status pf_model_set_join_norm(pf_model *m, pf_site *at, pf_join_norm norm, peft_error *err) {
    pf_join_norm *copy = PF_NEW(&m->arena, pf_join_norm);
    PF_CHECK_ALLOC(copy, err);
    *copy = norm;
    at->norm = copy;
    return PEFT_OK;
}

peft_status pf_model_set_join_module(pf_model *m, pf_site *at, const char *block, const char *part,
                                     peft_error *err) {
    at->module = pf_arena_printf(&m->arena, "%s%s", block, part);
    PF_CHECK_ALLOC(at->module, err);
    return PEFT_OK;
}

/* ---- ties ------------------------------------------------------------------------------------ */

static bool same_numbers(const pf_stored_tensor *a, const pf_stored_tensor *b) {
    return a->dtype == b->dtype && a->bytes == b->bytes &&
           (a->data == b->data || memcmp(a->data, b->data, a->bytes) == 0);
}

/* Which of the two matrices do the files have, and are they one? As transformers does: what the
 * config says, unless both are stored and differ. */
static peft_status resolve_tie(pf_model *m, const char *embedding, const char *head, bool *tied,
                               const char **stored, peft_error *err) {
    *tied = m->tie_word_embeddings;
    *stored = pf_arena_printf(&m->arena, "%s.weight", embedding);
    const char *head_name = pf_arena_printf(&m->arena, "%s.weight", head);
    if (*stored == NULL || head_name == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (!*tied || m->files == NULL) return PEFT_OK;
    const pf_stored_tensor *e = find_stored(m, *stored), *h = find_stored(m, head_name);
    if (e == NULL && h != NULL) {
        *stored = head_name;
    } else if (e != NULL && h != NULL) {
        *tied = same_numbers(e, h);
        if (*tied) {
            mark_used(m, h);
        } else if (!m->encoder_decoder) { /* of T5, transformers 5 writes true either way */
            PF_WARN("%s: tie_word_embeddings is true, but %s and %s are both stored and differ: "
                    "they are kept apart",
                    m->config_path, *stored, head_name);
        }
    }
    return PEFT_OK;
}

peft_status pf_model_add_embedding_and_head(pf_model *m, const char *embedding, const char *head,
                                            bool head_bias, peft_error *err) {
    bool tied;
    const char *stored;
    const pf_weight *w;
    pf_site *e, *h;
    PF_TRY(resolve_tie(m, embedding, head, &tied, &stored, err));
    PF_TRY(new_site(m, PF_SITE_EMBEDDING, -1, embedding, m->vocab, m->hidden, &e, err));
    if (pf_task_is_classes(m->task)) {
        m->embedding = e;
        PF_TRY(take(m, &(wanted){.name = stored, .rows = m->vocab, .cols = m->hidden}, &e->weight,
                    err));
        return pf_model_add_class_head(m, err);
    }
    PF_TRY(new_site(m, PF_SITE_HEAD, -1, head, m->vocab, m->hidden, &h, err));
    PF_TRY(take(m, &(wanted){.name = stored, .rows = m->vocab, .cols = m->hidden}, &w, err));
    e->weight = h->weight = w;
    if (tied) {
        h->tied_to = e;
    } else {
        PF_TRY(take_member(m, h, "weight", m->vocab, m->hidden, false, &h->weight, err));
    }
    if (head_bias) PF_TRY(take_member(m, h, "bias", 1, m->vocab, true, &h->bias, err));
    m->embedding = e;
    m->head = h;
    return PEFT_OK;
}

bool pf_model_has_tensor(const pf_model *m, const char *name) {
    return m->files != NULL && find_stored(m, name) != NULL;
}

peft_status pf_model_embedding_alias(pf_model *m, const char *name, peft_error *err) {
    const pf_stored_tensor *t = m->files != NULL ? find_exact(m, name) : NULL;
    const pf_weight *w = m->embedding->weight;
    if (t == NULL || w == NULL || m->tensor_used[t - m->files->tensors]) return PEFT_OK;
    const pf_stored_tensor *e = find_tensor(m, w->name);
    if (e == NULL || !same_numbers(e, t))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: %s differs from %s; %s has one table of embeddings for both stacks",
                       m->path, name, w->name, m->architecture);
    mark_used(m, t);
    return pf_strlist_add(&m->aliases, &m->arena, name, err);
}

/* ---- the files as a whole -------------------------------------------------------------------- */

static peft_status fail_missing(const pf_model *m, peft_error *err) {
    pf_buf text = {0};
    const pf_tensor_source *src = m->files;
    const char **unused = pf_calloc((size_t)src->n_tensors + 1, sizeof *unused);
    if (unused == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    int n_unused = 0;
    for (int i = 0; i < src->n_tensors; i++) {
        if (!m->tensor_used[i]) unused[n_unused++] = src->tensors[i].name;
    }
    for (int i = 0; i < m->missing.n && i < MAX_TOLD; i++) {
        char shown[PF_NAME_TEXT];
        int near = pf_nearest(m->missing.items[i], unused, n_unused);
        pf_buf_addf(&text, "%s%s", i == 0 ? "" : ", ", m->missing.items[i]);
        if (near >= 0)
            pf_buf_addf(&text, " (nearest: %s)", pf_name_text(unused[near], shown, sizeof shown));
    }
    if (m->missing.n > MAX_TOLD) pf_buf_addf(&text, " and %d more", m->missing.n - MAX_TOLD);
    if (m->missing.n == 1 && m->embedding->weight != NULL && m->head->weight == NULL) {
        pf_buf_adds(&text, ". If the head shares the embedding's matrix, set tie_word_embeddings "
                           "to true in config.json");
    }
    peft_status status = PF_FAIL(
        err, PEFT_E_MISSING, "%s: %s needs %d tensor%s that no weight file has: %s", m->path,
        m->architecture, m->missing.n, m->missing.n == 1 ? "" : "s", pf_buf_str(&text));
    pf_buf_free(&text);
    pf_free(unused);
    return status;
}

/* Buffers that old checkpoints store and nobody reads. */
static bool is_known_leftover(const pf_model *m, const char *name) {
    const char *const *part = m->family->other_parts;
    for (; part != NULL && *part != NULL; part++) {
        if (strstr(name, *part) != NULL) return true;
    }
    return pf_ends_with(name, ".rotary_emb.inv_freq") || pf_ends_with(name, ".position_ids") ||
           pf_ends_with(name, ".masked_bias") || pf_ends_with(name, ".attn.bias") ||
           pf_ends_with(name, ".attention.bias");
}

/* What another task has above the hidden rows: left behind, as transformers does. */
static bool is_other_head(const pf_model *m, const char *name) {
    static const char *const heads[] = {"lm_head.",    "embed_out.",  "cls.",
                                        "qa_outputs.", "classifier.", "score."};
    if (!pf_task_is_classes(m->task)) return false;
    for (size_t i = 0; i < PF_COUNT(heads); i++)
        if (pf_starts_with(name, heads[i])) return true;
    return strstr(name, "pooler.dense.") != NULL;
}

/* Numbers that nobody reads: the files are not, or not only, what config.json says. An error,
 * unless the user knows it. */
static peft_status check_left_over(const pf_model *m, peft_error *err) {
    pf_buf text = {0};
    int n = 0;
    for (int i = 0; i < m->files->n_tensors; i++) {
        const char *name = m->files->tensors[i].name;
        if (m->tensor_used[i] || is_known_leftover(m, name) || is_other_head(m, name)) continue;
        char shown[PF_NAME_TEXT];
        if (n < MAX_TOLD)
            pf_buf_addf(&text, "%s%s", n == 0 ? "" : ", ", pf_name_text(name, shown, sizeof shown));
        n++;
    }
    if (n > MAX_TOLD) pf_buf_addf(&text, " and %d more", n - MAX_TOLD);
    peft_status status = PEFT_OK;
    if (n > 0 && !m->ignore_left_over_weights) {
        status = PF_FAIL(err, PEFT_E_FORMAT,
                         "%s: %d tensor%s of the weight files belong%s to no part of %s: %s. If "
                         "they may stay unread, say --ignore-left-over-weights, or in a "
                         "configuration model.ignore_left_over_weights=true",
                         m->path, n, n == 1 ? "" : "s", n == 1 ? "s" : "", m->architecture,
                         pf_buf_str(&text));
    } else if (n > 0) {
        PF_WARN("%s: %d tensor%s of the weight files belong%s to no part of %s and will not be "
                "used: %s",
                m->path, n, n == 1 ? "" : "s", n == 1 ? "s" : "", m->architecture,
                pf_buf_str(&text));
    }
    pf_buf_free(&text);
    return status;
}

/* The type that holds most of the numbers. */
static pf_dtype main_dtype(const pf_model *m) {
    int64_t count[PF_DTYPE_COUNT] = {0};
    pf_dtype best = PF_DTYPE_F32;
    for (int i = 0; i < m->n_sites; i++) {
        const pf_weight *w = m->sites[i]->weight;
        if (w != NULL) count[w->dtype] += w->rows * w->cols;
    }
    for (int t = 0; t < PF_DTYPE_COUNT; t++) {
        if (count[t] > count[best]) best = (pf_dtype)t;
    }
    return best;
}

peft_status pf_model_check_weights(pf_model *m, peft_error *err) {
    if (m->files == NULL) return PEFT_OK;
    if (m->missing.n > 0) return fail_missing(m, err);
    PF_TRY(check_left_over(m, err));
    pf_model_say_made(m);
    m->dtype = main_dtype(m);
    return PEFT_OK;
}

/* ---- use ------------------------------------------------------------------------------------- */

pf_site *pf_model_find_site(const pf_model *m, const char *name) {
    for (int i = 0; i < m->n_sites; i++) {
        if (pf_streq(m->sites[i]->name, name)) return m->sites[i];
    }
    return NULL;
}

pf_lead pf_model_lead(const pf_model *m, bool adapters) {
    return adapters ? m->lead : (pf_lead){0};
}

int64_t pf_model_positions(const pf_model *m, bool adapters) {
    const pf_lead lead = pf_model_lead(m, adapters);
    const int64_t taken = (int64_t)lead.prompt + (lead.apart ? 0 : lead.prefix) + lead.each;
    return m->max_positions > 0 ? m->max_positions - taken : 0;
}

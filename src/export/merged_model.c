/* merged_model.c - see merged_model.h. */
#include "export/merged_model.h"

#include "base/file.h"
#include "base/mem.h"
#include "formats/safetensors_shards.h"
#include "formats/safetensors_write.h"
#include "formats/hf_carry.h"
#include "formats/hf_folder.h"
#include "formats/tensor_source.h"
#include "formats/zip_pt.h"
#include "nn/class_head.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROWS_AT_ONCE  64
#define DEFAULT_SHARD 5000000000u /* huggingface_hub's "5GB" */
#define MAX_CONFIG    ((size_t)16 << 20)

/* Where the numbers of an output tensor come from. */
typedef struct origin {
    const pf_stored_tensor *stored; /* the base's tensor; NULL: the base has none, a site does */
    const pf_site *weight_of;       /* NULL: copied */
    const pf_site *bias_of;
} origin;

typedef struct job {
    pf_arena arena;
    const pf_adapter *ad;
    const pf_merged_options *opt;
    pf_stored_tensor *tensors;
    origin *origins;
    int n;
    pf_merged_result result;
} job;

static bool inside(const pf_weight *w, const pf_stored_tensor *t) {
    const unsigned char *p = w->data, *start = t->data;
    return p != NULL && p >= start && p < start + t->bytes;
}

/* The sites whose weight or bias this tensor is. A tied matrix belongs to two: `head` says which
 * reading is meant. */
static origin find_origin(const job *j, const pf_stored_tensor *t, bool as_head) {
    origin o = {.stored = t};
    const pf_model *m = j->ad->model;
    for (int i = 0; i < m->n_sites; i++) {
        const pf_site *s = m->sites[i];
        bool shared = m->head->tied_to != NULL && (s == m->head || s == m->embedding);
        if (shared && (s == m->head) != as_head) continue;
        if (s->weight != NULL && inside(s->weight, t) && pf_adapter_touches(j->ad, s, false))
            o.weight_of = s;
        if (s->bias != NULL && inside(s->bias, t) && pf_adapter_touches(j->ad, s, true))
            o.bias_of = s;
    }
    return o;
}

static peft_status add_tensor(job *j, const char *name, origin o, peft_error *err) {
    const pf_stored_tensor *t = o.stored;
    pf_dtype dtype = j->opt->dtype != PF_DTYPE_NONE && pf_dtype_info(t->dtype)->is_float
                         ? j->opt->dtype
                         : t->dtype;
    PF_TRY(pf_stored_tensor_set(&j->tensors[j->n], name, dtype, t->n_dims, t->shape, t->data, err));
    j->origins[j->n++] = o;
    j->result.n_changed += o.weight_of != NULL || o.bias_of != NULL;
    return PEFT_OK;
}

/* One matrix, two sites: they part when the adapter acts on them differently. */
static bool must_untie(const job *j) {
    const pf_model *m = j->ad->model;
    if (m->head->tied_to == NULL) return false;
    if (m->head->trained_weight != NULL && m->head->trained_weight == m->embedding->trained_weight)
        return false;
    if (j->ad->method->keeps_tie != NULL && j->ad->method->keeps_tie(j->ad)) return false;
    return pf_adapter_touches(j->ad, m->head, false) ||
           pf_adapter_touches(j->ad, m->embedding, false);
}

/* The name of a base's tensor in a model for another task: files of a bare model lack a prefix. */
static const char *full_name(const pf_model *m, const pf_stored_tensor *t) {
    for (int i = 0; i < m->n_sites; i++) {
        const pf_weight *const both[] = {m->sites[i]->weight, m->sites[i]->bias};
        for (int k = 0; k < 2; k++)
            if (both[k] != NULL && both[k]->data == t->data &&
                both[k]->rows * both[k]->cols == pf_stored_tensor_count(t))
                return both[k]->name;
    }
    return t->name;
}

/* A tensor that was made with the model, as its site has it now. */
static peft_status add_made(job *j, const pf_site *site, bool bias, peft_error *err) {
    const pf_model *m = j->ad->model;
    const pf_weight *w = bias ? site->bias : site->weight;
    if (w == NULL || !pf_strlist_has(&m->made, w->name)) return PEFT_OK;
    const int64_t shape[] = {w->rows, w->cols};
    const bool is_vector = bias || site->kind == PF_SITE_NORM;
    PF_TRY(pf_stored_tensor_set(&j->tensors[j->n], w->name,
                                j->opt->dtype != PF_DTYPE_NONE ? j->opt->dtype : m->dtype,
                                is_vector ? 1 : 2, is_vector ? shape + 1 : shape, NULL, err));
    j->origins[j->n++] = (origin){.weight_of = bias ? NULL : site, .bias_of = bias ? site : NULL};
    j->result.n_changed++;
    return PEFT_OK;
}

/* Classes: what the task uses of the base, and its head. Nothing is tied. */
static peft_status list_for_classes(job *j, peft_error *err) {
    const pf_model *m = j->ad->model;
    for (int i = 0; i < m->files->n_tensors; i++) {
        const pf_stored_tensor *t = &m->files->tensors[i];
        if (m->tensor_used[i])
            PF_TRY(add_tensor(j, full_name(m, t), find_origin(j, t, false), err));
    }
    for (int i = 0; i < m->n_sites; i++)
        for (int k = 0; k < 2; k++) PF_TRY(add_made(j, m->sites[i], k == 1, err));
    j->result.n_tensors = j->n;
    return PEFT_OK;
}

static peft_status list_tensors(job *j, peft_error *err) {
    const pf_model *m = j->ad->model;
    const pf_tensor_source *src = m->files;
    const int most = src->n_tensors + 1 + m->made.n;
    j->tensors = PF_NEW_ARRAY(&j->arena, pf_stored_tensor, most);
    j->origins = PF_NEW_ARRAY(&j->arena, origin, most);
    if (j->tensors == NULL || j->origins == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (pf_task_is_classes(m->task)) return list_for_classes(j, err);
    bool untie = j->result.untied = must_untie(j);
    const char *embedding = pf_arena_printf(&j->arena, "%s.weight", m->embedding->name);
    const char *head = pf_arena_printf(&j->arena, "%s.weight", m->head->name);
    if (embedding == NULL || head == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    bool has_both =
        pf_tensor_source_find(src, embedding) >= 0 && pf_tensor_source_find(src, head) >= 0;
    for (int i = 0; i < src->n_tensors; i++) {
        const pf_stored_tensor *t = &src->tensors[i];
        if (pf_strlist_has(&m->aliases, t->name)) continue; /* the embedding, once more */
        bool is_shared = m->head->tied_to != NULL && m->embedding->weight != NULL &&
                         inside(m->embedding->weight, t);
        if (untie && is_shared && !has_both) {
            const bool by_head = pf_streq(t->name, head); /* the name that is stored may be older */
            PF_TRY(add_tensor(j, by_head ? embedding : t->name, find_origin(j, t, false), err));
            PF_TRY(add_tensor(j, head, find_origin(j, t, true), err));
        } else {
            /* With both stored although tied, each name is written from the one matrix that the
             * model used. */
            bool as_head = pf_streq(t->name, head);
            const pf_stored_tensor *used = t;
            if (untie && has_both && (as_head || pf_streq(t->name, embedding))) {
                for (int k = 0; k < src->n_tensors; k++) {
                    if (inside(m->embedding->weight, &src->tensors[k])) used = &src->tensors[k];
                }
            }
            origin o = find_origin(j, used, as_head);
            PF_TRY(add_tensor(j, t->name, o, err));
        }
    }
    j->result.n_tensors = j->n;
    return PEFT_OK;
}

static peft_status rows_of(const job *j, const pf_site *site, bool bias, int64_t row0, int64_t n,
                           float *rows, peft_error *err) {
    return j->opt->undo ? pf_adapter_unmerged_rows(j->ad, site, bias, row0, n, rows, err)
                        : pf_adapter_merged_rows(j->ad, site, bias, row0, n, rows, err);
}

/* A matrix that is stored transposed (Conv1D): its columns are the rows that an adapter changes. */
static peft_status fill_turned(const job *j, const pf_site *site, pf_tensor_sink *sink,
                               peft_error *err) {
    const pf_weight *w = site->weight;
    float *rows = pf_malloc((size_t)(ROWS_AT_ONCE * w->cols) * sizeof *rows);
    float *turned = pf_malloc((size_t)(w->rows * w->cols) * sizeof *turned); /* (in, out) */
    peft_status status =
        rows != NULL && turned != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t r = 0; r < w->rows && status == PEFT_OK; r += ROWS_AT_ONCE) {
        const int64_t n = w->rows - r < ROWS_AT_ONCE ? w->rows - r : ROWS_AT_ONCE;
        status = rows_of(j, site, false, r, n, rows, err);
        for (int64_t c = 0; c < w->cols && status == PEFT_OK; c++) {
            for (int64_t i = 0; i < n; i++) turned[c * w->rows + r + i] = rows[i * w->cols + c];
        }
    }
    if (status == PEFT_OK)
        status = pf_tensor_sink_add_f32(sink, turned, (size_t)(w->rows * w->cols), err);
    pf_free(rows);
    pf_free(turned);
    return status;
}

/* Rows of a matrix as f32, changed by the adapter where it acts. */
static peft_status fill_weight(const job *j, const origin *o, pf_tensor_sink *sink,
                               peft_error *err) {
    const pf_site *site = o->weight_of;
    const pf_weight *w = site->weight;
    pf_weight whole;
    PF_TRY(pf_stored_weight(o->stored, o->stored->name, &whole, err));
    if (w->transposed && w->row_perm == NULL && whole.rows == w->cols && whole.cols == w->rows)
        return fill_turned(j, site, sink, err);
    if (w->transposed || w->row_perm != NULL || whole.cols != w->cols) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: merging into a weight that is stored in another layout is not supported",
            site->name);
    }
    size_t row_bytes;
    pf_dtype_bytes(w->dtype, (uint64_t)w->stride, &row_bytes);
    int64_t first =
        ((const unsigned char *)w->data - (const unsigned char *)whole.data) / (int64_t)row_bytes;
    pf_real *real = pf_malloc((size_t)(ROWS_AT_ONCE * whole.cols) * sizeof *real);
    float *rows = pf_malloc((size_t)(ROWS_AT_ONCE * whole.cols) * sizeof *rows);
    peft_status status =
        real != NULL && rows != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t r = 0; r < whole.rows && status == PEFT_OK; r += ROWS_AT_ONCE) {
        int64_t n = whole.rows - r < ROWS_AT_ONCE ? whole.rows - r : ROWS_AT_ONCE;
        pf_weight_read_tile(&whole, r, n, 0, whole.cols, real, whole.cols);
        for (int64_t i = 0; i < n * whole.cols; i++) rows[i] = (float)real[i];
        int64_t from = r > first ? r : first,
                to = r + n < first + w->rows ? r + n : first + w->rows;
        if (from < to) {
            status = rows_of(j, site, false, from - first, to - from,
                             rows + (from - r) * whole.cols, err);
        }
        if (status == PEFT_OK)
            status = pf_tensor_sink_add_f32(sink, rows, (size_t)(n * whole.cols), err);
    }
    pf_free(real);
    pf_free(rows);
    return status;
}

static peft_status fill_bias(const job *j, const origin *o, pf_tensor_sink *sink, peft_error *err) {
    size_t n = (size_t)pf_stored_tensor_count(o->stored);
    float *bias = pf_malloc(n * sizeof *bias);
    PF_CHECK_ALLOC(bias, err);
    peft_status status = rows_of(j, o->bias_of, true, 0, 1, bias, err);
    if (status == PEFT_OK) status = pf_tensor_sink_add_f32(sink, bias, n, err);
    pf_free(bias);
    return status;
}

/* A tensor that nobody touches, in another type. */
static peft_status fill_converted(const origin *o, pf_tensor_sink *sink, peft_error *err) {
    float block[4096];
    int64_t n = pf_stored_tensor_count(o->stored);
    size_t element = pf_dtype_info(o->stored->dtype)->block_bytes;
    for (int64_t i = 0; i < n; i += (int64_t)PF_COUNT(block)) {
        size_t part = n - i < (int64_t)PF_COUNT(block) ? (size_t)(n - i) : PF_COUNT(block);
        pf_dtype_to_f32(o->stored->dtype,
                        (const unsigned char *)o->stored->data + (size_t)i * element, part, block);
        PF_TRY(pf_tensor_sink_add_f32(sink, block, part, err));
    }
    return PEFT_OK;
}

static peft_status fill_made(const job *j, const origin *o, pf_tensor_sink *sink, peft_error *err) {
    const bool bias = o->bias_of != NULL;
    const pf_site *site = bias ? o->bias_of : o->weight_of;
    const pf_weight *w = bias ? site->bias : site->weight;
    float *row = pf_malloc((size_t)w->cols * sizeof *row);
    PF_CHECK_ALLOC(row, err);
    peft_status status = PEFT_OK;
    for (int64_t r = 0; r < w->rows && status == PEFT_OK; r++) {
        status = rows_of(j, site, bias, r, 1, row, err);
        if (status == PEFT_OK) status = pf_tensor_sink_add_f32(sink, row, (size_t)w->cols, err);
    }
    pf_free(row);
    return status;
}

static peft_status fill(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    const job *j = ctx;
    const origin *o = &j->origins[index];
    if (o->stored == NULL) return fill_made(j, o, sink, err);
    if (o->weight_of != NULL) return fill_weight(j, o, sink, err);
    if (o->bias_of != NULL) return fill_bias(j, o, sink, err);
    if (t->dtype != o->stored->dtype) return fill_converted(o, sink, err);
    return pf_tensor_sink_add(sink, o->stored->data, o->stored->bytes, err);
}

/* --- the other files of a model folder
 * --------------------------------------------------------------------------------- */

static peft_status write_config(const job *j, const char *from, const char *to, peft_error *err) {
    json_t *config;
    PF_TRY(pf_json_load(&config, from, MAX_CONFIG, err));
    /* where the key has a second meaning, files with two different matrices say it without */
    if (j->result.untied && !j->ad->model->tie_says_scale)
        json_object_set_new(config, "tie_word_embeddings", json_false());
    const peft_status written = pf_model_write_task(j->ad->model, config, err);
    if (written != PEFT_OK) {
        json_decref(config);
        return written;
    }
    if (j->opt->dtype != PF_DTYPE_NONE) {
        const char *key = json_object_get(config, "dtype") != NULL ? "dtype" : "torch_dtype";
        json_object_set_new(config, key, json_string(pf_dtype_info(j->opt->dtype)->torch_name));
    }
    pf_buf text = {0};
    peft_status status = pf_json_dump(&text, config, 2, PF_JSON_HF, err);
    json_decref(config);
    pf_buf_addc(&text, '\n');
    if (status == PEFT_OK && !pf_buf_ok(&text))
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_write_file(to, text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}

static peft_status write_other_files(job *j, const char *dir, peft_error *err) {
    const char *from = pf_path_join(&j->arena, j->ad->model->path, "config.json");
    const char *to = pf_path_join(&j->arena, dir, "config.json");
    if (from == NULL || to == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    PF_TRY(write_config(j, from, to, err));
    return pf_hf_carry(j->ad->model->path, dir, err);
}

/* --- folder and file
 * -----------------------------------------------------------------------------------------------------
 */

static peft_status refuse_existing(const pf_merged_options *opt, peft_error *err) {
    if (opt->overwrite || !pf_path_exists(opt->output)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CREATE,
                   "%s exists already; choose another --output, or replace it with --overwrite",
                   opt->output);
}

static peft_status write_folder(job *j, const char *dir, pf_merged_check check, void *check_ctx,
                                peft_error *err) {
    uint64_t shard = j->opt->max_shard_bytes > 0 ? j->opt->max_shard_bytes : DEFAULT_SHARD;
    PF_TRY(pf_safetensors_write_sharded(dir, "model", j->tensors, j->n, shard, &pf_safetensors_pt,
                                        1, fill, j, NULL, err));
    PF_TRY(write_other_files(j, dir, err));
    if (check != NULL) PF_TRY(check(check_ctx, dir, err));
    return pf_sync_dir(dir, err);
}

/* The .pt of a merged folder that has been checked: its tensors, written once more and read back.
 */
static peft_status write_pt(const char *dir, const char *file, peft_error *err) {
    pf_hf_folder folder;
    pf_tensor_source src = {0};
    PF_TRY(pf_hf_folder_open(&folder, dir, NULL, err));
    peft_status status = pf_hf_folder_open_weights(&folder, &src, err);
    uint64_t *offsets = pf_calloc((size_t)src.n_tensors + 1, sizeof *offsets);
    if (status == PEFT_OK && offsets == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK)
        status = pf_pt_write(file, src.tensors, src.n_tensors, NULL, NULL, NULL, offsets, err);
    pf_mapping m = {0};
    if (status == PEFT_OK) status = pf_map_file(&m, file, err);
    for (int i = 0; status == PEFT_OK && i < src.n_tensors; i++) {
        const pf_stored_tensor *t = &src.tensors[i];
        bool same = offsets[i] <= m.size && t->bytes <= m.size - offsets[i] &&
                    (t->bytes == 0 || memcmp(m.data + offsets[i], t->data, t->bytes) == 0);
        if (!same)
            status = PF_FAIL(err, PEFT_E_IO, "%s: %s reads back otherwise than it was written",
                             file, t->name);
    }
    pf_unmap_file(&m);
    pf_free(offsets);
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&folder);
    return status;
}

static peft_status put_in_place(job *j, const char *made, const char *output, peft_error *err) {
    if (j->opt->overwrite) PF_TRY(pf_remove_tree(output, err));
    PF_TRY(pf_rename(made, output, err));
    const char *parent = pf_path_dir(&j->arena, output);
    PF_CHECK_ALLOC(parent, err);
    return pf_sync_dir(parent, err);
}

static peft_status write_all(job *j, pf_merged_check check, void *check_ctx, peft_error *err) {
    const pf_merged_options *opt = j->opt;
    PF_TRY(refuse_existing(opt, err));
    PF_TRY(list_tensors(j, err));
    size_t n = strlen(opt->output);
    while (n > 1 && opt->output[n - 1] == '/') n--;
    const char *output = pf_arena_strndup(&j->arena, opt->output, n);
    PF_CHECK_ALLOC(output, err);
    const char *parent = pf_path_dir(&j->arena, output);
    const char *made = pf_arena_printf(&j->arena, "%s/.tmp-merge-%ld-%s", parent, (long)getpid(),
                                       pf_path_base(output));
    if (parent == NULL || made == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    PF_TRY(pf_make_dirs(parent, err));
    PF_TRY(pf_make_dirs(made, err));
    peft_status status = write_folder(j, made, check, check_ctx, err);
    if (status == PEFT_OK && pf_ends_with(output, ".pt")) {
        /* under its own name already: the name is part of the archive */
        const char *file = pf_path_join(&j->arena, made, pf_path_base(output));
        status =
            file != NULL ? write_pt(made, file, err) : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (status == PEFT_OK) status = put_in_place(j, file, output, err);
        pf_remove_tree(made, NULL);
        return status;
    }
    if (status == PEFT_OK) status = put_in_place(j, made, output, err);
    if (status != PEFT_OK) pf_remove_tree(made, NULL);
    return status;
}

peft_status pf_merged_write(const pf_adapter *ad, const pf_merged_options *opt,
                            pf_merged_check check, void *check_ctx, pf_merged_result *out,
                            peft_error *err) {
    job j = {.ad = ad, .opt = opt};
    pf_arena_init(&j.arena, "merge");
    peft_status status = write_all(&j, check, check_ctx, err);
    if (status == PEFT_OK && out != NULL) *out = j.result;
    pf_arena_release(&j.arena);
    return status;
}

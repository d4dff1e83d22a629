/* factor_file.c - see factor_file.h. */
#include "factors/factor_file.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "text/json.h"

#include <string.h>

static bool ends_with(const char *s, const char *end) {
    const size_t n = strlen(s), m = strlen(end);
    return m <= n && strcmp(s + n - m, end) == 0;
}

static void read_rows(const pf_weight *w, bool turned, float *out) {
    enum { CHUNK = 256 };
    pf_real wide[CHUNK];
    for (int64_t i = 0; i < w->rows; i++) {
        for (int64_t j = 0; j < w->cols; j += CHUNK) {
            const int64_t n = w->cols - j < CHUNK ? w->cols - j : CHUNK;
            pf_weight_read_tile(w, i, 1, j, n, wide, n);
            for (int64_t k = 0; k < n; k++)
                out[turned ? (j + k) * w->rows + i : i * w->cols + j + k] = (float)wide[k];
        }
    }
}

static peft_status matrix_of(const pf_safetensors *file, const pf_stored_tensor *t, pf_weight *w,
                             peft_error *err) {
    if (t->n_dims != 2)
        return PF_FAIL(err, PEFT_E_SHAPE, "%s: %s should have two dimensions", file->path, t->name);
    return pf_stored_weight(t, file->path, w, err);
}

/* The pair whose first tensor is t; `end_a` is how its name ends. */
static peft_status read_pair(pf_factors *f, const pf_factor_names *names,
                             const pf_safetensors *file, const pf_stored_tensor *t,
                             const char *end_a, const char *end_b, bool embedding,
                             peft_error *err) {
    const size_t stem = strlen(t->name) - strlen(end_a);
    const char *other = pf_arena_printf(&f->arena, "%.*s%s", (int)stem, t->name, end_b);
    PF_CHECK_ALLOC(other, err);
    const pf_stored_tensor *tb = pf_safetensors_find(file, other);
    if (tb == NULL)
        return PF_FAIL(err, PEFT_E_MISSING, "%s: %s is there, %s is not", file->path, t->name,
                       other);
    pf_weight a, b;
    PF_TRY(matrix_of(file, t, &a, err));
    PF_TRY(matrix_of(file, tb, &b, err));
    const int64_t r = names->turned ? a.cols : a.rows, in = names->turned ? a.rows : a.cols;
    const int64_t rb = names->turned ? b.rows : b.cols, out = names->turned ? b.cols : b.rows;
    if (r != rb || r < 1 || in < 1 || out < 1)
        return PF_FAIL(err, PEFT_E_SHAPE, "%s: %s and %s have ranks %lld and %lld", file->path,
                       t->name, other, (long long)r, (long long)rb);
    const char *name = pf_arena_printf(&f->arena, "%.*s", (int)stem, t->name);
    PF_CHECK_ALLOC(name, err);
    if (pf_starts_with(name, names->prefix)) name += strlen(names->prefix);
    pf_factor *x;
    PF_TRY(pf_factors_add(f, name, embedding, r, in, out, 1, &x, err));
    read_rows(&a, names->turned, x->a);
    read_rows(&b, names->turned, x->b);
    return PEFT_OK;
}

static peft_status read_all(pf_factors *f, const pf_factor_names *names, const pf_safetensors *file,
                            peft_error *err) {
    for (int i = 0; i < file->n_tensors; i++) {
        const pf_stored_tensor *t = &file->tensors[i];
        if (names->e_a != NULL && ends_with(t->name, names->e_a))
            PF_TRY(read_pair(f, names, file, t, names->e_a, names->e_b, true, err));
        else if (ends_with(t->name, names->a))
            PF_TRY(read_pair(f, names, file, t, names->a, names->b, false, err));
        else if (!ends_with(t->name, names->b) &&
                 (names->e_b == NULL || !ends_with(t->name, names->e_b)))
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: %s is no factor of a plain LoRA (DoRA, biases and modules_to_save "
                           "have more than factors)",
                           file->path, t->name);
    }
    return PEFT_OK;
}

peft_status pf_factor_file_read(pf_factors *f, const pf_factor_names *names, const char *path,
                                peft_error *err) {
    pf_safetensors file;
    if (!pf_path_exists(path))
        return PF_FAIL(err, PEFT_E_MISSING,
                       "%s: there is no such file, but an adapter_config.json "
                       "beside it",
                       path);
    PF_TRY(pf_safetensors_open(&file, path, err));
    peft_status status = read_all(f, names, &file, err);
    pf_safetensors_close(&file);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------- */

/* Tensor 2i is the first factor of item i, 2i + 1 the second. */
typedef struct writer {
    const pf_factors *f;
    const pf_factor_names *names;
} writer;

static peft_status fill(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    (void)t;
    const writer *w = ctx;
    const pf_factor *x = &w->f->items[index / 2];
    const bool second = index % 2 == 1;
    const float *data = second ? x->b : x->a;
    const int64_t rows = second ? x->out : x->r, cols = second ? x->r : x->in;
    if (!w->names->turned) return pf_tensor_sink_add_f32(sink, data, (size_t)(rows * cols), err);
    float column[256];
    for (int64_t j = 0; j < cols; j++) {
        for (int64_t i = 0; i < rows; i += (int64_t)PF_COUNT(column)) {
            int64_t n = 0;
            for (; n < (int64_t)PF_COUNT(column) && i + n < rows; n++)
                column[n] = data[(i + n) * cols + j];
            PF_TRY(pf_tensor_sink_add_f32(sink, column, (size_t)n, err));
        }
    }
    return PEFT_OK;
}

static peft_status list_tensors(const writer *w, pf_arena *a, pf_stored_tensor *list,
                                peft_error *err) {
    const pf_factor_names *names = w->names;
    for (int i = 0; i < w->f->n; i++) {
        const pf_factor *x = &w->f->items[i];
        const bool e = x->embedding && names->e_a != NULL;
        const char *name_a =
            pf_arena_printf(a, "%s%s%s", names->prefix, x->module, e ? names->e_a : names->a);
        const char *name_b =
            pf_arena_printf(a, "%s%s%s", names->prefix, x->module, e ? names->e_b : names->b);
        PF_CHECK_ALLOC(name_a, err);
        PF_CHECK_ALLOC(name_b, err);
        const int64_t shape_a[2] = {names->turned ? x->in : x->r, names->turned ? x->r : x->in};
        const int64_t shape_b[2] = {names->turned ? x->r : x->out, names->turned ? x->out : x->r};
        PF_TRY(pf_stored_tensor_set(&list[2 * i], name_a, PF_DTYPE_F32, 2, shape_a, NULL, err));
        PF_TRY(pf_stored_tensor_set(&list[2 * i + 1], name_b, PF_DTYPE_F32, 2, shape_b, NULL, err));
    }
    return PEFT_OK;
}

peft_status pf_factor_file_write(const pf_factors *f, const pf_factor_names *names,
                                 const char *path, peft_error *err) {
    writer w = {.f = f, .names = names};
    pf_arena a;
    pf_arena_init(&a, "factors");
    pf_stored_tensor *list = PF_NEW_ARRAY(&a, pf_stored_tensor, 2 * f->n + 1);
    peft_status status =
        list != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory to write %s", path);
    if (status == PEFT_OK) status = list_tensors(&w, &a, list, err);
    if (status == PEFT_OK)
        status = pf_safetensors_write(path, list, 2 * f->n, &pf_safetensors_pt, 1, fill, &w, err);
    pf_arena_release(&a);
    return status;
}

json_t *pf_factor_targets(const pf_factors *f) {
    json_t *list = json_array();
    for (int i = 0; i < f->n && list != NULL; i++) {
        const char *dot = strrchr(f->items[i].module, '.');
        const char *name = dot != NULL ? dot + 1 : f->items[i].module;
        bool there = false;
        for (size_t k = 0; k < json_array_size(list); k++)
            there = there || pf_streq(json_string_value(json_array_get(list, k)), name);
        if (!there && json_array_append_new(list, json_string(name)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

peft_status pf_factor_config_write(json_t *config, const char *dir, peft_error *err) {
    if (config == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_arena a;
    pf_arena_init(&a, "config");
    const char *path = pf_path_join(&a, dir, "adapter_config.json");
    peft_status status =
        path != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory to write %s", dir);
    if (status == PEFT_OK) status = pf_json_write(path, config, PF_JSON_HF, err);
    pf_arena_release(&a);
    json_decref(config);
    return status;
}

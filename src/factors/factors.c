/* factors.c - see factors.h; formats are in factor_<name>.c. */
#include "factors/factors.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/svd.h"
#include "text/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void pf_factors_init(pf_factors *f, const char *path) {
    memset(f, 0, sizeof *f);
    pf_arena_init(&f->arena, "factors");
    f->path = path;
    f->task_type = "CAUSAL_LM";
}

void pf_factors_release(pf_factors *f) {
    if (f == NULL) return;
    pf_arena_release(&f->arena);
    memset(f, 0, sizeof *f);
}

peft_status pf_factors_add(pf_factors *f, const char *module, bool embedding, int64_t r, int64_t in,
                           int64_t out, double scale, pf_factor **added, peft_error *err) {
    if (f->n == f->cap) {
        const int cap = f->cap == 0 ? 64 : 2 * f->cap;
        pf_factor *grown = PF_NEW_ARRAY(&f->arena, pf_factor, cap);
        PF_CHECK_ALLOC(grown, err);
        if (f->n > 0) memcpy(grown, f->items, (size_t)f->n * sizeof *grown);
        f->items = grown;
        f->cap = cap;
    }
    pf_factor *x = &f->items[f->n];
    *x = (pf_factor){.embedding = embedding, .r = r, .in = in, .out = out, .scale = scale};
    x->module = pf_arena_strdup(&f->arena, module);
    x->a = PF_NEW_ARRAY(&f->arena, float, (size_t)(r * in));
    x->b = PF_NEW_ARRAY(&f->arena, float, (size_t)(out * r));
    if (x->module == NULL || x->a == NULL || x->b == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory for the factors of %s", f->path,
                       module);
    f->n++;
    *added = x;
    return PEFT_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pf_factor *)a)->module, ((const pf_factor *)b)->module);
}

void pf_factors_sort(pf_factors *f) {
    if (f->n > 1) qsort(f->items, (size_t)f->n, sizeof *f->items, by_name);
}

const pf_factor *pf_factors_find(const pf_factors *f, const char *module) {
    for (int i = 0; i < f->n; i++) {
        if (pf_streq(f->items[i].module, module)) return &f->items[i];
    }
    return NULL;
}

void pf_factor_rows(const pf_factor *f, int64_t row0, int64_t n, double *out) {
    memset(out, 0, (size_t)(n * f->in) * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        double *row = out + i * f->in;
        for (int64_t k = 0; k < f->r; k++) {
            const double b = f->scale * (double)f->b[(row0 + i) * f->r + k];
            if (b == 0) continue;
            const float *a = f->a + k * f->in;
            for (int64_t j = 0; j < f->in; j++) row[j] += b * (double)a[j];
        }
    }
}

/* The squared norm of a matrix, row by row. */
static double squares(const pf_svd_matrix *m, double *row) {
    double sum = 0;
    for (int64_t i = 0; i < m->m; i++) {
        m->read(m->ctx, i, 1, row);
        for (int64_t j = 0; j < m->n; j++) sum += row[j] * row[j];
    }
    return sum;
}

peft_status pf_factor_cut(pf_factor *f, const void *ctx,
                          void (*read)(const void *ctx, int64_t row0, int64_t n, double *out),
                          double *left, peft_error *err) {
    const pf_svd_matrix m = {.m = f->out, .n = f->in, .ctx = ctx, .read = read};
    const int64_t most = f->out < f->in ? f->out : f->in, r = f->r < most ? f->r : most;
    double *room = pf_calloc((size_t)(r * (f->out + f->in + 1) + f->in), sizeof *room);
    PF_CHECK_ALLOC(room, err);
    double *u = room, *v = u + r * f->out, *s = v + r * f->in, *row = s + r;
    const double all = squares(&m, row);
    peft_status status = all > 0 ? pf_svd_leading(&m, r, 0, u, s, v, err) : PEFT_OK;
    double kept = 0;
    for (int64_t k = 0; k < r && status == PEFT_OK; k++) {
        kept += s[k] * s[k];
        for (int64_t j = 0; j < f->in; j++) f->a[k * f->in + j] = (float)v[k * f->in + j];
        for (int64_t i = 0; i < f->out; i++) f->b[i * f->r + k] = (float)(s[k] * u[k * f->out + i]);
    }
    f->scale = 1;
    *left = all > 0 && all > kept ? sqrt((all - kept) / all) : 0;
    pf_free(room);
    return status;
}

peft_status pf_factors_even(pf_factors *f, int64_t *r, peft_error *err) {
    *r = 1;
    for (int i = 0; i < f->n; i++) *r = f->items[i].r > *r ? f->items[i].r : *r;
    for (int i = 0; i < f->n; i++) {
        pf_factor *x = &f->items[i];
        float *a = PF_NEW_ARRAY(&f->arena, float, (size_t)(*r * x->in));
        float *b = PF_NEW_ARRAY(&f->arena, float, (size_t)(x->out * *r));
        PF_CHECK_ALLOC(a, err);
        PF_CHECK_ALLOC(b, err);
        memcpy(a, x->a, (size_t)(x->r * x->in) * sizeof *a);
        for (int64_t o = 0; o < x->out; o++) {
            for (int64_t k = 0; k < x->r; k++)
                b[o * *r + k] = (float)(x->scale * (double)x->b[o * x->r + k]);
        }
        x->a = a;
        x->b = b;
        x->r = *r;
        x->scale = 1;
    }
    return PEFT_OK;
}

peft_status pf_factors_know_model(pf_factors *f, const char *dir, peft_error *err) {
    const char *path = pf_path_join(&f->arena, dir, "config.json"), *type;
    PF_CHECK_ALLOC(path, err);
    json_t *c;
    PF_TRY(pf_json_load(&c, path, (size_t)16 << 20, err));
    const json_t *classes = json_object_get(c, "architectures");
    const char *class = json_string_value(json_array_get(classes, 0));
    peft_status status = pf_json_get_str(c, path, "model_type", &type, err);
    if (status == PEFT_OK)
        status = pf_json_opt_int(c, path, "hidden_size", 0, 0, INT32_MAX, &f->hidden, err);
    if (status == PEFT_OK) {
        f->model_type = pf_arena_strdup(&f->arena, type);
        f->model_class = pf_arena_strdup(&f->arena, class != NULL ? class : "");
        f->base_name = pf_arena_strdup(&f->arena, dir);
        if (f->model_type == NULL || f->model_class == NULL || f->base_name == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    json_decref(c);
    return status;
}

/* ---- folders --------------------------------------------------------------------------------- */

#define PF_FACTOR_FORMAT(name) extern const pf_factor_format pf_factor_format_##name;
#include "factors/factor_formats.def"
#undef PF_FACTOR_FORMAT

const pf_factor_format *const pf_factor_formats[] = {
#define PF_FACTOR_FORMAT(name) &pf_factor_format_##name,
#include "factors/factor_formats.def"
#undef PF_FACTOR_FORMAT
    NULL,
};

const pf_factor_format *pf_factor_format_find(const char *name) {
    for (int i = 0; pf_factor_formats[i] != NULL; i++) {
        if (pf_streq(pf_factor_formats[i]->name, name)) return pf_factor_formats[i];
    }
    return NULL;
}

static peft_status read_any(pf_factors *f, const json_t *c, const char *where, const char *dir,
                            const pf_factor_format **format, peft_error *err) {
    if (!json_is_object(c))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    for (int i = 0; pf_factor_formats[i] != NULL; i++) {
        if (!pf_factor_formats[i]->is(c)) continue;
        if (format != NULL) *format = pf_factor_formats[i];
        PF_TRY(pf_factor_formats[i]->read(f, c, dir, err));
        if (f->n == 0)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: there are no LoRA tensors in it", dir);
        pf_factors_sort(f);
        return PEFT_OK;
    }
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: this is no LoRA of PEFT, AdapterHub or MLX; an adapter of another method "
                   "becomes one with: adapter convert --to lora --rank R",
                   where);
}

peft_status pf_factors_open(pf_factors *f, const char *dir, const pf_factor_format **format,
                            peft_error *err) {
    pf_factors_init(f, dir);
    const char *where = pf_path_join(&f->arena, dir, "adapter_config.json");
    json_t *c;
    peft_status status = where != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK && !pf_path_exists(where))
        status = PF_FAIL(err, PEFT_E_MISSING,
                         "%s: there is no adapter_config.json, so this is no adapter folder", dir);
    if (status == PEFT_OK) status = pf_json_load(&c, where, (size_t)16 << 20, err);
    if (status == PEFT_OK) {
        status = read_any(f, c, where, dir, format, err);
        json_decref(c);
    }
    if (status != PEFT_OK) pf_factors_release(f);
    return status;
}

peft_status pf_factors_write(pf_factors *f, const pf_factor_format *format, const char *dir,
                             peft_error *err) {
    PF_TRY(pf_make_dirs(dir, err));
    return format->write(f, dir, err);
}

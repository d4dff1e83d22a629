/* adapter_diff.c - see adapter_diff.h. */
#include "factors/adapter_diff.h"

#include "base/file.h"
#include "base/str.h"
#include "factors/factors.h"
#include "formats/safetensors.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

#define MAX_CONFIG ((size_t)16 << 20)

typedef struct side {
    const char *dir;
    json_t *config;
    pf_safetensors file;
} side;

static void close_side(side *s) {
    json_decref(s->config);
    pf_safetensors_close(&s->file);
}

/* The tensors stand in the file of one of the formats. */
static peft_status open_tensors(side *s, pf_arena *a, peft_error *err) {
    for (int i = 0; pf_factor_formats[i] != NULL; i++) {
        const char *path = pf_path_join(a, s->dir, pf_factor_formats[i]->weights);
        PF_CHECK_ALLOC(path, err);
        if (pf_path_exists(path)) return pf_safetensors_open(&s->file, path, err);
    }
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s: there is no file with the adapter's tensors "
                   "(adapter_model.safetensors)",
                   s->dir);
}

static peft_status open_side(side *s, pf_arena *a, const char *dir, peft_error *err) {
    *s = (side){.dir = dir};
    const char *path = pf_path_join(a, dir, "adapter_config.json");
    PF_CHECK_ALLOC(path, err);
    if (!pf_path_exists(path))
        return PF_FAIL(err, PEFT_E_MISSING,
                       "%s: there is no adapter_config.json, so this is no adapter folder", dir);
    PF_TRY(pf_json_load(&s->config, path, MAX_CONFIG, err));
    if (!json_is_object(s->config))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", path);
    return open_tensors(s, a, err);
}

/* ---- numbers --------------------------------------------------------------------------------- */

typedef struct distance {
    double most;  /* largest |a - b| */
    double share; /* |a - b| / |a| */
    double cosine;
} distance;

typedef struct sums {
    double aa, bb, ab, dd, most;
} sums;

static peft_status add_up(const pf_safetensors *fa, const pf_stored_tensor *ta,
                          const pf_safetensors *fb, const pf_stored_tensor *tb, sums *s,
                          peft_error *err) {
    enum { CHUNK = 512 };
    pf_real x[CHUNK], y[CHUNK];
    pf_weight a, b;
    PF_TRY(pf_stored_weight(ta, fa->path, &a, err));
    PF_TRY(pf_stored_weight(tb, fb->path, &b, err));
    *s = (sums){0};
    for (int64_t i = 0; i < a.rows; i++) {
        for (int64_t j = 0; j < a.cols; j += CHUNK) {
            const int64_t n = a.cols - j < CHUNK ? a.cols - j : CHUNK;
            pf_weight_read_tile(&a, i, 1, j, n, x, n);
            pf_weight_read_tile(&b, i, 1, j, n, y, n);
            for (int64_t k = 0; k < n; k++) {
                const double p = (double)x[k], q = (double)y[k], d = p - q;
                s->aa += p * p;
                s->bb += q * q;
                s->ab += p * q;
                s->dd += d * d;
                if (!(fabs(d) <= s->most)) s->most = fabs(d);
            }
        }
    }
    return PEFT_OK;
}

static distance distance_of(const sums *s) {
    return (distance){.most = s->most,
                      .share = s->aa > 0   ? sqrt(s->dd / s->aa)
                               : s->dd > 0 ? INFINITY
                                           : 0,
                      .cosine = s->aa > 0 && s->bb > 0 ? s->ab / sqrt(s->aa * s->bb) : 0};
}

static bool same_shape(const pf_stored_tensor *a, const pf_stored_tensor *b) {
    return a->n_dims == b->n_dims &&
           memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) == 0;
}

/* ---- telling --------------------------------------------------------------------------------- */

typedef struct teller {
    pf_buf *out;
    bool json;
    int n; /* differences told */
} teller;

static void tell_words(teller *t, const char *kind, const char *name, const char *a,
                       const char *b) {
    if (t->json) {
        pf_buf_adds(t->out, t->n > 0 ? ",\n  " : "\n  ");
        pf_buf_addf(t->out, "{\"what\": \"%s\", \"name\": ", kind);
        pf_json_add_cstr(t->out, name);
        pf_buf_adds(t->out, ", \"a\": ");
        pf_json_add_cstr(t->out, a);
        pf_buf_adds(t->out, ", \"b\": ");
        pf_json_add_cstr(t->out, b);
        pf_buf_addc(t->out, '}');
    } else {
        pf_buf_addf(t->out, "%s %s: %s | %s\n", kind, name, a, b);
    }
    t->n++;
}

static peft_status tell_key(teller *t, const char *key, const json_t *a, const json_t *b,
                            peft_error *err) {
    pf_buf x = {0}, y = {0};
    peft_status status = PEFT_OK;
    if (a != NULL) status = pf_json_dump(&x, a, 0, 0, err);
    if (b != NULL && status == PEFT_OK) status = pf_json_dump(&y, b, 0, 0, err);
    if (status == PEFT_OK)
        tell_words(t, "key", key, a != NULL ? pf_buf_str(&x) : "not there",
                   b != NULL ? pf_buf_str(&y) : "not there");
    pf_buf_free(&x);
    pf_buf_free(&y);
    return status;
}

static peft_status compare_configs(teller *t, const json_t *a, const json_t *b, peft_error *err) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)a, key, v) {
        const json_t *other = json_object_get(b, key);
        if (other == NULL || !json_equal(v, other)) PF_TRY(tell_key(t, key, v, other, err));
    }
    json_object_foreach((json_t *)(uintptr_t)b, key, v) {
        if (json_object_get(a, key) == NULL) PF_TRY(tell_key(t, key, NULL, v, err));
    }
    return PEFT_OK;
}

static void tell_distance(teller *t, const char *name, const distance *d) {
    if (t->json) {
        pf_buf_adds(t->out, t->n > 0 ? ",\n  " : "\n  ");
        pf_buf_adds(t->out, "{\"what\": \"numbers\", \"name\": ");
        pf_json_add_cstr(t->out, name);
        pf_buf_adds(t->out, ", \"max_abs\": ");
        pf_json_add_real(t->out, d->most);
        pf_buf_adds(t->out, ", \"relative\": ");
        pf_json_add_real(t->out, isfinite(d->share) ? d->share : -1);
        pf_buf_adds(t->out, ", \"cosine\": ");
        pf_json_add_real(t->out, d->cosine);
        pf_buf_addc(t->out, '}');
    } else {
        pf_buf_addf(t->out, "numbers %s: max |a - b| %.3g, |a - b| / |a| %.3g, cosine %.6f\n", name,
                    d->most, d->share, d->cosine);
    }
    t->n++;
}

static peft_status compare_tensors(teller *t, const side *a, const side *b, peft_error *err) {
    char x[PF_SHAPE_TEXT], y[PF_SHAPE_TEXT];
    for (int i = 0; i < a->file.n_tensors; i++) {
        const pf_stored_tensor *ta = &a->file.tensors[i];
        const pf_stored_tensor *tb = pf_safetensors_find(&b->file, ta->name);
        if (tb == NULL || !same_shape(ta, tb)) {
            tell_words(t, "tensor", ta->name, pf_shape_text(ta, x, sizeof x),
                       tb != NULL ? pf_shape_text(tb, y, sizeof y) : "not there");
            continue;
        }
        sums s;
        PF_TRY(add_up(&a->file, ta, &b->file, tb, &s, err));
        const distance d = distance_of(&s);
        if (!(d.most == 0)) tell_distance(t, ta->name, &d);
    }
    for (int i = 0; i < b->file.n_tensors; i++) {
        const pf_stored_tensor *tb = &b->file.tensors[i];
        if (pf_safetensors_find(&a->file, tb->name) == NULL)
            tell_words(t, "tensor", tb->name, "not there", pf_shape_text(tb, y, sizeof y));
    }
    return PEFT_OK;
}

peft_status pf_adapter_diff(const char *dir_a, const char *dir_b, bool json, pf_buf *out,
                            bool *same, peft_error *err) {
    pf_arena a;
    side x = {0}, y = {0};
    teller t = {.out = out, .json = json};
    pf_arena_init(&a, "diff");
    peft_status status = open_side(&x, &a, dir_a, err);
    if (status == PEFT_OK) status = open_side(&y, &a, dir_b, err);
    if (json) pf_buf_addc(out, '[');
    if (status == PEFT_OK) status = compare_configs(&t, x.config, y.config, err);
    if (status == PEFT_OK) status = compare_tensors(&t, &x, &y, err);
    if (json) pf_buf_adds(out, t.n > 0 ? "\n]\n" : "]\n");
    if (!json && t.n == 0)
        pf_buf_addf(out, "the same: %d tensors, every key and number\n", x.file.n_tensors);
    *same = t.n == 0;
    close_side(&x);
    close_side(&y);
    pf_arena_release(&a);
    if (status == PEFT_OK && !pf_buf_ok(out)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return status;
}

/* ---- one folder ------------------------------------------------------------------------------ */

/* |scale B A|, from the products of each with itself: tr((BᵀB)(AAᵀ)). */
static double update_norm(const pf_factor *f) {
    double sum = 0;
    for (int64_t k = 0; k < f->r; k++) {
        for (int64_t l = 0; l < f->r; l++) {
            double aa = 0, bb = 0;
            for (int64_t j = 0; j < f->in; j++)
                aa += (double)f->a[k * f->in + j] * (double)f->a[l * f->in + j];
            for (int64_t i = 0; i < f->out; i++)
                bb += (double)f->b[i * f->r + k] * (double)f->b[i * f->r + l];
            sum += aa * bb;
        }
    }
    return fabs(f->scale) * sqrt(sum > 0 ? sum : 0);
}

static void look_factors(const pf_factors *f, bool json, pf_buf *out) {
    for (int i = 0; i < f->n; i++) {
        const pf_factor *x = &f->items[i];
        const double norm = update_norm(x);
        if (json) {
            pf_buf_adds(out, i > 0 ? ",\n  " : "\n  ");
            pf_buf_adds(out, "{\"module\": ");
            pf_json_add_cstr(out, x->module);
            pf_buf_addf(out,
                        ", \"r\": %lld, \"in\": %lld, \"out\": %lld, \"scale\": ", (long long)x->r,
                        (long long)x->in, (long long)x->out);
            pf_json_add_real(out, x->scale);
            pf_buf_adds(out, ", \"update_norm\": ");
            pf_json_add_real(out, norm);
            pf_buf_addc(out, '}');
        } else {
            pf_buf_addf(out, "%-48s r %-4lld %6lld -> %-6lld scale %-8.4g |update| %.4g\n",
                        x->module, (long long)x->r, (long long)x->in, (long long)x->out, x->scale,
                        norm);
        }
    }
}

static peft_status look_tensors(const side *s, bool json, pf_buf *out, peft_error *err) {
    for (int i = 0; i < s->file.n_tensors; i++) {
        const pf_stored_tensor *t = &s->file.tensors[i];
        char shape[PF_SHAPE_TEXT];
        sums own;
        PF_TRY(add_up(&s->file, t, &s->file, t, &own, err));
        pf_shape_text(t, shape, sizeof shape);
        if (json) {
            pf_buf_adds(out, i > 0 ? ",\n  " : "\n  ");
            pf_buf_adds(out, "{\"tensor\": ");
            pf_json_add_cstr(out, t->name);
            pf_buf_addf(out, ", \"shape\": %s, \"norm\": ", shape);
            pf_json_add_real(out, sqrt(own.aa));
            pf_buf_addc(out, '}');
        } else {
            pf_buf_addf(out, "%-64s %-16s |x| %.4g\n", t->name, shape, sqrt(own.aa));
        }
    }
    return PEFT_OK;
}

peft_status pf_adapter_look(const char *dir, bool json, pf_buf *out, peft_error *err) {
    pf_arena a;
    side s = {0};
    pf_factors f;
    const pf_factor_format *format = NULL;
    pf_arena_init(&a, "look");
    peft_status status = open_side(&s, &a, dir, err);
    if (status == PEFT_OK) {
        pf_buf config = {0};
        const bool lora = pf_factors_open(&f, dir, &format, NULL) == PEFT_OK;
        status = pf_json_dump(&config, s.config, 0, 0, err);
        if (json)
            pf_buf_addf(out, "{\"config\": %s, \"parts\": [", pf_buf_str(&config));
        else
            pf_buf_addf(out, "%s: %s\n%s\n", dir, lora ? "a plain LoRA" : "an adapter",
                        pf_buf_str(&config));
        pf_buf_free(&config);
        if (lora)
            look_factors(&f, json, out);
        else if (status == PEFT_OK)
            status = look_tensors(&s, json, out, err);
        if (json) pf_buf_adds(out, "\n]}\n");
        if (lora) pf_factors_release(&f);
    }
    close_side(&s);
    pf_arena_release(&a);
    if (status == PEFT_OK && !pf_buf_ok(out)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return status;
}

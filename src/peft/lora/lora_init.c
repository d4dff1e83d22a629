/* lora_init.c - LoRA's first weights, as peft's init_lora_weights names them.
 *
 *   true       A uniform in +-1/sqrt(in) (torch's default for a linear layer), B zero
 *   false      A and B both so, for tests
 *   gaussian   A normal with deviation 1/r, B zero
 *
 *   orthogonal A and B from the halves of one orthogonal matrix, so that B A is zero
 *              (datta0.github.io/posts/rethink-lora-init)
 *   pissa      the r largest singular triplets of W (Meng et al. 2024, arXiv 2404.02948, equations
 *              2 to 4); pissa_niter_<n>: by a randomized SVD with n iterations
 *   olora      the first columns of Q and rows of R of W = Q R (Büyükakyüz 2024, arXiv 2406.01775)
 *   eva        A from what the layer sees in the training data, B zero (lora_eva.c)
 *
 * Where the first factors are a part of W, peft subtracts s B0 A0 from W. Here W stays as it is
 * mapped and the pair (A0, B0) is kept: y = W x + s (B A x - B0 A0 x). Checkpoints have the pair,
 * the adapter's file has both as plain LoRA of twice the rank (lora_merge.c).
 *
 * Of an embedding A is zero and B normal (false: A normal too). A parameter's numbers depend on the
 * seed and its name alone, not on what else is trained. */
#include "peft/lora/lora.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/svd.h"

#include <math.h>
#include <string.h>
#include <strings.h>

/* A parameter's numbers depend on the seed and its name alone, not on what else is trained. */
static pf_rng_key param_key(const pf_param *p, uint64_t seed) {
    return pf_rng_make_key(seed, PF_RNG_INIT, pf_hash64(p->name, strlen(p->name), 0));
}

static void fill_uniform(pf_param *p, uint64_t seed, double bound) {
    const pf_rng_key key = param_key(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(bound * (2 * pf_rng_uniform_at(key, (uint64_t)i) - 1));
    }
}

static void fill_normal(pf_param *p, uint64_t seed, double std) {
    const pf_rng_key key = param_key(p, seed);
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        p->data[i] = (pf_real)(float)(std * pf_rng_normal_at(key, (uint64_t)i));
    }
}

/* kaiming_uniform_(a = sqrt(5)), torch's default for a linear layer, is uniform in
 * +-1/sqrt(fan_in). */
static void fill_kaiming(pf_param *p, uint64_t seed) {
    fill_uniform(p, seed, 1 / sqrt((double)p->cols));
}

const char *const pf_lora_init_names =
    "true, false, gaussian, orthogonal, pissa, pissa_niter_<number of iterations>, olora, or eva";

static bool same_word(const char *text, const char *word) {
    return text != NULL && strcasecmp(text, word) == 0;
}

/* n of pissa_niter_<n>; 0: none, -1: no number */
static int iterations_of(const char *text) {
    static const char prefix[] = "pissa_niter_";
    const size_t n = strlen(prefix);
    if (text == NULL || strncasecmp(text, prefix, n) != 0) return 0;
    int value = 0;
    const char *p = text + n;
    for (; *p >= '0' && *p <= '9' && value < 1000; p++) value = 10 * value + (*p - '0');
    return *p == 0 && p > text + n && value >= 1 && value <= 1000 ? value : -1;
}

pf_lora_init_kind pf_lora_init_of(const char *text) {
    static const struct {
        const char *word;
        pf_lora_init_kind kind;
    } words[] = {
        {"true", PF_LORA_INIT_KAIMING}, {"yes", PF_LORA_INIT_KAIMING},
        {"on", PF_LORA_INIT_KAIMING},   {"default", PF_LORA_INIT_KAIMING},
        {"false", PF_LORA_INIT_RANDOM}, {"no", PF_LORA_INIT_RANDOM},
        {"off", PF_LORA_INIT_RANDOM},   {"gaussian", PF_LORA_INIT_GAUSSIAN},
        {"pissa", PF_LORA_INIT_PISSA},  {"orthogonal", PF_LORA_INIT_ORTHOGONAL},
        {"olora", PF_LORA_INIT_OLORA},  {"eva", PF_LORA_INIT_EVA},
    };
    for (size_t i = 0; i < PF_COUNT(words); i++) {
        if (same_word(text, words[i].word)) return words[i].kind;
    }
    return iterations_of(text) > 0 ? PF_LORA_INIT_PISSA : PF_LORA_INIT_UNKNOWN;
}

/* ---- while attaching ------------------------------------------------------------------------- */

static peft_status add_first(pf_adapter *ad, const pf_lora_site *l, const char *suffix,
                             const pf_param *like, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s%s", l->site->name, suffix);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_params_add(&ad->params, name, like->rows, like->cols, out, err));
    (*out)->unsaved = true;
    pf_params_fix(&ad->params, *out);
    return PEFT_OK;
}

peft_status pf_lora_init_attach(pf_adapter *ad, pf_lora_site *l, pf_lora_init_kind kind,
                                peft_error *err) {
    const pf_site *site = l->site;
    if (site->kind == PF_SITE_EMBEDDING) return PEFT_OK; /* as for true, which is what peft does */
    const char *how = ((const pf_lora_cfg *)ad->cfg.method_cfg)->init_lora_weights;
    if (kind == PF_LORA_INIT_ORTHOGONAL && l->r % 2 != 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.lora.init_lora_weights orthogonal halves the rank, and that of %s is "
                       "%lld; it should be even",
                       site->name, (long long)l->r);
    }
    if (!pf_lora_init_on_base(kind) && kind != PF_LORA_INIT_EVA) return PEFT_OK;
    if (kind == PF_LORA_INIT_EVA && site->kind == PF_SITE_HEAD) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "peft.lora.init_lora_weights: %s is the output head, which cannot begin "
                       "with %s here; leave it out of target_modules",
                       site->name, how);
    }
    if (kind == PF_LORA_INIT_EVA) return PEFT_OK;
    const int64_t most = site->in_dim < site->out_dim ? site->in_dim : site->out_dim;
    if (l->r > most) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.lora: %s is %lld x %lld, so %s gives at most rank %lld, not %lld",
                       site->name, (long long)site->out_dim, (long long)site->in_dim, how,
                       (long long)most, (long long)l->r);
    }
    PF_TRY(add_first(ad, l, ".lora_A0.weight", l->a, &l->a0, err));
    return add_first(ad, l, ".lora_B0.weight", l->b, &l->b0, err);
}

/* ---- from the base's weight ------------------------------------------------------------------ */

static void read_rows(const void *ctx, int64_t row0, int64_t count, double *out) {
    enum { PART = 512 };
    const pf_weight *w = ctx;
    pf_real wide[PART];
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < w->cols; j += PART) {
            const int64_t n = w->cols - j < PART ? w->cols - j : PART;
            pf_weight_read_tile(w, row0 + i, 1, j, n, wide, n);
            for (int64_t k = 0; k < n; k++) out[i * w->cols + j + k] = (double)wide[k];
        }
    }
}

/* PiSSA: W ~ U S V (the r largest), A = sqrt(S / s) V, B = U sqrt(S / s).
 * OLoRA: W = Q R, A = the first r rows of R, B = the first r columns of Q. */
static peft_status from_base(const pf_lora_site *l, pf_lora_init_kind kind, int iterations,
                             uint64_t seed, peft_error *err) {
    const pf_weight *w = l->site->weight;
    const pf_svd_matrix m = {.m = w->rows, .n = w->cols, .ctx = w, .read = read_rows};
    const int64_t r = l->r;
    double *u = pf_calloc((size_t)w->rows, (size_t)r * sizeof *u), *s = pf_calloc((size_t)r, 8);
    double *v = pf_calloc((size_t)w->cols, (size_t)r * sizeof *v);
    peft_status status = PEFT_OK;
    if (u == NULL || s == NULL || v == NULL) {
        status =
            PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the first factors of %s", l->site->name);
    } else if (kind == PF_LORA_INIT_OLORA) {
        status = pf_qr_leading(&m, r, u, v, err);
    } else if (iterations > 0) {
        status = pf_svd_randomized(&m, r, iterations, seed, u, s, v, err);
    } else {
        status = pf_svd_leading(&m, r, seed, u, s, v, err);
    }
    for (int64_t k = 0; k < r && status == PEFT_OK; k++) {
        const double c = kind == PF_LORA_INIT_OLORA ? 1 : sqrt(s[k] / l->scale);
        for (int64_t j = 0; j < w->cols; j++)
            l->a->data[k * w->cols + j] = (pf_real)(float)(c * v[k * w->cols + j]);
        for (int64_t i = 0; i < w->rows; i++)
            l->b->data[i * r + k] = (pf_real)(float)(c * u[k * w->rows + i]);
    }
    pf_free(u);
    pf_free(s);
    pf_free(v);
    if (status != PEFT_OK) return status;
    memcpy(l->a0->data, l->a->data, (size_t)(r * w->cols) * sizeof *l->a->data);
    memcpy(l->b0->data, l->b->data, (size_t)(r * w->rows) * sizeof *l->b->data);
    return PEFT_OK;
}

/* A = (X Qe)ᵀ / 10 and B = Yᵀ Qo / 10 with normal X and Y, and Qe, Qo the even and odd rows of an
 * orthogonal matrix: neither is zero, and B A is. */
static peft_status orthogonal(const pf_lora_site *l, uint64_t seed, peft_error *err) {
    const int64_t r = l->r, half = r / 2, in = l->a->cols, out = l->b->rows;
    const pf_rng_key key = param_key(l->a, seed), other = param_key(l->b, seed);
    double *q = pf_calloc((size_t)r, (size_t)r * sizeof *q);
    PF_CHECK_ALLOC(q, err);
    for (int64_t i = 0; i < r * r; i++) q[i] = pf_rng_normal_at(key, (uint64_t)i);
    pf_orthonormalize(q, r, r, seed);
    for (int64_t k = 0; k < r; k++) {
        for (int64_t j = 0; j < in; j++) {
            double sum = 0;
            for (int64_t h = 0; h < half; h++)
                sum += pf_rng_normal_at(key, (uint64_t)(r * r + j * half + h)) * q[2 * h * r + k];
            l->a->data[k * in + j] = (pf_real)(float)(sum / 10);
        }
        for (int64_t i = 0; i < out; i++) {
            double sum = 0;
            for (int64_t h = 0; h < half; h++)
                sum += pf_rng_normal_at(other, (uint64_t)(i * half + h)) * q[(2 * h + 1) * r + k];
            l->b->data[i * r + k] = (pf_real)(float)(sum / 10);
        }
    }
    pf_free(q);
    return PEFT_OK;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* A stays zero, so that there is no update at first. */
static void init_embedding(const pf_lora_site *l, pf_lora_init_kind kind, uint64_t seed) {
    if (kind == PF_LORA_INIT_RANDOM) fill_normal(l->a, seed, 1);
    fill_normal(l->b, seed, 1);
}

static void init_linear(const pf_lora_site *l, pf_lora_init_kind kind, uint64_t seed) {
    if (kind == PF_LORA_INIT_GAUSSIAN) {
        fill_normal(l->a, seed, 1 / (double)l->r);
    } else {
        fill_kaiming(l->a, seed);
    }
    if (kind == PF_LORA_INIT_RANDOM) {
        fill_kaiming(l->b, seed);
        if (l->bias != NULL) fill_uniform(l->bias, seed, 1 / sqrt((double)l->r));
    }
}

peft_status pf_lora_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    const pf_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_lora *st = ad->state;
    const pf_lora_init_kind kind = pf_lora_init_of(cfg->init_lora_weights);
    PF_ASSERT(kind != PF_LORA_INIT_UNKNOWN); /* lora_attach has looked */
    pf_lora_dora_prepare(ad);
    pf_tokens_init(st->tokens, true, seed);
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        if (l->site->kind == PF_SITE_EMBEDDING) {
            init_embedding(l, kind, seed);
        } else if (kind == PF_LORA_INIT_ORTHOGONAL) {
            PF_TRY(orthogonal(l, seed, err));
        } else if (pf_lora_init_on_base(kind)) {
            PF_TRY(from_base(l, kind, iterations_of(cfg->init_lora_weights), seed, err));
        } else if (kind != PF_LORA_INIT_EVA || !pf_lora_eva_init(cfg, l)) {
            init_linear(l, kind, seed);
        }
        if (l->magnitude != NULL) PF_TRY(pf_lora_dora_init(l, err));
    }
    return PEFT_OK;
}

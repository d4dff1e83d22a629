/* lora_train.c - how LoRA's parameters are trained, beyond what they are.
 *
 * LoRA+ (Hayou et al. 2024, arXiv 2402.12354): B learns loraplus_lr_ratio times as fast as A; so do
 * vectors (biases, norms, magnitudes), and the factors of an embedding learn at
 * loraplus_lr_embedding, as peft.optimizers.create_loraplus_optimizer groups them. Schedules
 * multiply all rates alike.
 *
 * LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): A stays as it began, so that x need not be kept
 * for its gradient, and B follows the gradient that comes nearest to LoRA's,
 *
 *   g_B (A Aᵀ + 1e-8)⁻¹ / s²,
 *
 * clipped before it is mapped, as peft.optimizers.create_lorafa_optimizer does. What remains is our
 * AdamW: peft's adds eps to sqrt(v) before the correction of v, and decays after the update. */
#include "peft/lora/lora.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

/* ---- LoRA+ ----------------------------------------------------------------------------------- */

static void plus_rates(pf_adapter *ad, const pf_lora_cfg *cfg, double learning_rate) {
    const pf_lora *st = ad->state;
    for (int i = 0; i < ad->params.n; i++) {
        pf_param *p = ad->params.items[i];
        if (p->is_vector) p->lr_scale = (float)cfg->loraplus_lr_ratio;
    }
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        if (l->site->kind != PF_SITE_EMBEDDING) {
            l->b->lr_scale = (float)cfg->loraplus_lr_ratio;
            continue;
        }
        const double rate = learning_rate > 0 ? cfg->loraplus_lr_embedding / learning_rate : 1;
        l->a->lr_scale = l->b->lr_scale = (float)rate;
        if (l->magnitude != NULL) l->magnitude->lr_scale = (float)rate;
    }
}

/* ---- LoRA-FA --------------------------------------------------------------------------------- */

/* The inverse of m (r,r), symmetric and positive, in place by Gauss and Jordan; false where it has
 * none. */
static bool invert(double *m, double *out, int64_t r) {
    memset(out, 0, (size_t)(r * r) * sizeof *out);
    for (int64_t i = 0; i < r; i++) out[i * r + i] = 1;
    for (int64_t c = 0; c < r; c++) {
        int64_t best = c;
        for (int64_t i = c + 1; i < r; i++) {
            if (fabs(m[i * r + c]) > fabs(m[best * r + c])) best = i;
        }
        if (!(fabs(m[best * r + c]) > 0)) return false;
        for (int64_t k = 0; k < r && best != c; k++) {
            const double a = m[c * r + k], b = out[c * r + k];
            m[c * r + k] = m[best * r + k];
            out[c * r + k] = out[best * r + k];
            m[best * r + k] = a;
            out[best * r + k] = b;
        }
        const double pivot = 1 / m[c * r + c];
        for (int64_t k = 0; k < r; k++) {
            m[c * r + k] *= pivot;
            out[c * r + k] *= pivot;
        }
        for (int64_t i = 0; i < r; i++) {
            const double f = m[i * r + c];
            if (i == c || f == 0) continue;
            for (int64_t k = 0; k < r; k++) {
                m[i * r + k] -= f * m[c * r + k];
                out[i * r + k] -= f * out[c * r + k];
            }
        }
    }
    return true;
}

static peft_status map_gradient(pf_adapter *ad, const pf_lora_site *l, peft_error *err) {
    const int64_t r = l->r, in = l->a->cols;
    double *gram = pf_calloc((size_t)r, (size_t)r * sizeof *gram);
    double *inverse = pf_calloc((size_t)r, (size_t)r * sizeof *inverse);
    pf_real *map = PF_NEW_ARRAY(&ad->arena, pf_real, r * r);
    peft_status status = PEFT_OK;
    if (gram == NULL || inverse == NULL || map == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    } else {
        for (int64_t i = 0; i < r; i++) {
            for (int64_t k = 0; k < r; k++) {
                double sum = i == k ? 1e-8 : 0;
                for (int64_t j = 0; j < in; j++)
                    sum += (double)l->a->data[i * in + j] * (double)l->a->data[k * in + j];
                gram[i * r + k] = sum;
            }
        }
        if (!invert(gram, inverse, r)) {
            status = PF_FAIL(err, PEFT_E_CONFIG,
                             "peft.lora.lora_fa: A of %s has rows that depend on each other",
                             l->site->name);
        }
    }
    for (int64_t i = 0; i < r * r && status == PEFT_OK; i++)
        map[i] = (pf_real)(inverse[i] / (l->scale * l->scale));
    if (status == PEFT_OK) l->b->grad_map = map;
    pf_free(gram);
    pf_free(inverse);
    return status;
}

static peft_status freeze_a(pf_adapter *ad, peft_error *err) {
    const pf_lora *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        if (l->site->kind == PF_SITE_EMBEDDING) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "peft.lora.lora_fa: A of %s is zero at first and would stay so; leave "
                           "the embedding out of target_modules",
                           l->site->name);
        }
        pf_params_freeze(&ad->params, l->a);
        if (l->scale == 0 || ad->model->shapes_only) continue;
        PF_TRY(map_gradient(ad, l, err));
    }
    return PEFT_OK;
}

peft_status pf_lora_train_as(pf_adapter *ad, const void *section, double learning_rate,
                             peft_error *err) {
    const pf_lora_cfg *cfg = section;
    if (cfg->loraplus_lr_ratio > 0) plus_rates(ad, cfg, learning_rate);
    return cfg->lora_fa ? freeze_a(ad, err) : PEFT_OK;
}

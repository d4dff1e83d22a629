/* lora_init.c - LoRA's first weights, as peft's init_lora_weights names them.
 *
 *   true       A uniform in +-1/sqrt(in) (torch's default for a linear layer), B zero
 *   false      A and B both so, for tests
 *   gaussian   A normal with deviation 1/r, B zero
 *
 * Of an embedding A is zero and B normal (false: A normal too). A parameter's numbers depend on the
 * seed and its name alone, not on what else is trained. */
#include "peft/lora/lora.h"

#include "base/hash.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

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

const char *const pf_lora_init_names = "true, false or gaussian";

pf_lora_init_kind pf_lora_init_of(const char *text) {
    static const char *const names[] = {"true", "false", "gaussian"};
    int k = 0;
    while (k < PF_LORA_INIT_UNKNOWN && !pf_streq(text, names[k])) k++;
    return (pf_lora_init_kind)k;
}

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
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_lora_site *l = st->at[i];
        if (l == NULL) continue;
        if (l->site->kind == PF_SITE_EMBEDDING) {
            init_embedding(l, kind, seed);
        } else {
            init_linear(l, kind, seed);
        }
        if (l->magnitude != NULL) PF_TRY(pf_lora_dora_init(l, err));
    }
    return PEFT_OK;
}

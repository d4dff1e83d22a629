/* hub_lora.c - LoRA and (IA)3 as AdapterHub's `adapters` 1.3 has them, in its files and with its
 * gates (Hu et al. 2021, arXiv 2106.09685; Liu et al. 2022, arXiv 2205.05638; gates: Mao et al.
 * 2022, UniPELT, arXiv 2110.07577):
 *
 *   add     y + alpha / r · B A drop(x),     with use_gating y + g · B A drop(x)
 *   scale   alpha · B ∘ y,                   with use_gating g · B ∘ y;  y has its bias
 *
 * g is the mean over the text of sigmoid(w · x + b). Where query, key and value are one matrix
 * (GPT-2) each of those that are named has an A and a B of its own, stacked in the file, and a
 * gate.
 *
 * Which modules: query, key and value of every attention, the MLP's first matrix (intermediate) and
 * its last (output); for Llama and Mistral AdapterHub calls these two the other way around, and so
 * does this. Plain LoRA that other libraries read is peft.method lora. */
#include "peft/hub/hub_lora.h"

#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/activation/scale.h"
#include "ops/activation/scale_cols.h"
#include "ops/activation/text_gate.h"
#include "ops/matmul/linear.h"
#include "ops/matmul/lowrank.h"
#include "ops/shape/split.h"
#include "peft/first_weights.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

enum { PARTS = 3 }; /* of a fused projection */

typedef struct hub_site {
    const pf_adapter *ad;
    const pf_hub_lora_cfg *cfg;
    pf_site *site;
    bool on[PARTS]; /* fused: which of q, k, v; else the first */
    int n_on;       /* 1, or how many of them */
    bool fused;
    pf_param *a, *b, *gate_weight, *gate_bias;
} hub_site;

typedef struct state {
    hub_site **at; /* by site->index */
} state;

bool pf_hub_lora_scales(const pf_hub_lora_cfg *cfg) {
    return pf_streq(cfg->composition_mode, "scale");
}

static double scale_of(const pf_hub_lora_cfg *cfg) {
    if (cfg->use_gating) return 1;
    return pf_hub_lora_scales(cfg) ? cfg->alpha : cfg->alpha / (double)cfg->r;
}

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status gate(pf_build *b, const hub_site *s, pf_value *x, pf_value **y,
                        peft_error *err) {
    if (s->gate_weight == NULL) return PEFT_OK;
    pf_value *w = pf_graph_param(b->graph, s->gate_weight),
             *bias = pf_graph_param(b->graph, s->gate_bias), *z;
    PF_CHECK_ALLOC(w, err);
    PF_CHECK_ALLOC(bias, err);
    PF_TRY(pf_linear(b->graph, s->site->name, x, w, NULL, &z, err));
    PF_TRY(pf_add_bias(b->graph, s->site->name, z, bias, &z, err));
    return pf_text_gate(b->graph, s->site->name, *y, z, y, err);
}

/* Equal parts of n columns each. */
static pf_split_args equal_parts(int n, int64_t width) {
    pf_split_args args = {.periods = 1, .n = n};
    for (int i = 0; i < n; i++) args.width[i] = width;
    return args;
}

/* B A x of a fused projection: every part has its A and its B; columns of those that are on. */
static peft_status fused_product(pf_build *b, const hub_site *s, pf_value *x, pf_value *wa,
                                 pf_value *wb, pf_value **y, peft_error *err) {
    const char *name = s->site->name;
    const int64_t width = s->site->out_dim / PARTS;
    const pf_split_args ranks = equal_parts(s->n_on, s->cfg->r),
                        parts = equal_parts(s->n_on, width);
    pf_value *down, *d[PARTS], *all[PARTS], *own[PARTS];
    PF_TRY(pf_linear(b->graph, name, x, wa, NULL, &down, err));
    d[0] = down;
    if (s->n_on > 1) PF_TRY(pf_split(b->graph, name, down, &ranks, d, err));
    for (int i = 0; i < s->n_on; i++) { /* of the product with all of B the part that is its own */
        PF_TRY(pf_linear(b->graph, name, d[i], wb, NULL, &all[0], err));
        if (s->n_on > 1) PF_TRY(pf_split(b->graph, name, all[0], &parts, all, err));
        own[i] = all[s->n_on > 1 ? i : 0];
    }
    *y = own[0];
    return s->n_on > 1 ? pf_join(b->graph, name, own, &parts, y, err) : PEFT_OK;
}

/* The columns that are on, among zeros. */
static peft_status spread_out(pf_build *b, const hub_site *s, pf_value **y, peft_error *err) {
    const int64_t width = s->site->out_dim / PARTS;
    const pf_split_args parts = equal_parts(s->n_on, width), whole = equal_parts(PARTS, width);
    pf_value *own[PARTS] = {*y}, *all[PARTS] = {0};
    if (s->n_on == PARTS) return PEFT_OK;
    if (s->n_on > 1) PF_TRY(pf_split(b->graph, s->site->name, *y, &parts, own, err));
    for (int i = 0, k = 0; i < PARTS; i++) {
        if (s->on[i]) all[i] = own[k++];
    }
    return pf_join(b->graph, s->site->name, all, &whole, y, err);
}

static peft_status add_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                              uint32_t mask_key, pf_value **y, peft_error *err) {
    const hub_site *s = self;
    const pf_hub_lora_cfg *cfg = s->cfg;
    const pf_drop_args drop = {.p = cfg->dropout, .seed = s->ad->params.seed, .mask_key = mask_key};
    pf_value *wa = pf_graph_param(b->graph, s->a), *wb = pf_graph_param(b->graph, s->b), *d;
    PF_CHECK_ALLOC(wa, err);
    PF_CHECK_ALLOC(wb, err);
    if (!s->fused && s->gate_weight == NULL) {
        const pf_lowrank_args args = {.scale = scale_of(cfg),
                                      .dropout = cfg->dropout,
                                      .seed = s->ad->params.seed,
                                      .mask_key = mask_key};
        return pf_lowrank(b->graph, site->name, *y, x, wa, wb, &args, y, err);
    }
    PF_TRY(pf_drop(b->graph, site->name, x, &drop, &d, err));
    if (s->fused) {
        PF_TRY(fused_product(b, s, d, wa, wb, &d, err));
    } else {
        PF_TRY(pf_linear(b->graph, site->name, d, wa, NULL, &d, err));
        PF_TRY(pf_linear(b->graph, site->name, d, wb, NULL, &d, err));
    }
    PF_TRY(pf_scale(b->graph, site->name, d, scale_of(cfg), &d, err));
    PF_TRY(gate(b, s, x, &d, err));
    if (s->fused) PF_TRY(spread_out(b, s, &d, err));
    return pf_add(b->graph, site->name, *y, d, y, err);
}

/* alpha · B ∘ y of the columns that are on. */
static peft_status scale_output(pf_build *b, void *self, pf_site *site, pf_value *x,
                                uint32_t mask_key, pf_value **y, peft_error *err) {
    (void)mask_key;
    const hub_site *s = self;
    const int64_t width = site->out_dim / PARTS;
    const pf_split_args parts = equal_parts(s->n_on, width), whole = equal_parts(PARTS, width);
    pf_value *v = pf_graph_param(b->graph, s->b), *all[PARTS] = {*y}, *own[PARTS], *d = *y;
    int k = 0;
    PF_CHECK_ALLOC(v, err);
    if (s->fused) {
        PF_TRY(pf_split(b->graph, site->name, *y, &whole, all, err));
        for (int i = 0; i < PARTS; i++) {
            if (s->on[i]) own[k++] = all[i];
        }
        d = own[0];
        if (k > 1) PF_TRY(pf_join(b->graph, site->name, own, &parts, &d, err));
    }
    PF_TRY(pf_scale_cols(b->graph, site->name, d, v, &d, err));
    PF_TRY(gate(b, s, x, &d, err));
    if (s->fused) {
        own[0] = d;
        if (k > 1) PF_TRY(pf_split(b->graph, site->name, d, &parts, own, err));
        for (int i = 0, j = 0; i < PARTS; i++) {
            if (s->on[i]) all[i] = own[j++];
        }
        PF_TRY(pf_join(b->graph, site->name, all, &whole, &d, err));
    }
    return pf_scale(b->graph, site->name, d, scale_of(s->cfg), y, err);
}

static const pf_site_hooks add_hooks = {.output = add_output};
static const pf_site_hooks scale_hooks = {.output = scale_output};

/* ---- which modules --------------------------------------------------------------------------- */

enum { FUSED = 'f', INTERMEDIATE = 'i', OUTPUT = 'o' }; /* and 'q', 'k', 'v' */

/* As AdapterHub wraps them; 0: not. */
static char place_of(const pf_model *m, const pf_site *site) {
    static const struct {
        const char *end;
        char place;
    } places[] = {
        {".q_proj", 'q'},           {".k_proj", 'k'},
        {".v_proj", 'v'},           {".self.query", 'q'},
        {".self.key", 'k'},         {".self.value", 'v'},
        {".attn.c_attn", FUSED},    {".mlp.up_proj", INTERMEDIATE},
        {".mlp.down_proj", OUTPUT}, {".mlp.fc1", INTERMEDIATE},
        {".mlp.fc2", OUTPUT},       {".mlp.c_fc", INTERMEDIATE},
        {".mlp.c_proj", OUTPUT},    {".intermediate.dense", INTERMEDIATE},
        {".output.dense", OUTPUT},
    };
    const char *type = json_string_value(json_object_get(m->config, "model_type"));
    const bool turned = pf_streq(type, "llama") || pf_streq(type, "mistral");
    if (site->kind != PF_SITE_LINEAR || site->layer < 0 ||
        pf_ends_with(site->name, ".attention.output.dense"))
        return 0;
    for (size_t i = 0; i < PF_COUNT(places); i++) {
        if (!pf_ends_with(site->name, places[i].end)) continue;
        const char p = places[i].place;
        return turned && p == OUTPUT ? INTERMEDIATE : turned && p == INTERMEDIATE ? OUTPUT : p;
    }
    return 0;
}

static bool names(const pf_hub_lora_cfg *cfg, char place) {
    const char word[2] = {place, 0};
    return cfg->selfattn_lora && pf_strlist_has(&cfg->attn_matrices.list, word);
}

/* Fills on; is there something? */
static bool wants(const pf_hub_lora_cfg *cfg, const pf_model *m, const pf_site *site, hub_site *s) {
    const char place = place_of(m, site);
    for (int i = 0; i < cfg->leave_out.n; i++) {
        if (cfg->leave_out.items[i] == site->layer) return false;
    }
    s->fused = place == FUSED;
    s->n_on = 0;
    for (int i = 0; i < PARTS && s->fused; i++) s->n_on += s->on[i] = names(cfg, "qkv"[i]);
    if (s->fused) return s->n_on > 0;
    s->on[0] = true;
    s->n_on = 1;
    if (place == INTERMEDIATE) return cfg->intermediate_lora;
    return place == OUTPUT ? cfg->output_lora : place != 0 && names(cfg, place);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_param(pf_adapter *ad, const hub_site *s, const char *suffix, int64_t rows,
                             int64_t cols, pf_param **out, peft_error *err) {
    const char *name =
        pf_arena_printf(&ad->arena, "%s.loras.%s.%s", s->site->name, s->cfg->adapter_name, suffix);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_add_param(ad, name, rows, cols, out, err);
}

static peft_status attach_site(pf_adapter *ad, pf_site *site, const hub_site *found,
                               peft_error *err) {
    const pf_hub_lora_cfg *cfg = ad->cfg.method_cfg;
    const bool scales = pf_hub_lora_scales(cfg);
    hub_site *s = PF_NEW(&ad->arena, hub_site);
    PF_CHECK_ALLOC(s, err);
    *s = *found;
    s->ad = ad;
    s->cfg = cfg;
    s->site = site;
    const int64_t out = s->fused ? site->out_dim / PARTS * s->n_on : site->out_dim;
    if (!scales) PF_TRY(add_param(ad, s, "lora_A", cfg->r * s->n_on, site->in_dim, &s->a, err));
    PF_TRY(add_param(ad, s, "lora_B", out, scales ? 1 : cfg->r, &s->b, err));
    if (cfg->use_gating) {
        PF_TRY(add_param(ad, s, "gate.weight", s->n_on, site->in_dim, &s->gate_weight, err));
        PF_TRY(add_param(ad, s, "gate.bias", 1, s->n_on, &s->gate_bias, err));
        s->gate_bias->is_vector = true;
        s->gate_bias->decay = false;
        ad->model->whole_texts = true;
    }
    ((state *)ad->state)->at[site->index] = s;
    return pf_adapter_hook(ad, site, scales ? &scale_hooks : &add_hooks, s, err);
}

peft_status pf_hub_lora_attach(pf_adapter *ad, peft_error *err) {
    const pf_hub_lora_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    bool has_places = false;
    int n = 0;
    state *st = PF_NEW(&ad->arena, state);
    PF_CHECK_ALLOC(st, err);
    st->at = PF_NEW_ARRAY(&ad->arena, hub_site *, m->n_sites);
    PF_CHECK_ALLOC(st->at, err);
    ad->state = st;
    ad->rank = pf_hub_lora_scales(cfg) ? 0 : cfg->r;
    ad->dropout = cfg->dropout;
    if (pf_hub_lora_scales(cfg) && (cfg->r != 1 || cfg->dropout > 0)) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "composition_mode scale is for r 1 and dropout 0; r is %lld, dropout %g",
                       (long long)cfg->r, cfg->dropout);
    }
    for (int i = 0; i < m->n_sites && !m->encoder_decoder; i++) {
        hub_site found = {0};
        has_places |= place_of(m, m->sites[i]) != 0;
        if (!wants(cfg, m, m->sites[i], &found)) continue;
        PF_TRY(attach_site(ad, m->sites[i], &found, err));
        n++;
    }
    if (n > 0) return PEFT_OK;
    if (has_places) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "peft.%s: there is nothing to train: selfattn_lora with attn_matrices, "
                       "intermediate_lora and output_lora name no module, or leave_out every layer",
                       ad->method->name);
    }
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: AdapterHub's LoRA has no places in it; peft.method lora works here",
                   m->architecture);
}

/* ---- weights --------------------------------------------------------------------------------- */

peft_status pf_hub_lora_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const pf_hub_lora_cfg *cfg = ad->cfg.method_cfg;
    const state *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const hub_site *s = st->at[i];
        if (s == NULL) continue;
        const double bound = 1 / sqrt((double)s->site->in_dim);
        pf_param *const both[] = {s->a, s->b};
        for (int k = 0; k < 2; k++) {
            if (both[k] == NULL) continue;
            if (pf_streq(cfg->init_weights, "ia3")) pf_fill_constant(both[k], 1);
            if (pf_streq(cfg->init_weights, "bert")) pf_fill_normal(both[k], seed, 0.02);
            if (pf_streq(cfg->init_weights, "lora") && k == 0)
                pf_fill_uniform(both[k], seed, bound);
        }
        if (s->gate_weight == NULL) continue;
        pf_fill_normal(s->gate_weight, seed, 0.02);
        pf_fill_uniform(s->gate_bias, seed, bound);
    }
    return PEFT_OK;
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        if (p->data[i] != 0) return false;
    }
    return true;
}

/* While B is zero, A and the gate have no gradient. */
void pf_hub_lora_ready(pf_adapter *ad) {
    const state *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const hub_site *s = st->at[i];
        if (s == NULL) continue;
        const bool zero = all_zero(s->b);
        if (s->a != NULL) s->a->zero_grad_ok = zero;
        if (s->gate_weight != NULL)
            s->gate_weight->zero_grad_ok = s->gate_bias->zero_grad_ok = zero;
    }
}

bool pf_hub_lora_has_dropout(const pf_adapter *ad) {
    return ((const pf_hub_lora_cfg *)ad->cfg.method_cfg)->dropout > 0;
}

/* ---- merging --------------------------------------------------------------------------------- */

static const hub_site *site_at(const pf_adapter *ad, const pf_site *site) {
    return ((const state *)ad->state)->at[site->index];
}

bool pf_hub_lora_touches(const pf_adapter *ad, const pf_site *site) {
    return site_at(ad, site) != NULL;
}

bool pf_hub_lora_touches_bias(const pf_adapter *ad, const pf_site *site) {
    return site_at(ad, site) != NULL && pf_hub_lora_scales(ad->cfg.method_cfg);
}

/* Row of B that acts on this row of the matrix, and the part it is of; -1: none. */
static int64_t row_of(const hub_site *s, int64_t row, int *part) {
    *part = 0;
    if (!s->fused) return row;
    const int64_t width = s->site->out_dim / PARTS;
    if (!s->on[row / width]) return -1;
    for (int i = 0; i < row / width; i++) *part += s->on[i];
    return *part * width + row % width;
}

static double factor_of(const hub_site *s, int64_t row) {
    int part;
    const int64_t at = row_of(s, row, &part);
    return scale_of(s->cfg) * (at >= 0 ? (double)s->b->data[at] : 1);
}

peft_status pf_hub_lora_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                              float *rows, peft_error *err) {
    const hub_site *s = site_at(ad, site);
    const int64_t in = site->in_dim, r = s->cfg->r;
    if (s->gate_weight != NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: an adapter with gates (use_gating) cannot be merged: how much it adds "
                       "depends on the text",
                       site->name);
    }
    for (int64_t i = 0; i < n; i++) {
        float *row = rows + i * in;
        int part;
        const int64_t at = row_of(s, row0 + i, &part);
        for (int64_t c = 0; c < in && s->a == NULL; c++)
            row[c] = (float)((double)row[c] * factor_of(s, row0 + i));
        for (int64_t c = 0; c < in && s->a != NULL && at >= 0; c++) {
            double sum = 0;
            for (int64_t k = 0; k < r; k++)
                sum += (double)s->b->data[at * r + k] * (double)s->a->data[(part * r + k) * in + c];
            row[c] = (float)((double)row[c] + scale_of(s->cfg) * sum);
        }
    }
    return PEFT_OK;
}

void pf_hub_lora_merge_bias(const pf_adapter *ad, const pf_site *site, float *bias) {
    const hub_site *s = site_at(ad, site);
    for (int64_t i = 0; i < site->out_dim; i++)
        bias[i] = (float)((double)bias[i] * factor_of(s, i));
}

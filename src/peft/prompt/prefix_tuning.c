/* prefix_tuning.c - prefix tuning: n learned keys and values before those of every sample, in every
 * layer (Li & Liang 2021, arXiv 2101.00190).
 *
 * They are external rows of attention (graph/batch.h), not rows of hidden states: no block computes
 * them. As in peft the keys stand at positions 0 to n - 1 as they are, without RoPE, and samples go
 * on at n; with grouped heads they have the width of the key heads. The tensor is (n, layers * 2 *
 * width), keys and values of layer 0, of layer 1, ... With prefix_projection a small network writes
 * it, linear - tanh - linear over an embedding (section 4.3 of the paper); what is saved is what it
 * wrote, as peft does, and an adapter that is opened from a folder is trained as that tensor.
 *
 * Of two stacks the decoder's self-attention sees it. The tensor has L layers, as many as the
 * larger stack, for peft counts the encoder's. peft lays it out twice, for self- and for
 * cross-attention, hands four parts to each layer of the decoder, and takes those of
 * cross-attention away again: so layer i reads the keys and values of layer 2 i mod L of the
 * tensor, and what no layer reads is only carried along. Here it is the same. */
#include "ops/activation/activation.h"
#include "peft/first_weights.h"
#include "peft/peft_json.h"
#include "peft/prompt/prompt.h"
#include "peft/prompt/prompt_source.h"
#include "text/json.h"

#include <string.h>

typedef struct prefix_cfg {
    int64_t num_virtual_tokens, encoder_hidden_size;
    bool prefix_projection;
    const char *init_weights;
    pf_cfg_strings modules_to_save;
    int64_t num_layers; /* as a folder says; 0: not at all */
    bool opened;        /* from a folder: the encoder is not in it */
} prefix_cfg;

#define KEY "peft.prefix_tuning"

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INT(prefix_cfg, num_virtual_tokens, 20, 1, 100000, "learned keys and values of every layer", .aliases = "prefix_length"),
    PF_CFG_BOOL(prefix_cfg, prefix_projection, false, "a network of two layers writes them while training; what is saved is what it wrote"),
    PF_CFG_INT(prefix_cfg, encoder_hidden_size, 0, 0, 1048576, "width of that network; 0: that of the keys", .flags = PF_CFG_UNSET),
    PF_CFG_ENUM(prefix_cfg, init_weights, "normal", "normal zero", "first numbers; zero: keys and values of zero"),
    PF_CFG_STRLIST(prefix_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter"),
    PF_CFG_END};
// clang-format on

typedef struct prefix prefix;
typedef struct layer_part {
    prefix *of;
    int layer;
} layer_part;

struct prefix {
    pf_prompt_source *source;
    int64_t n_layers; /* of the tensor */
    layer_part *layers;
    pf_param *embedding; /* of the encoder; NULL: there is none */
    pf_dense first, second;
};

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status give_rows(pf_build *b, void *self, pf_site *site, pf_value **k, pf_value **v,
                             peft_error *err) {
    (void)site;
    const layer_part *l = self;
    *k = pf_graph_param(b->graph, pf_prompt_source_part(l->of->source, 2 * l->layer));
    *v = pf_graph_param(b->graph, pf_prompt_source_part(l->of->source, 2 * l->layer + 1));
    PF_CHECK_ALLOC(*k, err);
    PF_CHECK_ALLOC(*v, err);
    return PEFT_OK;
}

static const pf_site_hooks hooks = {.prefix = give_rows};

static peft_status build_encoder(void *ctx, pf_graph *g, pf_value *x, pf_value **y,
                                 peft_error *err) {
    const prefix *p = ctx;
    PF_TRY(pf_dense_build(g, &p->first, x, y, err));
    PF_TRY(pf_activation(g, &pf_op_tanh, "prompt_encoder.transform.1", *y, y, err));
    return pf_dense_build(g, &p->second, *y, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

/* Width of the keys of a layer, the same in all of them, and one place for each; *layers: of the
 * tensor. */
static peft_status find_places(pf_adapter *ad, int64_t *width, int64_t *layers, peft_error *err) {
    const pf_model *m = ad->model;
    const prefix_cfg *cfg = ad->cfg.method_cfg;
    int n = 0;
    for (int i = 0; i < m->n_sites; i++) {
        const pf_site *s = m->sites[i];
        if (s->kind != PF_SITE_ATTENTION_PREFIX) continue;
        if (n > 0 && s->out_dim != *width) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           KEY
                           ": keys of %s have %lld columns, those of other layers of %s %lld; a "
                           "prefix is one tensor of equal parts",
                           s->name, (long long)s->out_dim, m->name, (long long)*width);
        }
        *width = s->out_dim;
        n++;
    }
    *layers = m->encoder_decoder && cfg->num_layers > 0 ? cfg->num_layers : m->n_layers;
    if (m->encoder_decoder && n > 0) {
        if (n <= *layers && *layers <= m->n_layers) return PEFT_OK;
        return PF_FAIL(err, PEFT_E_FORMAT,
                       KEY ": the prefix is for %lld layers; the decoder of %s (%s) has %d, its "
                           "larger stack %d",
                       (long long)*layers, m->name, m->architecture, n, m->n_layers);
    }
    if (n > 0 && n == *layers) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   KEY ": %s (%s) has %d attention layers that can see a prefix, and %d layers",
                   m->name, m->architecture, n, m->n_layers);
}

static peft_status attach_layers(pf_adapter *ad, prefix *p, peft_error *err) {
    int n = 0;
    p->layers = PF_NEW_ARRAY(&ad->arena, layer_part, ad->model->n_layers);
    PF_CHECK_ALLOC(p->layers, err);
    const bool two = ad->model->encoder_decoder;
    for (int i = 0; i < ad->model->n_sites; i++) {
        pf_site *s = ad->model->sites[i];
        if (s->kind != PF_SITE_ATTENTION_PREFIX) continue;
        p->layers[n] = (layer_part){p, two ? (int)(2 * n % p->n_layers) : n};
        PF_TRY(pf_adapter_hook(ad, s, &hooks, &p->layers[n++], err));
    }
    return PEFT_OK;
}

static peft_status prefix_attach(pf_adapter *ad, peft_error *err) {
    const prefix_cfg *cfg = ad->cfg.method_cfg;
    const int64_t n = cfg->num_virtual_tokens;
    int64_t width = 0, layers = 0;
    prefix *p = PF_NEW(&ad->arena, prefix);
    PF_CHECK_ALLOC(p, err);
    ad->state = p;
    PF_TRY(pf_prompt_check(ad, KEY, n, false, err));
    PF_TRY(find_places(ad, &width, &layers, err));
    p->n_layers = layers;
    pf_prompt_encoder encoder = {.build = build_encoder, .ctx = p};
    const bool projected = cfg->prefix_projection && !cfg->opened;
    if (projected) {
        const int64_t H = cfg->encoder_hidden_size > 0 ? cfg->encoder_hidden_size : width;
        PF_TRY(pf_encoder_param(ad, "embedding.weight", n, width, &p->embedding, err));
        PF_TRY(pf_dense_add(ad, "transform.0", H, width, &p->first, err));
        PF_TRY(pf_dense_add(ad, "transform.2", 2 * layers * width, H, &p->second, err));
        encoder.embedding = p->embedding;
    }
    PF_TRY(pf_prompt_source_new(&p->source, ad, n, (int)(2 * layers), width,
                                projected ? &encoder : NULL, err));
    PF_TRY(attach_layers(ad, p, err));
    ad->model->lead.prefix = (int32_t)n;
    ad->leads = true;
    return pf_prompt_attach_saved(ad, KEY, "prefix tuning", &cfg->modules_to_save, err);
}

static peft_status prefix_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const prefix_cfg *cfg = ad->cfg.method_cfg;
    const prefix *p = ad->state;
    const bool zero = pf_streq(cfg->init_weights, "zero");
    pf_param *flat = pf_prompt_source_flat(p->source);
    if (p->embedding == NULL) {
        pf_fill_normal(flat, seed, zero ? 0 : 1); /* torch's embedding */
        return PEFT_OK;
    }
    pf_fill_normal(p->embedding, seed, 1);
    pf_dense_init(&p->first, seed);
    pf_dense_init(&p->second, seed);
    if (zero) pf_fill_constant(p->second.w, 0), pf_fill_constant(p->second.b, 0);
    return PEFT_OK;
}

/* Below a last layer of zeros no gradient arrives. */
static void prefix_ready(pf_adapter *ad) {
    const prefix *p = ad->state;
    if (p->embedding == NULL) return;
    bool zero = true;
    for (int64_t i = 0; i < p->second.w->rows * p->second.w->cols; i++)
        zero = zero && p->second.w->data[i] == 0;
    p->embedding->zero_grad_ok = p->first.w->zero_grad_ok = p->first.b->zero_grad_ok = zero;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

static peft_status prefix_read_config(pf_arena *a, const json_t *c, const char *where,
                                      const void **method_cfg, peft_error *err) {
    static const char *const inits[] = {"normal", "zero", NULL};
    prefix_cfg *p = PF_NEW(a, prefix_cfg);
    PF_CHECK_ALLOC(p, err);
    PF_TRY(pf_json_get_int(c, where, "num_virtual_tokens", 1, 100000, &p->num_virtual_tokens, err));
    PF_TRY(pf_json_opt_int(c, where, "encoder_hidden_size", 0, 0, 1048576, &p->encoder_hidden_size,
                           err));
    PF_TRY(pf_json_opt_bool(c, where, "prefix_projection", false, &p->prefix_projection, err));
    PF_TRY(pf_peft_get_word(c, where, "init_weights", inits, "normal", &p->init_weights, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "modules_to_save", &p->modules_to_save, err));
    PF_TRY(pf_json_opt_int(c, where, "num_layers", 0, 0, 10000, &p->num_layers, err));
    p->opened = true;
    *method_cfg = p;
    return PEFT_OK;
}

static peft_status prefix_write_config(const pf_adapter *ad, json_t *c, peft_error *err) {
    const prefix_cfg *p = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    const prefix *state = ad->state;
    const int64_t width = pf_prompt_source_part(state->source, 0)->cols;
    int bad = pf_prompt_write_sizes(ad, p->num_virtual_tokens, 0, width, m->n_kv_heads, c);
    bad |= json_object_set_new(c, "num_layers", json_integer(state->n_layers));
    bad |= json_object_set_new(
        c, "encoder_hidden_size",
        json_integer(p->encoder_hidden_size > 0 ? p->encoder_hidden_size : width));
    bad |= json_object_set_new(c, "prefix_projection", json_boolean(p->prefix_projection));
    if (pf_streq(p->init_weights, "zero"))
        bad |= json_object_set_new(c, "init_weights", json_string("zero"));
    if (p->modules_to_save.list.n > 0)
        bad |= json_object_set_new(c, "modules_to_save", pf_peft_strings(&p->modules_to_save));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_prefix_tuning = {
    .name = "prefix_tuning",
    .paper = "Prefix-Tuning: Optimizing Continuous Prompts for Generation, Li & Liang 2021, arXiv "
             "2101.00190",
    .help = "learned keys and values before every sample in every layer (prefix tuning, arXiv "
            "2101.00190)",
    .cfg_rows = rows,
    .cfg_size = sizeof(prefix_cfg),
    .peft_type = "PREFIX_TUNING",
    .whole_prefix = "base_model.",
    .note =
        "of a T5 the decoder's self-attention sees the prefix. PEFT reads the tensor of L layers "
        "there in such a way that layer i of the decoder has the keys and values of layer "
        "2 i mod L, and this does the same: of an even L half is not read. Where the heads are "
        "not as wide as the model together (T5 v1.1 small), PEFT has to be told token_dim; a "
        "folder from here says it",
    .no_merge = "a learned prefix is keys and values before every text, not a change of weights",
    .attach = prefix_attach,
    .init = prefix_init,
    .ready = prefix_ready,
    .read_config = prefix_read_config,
    .write_config = prefix_write_config,
};

/* hub_prefix.c - prefix tuning as AdapterHub's `adapters` 1.3 has it (Li & Liang 2021, arXiv
 * 2101.00190; in He et al. 2021, Mix-and-Match, arXiv 2110.04366): n keys and values before those
 * of every layer, written by a network of two layers over an embedding, which stays in the file.
 *
 * Unlike PEFT's (peft.method prefix_tuning) the prefix takes no positions: texts begin at 0 beside
 * it (pf_lead.apart). The file repeats the tensors below every layer, for torch has them there
 * under further names; one of each is written. Not there: flat prefixes, gates, encoder-decoders.
 */
#include "nn/model.h"
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "peft/first_weights.h"
#include "peft/method.h"
#include "peft/peft_json.h"
#include "peft/prompt/prompt.h"
#include "peft/prompt/prompt_source.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

typedef struct hub_prefix_cfg {
    const char *adapter_name, *non_linearity;
    int64_t prefix_length, bottleneck_size;
    double dropout;
    pf_cfg_ints leave_out;
} hub_prefix_cfg;

#define KEY "peft.adapterhub_prefix_tuning"

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INT(hub_prefix_cfg, prefix_length, 30, 1, 100000, "learned keys and values of every layer"),
    PF_CFG_INT(hub_prefix_cfg, bottleneck_size, 512, 1, 1 << 20, "inner width of the network that writes them (800 in Mix-and-Match)"),
    PF_CFG_STR(hub_prefix_cfg, non_linearity, "tanh", "its function: tanh, relu, gelu and what else transformers knows"),
    PF_CFG_FLOAT(hub_prefix_cfg, dropout, 0, 0, 1, "share of what it writes dropped, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_INTLIST(hub_prefix_cfg, leave_out, 0, 100000, "layers without a prefix, counted from 0"),
    PF_CFG_STR(hub_prefix_cfg, adapter_name, "default", "the adapter's name in its file, by which AdapterHub loads it"),
    PF_CFG_END};
// clang-format on

typedef struct layer_part {
    pf_prompt_source *const *source;
    int index;
} layer_part;

typedef struct state {
    const pf_adapter *ad;
    pf_prompt_source *source;
    pf_param *embedding;
    pf_dense first, second;
    const char *mark; /* ".prefix_tunings.<name>.self_prefix.", of the tensors that repeat */
} state;

static void check_config(pf_cfg *c, const void *section) {
    const hub_prefix_cfg *p = section;
    if (pf_activation_find(p->non_linearity) == NULL)
        pf_cfg_complain(c, KEY ".non_linearity", "is %s; tanh, relu, gelu, silu are usual",
                        p->non_linearity);
    if (p->adapter_name[0] == 0 || strpbrk(p->adapter_name, ". \t\n") != NULL)
        pf_cfg_complain(c, KEY ".adapter_name",
                        "should be one word without dots: it stands in the names of tensors");
}

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status give_rows(pf_build *b, void *self, pf_site *site, pf_value **k, pf_value **v,
                             peft_error *err) {
    (void)site;
    const layer_part *l = self;
    *k = pf_graph_param(b->graph, pf_prompt_source_part(*l->source, 2 * l->index));
    *v = pf_graph_param(b->graph, pf_prompt_source_part(*l->source, 2 * l->index + 1));
    PF_CHECK_ALLOC(*k, err);
    PF_CHECK_ALLOC(*v, err);
    return PEFT_OK;
}

static const pf_site_hooks hooks = {.prefix = give_rows};

static peft_status build_encoder(void *ctx, pf_graph *g, pf_value *x, pf_value **y,
                                 peft_error *err) {
    const state *st = ctx;
    const hub_prefix_cfg *cfg = st->ad->cfg.method_cfg;
    const pf_drop_args drop = {
        .p = cfg->dropout, .seed = st->ad->params.seed, .mask_key = 1u << 30};
    PF_TRY(pf_dense_build(g, &st->first, x, y, err));
    PF_TRY(pf_activation(g, pf_activation_find(cfg->non_linearity), "control_trans.1", *y, y, err));
    PF_TRY(pf_dense_build(g, &st->second, *y, y, err));
    return pf_drop(g, "prefix_dropout", *y, &drop, y, err);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add(pf_adapter *ad, const char *prefix, const char *suffix, int64_t n_rows,
                       int64_t cols, pf_param **out, peft_error *err) {
    const char *name = pf_arena_printf(&ad->arena, "%s%s", prefix, suffix);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_adapter_add_param(ad, name, n_rows, cols, out, err));
    if (!pf_ends_with(suffix, "bias")) return PEFT_OK;
    (*out)->is_vector = true;
    (*out)->decay = false;
    return PEFT_OK;
}

static bool is_left_out(const hub_prefix_cfg *cfg, int layer) {
    for (int i = 0; i < cfg->leave_out.n; i++) {
        if (cfg->leave_out.items[i] == layer) return true;
    }
    return false;
}

static peft_status attach_layers(pf_adapter *ad, state *st, int *n, int64_t *width,
                                 peft_error *err) {
    const hub_prefix_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *s = m->sites[i];
        if (s->kind != PF_SITE_ATTENTION_PREFIX) continue;
        if (*width > 0 && s->out_dim != *width) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           KEY ": keys of %s have %lld columns, those of other layers %lld",
                           s->name, (long long)s->out_dim, (long long)*width);
        }
        *width = s->out_dim;
        if (is_left_out(cfg, s->layer)) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           KEY ".leave_out: layers without a prefix are not supported: %s",
                           s->name);
        }
        layer_part *l = PF_NEW(&ad->arena, layer_part);
        PF_CHECK_ALLOC(l, err);
        *l = (layer_part){&st->source, (*n)++};
        PF_TRY(pf_adapter_hook(ad, s, &hooks, l, err));
    }
    if (*n == m->n_layers && !m->encoder_decoder) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   KEY ": AdapterHub's prefixes are supported on models of one stack; %s has %d "
                       "places for %d layers. peft.method prefix_tuning is PEFT's",
                   m->architecture, *n, m->n_layers);
}

static peft_status attach(pf_adapter *ad, peft_error *err) {
    const hub_prefix_cfg *cfg = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    const int64_t n = cfg->prefix_length;
    int64_t width = 0;
    int layers = 0;
    state *st = PF_NEW(&ad->arena, state);
    PF_CHECK_ALLOC(st, err);
    ad->state = st;
    st->ad = ad;
    ad->dropout = cfg->dropout;
    if (pf_activation_find(cfg->non_linearity) == NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "non_linearity '%s' is not known",
                       cfg->non_linearity);
    }
    PF_TRY(pf_prompt_check(ad, KEY, n, false, err));
    PF_TRY(attach_layers(ad, st, &layers, &width, err));
    st->mark = pf_arena_printf(&ad->arena, ".prefix_tunings.%s.self_prefix.", cfg->adapter_name);
    PF_CHECK_ALLOC(st->mark, err);
    const char *prefix =
        pf_arena_printf(&ad->arena, "%.*s.prefix_tuning%s", (int)strcspn(m->embedding->name, "."),
                        m->embedding->name, st->mark);
    PF_CHECK_ALLOC(prefix, err);
    const int64_t H = cfg->bottleneck_size, D = 2 * layers * width;
    PF_TRY(add(ad, prefix, "wte.weight", n, m->hidden, &st->embedding, err));
    PF_TRY(add(ad, prefix, "control_trans.0.weight", H, m->hidden, &st->first.w, err));
    PF_TRY(add(ad, prefix, "control_trans.0.bias", 1, H, &st->first.b, err));
    PF_TRY(add(ad, prefix, "control_trans.2.weight", D, H, &st->second.w, err));
    PF_TRY(add(ad, prefix, "control_trans.2.bias", 1, D, &st->second.b, err));
    const pf_prompt_encoder encoder = {
        .embedding = st->embedding, .build = build_encoder, .ctx = st, .random = cfg->dropout > 0};
    PF_TRY(pf_prompt_source_new(&st->source, ad, n, 2 * layers, width, &encoder, err));
    pf_prompt_source_flat(st->source)->unsaved = true; /* the network is what the file has */
    ad->model->lead.prefix = (int32_t)n;
    ad->model->lead.apart = true;
    ad->leads = true;
    return PEFT_OK;
}

static peft_status init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const state *st = ad->state;
    pf_fill_normal(st->embedding, seed, 1); /* torch's Embedding and Linear */
    pf_dense_init(&st->first, seed);
    pf_dense_init(&st->second, seed);
    return PEFT_OK;
}

static bool has_dropout(const pf_adapter *ad) {
    return ((const hub_prefix_cfg *)ad->cfg.method_cfg)->dropout > 0;
}

/* The same numbers below every layer. */
static bool repeats(const pf_adapter *ad, const char *tensor) {
    const state *st = ad->state;
    return strstr(tensor, st->mark) != NULL && strstr(tensor, ".prefix_tuning.pool.") != NULL;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

static bool is_prefix(const json_t *c) {
    return pf_streq(json_string_value(json_object_get(c, "architecture")), "prefix_tuning");
}

static peft_status read_config(pf_arena *a, const json_t *file, const char *where,
                               const void **method_cfg, peft_error *err) {
    static const struct {
        const char *key, *why;
    } refused[] = {
        {"flat", "prefixes without a network that writes them"},
        {"use_gating", "gates of prefixes (unipelt)"},
    };
    const json_t *c = json_object_get(file, "config");
    hub_prefix_cfg *p = PF_NEW(a, hub_prefix_cfg);
    PF_CHECK_ALLOC(p, err);
    for (size_t i = 0; i < PF_COUNT(refused); i++) {
        if (!json_is_true(json_object_get(c, refused[i].key))) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: %s is true: %s of AdapterHub are not read",
                       where, refused[i].key, refused[i].why);
    }
    PF_TRY(pf_peft_get_text(a, file, where, "name", "default", &p->adapter_name, err));
    PF_TRY(pf_json_opt_int(c, where, "prefix_length", 30, 1, 100000, &p->prefix_length, err));
    PF_TRY(pf_json_opt_int(c, where, "bottleneck_size", 512, 1, 1 << 20, &p->bottleneck_size, err));
    PF_TRY(pf_json_opt_real(c, where, "dropout", 0, &p->dropout, err));
    PF_TRY(pf_peft_get_text(a, c, where, "non_linearity", "tanh", &p->non_linearity, err));
    PF_TRY(pf_peft_get_ints(a, c, where, "leave_out", &p->leave_out, err));
    *method_cfg = p;
    if (p->dropout >= 0 && p->dropout < 1) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: dropout should be at least 0 and below 1", where);
}

static peft_status write_config(const pf_adapter *ad, json_t *file, peft_error *err) {
    const hub_prefix_cfg *p = ad->cfg.method_cfg;
    json_t *c = json_object_get(file, "config");
    const struct {
        const char *key;
        json_t *value;
    } keys[] = {
        {"architecture", json_string("prefix_tuning")},
        {"bottleneck_size", json_integer(p->bottleneck_size)},
        {"cross_prefix", json_true()},
        {"dropout", json_real(p->dropout)},
        {"encoder_prefix", json_true()},
        {"flat", json_false()},
        {"init_weights_seed", json_null()},
        {"leave_out", json_array()},
        {"non_linearity", json_string(p->non_linearity)},
        {"prefix_length", json_integer(p->prefix_length)},
        {"shared_gating", json_true()},
        {"use_gating", json_false()},
    };
    int bad = 0;
    for (size_t i = 0; i < PF_COUNT(keys); i++)
        bad |= json_object_set_new(c, keys[i].key, keys[i].value);
    bad |= json_object_set_new(file, "name", json_string(p->adapter_name));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_adapterhub_prefix_tuning = {
    .name = "adapterhub_prefix_tuning",
    .help = "prefix tuning in AdapterHub's files: beside the text's positions (arXiv 2101.00190)",
    .paper = "Prefix-Tuning: Optimizing Continuous Prompts for Generation, Li & Liang 2021, arXiv "
             "2101.00190",
    .cfg_rows = rows,
    .cfg_size = sizeof(hub_prefix_cfg),
    .check_cfg = check_config,
    .is_adapterhub = is_prefix,
    .no_merge = "a learned prefix is keys and values before every text, not a change of weights",
    .attach = attach,
    .init = init,
    .has_dropout = has_dropout,
    .repeats = repeats,
    .read_config = read_config,
    .write_config = write_config,
};

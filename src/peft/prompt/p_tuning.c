/* p_tuning.c - P-tuning: the rows of a learned prompt are written by a small network (Liu et al.
 * 2021, "GPT Understands, Too", arXiv 2103.10385; peft's P_TUNING).
 *
 *   MLP   linear - relu - linear - relu - linear over an embedding
 *   LSTM  a two-way LSTM of some layers over the embedding, then linear - relu - linear
 *
 * What is saved is what the network wrote, as peft does; so an adapter that is opened from a folder
 * is trained as those rows. The network itself is in checkpoints, under torch's names. */
#include "ops/activation/activation.h"
#include "ops/activation/row_mask.h"
#include "ops/matmul/linear.h"
#include "ops/recurrent/lstm.h"
#include "ops/shape/split.h"
#include "peft/first_weights.h"
#include "peft/peft_json.h"
#include "peft/prompt/prompt.h"
#include "peft/prompt/prompt_source.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

typedef struct p_cfg {
    int64_t num_virtual_tokens, encoder_hidden_size, encoder_num_layers;
    const char *encoder_reparameterization_type;
    double encoder_dropout;
    pf_cfg_strings modules_to_save;
    int64_t submodules; /* as a folder says; 0: not at all */
    bool opened;        /* from a folder: the network is not in it */
} p_cfg;

#define KEY "peft.p_tuning"

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INT(p_cfg, num_virtual_tokens, 20, 1, 100000, "learned rows before every sample"),
    PF_CFG_ENUM(p_cfg, encoder_reparameterization_type, "MLP", "MLP=mlp LSTM=lstm", "the network that writes them while training; what is saved is what it wrote"),
    PF_CFG_INT(p_cfg, encoder_hidden_size, 0, 0, 1048576, "width of that network; 0: the model's", .flags = PF_CFG_UNSET),
    PF_CFG_INT(p_cfg, encoder_num_layers, 2, 1, 64, "layers of the LSTM; an MLP has its three"),
    PF_CFG_FLOAT(p_cfg, encoder_dropout, 0, 0, 1, "dropout between the layers of the LSTM, in training only", .flags = PF_CFG_BELOW_MAX),
    PF_CFG_STRLIST(p_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter"),
    PF_CFG_END};
// clang-format on

/* One layer, one direction. */
typedef struct cell {
    pf_param *w_ih, *w_hh, *b_ih, *b_hh; // (4H,in), (4H,H), (4H), (4H)
} cell;

typedef struct p_tuning {
    pf_adapter *ad;
    pf_prompt_source *source;
    pf_param *embedding; /* NULL: there is no network */
    bool lstm;
    int64_t H;
    int n_layers;
    cell *cells;       /* [layer][direction] */
    pf_dense dense[3]; /* of the MLP; those behind the LSTM */
    int n_dense;
} p_tuning;

/* ---- in the network's graph ------------------------------------------------------------------ */

static peft_status build_cell(pf_graph *g, const cell *c, pf_value *x, bool reverse, pf_value **h,
                              peft_error *err) {
    const pf_param *const params[] = {c->w_ih, c->w_hh, c->b_ih, c->b_hh};
    pf_value *v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = pf_graph_param(g, (pf_param *)params[i]);
        PF_CHECK_ALLOC(v[i], err);
    }
    PF_TRY(pf_linear(g, c->w_ih->name, x, v[0], NULL, h, err));
    PF_TRY(pf_add_bias(g, c->b_ih->name, *h, v[2], h, err));
    PF_TRY(pf_add_bias(g, c->b_hh->name, *h, v[3], h, err));
    const pf_lstm_args args = {.reverse = reverse};
    return pf_lstm(g, c->w_hh->name, *h, v[1], &args, h, err);
}

static peft_status build_lstm(const p_tuning *p, pf_graph *g, pf_value *x, pf_value **y,
                              peft_error *err) {
    const p_cfg *cfg = p->ad->cfg.method_cfg;
    const pf_split_args halves = {.periods = 1, .n = 2, .width = {p->H, p->H}};
    for (int l = 0; l < p->n_layers; l++) {
        const pf_drop_args drop = {.p = l == 0 ? 0 : cfg->encoder_dropout,
                                   .seed = p->ad->params.seed,
                                   .mask_key = (uint32_t)l};
        pf_value *h[2];
        PF_TRY(pf_drop(g, "prompt_encoder.lstm_head.dropout", x, &drop, &x, err));
        for (int d = 0; d < 2; d++)
            PF_TRY(build_cell(g, &p->cells[2 * l + d], x, d == 1, &h[d], err));
        PF_TRY(pf_join(g, "prompt_encoder.lstm_head", h, &halves, &x, err));
    }
    *y = x;
    return PEFT_OK;
}

static peft_status build_encoder(void *ctx, pf_graph *g, pf_value *x, pf_value **y,
                                 peft_error *err) {
    const p_tuning *p = ctx;
    *y = x;
    if (p->lstm) PF_TRY(build_lstm(p, g, x, y, err));
    for (int i = 0; i < p->n_dense; i++) {
        if (i > 0)
            PF_TRY(pf_activation(g, &pf_op_relu, "prompt_encoder.mlp_head.relu", *y, y, err));
        PF_TRY(pf_dense_build(g, &p->dense[i], *y, y, err));
    }
    return PEFT_OK;
}

/* ---- attaching ------------------------------------------------------------------------------- */

static peft_status add_cell(p_tuning *p, int layer, bool reverse, int64_t in_dim, peft_error *err) {
    cell *c = &p->cells[2 * layer + (reverse ? 1 : 0)];
    const struct {
        const char *part;
        pf_param **param;
        int64_t rows, cols;
    } tensors[] = {{"weight_ih", &c->w_ih, 4 * p->H, in_dim},
                   {"weight_hh", &c->w_hh, 4 * p->H, p->H},
                   {"bias_ih", &c->b_ih, 1, 4 * p->H},
                   {"bias_hh", &c->b_hh, 1, 4 * p->H}};
    for (int i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "lstm_head.%s_l%d%s", tensors[i].part, layer,
                 reverse ? "_reverse" : "");
        PF_TRY(
            pf_encoder_param(p->ad, name, tensors[i].rows, tensors[i].cols, tensors[i].param, err));
        (*tensors[i].param)->is_vector = i >= 2;
        (*tensors[i].param)->decay = i < 2; /* as transformers' Trainer */
    }
    return PEFT_OK;
}

static peft_status add_network(p_tuning *p, const p_cfg *cfg, peft_error *err) {
    const int64_t C = p->ad->model->embedding->in_dim, H = p->H;
    const int64_t n = pf_prompt_rows_of(p->ad, cfg->num_virtual_tokens, cfg->submodules);
    PF_TRY(pf_encoder_param(p->ad, "embedding.weight", n, C, &p->embedding, err));
    if (!p->lstm) {
        p->n_dense = 3;
        PF_TRY(pf_dense_add(p->ad, "mlp_head.0", H, C, &p->dense[0], err));
        PF_TRY(pf_dense_add(p->ad, "mlp_head.2", H, H, &p->dense[1], err));
        return pf_dense_add(p->ad, "mlp_head.4", C, H, &p->dense[2], err);
    }
    p->n_layers = (int)cfg->encoder_num_layers;
    p->cells = PF_NEW_ARRAY(&p->ad->arena, cell, 2 * p->n_layers);
    PF_CHECK_ALLOC(p->cells, err);
    for (int l = 0; l < p->n_layers; l++) {
        for (int d = 0; d < 2; d++) PF_TRY(add_cell(p, l, d == 1, l == 0 ? C : 2 * H, err));
    }
    p->n_dense = 2;
    PF_TRY(pf_dense_add(p->ad, "mlp_head.0", 2 * H, 2 * H, &p->dense[0], err));
    return pf_dense_add(p->ad, "mlp_head.2", C, 2 * H, &p->dense[1], err);
}

static peft_status p_attach(pf_adapter *ad, peft_error *err) {
    const p_cfg *cfg = ad->cfg.method_cfg;
    const int64_t C = ad->model->embedding->in_dim;
    p_tuning *p = PF_NEW(&ad->arena, p_tuning);
    PF_CHECK_ALLOC(p, err);
    ad->state = p;
    p->ad = ad;
    p->lstm = pf_streq(cfg->encoder_reparameterization_type, "LSTM");
    p->H = cfg->encoder_hidden_size > 0 ? cfg->encoder_hidden_size : C;
    PF_TRY(pf_prompt_check(ad, KEY, cfg->num_virtual_tokens, true, err));
    if (!cfg->opened) PF_TRY(add_network(p, cfg, err));
    const pf_prompt_encoder encoder = {.embedding = p->embedding,
                                       .build = build_encoder,
                                       .ctx = p,
                                       .random =
                                           p->lstm && p->n_layers > 1 && cfg->encoder_dropout > 0};
    PF_TRY(pf_prompt_source_new(&p->source, ad,
                                pf_prompt_rows_of(ad, cfg->num_virtual_tokens, cfg->submodules), 1,
                                C, p->embedding != NULL ? &encoder : NULL, err));
    PF_TRY(pf_prompt_attach(ad, pf_prompt_source_part(p->source, 0), cfg->num_virtual_tokens, err));
    return pf_prompt_attach_saved(ad, KEY, "P-tuning", &cfg->modules_to_save, err);
}

/* torch's first numbers: an embedding's are normal, a layer's uniform in +-1/sqrt(in), an LSTM's
 * uniform in +-1/sqrt(H). */
static peft_status p_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)err;
    const p_tuning *p = ad->state;
    if (p->embedding == NULL) {
        pf_fill_normal(pf_prompt_source_flat(p->source), seed, 1);
        return PEFT_OK;
    }
    pf_fill_normal(p->embedding, seed, 1);
    for (int i = 0; i < p->n_dense; i++) pf_dense_init(&p->dense[i], seed);
    for (int i = 0; i < 2 * p->n_layers; i++) {
        pf_param *const params[] = {p->cells[i].w_ih, p->cells[i].w_hh, p->cells[i].b_ih,
                                    p->cells[i].b_hh};
        for (int k = 0; k < 4; k++) pf_fill_uniform(params[k], seed, 1 / sqrt((double)p->H));
    }
    return PEFT_OK;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

static peft_status p_read_config(pf_arena *a, const json_t *c, const char *where,
                                 const void **method_cfg, peft_error *err) {
    static const char *const kinds[] = {"MLP", "LSTM", NULL};
    p_cfg *p = PF_NEW(a, p_cfg);
    PF_CHECK_ALLOC(p, err);
    PF_TRY(pf_json_get_int(c, where, "num_virtual_tokens", 1, 100000, &p->num_virtual_tokens, err));
    PF_TRY(pf_json_opt_int(c, where, "encoder_hidden_size", 0, 0, 1048576, &p->encoder_hidden_size,
                           err));
    PF_TRY(pf_json_opt_int(c, where, "encoder_num_layers", 2, 1, 64, &p->encoder_num_layers, err));
    PF_TRY(pf_json_opt_real(c, where, "encoder_dropout", 0, &p->encoder_dropout, err));
    PF_TRY(pf_peft_get_word(c, where, "encoder_reparameterization_type", kinds, "MLP",
                            &p->encoder_reparameterization_type, err));
    PF_TRY(pf_peft_get_strings(a, c, where, "modules_to_save", &p->modules_to_save, err));
    PF_TRY(pf_prompt_read_submodules(c, where, &p->submodules, err));
    p->opened = true;
    *method_cfg = p;
    return PEFT_OK;
}

static peft_status p_write_config(const pf_adapter *ad, json_t *c, peft_error *err) {
    const p_cfg *cfg = ad->cfg.method_cfg;
    const p_tuning *p = ad->state;
    const pf_model *m = ad->model;
    int bad = pf_prompt_write_sizes(ad, cfg->num_virtual_tokens, cfg->submodules,
                                    m->embedding->in_dim, m->n_heads, c);
    bad |= json_object_set_new(c, "encoder_reparameterization_type",
                               json_string(cfg->encoder_reparameterization_type));
    bad |= json_object_set_new(c, "encoder_hidden_size", json_integer(p->H));
    bad |= json_object_set_new(c, "encoder_num_layers", json_integer(cfg->encoder_num_layers));
    bad |= json_object_set_new(c, "encoder_dropout", json_real(cfg->encoder_dropout));
    if (cfg->modules_to_save.list.n > 0)
        bad |= json_object_set_new(c, "modules_to_save", pf_peft_strings(&cfg->modules_to_save));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_p_tuning = {
    .name = "p_tuning",
    .paper = "GPT Understands, Too, Liu et al. 2021, arXiv 2103.10385",
    .help = "a learned prompt that a small network writes (P-tuning, arXiv 2103.10385)",
    .cfg_rows = rows,
    .cfg_size = sizeof(p_cfg),
    .peft_type = "P_TUNING",
    .whole_prefix = "base_model.",
    .note = PF_PROMPT_NOTE,
    .no_merge = "a learned prompt is rows before every text, not a change of weights",
    .attach = p_attach,
    .init = p_init,
    .read_config = p_read_config,
    .write_config = p_write_config,
};

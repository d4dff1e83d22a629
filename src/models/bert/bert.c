/* bert.c - BERT, RoBERTa and XLM-R: encoders that tell classes apart.
 *
 *   h = norm(words + types + positions)
 *   for each layer:  h = norm(h + attention(h));  h = norm(h + mlp(h))
 *   of a text:   h[0] -> dense, tanh -> classifier           (BERT's pooler, RoBERTa's head)
 *   of words:    h -> classifier
 *
 * (Devlin et al. 2018, arXiv 1810.04805; Liu et al. 2019, arXiv 1907.11692; Conneau et al. 2019,
 * arXiv 1911.02116.) A row sees all rows of its text. Positions are learned; RoBERTa's table begins
 * with pad_token_id + 1 rows that stand for padding. Names and defaults are those of transformers'
 * configuration_<model_type>.py; files of the bare models, and of those that predict masked words,
 * are bases whose head is made new. */
#include "nn/base_dropout.h"
#include "nn/class_head.h"
#include "nn/layers.h"
#include "nn/model_config.h"
#include "ops/activation/activation.h"
#include "ops/activation/scale.h"
#include "text/json.h"

#include <math.h>
#include <stdio.h>

static const char *const architectures[] = {"BertForSequenceClassification",
                                            "RobertaForSequenceClassification",
                                            "XLMRobertaForSequenceClassification", NULL};
static const char *const model_types[] = {"bert", "roberta", "xlm-roberta", NULL};
static const char *const default_targets[] = {"query", "value", NULL};
static const char *const ia3[] = {"key", "value", "output.dense", NULL};
static const char *const ia3_feedforward[] = {"output.dense", NULL};
static const char *const norms[] = {"LayerNorm", NULL};

typedef struct bert_layer {
    pf_site *q, *k, *v, *out, *up, *down;
    pf_site *attention_norm, *mlp_norm;
    pf_attend attend;
    pf_drop_args dropout; /* of its scores */
    pf_block_sites at;
} bert_layer;

typedef struct bert {
    const char *root; /* "bert", "roberta" */
    bool is_roberta;
    int64_t intermediate, n_types;
    int32_t first_position; /* row of the table for position 0 */
    double eps, dropout, attention_dropout;
    const pf_op *act;
    bert_layer *layers;
    pf_site *types, *positions, *norm, *embedded;
    pf_site *dense; /* between the first row and the classifier; SEQ_CLS alone */
} bert;

/* ---- config.json ----------------------------------------------------------------------------- */

static peft_status read_positions(pf_model *m, bert *l, peft_error *err) {
    int64_t pad;
    if (!l->is_roberta) return PEFT_OK;
    PF_TRY(pf_json_opt_int(m->config, m->config_path, "pad_token_id", 1, 0, 65536, &pad, err));
    if (pad + 1 >= m->max_positions)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: max_position_embeddings is %lld and pad_token_id %lld: no position is "
                       "left",
                       m->config_path, (long long)m->max_positions, (long long)pad);
    l->first_position = (int32_t)pad + 1;
    m->max_positions -= l->first_position;
    return PEFT_OK;
}

static peft_status read_config(pf_model *m, bert *l, peft_error *err) {
    const json_t *c = m->config;
    const char *where = m->config_path, *kind;
    bool decoder;
    PF_TRY(pf_model_read_sizes(m, &pf_usual_size_keys, err));
    PF_TRY(pf_model_read_width(m, "intermediate_size", 0, &l->intermediate, err));
    PF_TRY(pf_model_read_activation(m, "hidden_act", "gelu", &l->act, err));
    PF_TRY(pf_json_opt_int(c, where, "type_vocab_size", 2, 1, 65536, &l->n_types, err));
    PF_TRY(pf_json_opt_real(c, where, "layer_norm_eps", 1e-12, &l->eps, err));
    PF_TRY(pf_json_opt_bool(c, where, "is_decoder", false, &decoder, err));
    PF_TRY(pf_json_opt_str(c, where, "position_embedding_type", "absolute", &kind, err));
    if (decoder || !pf_streq(kind, "absolute"))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: %s is not supported for %s; encoders with absolute positions are",
                       where, decoder ? "is_decoder" : kind, m->architecture);
    PF_TRY(read_positions(m, l, err));
    PF_TRY(pf_model_read_dropout(m, c, "hidden_dropout_prob", 0.1, &l->dropout, err));
    PF_TRY(pf_model_read_dropout(m, c, "attention_probs_dropout_prob", 0.1, &l->attention_dropout,
                                 err));
    return pf_model_read_head_dropout(m, l->dropout, err);
}

/* ---- sites ----------------------------------------------------------------------------------- */

static pf_join_norm of_sum(const bert *l, pf_site *norm) {
    return (pf_join_norm){.site = norm, .of_sum = true, .eps = l->eps};
}

static peft_status open_layer(pf_model *m, bert *l, int i, peft_error *err) {
    char block[64];
    snprintf(block, sizeof block, "%s.encoder.layer.%d", l->root, i);
    const pf_place p = {m, i, block};
    bert_layer *y = &l->layers[i];
    const int64_t C = m->hidden, F = l->intermediate;
    PF_TRY(pf_place_add(p, PF_SITE_ATTENTION_PREFIX, ".attention.self", C, C, false,
                        &y->attend.prefix, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.self.query", C, C, true, &y->q, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.self.key", C, C, true, &y->k, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.self.value", C, C, true, &y->v, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".attention.output.dense", C, C, true, &y->out, err));
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".attention.output.LayerNorm", C, C, true,
                        &y->attention_norm, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".intermediate.dense", F, C, true, &y->up, err));
    PF_TRY(pf_place_add(p, PF_SITE_LINEAR, ".output.dense", C, F, true, &y->down, err));
    PF_TRY(pf_place_add(p, PF_SITE_NORM, ".output.LayerNorm", C, C, true, &y->mlp_norm, err));
    PF_TRY(pf_model_add_block_sites(m, i, block, false, &y->at, err));
    PF_TRY(pf_model_set_join_norm(m, y->at.attention, of_sum(l, y->attention_norm), err));
    PF_TRY(pf_model_set_join_norm(m, y->at.mlp, of_sum(l, y->mlp_norm), err));
    PF_TRY(pf_model_set_join_module(m, y->at.attention, block, ".attention.output", err));
    PF_TRY(pf_model_set_join_module(m, y->at.mlp, block, ".output", err));
    y->attend.name = y->attend.prefix->name;
    y->attend.layer = i;
    y->dropout = pf_model_attention_drop(m, PF_DROP_SELF, i, l->attention_dropout);
    return PEFT_OK;
}

static peft_status add_outside(const pf_model *m, const bert *l, pf_site_kind kind,
                               const char *part, int64_t rows, bool bias, pf_site **site,
                               peft_error *err) {
    return pf_place_add((pf_place){(pf_model *)m, -1, l->root}, kind, part, rows, m->hidden, bias,
                        site, err);
}

static peft_status bert_open(pf_model *m, peft_error *err) {
    bert *l = PF_NEW(&m->arena, bert);
    PF_CHECK_ALLOC(l, err);
    m->family_cfg = l;
    l->is_roberta = !pf_starts_with(m->architecture, "Bert");
    l->root = l->is_roberta ? "roberta" : "bert";
    PF_TRY(read_config(m, l, err));
    l->layers = PF_NEW_ARRAY(&m->arena, bert_layer, m->n_layers);
    const char *words = pf_arena_printf(&m->arena, "%s.embeddings.word_embeddings", l->root);
    PF_CHECK_ALLOC(l->layers, err);
    PF_CHECK_ALLOC(words, err);
    PF_TRY(pf_model_add_embedding_and_head(m, words, "cls.predictions.decoder", true, err));
    PF_TRY(add_outside(m, l, PF_SITE_POSITIONS, ".embeddings.position_embeddings",
                       m->max_positions + l->first_position, false, &l->positions, err));
    PF_TRY(add_outside(m, l, PF_SITE_POSITIONS, ".embeddings.token_type_embeddings", l->n_types,
                       false, &l->types, err));
    PF_TRY(
        add_outside(m, l, PF_SITE_NORM, ".embeddings.LayerNorm", m->hidden, true, &l->norm, err));
    PF_TRY(pf_model_add_embedding_output(m, &l->embedded, err));
    for (int i = 0; i < m->n_layers; i++) PF_TRY(open_layer(m, l, i, err));
    return PEFT_OK;
}

/* BERT's pooler is part of the base where it has one; RoBERTa's dense layer is one of its head. */
static peft_status open_pooled(pf_model *m, peft_error *err) {
    bert *l = m->family_cfg;
    const int64_t C = m->hidden;
    const char *dense = l->is_roberta ? "classifier.dense" : "bert.pooler.dense";
    const char *head = l->is_roberta ? "classifier.out_proj" : "classifier";
    PF_TRY(pf_model_add_trained_site(m, PF_SITE_LINEAR, dense, C, C, true, &l->dense, err));
    if (!l->is_roberta && l->dense->weight != NULL)
        l->dense->always_trained = pf_strlist_has(&m->made, l->dense->weight->name);
    m->pooler = l->dense;
    return pf_model_add_trained_site(m, PF_SITE_HEAD, head, m->labels.n, C, true, &m->head, err);
}

/* ---- the model ------------------------------------------------------------------------------- */

static peft_status attention(const pf_model *m, pf_build *b, const bert_layer *y, pf_value *x,
                             pf_value **out, peft_error *err) {
    pf_attention_args args = {.n_heads = m->n_heads,
                              .n_kv_heads = m->n_heads,
                              .head_dim = m->head_dim,
                              .scale = 1 / sqrt((double)m->head_dim),
                              .bidirectional = true};
    pf_value *qkv[3], *o;
    PF_TRY(pf_site_linears(b, x, (pf_site *[]){y->q, y->k, y->v}, 3, qkv, err));
    pf_attention_drop(b, &y->dropout, &args);
    PF_TRY(pf_layer_attend(b, &y->attend, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, y->out, out, err);
}

static peft_status build_layer(const pf_model *m, pf_build *b, const bert_layer *y, pf_value **h,
                               peft_error *err) {
    const bert *l = m->family_cfg;
    pf_value *branch; // (T,C)
    PF_TRY(attention(m, b, y, *h, &branch, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_ATTENTION, y->attend.layer, l->dropout, y->out->name,
                         &branch, err));
    PF_TRY(pf_site_join(b, y->at.attention, *h, branch, h, err));
    PF_TRY(pf_layer_mlp(b, y->up, y->down, l->act, *h, &branch, err));
    PF_TRY(
        pf_model_drop(m, b, PF_DROP_MLP, y->attend.layer, l->dropout, y->down->name, &branch, err));
    PF_TRY(pf_site_join(b, y->at.mlp, *h, branch, h, err));
    return pf_site_block_output(b, y->at.output, h, err);
}

static peft_status bert_build(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const bert *l = m->family_cfg;
    pf_value *h, *types, *positions; // (T,C)
    PF_TRY(pf_site_embed(b, m->embedding, &h, err));
    PF_TRY(pf_site_types(b, l->types, &types, err));
    PF_TRY(pf_add(b->graph, l->types->name, h, types, &h, err));
    PF_TRY(pf_site_positions(b, l->positions, PF_SPACE_TOKENS, l->first_position, &positions, err));
    PF_TRY(pf_add(b->graph, l->positions->name, h, positions, &h, err));
    PF_TRY(pf_site_layer_norm(b, h, l->norm, l->eps, 0, &h, err));
    PF_TRY(pf_model_drop(m, b, PF_DROP_EMBEDDING, -1, l->dropout, l->norm->name, &h, err));
    PF_TRY(pf_site_embedding_output(b, l->embedded, &h, err));
    for (int i = 0; i < m->n_layers; i++) {
        pf_graph_block_begin(b->graph, i, h);
        PF_TRY(build_layer(m, b, &l->layers[i], &h, err));
        pf_graph_block_end(b->graph);
    }
    *hidden = h;
    return PEFT_OK;
}

static peft_status pool(pf_model *m, pf_build *b, pf_value **rows, peft_error *err) {
    const bert *l = m->family_cfg;
    if (l->is_roberta)
        PF_TRY(pf_model_drop(m, b, PF_DROP_HEAD_INPUT, -1, m->head_dropout, l->dense->name, rows,
                             err));
    PF_TRY(pf_site_linear(b, *rows, l->dense, rows, err));
    return pf_softcap(b->graph, l->dense->name, *rows, 1, rows, err); /* 1 tanh(x / 1) */
}

const pf_model_family pf_model_family_bert = {
    .name = "bert",
    .architectures = architectures,
    .model_types = model_types,
    .default_targets = default_targets,
    .usual = {.ia3 = ia3, .ia3_feedforward = ia3_feedforward, .norms = norms},
    .open = bert_open,
    .build = bert_build,
    .tasks = 1u << PF_TASK_SEQ_CLS | 1u << PF_TASK_TOKEN_CLS,
    .token_head = "classifier",
    .bidirectional = true,
    .open_pooled = open_pooled,
    .pool = pool,
};

/* layers.c - attention and MLP from sites and ops; see layers.h. */
#include "nn/layers.h"

#include "nn/base_dropout.h"
#include "ops/activation/activation.h"
#include "ops/attention/rope.h"
#include "ops/moe/moe.h"
#include "ops/shape/split.h"

#include <math.h>

/* "layer.part", in the graph's lifetime */
static peft_status part_name(pf_build *b, const char *layer, const char *part, const char **out,
                             peft_error *err) {
    *out = pf_arena_printf(&b->graph->arena, "%s.%s", layer, part);
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

peft_status pf_layer_rope_table(pf_build *b, const pf_rope_spec *spec, pf_value **table,
                                peft_error *err) {
    float *inv_freq = PF_NEW_ARRAY(&b->graph->arena, float, spec->dim / 2);
    PF_CHECK_ALLOC(inv_freq, err);
    pf_rope_table_args args = {.dim = spec->dim, .inv_freq = inv_freq};
    PF_TRY(pf_rope_frequencies(spec, inv_freq, &args.attention_factor, err));
    if (spec->type == PF_ROPE_DYNAMIC) {
        args.dynamic_factor = spec->factor;
        args.base = spec->theta;
        args.original = spec->max_positions;
    }
    if (spec->type == PF_ROPE_LONGROPE) {
        float *long_freq = PF_NEW_ARRAY(&b->graph->arena, float, spec->dim / 2);
        PF_CHECK_ALLOC(long_freq, err);
        PF_TRY(pf_rope_long_frequencies(spec, long_freq, err));
        args.long_freq = long_freq;
        args.original = spec->original_max_positions;
    }
    return pf_rope_table(b->graph, "rotary_emb", &args, table, err);
}

/* Norm per head, then rotation: q or k as the scores see it. */
static peft_status place(pf_build *b, const pf_attention_layer *l, const char *part, pf_site *norm,
                         pf_value *table, pf_value **x, peft_error *err) {
    const char *name;
    if (norm != NULL) {
        const int64_t group = l->norm_whole ? 0 : l->head_dim;
        PF_TRY(pf_site_rms_norm(b, *x, norm, l->norm_eps, group, x, err));
    }
    if (!l->rope) return PEFT_OK;
    PF_TRY(part_name(b, l->name, part, &name, err));
    return pf_rope(b->graph, name, *x, table, l->head_dim, x, err);
}

peft_status pf_layer_attend(pf_build *b, const pf_attend *at, pf_value *q, pf_value *k, pf_value *v,
                            const pf_attention_args *args, pf_value **o, peft_error *err) {
    const bool cached = b->mode == PF_BUILD_GENERATE && at->layer >= 0;
    pf_value *ext_k = NULL, *ext_v = NULL;
    const char *name;
    if (at->prefix != NULL) PF_TRY(pf_site_prefix(b, at->prefix, &ext_k, &ext_v, err));
    if (cached) {
        pf_value *prefix_k = ext_k, *prefix_v = ext_v;
        ext_k = b->cache_k[at->layer];
        ext_v = b->cache_v[at->layer];
        if (prefix_k != NULL) {
            PF_TRY(part_name(b, at->name, "prefix", &name, err));
            PF_TRY(pf_prefix_store(b->graph, name, prefix_k, prefix_v, ext_k, ext_v, err));
        }
    }
    PF_TRY(part_name(b, at->name, "attention", &name, err));
    PF_TRY(pf_attention_biased(b->graph, name, q, k, v, ext_k, ext_v, at->bias, args, o, err));
    if (cached) {
        PF_TRY(part_name(b, at->name, "kv_store", &name, err));
        PF_TRY(pf_kv_store(b->graph, name, k, v, ext_k, ext_v, err));
    }
    return PEFT_OK;
}

/* q, k and v, from three projections or one. */
static peft_status project(pf_build *b, const pf_attention_layer *l, pf_value *x, pf_value **qkv,
                           peft_error *err) {
    if (l->qkv == NULL) return pf_site_linears(b, x, (pf_site *[]){l->q, l->k, l->v}, 3, qkv, err);
    const int64_t q_dim = l->n_heads * l->head_dim, kv_dim = l->n_kv_heads * l->head_dim;
    const pf_split_args parts = {.periods = 1, .n = 3, .width = {q_dim, kv_dim, kv_dim}};
    pf_value *all;
    PF_TRY(pf_site_linear(b, x, l->qkv, &all, err));
    return pf_split(b->graph, l->qkv->name, all, &parts, qkv, err);
}

peft_status pf_layer_attention(pf_build *b, const pf_attention_layer *l, pf_value *x,
                               pf_value *table, pf_value **y, peft_error *err) {
    pf_value *qkv[3], *o;
    PF_TRY(project(b, l, x, qkv, err));
    PF_TRY(place(b, l, "q_rope", l->q_norm, table, &qkv[0], err));
    PF_TRY(place(b, l, "k_rope", l->k_norm, table, &qkv[1], err));
    pf_attention_args args = {.n_heads = l->n_heads,
                              .n_kv_heads = l->n_kv_heads,
                              .head_dim = l->head_dim,
                              .scale = l->scale,
                              .window = l->window,
                              .softcap = l->softcap};
    pf_attention_drop(b, &l->dropout, &args);
    const pf_attend at = {.name = l->name, .layer = l->layer, .prefix = l->prefix};
    PF_TRY(pf_layer_attend(b, &at, qkv[0], qkv[1], qkv[2], &args, &o, err));
    return pf_site_linear(b, o, l->o, y, err);
}

peft_status pf_layer_gated_mlp_of(pf_build *b, const pf_gated_mlp *l, pf_value *x, pf_value **y,
                                  peft_error *err) {
    pf_value *gu[2], *act, *h;
    const pf_site *gate = l->gate_up != NULL ? l->gate_up : l->gate;
    if (l->gate_up == NULL) {
        PF_TRY(pf_site_linears(b, x, (pf_site *[]){l->gate, l->up}, 2, gu, err));
    } else {
        const int64_t F = l->gate_up->out_dim / 2;
        const pf_split_args parts = {.periods = 1, .n = 2, .width = {F, F}};
        pf_value *both;
        PF_TRY(pf_site_linear(b, x, l->gate_up, &both, err));
        PF_TRY(pf_split(b->graph, l->gate_up->name, both, &parts, gu, err));
    }
    PF_TRY(pf_activation(b->graph, l->act, gate->name, gu[0], &act, err));
    PF_TRY(pf_mul(b->graph, l->up != NULL ? l->up->name : gate->name, act, gu[1], &h, err));
    return pf_site_linear(b, h, l->down, y, err);
}

peft_status pf_layer_moe(pf_build *b, const pf_moe_layer *l, pf_value *x, pf_value **y,
                         pf_routes *routes, peft_error *err) {
    const char *name = l->router->name;
    const pf_route_args args = {.n = l->n_experts, .top_k = l->top_k, .normalize = l->normalize};
    pf_value *logits, *shared, *gate;
    pf_routes r;
    pf_value **rows = PF_NEW_ARRAY(&b->graph->arena, pf_value *, l->n_experts);
    PF_CHECK_ALLOC(rows, err);
    PF_TRY(pf_site_linear(b, x, l->router, &logits, err));
    PF_TRY(pf_route(b->graph, name, logits, &args, &r, err));
    PF_TRY(pf_dispatch(b->graph, name, &r, x, rows, err));
    for (int e = 0; e < l->n_experts; e++)
        PF_TRY(pf_layer_gated_mlp_of(b, &l->experts[e], rows[e], &rows[e], err));
    PF_TRY(pf_combine(b->graph, name, &r, rows, y, err));
    *routes = r;
    if (l->shared == NULL) return PEFT_OK;
    PF_TRY(pf_layer_gated_mlp_of(b, l->shared, x, &shared, err));
    PF_TRY(pf_site_linear(b, x, l->shared_gate, &gate, err));
    PF_TRY(pf_gate_rows(b->graph, l->shared_gate->name, shared, gate, &shared, err));
    return pf_add(b->graph, name, *y, shared, y, err);
}

peft_status pf_layer_gated_mlp(pf_build *b, pf_site *gate, pf_site *up, pf_site *down, pf_value *x,
                               pf_value **y, peft_error *err) {
    const pf_gated_mlp l = {.gate = gate, .up = up, .down = down, .act = &pf_op_silu};
    return pf_layer_gated_mlp_of(b, &l, x, y, err);
}

peft_status pf_layer_mlp(pf_build *b, pf_site *up, pf_site *down, const pf_op *f, pf_value *x,
                         pf_value **y, peft_error *err) {
    pf_value *u, *act;
    PF_TRY(pf_site_linear(b, x, up, &u, err));
    PF_TRY(pf_activation(b->graph, f, up->name, u, &act, err));
    return pf_site_linear(b, act, down, y, err);
}

peft_status pf_layer_alibi_slopes(pf_arena *a, int64_t n_heads, const float **out,
                                  peft_error *err) {
    float *slopes = PF_NEW_ARRAY(a, float, n_heads);
    PF_CHECK_ALLOC(slopes, err);
    int log2_heads = 0;
    while ((int64_t)2 << log2_heads <= n_heads) log2_heads++;
    const int64_t power = (int64_t)1 << log2_heads;
    const float base = (float)exp2(-exp2(3 - log2_heads)),
                root = (float)exp2(-exp2(2 - log2_heads));
    for (int64_t h = 0; h < n_heads; h++) {
        slopes[h] = h < power ? (float)pow((double)base, (double)(h + 1))
                              : (float)pow((double)root, (double)(2 * (h - power) + 1));
    }
    *out = slopes;
    return PEFT_OK;
}

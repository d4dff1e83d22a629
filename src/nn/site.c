/* site.c - base products and what is attached to them; see site.h. */
#include "nn/site.h"

#include "ops/loss/logits_ce.h"
#include "ops/activation/activation.h"
#include "ops/activation/scale.h"
#include "ops/embed/embed.h"
#include "ops/matmul/linear.h"
#include "ops/norm/layer_norm.h"
#include "ops/norm/rms_norm.h"

const char *pf_site_kind_name(pf_site_kind kind) {
    switch (kind) {
    case PF_SITE_LINEAR:
        return "linear layer";
    case PF_SITE_EMBEDDING:
        return "embedding";
    case PF_SITE_HEAD:
        return "output head";
    case PF_SITE_NORM:
        return "norm";
    case PF_SITE_POSITIONS:
        return "table of positions";
    case PF_SITE_POSITION_BIAS:
        return "table of position biases";
    case PF_SITE_ATTENTION_PREFIX:
        return "attention layer";
    case PF_SITE_EMBEDDING_OUTPUT:
        return "output of the embeddings";
    case PF_SITE_ATTENTION_OUTPUT:
        return "output of attention";
    case PF_SITE_CROSS_OUTPUT:
        return "output of cross attention";
    case PF_SITE_MLP_OUTPUT:
        return "output of the MLP";
    case PF_SITE_BLOCK_OUTPUT:
        return "block";
    }
    return "module";
}

/* ---- attaching ------------------------------------------------------------------------------- */

peft_status pf_site_attach(pf_arena *a, pf_site *site, const pf_site_hooks *hooks, void *self,
                           peft_error *err) {
    pf_attachment **end = &site->attached;
    for (; *end != NULL; end = &(*end)->next) {
        const pf_site_hooks *other = (*end)->hooks;
        if ((other->head != NULL && hooks->head != NULL) ||
            (other->prefix != NULL && hooks->prefix != NULL) ||
            (other->prompt != NULL && hooks->prompt != NULL) ||
            (other->join != NULL && hooks->join != NULL)) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: two adapters cannot act on this %s at once", site->name,
                           pf_site_kind_name(site->kind));
        }
    }
    pf_attachment *at = PF_NEW(a, pf_attachment);
    PF_CHECK_ALLOC(at, err);
    at->hooks = hooks;
    at->self = self;
    *end = at;
    return PEFT_OK;
}

void pf_site_detach(pf_site *site, const void *self) {
    for (pf_attachment **at = &site->attached; *at != NULL;) {
        if ((*at)->self == self) {
            *at = (*at)->next;
        } else {
            at = &(*at)->next;
        }
    }
}

/* ---- weights as values ----------------------------------------------------------------------- */

static peft_status trained_or_base(pf_build *b, pf_param *trained, const pf_weight *base,
                                   pf_value **v, peft_error *err) {
    bool use_trained = b->adapters && trained != NULL;
    *v = use_trained ? pf_graph_param(b->graph, trained) : pf_graph_weight(b->graph, base);
    PF_CHECK_ALLOC(*v, err);
    return PEFT_OK;
}

peft_status pf_site_weight(pf_build *b, pf_site *site, pf_value **w, peft_error *err) {
    PF_ASSERT(site->weight != NULL);
    return trained_or_base(b, site->trained_weight, site->weight, w, err);
}

peft_status pf_site_bias(pf_build *b, pf_site *site, pf_value **bias, peft_error *err) {
    *bias = NULL;
    if (site->bias == NULL) return PEFT_OK;
    return trained_or_base(b, site->trained_bias, site->bias, bias, err);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static const pf_attachment *first_attachment(const pf_build *b, const pf_site *site) {
    return b->adapters ? site->attached : NULL;
}

static peft_status run_input_hooks(pf_build *b, pf_site *site, pf_value **x, peft_error *err) {
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->input != NULL) PF_TRY(at->hooks->input(b, at->self, site, x, err));
    }
    return PEFT_OK;
}

static peft_status run_output_hooks(pf_build *b, pf_site *site, pf_value *x, uint32_t mask_key,
                                    pf_value **y, peft_error *err) {
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->output != NULL)
            PF_TRY(at->hooks->output(b, at->self, site, x, mask_key, y, err));
    }
    return PEFT_OK;
}

static peft_status run_product_hooks(pf_build *b, pf_site *site, pf_value *x, uint32_t mask_key,
                                     pf_value **y, peft_error *err) {
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->product != NULL)
            PF_TRY(at->hooks->product(b, at->self, site, x, mask_key, y, err));
    }
    return PEFT_OK;
}

/* x W^T, then the bias: the two are fused by a pass. */
static peft_status base_product(pf_build *b, pf_site *site, pf_value *x, uint32_t mask_key,
                                pf_value **y, peft_error *err) {
    pf_value *w, *bias;
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_site_bias(b, site, &bias, err));
    PF_TRY(pf_linear(b->graph, site->name, x, w, NULL, y, err));
    PF_TRY(run_product_hooks(b, site, x, mask_key, y, err));
    if (bias != NULL) PF_TRY(pf_add_bias(b->graph, site->name, *y, bias, y, err));
    return PEFT_OK;
}

/* ---- sites in a build ------------------------------------------------------------------------ */

peft_status pf_site_linears(pf_build *b, pf_value *x, pf_site *const *sites, int n, pf_value **ys,
                            peft_error *err) {
    uint32_t mask_key = (uint32_t)sites[0]->index;
    for (int i = 0; i < n; i++) {
        pf_value *in = x;
        PF_TRY(run_input_hooks(b, sites[i], &in, err));
        PF_TRY(base_product(b, sites[i], in, mask_key, &ys[i], err));
        PF_TRY(run_output_hooks(b, sites[i], in, mask_key, &ys[i], err));
    }
    return PEFT_OK;
}

peft_status pf_site_linear(pf_build *b, pf_value *x, pf_site *site, pf_value **y, peft_error *err) {
    return pf_site_linears(b, x, &site, 1, y, err);
}

peft_status pf_site_rms_norm(pf_build *b, pf_value *x, pf_site *site, double eps, int64_t group,
                             pf_value **y, peft_error *err) {
    pf_value *w;
    PF_TRY(run_input_hooks(b, site, &x, err));
    PF_TRY(pf_site_weight(b, site, &w, err));
    const pf_rms_norm_args args = {.eps = eps, .group = group, .offset = site->weight_offset};
    PF_TRY(pf_rms_norm_of(b->graph, site->name, x, w, &args, y, err));
    return run_output_hooks(b, site, x, (uint32_t)site->index, y, err);
}

peft_status pf_site_layer_norm(pf_build *b, pf_value *x, pf_site *site, double eps, int64_t group,
                               pf_value **y, peft_error *err) {
    pf_value *w, *bias;
    PF_TRY(run_input_hooks(b, site, &x, err));
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_site_bias(b, site, &bias, err));
    PF_TRY(pf_layer_norm(b->graph, site->name, x, w, bias, eps, group, y, err));
    return run_output_hooks(b, site, x, (uint32_t)site->index, y, err);
}

/* y = scale x, for the sites that have a scale. Methods act before it: what they add to an
 * embedding or to logits is scaled alike, as in peft. */
static peft_status scaled(pf_build *b, const pf_site *site, pf_value *x, pf_value **y,
                          peft_error *err) {
    return pf_scale(b->graph, site->name, x, site->scale == 0 ? 1 : site->scale, y, err);
}

peft_status pf_site_embed(pf_build *b, pf_site *site, pf_value **y, peft_error *err) {
    return pf_site_embed_rows(b, site, PF_SPACE_TOKENS, y, err);
}

peft_status pf_site_embed_rows(pf_build *b, pf_site *site, pf_space space, pf_value **y,
                               peft_error *err) {
    pf_value *w;
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_embed_rows(b->graph, site->name, w, space, y, err));
    PF_TRY(run_output_hooks(b, site, NULL, (uint32_t)site->index, y, err));
    if (!site->scales_prompt) PF_TRY(scaled(b, site, *y, y, err));
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->prompt != NULL) PF_TRY(at->hooks->prompt(b, at->self, site, y, err));
    }
    return site->scales_prompt ? scaled(b, site, *y, y, err) : PEFT_OK;
}

peft_status pf_site_positions(pf_build *b, pf_site *site, pf_space space, int32_t offset,
                              pf_value **y, peft_error *err) {
    pf_value *w;
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_embed_positions(b->graph, site->name, w, space, offset, y, err));
    return run_output_hooks(b, site, NULL, (uint32_t)site->index, y, err);
}

peft_status pf_site_types(pf_build *b, pf_site *site, pf_value **y, peft_error *err) {
    pf_value *w;
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_embed_types(b->graph, site->name, w, y, err));
    return run_output_hooks(b, site, NULL, (uint32_t)site->index, y, err);
}

peft_status pf_site_prefix(pf_build *b, pf_site *site, pf_value **k, pf_value **v,
                           peft_error *err) {
    *k = *v = NULL;
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->prefix != NULL) return at->hooks->prefix(b, at->self, site, k, v, err);
    }
    return PEFT_OK;
}

peft_status pf_site_join(pf_build *b, pf_site *site, pf_value *stream, pf_value *branch,
                         pf_value **sum, peft_error *err) {
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->join != NULL)
            return at->hooks->join(b, at->self, site, stream, branch, sum, err);
    }
    const pf_join_norm *norm = site->norm;
    if (norm != NULL && !norm->of_sum) PF_TRY(pf_site_join_norm(b, site, branch, &branch, err));
    PF_TRY(pf_add(b->graph, site->name, stream, branch, sum, err));
    return norm != NULL && norm->of_sum ? pf_site_join_norm(b, site, *sum, sum, err) : PEFT_OK;
}

peft_status pf_site_join_norm(pf_build *b, const pf_site *site, pf_value *x, pf_value **y,
                              peft_error *err) {
    const pf_join_norm *n = site->norm;
    if (n->site == NULL)
        return pf_layer_norm(b->graph, site->name, x, NULL, NULL, n->eps, 0, y, err);
    return n->rms ? pf_site_rms_norm(b, x, n->site, n->eps, 0, y, err)
                  : pf_site_layer_norm(b, x, n->site, n->eps, 0, y, err);
}

peft_status pf_site_embedding_output(pf_build *b, pf_site *site, pf_value **y, peft_error *err) {
    return run_output_hooks(b, site, NULL, (uint32_t)site->index, y, err);
}

peft_status pf_site_block_output(pf_build *b, pf_site *site, pf_value **y, peft_error *err) {
    return run_output_hooks(b, site, NULL, (uint32_t)site->index, y, err);
}

/* Rows of the label entries; they may have been gathered before (a pooler). */
static peft_status label_rows(pf_build *b, pf_site *site, pf_value *hidden, pf_value **h,
                              peft_error *err) {
    *h = hidden;
    if (hidden->space == PF_SPACE_LABELS) return PEFT_OK;
    return pf_gather_labels(b->graph, site->name, hidden, h, err);
}

/* Does anything act on the logits by more than a low-rank part, which is made chunk by chunk? */
static bool acts_on_logits(const pf_build *b, const pf_site *site) {
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->head == NULL && (at->hooks->output != NULL || at->hooks->product != NULL))
            return true;
    }
    return false;
}

peft_status pf_site_head_loss(pf_build *b, pf_site *site, pf_value *hidden, pf_value **nll,
                              pf_value **correct, peft_error *err) {
    pf_value *h, *w, *bias, *low_a = NULL, *low_b = NULL;
    pf_head_ce_args args = {.mask_key = (uint32_t)site->index, .softcap = site->softcap};
    if (acts_on_logits(b, site)) {
        PF_TRY(pf_site_head_logits(b, site, hidden, &h, err));
        return pf_logits_ce(b->graph, site->name, h, nll, correct, err);
    }
    PF_TRY(label_rows(b, site, hidden, &h, err));
    PF_TRY(run_input_hooks(b, site, &h, err));
    PF_ASSERT(site->bias == NULL || site->scale == 0); /* logits are scaled by way of their row */
    PF_TRY(scaled(b, site, h, &h, err));
    PF_TRY(pf_site_weight(b, site, &w, err));
    PF_TRY(pf_site_bias(b, site, &bias, err));
    for (const pf_attachment *at = first_attachment(b, site); at != NULL; at = at->next) {
        if (at->hooks->head != NULL)
            PF_TRY(at->hooks->head(b, at->self, site, &low_a, &low_b, &args, err));
    }
    return pf_head_ce(b->graph, site->name, h, w, bias, low_a, low_b, &args, nll, correct, err);
}

peft_status pf_site_head_logits(pf_build *b, pf_site *site, pf_value *hidden, pf_value **logits,
                                peft_error *err) {
    pf_value *h;
    PF_TRY(label_rows(b, site, hidden, &h, err));
    PF_TRY(run_input_hooks(b, site, &h, err));
    PF_TRY(base_product(b, site, h, (uint32_t)site->index, logits, err));
    PF_TRY(run_output_hooks(b, site, h, (uint32_t)site->index, logits, err));
    PF_TRY(scaled(b, site, *logits, logits, err));
    if (site->softcap == 0) return PEFT_OK;
    return pf_softcap(b->graph, site->name, *logits, site->softcap, logits, err);
}

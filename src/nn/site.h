/* site.h - where models and methods meet.
 *
 * A site is a named place of a model: a projection, a norm, an embedding, the output head, the
 * start of an attention layer's keys (prefix), the places where a block's branches join the stream,
 * the output of a block. Names are Hugging Face's module paths ("model.layers.3.self_attn.q_proj");
 * places that are no module there append a word to one ("model.layers.3.mlp_output"). A model lists
 * its sites when it opens and calls pf_site_* while it builds; what is attached there acts. A
 * method attaches hooks to sites by name. Neither knows the other, and neither knows how the base
 * weight is stored.
 *
 * Embedding and head are two sites even where they share one matrix: a tie is a property of storage
 * (`tied_to`). */
#ifndef PF_SITE_H
#define PF_SITE_H

#include "graph/graph.h"
#include "ops/loss/head_ce.h"
#include "ops/moe/moe.h"

typedef enum pf_site_kind {
    PF_SITE_LINEAR,
    PF_SITE_EMBEDDING,
    PF_SITE_HEAD,
    PF_SITE_NORM,
    PF_SITE_POSITIONS,     /* learned positions, or types: a table by position or type */
    PF_SITE_POSITION_BIAS, /* a table of biases of scores, by bucket of distances and head */
    PF_SITE_ATTENTION_PREFIX,
    PF_SITE_EMBEDDING_OUTPUT, /* the stream as it enters the first block */
    PF_SITE_ATTENTION_OUTPUT, /* where attention joins the stream */
    PF_SITE_CROSS_OUTPUT,     /* where a decoder's attention to the source does */
    PF_SITE_MLP_OUTPUT,       /* where the MLP joins the stream */
    PF_SITE_BLOCK_OUTPUT
} pf_site_kind;

typedef struct pf_site pf_site;
typedef struct pf_build pf_build;

/* What a method does at a site. A NULL hook does nothing. `self` is the method's own data for this
 * site. Hooks emit nodes into b->graph and may be called by any number of builds. */
typedef struct pf_site_hooks {
    /* Before the base product: replaces *x for this site alone. */
    peft_status (*input)(pf_build *b, void *self, pf_site *site, pf_value **x, peft_error *err);
    /* Linear layer: between x Wᵀ and the bias: replaces *y. x and mask_key as for output. */
    peft_status (*product)(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                           pf_value **y, peft_error *err);
    /* After the base product (linear, norm, embedding, head logits), or at the output of the
     * embeddings or a block: replaces *y. x is the site's input (NULL for an embedding and the
     * outputs). mask_key is that of the group of sites that share x. */
    peft_status (*output)(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err);
    /* Head with chunked loss: low-rank part of the logits. At most one attachment may have it.
     * Where an attachment acts on the head's product or output and has no such hook, the logits of
     * all label entries are made in training. */
    peft_status (*head)(pf_build *b, void *self, pf_site *site, pf_value **a, pf_value **bb,
                        pf_head_ce_args *args, peft_error *err);
    /* Attention: external key and value rows of the layer. At most one attachment may have it. */
    peft_status (*prefix)(pf_build *b, void *self, pf_site *site, pf_value **k, pf_value **v,
                          peft_error *err);
    /* Embedding: the rows of a learned prompt, put in place of what the table has for them, behind
     * all that acts on the table. At most one attachment may have it. */
    peft_status (*prompt)(pf_build *b, void *self, pf_site *site, pf_value **y, peft_error *err);
    /* Attention or MLP output: emits *sum in place of stream + branch, and of the norm that stands
     * there (site->norm, pf_site_join_norm). At most one attachment may have it. */
    peft_status (*join)(pf_build *b, void *self, pf_site *site, pf_value *stream, pf_value *branch,
                        pf_value **sum, peft_error *err);
} pf_site_hooks;

typedef struct pf_attachment {
    const pf_site_hooks *hooks;
    void *self;
    struct pf_attachment *next; /* in the order of attaching */
} pf_attachment;

/* A norm where a branch joins the stream. */
typedef struct pf_join_norm {
    pf_site *site; /* NULL: a layer norm without weights */
    bool of_sum;   /* norm(stream + branch), as BERT; else stream + norm(branch), as Gemma 2 */
    bool rms;
    double eps;
} pf_join_norm;

struct pf_site {
    const char *name; /* full module path */
    pf_site_kind kind;
    int layer;               /* -1 outside of the blocks */
    int index;               /* in the model's list; also the mask_key of a group that it leads */
    int64_t in_dim, out_dim; /* linear: as named; norm: width, width; embedding and head: hidden,
                                vocabulary; positions: hidden, their number */
    const pf_weight *weight; /* NULL for prefixes, joins and outputs */
    const pf_weight *bias;   /* NULL: none */
    double weight_offset;    /* norm: added to the weight (Gemma: 1) */
    double scale;            /* embedding and head: of their output; 0: 1 */
    bool scales_prompt; /* embedding: the scale is of the stream, so of a learned prompt too, not
                           of what the table gives */
    double softcap;     /* head: logits become softcap tanh(logit / softcap); 0: they stay */
    pf_site *tied_to;   /* the site whose matrix this one reads too; NULL: none */
    /* Attention, cross attention and MLP output: */
    const pf_join_norm *norm; /* NULL: none */
    const char *module;  /* that ends in joining the stream; NULL: the block does that itself */
    int block;           /* counted over encoder and decoder; of the block's output too */
    bool parallel;       /* MLP output: its branch started where attention's did */
    bool always_trained; /* the head of a task: every method trains it whole and saves it */
    pf_param *trained_weight,
        *trained_bias; /* stand for weight and bias when a method trains them whole */
    pf_attachment *attached;
};

/* One build of a model into a graph. */
typedef enum pf_build_mode {
    PF_BUILD_TRAIN,   /* gradients where params are */
    PF_BUILD_EVAL,    /* the same numbers, no gradients */
    PF_BUILD_GENERATE /* attention reads and writes a KV cache */
} pf_build_mode;

struct pf_build {
    pf_graph *graph;
    pf_build_mode mode;
    bool adapters;                 /* false: the bare base, as a frozen reference */
    pf_value **cache_k, **cache_v; /* per layer, GENERATE only */
    pf_value **cross_k, **cross_v; /* likewise, of the source; encoder-decoder only */
    /* What the layers' routers chose, where they have a loss of their own (ops/moe/router_aux.h);
     * set by the family's build. */
    pf_routes *routes;
    int n_routes;
    double router_coef; /* 0: no such loss */
};

/* ys[i] = base product of sites[i] with x and all that is attached there. The sites share their
 * input: they draw one dropout mask, and later one pass over x. */
peft_status pf_site_linears(pf_build *b, pf_value *x, pf_site *const *sites, int n, pf_value **ys,
                            peft_error *err);
peft_status pf_site_linear(pf_build *b, pf_value *x, pf_site *site, pf_value **y, peft_error *err);
/* RMS norm with the site's weight; group as rms_norm.h */
peft_status pf_site_rms_norm(pf_build *b, pf_value *x, pf_site *site, double eps, int64_t group,
                             pf_value **y, peft_error *err);
/* Layer norm with the site's weight and bias; group as layer_norm.h */
peft_status pf_site_layer_norm(pf_build *b, pf_value *x, pf_site *site, double eps, int64_t group,
                               pf_value **y, peft_error *err);
peft_status pf_site_embed(pf_build *b, pf_site *site, pf_value **y, peft_error *err);
/* Learned positions (positions, hidden): row position + offset for every row of the space. */
peft_status pf_site_positions(pf_build *b, pf_site *site, pf_space space, int32_t offset,
                              pf_value **y, peft_error *err);
/* of the rows of a space that has ids */
peft_status pf_site_embed_rows(pf_build *b, pf_site *site, pf_space space, pf_value **y,
                               peft_error *err);
/* Learned types (types, hidden): row type[i] of the batch. */
peft_status pf_site_types(pf_build *b, pf_site *site, pf_value **y, peft_error *err);
/* External key and value rows of an attention layer: those of an attached prefix, or NULL. */
peft_status pf_site_prefix(pf_build *b, pf_site *site, pf_value **k, pf_value **v, peft_error *err);
/* sum = stream + branch with the norm that stands there, or what is attached at this output makes
 * of the two. Where both branches start from one norm, the MLP joins what attention has joined
 * already. */
peft_status pf_site_join(pf_build *b, pf_site *site, pf_value *stream, pf_value *branch,
                         pf_value **sum, peft_error *err);
/* The norm of this place (site->norm is there), of any rows. */
peft_status pf_site_join_norm(pf_build *b, const pf_site *site, pf_value *x, pf_value **y,
                              peft_error *err);
/* Output of the embeddings or of a block: *y goes in and comes out as the attached methods leave
 * it.
 */
peft_status pf_site_embedding_output(pf_build *b, pf_site *site, pf_value **y, peft_error *err);
peft_status pf_site_block_output(pf_build *b, pf_site *site, pf_value **y, peft_error *err);
/* nll and correct per label entry (E, 1) from the hidden rows of all tokens (T, C), or of the label
 * entries (E, C) */
peft_status pf_site_head_loss(pf_build *b, pf_site *site, pf_value *hidden, pf_value **nll,
                              pf_value **correct, peft_error *err);
/* logits (E, V) of the label rows; generation and verification */
peft_status pf_site_head_logits(pf_build *b, pf_site *site, pf_value *hidden, pf_value **logits,
                                peft_error *err);

/* Weight or bias as a graph value: the trained one when there is one. bias: NULL when the site has
 * none. NULL with *err set when memory is out. */
peft_status pf_site_weight(pf_build *b, pf_site *site, pf_value **w, peft_error *err);
peft_status pf_site_bias(pf_build *b, pf_site *site, pf_value **bias, peft_error *err);

/* Adds an attachment at the end; memory from the arena, which must live until the detach. */
peft_status pf_site_attach(pf_arena *a, pf_site *site, const pf_site_hooks *hooks, void *self,
                           peft_error *err);
/* Takes away what was attached with this `self`. */
void pf_site_detach(pf_site *site, const void *self);

const char *pf_site_kind_name(pf_site_kind kind); /* "linear layer", "norm", ... for messages */

#endif

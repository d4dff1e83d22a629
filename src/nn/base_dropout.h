/* base_dropout.h - the dropouts that a base model has itself: those of its config.json, where
 * transformers applies them, in training alone.
 *
 * A family reads each with pf_model_read_dropout while it opens and applies it while it builds; all
 * that is 0 leaves no op behind. Which of them count is pf_model.dropout's business, not the
 * family's.
 *
 * Masks (ops/matmul/dropout.h) depend on seed, step, sample, position and a key that says where, so
 * neither on the cut of a step nor on threads nor on what is computed again:
 *
 *   rows:       2^31 + (layer + 1) 2^8 + place; outside of layers, layer is -1. Keys of adapters,
 *               under whose key of the generator rows are drawn too, stay below 2^31.
 *   attention:  kind 2^30 + layer 2^16 + head, under a key of the generator of its own */
#ifndef PF_BASE_DROPOUT_H
#define PF_BASE_DROPOUT_H

#include "nn/model.h"
#include "ops/activation/row_mask.h"
#include "ops/attention/attention.h"

typedef enum pf_drop_place {
    PF_DROP_EMBEDDING,   /* what enters the first block */
    PF_DROP_ATTENTION,   /* what attention gives to the stream */
    PF_DROP_MLP,         /* what the MLP does */
    PF_DROP_CROSS,       /* what cross attention does */
    PF_DROP_INNER,       /* inside the MLP, before its last layer */
    PF_DROP_NORM,        /* behind the last norm */
    PF_DROP_HEAD_INPUT,  /* what a head of two layers reads */
    PF_DROP_HEAD,        /* what the last layer of a head reads */
    PF_DROP_ENCODER = 64 /* added to the others: of the encoder beside a decoder */
} pf_drop_place;

typedef enum pf_drop_kind {
    PF_DROP_SELF,
    PF_DROP_SELF_ENCODER, /* of the encoder beside a decoder */
    PF_DROP_OVER_SOURCE   /* cross attention */
} pf_drop_kind;

struct json_t;

/* --- while a family opens */
/* What `key` of the config says, `def` where it is missing; *p is what counts. Notes what is above
 * 0 in m->dropout. */
peft_status pf_model_read_dropout(pf_model *m, const struct json_t *config, const char *key,
                                  double def, double *p, peft_error *err);
/* Of the rows that the head for classes reads, where the task has one: classifier_dropout, else
 * `def`. */
peft_status pf_model_read_head_dropout(pf_model *m, double def, peft_error *err);
/* The same where the family has not done so. */
peft_status pf_model_settle_head_dropout(pf_model *m, peft_error *err);
/* Of the probabilities of a layer's attention. */
pf_drop_args pf_model_attention_drop(const pf_model *m, pf_drop_kind kind, int layer, double p);

/* --- while it builds */
/* Puts it into the arguments, in a build for training. */
void pf_attention_drop(const pf_build *b, const pf_drop_args *drop, pf_attention_args *args);
/* *x is dropped, in a build for training. `name` is the node's. */
peft_status pf_model_drop(const pf_model *m, pf_build *b, int place, int layer, double p,
                          const char *name, pf_value **x, peft_error *err);

#endif

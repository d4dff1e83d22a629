/* param.h - what is trained. One set per adapter: a contiguous block each for weights, gradients
 * and the optimizer's two moments, so that clipping, the optimizer step, checkpoints and exchanges
 * between ranks are single passes over a block.
 *
 * Life cycle: init -> add* -> seal (blocks exist from here on) -> use -> release. Pointers to a
 * pf_param stay valid until release. Weights are pf_real; offsets are in elements and multiples
 * of 16. */
#ifndef PF_PARAM_H
#define PF_PARAM_H

#include "base/arena.h"
#include "tensor/real.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_param {
    const char *name;   /* as the adapter file has it:
                           base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight */
    int64_t rows, cols; /* a vector has one row */
    bool is_vector;     /* stored with one dimension */
    bool stored_turned; /* files have it as (cols, rows): the weight of a Conv1D */
    int n_dims;         /* more than two: stored with these, whose product is rows * cols */
    int64_t dims[4];
    bool decay;        /* weight decay applies (HF: not to biases and norms) */
    float lr_scale;    /* of its learning-rate group: 1, or loraplus_lr_ratio, ... */
    bool zero_grad_ok; /* true while a zero gradient is expected at the first step (A while B is 0)
                        */
    bool may_idle;     /* its gradient may stay zero for good: whether it acts depends on the data
                        */
    bool frozen;       /* stays as it is: no gradient, no update (pf_params_freeze) */
    bool unsaved;      /* no tensor of the adapter's file, in checkpoints only */
    const pf_real *grad_map; /* (cols, cols): the optimizer takes grad · grad_map; NULL: grad */
    int64_t offset;          /* in elements, into each block */
    pf_real *data;           /* rows * cols, valid after seal */
    pf_real *grad;           /* accumulated over the micro-batches of a step */
    int index;               /* in the list of the set that it was added to */
} pf_param;

typedef struct pf_params {
    pf_arena arena;
    pf_param **items;
    int n, cap;
    int64_t count;     /* trainable numbers, padding not counted */
    int64_t block_len; /* elements of one block, padding counted */
    uint64_t seed;     /* of the adapter: random masks and initial weights */
    pf_real *data, *grad, *m, *v;
} pf_params;

void pf_params_init(pf_params *ps);
void pf_params_release(pf_params *ps);
/* A new parameter; decay true, lr_scale 1. Names are unique. */
peft_status pf_params_add(pf_params *ps, const char *name, int64_t rows, int64_t cols,
                          pf_param **out, peft_error *err);
/* The parameters of another set, which keeps its list of them, stand in this one's blocks too, by
 * the same structs: one optimizer, one clipping, one checkpoint. Names stay unique. `part` is not
 * sealed on its own and is released after this one. */
peft_status pf_params_adopt(pf_params *ps, const pf_params *part, peft_error *err);
/* Allocates weights; with_training also gradients and moments. All zero. */
peft_status pf_params_seal(pf_params *ps, bool with_training, peft_error *err);
/* Before a graph is built and the optimizer made: this one keeps its numbers. */
void pf_params_freeze(pf_params *ps, pf_param *p);
pf_param *pf_params_find(const pf_params *ps, const char *name);
void pf_params_zero_grad(pf_params *ps);

#endif

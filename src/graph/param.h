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
#include "base/map.h"
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
    bool constant;     /* frozen, and without room for a gradient and moments */
    bool unsaved;      /* no tensor of the adapter's file, in checkpoints only */
    const pf_real *grad_map; /* (cols, cols): the optimizer takes grad · grad_map; NULL: grad */
    int64_t offset;          /* in elements, into each block */
    pf_real *data;           /* rows * cols, valid after seal */
    pf_real *grad;           /* accumulated over the micro-batches of a step */
    int index;               /* in the list of the set that it was added to */
} pf_param;

/* Parameters that are made of trained ones, once per optimizer step (keys and values that an
 * encoder writes): graphs read them and gather their gradients like those of any parameter, the
 * optimizer does not know them. */
typedef struct pf_params pf_params;
typedef struct pf_made_params {
    pf_params *params; /* without moments */
    void *ctx;
    /* The trained weights are there, or have changed: makes the others of them. step >= 0: for that
     * step of training, with its random masks. */
    peft_status (*make)(void *ctx, int64_t step, peft_error *err);
    bool random; /* training draws masks here: `make` is asked before every step, too */
    /* The gradients of `params` are complete: adds what follows from them to the trained ones'. */
    peft_status (*hand_on)(void *ctx, peft_error *err);
    void (*release)(void *ctx); /* with the trained ones */
} pf_made_params;

struct pf_params {
    pf_arena arena;
    pf_param **items;
    int n, cap;
    pf_map by_name;    /* of items: ptr is the pf_param */
    int64_t count;     /* trainable numbers, padding not counted */
    int64_t block_len; /* elements of one block, padding counted */
    int64_t fixed_len; /* behind it in `data` alone: constant parameters */
    uint64_t seed;     /* of the adapter: random masks and initial weights */
    pf_real *data, *grad, *m, *v;
    pf_made_params made; /* params is NULL: none */
};

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
/* Before a graph is built and the optimizer made: this one keeps its numbers. Gradient and
 * moments have room that the method may use. */
void pf_params_freeze(pf_params *ps, pf_param *p);
/* The same before the seal, without that room. */
void pf_params_fix(pf_params *ps, pf_param *p);
int64_t pf_param_room(const pf_param *p); /* elements of a block, padding counted */
pf_param *pf_params_find(const pf_params *ps, const char *name);
/* Those that are made of others: weights, with_training gradients. */
peft_status pf_params_seal_made(pf_params *ps, bool with_training, peft_error *err);
void pf_params_zero_grad(pf_params *ps); /* of what is made of them, too */
/* Whatever is made of these is made anew, if anything is; step as above. */
peft_status pf_params_make(const pf_params *ps, int64_t step, peft_error *err);

#endif

/* autodiff.h - appends the backward pass to a graph.
 *
 * Only values above something trainable have gradients: no dW for a frozen weight, no dX below the
 * lowest trainable. What the backward pass reads of the forward pass is either saved (it then
 * simply lives longer in the plan) or recomputed by clones of forward nodes:
 *
 *   PF_SAVE_MINIMAL     outputs of ops flagged PF_OP_CHEAP are recomputed from their inputs,
 * everything else that is read is saved. This is the minimal exact set of DESIGN 4.3.
 *   PF_SAVE_CHECKPOINT  only block inputs (pf_graph_block_begin) are saved; a block is recomputed
 * when its backward pass begins.
 *   PF_SAVE_ALL         nothing is recomputed (tests).
 *   PF_SAVE_SELECTED    block inputs, and inside of blocks the values that the caller has marked
 * (pf_value.selected): anything between the minimal set and checkpointing.
 *
 * A graph with save_bf16 keeps what is saved inside of blocks in half the room: rounded behind its
 * producer, widened again before its first reader in the backward pass. Block inputs and outputs
 * that an op marks as exact (a log of sums) stay as they are. The forward pass does not change; the
 * gradients are those of slightly rounded activations.
 *
 * Recomputed numbers equal the first ones bit for bit, for kernels are deterministic and see the
 * same rows. */
#ifndef PF_AUTODIFF_H
#define PF_AUTODIFF_H

#include "graph/graph.h"

typedef enum pf_save_policy {
    PF_SAVE_MINIMAL,
    PF_SAVE_CHECKPOINT,
    PF_SAVE_ALL,
    PF_SAVE_SELECTED
} pf_save_policy; /* stored in checkpoints: append only */

/* Adds the backward pass of sum(seed * root). `seed` has root's shape: the caller fills it between
 * the phases. */
peft_status pf_autodiff_run(pf_graph *g, pf_value *root, pf_value *seed, pf_save_policy policy,
                            peft_error *err);

/* --- for vjp rules
 * -------------------------------------------------------------------------------------------------
 */
pf_graph *pf_grad_graph(pf_autodiff *ad);
/* Gradient of an output of the node at hand; NULL if nothing depends on it. */
pf_value *pf_grad_of(pf_autodiff *ad, const pf_value *out);
/* Is a gradient of this forward value wanted? (PARAM: unless frozen; WEIGHT: never) */
bool pf_grad_wanted(const pf_value *v);
/* The forward value for reading in the backward pass: itself when saved, or its recomputed clone.
 * NULL with *err set on failure. Ask only for what is read. */
pf_value *pf_grad_need(pf_autodiff *ad, pf_value *v, peft_error *err);
/* Adds a contribution (an ACT of v's shape) to the gradient of v. Of a PARAM too, where the node
 * has all of it at once; what comes row by row goes to pf_grad_sink. */
peft_status pf_grad_give(pf_autodiff *ad, pf_value *v, pf_value *contribution, peft_error *err);
/* Takes the gradient of v gathered so far out of the books (NULL if none), to be folded into the
 * next contribution by an op that has an accumulator input; that op's result is then given. */
pf_value *pf_grad_take(pf_autodiff *ad, pf_value *v);
/* Where kernels add the gradient of a PARAM. */
pf_value *pf_grad_sink(pf_autodiff *ad, const pf_value *param);

#endif

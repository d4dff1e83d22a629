/* optimizer.h - one optimizer step over a set of parameters: check, clip, AdamW.
 *
 * The gradient of a step is complete when pf_optimizer_step is called, and is left as it was, but
 * for those that have a grad_map (the caller zeroes it for the next step). Nothing is changed when
 * the step fails: (the messages name the tensor; step, advice and what is kept are the caller's to
 * add)
 *   - PEFT_E_DIVERGED  a gradient is NaN or infinite; the message names the tensor and the element;
 *   - PEFT_E_FAILED    a tensor's gradient is zero throughout where it must not be. Asked once per
 *     tensor: at the first step, and for those that may be zero there (A while B is 0) at the first
 *     step after one with a learning rate above 0 (a warmup starts at 0).
 *
 * Parameters that share decay and learning-rate group and lie side by side are updated in one pass
 * (a `run` of the block). The norm is that of all gradients together, in double, in fixed blocks:
 * the same bits on any number of threads. Clipping is torch's clip_grad_norm_. Allocates nothing
 * after init. State (moments in pf_params, step count) is what pf_optimizer_section saves. */
#ifndef PF_OPTIMIZER_H
#define PF_OPTIMIZER_H

#include "base/pool.h"
#include "graph/param.h"
#include "train/checkpoint.h"

typedef struct pf_optimizer_cfg {
    double beta1, beta2, eps, weight_decay;
    double max_grad_norm; /* 0: no clipping */
} pf_optimizer_cfg;

typedef struct pf_optimizer_run {
    int64_t offset, len; /* of the block, padding included */
    double lr_scale;
    bool decay;
} pf_optimizer_run;

typedef struct pf_optimizer {
    pf_optimizer_cfg cfg;
    pf_params *params; /* borrowed */
    pf_optimizer_run *runs;
    int n_runs;
    double *map_row; /* room for one row of a mapped gradient */
    int64_t t;       /* steps done */
    bool moved;      /* one of them had a learning rate above 0 */
    bool checked,
        checked_excepted; /* gradients of the tensors: all / those that may be zero at first */
} pf_optimizer;

typedef struct pf_optimizer_report {
    double grad_norm; /* before clipping */
    double clip;      /* what the gradients were multiplied with: 1 where they were not clipped */
    double lr;        /* the rate of this step */
} pf_optimizer_report;

/* params are sealed with training; they outlive the optimizer. */
peft_status pf_optimizer_init(pf_optimizer *o, pf_arena *a, pf_params *params,
                              const pf_optimizer_cfg *cfg, peft_error *err);
/* `out` may be NULL. */
peft_status pf_optimizer_step(pf_optimizer *o, pf_pool *pool, double lr, pf_optimizer_report *out,
                              peft_error *err);

/* PEFT_E_DIVERGED and the tensor's name where a weight is NaN or infinite. */
peft_status pf_weights_check_finite(const pf_params *params, pf_pool *pool, peft_error *err);

/* Moments and step count, by the names of the parameters ("optimizer"). */
pf_section pf_optimizer_section(pf_optimizer *o);

#endif

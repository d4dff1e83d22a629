/* rms_norm.h - y = x / sqrt(mean(x²) + eps) · w  (Zhang & Sennrich 2019, arXiv 1910.07467, eq. 4).
 *
 * The mean is over groups of `group` neighbouring columns: the whole row for a block norm, the head
 * width for the q/k norm of Qwen3. w has `group` numbers. As Hugging Face computes it: the
 * normalized x is rounded to x's type, then multiplied by w. Gemma's norms multiply by 1 + w:
 * `offset` is added to w. */
#ifndef PF_RMS_NORM_H
#define PF_RMS_NORM_H

#include "graph/graph.h"

typedef struct pf_rms_norm_args {
    double eps;
    int64_t group; /* columns per mean; 0: all */
    double offset; /* added to w */
} pf_rms_norm_args;

/* x (R, C), w (1, group) -> (R, C) */
peft_status pf_rms_norm(pf_graph *g, const char *name, pf_value *x, pf_value *w, double eps,
                        int64_t group, pf_value **y, peft_error *err);
peft_status pf_rms_norm_of(pf_graph *g, const char *name, pf_value *x, pf_value *w,
                           const pf_rms_norm_args *args, pf_value **y, peft_error *err);

#endif

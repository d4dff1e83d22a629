/* adalora.h - what adalora.c (the update, its files) and adalora_ranks.c (who keeps its rank)
 * share. */
#ifndef PF_ADALORA_H
#define PF_ADALORA_H

#include "peft/delta/delta.h"

/* rank_pattern of a file: which of a module's init_r ranks are there. */
typedef struct pf_adalora_mask {
    const char *name; /* "model.layers.0.self_attn.q_proj" */
    const bool *kept; /* (n) */
    int64_t n;
} pf_adalora_mask;

typedef struct pf_adalora_cfg {
    pf_delta_cfg d;
    int64_t init_r, target_r, tinit, tfinal, deltaT, total_step;
    double lora_alpha, lora_dropout, beta1, beta2, orth_reg_weight;
    bool init_lora_weights;
    const pf_adalora_mask *masks;
    int n_masks;
} pf_adalora_cfg;

enum { PF_ADALORA_A, PF_ADALORA_B, PF_ADALORA_E };

typedef struct pf_adalora_site {
    pf_delta_site s; /* A (r, in), B (out, r), E (r, 1) */
    int64_t r;       /* ranks that are here: fewer than init_r for a file that had lost some */
    int64_t *place;  /* (r) which of the init_r each of them is */
    /* Smoothed sensitivity of A, B and E, frozen and unsaved: the uncertainty stands in the first
     * moment, whether a rank is kept (1), is not (2), or was not asked about (0) in the second
     * moment of E's. */
    pf_param *score[3];
    int64_t total; /* total_step as the run has it */
} pf_adalora_site;

/* Was a budget shared out, or did the file come with one? */
bool pf_adalora_has_ranks(const pf_adapter *ad);
bool pf_adalora_keeps(const pf_adapter *ad, const pf_adalora_site *l, int64_t rank);
/* Ranks kept; all of them before a budget was shared out. */
int64_t pf_adalora_n_kept(const pf_adapter *ad, const pf_adalora_site *l);

peft_status pf_adalora_after_backward(pf_adapter *ad, peft_error *err);
peft_status pf_adalora_after_step(pf_adapter *ad, const pf_step_done *done, peft_error *err);

#endif

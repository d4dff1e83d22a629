/* lora_targets.h - which modules LoRA acts on, with which rank and alpha: PEFT's rules for
 * target_modules, exclude_modules, layers_to_transform, rank_pattern, alpha_pattern and
 * modules_to_save, and our strictness about them. */
#ifndef PF_LORA_TARGETS_H
#define PF_LORA_TARGETS_H

#include "peft/method.h"

typedef struct pf_lora_target {
    bool lora;  /* a low-rank update */
    bool whole; /* modules_to_save */
    int64_t r;
    double alpha;
} pf_lora_target;

/* One for each site of ad->model, in the arena of ad. */
peft_status pf_lora_find_targets(pf_adapter *ad, const pf_lora_cfg *cfg, pf_lora_target **out,
                                 peft_error *err);

/* target_modules as the adapter file should name them: the list, the expression (*single), the
 * family's default, or for all-linear the last parts of the linear layers' names. */
peft_status pf_lora_target_names(const pf_adapter *ad, const pf_lora_cfg *cfg, pf_arena *a,
                                 pf_strlist *names, bool *single, peft_error *err);

#endif

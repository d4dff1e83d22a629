/* targets.h - which modules a method acts on: PEFT's rules for target_modules, exclude_modules,
 * layers_to_transform, rank_pattern, alpha_pattern and modules_to_save, and our strictness about
 * them. Every method that names modules fills a pf_target_rules from its own section. */
#ifndef PF_TARGETS_H
#define PF_TARGETS_H

#include "peft/method.h"

typedef struct pf_target_rules {
    const char *key;     /* "peft.lora", for messages */
    const char *what;    /* "LoRA" */
    unsigned kinds;      /* where it can act: 1 << PF_SITE_LINEAR and the like; 0: it names no
                            modules, and only modules_to_save is looked at */
    const char *acts_on; /* the same in words: "linear layers, embeddings and the head" */
    const char *const
        *usual; /* without target_modules, NULL at the end; NULL: the family's for LoRA */
    pf_cfg_strings target_modules; /* single: one regular expression, or "all-linear" */
    pf_cfg_strings exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern;
    pf_cfg_strings modules_to_save;
    pf_cfg_map rank_pattern, alpha_pattern; /* name or regular expression -> number */
    int64_t r;                              /* 0: the method has no ranks */
    double alpha;
} pf_target_rules;

typedef struct pf_target {
    bool hit;   /* the method acts here */
    bool whole; /* modules_to_save */
    int64_t r;
    double alpha;
} pf_target;

/* One for each site of ad->model, in the arena of ad. */
peft_status pf_find_targets(pf_adapter *ad, const pf_target_rules *cfg, pf_target **out,
                            peft_error *err);

/* target_modules as the adapter file should name them: the list, the expression (*single), the
 * usual ones, or for all-linear the last parts of the linear layers' names. */
peft_status pf_target_names(const pf_adapter *ad, const pf_target_rules *cfg, pf_arena *a,
                            pf_strlist *names, bool *single, peft_error *err);

/* Trains weight and bias of a module of modules_to_save whole: copies, the base keeps its own. */
peft_status pf_attach_whole(pf_adapter *ad, pf_site *site, peft_error *err);

#define PF_ADAPTER_PREFIX "base_model.model." /* of every tensor in an adapter's file */

#endif

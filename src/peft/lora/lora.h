/* lora.h - what the files of lora/ share. */
#ifndef PF_LORA_H
#define PF_LORA_H

#include "peft/targets.h"

typedef struct pf_lora_cfg {
    int64_t r;
    double alpha, dropout;
    pf_cfg_strings target_modules; /* single: one regular expression, or "all-linear" */
    pf_cfg_strings exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern;
    pf_cfg_map rank_pattern, alpha_pattern; /* name or regular expression -> number */
    bool use_rslora;
    const char *bias; /* none all lora_only */
    pf_cfg_strings modules_to_save;
    const char *init_lora_weights; /* true false gaussian */
} pf_lora_cfg;

extern const pf_cfg_row pf_lora_cfg_rows[];
void pf_lora_check_config(pf_cfg *c, const void *section);
/* What its section says about modules. */
pf_target_rules pf_lora_rules(const pf_lora_cfg *cfg);

peft_status pf_lora_read_config(pf_arena *a, const struct json_t *config, const char *where,
                                const void **method_cfg, peft_error *err);
peft_status pf_lora_write_config(const pf_adapter *ad, struct json_t *config, peft_error *err);

#endif

/* hub_lora.h - what the two files of AdapterHub's LoRA and (IA)3 share. */
#ifndef PF_HUB_LORA_H
#define PF_HUB_LORA_H

#include "peft/method.h"

typedef struct pf_hub_lora_cfg {
    const char *adapter_name;
    bool selfattn_lora, intermediate_lora, output_lora, use_gating;
    pf_cfg_strings attn_matrices; /* q k v */
    pf_cfg_ints leave_out;
    int64_t r;
    double alpha, dropout;
    const char *composition_mode; /* add scale */
    const char *init_weights;     /* lora bert ia3 */
} pf_hub_lora_cfg;

bool pf_hub_lora_scales(const pf_hub_lora_cfg *cfg); /* (IA)3 */

/* hub_lora_config.c */
peft_status pf_hub_lora_read_config(pf_arena *a, const struct json_t *file, const char *where,
                                    const void **method_cfg, peft_error *err);
peft_status pf_hub_lora_write_config(const pf_adapter *ad, struct json_t *file, peft_error *err);

/* hub_lora.c, for the descriptors */
peft_status pf_hub_lora_attach(pf_adapter *ad, peft_error *err);
peft_status pf_hub_lora_init(pf_adapter *ad, uint64_t seed, peft_error *err);
void pf_hub_lora_ready(pf_adapter *ad);
bool pf_hub_lora_touches(const pf_adapter *ad, const pf_site *site);
peft_status pf_hub_lora_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                              float *rows, peft_error *err);
bool pf_hub_lora_touches_bias(const pf_adapter *ad, const pf_site *site);
void pf_hub_lora_merge_bias(const pf_adapter *ad, const pf_site *site, float *bias);
bool pf_hub_lora_has_dropout(const pf_adapter *ad);

#endif

/* adapter_fusion.h - what the two files of fusion/ share: the configuration of an AdapterFusion. */
#ifndef PF_ADAPTER_FUSION_H
#define PF_ADAPTER_FUSION_H

#include "peft/method.h"

typedef struct pf_adapter_fusion_cfg {
    pf_cfg_strings adapters, adapter_names; /* folders; names: of the same length, or empty */
    bool query, key, value, query_before_ln, regularization, residual_before, value_before_softmax,
        value_initialized;
    double dropout_prob;
} pf_adapter_fusion_cfg;

/* adapter_fusion_config.c */
extern const pf_cfg_row pf_adapter_fusion_rows[];
void pf_adapter_fusion_check_config(pf_cfg *c, const void *section);
bool pf_adapter_fusion_is_config(const struct json_t *config);
peft_status pf_adapter_fusion_read_config(pf_arena *a, const struct json_t *file, const char *where,
                                          const void **method_cfg, peft_error *err);
peft_status pf_adapter_fusion_write_config(const pf_adapter *ad, struct json_t *file,
                                           peft_error *err);

/* "a,b": the names of what is fused, in the adapter's arena; NULL: no memory */
const char *pf_adapter_fusion_name(const pf_adapter *ad);

#endif

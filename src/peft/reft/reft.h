/* reft.h - what the files of reft/ share. */
#ifndef PF_REFT_H
#define PF_REFT_H

#include "peft/method.h"

typedef struct pf_reft_cfg {
    const char *adapter_name;
    pf_cfg_ints layers; /* empty: all */
    int64_t prefix_positions, suffix_positions, r;
    bool orthogonality, tied_weights, subtract_projection;
    double dropout;
    const char *non_linearity; /* none: the identity */
} pf_reft_cfg;

void pf_reft_check_config(pf_cfg *c, const void *section);
peft_status pf_reft_read_config(pf_arena *a, const struct json_t *file, const char *where,
                                const void **method_cfg, peft_error *err);
peft_status pf_reft_write_config(const pf_adapter *ad, struct json_t *file, peft_error *err);

peft_status pf_reft_attach(pf_adapter *ad, peft_error *err);
peft_status pf_reft_init(pf_adapter *ad, uint64_t seed, peft_error *err);
void pf_reft_ready(pf_adapter *ad);
bool pf_reft_has_dropout(const pf_adapter *ad);

#endif

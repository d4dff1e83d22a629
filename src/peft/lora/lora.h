/* lora.h - what the files of lora/ share. */
#ifndef PF_LORA_H
#define PF_LORA_H

#include "peft/method.h"

peft_status pf_lora_read_config(pf_arena *a, const struct json_t *config, const char *where,
                                const void **method_cfg, peft_error *err);
peft_status pf_lora_write_config(const pf_adapter *ad, struct json_t *config, peft_error *err);

#endif

/* prompt.h - what prompt, prefix and P-tuning share: learned rows before every sample, under the
 * one tensor `prompt_embeddings` that peft saves for all of them. */
#ifndef PF_PROMPT_H
#define PF_PROMPT_H

#include "peft/targets.h"

#define PF_PROMPT_TENSOR "prompt_embeddings"

struct json_t; /* jansson */

/* Is there room for n virtual tokens in the model's positions; where they are rows, does it read
 * from left to right? `key` is the method's section ("peft.prompt_tuning"). */
peft_status pf_prompt_check(const pf_adapter *ad, const char *key, int64_t n, bool rows,
                            peft_error *err);
/* The rows of p (n, hidden) as the root of every batch. */
peft_status pf_prompt_attach(pf_adapter *ad, pf_param *p, peft_error *err);
/* modules_to_save, for methods that name no other modules. */
peft_status pf_prompt_attach_saved(pf_adapter *ad, const char *key, const char *what,
                                   const pf_cfg_strings *modules_to_save, peft_error *err);
/* num_virtual_tokens, token_dim, num_layers, num_attention_heads, num_transformer_submodules. */
int pf_prompt_write_sizes(const pf_adapter *ad, int64_t n, int64_t token_dim, int64_t heads,
                          struct json_t *c);

#endif

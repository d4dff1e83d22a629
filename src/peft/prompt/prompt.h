/* prompt.h - what prompt, prefix and P-tuning share: learned rows before every sample, under the
 * one tensor `prompt_embeddings` that peft saves for all of them. */
#ifndef PF_PROMPT_H
#define PF_PROMPT_H

#include "peft/targets.h"

#define PF_PROMPT_TENSOR "prompt_embeddings"

/* of the methods' page */
#define PF_PROMPT_NOTE                                                                             \
    "a decoder computes the learned rows once for all samples; in an encoder they depend on the "  \
    "text, so every source of a T5 and every text of a BERT or RoBERTa begins with them, and a "   \
    "text's class is told by the first of them, as in PEFT. The tensor has rows for both stacks "  \
    "of a T5, as PEFT saves them; the encoder's are read. TOKEN_CLS on an encoder is refused: "    \
    "PEFT cannot train it, its labels are fewer than the rows"

struct json_t; /* jansson */

/* Is there room for n virtual tokens in the model's positions; where they are rows, is it no model
 * that tells a class of every row of theirs, too? `key` is the method's section
 * ("peft.prompt_tuning"). */
peft_status pf_prompt_check(const pf_adapter *ad, const char *key, int64_t n, bool rows,
                            peft_error *err);
/* Rows of the tensor of n virtual tokens: those of both stacks where there are two. peft reads the
 * encoder's, which come first, and trains and saves the others as they are. submodules: as an
 * adapter_config.json has it (num_transformer_submodules); 0: peft's default. */
int64_t pf_prompt_rows_of(const pf_adapter *ad, int64_t n, int64_t submodules);
/* The first n rows of p (.., hidden) as the root of every batch; before every text where a row sees
 * those behind it. */
peft_status pf_prompt_attach(pf_adapter *ad, pf_param *p, int64_t n, peft_error *err);
/* modules_to_save, for methods that name no other modules. */
peft_status pf_prompt_attach_saved(pf_adapter *ad, const char *key, const char *what,
                                   const pf_cfg_strings *modules_to_save, peft_error *err);
/* num_virtual_tokens, token_dim, num_layers, num_attention_heads, num_transformer_submodules. */
int pf_prompt_write_sizes(const pf_adapter *ad, int64_t n, int64_t submodules, int64_t token_dim,
                          int64_t heads, struct json_t *c);
peft_status pf_prompt_read_submodules(const struct json_t *c, const char *where, int64_t *out,
                                      peft_error *err);

#endif

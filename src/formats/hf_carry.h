/* hf_carry.h - the files of a model's folder that go with it wherever its weights go: tokenizer,
 * chat template, generation_config.json. Byte by byte; weights and config.json are not among them.
 */
#ifndef PF_HF_CARRY_H
#define PF_HF_CARRY_H

#include "base/status.h"

/* Copies those that `from` has into the folder `to`, each atomically. */
peft_status pf_hf_carry(const char *from, const char *to, peft_error *err);

#endif

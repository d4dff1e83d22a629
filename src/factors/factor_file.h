/* factor_file.h - what the formats share: pairs of tensors found by the ends of their names, turned
 * or not, and written. */
#ifndef PF_FACTOR_FILE_H
#define PF_FACTOR_FILE_H

#include "factors/factors.h"

/* How a format spells the two factors of a module. */
typedef struct pf_factor_names {
    const char *prefix;    /* before the module; dropped where it stands, written always */
    const char *a, *b;     /* behind it: ".lora_A.weight" */
    const char *e_a, *e_b; /* of an embedding; NULL: such have no names of their own */
    bool turned;           /* a is stored (in, r), b (r, out) */
} pf_factor_names;

/* Every pair of the file, with scale 1. A tensor that belongs to no pair is an error. */
peft_status pf_factor_file_read(pf_factors *f, const pf_factor_names *names, const char *path,
                                peft_error *err);
peft_status pf_factor_file_write(const pf_factors *f, const pf_factor_names *names,
                                 const char *path, peft_error *err);

/* The last parts of the modules' names, each once, as a JSON list for adapter_config.json. */
struct json_t *pf_factor_targets(const pf_factors *f);
/* Writes a JSON object and lets go of it (NULL: memory was out). */
peft_status pf_factor_config_write(struct json_t *config, const char *dir, peft_error *err);
#endif

/* model_open.h - from a folder to an open model.
 *
 * A folder holds config.json and the weights as model.safetensors or as shards with an index. A hub
 * name is looked up in the local Hugging Face cache. Weights are mapped and used in the type that
 * the file has; another `dtype` converts them once, and a line says so. */
#ifndef PF_MODEL_OPEN_H
#define PF_MODEL_OPEN_H

#include "nn/model.h"

typedef struct pf_model_options {  /* zero is the usual */
    const char *revision;          /* of a hub name; NULL: the cache's main */
    pf_dtype dtype;                /* NONE: as in the file (torch_dtype: auto) */
    bool ignore_left_over_weights; /* a tensor that belongs nowhere is a warning, not an error */
    bool shapes_only; /* for plans: config.json, and the weight files' headers where there are any;
                         nothing can be computed */
    pf_task task;     /* AUTO: as config.json's architecture has it */
    pf_class_options classes;  /* for SEQ_CLS and TOKEN_CLS */
    pf_dropout_choice dropout; /* use, p and seed */
} pf_model_options;

peft_status pf_model_open(pf_model **out, const char *path, const pf_model_options *opt,
                          peft_error *err);
/* Shapes only, from a parsed config.json, which is taken over (also on failure); `name` stands for
 * the folder in messages. */
peft_status pf_model_open_config(pf_model **out, struct json_t *config, const char *name,
                                 peft_error *err);
void pf_model_close(pf_model *m);

extern const pf_model_family *const pf_model_families[]; /* from models.def, NULL at the end */

#endif

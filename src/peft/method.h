/* method.h - what a PEFT method is: a row in methods.def and this descriptor.
 *
 * A method sees sites (nn/site.h), never a model or a storage type. `attach` decides which sites it
 * acts on, adds its parameters to the set and hooks to the sites; `init` fills the weights once the
 * set is sealed; `merge` folds what was learned into a base weight, where the algebra allows;
 * `save_config` and `load_config` speak PEFT's adapter_config.json. */
#ifndef PF_METHOD_H
#define PF_METHOD_H

#include "config/run_config.h"
#include "graph/param.h"
#include "nn/model.h"

typedef struct pf_adapter pf_adapter;
typedef struct pf_method pf_method;

/* One adapter on one model. Lives until pf_adapter_close; the model must outlive it. */
struct pf_adapter {
    pf_arena arena;
    const pf_method *method;
    pf_model *model;
    pf_params params;
    void *state;            /* the method's own */
    const pf_peft_cfg *cfg; /* as configured or as read from a folder */
    const char *base_name;  /* base_model_name_or_path, for the file */
    int64_t total_params;   /* base and adapter together, as PEFT prints them */
};

/* A merged weight is computed in f32, rows at a time: `rows` holds logical rows [row0, row0 + n) of
 * the site's matrix. */
struct pf_method {
    const char *name;      /* "lora", as peft.method has it */
    const char *paper;     /* title, authors, year, arXiv */
    const char *peft_type; /* "LORA"; NULL: not a PEFT type */
    peft_status (*attach)(pf_adapter *ad, peft_error *err);
    peft_status (*init)(pf_adapter *ad, uint64_t seed, peft_error *err);
    /* Does it change this site's weight (or bias)? */
    bool (*touches)(const pf_adapter *ad, const pf_site *site);
    peft_status (*merge_weight)(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                                float *rows, peft_error *err);
    peft_status (*merge_bias)(const pf_adapter *ad, const pf_site *site, float *bias,
                              peft_error *err);
};

extern const pf_method *const pf_method_table[]; /* from methods.def, NULL at the end */
const pf_method *pf_method_find(const char *name);

/* Picks the method of cfg, attaches, seals, initializes from the seed. with_training: gradients and
 * moments too. */
peft_status pf_adapter_attach(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                              uint64_t seed, bool with_training, peft_error *err);
/* Opens a PEFT folder (adapter_config.json, adapter_model.safetensors) on this model. Every tensor
 * must land and every parameter must be covered. */
peft_status pf_adapter_open(pf_adapter **out, pf_model *model, const char *path, bool with_training,
                            peft_error *err);
/* Writes adapter_config.json and adapter_model.safetensors (and README.md, a model card) into an
 * existing folder. */
peft_status pf_adapter_save(const pf_adapter *ad, const char *dir, peft_error *err);
void pf_adapter_close(pf_adapter *ad);

/* "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622" */
void pf_adapter_describe(const pf_adapter *ad, char *out, size_t n);

#endif

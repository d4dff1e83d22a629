/* model.h - a base model: its hyperparameters, its mapped weights, its sites, and how it builds
 * itself into a graph.
 *
 * pf_model_open (models/model_open.h) finds the family by the `architectures` of config.json and
 * fills this struct. The same open model is built any number of times: for training, for
 * generation, as a frozen reference. Read-only after opening, but for what methods attach to its
 * sites. */
#ifndef PF_MODEL_H
#define PF_MODEL_H

#include "nn/rope_types.h"
#include "nn/site.h"

typedef struct pf_model pf_model;

typedef struct pf_model_family {
    const char *name;                 /* "llama" */
    const char *const *architectures; /* "LlamaForCausalLM", ..., NULL at the end */
    const char *const
        *default_targets; /* LoRA target_modules when none are given, as peft has them */
    /* Reads config (a parsed config.json, family's own struct goes to model->family_cfg), takes
     * weights from the source by name with pf_model_take, lists sites. */
    peft_status (*open)(pf_model *m, peft_error *err);
    /* Hidden rows (T, C) after the final norm. Marks blocks; asks the build for KV states in
     * GENERATE mode. */
    peft_status (*build)(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err);
} pf_model_family;

struct pf_model {
    pf_arena arena;
    const pf_model_family *family;
    void *family_cfg;
    const char *path;  /* the folder */
    void *config_json; /* parsed config.json (pf_json), for the family's open and for export */
    void *files;       /* mapped weight files (pf_tensor_source); NULL with shapes only */
    bool shapes_only;  /* no weights needed: plans */
    int n_layers;
    int64_t hidden, vocab, n_heads, n_kv_heads, head_dim, max_positions;
    bool tie_word_embeddings; /* as the config says */
    pf_rope_spec rope;        /* default for layers; a family may keep several of its own */
    pf_site **sites;
    int n_sites, cap_sites;
    pf_site *embedding, *head; /* also in sites */
    int64_t n_params;          /* base parameters, a tied matrix counted once */
    pf_dtype dtype;            /* of most weights */
    bool *tensor_used; /* per tensor of the source: which were taken; the rest is reported */
    pf_params *params; /* what methods train on this model; NULL: nothing */
};

/* For families: a site with this full name; weight "name.weight" (and "name.bias" if with_bias) of
 * the given shape comes from the source (or shapes alone). The message names file, tensor, found
 * and expected shape. */
peft_status pf_model_add_site(pf_model *m, pf_site_kind kind, int layer, const char *name,
                              int64_t out_dim, int64_t in_dim, bool with_bias, pf_site **out,
                              peft_error *err);
pf_site *pf_model_find_site(const pf_model *m, const char *name);

#endif

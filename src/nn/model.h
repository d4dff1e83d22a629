/* model.h - a base model: its hyperparameters, its mapped weights, its sites, and how it builds
 * itself into a graph.
 *
 * pf_model_open (models/model_open.h) finds the family by the `architectures` of config.json and
 * fills this struct. The same open model is built any number of times: for training, for
 * generation, as a frozen reference. Read-only after opening, but for what methods attach to its
 * sites. */
#ifndef PF_MODEL_H
#define PF_MODEL_H

#include "base/str.h"
#include "graph/problem.h"
#include "nn/rope_types.h"
#include "nn/site.h"
#include "nn/task.h"

struct json_t;           /* jansson: text/json.h */
struct pf_tensor_source; /* formats/tensor_source.h */
struct pf_hf_folder;     /* formats/hf_folder.h */

typedef struct pf_model pf_model;

/* What methods other than LoRA act on when nothing is named, as peft has it for a model type: lists
 * of names with NULL at the end. NULL: peft has none. */
typedef struct pf_usual_targets {
    const char *const *ia3, *const *ia3_feedforward; /* the latter: whose input is scaled */
    const char *const *norms;                        /* LN_TUNING */
} pf_usual_targets;

typedef struct pf_model_family {
    const char *name;                 /* "llama" */
    const char *const *architectures; /* "LlamaForCausalLM", ..., NULL at the end */
    const char *const *model_types; /* the config's model_type of each of them, for configs without
                                       architectures */
    /* What files of older versions called it: pairs of how a name begins, ours and theirs; NULL: as
     * we do. {"lm_head.", "embed_out.", NULL} */
    const char *const *old_names;
    /* Parts of the names of tensors that are left alone on purpose ("vision_tower."), NULL at the
     * end; NULL: none */
    const char *const *other_parts;
    /* Linear layers are stored as (in, out): GPT-2's Conv1D. */
    bool transposed_linears;
    const char *const *default_targets; /* LoRA target_modules when none are given, as peft has
                                           them; NULL at the end */
    pf_usual_targets usual; /* copied to the model before it opens, which may change them */
    /* Reads m->config, lists the sites with their weights, keeps a struct of its own in
     * m->family_cfg. */
    peft_status (*open)(pf_model *m, peft_error *err);
    /* Hidden rows (T, C) after the final norm. Marks blocks; uses the build's KV states in GENERATE
     * mode. */
    peft_status (*build)(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err);
    /* --- classes (nn/class_head.h); zero is a decoder with transformers' generic heads */
    unsigned tasks; /* 1 << PF_TASK_SEQ_CLS and the like; 0: CAUSAL_LM, SEQ_CLS, TOKEN_CLS */
    const char *token_head; /* name of the head of TOKEN_CLS; NULL: "score" */
    bool bidirectional;     /* rows see what comes after them: the first row stands for a text */
    /* Lists the sites of SEQ_CLS above the hidden rows, m->head the last; NULL: "score" */
    peft_status (*open_pooled)(pf_model *m, peft_error *err);
    /* SEQ_CLS: what lies between the rows of the texts (E, C) and m->head; NULL: nothing */
    peft_status (*pool)(pf_model *m, pf_build *b, pf_value **rows, peft_error *err);
} pf_model_family;

/* What is wanted of a model that tells classes apart; zero is the usual. */
typedef struct pf_class_options {
    const pf_strlist *labels; /* names by id, as configured; NULL or empty: not said */
    int64_t n_labels;         /* as configured; 0: not said */
    const pf_strlist *seen;   /* names in the data: where neither base nor adapter has any */
    pf_problem problem;       /* as configured, or as the adapter has it; AUTO: not said */
    pf_problem seen_problem;  /* what the data look like: where nobody says it */
    const char *seen_why;     /* why, for people */
    uint64_t seed;            /* of a head that is made new */
    bool brought;             /* an adapter brings the head: what is made here is never used */
} pf_class_options;

/* Which of the dropouts that a base model has are active in training (base_dropout.h); zero: none.
 */
typedef enum pf_dropout_use { PF_DROPOUT_OFF, PF_DROPOUT_CONFIG, PF_DROPOUT_FIXED } pf_dropout_use;
typedef struct pf_dropout_choice {
    pf_dropout_use use;
    double p;         /* FIXED: of each of them */
    uint64_t seed;    /* of the masks */
    bool active;      /* once open: one of them is above 0 */
    pf_strlist found; /* what the config has above 0, or leaves to a default above 0: "key p" */
} pf_dropout_choice;

/* What an attached adapter puts before every sample: `prompt` learned rows of the batch (batch.h),
 * `prefix` learned keys and values of every layer, of the decoder where there are two stacks. The
 * positions of samples go on behind both. `each`: learned rows where a row sees those behind it,
 * before every source, or before every sample of a model that is an encoder; they are rows and
 * positions of their text. */
typedef struct pf_lead {
    int32_t prompt, prefix, each;
    bool apart; /* the prefix takes no positions: samples begin at 0 beside it (AdapterHub) */
} pf_lead;

struct pf_model {
    pf_arena arena;
    const pf_model_family *family;
    const char *architecture; /* "LlamaForCausalLM": the family's name of it, whatever the task */
    pf_task task;             /* never AUTO once open */
    pf_problem problem;       /* of SEQ_CLS, never AUTO once open; SINGLE of TOKEN_CLS; else AUTO */
    bool other_task;          /* the files were made for another task, or for none */
    pf_class_options classes; /* as asked for, while opening */
    pf_strlist labels;        /* names of the classes by id; empty where targets are tokens */
    pf_strlist made;          /* tensors that no file has: random numbers, to be trained */
    pf_dropout_choice dropout;
    double head_dropout; /* of what the head for classes reads */
    void *family_cfg;
    pf_usual_targets usual;
    const char *name;            /* as asked for: a path or a hub name */
    struct pf_hf_folder *folder; /* the files beside the weights: tokenizer, generation_config */
    const char *path;            /* the folder */
    const char *config_path;     /* for messages */
    struct json_t *config;       /* parsed config.json, for the family's open and for export */
    struct pf_tensor_source
        *files;       /* mapped weight files; NULL where config.json is all there is */
    bool router_loss; /* training counts every row of every sample: none is shared or left out */
    bool whole_texts; /* so does what is attached, which mixes the rows of a text (gates) */
    bool shapes_only; /* no weights needed: plans. Nothing is converted */
    bool ignore_left_over_weights; /* tensors of the files that belong nowhere are a warning */
    int n_layers;                  /* of the larger stack */
    bool encoder_decoder;          /* prompts are the encoder's, answers the decoder's */
    int32_t decoder_start;         /* the id that a decoder begins with */
    bool tie_says_scale;           /* tie_word_embeddings also says whether the head scales (T5) */
    pf_strlist aliases;            /* tensors of the files that are the embedding once more */
    int64_t hidden, vocab, n_heads, n_kv_heads, head_dim, max_positions;
    bool tie_word_embeddings; /* as the config says; whether the matrix is shared: head->tied_to */
    pf_rope_spec rope;        /* default for layers; a family may keep several of its own */
    pf_site **sites;
    int n_sites, cap_sites;
    pf_site *embedding, *head; /* also in sites; the head's out_dim: vocabulary or classes */
    pf_site
        *pooler; /* SEQ_CLS: the layer with a tanh between a text's row and the head; NULL: none */
    int64_t n_params;        /* base parameters, a tied matrix counted once */
    pf_dtype dtype;          /* of most weights, as they are in memory */
    pf_dtype convert_to;     /* weights of another type are converted while loading; NONE: mapped as
                                they are */
    int64_t converted_bytes; /* memory that this takes, and tensors copied for their alignment */
    int64_t mapped_bytes;    /* used in the file's pages */
    bool *tensor_used;       /* per tensor of the files: which were taken; the rest is reported */
    pf_strlist missing;      /* tensors that no file has, reported together */
    pf_lead lead;            /* of what is attached; by pf_model_lead */
    pf_params *params;       /* what methods train on this model; NULL: nothing */
};

/* --- for families, while they open --- */
/* A site with this full name. Linear layers, norms, embeddings and heads take "name.weight" (and
 * "name.bias") of the given shape from the files, or the shape alone; a message names file, tensor,
 * found and expected shape. A tensor that no file has is noted, and pf_model_check_weights fails.
 */
peft_status pf_model_add_site(pf_model *m, pf_site_kind kind, int layer, const char *name,
                              int64_t out_dim, int64_t in_dim, bool with_bias, pf_site **out,
                              peft_error *err);
/* The same for what is trained in any case: a tensor that no file has is made, weights normal with
 * the config's initializer_range, biases 0, as transformers does. */
peft_status pf_model_add_trained_site(pf_model *m, pf_site_kind kind, const char *name,
                                      int64_t out_dim, int64_t in_dim, bool with_bias,
                                      pf_site **out, peft_error *err);
/* Embedding and head, with the rules of ties: a tie that the config asks for holds if the files
 * have one of the two, or both with the same numbers. For classes the embedding and the head of the
 * task. */
peft_status pf_model_add_embedding_and_head(pf_model *m, const char *embedding, const char *head,
                                            bool head_bias, peft_error *err);
/* A tensor that the files may have beside the embedding's, with its numbers: noted as used. Fails
 * where the numbers differ. After embedding and head. */
peft_status pf_model_embedding_alias(pf_model *m, const char *name, peft_error *err);
/* Do the weight files have this tensor? (a plan without files: no) */
bool pf_model_has_tensor(const pf_model *m, const char *name);
/* The place behind the embeddings - positions added, scaled, normed, as the family does - where its
 * build calls pf_site_embedding_output. After embedding and head. */
peft_status pf_model_add_embedding_output(pf_model *m, pf_site **out, peft_error *err);
/* The places of one block: where attention and MLP join the stream (pf_site_join), and its output
 * (pf_site_block_output). `block` is its module path, "model.layers.3". parallel: both branches
 * start from the same rows (site.h). `cross` is pf_model_add_cross_output's. */
typedef struct pf_block_sites {
    pf_site *attention, *cross, *mlp, *output;
} pf_block_sites;
peft_status pf_model_add_block_sites(pf_model *m, int layer, const char *block, bool parallel,
                                     pf_block_sites *out, peft_error *err);
/* Where the attention of a decoder's block to the source joins the stream; after the block's own.
 */
peft_status pf_model_add_cross_output(pf_model *m, const char *block, pf_block_sites *at,
                                      peft_error *err);
/* A norm at one of these places; copied. */
peft_status pf_model_set_join_norm(pf_model *m, pf_site *at, pf_join_norm norm, peft_error *err);
/* The module that ends in joining the stream there: `block` and more ("bert.encoder.layer.3",
 * ".attention.output"). */
peft_status pf_model_set_join_module(pf_model *m, pf_site *at, const char *block, const char *part,
                                     peft_error *err);
/* Every tensor asked for was there: fails with the missing ones and the nearest names of the files.
 * Warns of tensors that nobody took. */
peft_status pf_model_check_weights(pf_model *m, peft_error *err);

/* --- for everyone --- */
pf_site *pf_model_find_site(const pf_model *m, const char *name);
/* Of a build with this `adapters`: none for the bare base. */
pf_lead pf_model_lead(const pf_model *m, bool adapters);
/* Positions that are left for a sample; 0: no limit. */
int64_t pf_model_positions(const pf_model *m, bool adapters);

#endif

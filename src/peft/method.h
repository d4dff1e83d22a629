/* method.h - adapters: what is trained on a model, and what a PEFT method is.
 *
 * An adapter is one method attached to the sites of one model, with its parameters. It is made from
 * a configuration (attach) or from a folder (open), and acts on every graph that the model builds
 * afterwards, until it is closed. The model must outlive it. Attachment is strict: a name that
 * matches nothing, a tensor that lands nowhere, a parameter that no tensor covers are errors that
 * name the nearest thing there is.
 *
 * A method is a row in methods.def and a pf_method. It sees sites (nn/site.h), never a model or a
 * storage type. What all methods share stands here: files, strictness, counting, and trained
 * copies. Whole weights (modules_to_save, biases, method full) are trained as f32 copies that stand
 * in for the base weight at their site; where embedding and head share one matrix, a copy of one
 * leaves the other as it was, as in PEFT. */
#ifndef PF_METHOD_H
#define PF_METHOD_H

#include "config/cfg.h"
#include "config/run_config.h"
#include "graph/param.h"
#include "nn/model.h"

struct json_t; /* jansson */

typedef struct pf_adapter pf_adapter;
typedef struct pf_method pf_method;
typedef struct pf_first_look pf_first_look; /* first_look.h */

typedef struct pf_trained { /* a base tensor that is trained whole */
    pf_site *site;
    pf_param *param;
    bool bias;
} pf_trained;

typedef struct pf_attached {
    pf_site *site;
    const pf_site_hooks *hooks;
    void *self;
} pf_attached;

struct pf_adapter {
    pf_arena arena;
    const pf_method *method;
    pf_model *model;
    pf_params params; /* params.seed: of initial weights and of dropout masks; set it before a graph
                         is built */
    void *state;      /* the method's own */
    pf_peft_cfg cfg;  /* as configured, borrowed; or as read from a folder, then in cfg_arena */
    pf_arena cfg_arena;
    bool strict;           /* names in cfg must match; false for adapters that come from a folder */
    const char *base_name; /* base_model_name_or_path, for the file; the model's path unless set
                              otherwise */
    bool leads;            /* its virtual tokens are the model's lead */
    pf_lead lead;          /* which that is, while it is suspended */
    int64_t rank;          /* for what is said about the run; 0: the method has none */
    double dropout;        /* likewise */
    int64_t extra_params;  /* trained numbers that the base does not have */
    int64_t total_params;  /* base and adapter together, as PEFT prints them */
    pf_trained *trained;
    int n_trained, cap_trained;
    pf_attached *attached;
    int n_attached, cap_attached;
    pf_arena hook_arena; /* of what stands at the sites now */
    bool suspended;      /* opened, and not acting */
    /* More than one adapter on the model, see several.h */
    pf_adapter *parts[PF_PEFT_ALSO + 1]; /* their parameters stand in `params` */
    int n_parts;
    pf_adapter *whole; /* of a part: what it is part of */
    pf_adapter *below; /* frozen adapters that act before this one, in that order; owned */
    pf_adapter *next;  /* in such a chain */
    const char *path;  /* the folder that it was opened from; NULL: none */
    /* Adapters that this one is put over (AdapterFusion): suspended, frozen, owned, in a chain; and
     * of such a one, its folder inside of this one's. */
    pf_adapter *held;
    const char *held_as;
};

/* Picks the method of cfg, attaches, seals, initializes from the seed. with_training: gradients and
 * moments too. On a model without weights (shapes_only) nothing is sealed: parameters are counted,
 * not held. */
peft_status pf_adapter_attach(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                              uint64_t seed, bool with_training, peft_error *err);
/* Opens a PEFT folder (adapter_config.json, adapter_model.safetensors) on this model; an AdapterHub
 * folder (adapter_config.json, adapter.safetensors); or the folder of a fully trained model
 * (config.json, model.safetensors). Every tensor must land and every
 * parameter must be covered. */
peft_status pf_adapter_open(pf_adapter **out, pf_model *model, const char *path, bool with_training,
                            peft_error *err);
/* Writes adapter_config.json, the tensors and README.md (a model card) into an existing folder,
 * each atomically; method full writes model.safetensors and config.json. */
peft_status pf_adapter_save(const pf_adapter *ad, const char *dir, peft_error *err);
void pf_adapter_close(pf_adapter *ad); /* NULL is fine */
/* The seed of dropout masks (and of first weights, where those are still to come). */
void pf_adapter_set_seed(pf_adapter *ad, uint64_t seed);
/* Takes over a chain of adapters that act before this one (opened earlier, not trained). */
void pf_adapter_put_below(pf_adapter *ad, pf_adapter *below);
void pf_adapter_close_chain(pf_adapter *first); /* it and those behind it */
/* An adapter that stays open and does not act, so that another one may; and back. Graphs that were
 * built before keep what they have. */
void pf_adapter_suspend(pf_adapter *ad);
peft_status pf_adapter_resume(pf_adapter *ad, peft_error *err);
/* Why it cannot be merged, as pf_method.no_merge; *method is the name of the part that says so.
 * NULL: it can. */
const char *pf_adapter_no_merge(const pf_adapter *ad, const char **method);
/* The files that pf_adapter_save writes, relative to the folder; up to PF_ADAPTER_FILES. */
enum { PF_ADAPTER_HELD = 32, PF_ADAPTER_FILES = 5 * (PF_PEFT_ALSO + 1 + PF_ADAPTER_HELD) + 2 };
int pf_adapter_files(const pf_adapter *ad, pf_arena *a, const char *names[PF_ADAPTER_FILES]);

/* The base that a folder's adapter_config.json names (base_model_name_or_path), in the arena; NULL
 * if it names none. */
peft_status pf_adapter_base_of(const char **out, pf_arena *a, const char *path, peft_error *err);

/* What a folder of pf_adapter_open was made for, before there is a model to open it on. */
typedef struct pf_adapter_task {
    pf_task task;       /* AUTO: it does not say */
    pf_strlist labels;  /* names of the classes; empty: it has none */
    int64_t n_labels;   /* 0: not known */
    pf_problem problem; /* AUTO: not said */
} pf_adapter_task;
peft_status pf_adapter_task_of(pf_adapter_task *out, pf_arena *a, const char *path,
                               peft_error *err);

/* "trainable params: 4,194,304 || all params: 6,742,609,920 || trainable%: 0.0622" */
int64_t pf_adapter_trained(const pf_adapter *ad); /* numbers that are trained */
void pf_adapter_describe(const pf_adapter *ad, char *out, size_t n);

bool pf_adapter_has_dropout(const pf_adapter *ad); /* random masks are drawn in training */

/* For adapter_file.c: attached and counted, nothing allocated for weights yet; names that match
 * nothing are let pass. Once the file is known to fit, seal makes room for the weights. */
peft_status pf_adapter_attach_loaded(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                                     peft_error *err);
/* The same from a configuration (strict: names must match), for a part of another. */
peft_status pf_adapter_attach_part(pf_adapter **out, pf_model *model, const pf_peft_cfg *cfg,
                                   bool strict, peft_error *err);
peft_status pf_adapter_seal(pf_adapter *ad, bool with_training, peft_error *err);

/* --- merging: is the site's weight or bias another than the base's, and which numbers --- */
bool pf_adapter_touches(const pf_adapter *ad, const pf_site *site, bool bias);
/* Logical rows [row0, row0 + n) of the site's matrix (or its bias: row 0), base and adapter
 * together, into f32. */
/* Only the last step of that: what the adapter does to rows that stand there already, which may be
 * any numbers. */
peft_status pf_adapter_fold(const pf_adapter *ad, const pf_site *site, bool bias, int64_t row0,
                            int64_t n, float *rows, peft_error *err);
/* On a model that the adapter is folded into: the rows that the base had (unmerge.c). Fails where
 * there is no way back. */
peft_status pf_adapter_unmerged_rows(const pf_adapter *ad, const pf_site *site, bool bias,
                                     int64_t row0, int64_t n, float *rows, peft_error *err);
peft_status pf_adapter_merged_rows(const pf_adapter *ad, const pf_site *site, bool bias,
                                   int64_t row0, int64_t n, float *rows, peft_error *err);

/* --- for methods, while they attach --- */
peft_status pf_adapter_hook(pf_adapter *ad, pf_site *site, const pf_site_hooks *hooks, void *self,
                            peft_error *err);
/* A parameter that the base does not have. `name` is copied. */
peft_status pf_adapter_add_param(pf_adapter *ad, const char *name, int64_t rows, int64_t cols,
                                 pf_param **out, peft_error *err);
/* Trains the site's weight (or bias) whole, as a parameter of this name. is_copy: the base keeps
 * its own, so the copy counts as further parameters. */
peft_status pf_adapter_train_whole(pf_adapter *ad, pf_site *site, bool bias, const char *name,
                                   bool is_copy, peft_error *err);
/* The same with a parameter that another site has already: one matrix at two sites. */
peft_status pf_adapter_train_shared(pf_adapter *ad, pf_site *site, bool bias, pf_param *param,
                                    peft_error *err);

/* A step of training, for methods that do more than gradients say. */
typedef struct pf_step_done {
    int64_t step, total_steps; /* the first is 1; total 0: not known */
    double clip;               /* what the gradients in the block were multiplied with */
} pf_step_done;
/* To be called when the gradient of a step is complete, and after the optimizer's update. */
peft_status pf_adapter_after_backward(pf_adapter *ad, peft_error *err);
peft_status pf_adapter_after_step(pf_adapter *ad, const pf_step_done *done, peft_error *err);

/* --- what a method is --- */
struct pf_method {
    const char *name; /* "lora", as peft.method has it */
    const char *help; /* one line, for the configuration reference */
    /* Its section of the configuration, peft.<name>: rows of a struct of cfg_size bytes, which
     * arrives as ad->cfg.method_cfg, and rules between its keys (NULL: none). */
    const pf_cfg_row *cfg_rows;
    size_t cfg_size;
    void (*check_cfg)(pf_cfg *c, const void *section);
    const char *paper;     /* title, authors, year, arXiv */
    const char *notes;     /* a section of docs/methods.md, "Title\n\ntext"; methods that share it
                              point to the same; NULL: none */
    const char *peft_type; /* "LORA"; NULL: none of PEFT's */
    bool state_dict; /* no type of PEFT's: its tensors have the base's names, a part of a model's
                        state dict */
    const char *whole_prefix; /* before the names of whole modules (modules_to_save); NULL: peft's
                                 usual base_model.model. */
    /* Its folder is AdapterHub's: is this `config` of an adapter_config.json one of its own? The
     * first method in the table that says so opens it. NULL: not an AdapterHub method. */
    bool (*is_adapterhub)(const struct json_t *config);
    /* Its two files, where they have other names than all of its kind; NULL: the usual ones. */
    const char *config_file, *weight_file;
    /* What a user should know of it on some models, for the methods' page; NULL: nothing. */
    const char *note;
    /* Why it cannot be folded into the base's weights, behind "cannot be merged: "; NULL: it can */
    const char *no_merge;
    /* Why the base cannot be had back from a merged model; NULL: it is tried */
    const char *no_unmerge;
    /* ad->cfg.method_cfg says how; ad->strict: whatever the configuration names must match
     * something. */
    peft_status (*attach)(pf_adapter *ad, peft_error *err);
    /* First weights, a function of the seed and the parameters' names. Trained copies are filled
     * already. */
    peft_status (*init)(pf_adapter *ad, uint64_t seed, peft_error *err);
    const pf_first_look *first_look; /* first weights that depend on the data; NULL: none do */
    /* Weights are there, of a file: can they be? NULL: any can. */
    peft_status (*check_loaded)(const pf_adapter *ad, peft_error *err);
    /* Weights are there, made or loaded: says of each parameter whether a zero gradient is
     * expected. NULL: never. */
    void (*ready)(pf_adapter *ad);
    /* How an adapter is trained, beyond what it is: which parameters stay as they are, and at what
     * rates the others learn. Asked before training of a new adapter and of one from a folder, when
     * weights are there; section: the method's of the run's configuration. NULL: all alike. */
    peft_status (*train_as)(pf_adapter *ad, const void *section, double learning_rate,
                            peft_error *err);
    /* Adds the gradient of what the loss of the samples does not have (a regularization); NULL:
     * nothing. */
    peft_status (*after_backward)(pf_adapter *ad, peft_error *err);
    /* Parameters are updated, gradients still there. State that has to last is in parameters that
     * are frozen and unsaved: checkpoints hold those and their moments. NULL: nothing. */
    peft_status (*after_step)(pf_adapter *ad, const pf_step_done *done, peft_error *err);
    /* Does it change this site's weight by more than a trained copy? NULL: no. */
    bool (*touches)(const pf_adapter *ad, const pf_site *site);
    /* Folds the update into logical rows [row0, row0 + n) of the site's matrix, in f32. */
    peft_status (*merge_weight)(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                                float *rows, peft_error *err);
    /* The same for the site's bias. NULL: it stays. */
    bool (*touches_bias)(const pf_adapter *ad, const pf_site *site);
    void (*merge_bias)(const pf_adapter *ad, const pf_site *site, float *bias);
    /* Embedding and head share one matrix and still do with what is attached. NULL: no. */
    bool (*keeps_tie)(const pf_adapter *ad);
    /* Does training draw random masks (dropout)? NULL: no. */
    bool (*has_dropout)(const pf_adapter *ad);
    /* Files have a parameter in another form: its sizes (two dimensions) and its rows there. Both
     * or neither; NULL: as it is. */
    void (*file_size)(const pf_adapter *ad, const pf_param *p, int64_t *rows, int64_t *cols);
    void (*file_row)(const pf_adapter *ad, const pf_param *p, int64_t row, float *out);
    /* Should a tensor of a file be passed over, because it only repeats another? NULL: never. */
    bool (*repeats)(const pf_adapter *ad, const char *tensor);
    /* adapter_config.json: into a fresh method_cfg, and the method's keys out. NULL for whole
     * models. AdapterHub: its file's object, and the `config` in it. */
    peft_status (*read_config)(pf_arena *a, const struct json_t *config, const char *where,
                               const void **method_cfg, peft_error *err);
    peft_status (*write_config)(const pf_adapter *ad, struct json_t *config, peft_error *err);
};

/* Is what it saves a model (config.json, model.safetensors), and not an adapter? */
static inline bool pf_method_saves_model(const pf_method *m) {
    return m->peft_type == NULL && m->is_adapterhub == NULL;
}
/* The file of its tensors, and the one that says what they are: adapter_config.json or config.json.
 */
const char *pf_method_weight_file(const pf_method *m);
const char *pf_method_config_file(const pf_method *m);

extern const pf_method *const pf_method_table[]; /* from methods.def, NULL at the end */
const pf_method *pf_method_find(const char *name);
enum { PF_MAX_METHODS = 64 };
/* The sections of all methods, for pf_run_cfg_open; returns their number. */
int pf_method_sections(pf_cfg_ext out[PF_MAX_METHODS]);

#endif

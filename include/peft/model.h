/* model.h - an open model with an optional adapter: text in, numbers or text out.
 *
 * `path` is a Hugging Face folder or a hub name found in the local cache, `adapter` a PEFT folder
 * or a checkpoint. A peft_model is not thread-safe. Texts that are returned are the caller's to
 * free with peft_free (run.h). */
#ifndef PEFT_MODEL_H
#define PEFT_MODEL_H

#include "peft/error.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct peft_model peft_model;

typedef struct peft_model_options { /* zero = default */
    const char *path;               /* NULL: the base that the adapter names */
    const char *adapter;            /* NULL: none */
    bool tokenizer_only;            /* tokenize and detokenize need no weights */
    int threads;                    /* 0: one per core */
    int64_t max_length;             /* tokens of context; 0: the model's */
    int max_sequences;              /* generated at once; 0: 8 */
    bool
        ignore_left_over_weights; /* tensors that no part of the model reads: a warning, no error */
} peft_model_options;

PEFT_API
peft_status peft_model_open(peft_model **out, const peft_model_options *opt, peft_error *err);
PEFT_API
void peft_model_close(peft_model *m);

/* Several adapters on one open base, at most one of which acts. The one that the model was opened
 * with is "default". Loading one does not let it act; set_adapter does, and NULL lets none act. A
 * name that is loaded already, or is not, is an error that lists those that are. */
PEFT_API
peft_status peft_model_load_adapter(peft_model *m, const char *name, const char *path,
                                    peft_error *err);
PEFT_API
peft_status peft_model_set_adapter(peft_model *m, const char *name, peft_error *err);
PEFT_API
peft_status peft_model_delete_adapter(peft_model *m, const char *name, peft_error *err);

typedef struct peft_generate_options { /* zero = default */
    int64_t max_new_tokens;            /* 0: 256 */
    bool do_sample;     /* false: greedy. Set by any temperature but 0 and 1 on the command line */
    double temperature; /* 0: 1 */
    int64_t top_k;      /* 0: off */
    double top_p;       /* 0: off */
    double min_p;       /* 0: off */
    double repetition_penalty; /* 0: off */
    uint64_t seed;
    const char *const *stop; /* strings that end the text and are cut off */
    int n_stop;
    bool raw;                                                  /* prompts get no special tokens */
    void (*on_text)(void *ctx, int prompt, const char *piece); /* whole characters as they come */
    void *ctx;
} peft_generate_options;

/* Continuations of n prompts; texts[i] is freed with peft_free. */
PEFT_API
peft_status peft_generate(peft_model *m, const char *const *prompts, int n,
                          const peft_generate_options *opt, char **texts, peft_error *err);

/* The commands for looking in: one JSON value in, one JSON value out, both text.
 *   "tokenize"   "text" -> [ids]                 "detokenize"  [ids] -> "text"
 *   "score"      "text" or [ids] -> {"ids":[],"nll":[]}, natural log, one per predicted token
 *   "generate"   "prompt" -> "continuation"
 *   "classify"   "text" or ["text", "text"] -> {"label":"...","scores":{"...":0.9}}, of a model for
 *                SEQ_CLS; ["word"] -> [{"word":"...","label":"...","score":0.9}], for TOKEN_CLS.
 *                Several classes at once: {"labels":["..."],"scores":{"...":0.9}}, each by itself;
 *                regression: {"value":3.8}, or {"values":{"...":3.8}} of several outputs
 * A value that cannot be answered gives {"error":"..."} and *answered = false, with PEFT_OK. */
typedef struct peft_lines_options {
    bool no_special; /* tokenize: without the tokenizer's special tokens */
    const peft_generate_options *generate;
    double threshold; /* classify: several classes; told is what is likelier. 0: 0.5 */
} peft_lines_options;
PEFT_API
peft_status peft_answer_line(peft_model *m, const char *command, const char *line,
                             const peft_lines_options *opt, char **answer, bool *answered,
                             peft_error *err);

/* What a file or folder holds: tensors, shapes, types, metadata. */
PEFT_API
peft_status peft_inspect(const char *path, bool json, char **text, peft_error *err);

#ifdef __cplusplus
}
#endif
#endif

/* factors.h - low-rank updates as things of their own, apart from any model: what a LoRA folder
 * holds, whoever wrote it.
 *
 *   W' = W + scale · B A        A (r, in), B (out, r)
 *
 * An embedding's update is the transpose of that: A (r, vocabulary), B (width, r). Read from a
 * folder of PEFT, AdapterHub or MLX (factor_formats.def), or found for any adapter that has a
 * change of weights (to_factors.h); combined (combine.h); written in any of those formats. */
#ifndef PF_FACTORS_H
#define PF_FACTORS_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct json_t; /* jansson */

typedef struct pf_factor {
    const char *module; /* "model.layers.0.self_attn.q_proj" */
    bool embedding;
    int64_t r, in, out;
    double scale; /* alpha / r, or alpha / sqrt(r) */
    float *a, *b;
} pf_factor;

typedef struct pf_factors {
    pf_arena arena;
    const char *path; /* where it comes from, for messages */
    const char *base_name, *task_type;
    const char *model_type, *model_class; /* "llama", "LlamaForCausalLM"; NULL: not known */
    int64_t hidden;                       /* of the model; 0: not known */
    pf_factor *items;                     /* by name */
    int n, cap;
} pf_factors;

/* Life cycle: init -> open, or add* -> ... -> release. */
void pf_factors_init(pf_factors *f, const char *path);
void pf_factors_release(pf_factors *f);
/* Room for one more, zeroed factors; `module` is copied. */
peft_status pf_factors_add(pf_factors *f, const char *module, bool embedding, int64_t r, int64_t in,
                           int64_t out, double scale, pf_factor **added, peft_error *err);
void pf_factors_sort(pf_factors *f);
const pf_factor *pf_factors_find(const pf_factors *f, const char *module);

/* Rows [row0, row0 + n) of scale · B A into out (n, in), in double. */
void pf_factor_rows(const pf_factor *f, int64_t row0, int64_t n, double *out);
/* The best factors of rank r of a matrix that `read` gives, B holding the singular values, scale 1;
 * *left: the norm of what they miss, by the norm of the whole. */
peft_status pf_factor_cut(pf_factor *f, const void *ctx,
                          void (*read)(const void *ctx, int64_t row0, int64_t n, double *out),
                          double *left, peft_error *err);

/* One rank and the scale 1 for all: smaller ones get zeros, scales go into B. For formats that have
 * one of each. */
peft_status pf_factors_even(pf_factors *f, int64_t *r, peft_error *err);
/* model_type, model_class, hidden and base_name from a model's folder. */
peft_status pf_factors_know_model(pf_factors *f, const char *dir, peft_error *err);

/* --- folders: one row in factor_formats.def each --- */
typedef struct pf_factor_format {
    const char *name;    /* "peft" */
    const char *weights; /* the file of the tensors */
    bool (*is)(const struct json_t *config);
    peft_status (*read)(pf_factors *f, const struct json_t *config, const char *dir,
                        peft_error *err);
    /* May bring the factors into the form that the format has. */
    peft_status (*write)(pf_factors *f, const char *dir, peft_error *err);
} pf_factor_format;

extern const pf_factor_format *const pf_factor_formats[];        /* NULL at the end */
const pf_factor_format *pf_factor_format_find(const char *name); /* NULL: none */
/* Reads a folder of any of them; *format (may be NULL) says which it was. */
peft_status pf_factors_open(pf_factors *f, const char *dir, const pf_factor_format **format,
                            peft_error *err);
/* Writes a folder, which is made. */
peft_status pf_factors_write(pf_factors *f, const pf_factor_format *format, const char *dir,
                             peft_error *err);

#endif

/* loaded.h - what every command opens before its work: a device, a base model, an adapter, a
 * tokenizer. */
#ifndef PF_LOADED_H
#define PF_LOADED_H

#include "backend/backend.h"
#include "infer/generator.h"
#include "peft/method.h"
#include "token/tokenizer.h"

typedef struct pf_loaded {
    pf_arena arena;
    pf_backend *backend;
    pf_model *model;
    pf_adapter *adapter;              /* NULL: none */
    pf_tokenizer *tokenizer;          /* NULL: a plan for a folder that has none */
    struct pf_tokenizer_job *opening; /* tokenizer_later: being opened */
    int32_t eos[16]; /* ids that end a text: generation_config.json, config.json, tokenizer */
    int n_eos;
} pf_loaded;

typedef struct pf_load_options { /* zero is the usual */
    const char *model;           /* folder or hub name; NULL: the base that the adapter names */
    const char *adapter;         /* folder of an adapter or checkpoint; NULL: none */
    const char *tokenizer;       /* NULL: the model's */
    const char *torch_dtype;     /* NULL: auto */
    const char *device_map;      /* NULL: auto */
    int threads;                 /* 0: one per core */
    bool tokenizer_only;
    bool ignore_left_over_weights; /* of the base: a tensor that belongs nowhere is a warning */
    bool shapes_only;          /* plans: weights and tokenizer are looked at where they are there */
    bool tokenizer_later;      /* it is opened beside what follows, until pf_load_tokenizer */
    bool train_adapter;        /* gradients and moments for the adapter that is opened */
    pf_task task;              /* AUTO: the adapter's, else the model's */
    pf_class_options classes;  /* likewise */
    pf_dropout_choice dropout; /* of the base, in training: use, p and seed */
} pf_load_options;

peft_status pf_load(pf_loaded *out, const pf_load_options *opt, peft_error *err);
/* After tokenizer_later: waits for the tokenizer, completes eos. */
peft_status pf_load_tokenizer(pf_loaded *l, peft_error *err);
void pf_unload(pf_loaded *l); /* zeroed is fine */

/* A device by model.device_map: auto, cpu, cuda, cuda:N. */
peft_status pf_open_device(pf_backend **out, const char *device_map, int threads, peft_error *err);

#endif

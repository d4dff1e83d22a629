/* hf_folder.h - a folder as Hugging Face has it: what is in it, and its tensors.
 *
 *   config.json generation_config.json          the model
 *   model.safetensors                           its weights, or several files and their index:
 *   model.safetensors.index.json model-00001-of-0000N.safetensors
 *   adapter_config.json adapter_model.safetensors   an adapter (PEFT)
 *   tokenizer.json tokenizer_config.json ...    the tokenizer
 *
 * Opening looks which files there are and reads none; each is asked for by who needs it. Weights in
 * pickles (pytorch_model.bin) are refused with a way to convert them. */
#ifndef PF_HF_FOLDER_H
#define PF_HF_FOLDER_H

#include "formats/tensor_source.h"
#include "text/json.h"

typedef struct pf_hf_folder {
    pf_arena arena;
    const char *name;   /* as asked for */
    const char *path;   /* the folder */
    const char *commit; /* of a snapshot in the cache; NULL for a plain folder */
    /* paths of the files; NULL where there is none */
    const char *config, *generation_config;
    const char *weights;       /* model.safetensors */
    const char *weights_index; /* model.safetensors.index.json; only where weights is NULL */
    const char *adapter_config, *adapter_weights;
    const char *tokenizer;       /* tokenizer.json */
    const char *tokenizer_model; /* SentencePiece or tiktoken: tokenizer.model, spiece.model, ... */
    const char *vocab, *merges;  /* vocab.json, merges.txt */
    const char *tokenizer_config, *special_tokens_map, *added_tokens, *chat_template;
} pf_hf_folder;

/* name: a path, or a hub name that is in the local cache (hub_cache.h); revision may be NULL. */
peft_status pf_hf_folder_open(pf_hf_folder *f, const char *name, const char *revision,
                              peft_error *err);
void pf_hf_folder_close(pf_hf_folder *f); /* NULL and zeroed ones are fine */

/* config.json, parsed: an object. The caller ends it with json_decref. */
peft_status pf_hf_folder_read_config(const pf_hf_folder *f, json_t **out, peft_error *err);
/* The weights, every tensor's data aligned for its type (tensor_source.h). */
peft_status pf_hf_folder_open_weights(const pf_hf_folder *f, pf_tensor_source *src,
                                      peft_error *err);
/* adapter_config.json and adapter_model.safetensors, likewise. */
peft_status pf_hf_folder_read_adapter_config(const pf_hf_folder *f, json_t **out, peft_error *err);
peft_status pf_hf_folder_open_adapter(const pf_hf_folder *f, pf_tensor_source *src,
                                      peft_error *err);

#endif

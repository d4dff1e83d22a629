/* hf_folder.c - the table of files that a folder may hold, and what is said when one is missing. */
#include "formats/hf_folder.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/hub_cache.h"
#include "formats/safetensors_index.h"
#include "formats/zip_pt.h"

#include <string.h>

#include "base/banned.h"

#define MAX_CONFIG_BYTES ((size_t)16 << 20)

/* Each field with the names it is looked for under, the first that is there being taken. */
static const struct {
    size_t field; /* offset of a const char * */
    const char *names[4];
} files[] = {
    {offsetof(pf_hf_folder, config), {"config.json"}},
    {offsetof(pf_hf_folder, generation_config), {"generation_config.json"}},
    {offsetof(pf_hf_folder, weights), {"model.safetensors"}},
    {offsetof(pf_hf_folder, weights_index), {"model.safetensors.index.json"}},
    {offsetof(pf_hf_folder, adapter_config), {"adapter_config.json", "adapter_fusion_config.json"}},
    {offsetof(pf_hf_folder, adapter_weights),
     {"adapter_model.safetensors", "adapter.safetensors", "model_adapter_fusion.safetensors"}},
    {offsetof(pf_hf_folder, tokenizer), {"tokenizer.json"}},
    {offsetof(pf_hf_folder, tokenizer_model),
     {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "original/tokenizer.model"}},
    {offsetof(pf_hf_folder, vocab), {"vocab.json", "vocab.txt"}},
    {offsetof(pf_hf_folder, merges), {"merges.txt"}},
    {offsetof(pf_hf_folder, tokenizer_config), {"tokenizer_config.json"}},
    {offsetof(pf_hf_folder, special_tokens_map), {"special_tokens_map.json"}},
    {offsetof(pf_hf_folder, added_tokens), {"added_tokens.json"}},
    {offsetof(pf_hf_folder, chat_template), {"chat_template.jinja"}},
};

static peft_status look(pf_hf_folder *f, const char *name, const char *revision, peft_error *err) {
    f->name = pf_arena_strdup(&f->arena, name);
    PF_CHECK_ALLOC(f->name, err);
    PF_TRY(pf_hub_resolve(&f->arena, name, revision, &f->path, &f->commit, err));
    for (size_t i = 0; i < PF_COUNT(files); i++) {
        const char **field = (const char **)(void *)((char *)f + files[i].field);
        for (size_t k = 0; k < PF_COUNT(files[i].names) && files[i].names[k] != NULL; k++) {
            const char *path = pf_path_join(&f->arena, f->path, files[i].names[k]);
            PF_CHECK_ALLOC(path, err);
            if (*field == NULL && pf_path_exists(path)) *field = path;
        }
    }
    if (f->weights != NULL)
        f->weights_index = NULL; /* one file goes before several, as in transformers */
    return PEFT_OK;
}

peft_status pf_hf_folder_open(pf_hf_folder *f, const char *name, const char *revision,
                              peft_error *err) {
    *f = (pf_hf_folder){0};
    pf_arena_init(&f->arena, "model folder");
    peft_status status = look(f, name, revision, err);
    if (status != PEFT_OK) pf_hf_folder_close(f);
    return status;
}

void pf_hf_folder_close(pf_hf_folder *f) {
    if (f == NULL) return;
    pf_arena_release(&f->arena);
    *f = (pf_hf_folder){0};
}

/* ---- what is missing ----------------------------------------------------------------------- */

/* Names the weights that are there in a form that is not read, else what is there at all. */
static peft_status no_weights(const pf_hf_folder *f, const char *wanted, peft_error *err) {
    pf_arena a;
    pf_strlist names;
    pf_buf text;
    pf_arena_init(&a, "list");
    pf_buf_init(&text);
    peft_status status = pf_list_dir(&names, &a, f->path, err);
    const char *pickle = NULL, *gguf = NULL, *dangling = NULL;
    int shown = 0;
    for (int i = 0; status == PEFT_OK && i < names.n; i++) {
        const char *name = names.items[i], *path = pf_path_join(&a, f->path, name);
        if (path == NULL) continue;
        if (!pf_path_exists(path) && pf_ends_with(name, ".safetensors"))
            dangling = path;
        else if (pf_is_pickle_name(name) && strcmp(name, "training_args.bin") != 0)
            pickle = path;
        else if (pf_ends_with(name, ".gguf"))
            gguf = path;
        if (shown++ < 10) pf_buf_addf(&text, "%s%s", i > 0 ? ", " : "", name);
    }
    if (shown > 10) pf_buf_addf(&text, " and %d more", shown - 10);
    if (status != PEFT_OK) {
        /* the folder could not be listed: that message stands */
    } else if (dangling != NULL) {
        status =
            PF_FAIL(err, PEFT_E_MISSING,
                    "%s is a link to a file that is not there; download the model again", dangling);
    } else if (pickle != NULL) {
        status = pf_refuse_pickle(pickle, err);
    } else if (gguf != NULL) {
        status =
            PF_FAIL(err, PEFT_E_UNSUPPORTED,
                    "%s: this version does not read GGUF; use the model's safetensors files", gguf);
    } else {
        status = PF_FAIL(err, PEFT_E_MISSING, "%s has no %s; it holds %s%s%s", f->path, wanted,
                         shown > 0 ? pf_buf_str(&text) : "nothing",
                         f->commit != NULL ? "; complete it: hf download " : "",
                         f->commit != NULL ? f->name : "");
    }
    pf_buf_free(&text);
    pf_arena_release(&a);
    return status;
}

static peft_status read_object(const pf_hf_folder *f, const char *path, const char *what,
                               const char *is, json_t **out, peft_error *err) {
    *out = NULL;
    if (path == NULL)
        return PF_FAIL(err, PEFT_E_MISSING, "%s has no %s: it is not %s", f->path, what, is);
    PF_TRY(pf_json_load(out, path, MAX_CONFIG_BYTES, err));
    if (json_is_object(*out)) return PEFT_OK;
    peft_status status =
        PF_FAIL(err, PEFT_E_FORMAT, "%s: %s, where an object should be", path, pf_json_kind(*out));
    json_decref(*out);
    *out = NULL;
    return status;
}

peft_status pf_hf_folder_read_config(const pf_hf_folder *f, json_t **out, peft_error *err) {
    return read_object(f, f->config, "config.json", "the folder of a model", out, err);
}

peft_status pf_hf_folder_read_adapter_config(const pf_hf_folder *f, json_t **out, peft_error *err) {
    return read_object(f, f->adapter_config, "adapter_config.json", "the folder of an adapter", out,
                       err);
}

/* ---- weights ------------------------------------------------------------------------------- */

static peft_status align(pf_tensor_source *src, peft_error *err) {
    size_t copied = 0;
    char text[16];
    peft_status status = pf_tensor_source_align(src, &copied, err);
    if (status != PEFT_OK) {
        pf_tensor_source_close(src);
    } else if (copied > 0) {
        PF_INFO("%s: the file does not align its tensors; %s of them are copied into memory",
                src->files[0].path, pf_format_bytes((double)copied, text, sizeof text));
    }
    return status;
}

peft_status pf_hf_folder_open_weights(const pf_hf_folder *f, pf_tensor_source *src,
                                      peft_error *err) {
    *src = (pf_tensor_source){0};
    if (f->weights != NULL) {
        PF_TRY(pf_safetensors_open_source(src, f->weights, err));
    } else if (f->weights_index != NULL) {
        PF_TRY(pf_safetensors_open_sharded(src, f->weights_index, err));
    } else {
        return no_weights(f, "model.safetensors or model.safetensors.index.json", err);
    }
    return align(src, err);
}

peft_status pf_hf_folder_open_adapter(const pf_hf_folder *f, pf_tensor_source *src,
                                      peft_error *err) {
    *src = (pf_tensor_source){0};
    if (f->adapter_weights == NULL) return no_weights(f, "adapter_model.safetensors", err);
    PF_TRY(pf_safetensors_open_source(src, f->adapter_weights, err));
    return align(src, err);
}

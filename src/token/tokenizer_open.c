/* tokenizer_open.c - finding the files of a tokenizer, reading them in the right order, ending it
 * again. */
#include "base/file.h"
#include "base/mem.h"
#include "token/tokenizer_impl.h"

#include <string.h>

#include "base/banned.h"

enum { FILE_MAX = 1 << 30, TEMPLATE_MAX = 16 << 20 };

static pf_tokenizer *new_tokenizer(void) {
    pf_tokenizer *t = pf_calloc(1, sizeof *t);
    if (t == NULL) return NULL;
    pf_arena_init(&t->arena, "tokenizer");
    pf_added_tokens_init(&t->added);
    t->special = (pf_special_ids){-1, -1, -1, -1};
    t->max_length = -1;
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void pf_tokenizer_close(pf_tokenizer *t) {
    if (t == NULL) return;
    while (t->idle != NULL) {
        pf_encode_scratch *s = t->idle;
        t->idle = s->next;
        pf_encode_scratch_free(s);
    }
    pf_normalizers_release(&t->normalizers);
    pf_pretokenizers_release(&t->pretokenizers);
    pf_decoders_release(&t->decoders);
    pf_added_tokens_release(&t->added);
    pf_bpe_release(&t->bpe);
    pf_unigram_release(&t->unigram);
    pf_vocab_release(&t->vocab);
    pthread_mutex_destroy(&t->lock);
    pf_arena_release(&t->arena);
    pf_free(t);
}

static const pf_token_source *recognize(const char *data, size_t n) {
    for (int i = 0; i < pf_token_n_sources; i++)
        if (n > 0 && pf_token_sources[i]->probe(data, n)) return pf_token_sources[i];
    return NULL;
}

/* Newer models keep the chat template in a file of its own. */
static peft_status template_file(pf_tokenizer *t, const char *folder, pf_sha256 *hash,
                                 peft_error *err) {
    const char *path =
        folder == NULL ? NULL : pf_path_join(&t->arena, folder, "chat_template.jinja");
    if (folder != NULL) PF_CHECK_ALLOC(path, err);
    if (path == NULL || !pf_path_exists(path)) return PEFT_OK;
    pf_buf text = {0};
    PF_TRY(pf_read_file(&text, path, TEMPLATE_MAX, err));
    pf_sha256_add(hash, pf_buf_str(&text), text.len);
    t->chat_template = pf_arena_strndup(&t->arena, pf_buf_str(&text), text.len);
    pf_buf_free(&text);
    PF_CHECK_ALLOC(t->chat_template, err);
    return PEFT_OK;
}

static peft_status read_all(pf_tokenizer *t, const pf_token_source *source, pf_token_input *in,
                            peft_error *err) {
    pf_token_config config;
    peft_status status = pf_token_config_load(&config, &t->arena, in->folder, in->hash, err);
    in->config = &config;
    if (status == PEFT_OK) status = template_file(t, in->folder, in->hash, err);
    if (status == PEFT_OK) {
        pf_sha256_add(in->hash, in->data, in->n);
        status = source->load(t, in, err);
    }
    if (status == PEFT_OK) {
        bool described = source == pf_token_sources[0];
        status = pf_token_config_apply(t, &config, described, err);
    }
    if (status == PEFT_OK)
        status = pf_added_tokens_finish(&t->added, &t->arena, &t->normalizers, err);
    pf_token_config_release(&config);
    return status;
}

static peft_status open_data(pf_tokenizer **out, const char *data, size_t n, const char *name,
                             const char *folder, const pf_token_source *source, peft_error *err) {
    *out = NULL;
    if (source == NULL) source = recognize(data, n);
    if (source == NULL)
        return PF_FAIL(
            err, PEFT_E_FORMAT,
            "%s: this is no tokenizer: neither tokenizer.json nor vocab.json, SentencePiece "
            "or tiktoken",
            name);
    pf_tokenizer *t = new_tokenizer();
    pf_sha256 *hash = pf_sha256_new();
    peft_status status = PEFT_E_NOMEM;
    if (t != NULL && hash != NULL && (t->source = pf_arena_strdup(&t->arena, name)) != NULL) {
        pf_token_input in = {
            .data = data, .n = n, .file = t->source, .folder = folder, .hash = hash};
        status = read_all(t, source, &in, err);
        pf_sha256_hex(hash, t->fingerprint);
    } else {
        PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a tokenizer");
    }
    pf_sha256_free(hash);
    if (status != PEFT_OK)
        pf_tokenizer_close(t);
    else
        *out = t;
    return status;
}

peft_status pf_tokenizer_open_bytes(pf_tokenizer **out, const void *data, size_t n,
                                    const char *name, peft_error *err) {
    return open_data(out, data, n, name, NULL, NULL, err);
}

/* One file if it is there. *found says so; a file of another format (tokenizer.model has two) is
 * not found. */
static peft_status try_file(pf_tokenizer **out, const char *path, const char *folder,
                            const pf_token_source *only, bool *found, peft_error *err) {
    pf_mapping map;
    *found = false;
    if (only != NULL && !pf_path_exists(path)) return PEFT_OK;
    PF_TRY(pf_map_file(&map, path, err));
    const char *data = map.data == NULL ? "" : (const char *)map.data;
    peft_status status = PEFT_OK;
    if (only == NULL || (map.size > 0 && only->probe(data, map.size))) {
        *found = true;
        status = map.size > FILE_MAX
                     ? PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: larger than 1 GiB", path)
                     : open_data(out, data, map.size, path, folder, only, err);
    }
    pf_unmap_file(&map);
    return status;
}

static peft_status open_folder(pf_tokenizer **out, pf_arena *a, const char *folder,
                               peft_error *err) {
    const char *seen = NULL;
    for (int i = 0; i < pf_token_n_sources; i++) {
        for (const char *const *name = pf_token_sources[i]->files; *name != NULL; name++) {
            const char *path = pf_path_join(a, folder, *name);
            bool found;
            PF_CHECK_ALLOC(path, err);
            if (pf_path_exists(path)) seen = path;
            PF_TRY(try_file(out, path, folder, pf_token_sources[i], &found, err));
            if (found) return PEFT_OK;
        }
    }
    if (seen != NULL)
        return PF_FAIL(
            err, PEFT_E_FORMAT,
            "%s: this is no tokenizer: neither tokenizer.json nor vocab.json, SentencePiece "
            "or tiktoken",
            seen);
    return PF_FAIL(
        err, PEFT_E_MISSING,
        "%s: no tokenizer in this folder; it takes a tokenizer.json, a tokenizer.model or "
        "spiece.model, or a vocab.json with merges.txt",
        folder);
}

peft_status pf_tokenizer_open(pf_tokenizer **out, const char *path, peft_error *err) {
    pf_arena a;
    peft_status status;
    bool found;
    *out = NULL;
    pf_arena_init(&a, "tokenizer files");
    if (pf_is_dir(path)) {
        status = open_folder(out, &a, path, err);
    } else {
        const char *folder = pf_path_dir(&a, path);
        status = folder == NULL ? PF_FAIL(err, PEFT_E_NOMEM, "out of memory")
                                : try_file(out, path, folder, NULL, &found, err);
    }
    pf_arena_release(&a);
    return status;
}

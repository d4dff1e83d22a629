/* tokenizer_config.c - what the files beside the vocabulary say: special tokens by name, more added
 * tokens, the chat template. A tokenizer.json describes its added tokens itself and is only
 * completed; for the other sources these files are where properties of added tokens come from. */
#include "base/file.h"
#include "text/json.h"
#include "token/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

enum { CONFIG_MAX = 64 << 20 };

static peft_status read_json(pf_tj *out, json_t **document, pf_arena *a, const char *folder,
                             const char *name, pf_sha256 *hash, peft_error *err) {
    const char *path = folder == NULL ? NULL : pf_path_join(a, folder, name);
    *out = pf_tj_root(NULL, name, a);
    if (folder != NULL) PF_CHECK_ALLOC(path, err);
    if (path == NULL || !pf_path_exists(path)) return PEFT_OK;
    pf_buf text = {0};
    PF_TRY(pf_read_file(&text, path, CONFIG_MAX, err));
    pf_sha256_add(hash, pf_buf_str(&text), text.len);
    peft_status status = pf_json_parse(document, pf_buf_str(&text), text.len, path, err);
    pf_buf_free(&text);
    PF_TRY(status);
    if (!json_is_object(*document))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: this should be a JSON object", path);
    *out = pf_tj_root(*document, path, a);
    return PEFT_OK;
}

static int flag(pf_tj config, const char *key) {
    pf_tj t = pf_tj_get(config, key);
    return json_is_boolean(t.v) ? json_is_true(t.v) : -1;
}

peft_status pf_token_config_load(pf_token_config *c, pf_arena *a, const char *folder,
                                 pf_sha256 *hash, peft_error *err) {
    memset(c, 0, sizeof *c);
    PF_TRY(read_json(&c->config, &c->documents[0], a, folder, "tokenizer_config.json", hash, err));
    PF_TRY(read_json(&c->map, &c->documents[1], a, folder, "special_tokens_map.json", hash, err));
    PF_TRY(read_json(&c->added, &c->documents[2], a, folder, "added_tokens.json", hash, err));
    c->legacy = flag(c->config, "legacy");
    c->add_bos = flag(c->config, "add_bos_token");
    c->add_eos = flag(c->config, "add_eos_token");
    c->add_prefix_space = flag(c->config, "add_prefix_space");
    pf_str name = {"", 0};
    PF_TRY(pf_tj_maybe(c->config, "tokenizer_class", &name, err));
    char *copy = pf_arena_strndup(a, name.p, name.n);
    PF_CHECK_ALLOC(copy, err);
    if (name.n > 4 && pf_ends_with(copy, "Fast")) copy[strlen(copy) - 4] = 0;
    c->tokenizer_class = copy;
    return PEFT_OK;
}

void pf_token_config_release(pf_token_config *c) {
    for (size_t i = 0; i < PF_COUNT(c->documents); i++) json_decref(c->documents[i]);
    memset(c, 0, sizeof *c);
}

peft_status pf_token_config_named(const pf_token_config *c, const char *key, pf_added_token *out,
                                  peft_error *err) {
    pf_tj t = pf_tj_get(c->config, key);
    memset(out, 0, sizeof *out);
    if (t.v == NULL) t = pf_tj_get(c->map, key);
    return t.v == NULL ? PEFT_OK : pf_added_token_parse(t, out, err);
}

static peft_status add(pf_tokenizer *t, pf_added_token token, int64_t id, bool replace,
                       peft_error *err) {
    bool known = pf_added_token_by_text(&t->added, token.content.p, token.content.n) != NULL;
    if (known && !replace) return PEFT_OK;
    return pf_added_tokens_add(&t->added, &t->arena, &t->vocab, token, id, true, err);
}

typedef struct numbered {
    int64_t id;
    const char *key;
} numbered;

static int by_id(const void *a, const void *b) {
    const numbered *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* {"128000": {"content": ...}, ...}, in order of id */
static peft_status added_tokens_decoder(pf_tokenizer *t, pf_tj list, bool replace,
                                        peft_error *err) {
    size_t n = list.v == NULL ? 0 : json_object_size(list.v), i = 0;
    numbered *ids = PF_NEW_ARRAY(&t->arena, numbered, n + 1);
    const char *key;
    json_t *value;
    PF_CHECK_ALLOC(ids, err);
    if (n == 0) return PEFT_OK;
    json_object_foreach((json_t *)(uintptr_t)list.v, key, value) {
        if (!pf_parse_int(key, &ids[i].id) || ids[i].id < 0)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: \"%s\" is no token id", list.path, key);
        ids[i++].key = key;
    }
    qsort(ids, n, sizeof *ids, by_id);
    for (i = 0; i < n; i++) {
        pf_added_token token;
        PF_TRY(pf_added_token_parse(pf_tj_get(list, ids[i].key), &token, err));
        PF_TRY(add(t, token, ids[i].id, replace, err));
    }
    return PEFT_OK;
}

static peft_status added_tokens_file(pf_tokenizer *t, pf_tj list, peft_error *err) {
    const char *key;
    json_t *value;
    if (list.v == NULL) return PEFT_OK;
    json_object_foreach((json_t *)(uintptr_t)list.v, key, value) {
        int64_t id = -1;
        pf_added_token token = {.content = pf_str_of(key), .normalized = true};
        PF_TRY(pf_tj_int(list, key, 0, INT32_MAX - 1, &id, err));
        PF_TRY(add(t, token, id, false, err));
    }
    return PEFT_OK;
}

static peft_status special_list(pf_tokenizer *t, pf_tj list, peft_error *err) {
    for (size_t i = 0; i < pf_tj_count(list); i++) {
        pf_added_token token;
        PF_TRY(pf_added_token_parse(pf_tj_at(list, i), &token, err));
        token.special = true;
        PF_TRY(add(t, token, -1, false, err));
    }
    return PEFT_OK;
}

static int32_t id_of(const pf_tokenizer *t, pf_str s) {
    const pf_added_token *a = pf_added_token_by_text(&t->added, s.p, s.n);
    return a != NULL ? a->id : pf_vocab_id(&t->vocab, s.p, s.n);
}

static peft_status named_tokens(pf_tokenizer *t, const pf_token_config *c, peft_error *err) {
    static const char *const keys[] = {"bos_token", "eos_token", "pad_token", "unk_token",
                                       "sep_token", "cls_token", "mask_token"};
    int32_t *const ids[] = {
        &t->special.bos, &t->special.eos, &t->special.pad, &t->special.unk, NULL, NULL, NULL};
    for (size_t i = 0; i < PF_COUNT(keys); i++) {
        pf_added_token token;
        PF_TRY(pf_token_config_named(c, keys[i], &token, err));
        if (token.content.p == NULL || token.content.n == 0) continue;
        token.special = true;
        PF_TRY(add(t, token, -1, false, err));
        if (ids[i] != NULL) *ids[i] = id_of(t, token.content);
    }
    return PEFT_OK;
}

/* A list of {"name", "template"} has one called default. */
static peft_status chat_template(pf_tokenizer *t, const pf_token_config *c, peft_error *err) {
    pf_tj v = pf_tj_get(c->config, "chat_template");
    pf_str text = {0};
    if (t->chat_template != NULL || v.v == NULL) return PEFT_OK;
    if (json_is_string(v.v)) PF_TRY(pf_tj_string(v, &text, err));
    for (size_t i = 0; i < pf_tj_count(v); i++) {
        pf_str name = {0};
        PF_TRY(pf_tj_maybe(pf_tj_at(v, i), "name", &name, err));
        if (i == 0 || (name.p != NULL && strcmp(name.p, "default") == 0))
            PF_TRY(pf_tj_maybe(pf_tj_at(v, i), "template", &text, err));
    }
    if (text.p == NULL) return PEFT_OK;
    t->chat_template = pf_arena_strndup(&t->arena, text.p, text.n);
    PF_CHECK_ALLOC(t->chat_template, err);
    return PEFT_OK;
}

static void ends_of_text(pf_tokenizer *t, const pf_token_config *c) {
    pf_postprocessor *z = &t->post;
    for (int i = 0; i < z->n_before; i++) {
        if (z->before[i] != PF_POST_BOS) continue;
        z->before[i] = t->special.bos;
        if (t->special.bos < 0) z->n_before = i;
    }
    if (c->add_bos >= 0) z->n_before = 0;
    if (c->add_bos == 1 && t->special.bos >= 0) z->before[z->n_before++] = t->special.bos;
    if (c->add_eos >= 0) z->n_after = 0;
    if (c->add_eos == 1 && t->special.eos >= 0) z->after[z->n_after++] = t->special.eos;
    /* without a config: what is put before every text is the beginning, what is put behind it the
     * end */
    if (c->config.v == NULL && c->map.v == NULL) {
        if (t->special.bos < 0 && z->n_before == 1) t->special.bos = z->before[0];
        if (t->special.eos < 0 && z->n_after == 1) t->special.eos = z->after[0];
    }
}

peft_status pf_token_config_apply(pf_tokenizer *t, const pf_token_config *c, bool described,
                                  peft_error *err) {
    pf_added_tokens_begin(&t->added, &t->vocab);
    PF_TRY(added_tokens_file(t, c->added, err));
    PF_TRY(added_tokens_decoder(t, pf_tj_get(c->config, "added_tokens_decoder"), !described, err));
    PF_TRY(named_tokens(t, c, err));
    PF_TRY(special_list(t, pf_tj_get(c->config, "additional_special_tokens"), err));
    PF_TRY(special_list(t, pf_tj_get(c->map, "additional_special_tokens"), err));
    PF_TRY(chat_template(t, c, err));
    pf_tj length = pf_tj_get(c->config, "model_max_length");
    double n = json_is_number(length.v) ? json_number_value(length.v) : 0;
    t->max_length = n >= 1 && n < 1e12
                        ? (int64_t)n
                        : -1; /* "very large" is how the files write that there is none */
    ends_of_text(t, c);
    return PEFT_OK;
}

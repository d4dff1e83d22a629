/* added_tokens.c - the list of added tokens, and finding them in text. */
#include "token/added_tokens.h"

#include "base/log.h"
#include "base/mem.h"
#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

void pf_added_tokens_init(pf_added_tokens *a) {
    memset(a, 0, sizeof *a);
    pf_map_init(&a->names);
}

void pf_added_tokens_release(pf_added_tokens *a) {
    if (a == NULL) return;
    pf_map_release(&a->names);
    pf_trie_release(&a->plain);
    pf_trie_release(&a->normalized);
    pf_free(a->v);
    pf_free(a->by_id);
    memset(a, 0, sizeof *a);
}

const pf_added_token *pf_added_token_by_id(const pf_added_tokens *a, int64_t id) {
    return id >= 0 && id < a->n_ids && a->by_id[id] >= 0 ? &a->v[a->by_id[id]] : NULL;
}

const pf_added_token *pf_added_token_by_text(const pf_added_tokens *a, const char *text, size_t n) {
    const pf_map_entry *e = pf_map_find(&a->names, text, n);
    return e == NULL ? NULL : &a->v[e->value];
}

void pf_added_tokens_begin(pf_added_tokens *a, const pf_vocab *model) {
    a->next_id = (int32_t)model->n;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->v[i].id >= a->next_id) a->next_id = a->v[i].id + 1;
}

peft_status pf_added_tokens_add(pf_added_tokens *a, pf_arena *arena, const pf_vocab *model,
                                pf_added_token token, int64_t wanted_id, bool exact,
                                peft_error *err) {
    if (token.content.n == 0) return PEFT_OK;
    if (token.content.n > PF_ADDED_TOKEN_MAX)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "an added token is %zu bytes long; the limit is %d",
                       token.content.n, PF_ADDED_TOKEN_MAX);
    if (wanted_id > (int64_t)model->n_ids * 8 + 65536)
        return PF_FAIL(err, PEFT_E_FORMAT, "added token \"%.*s\" has id %lld in a vocabulary of %d",
                       (int)token.content.n, token.content.p, (long long)wanted_id, model->n_ids);
    const pf_map_entry *known = pf_map_find(&a->names, token.content.p, token.content.n);
    int32_t in_model = pf_vocab_id(model, token.content.p, token.content.n);
    if (known != NULL)
        token.id = a->v[known->value].id;
    else if (exact && wanted_id >= 0)
        token.id = (int32_t)wanted_id;
    else if (in_model >= 0)
        token.id = in_model;
    else
        token.id = a->next_id++;
    if (wanted_id >= 0 && token.id != wanted_id)
        PF_WARN("tokenizer: added token \"%.*s\" should have id %lld and has %d",
                (int)token.content.n, token.content.p, (long long)wanted_id, token.id);
    if (known != NULL) {
        pf_added_token *old = &a->v[known->value];
        token.content = old->content;
        *old = token;
        return PEFT_OK;
    }
    PF_TRY(pf_map_put(&a->names, token.content.p, token.content.n, a->n, NULL, NULL, err));
    token.content.p = pf_arena_strndup(arena, token.content.p, token.content.n);
    PF_CHECK_ALLOC(token.content.p, err);
    PF_TOKEN_GROW(a->v, a->cap, (size_t)a->n + 1, err);
    a->v[a->n++] = token;
    return PEFT_OK;
}

/* The normalized form of a token, into the arena if it is another text. */
static peft_status normalize(pf_added_token *t, pf_arena *arena, const pf_normalizers *z,
                             pf_ntext scratch[2], peft_error *err) {
    pf_ntext in = {0};
    const pf_ntext *out;
    pf_ntext_borrow(&in, t->content.p, (uint32_t)t->content.n, 0);
    PF_TRY(pf_normalizers_run(z, &in, scratch, false, &out, err));
    if (out->n == t->content.n && memcmp(out->text, t->content.p, out->n) == 0) return PEFT_OK;
    t->text.p = pf_arena_strndup(arena, out->text, out->n);
    t->text.n = out->n;
    PF_CHECK_ALLOC(t->text.p, err);
    return PEFT_OK;
}

peft_status pf_added_tokens_finish(pf_added_tokens *a, pf_arena *arena, const pf_normalizers *z,
                                   peft_error *err) {
    pf_ntext scratch[2] = {{0}, {0}};
    peft_status status = PEFT_OK;
    int32_t largest = -1;
    for (uint32_t i = 0; i < a->n; i++) {
        pf_added_token *t = &a->v[i];
        if (t->id > largest) largest = t->id;
        t->text = t->content;
        if (t->normalized) PF_TRY_OUT(normalize(t, arena, z, scratch, err));
        const pf_added_token *same = pf_added_token_by_text(a, t->text.p, t->text.n);
        t->skipped = same != NULL && same->special; /* by text, as there */
        if (t->text.n > PF_ADDED_TOKEN_MAX) {
            status = PF_FAIL(err, PEFT_E_UNSUPPORTED,
                             "added token \"%.40s\" is %zu bytes long once normalized",
                             t->content.p, t->text.n);
            goto out;
        }
        PF_TRY_OUT(pf_trie_add(t->normalized ? &a->normalized : &a->plain, t->text.p, t->text.n,
                               (int32_t)i, err));
    }
    a->by_id = pf_malloc(((size_t)largest + 2) * sizeof *a->by_id);
    if (a->by_id == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a vocabulary");
        goto out;
    }
    a->n_ids = largest + 1;
    for (int32_t i = 0; i <= a->n_ids; i++) a->by_id[i] = -1;
    for (uint32_t i = 0; i < a->n; i++) a->by_id[a->v[i].id] = (int32_t)i;
out:
    pf_ntext_release(&scratch[0]);
    pf_ntext_release(&scratch[1]);
    return status;
}

static bool is_word(const char *p, uint32_t flag) {
    uint32_t cp;
    pf_u8_get(p, &cp);
    return (pf_uclass(cp) & flag) != 0;
}

static uint32_t before(const pf_ntext *t,
                       uint32_t at) { /* start of the character that ends at `at` */
    do at--;
    while (!pf_u8_is_start(t->text[at]));
    return at;
}

peft_status pf_added_tokens_cut(const pf_added_tokens *a, const pf_trie *trie, const pf_ntext *t,
                                uint32_t begin, uint32_t end, pf_pieces *out, peft_error *err) {
    uint32_t done = begin;
    for (uint32_t at = begin; at < end;) {
        uint32_t node = 0, stop = 0;
        int32_t which = -1;
        for (uint32_t i = at; i < end; i++) {
            node = pf_trie_step(trie, node, (unsigned char)t->text[i]);
            if (node == 0) break;
            if (trie->value[node] >= 0) {
                which = trie->value[node];
                stop = i + 1;
            }
        }
        if (which < 0) {
            at++;
            continue;
        }
        const pf_added_token *token = &a->v[which];
        uint32_t start = at;
        at = stop;
        if (token->single_word &&
            ((start > begin && is_word(t->text + before(t, start), PF_U_WORD)) ||
             (stop < end && is_word(t->text + stop, PF_U_WORD))))
            continue;
        if (token->lstrip)
            while (start > done && is_word(t->text + before(t, start), PF_U_SPACE))
                start = before(t, start);
        if (token->rstrip)
            while (stop < end && is_word(t->text + stop, PF_U_SPACE))
                stop += pf_u8_len(t->text + stop);
        /* white space that one token stripped may be another token, and then belongs to both */
        if (done < start) PF_TRY(pf_pieces_add(out, done, start, -1, err));
        PF_TRY(pf_pieces_add(out, start, stop, token->id, err));
        done = stop;
    }
    return done < end ? pf_pieces_add(out, done, end, -1, err) : PEFT_OK;
}

/* token_model.c - the table of remembered pieces: direct-mapped, the newer piece wins a slot. */
#include "token/token_model.h"

#include "base/hash.h"
#include "base/mem.h"

#include <string.h>

#include "base/banned.h"

void pf_model_scratch_release(pf_model_scratch *s) {
    if (s == NULL) return;
    pf_free(s->recall);
    pf_free(s->symbols);
    pf_free(s->heap);
    pf_free(s->best);
    memset(s, 0, sizeof *s);
}

void pf_tokens_release(pf_tokens *t) {
    if (t == NULL) return;
    pf_free(t->v);
    memset(t, 0, sizeof *t);
}

static pf_recall *slot_of(pf_model_scratch *s, const char *p, uint32_t n) {
    return &s->recall[pf_hash64(p, n, 0) & (PF_RECALL_SLOTS - 1)];
}

bool pf_recall_find(pf_model_scratch *s, const char *p, uint32_t n, uint32_t at, pf_tokens *out,
                    peft_status *status, peft_error *err) {
    *status = PEFT_OK;
    if (n == 0 || n > PF_RECALL_KEY || s->recall == NULL) return false;
    const pf_recall *r = slot_of(s, p, n);
    if (r->n != n || memcmp(r->key, p, n) != 0) return false;
    for (uint32_t i = 0; i < r->count && *status == PEFT_OK; i++) {
        *status = pf_tokens_add(
            out, (pf_token){r->ids[i], at, at + r->lengths[i], (r->unknown >> i & 1) != 0}, err);
        at += r->lengths[i];
    }
    return true;
}

void pf_recall_keep(pf_model_scratch *s, const char *p, uint32_t n, uint32_t at,
                    const pf_tokens *out, uint32_t count) {
    if (n == 0 || n > PF_RECALL_KEY || count == 0 || count > PF_RECALL_IDS) return;
    const pf_token *v = out->v + out->n - count;
    for (uint32_t i = 0; i < count; i++) {
        if (v[i].begin != at) return;
        at = v[i].end;
    }
    if (s->recall == NULL) s->recall = pf_calloc(PF_RECALL_SLOTS, sizeof *s->recall);
    if (s->recall == NULL) return; /* it works without */
    pf_recall *r = slot_of(s, p, n);
    r->n = (uint8_t)n;
    r->count = (uint8_t)count;
    r->unknown = 0;
    memcpy(r->key, p, n);
    for (uint32_t i = 0; i < count; i++) {
        r->ids[i] = v[i].id;
        r->lengths[i] = (uint8_t)(v[i].end - v[i].begin);
        if (v[i].unknown) r->unknown |= (uint8_t)(1u << i);
    }
}

/* param.c - trainable parameters in contiguous blocks; see param.h. */
#include "graph/param.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define ALIGN_ELEMENTS                                                                             \
    16 /* one cache line of floats: parts of a block start aligned for every kernel */

void pf_params_init(pf_params *ps) {
    memset(ps, 0, sizeof *ps);
    pf_arena_init(&ps->arena, "adapter");
    pf_map_init(&ps->by_name);
}

void pf_params_release(pf_params *ps) {
    if (ps == NULL) return;
    if (ps->made.release != NULL) ps->made.release(ps->made.ctx);
    pf_free(ps->data);
    pf_free(ps->grad);
    pf_free(ps->m);
    pf_free(ps->v);
    pf_map_release(&ps->by_name);
    pf_arena_release(&ps->arena);
    memset(ps, 0, sizeof *ps);
}

int64_t pf_param_room(const pf_param *p) {
    return (p->rows * p->cols + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

/* At the end of the list and of the blocks. */
static peft_status append(pf_params *ps, pf_param *p, peft_error *err) {
    if (pf_params_find(ps, p->name) != NULL)
        return PF_FAIL(err, PEFT_E_STATE, "%s is trained twice", p->name);
    if (ps->n == ps->cap) {
        int cap = ps->cap == 0 ? 64 : 2 * ps->cap;
        pf_param **items = PF_NEW_ARRAY(&ps->arena, pf_param *, cap);
        PF_CHECK_ALLOC(items, err);
        if (ps->n > 0) memcpy(items, ps->items, (size_t)ps->n * sizeof *items);
        ps->items = items;
        ps->cap = cap;
    }
    PF_TRY(pf_map_put(&ps->by_name, p->name, strlen(p->name), 0, p, NULL, err));
    p->offset = ps->block_len;
    ps->items[ps->n++] = p;
    if (!p->frozen) ps->count += p->rows * p->cols;
    ps->block_len += pf_param_room(p);
    return PEFT_OK;
}

peft_status pf_params_add(pf_params *ps, const char *name, int64_t rows, int64_t cols,
                          pf_param **out, peft_error *err) {
    *out = NULL;
    if (ps->data != NULL) return PF_FAIL(err, PEFT_E_STATE, "%s: the parameters are sealed", name);
    if (rows < 1 || cols < 1) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%s: cannot train a %lld x %lld tensor", name,
                       (long long)rows, (long long)cols);
    }
    pf_param *p = PF_NEW(&ps->arena, pf_param);
    PF_CHECK_ALLOC(p, err);
    p->name = pf_arena_strdup(&ps->arena, name);
    PF_CHECK_ALLOC(p->name, err);
    p->rows = rows;
    p->cols = cols;
    p->decay = true;
    p->lr_scale = 1;
    p->index = ps->n;
    PF_TRY(append(ps, p, err));
    *out = p;
    return PEFT_OK;
}

peft_status pf_params_adopt(pf_params *ps, const pf_params *part, peft_error *err) {
    if (ps->data != NULL || part->data != NULL)
        return PF_FAIL(err, PEFT_E_STATE, "the parameters are sealed");
    if (part->made.params != NULL) {
        if (ps->made.params != NULL)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "two methods make learned rows of their parameters; one can");
        ps->made = part->made;
        ps->made.release = NULL; /* the part's business */
    }
    for (int i = 0; i < part->n; i++) PF_TRY(append(ps, part->items[i], err));
    return PEFT_OK;
}

static peft_status new_block(pf_real **out, int64_t n, const char *what, peft_error *err) {
    size_t bytes;
    if (!pf_mul_size((size_t)(n > 0 ? n : 1), sizeof(pf_real), &bytes) ||
        (*out = pf_aligned_malloc(bytes, 64)) == NULL) {
        char size[32];
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory: the adapter's %s need %s", what,
                       pf_format_bytes((double)n * sizeof(pf_real), size, sizeof size));
    }
    memset(*out, 0, bytes);
    return PEFT_OK;
}

static void set_pointers(pf_params *ps) {
    for (int i = 0; i < ps->n; i++) {
        ps->items[i]->data = ps->data + ps->items[i]->offset;
        const bool has_grad = ps->grad != NULL && !ps->items[i]->constant;
        ps->items[i]->grad = has_grad ? ps->grad + ps->items[i]->offset : NULL;
    }
}

peft_status pf_params_seal_made(pf_params *ps, bool with_training, peft_error *err) {
    if (ps->data != NULL) return PF_FAIL(err, PEFT_E_STATE, "the parameters are sealed already");
    PF_TRY(new_block(&ps->data, ps->block_len, "rows made by its encoder", err));
    if (with_training) PF_TRY(new_block(&ps->grad, ps->block_len, "gradients", err));
    for (int i = 0; i < ps->n && !with_training; i++) ps->items[i]->frozen = true;
    set_pointers(ps);
    return PEFT_OK;
}

/* What is constant moves behind the block. */
static void lay_out(pf_params *ps) {
    int64_t at = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < ps->n; i++) {
            if (ps->items[i]->constant != (pass == 1)) continue;
            ps->items[i]->offset = at;
            at += pf_param_room(ps->items[i]);
        }
        if (pass == 0) ps->block_len = at;
    }
    ps->fixed_len = at - ps->block_len;
}

peft_status pf_params_seal(pf_params *ps, bool with_training, peft_error *err) {
    if (ps->data != NULL) return PF_FAIL(err, PEFT_E_STATE, "the parameters are sealed already");
    lay_out(ps);
    PF_TRY(new_block(&ps->data, ps->block_len + ps->fixed_len, "weights", err));
    if (with_training) {
        PF_TRY(new_block(&ps->grad, ps->block_len, "gradients", err));
        PF_TRY(new_block(&ps->m, ps->block_len, "first moments", err));
        PF_TRY(new_block(&ps->v, ps->block_len, "second moments", err));
    }
    set_pointers(ps);
    return PEFT_OK;
}

void pf_params_freeze(pf_params *ps, pf_param *p) {
    if (p->frozen) return;
    p->frozen = true;
    ps->count -= p->rows * p->cols;
}

void pf_params_fix(pf_params *ps, pf_param *p) {
    PF_ASSERT(ps->data == NULL);
    pf_params_freeze(ps, p);
    p->constant = true;
}

pf_param *pf_params_find(const pf_params *ps, const char *name) {
    const pf_map_entry *e = pf_map_finds(&ps->by_name, name);
    return e != NULL ? e->ptr : NULL;
}

void pf_params_zero_grad(pf_params *ps) {
    if (ps->grad != NULL) memset(ps->grad, 0, (size_t)ps->block_len * sizeof *ps->grad);
    if (ps->made.params != NULL) pf_params_zero_grad(ps->made.params);
}

peft_status pf_params_make(const pf_params *ps, int64_t step, peft_error *err) {
    if (ps->made.params == NULL || ps->made.params->data == NULL) return PEFT_OK;
    return ps->made.make(ps->made.ctx, step, err);
}

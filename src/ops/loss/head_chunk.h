/* head_chunk.h - the head on a chunk of label entries: logits, losses, and what goes back. For
 * head_ce.c.
 *
 * Scratch, in this order: logits (size, V), two low-rank rows (size, r each), masked hidden rows
 * (size, C; only with dropout), then the scratch of products. `size` is chosen so that the logits
 * of a chunk stay within a budget; entries are independent, so it changes no bit of nll or dh. */
#ifndef PF_HEAD_CHUNK_H
#define PF_HEAD_CHUNK_H

#include "ops/loss/head_ce.h"
#include "ops/loss/softmax_row.h"
#include "ops/matmul/gemm.h"
#include "ops/op_util.h"

typedef struct pf_head_chunk {
    const pf_exec *x;
    const pf_head_ce_args *args;
    const pf_value *h, *w, *bias, *a, *b;
    /* from begin */
    int64_t V, C, R, size;
    const pf_gemm_isa *gemm;
    const pf_softmax_isa *softmax;
    pf_weight w_view;
    const pf_real *bias_data;
    pf_real *logits, *low, *d_low, *masked;
    void *scratch;
    /* the chunk at hand */
    int64_t first, n;
    const pf_real *hidden; /* (n, C) */
    const pf_real *input;  /* of A: hidden, or masked rows of it */
    pf_real *nll, *correct;
    const pf_real *coef;
    bool want_gradient;
} pf_head_chunk;

typedef struct pf_head_sinks { /* gradient blocks; NULL: frozen */
    pf_real *w, *bias, *a, *b;
} pf_head_sinks;

int64_t pf_head_chunk_workspace(const pf_head_chunk *c, int64_t capacity, int n_workers);
peft_status pf_head_chunk_begin(pf_head_chunk *c, void *workspace, peft_error *err);
/* Logits of the entries from `first` on. */
void pf_head_chunk_logits(pf_head_chunk *c, int64_t first);
/* nll and correct of the chunk (NULL: not asked for); with gradient, logits become softmax(z) -
 * onehot. */
void pf_head_chunk_losses(pf_head_chunk *c, pf_real *nll, pf_real *correct, bool gradient);
/* dh = dz W (+ scale ((dz B) A), masked) for this chunk. */
void pf_head_chunk_dh(pf_head_chunk *c, pf_real *dh);
void pf_head_chunk_scale(pf_head_chunk *c, const pf_real *coef);
/* dh, and sums into the sinks. */
void pf_head_chunk_grads(pf_head_chunk *c, const pf_head_sinks *sinks, pf_real *dh);

#endif

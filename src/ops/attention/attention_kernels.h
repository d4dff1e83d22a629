/* attention_kernels.h - what the files of attention share: the operands of a call, and who provides
 * which kernel.
 *
 *   attention_bias.c        biases by distance, as both of the others read them
 *   attention_drop.c        masks of dropout, as tiles read them
 *   attention_cpu.c         reference: one row, one head, one key at a time
 *   attention_tiles.c       fast forward pass, and attention_grad_tiles.c the fast backward pass:
 * how tokens become tiles attention_simd.h        what happens inside a tile, in vectors
 * (attention_avx2.c, attention_avx512.c)
 *
 *   T token rows, X external rows, H query heads, KH key heads, G = H / KH, D columns per head */
#ifndef PF_ATTENTION_KERNELS_H
#define PF_ATTENTION_KERNELS_H

#include "graph/exec.h"
#include "ops/attention/attention.h"
#include "ops/matmul/dropout.h"

/* Biases of a pass, by the distance pos[key] - pos[query] in [-reach, reach]. */
typedef struct pf_attention_bias {
    int64_t reach;         /* 0: there are none */
    const int32_t *bucket; /* (2 reach + 1) from -reach on */
    const pf_real *table;  /* (buckets, H) */
    const float *slopes;   /* (H), in place of both */
    int64_t n_buckets;
    /* bias / scale of head h: by_key[h · stride + pos[key] - pos[query]], and by_query with the
     * distance the other way round; readable for a tile's lanes beyond reach */
    const float *by_key, *by_query;
    int64_t stride;
} pf_attention_bias;

typedef struct pf_attention_call {
    const pf_batch *batch;  /* of the space of q */
    const pf_ext_run *runs; /* of external rows */
    int32_t n_runs;
    pf_attention_bias bias;
    int64_t T, X, H, KH, G, D;
    int64_t window;
    bool bidirectional;
    pf_real scale;
    pf_real softcap; /* 0: none */
    bool dropped;    /* probabilities are, by this: */
    pf_dropout drop;
    const pf_real *q;             /* (T, H·D) */
    const pf_real *k, *v;         /* (T, KH·D); NULL in cross attention */
    const pf_real *ext_k, *ext_v; /* (X, KH·D) or NULL */
    /* forward: written; backward: read */
    pf_real *o;   /* (T, H·D) */
    pf_real *lse; /* (T, H) */
    /* backward */
    const pf_real *d_o;         /* (T, H·D) */
    pf_real *dq, *dk, *dv;      /* dq may be d_o's room: it is written last, tile by tile */
    pf_real *d_ext_k, *d_ext_v; /* (X, KH·D), added to; NULL when not wanted */
    bool clear_ext;             /* they are to be written: rows of the source */
    pf_real *d_bias;            /* (buckets, H), added to; NULL when not wanted */
} pf_attention_call;

/* Operands of an `attention` or `attention_grad` node. Fails when a row would see more external
 * keys than there are external rows, which the workspace is planned for. */
peft_status pf_attention_call_of(pf_attention_call *c, const pf_exec *x, const pf_node *n,
                                 peft_error *err);

/* Zeroes what attention_grad adds to and has to write. */
void pf_attention_clear(const pf_attention_call *c);
/* External rows of a node that will ever be there. */
int64_t pf_attention_ext_rows(const pf_node *n, const int64_t *capacity);

/* Room for the biases of a call; 0: there are none. */
int64_t pf_att_bias_bytes(const pf_attention_args *a, int64_t T, int64_t X);
/* Fills c->bias from the table of the node, in that room. */
peft_status pf_att_bias_make(pf_attention_call *c, const pf_exec *x, const pf_node *n,
                             const pf_value *table, unsigned char *room, peft_error *err);
pf_real pf_att_bias(const pf_attention_call *c, int64_t h, int64_t distance);

/* Inputs of an attention_grad node. Its arguments are those of the forward node. */
enum {
    PF_ATT_DO,
    PF_ATT_Q,
    PF_ATT_K,
    PF_ATT_V,
    PF_ATT_O,
    PF_ATT_LSE,
    PF_ATT_XK,
    PF_ATT_XV,
    PF_ATT_DXK,
    PF_ATT_DXV,
    PF_ATT_BIAS,
    PF_ATT_DBIAS,
    PF_ATT_GRAD_INPUTS
};

extern const pf_kernel_row pf_attention_kernel_rows[], pf_attention_grad_kernel_rows[];

#endif

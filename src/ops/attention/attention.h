/* attention.h - softmax(cap(scale · q kᵀ) + bias + mask) v over the segment tree of the batch
 * (batch.h), with grouped heads.
 *
 * Row i of head h sees, in this order: the external rows of its runs, the segments of its ancestors
 * from the root down, its own segment up to itself; of these only keys with pos[i] - pos[j] <
 * window when there is a window. Query head h reads key head h / (H / KH). lse is the natural log
 * of the softmax's denominator per row and head: with it the backward pass needs no second softmax
 * (Dao 2023, FlashAttention-2, arXiv 2307.08691).
 *
 * `bidirectional` (encoders): a row sees all of its own segment, rows after it too. What comes
 * before - external rows, ancestors - is seen as ever. So key j is seen by all rows from the start
 * of its segment to end[j], in place of [j, end[j]).
 *
 * `cross` (a decoder looking at its encoder): there are external keys only, the rows of the source
 * that batch->source_runs name; every row sees its runs in full.
 *
 * The bias is a function of head and distance pos[j] - pos[i]: a table over buckets of distances
 * (T5: Raffel et al. 2020, arXiv 1910.10683; half of the buckets are single distances, the others
 * grow to bias_max_distance, in bidirectional attention for either direction), or a slope per head
 * (ALiBi: Press et al. 2022, arXiv 2108.12409).
 *
 * A row's result depends on its query and its keys in that order, and on nothing else: the maximum
 * is taken over all keys first, every other sum runs over the keys one by one. So it has the same
 * bits wherever the row stands, whether its prefix is its own, shared with other samples or
 * external, and a token generated from a KV cache has the bits of the full pass. (The usual online
 * softmax rescales from block to block and would make the bits depend on where blocks begin; the
 * scores of one tile of queries fit in cache, so nothing is lost.)
 *
 * Dropout leaves out pairs of a row and a key behind the softmax: o = sum of c p v with c = 0 or
 * 1 / (1 - p). The mask is a function of (seed, step, sample and position of the row, position of
 * the key, mask_key + head) as in ops/matmul/dropout.h, made again wherever it is needed and kept
 * nowhere; a row's bits still depend on nothing else. Off unless exec->training.
 *
 * In the backward pass one task owns a block of keys and adds over its queries in row order,
 * another owns a block of queries: no atomics, the same bits on any number of threads. */
#ifndef PF_ATTENTION_H
#define PF_ATTENTION_H

#include "graph/graph.h"

typedef struct pf_attention_args {
    int64_t n_heads, n_kv_heads, head_dim;
    double scale;       /* usually 1 / sqrt(head_dim) */
    int64_t window;     /* 0: none. HF: a key at distance >= window is not seen */
    bool bidirectional; /* no window then */
    double softcap; /* scores become softcap tanh(score / softcap), before the mask; 0: they stay */
    bool cross;     /* nor a bias */
    int64_t bias_buckets, bias_max_distance; /* of the table; 0: none */
    const float *slopes; /* (n_heads): slope · (pos[j] - pos[i]) is added; NULL: none. Borrowed by
                            the graph */
    double dropout;      /* of the probabilities, in [0, 1); 0: none */
    uint64_t seed;
    uint32_t mask_key; /* its low 16 bits are 0: the head is added */
} pf_attention_args;

/* q (T, H·D), k, v (T, KH·D), ext_k, ext_v (X, KH·D) or NULL -> o (T, H·D), lse (T, H).
 * External rows are a STATE (a KV cache, an encoder) or a PARAM (a learned prefix; its gradient is
 * added to its block). */
peft_status pf_attention(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v,
                         pf_value *ext_k, pf_value *ext_v, const pf_attention_args *args,
                         pf_value **o, peft_error *err);

/* With a table of biases (bias_buckets, H), a WEIGHT or a PARAM. */
peft_status pf_attention_biased(pf_graph *g, const char *name, pf_value *q, pf_value *k,
                                pf_value *v, pf_value *ext_k, pf_value *ext_v, pf_value *bias,
                                const pf_attention_args *args, pf_value **o, peft_error *err);

/* q (T, H·D), k, v (S, KH·D): rows of the source, or a STATE that kv_store filled with them.
 * args->cross is set. */
peft_status pf_attention_cross(pf_graph *g, const char *name, pf_value *q, pf_value *k, pf_value *v,
                               const pf_attention_args *args, pf_value **o, peft_error *err);

/* Bucket of the distance pos[j] - pos[i], as transformers' T5Attention counts them. */
int32_t pf_attention_bucket(const pf_attention_args *args, int64_t distance);

/* Generation: after attention has read the cache, rows k, v (T, KH·D) go to rows batch->kv_row[i]
 * of the two states. */
peft_status pf_kv_store(pf_graph *g, const char *name, pf_value *k, pf_value *v, pf_value *state_k,
                        pf_value *state_v, peft_error *err);
/* Generation: where the batch asks for it (store_prefix), all rows of a learned prefix k, v (X,
 * KH·D) go to the states, from row batch->prefix_row on. Stands before the attention that reads
 * them. */
peft_status pf_prefix_store(pf_graph *g, const char *name, pf_value *k, pf_value *v,
                            pf_value *state_k, pf_value *state_v, peft_error *err);

#endif

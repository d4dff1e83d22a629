/* batch.h - what one pass through the graph computes: rows of tokens, who sees whom, and which rows
 * have labels.
 *
 * There is no batch dimension and no padding. The tokens of a micro-batch stand in one row space,
 * sample after sample.
 *
 * Segments form a tree, stored in pre-order: a segment comes before its children, and a subtree is
 * one run of rows. A token sees its own segment up to itself and all of every ancestor segment.
 * Therefore key j is seen by exactly the rows [j, end[j]), where end[j] is the end of the subtree
 * of j's segment: the mask is one integer per key. Plain samples are roots without children. A
 * common prefix of several samples is a segment of its own, held once; positions go on from the
 * parent. Sliding windows and RoPE read pos[].
 *
 *        rows   0 1 2 3 | 4 5 | 6 | 7 8 9        segments  A [0,4) root, B [4,6) child of A, C
 * [6,7) child of B, seg    A A A A | B B | C | D D D                  D [7,10) child of A pos    0
 * 1 2 3 | 4 5 | 6 | 4 5 6        end       A: 10   B: 7   C: 7   D: 10
 *
 * External keys: rows of another buffer (a KV cache, a learned prefix, an encoder) that come before
 * the tree. A run says which external rows are seen, in full, by which token rows.
 *
 * A learned prompt is a segment like others, the root of all samples: rows [0, n_prompt) take their
 * hidden states from a parameter, and their ids mean nothing. So it is computed once, whatever the
 * number of samples. A learned prefix is a run of external rows that every row sees. The samples'
 * positions go on behind both.
 * Where a row sees those behind it (an encoder), the rows of a prompt depend on their sample: there
 * every root begins with prompt_each rows of it. What they share is the parameter.
 *
 * Labels are entries, not one per row: the last row of a shared prefix predicts the first token of
 * every child. The loss of entry e is weight[e] * nll(row[e] -> target[e]); what it is divided by
 * is the step's business (step plan), so that the loss never depends on how a step is cut into
 * batches.
 *
 * Encoder and decoder: the decoder's rows are the tokens above. The encoder's rows are a batch of
 * their own, `source`: ids, positions, segments, keys of random masks, without labels. Which of
 * them a decoder row sees in cross attention is said by source_runs, in the words of external keys:
 * a segment of the source is a run of rows, seen by the rows of one root or of several. While a
 * sequence is generated, the source's keys and values stand in a cache and the same runs name rows
 * of it; then a pass has encoder rows only when a sequence begins.
 *
 * All arrays are borrowed for the duration of a run of the graph. */
#ifndef PF_BATCH_H
#define PF_BATCH_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* The row spaces that every build knows; a graph may add more. Dimension 0 of a value is one of
 * these. */
typedef enum pf_space {
    PF_SPACE_NONE = -1, /* fixed number of rows */
    PF_SPACE_TOKENS,    /* rows of hidden states */
    PF_SPACE_LABELS,    /* label entries */
    PF_SPACE_SOURCE,    /* rows of hidden states of an encoder, beside TOKENS of its decoder */
    PF_SPACE_COUNT      /* beyond: routed.h */
} pf_space;

typedef struct pf_segment {
    int32_t start, length; /* rows [start, start + length), length >= 1 */
    int32_t parent;        /* index of the parent segment, smaller than its own; -1 for a root */
    int32_t subtree_end;   /* first row after the last descendant */
    int32_t rope_length;   /* length of the whole sample, for RoPE types that look at it */
} pf_segment;

/* External rows [ext, ext + length) with positions pos, pos+1, ... are seen by token rows
 * [row_begin, row_end). */
typedef struct pf_ext_run {
    int32_t ext, length, pos;
    int32_t row_begin, row_end;
} pf_ext_run;

typedef struct pf_batch pf_batch;
struct pf_batch {
    int32_t n_tokens;
    const int32_t *ids;  /* (T) vocabulary ids */
    const int32_t *pos;  /* (T) positions, from 0 in each root */
    const int32_t *seg;  /* (T) segment of each row */
    const int32_t *type; /* (T) which of two texts a row belongs to: 0, 1; NULL: all 0 */
    const int32_t *end;  /* (T) see above */
    const int32_t
        *sample; /* (T) key of the row for random masks: index of its sample in the step */
    const pf_segment *segments;
    int32_t n_segments;
    int32_t
        n_prompt; /* rows of a learned prompt: all of segment 0, a root; 0: none in this batch */
    int32_t prompt_each; /* rows of a learned prompt: the first ones of every root; 0: none. At most
                            one of the two is there */

    int32_t n_labels;
    const int32_t *label_row;         /* (E) token row, ascending */
    const int32_t *label_target;      /* (E) vocabulary id */
    const float *label_weight;        /* (E) 1 unless a recipe weighs tokens */
    const int32_t *label_sample;      /* (E) index of the sample in the step */
    const float *const *label_values; /* (E) the numbers that are an entry's target, as many as the
                                         head has rows (problem.h); NULL: targets are ids */

    const pf_ext_run
        *ext_runs; /* ascending row_begin; runs of one row in the order of their positions */
    int32_t n_ext_runs;
    const int32_t
        *kv_row; /* (T) where kv_store puts the row's keys and values; NULL outside generation */
    bool store_prefix;  /* generation: the learned prefix goes into the cache before it is read, */
    int32_t prefix_row; /* from this row on */

    uint64_t step; /* optimizer step, part of the key of random masks */

    const pf_batch *routed; /* by space - PF_SPACE_COUNT: number, sample and position of the rows of
                               an expert; set by the executor */

    const pf_batch *source; /* rows of the encoder; NULL: the model has none, or none begin here */
    const pf_ext_run *source_runs; /* as ext_runs, of rows of the source or of its cache */
    int32_t n_source_runs;
};

/* The batch whose rows are those of this space: embedding, attention, masks ask it for ids,
 * positions, segments. */
static inline const pf_batch *pf_batch_of_space(const pf_batch *b, int space) {
    if (space >= PF_SPACE_COUNT) return &b->routed[space - PF_SPACE_COUNT];
    return space == PF_SPACE_SOURCE ? b->source : b;
}

/* Checks every invariant above (tests, and recipes once per run). source_runs of a batch that has
 * a source are taken for runs of its rows, else of ext_rows. */
peft_status pf_batch_check(const pf_batch *b, int64_t vocab_size, int64_t ext_rows,
                           peft_error *err);

#endif

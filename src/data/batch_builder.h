/* batch_builder.h - the samples of one step -> micro-batches under a token budget, with common
 * prefixes held once.
 *
 * A sample is a run of tokens of which the last ones are predicted, or some of which belong to
 * classes. The builder takes all samples
 * of a step at once, finds what they have in common from position 0 on (a trie over their tokens),
 * decides by a cost model which common prefixes become segments of their own, and cuts the result
 * into micro-batches of at most max_tokens rows and max_labels entries. What is computed does not
 * depend on any of that: each sample's tokens see the tokens before them in the sample, each of its
 * labels is one entry, and neither positions nor keys of random masks know of the cut.
 *
 * Order: samples that share nothing stay in the order given, and go to the first micro-batch with
 * room (first fit). Samples that share stand together where the first of them would stand. A tree
 * larger than the budget is spread over several micro-batches, each sample where it adds the fewest
 * rows; rows of its prefixes are then computed once in each.
 *
 * A sample of an encoder-decoder model has a source: rows of their own (batch.h), which count
 * towards max_tokens like the others. Its tokens are the decoder's, and nothing is shared then:
 * what a decoder's row is depends on its source.
 *
 * The row of a sample's last target and those behind it predict nothing and are seen by nobody, so
 * they are not computed, nor is a sample without labels; keep_tail asks for all rows (heads that
 * read the last one).
 *
 * Everything is allocated by new; begin and get allocate nothing. Not thread-safe. */
#ifndef PF_BATCH_BUILDER_H
#define PF_BATCH_BUILDER_H

#include "graph/batch.h"

#include <stdbool.h>

typedef struct pf_sample {
    const int32_t *tokens; /* borrowed until the next begin */
    int32_t n_tokens;
    int32_t first_label;  /* tokens [first_label, end_label) are targets; at least 1 */
    int32_t end_label;    /* 0: n_tokens */
    const float *weights; /* (n_tokens) weight of each token as a target; NULL: all 1. A token of
                             weight 0 is no target: no entry is made for it */
    const int32_t
        *classes; /* (n_tokens) in place of the three above: the class of each token, whose
                     entry stands on the token's own row; -1: none. All rows are computed */
    const float *class_weights; /* what an entry counts, by its class; NULL: each 1 */
    const float *values;   /* the numbers that are the target of its entries, in place of the class
                              (batch.h); NULL: there are none */
    int32_t second_from;   /* of two texts: the first token of the second; 0: one text */
    int32_t index;         /* of the sample in the step: key of its random masks and labels */
    const int32_t *source; /* tokens of the encoder; NULL: there is none. Borrowed likewise */
    int32_t n_source;
} pf_sample;

typedef enum pf_share {
    PF_SHARE_AUTO,  /* when it pays, and not while dropout is active */
    PF_SHARE_NEVER, /* every sample is a root */
    PF_SHARE_ALWAYS /* whenever it saves a row; shared rows take the mask of their first sample */
} pf_share;

/* Rows that a prefix of its own must save to pay for the segments it adds: shorter runs of keys in
 * attention, and rows that no longer stand side by side; and one for so many rows below it. At
 * 135M, 64 samples of 60 rows: one token in common costs 2 % of the step more in attention than
 * without, three save 5 % of the rows. */
enum { PF_SHARE_OVERHEAD = 4, PF_SHARE_BELOW = 32 };

typedef struct pf_batch_builder_options {
    int32_t max_tokens;  /* rows of a micro-batch, sources included; at least those of the longest
                            sample */
    int32_t max_labels;  /* entries of a micro-batch; 0: max_tokens */
    int32_t max_samples; /* in a step */
    pf_share share;
    bool dropout;          /* random masks are active */
    int32_t rope_original; /* RoPE that looks at the length: samples longer than this share only
                              with samples of their own length; 0: no such RoPE */
    bool keep_tail;
    int32_t prompt_rows; /* of a learned prompt: the first rows of every micro-batch (batch.h);
                            max_tokens holds them too */
    int32_t prefix_rows; /* of a learned prefix: external rows that every row sees */
    bool prefix_apart;   /* it takes no positions (pf_lead.apart) */
    int32_t each_rows;   /* of a learned prompt that every source begins with, or where there are
                            none every sample; nothing is shared then. They are the first rows of
                            their text: an entry on its first token stands on the first of them */
} pf_batch_builder_options;

typedef struct pf_batch_builder pf_batch_builder;

peft_status pf_batch_builder_new(pf_batch_builder **out, const pf_batch_builder_options *opt,
                                 peft_error *err);
void pf_batch_builder_free(pf_batch_builder *bb);

/* Plans the micro-batches of these samples. Fails when a sample alone exceeds a limit of the
 * options. */
peft_status pf_batch_builder_begin(pf_batch_builder *bb, const pf_sample *samples, int32_t n,
                                   uint64_t step, int32_t *n_micro, peft_error *err);
/* Micro-batch i of n_micro; its arrays are valid until the next get or begin. */
void pf_batch_builder_get(pf_batch_builder *bb, int32_t i, pf_batch *out);

typedef struct pf_batch_figures { /* of the step that was begun last; rows of a learned prompt
                                     count once per micro-batch */
    int64_t rows_plain;           /* rows without sharing */
    int64_t rows;                 /* rows computed */
    int64_t labels;               /* entries */
    double label_weight; /* their sum: the denominator, when every target weighs 1 the number of
                            supervised tokens */
    int32_t most_rows, most_labels;   /* of a micro-batch; rows of both kinds */
    int32_t most_target, most_source; /* rows of each kind */
} pf_batch_figures;
pf_batch_figures pf_batch_builder_figures(const pf_batch_builder *bb);

/* Rows that the tokens of a sample need by themselves, and with those of its source. */
int32_t pf_sample_rows(const pf_sample *s, bool keep_tail);
int32_t pf_sample_all_rows(const pf_sample *s, bool keep_tail);

#endif

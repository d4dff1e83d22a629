/* batch_spec.h - a batch written down segment by segment, for tests and for callers that know their
 * tree (a prompt and its continuations). Segments come in pre-order; rows, positions, intervals and
 * the order of the labels follow. */
#ifndef PF_BATCH_SPEC_H
#define PF_BATCH_SPEC_H

#include "base/arena.h"
#include "graph/batch.h"

typedef struct pf_segment_spec {
    int32_t parent; /* index, -1 for a root */
    int32_t n;
    const int32_t *ids;  /* (n) copied */
    int32_t sample;      /* key of the rows */
    int32_t rope_length; /* 0: the end of the deepest segment below */
} pf_segment_spec;

typedef struct pf_label_spec {
    int32_t segment, offset; /* the row that predicts */
    int32_t target, sample;
    float weight;
} pf_label_spec;

/* Everything lives in the arena. Labels may come in any order; those of one row keep theirs. */
peft_status pf_batch_from_segments(pf_batch *out, pf_arena *a, const pf_segment_spec *segments,
                                   int32_t n_segments, const pf_label_spec *labels,
                                   int32_t n_labels, peft_error *err);

/* The same batch behind a learned prompt of so many rows and a learned prefix of so many (batch.h):
 * the prompt becomes the root of its roots, positions go on behind both. */
peft_status pf_batch_behind(pf_batch *out, pf_arena *a, const pf_batch *in, int32_t prompt_rows,
                            int32_t prefix_rows, bool apart, peft_error *err);

/* The same batch where every source, or without one every root, begins with so many rows of a
 * learned prompt (batch.h). */
peft_status pf_batch_each_behind(pf_batch *out, pf_arena *a, const pf_batch *in, int32_t each_rows,
                                 peft_error *err);

#endif

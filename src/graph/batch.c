/* batch.c - checks that a batch is what batch.h says.
 *
 * Nothing is allocated and nothing outside the arrays is read, whatever they hold: an index is used
 * only after it was compared with its bounds. The order of the checks follows from that. */
#include "graph/batch.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

static peft_status check_segments(const pf_batch *b, peft_error *err) {
    int32_t row = 0;
    for (int32_t i = 0; i < b->n_segments; i++) {
        const pf_segment *s = &b->segments[i];
        if (s->start != row || s->length < 1 || s->length > b->n_tokens - row)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: segment %d covers rows [%d, %d + %d), expected a start of %d in "
                           "%d rows",
                           i, s->start, s->start, s->length, row, b->n_tokens);
        row += s->length;
        if (s->parent < -1 || s->parent >= i)
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: segment %d has parent %d", i, s->parent);
        int32_t limit = s->parent < 0 ? b->n_tokens : b->segments[s->parent].subtree_end;
        if (s->subtree_end < row || s->subtree_end > limit)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: the subtree of segment %d ends at row %d, expected %d to %d", i,
                           s->subtree_end, row, limit);
        if (s->rope_length < 1)
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: segment %d has rope length %d", i,
                           s->rope_length);
        /* pre-order: the parent is the innermost segment whose subtree is still open here */
        int32_t open = i - 1;
        while (open >= 0 && b->segments[open].subtree_end <= s->start)
            open = b->segments[open].parent;
        if (open != s->parent)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: segment %d has parent %d, by the ends of the subtrees it is %d",
                           i, s->parent, open);
    }
    if (row != b->n_tokens)
        return PF_FAIL(err, PEFT_E_SHAPE, "batch: the segments hold %d of %d rows", row,
                       b->n_tokens);
    return PEFT_OK;
}

/* Does an external run cover this row? */
static bool has_ext(const pf_batch *b, int32_t row) {
    for (int32_t i = 0; i < b->n_ext_runs; i++)
        if (b->ext_runs[i].row_begin <= row && row < b->ext_runs[i].row_end) return true;
    return false;
}

static peft_status check_rows(const pf_batch *b, int64_t vocab_size, int64_t ext_rows,
                              peft_error *err) {
    for (int32_t i = 0; i < b->n_segments; i++) {
        const pf_segment *s = &b->segments[i];
        /* a subtree ends where some segment ends */
        if (s->subtree_end < b->n_tokens) {
            int32_t next = b->seg[s->subtree_end];
            if (next <= i || next >= b->n_segments || b->segments[next].start != s->subtree_end)
                return PF_FAIL(err, PEFT_E_SHAPE,
                               "batch: the subtree of segment %d ends at row %d, inside a segment",
                               i, s->subtree_end);
        }
        int32_t pos = b->pos[s->start];
        if (s->parent >= 0) {
            const pf_segment *p = &b->segments[s->parent];
            int32_t expected = b->pos[p->start + p->length - 1] + 1;
            if (pos != expected)
                return PF_FAIL(err, PEFT_E_SHAPE,
                               "batch: row %d has position %d, its segment goes on at %d", s->start,
                               pos, expected);
        } else if (pos < 0 || (pos != 0 && !has_ext(b, s->start))) {
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: root segment %d begins at position %d", i,
                           pos);
        }
        if (pos > INT32_MAX - s->length)
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: positions of segment %d overflow", i);
        for (int32_t k = 0; k < s->length; k++) {
            int32_t row = s->start + k;
            if (b->seg[row] != i || b->end[row] != s->subtree_end || b->pos[row] != pos + k)
                return PF_FAIL(err, PEFT_E_SHAPE,
                               "batch: row %d has segment %d, end %d, position %d; expected %d, "
                               "%d, %d",
                               row, b->seg[row], b->end[row], b->pos[row], i, s->subtree_end,
                               pos + k);
        }
    }
    for (int32_t row = 0; row < b->n_tokens; row++) {
        if (b->ids[row] < 0 || b->ids[row] >= vocab_size)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: row %d has token id %d, the vocabulary has %lld", row,
                           b->ids[row], (long long)vocab_size);
        if (b->sample[row] < 0)
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: row %d has sample %d", row, b->sample[row]);
        if (b->kv_row != NULL && (b->kv_row[row] < 0 || b->kv_row[row] >= ext_rows))
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: row %d goes to cache row %d of %lld", row,
                           b->kv_row[row], (long long)ext_rows);
    }
    return PEFT_OK;
}

static peft_status check_labels(const pf_batch *b, int64_t vocab_size, peft_error *err) {
    for (int32_t e = 0; e < b->n_labels; e++) {
        int32_t row = b->label_row[e];
        if (row < 0 || row >= b->n_tokens || (e > 0 && row < b->label_row[e - 1]))
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: label %d is on row %d of %d, after a label on row %d", e, row,
                           b->n_tokens, e > 0 ? b->label_row[e - 1] : 0);
        if (b->label_target[e] < 0 || b->label_target[e] >= vocab_size)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: label %d has target %d, the vocabulary has %lld", e,
                           b->label_target[e], (long long)vocab_size);
        if (!isfinite(b->label_weight[e]))
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: label %d has weight %g", e,
                           (double)b->label_weight[e]);
        if (b->label_sample[e] < 0)
            return PF_FAIL(err, PEFT_E_SHAPE, "batch: label %d has sample %d", e,
                           b->label_sample[e]);
    }
    return PEFT_OK;
}

static peft_status check_runs(const pf_batch *b, const pf_ext_run *runs, int32_t n,
                              int64_t ext_rows, peft_error *err) {
    for (int32_t i = 0; i < n; i++) {
        const pf_ext_run *r = &runs[i];
        if (r->ext < 0 || r->length < 1 || r->length > ext_rows - r->ext || r->pos < 0 ||
            r->pos > INT32_MAX - r->length)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: external run %d has rows [%d, %d + %d) of %lld, position %d", i,
                           r->ext, r->ext, r->length, (long long)ext_rows, r->pos);
        if (r->row_begin < 0 || r->row_begin >= r->row_end || r->row_end > b->n_tokens ||
            (i > 0 && r->row_begin < runs[i - 1].row_begin))
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: external run %d is seen by rows [%d, %d) of %d", i, r->row_begin,
                           r->row_end, b->n_tokens);
        for (int32_t k = 0; k < i; k++) {
            const pf_ext_run *q = &runs[k];
            if (q->row_end > r->row_begin && q->pos + q->length > r->pos)
                return PF_FAIL(err, PEFT_E_SHAPE,
                               "batch: external runs %d and %d are seen by one row, but not in the "
                               "order of their positions",
                               k, i);
        }
    }
    return PEFT_OK;
}

/* Rows of an encoder are a batch, without labels and without a source of its own. */
static peft_status check_source(const pf_batch *s, int64_t vocab_size, int64_t ext_rows,
                                peft_error *err) {
    if (s->n_labels != 0 || s->source != NULL || s->n_source_runs != 0)
        return PF_FAIL(err, PEFT_E_SHAPE, "batch: the source has labels or a source of its own");
    peft_status status = pf_batch_check(s, vocab_size, ext_rows, err);
    return status == PEFT_OK ? status : pf_fail_prefix(err, status, "source");
}

static peft_status check_prompt_each(const pf_batch *b, peft_error *err) {
    if (b->prompt_each < 0 || (b->prompt_each > 0 && b->n_prompt > 0))
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "batch: a learned prompt of %d rows, and one of %d before every sample",
                       b->n_prompt, b->prompt_each);
    for (int32_t i = 0; b->prompt_each > 0 && i < b->n_segments; i++) {
        const pf_segment *s = &b->segments[i];
        if (s->parent < 0 && s->length < b->prompt_each)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch: segment %d has %d rows, its learned prompt alone %d", i,
                           s->length, b->prompt_each);
    }
    return PEFT_OK;
}

peft_status pf_batch_check(const pf_batch *b, int64_t vocab_size, int64_t ext_rows,
                           peft_error *err) {
    if (b->n_tokens < 1 || b->n_segments < 1 || b->n_segments > b->n_tokens || b->n_labels < 0 ||
        b->n_ext_runs < 0 || b->n_source_runs < 0)
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "batch: %d rows, %d segments, %d labels, %d external runs", b->n_tokens,
                       b->n_segments, b->n_labels, b->n_ext_runs);
    if (b->ids == NULL || b->pos == NULL || b->seg == NULL || b->end == NULL || b->sample == NULL ||
        b->segments == NULL || (b->n_ext_runs > 0 && b->ext_runs == NULL) ||
        (b->n_source_runs > 0 && b->source_runs == NULL) ||
        (b->n_labels > 0 && (b->label_row == NULL || b->label_target == NULL ||
                             b->label_weight == NULL || b->label_sample == NULL)))
        return PF_FAIL(err, PEFT_E_SHAPE, "batch: an array is missing");
    PF_TRY(check_segments(b, err));
    if (b->n_prompt < 0 || (b->n_prompt > 0 && b->segments[0].length != b->n_prompt))
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "batch: a learned prompt of %d rows, and a first segment of %d", b->n_prompt,
                       b->segments[0].length);
    PF_TRY(check_prompt_each(b, err));
    PF_TRY(check_runs(b, b->ext_runs, b->n_ext_runs, ext_rows, err));
    PF_TRY(check_runs(b, b->source_runs, b->n_source_runs,
                      b->source != NULL ? b->source->n_tokens : ext_rows, err));
    if (b->source != NULL) PF_TRY(check_source(b->source, vocab_size, ext_rows, err));
    PF_TRY(check_rows(b, vocab_size, ext_rows, err));
    return check_labels(b, vocab_size, err);
}

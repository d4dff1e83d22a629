/* batch_spec.c - see batch_spec.h. */
#include "data/batch_spec.h"

static peft_status check_spec(const pf_segment_spec *segments, int32_t n_segments,
                              const pf_label_spec *labels, int32_t n_labels, int32_t *n_rows,
                              peft_error *err) {
    int64_t rows = 0;
    for (int32_t i = 0; i < n_segments; i++) {
        const pf_segment_spec *s = &segments[i];
        if (s->n < 1 || s->parent < -1 || s->parent >= i)
            return PF_FAIL(err, PEFT_E_SHAPE, "segment %d has %d rows and parent %d", i, s->n,
                           s->parent);
        int32_t open = i - 1; /* in pre-order the parent is on the path to the segment before */
        while (open >= 0 && open != s->parent) open = segments[open].parent;
        if (open != s->parent)
            return PF_FAIL(err, PEFT_E_SHAPE, "segment %d is not in pre-order", i);
        rows += s->n;
    }
    if (n_segments < 1 || rows > INT32_MAX)
        return PF_FAIL(err, PEFT_E_SHAPE, "%d segments, %lld rows", n_segments, (long long)rows);
    for (int32_t e = 0; e < n_labels; e++)
        if (labels[e].segment < 0 || labels[e].segment >= n_segments || labels[e].offset < 0 ||
            labels[e].offset >= segments[labels[e].segment].n)
            return PF_FAIL(err, PEFT_E_SHAPE, "label %d is on row %d of segment %d", e,
                           labels[e].offset, labels[e].segment);
    *n_rows = (int32_t)rows;
    return PEFT_OK;
}

peft_status pf_batch_from_segments(pf_batch *out, pf_arena *a, const pf_segment_spec *segments,
                                   int32_t n_segments, const pf_label_spec *labels,
                                   int32_t n_labels, peft_error *err) {
    int32_t n_rows = 0;
    *out = (pf_batch){0};
    PF_TRY(check_spec(segments, n_segments, labels, n_labels, &n_rows, err));
    int32_t *ids = PF_NEW_ARRAY(a, int32_t, n_rows), *pos = PF_NEW_ARRAY(a, int32_t, n_rows),
            *seg = PF_NEW_ARRAY(a, int32_t, n_rows), *end = PF_NEW_ARRAY(a, int32_t, n_rows),
            *sample = PF_NEW_ARRAY(a, int32_t, n_rows);
    int32_t *label_row = PF_NEW_ARRAY(a, int32_t, n_labels),
            *label_target = PF_NEW_ARRAY(a, int32_t, n_labels),
            *label_sample = PF_NEW_ARRAY(a, int32_t, n_labels);
    float *label_weight = PF_NEW_ARRAY(a, float, n_labels);
    pf_segment *tree = PF_NEW_ARRAY(a, pf_segment, n_segments);
    int32_t *deepest = PF_NEW_ARRAY(a, int32_t, n_segments);
    if (ids == NULL || pos == NULL || seg == NULL || end == NULL || sample == NULL ||
        label_row == NULL || label_target == NULL || label_sample == NULL || label_weight == NULL ||
        tree == NULL || deepest == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a batch of %d rows", n_rows);

    for (int32_t i = 0, row = 0; i < n_segments; i++) {
        const pf_segment_spec *s = &segments[i];
        int32_t first = 0;
        if (s->parent >= 0) first = pos[tree[s->parent].start + tree[s->parent].length - 1] + 1;
        tree[i] = (pf_segment){
            .start = row, .length = s->n, .parent = s->parent, .subtree_end = row + s->n};
        deepest[i] = first + s->n;
        for (int32_t k = 0; k < s->n; k++, row++) {
            ids[row] = s->ids[k];
            pos[row] = first + k;
            seg[row] = i;
            sample[row] = s->sample;
        }
    }
    for (int32_t i = n_segments - 1; i >= 0; i--) {
        int32_t p = segments[i].parent;
        if (p >= 0 && tree[p].subtree_end < tree[i].subtree_end)
            tree[p].subtree_end = tree[i].subtree_end;
        if (p >= 0 && deepest[p] < deepest[i]) deepest[p] = deepest[i];
        tree[i].rope_length = segments[i].rope_length > 0 ? segments[i].rope_length : deepest[i];
    }
    for (int32_t row = 0; row < n_rows; row++) end[row] = tree[seg[row]].subtree_end;

    for (int32_t e = 0; e < n_labels;
         e++) { /* insertion sort: small, and keeps the order of equal rows */
        const pf_label_spec *l = &labels[e];
        int32_t row = tree[l->segment].start + l->offset, at = e;
        for (; at > 0 && label_row[at - 1] > row; at--) {
            label_row[at] = label_row[at - 1];
            label_target[at] = label_target[at - 1];
            label_sample[at] = label_sample[at - 1];
            label_weight[at] = label_weight[at - 1];
        }
        label_row[at] = row;
        label_target[at] = l->target;
        label_sample[at] = l->sample;
        label_weight[at] = l->weight;
    }
    *out = (pf_batch){.n_tokens = n_rows,
                      .ids = ids,
                      .pos = pos,
                      .seg = seg,
                      .end = end,
                      .sample = sample,
                      .segments = tree,
                      .n_segments = n_segments,
                      .n_labels = n_labels,
                      .label_row = label_row,
                      .label_target = label_target,
                      .label_weight = label_weight,
                      .label_sample = label_sample};
    return PEFT_OK;
}

/* n numbers behind `lead` equal ones, each raised by `add` */
static int32_t *behind(pf_arena *a, const int32_t *in, int32_t n, int32_t lead, int32_t first,
                       int32_t add) {
    int32_t *out = PF_NEW_ARRAY(a, int32_t, lead + n);
    for (int32_t i = 0; out != NULL && i < lead + n; i++)
        out[i] = i < lead ? first : in[i - lead] + add;
    return out;
}

peft_status pf_batch_behind(pf_batch *out, pf_arena *a, const pf_batch *in, int32_t prompt_rows,
                            int32_t prefix_rows, bool apart, peft_error *err) {
    const int32_t P = prompt_rows, lead = P + (apart ? 0 : prefix_rows), T = in->n_tokens,
                  S = in->n_segments;
    *out = *in;
    if (P + prefix_rows == 0) return PEFT_OK;
    int32_t *pos = behind(a, in->pos, T, P, 0, lead);
    pf_segment *segments = PF_NEW_ARRAY(a, pf_segment, S + 1);
    pf_ext_run *run = PF_NEW(a, pf_ext_run);
    const int32_t shift = P > 0 ? 1 : 0;
    out->n_prompt = P;
    out->n_tokens = P + T;
    out->n_segments = S + shift;
    out->ids = behind(a, in->ids, T, P, 0, 0);
    out->seg = behind(a, in->seg, T, P, 0, shift);
    out->end = behind(a, in->end, T, P, P + T, P);
    out->sample = behind(a, in->sample, T, P, 0, 0);
    out->label_row = behind(a, in->label_row, in->n_labels, 0, 0, P);
    out->pos = pos;
    out->segments = segments;
    out->ext_runs = run;
    out->n_ext_runs = prefix_rows > 0;
    if (pos == NULL || segments == NULL || run == NULL || out->ids == NULL || out->seg == NULL ||
        out->end == NULL || out->sample == NULL || out->label_row == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for a batch of %d rows", P + T);
    *run = (pf_ext_run){.length = prefix_rows, .row_end = P + T};
    for (int32_t i = 0; i < P; i++) pos[i] = lead - P + i;
    if (P > 0)
        segments[0] =
            (pf_segment){.length = P, .parent = -1, .subtree_end = P + T, .rope_length = lead};
    for (int32_t i = 0; i < S; i++) {
        pf_segment s = in->segments[i];
        s.start += P;
        s.subtree_end += P;
        s.rope_length += lead;
        s.parent = s.parent < 0 ? shift - 1 : s.parent + shift;
        segments[i + shift] = s;
    }
    return PEFT_OK;
}

/* The roots of a batch, each behind n rows: where its row i goes is i + (roots up to it) · n. */
static peft_status roots_behind(pf_batch *out, pf_arena *a, const pf_batch *in, int32_t n,
                                int32_t **row_to, peft_error *err) {
    const int32_t S = in->n_segments, T = in->n_tokens;
    int32_t roots = 0, *rows[6], *to = PF_NEW_ARRAY(a, int32_t, T + 1);
    pf_segment *segments = PF_NEW_ARRAY(a, pf_segment, S);
    for (int32_t i = 0; i < S; i++) roots += in->segments[i].parent < 0;
    for (int k = 0; k < 6; k++) {
        rows[k] = PF_NEW_ARRAY(a, int32_t, T + roots * n);
        PF_CHECK_ALLOC(rows[k], err);
    }
    PF_CHECK_ALLOC(to, err);
    PF_CHECK_ALLOC(segments, err);
    roots = 0;
    for (int32_t i = 0; i < S; i++) {
        const pf_segment *s = &in->segments[i];
        const bool root = s->parent < 0;
        const int32_t lead = root ? n : 0, start = s->start + roots * n;
        roots += root;
        segments[i] = *s;
        segments[i].start = start;
        segments[i].length += lead;
        segments[i].subtree_end += roots * n;
        segments[i].rope_length += n;
        for (int32_t k = 0; k < lead + s->length; k++) {
            const int32_t row = start + k, from = s->start + k - lead;
            const bool own = k >= lead;
            if (own) to[from] = row;
            rows[0][row] = own ? in->ids[from] : 0;
            rows[1][row] = own ? in->pos[from] + n : in->pos[s->start] + k;
            rows[2][row] = i;
            rows[3][row] = segments[i].subtree_end;
            rows[4][row] = in->sample[own ? from : s->start];
            rows[5][row] = own && in->type != NULL ? in->type[from] : 0;
        }
    }
    to[T] = T + roots * n;
    *out = *in;
    out->n_tokens = T + roots * n;
    out->ids = rows[0];
    out->pos = rows[1];
    out->seg = rows[2];
    out->end = rows[3];
    out->sample = rows[4];
    out->type = in->type != NULL ? rows[5] : NULL;
    out->segments = segments;
    out->prompt_each = n;
    *row_to = to;
    return PEFT_OK;
}

peft_status pf_batch_each_behind(pf_batch *out, pf_arena *a, const pf_batch *in, int32_t each_rows,
                                 peft_error *err) {
    int32_t *to;
    *out = *in;
    if (each_rows == 0) return PEFT_OK;
    if (in->source == NULL) {
        int32_t *row = PF_NEW_ARRAY(a, int32_t, in->n_labels);
        PF_CHECK_ALLOC(row, err);
        PF_TRY(roots_behind(out, a, in, each_rows, &to, err));
        for (int32_t e = 0; e < in->n_labels; e++) row[e] = to[in->label_row[e]];
        out->label_row = row;
        return PEFT_OK;
    }
    pf_batch *source = PF_NEW(a, pf_batch);
    pf_ext_run *runs = PF_NEW_ARRAY(a, pf_ext_run, in->n_source_runs);
    PF_CHECK_ALLOC(source, err);
    PF_CHECK_ALLOC(runs, err);
    PF_TRY(roots_behind(source, a, in->source, each_rows, &to, err));
    for (int32_t i = 0; i < in->n_source_runs; i++) {
        runs[i] = in->source_runs[i];
        runs[i].ext = to[runs[i].ext] - each_rows;
        runs[i].length += each_rows;
    }
    out->source = source;
    out->source_runs = runs;
    return PEFT_OK;
}

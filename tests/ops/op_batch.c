/* op_batch.c - batches for the op harness, from lists of segments. */
#include "op_fixture.h"

#include <stdio.h>
#include <stdlib.h>

/* clang-format off */
static const op_seg plain_segs[] = {{37, -1, 0}, {1, -1, 0}, {70, -1, 0}};
static const op_seg tree_segs[] = {
    {70, -1, 0},            /* a prefix longer than a block of keys */
        {9, 0, 0},
            {1, 1, 0},
            {5, 1, 0},
        {1, 0, 0},
        {66, 0, 0},
    {3, -1, 0},
    {20, -1, 0},
        {1, 7, 0},
        {1, 7, 0},
};
static const op_seg prompt_segs[] = {{5, -1, 0}, {9, 0, 0}, {1, 0, 0}, {30, 0, 0}};
static const op_seg each_segs[] = {{9, -1, 0}, {5, -1, 0}, {30, -1, 0}, {4, 2, 0}};
static const op_seg one_segs[] = {{51, -1, 0}, {9, 0, 0}, {40, 0, 0}, {1, 2, 0}};
static const op_seg ext_segs[] = {{6, -1, 0}, {1, -1, 75}, {30, -1, 20}, {4, 2, 0}, {1, 2, 0}, {50, -1, 0}};
static const op_ext ext_runs[] = {{0, 75, 0, 1}, {80, 13, 0, 2}, {93, 7, 13, 2}, {0, 5, 0, 5}};
static const op_seg decoder_segs[] = {{5, -1, 0}, {1, -1, 0}, {60, -1, 0}, {12, -1, 0}};
static const op_seg source_segs[] = {{70, -1, 0}, {1, -1, 0}, {33, -1, 0}};
static const op_seg each_source_segs[] = {{70, -1, 0}, {5, -1, 0}, {33, -1, 0}};
static const op_ext each_cross_runs[] = {{0, 70, 0, 0}, {75, 33, 0, 1}, {0, 70, 0, 2}, {70, 5, 0, 3}};
static const op_ext cross_runs[] = {{0, 70, 0, 0}, {71, 33, 0, 1}, {0, 70, 0, 2}, {70, 1, 0, 3}};
/* clang-format on */

const op_batch_spec op_batch_plain = {
    .name = "plain", .segs = plain_segs, .n_segs = PF_COUNT(plain_segs)};
const op_batch_spec op_batch_tree = {
    .name = "tree", .segs = tree_segs, .n_segs = PF_COUNT(tree_segs)};
const op_batch_spec op_batch_one = {.name = "one", .segs = one_segs, .n_segs = PF_COUNT(one_segs)};
const op_batch_spec op_batch_prompt = {
    .name = "prompt", .segs = prompt_segs, .n_segs = PF_COUNT(prompt_segs), .n_prompt = 5};
const op_batch_spec op_batch_each = {
    .name = "each", .segs = each_segs, .n_segs = PF_COUNT(each_segs), .prompt_each = 5};
const op_batch_spec op_batch_each_source = {.name = "each_source",
                                            .segs = decoder_segs,
                                            .n_segs = PF_COUNT(decoder_segs),
                                            .source = each_source_segs,
                                            .n_source = PF_COUNT(each_source_segs),
                                            .cross = each_cross_runs,
                                            .n_cross = PF_COUNT(each_cross_runs),
                                            .prompt_each = 5};
const op_batch_spec op_batch_ext = {.name = "ext",
                                    .segs = ext_segs,
                                    .n_segs = PF_COUNT(ext_segs),
                                    .ext = ext_runs,
                                    .n_ext = PF_COUNT(ext_runs),
                                    .ext_rows = 100};
const op_batch_spec op_batch_source = {.name = "source",
                                       .segs = decoder_segs,
                                       .n_segs = PF_COUNT(decoder_segs),
                                       .source = source_segs,
                                       .n_source = PF_COUNT(source_segs),
                                       .cross = cross_runs,
                                       .n_cross = PF_COUNT(cross_runs)};
static const op_seg long_segs[] = {{512, -1, 0}, {2048, -1, 0}, {8192, -1, 0}};
#define FOUR(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
#define ROOT(n)                                                                                    \
    { n, -1, 0 }
#define PROMPT(s)                                                                                  \
    {48, -1, 0}, {12, s, 0}, {12, s, 0}, {12, s, 0}, {12, s, 0}, {12, s, 0}, {12, s, 0}, {         \
        12, s, 0                                                                                   \
    }
/* clang-format off */
static const op_seg short_segs[] = {FOUR(FOUR(ROOT(32), ROOT(32)))};
static const op_seg answer_segs[] = {PROMPT(0), PROMPT(8), PROMPT(16), PROMPT(24),
                                     PROMPT(32), PROMPT(40), PROMPT(48), PROMPT(56)};
/* clang-format on */
const op_batch_spec op_batch_512 = {.name = "512", .segs = long_segs, .n_segs = 1};
const op_batch_spec op_batch_2048 = {.name = "2048", .segs = long_segs + 1, .n_segs = 1};
const op_batch_spec op_batch_8192 = {.name = "8192", .segs = long_segs + 2, .n_segs = 1};
const op_batch_spec op_batch_short = {
    .name = "short", .segs = short_segs, .n_segs = PF_COUNT(short_segs)};
const op_batch_spec op_batch_answers = {
    .name = "answers", .segs = answer_segs, .n_segs = PF_COUNT(answer_segs)};

static int root_of(const op_seg *segs, int s) {
    while (segs[s].parent >= 0) s = segs[s].parent;
    return s;
}

typedef struct entry {
    int32_t row, target, key;
} entry;

static pf_ext_run *make_runs(pf_arena *a, const op_ext *ext, int n_ext, const int *place,
                             const pf_segment *segments, int n_segments) {
    pf_ext_run *runs = PF_NEW_ARRAY(a, pf_ext_run, n_ext + 1);
    int n = 0;
    for (int k = 0; k < n_segments; k++) {
        for (int r = 0; r < n_ext; r++) {
            if (place[ext[r].seg] != k) continue;
            runs[n++] = (pf_ext_run){.ext = ext[r].ext,
                                     .length = ext[r].length,
                                     .pos = ext[r].pos,
                                     .row_begin = segments[k].start,
                                     .row_end = segments[k].subtree_end};
        }
    }
    return runs;
}

op_batch_data *op_batch_make(pf_arena *a, const op_batch_spec *spec, bool reversed) {
    int n = spec->n_segs;
    int32_t T = 0;
    int *order = PF_NEW_ARRAY(a, int, n), *place = PF_NEW_ARRAY(a, int, n),
        *first_key = PF_NEW_ARRAY(a, int, n);
    int at = 0;
    for (int k = 0; k < n; k++) { /* whole trees change places, pre-order within each stays */
        int r = reversed ? n - 1 - k : k;
        if (spec->segs[r].parent >= 0) continue;
        for (int s = 0; s < n; s++) {
            if (root_of(spec->segs, s) == r) order[at++] = s;
        }
    }
    for (int s = 0; s < n; s++) {
        first_key[s] = T;
        T += spec->segs[s].length;
    }

    op_batch_data *d = PF_NEW(a, op_batch_data);
    int32_t *ids = PF_NEW_ARRAY(a, int32_t, T), *pos = PF_NEW_ARRAY(a, int32_t, T);
    int32_t *seg = PF_NEW_ARRAY(a, int32_t, T), *end = PF_NEW_ARRAY(a, int32_t, T);
    int32_t *sample = PF_NEW_ARRAY(a, int32_t, T), *row_sample = PF_NEW_ARRAY(a, int32_t, T + n);
    pf_segment *segments = PF_NEW_ARRAY(a, pf_segment, n);
    d->row_key = PF_NEW_ARRAY(a, int32_t, T);
    int32_t row = 0;
    for (int k = 0; k < n; k++) {
        const op_seg *s = &spec->segs[order[k]];
        place[order[k]] = k;
        int parent = s->parent < 0 ? -1 : place[s->parent];
        int32_t p0 =
            parent < 0 ? s->pos : pos[segments[parent].start + segments[parent].length - 1] + 1;
        segments[k] = (pf_segment){.start = row, .length = s->length, .parent = parent};
        for (int32_t i = 0; i < s->length; i++, row++) {
            seg[row] = k;
            pos[row] = p0 + i;
            d->row_key[row] = ids[row] = first_key[order[k]] + i;
            sample[row] = root_of(spec->segs, order[k]);
        }
        for (int p = k; p >= 0; p = segments[p].parent) segments[p].subtree_end = row;
    }
    int32_t longest = 0;
    for (int k = 0; k < n; k++) {
        longest = pos[segments[k].start + segments[k].length - 1] + 1;
        for (int p = k; p >= 0; p = segments[p].parent) {
            if (segments[p].rope_length < longest) segments[p].rope_length = longest;
        }
    }
    for (int32_t i = 0; i < T; i++) end[i] = segments[seg[i]].subtree_end;

    int32_t E = 0;
    int32_t *label_row = PF_NEW_ARRAY(a, int32_t, T + n), *target = PF_NEW_ARRAY(a, int32_t, T + n);
    float *weight = PF_NEW_ARRAY(a, float, T + n);
    d->label_key = PF_NEW_ARRAY(a, int32_t, T + n);
    for (int32_t i = 0; i < T; i++) {
        int k = seg[i];
        if (i + 1 < segments[k].start + segments[k].length) {
            label_row[E] = i;
            target[E++] = ids[i + 1];
            continue;
        }
        for (int c = k + 1; c < n; c++) {
            if (segments[c].parent != k) continue;
            label_row[E] = i;
            target[E++] = ids[segments[c].start];
        }
    }
    for (int32_t e = 0; e < E; e++) {
        row_sample[e] = sample[label_row[e]];
        weight[e] = e % 3 == 0 ? 0.5f : 1.0f;
        d->label_key[e] = target[e]; /* a token is predicted once */
    }

    pf_ext_run *runs = make_runs(a, spec->ext, spec->n_ext, place, segments, n);
    pf_ext_run *source_runs = make_runs(a, spec->cross, spec->n_cross, place, segments, n);
    pf_batch *source = NULL;
    if (spec->n_source > 0) {
        const op_batch_spec rows = {.name = spec->name,
                                    .segs = spec->source,
                                    .n_segs = spec->n_source,
                                    .prompt_each = spec->prompt_each};
        source = &op_batch_make(a, &rows, false)->b;
        source->n_labels = 0;
    }
    d->b = (pf_batch){.n_tokens = T,
                      .ids = ids,
                      .pos = pos,
                      .seg = seg,
                      .end = end,
                      .sample = sample,
                      .segments = segments,
                      .n_segments = n,
                      .n_prompt = spec->n_prompt,
                      .prompt_each = source == NULL ? spec->prompt_each : 0,
                      .n_labels = E,
                      .label_row = label_row,
                      .label_target = target,
                      .label_weight = weight,
                      .label_sample = row_sample,
                      .ext_runs = runs,
                      .n_ext_runs = spec->n_ext,
                      .source = source,
                      .source_runs = source_runs,
                      .n_source_runs = spec->n_cross,
                      .step = 7};
    peft_error err = {0};
    if (pf_batch_check(&d->b, source != NULL && source->n_tokens > T ? source->n_tokens : T,
                       spec->ext_rows, &err) != PEFT_OK) {
        fprintf(stderr, "batch '%s': %s\n", spec->name, err.message);
        exit(1);
    }
    return d;
}

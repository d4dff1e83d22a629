/* batch_builder.c - the cut of a step into micro-batches, and the arrays of each.
 *
 * The plan of a step is an order of its samples and, for each, how many leading rows it shares with
 * the sample before it (prefix_tree.c). From there on trees need no pointers: the rows of any run
 * of that order are the unshared tails one after the other, and a micro-batch is a few such runs.
 */
#include "data/batch_builder.h"

#include "base/arena.h"
#include "data/prefix_tree.h"

#include <string.h>

/* Why a segment starts at a row: it is the first of a tail, or a later tail leaves the one it is in
 * just before it. */
enum { INSIDE = 1, TAIL = 2 };

struct pf_batch_builder {
    pf_arena arena;
    pf_batch_builder_options opt;
    const pf_sample *samples; /* of the step */
    uint64_t step;
    pf_batch_figures figures;
    pf_prefix_tree tree;
    int32_t *micro_of; /* of each sample in the order of the tree */
    /* per micro-batch: rows and labels so far; what the next sample of the tree in hand would share
     * in it */
    int32_t *micro_rows, *micro_labels, *micro_shared;
    int32_t *micro_source; /* how many of its rows are sources */
    int32_t n_micro;
    /* the arrays of the micro-batch that was asked for last */
    int32_t *ids, *pos, *seg, *end, *sample, *type; /* (max_tokens) */
    pf_segment *segments;                           /* (max_segments) */
    int32_t *label_row, *label_target, *label_sample;
    float *label_weight;
    const float **label_values;
    bool has_values; /* the samples of the step */
    /* the rows of the encoder, likewise: up to max_tokens, a segment for each sample */
    int32_t *source_ids, *source_pos, *source_seg, *source_end, *source_sample;
    pf_segment *source_segments;
    pf_ext_run *source_runs;
    pf_batch source;
    /* scratch of get */
    int32_t *path_row;             /* row of each depth on the path to the current sample */
    int32_t *chunk_row, *chunk_at; /* stack: first row and first depth of the tails on that path */
    pf_ext_run prefix;             /* what every row sees of a learned prefix */
    unsigned char *starts;         /* (max_tokens + 1) INSIDE or TAIL where a segment starts */
    int32_t *parent_row;           /* (max_tokens) for the first row of a tail: row before it; -1 */
    int32_t *row_labels;           /* (max_tokens + 1) entries of each row, then where they go */
};

static int32_t first_label(const pf_sample *s) {
    return s->classes != NULL ? 0 : s->first_label;
}

/* Positions before the first of a sample. */
static int32_t lead_of(const pf_batch_builder *bb) {
    return bb->opt.prompt_rows + (bb->opt.prefix_apart ? 0 : bb->opt.prefix_rows);
}

static int32_t end_label(const pf_sample *s) {
    return s->end_label > 0 && s->classes == NULL ? s->end_label : s->n_tokens;
}

static bool is_label(const pf_sample *s, int32_t k) {
    if (s->classes != NULL) return s->classes[k] >= 0;
    return s->weights == NULL || s->weights[k] != 0;
}

/* Rows of a learned prompt among the sample's own, and among those of its source. */
static int32_t each_of(const pf_batch_builder *bb, const pf_sample *s) {
    return s->source == NULL ? bb->opt.each_rows : 0;
}

static int32_t source_rows(const pf_batch_builder *bb, const pf_sample *s) {
    return s->source != NULL ? bb->opt.each_rows + s->n_source : 0;
}

int32_t pf_sample_rows(const pf_sample *s, bool keep_tail) {
    if (keep_tail || s->classes != NULL) return s->n_tokens;
    return s->first_label < end_label(s) ? end_label(s) - 1 : 0;
}

int32_t pf_sample_all_rows(const pf_sample *s, bool keep_tail) {
    const int32_t rows = pf_sample_rows(s, keep_tail);
    return rows > 0 && s->source != NULL ? rows + s->n_source : rows;
}

/* The same behind a learned prompt of its own. */
static int32_t rows_of(const pf_batch_builder *bb, const pf_sample *s) {
    const int32_t rows = pf_sample_rows(s, bb->opt.keep_tail);
    return rows > 0 ? each_of(bb, s) + rows : 0;
}

static int32_t all_rows_of(const pf_batch_builder *bb, const pf_sample *s) {
    const int32_t rows = rows_of(bb, s);
    return rows > 0 ? rows + source_rows(bb, s) : 0;
}

/* Depth of the row whose entry token k is: a token is predicted by the one before it, its class is
 * told by itself, that of a whole text by the first row. */
static int32_t row_of_label(const pf_batch_builder *bb, const pf_sample *s, int32_t k) {
    if (s->classes != NULL && k == 0) return 0;
    return each_of(bb, s) + (s->classes != NULL ? k : k - 1);
}

static int32_t sample_labels(const pf_sample *s) {
    int32_t n = 0, end = end_label(s);
    if (s->weights == NULL && s->classes == NULL)
        return s->first_label < end ? end - s->first_label : 0;
    for (int32_t k = first_label(s); k < end; k++) n += is_label(s, k);
    return n;
}

peft_status pf_batch_builder_new(pf_batch_builder **out, const pf_batch_builder_options *opt,
                                 peft_error *err) {
    *out = NULL;
    if (opt->max_tokens < 1 || opt->max_labels < 0 || opt->max_samples < 1 ||
        opt->rope_original < 0 || opt->prompt_rows < 0 || opt->prefix_rows < 0 ||
        opt->each_rows < 0)
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "batch builder: %d rows, %d labels, %d samples; each must be positive",
                       opt->max_tokens, opt->max_labels, opt->max_samples);
    pf_arena arena;
    pf_arena_init(&arena, "batch");
    pf_batch_builder *bb = PF_NEW(&arena, pf_batch_builder);
    if (bb == NULL) goto nomem;
    bb->opt = *opt;
    if (bb->opt.max_labels == 0) bb->opt.max_labels = opt->max_tokens;
    size_t T = (size_t)opt->max_tokens, E = (size_t)bb->opt.max_labels,
           N = (size_t)opt->max_samples;
    /* a tail is one segment, and cuts at most one other in two; and the prompt */
    size_t S = (2 * N < T ? 2 * N : T) + 1;
    bb->micro_of = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->micro_shared = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->micro_rows = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->micro_labels = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->micro_source = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->ids = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->pos = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->seg = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->type = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->end = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->sample = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->segments = PF_NEW_ARRAY(&arena, pf_segment, S);
    bb->label_row = PF_NEW_ARRAY(&arena, int32_t, E);
    bb->label_target = PF_NEW_ARRAY(&arena, int32_t, E);
    bb->label_sample = PF_NEW_ARRAY(&arena, int32_t, E);
    bb->label_weight = PF_NEW_ARRAY(&arena, float, E);
    bb->label_values = PF_NEW_ARRAY(&arena, const float *, E);
    bb->path_row = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->chunk_row = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->chunk_at = PF_NEW_ARRAY(&arena, int32_t, N);
    bb->starts = PF_NEW_ARRAY(&arena, unsigned char, T + 1);
    bb->parent_row = PF_NEW_ARRAY(&arena, int32_t, T);
    bb->row_labels = PF_NEW_ARRAY(&arena, int32_t, T + 1);
    if (bb->micro_of == NULL || bb->micro_shared == NULL || bb->micro_rows == NULL ||
        bb->micro_labels == NULL || bb->ids == NULL || bb->pos == NULL || bb->seg == NULL ||
        bb->type == NULL || bb->end == NULL || bb->sample == NULL || bb->segments == NULL ||
        bb->label_row == NULL || bb->label_target == NULL || bb->label_sample == NULL ||
        bb->label_weight == NULL || bb->label_values == NULL || bb->path_row == NULL ||
        bb->chunk_row == NULL || bb->chunk_at == NULL || bb->starts == NULL ||
        bb->parent_row == NULL || bb->row_labels == NULL || bb->micro_source == NULL ||
        !pf_prefix_tree_reserve(&bb->tree, &arena, opt->max_samples))
        goto nomem;
    bb->arena = arena; /* the builder lives in its own arena; nothing is taken from it later */
    *out = bb;
    return PEFT_OK;
nomem:
    pf_arena_release(&arena);
    return PF_FAIL(err, PEFT_E_NOMEM,
                   "out of memory for micro-batches of %d rows and steps of %d samples",
                   opt->max_tokens, opt->max_samples);
}

void pf_batch_builder_free(pf_batch_builder *bb) {
    if (bb == NULL) return;
    pf_arena arena = bb->arena;
    pf_arena_release(&arena);
}

/* Most models have no sources: their arrays are made when the first one comes, once. */
static peft_status reserve_source(pf_batch_builder *bb, peft_error *err) {
    if (bb->source_ids != NULL) return PEFT_OK;
    const size_t T = (size_t)bb->opt.max_tokens, N = (size_t)bb->opt.max_samples;
    int32_t **rows[] = {&bb->source_pos, &bb->source_seg, &bb->source_end, &bb->source_sample,
                        &bb->source_ids};
    bb->source_segments = PF_NEW_ARRAY(&bb->arena, pf_segment, N);
    bb->source_runs = PF_NEW_ARRAY(&bb->arena, pf_ext_run, N);
    PF_CHECK_ALLOC(bb->source_segments, err);
    PF_CHECK_ALLOC(bb->source_runs, err);
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        *rows[i] = PF_NEW_ARRAY(&bb->arena, int32_t, T);
        PF_CHECK_ALLOC(*rows[i], err);
    }
    return PEFT_OK;
}

static bool has_room(const pf_batch_builder *bb, int32_t m, int64_t rows, int64_t labels) {
    return rows <= bb->opt.max_tokens - bb->micro_rows[m] &&
           labels <= bb->opt.max_labels - bb->micro_labels[m];
}

static void put(pf_batch_builder *bb, int32_t i, int32_t m, int32_t rows, int32_t labels) {
    if (m == bb->n_micro) {
        bb->micro_rows[m] = bb->opt.prompt_rows;
        bb->micro_labels[m] = bb->micro_shared[m] = bb->micro_source[m] = 0;
        bb->figures.rows += bb->opt.prompt_rows;
        bb->figures.rows_plain += bb->opt.prompt_rows;
        bb->n_micro++;
    }
    const pf_sample *s = &bb->samples[bb->tree.order[i]];
    bb->micro_source[m] += source_rows(bb, s);
    bb->micro_of[i] = m;
    bb->micro_rows[m] += rows;
    bb->micro_labels[m] += labels;
    bb->figures.rows += rows;
}

/* A tree that no micro-batch can hold: each sample goes where it adds the fewest rows. */
static void place_by_sample(pf_batch_builder *bb, int32_t begin, int32_t end) {
    const pf_prefix_tree *t = &bb->tree;
    for (int32_t m = 0; m < bb->n_micro; m++) bb->micro_shared[m] = 0;
    for (int32_t i = begin; i < end; i++) {
        const pf_sample *s = &bb->samples[t->order[i]];
        int32_t length = rows_of(bb, s), labels = sample_labels(s);
        int32_t best = bb->n_micro, fewest = length + 1;
        for (int32_t m = 0; m < bb->n_micro; m++) {
            if (bb->micro_shared[m] > t->shared[i]) bb->micro_shared[m] = t->shared[i];
            int32_t rows = length - bb->micro_shared[m];
            if (rows < fewest && has_room(bb, m, rows, labels)) {
                best = m;
                fewest = rows;
            }
        }
        put(bb, i, best, fewest > length ? length : fewest, labels);
        bb->micro_shared[best] = length;
    }
}

/* Whole trees go to the first micro-batch with room. */
static void cut(pf_batch_builder *bb) {
    const pf_prefix_tree *t = &bb->tree;
    for (int32_t begin = 0, end = 0; begin < t->n_order; begin = end) {
        int64_t rows = 0, labels = 0;
        do {
            const pf_sample *s = &bb->samples[t->order[end]];
            rows += all_rows_of(bb, s) - t->shared[end];
            labels += sample_labels(s);
        } while (++end < t->n_order && t->shared[end] > 0);
        if (rows > bb->opt.max_tokens - bb->opt.prompt_rows || labels > bb->opt.max_labels) {
            place_by_sample(bb, begin, end);
            continue;
        }
        int32_t m = 0;
        while (m < bb->n_micro && !has_room(bb, m, rows, labels)) m++;
        for (int32_t i = begin; i < end; i++) {
            const pf_sample *s = &bb->samples[t->order[i]];
            put(bb, i, m, all_rows_of(bb, s) - t->shared[i], sample_labels(s));
        }
    }
}

/* The prefix tree counts the tokens of a sample alone. */
static int32_t rope_original_of(const pf_batch_builder *bb) {
    const int32_t original = bb->opt.rope_original;
    return original == 0 ? 0 : original > lead_of(bb) ? original - lead_of(bb) : 1;
}

peft_status pf_batch_builder_begin(pf_batch_builder *bb, const pf_sample *samples, int32_t n,
                                   uint64_t step, int32_t *n_micro, peft_error *err) {
    *n_micro = 0;
    bb->n_micro = 0;
    bb->samples = samples;
    bb->step = step;
    memset(&bb->figures, 0, sizeof bb->figures);
    if (n < 0 || n > bb->opt.max_samples)
        return PF_FAIL(err, PEFT_E_SHAPE, "batch builder: a step of %d samples, planned were %d", n,
                       bb->opt.max_samples);
    bool has_source = false;
    bb->has_values = n > 0 && samples[0].values != NULL;
    for (int32_t i = 0; i < n; i++) {
        const pf_sample *s = &samples[i];
        int32_t rows = all_rows_of(bb, s), labels = sample_labels(s);
        if (s->source != NULL) PF_TRY(reserve_source(bb, err));
        has_source |= s->source != NULL;
        if (s->n_tokens < 1 || (s->first_label < 1 && s->classes == NULL) ||
            s->end_label > s->n_tokens || (s->source != NULL && s->n_source < 1))
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch builder: sample %d has %d tokens and labels from %d to %d",
                           s->index, s->n_tokens, s->first_label, end_label(s));
        if (rows > bb->opt.max_tokens - bb->opt.prompt_rows || labels > bb->opt.max_labels)
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "batch builder: sample %d needs %d rows and %d labels, a micro-batch "
                           "was planned with %d and %d",
                           s->index, rows, labels, bb->opt.max_tokens - bb->opt.prompt_rows,
                           bb->opt.max_labels);
        if (bb->opt.prompt_rows > 0 && bb->opt.rope_original > 0 &&
            lead_of(bb) + s->n_tokens > bb->opt.rope_original)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "sample %d has %d tokens, with the learned prompt %d: beyond %d this "
                           "model's RoPE turns every sample by its own length (rope_type dynamic), "
                           "and a prompt that samples share has no one length; lower "
                           "training.max_length",
                           s->index, s->n_tokens, lead_of(bb) + s->n_tokens, bb->opt.rope_original);
        bb->figures.rows_plain += rows;
        bb->figures.labels += labels;
        if (s->classes != NULL && s->class_weights != NULL) {
            for (int32_t k = 0; k < s->n_tokens; k++)
                if (is_label(s, k))
                    bb->figures.label_weight += (double)s->class_weights[s->classes[k]];
        } else if (s->weights == NULL || s->classes != NULL)
            bb->figures.label_weight += labels;
        else
            for (int32_t k = s->first_label; k < end_label(s); k++)
                bb->figures.label_weight += (double)s->weights[k];
    }
    const bool own = has_source || bb->opt.each_rows > 0; /* what a row is depends on its sample */
    bool share = !own && (bb->opt.share == PF_SHARE_ALWAYS ||
                          (bb->opt.share == PF_SHARE_AUTO && !bb->opt.dropout));
    pf_prefix_tree_build(&bb->tree, samples, n,
                         &(pf_prefix_tree_options){
                             .share = share,
                             .overhead = bb->opt.share == PF_SHARE_ALWAYS ? 1 : PF_SHARE_OVERHEAD,
                             .below = bb->opt.share == PF_SHARE_ALWAYS ? 0 : PF_SHARE_BELOW,
                             .rope_original = rope_original_of(bb),
                             .keep_tail = bb->opt.keep_tail,
                         });
    cut(bb);
    for (int32_t m = 0; m < bb->n_micro; m++) {
        pf_batch_figures *f = &bb->figures;
        if (bb->micro_rows[m] > f->most_rows) f->most_rows = bb->micro_rows[m];
        if (bb->micro_labels[m] > f->most_labels) f->most_labels = bb->micro_labels[m];
        const int32_t source = bb->micro_source[m], target = bb->micro_rows[m] - source;
        if (source > f->most_source) f->most_source = source;
        if (target > f->most_target) f->most_target = target;
    }
    *n_micro = bb->n_micro;
    return PEFT_OK;
}

pf_batch_figures pf_batch_builder_figures(const pf_batch_builder *bb) {
    return bb->figures;
}

/* Keys of the rows [shared, length) of a sample: rows of a kept prefix belong to the first sample
 * below it, also where the tree was cut and that sample stands in another micro-batch. */
static void place_keys(pf_batch_builder *bb, int32_t sample, int32_t shared, int32_t length,
                       int32_t row) {
    const pf_prefix_tree *t = &bb->tree;
    int32_t node = t->leaf_parent[sample], owner = sample;
    while (length > shared) {
        int32_t from = node < 0 ? 0 : t->nodes[node].depth;
        if (from < shared) from = shared;
        for (int32_t d = from; d < length; d++)
            bb->sample[row + d - shared] = bb->samples[owner].index;
        length = from;
        if (node < 0) break;
        owner = t->nodes[node].first;
        node = t->nodes[node].parent;
    }
}

/* Goes through the samples of micro-batch m: *i is one after the last one at first (0), *shared
 * what the next one shares with it. */
static bool next_sample(const pf_batch_builder *bb, int32_t m, int32_t *i, int32_t *shared) {
    const pf_prefix_tree *t = &bb->tree;
    *shared = *i == 0 ? 0 : INT32_MAX;
    for (; *i < t->n_order; ++*i) {
        if (t->shared[*i] < *shared) *shared = t->shared[*i];
        if (bb->micro_of[*i] == m) {
            ++*i;
            return true;
        }
    }
    return false;
}

/* The rows of a learned prompt; their ids mean nothing, and nothing is predicted by them. */
static void place_prompt(pf_batch_builder *bb) {
    const int32_t n = bb->opt.prompt_rows;
    if (n == 0) return;
    bb->starts[0] = TAIL;
    bb->parent_row[0] = -1;
    for (int32_t row = 0; row < n; row++) {
        bb->ids[row] = bb->sample[row] = bb->row_labels[row] = 0;
        bb->pos[row] = lead_of(bb) - n + row;
        bb->type[row] = 0;
        bb->end[row] = lead_of(bb);
    }
}

/* Rows, and the number of entries on each. Marks where segments start: at each tail, and where a
 * later one leaves it. */
static void place_rows(pf_batch_builder *bb, int32_t m) {
    int32_t depth = 0; /* of the stack of tails on the path to the current sample */
    const int32_t prompt = bb->opt.prompt_rows, lead = lead_of(bb);
    place_prompt(bb);
    for (int32_t i = 0, row = prompt, shared = 0; next_sample(bb, m, &i, &shared);) {
        const pf_sample *s = &bb->samples[bb->tree.order[i - 1]];
        const int32_t each = each_of(bb, s), length = rows_of(bb, s);
        if (length > shared) {
            while (depth > 0 && bb->chunk_at[depth - 1] >= shared) depth--;
            bb->parent_row[row] = prompt - 1;
            if (depth > 0) {
                int32_t last = bb->chunk_row[depth - 1] + shared - 1 - bb->chunk_at[depth - 1];
                bb->parent_row[row] = last;
                if (bb->starts[last + 1] == 0) bb->starts[last + 1] = INSIDE;
            }
            bb->chunk_row[depth] = row;
            bb->chunk_at[depth++] = shared;
            bb->starts[row] = TAIL;
        }
        place_keys(bb, bb->tree.order[i - 1], shared, length, row);
        for (int32_t d = shared; d < length; d++, row++) {
            bb->ids[row] = d < each ? 0 : s->tokens[d - each];
            bb->pos[row] = lead + d;
            bb->type[row] = s->second_from > 0 && d - each >= s->second_from;
            bb->end[row] = lead + each + s->n_tokens; /* for make_segments */
            bb->path_row[d] = row;
            bb->row_labels[row] = 0;
        }
        for (int32_t k = first_label(s); k < end_label(s); k++)
            if (is_label(s, k)) bb->row_labels[bb->path_row[row_of_label(bb, s, k)]]++;
    }
}

static int32_t make_segments(pf_batch_builder *bb, int32_t n_rows) {
    int32_t n = -1;
    for (int32_t row = 0; row < n_rows; row++) {
        if (bb->starts[row] != 0) {
            int32_t before = bb->starts[row] == TAIL ? bb->parent_row[row] : row - 1;
            bb->segments[++n] = (pf_segment){
                .start = row,
                .parent = before < 0 ? -1 : bb->seg[before],
                .rope_length = bb->end[row],
            };
        }
        bb->segments[n].length++;
        bb->seg[row] = n;
    }
    n++;
    for (int32_t i = 0; i < n; i++)
        bb->segments[i].subtree_end = bb->segments[i].start + bb->segments[i].length;
    for (int32_t i = n - 1; i >= 0; i--) { /* children come after their parent */
        pf_segment *s = &bb->segments[i];
        if (s->parent >= 0 && bb->segments[s->parent].subtree_end < s->subtree_end)
            bb->segments[s->parent].subtree_end = s->subtree_end;
    }
    for (int32_t row = 0; row < n_rows; row++)
        bb->end[row] = bb->segments[bb->seg[row]].subtree_end;
    return n;
}

/* row_labels says where the entries of a row go: they end up sorted by row, then in the order of
 * the samples. */
static void place_labels(pf_batch_builder *bb, int32_t m) {
    for (int32_t i = 0, row = bb->opt.prompt_rows, shared = 0; next_sample(bb, m, &i, &shared);) {
        const pf_sample *s = &bb->samples[bb->tree.order[i - 1]];
        const int32_t length = rows_of(bb, s);
        for (int32_t d = shared; d < length; d++) bb->path_row[d] = row++;
        for (int32_t k = first_label(s); k < end_label(s); k++) {
            if (!is_label(s, k)) continue;
            const int32_t row_of = bb->path_row[row_of_label(bb, s, k)],
                          e = bb->row_labels[row_of]++;
            const float *by_class = s->classes != NULL ? s->class_weights : NULL;
            const bool weighs = s->weights != NULL && s->classes == NULL;
            bb->label_row[e] = row_of;
            bb->label_target[e] = s->classes != NULL ? s->classes[k] : s->tokens[k];
            bb->label_weight[e] = weighs             ? s->weights[k]
                                  : by_class != NULL ? by_class[s->classes[k]]
                                                     : 1.0f;
            bb->label_sample[e] = s->index;
            bb->label_values[e] = s->values;
        }
    }
}

/* The source of each sample is a segment, seen by the rows of the sample. */
static void place_source(pf_batch_builder *bb, int32_t m) {
    int32_t row = 0, n = 0;
    for (int32_t i = 0, at = 0, shared = 0; next_sample(bb, m, &i, &shared);) {
        const pf_sample *s = &bb->samples[bb->tree.order[i - 1]];
        const int32_t rows = rows_of(bb, s), start = row, length = source_rows(bb, s),
                      each = length - s->n_source;
        for (int32_t k = 0; k < length; k++, row++) {
            bb->source_ids[row] = k < each ? 0 : s->source[k - each];
            bb->source_pos[row] = k;
            bb->source_seg[row] = n;
            bb->source_end[row] = start + length;
            bb->source_sample[row] = s->index;
        }
        bb->source_segments[n] = (pf_segment){.start = start,
                                              .length = length,
                                              .parent = -1,
                                              .subtree_end = row,
                                              .rope_length = length};
        bb->source_runs[n++] =
            (pf_ext_run){.ext = start, .length = length, .row_begin = at, .row_end = at + rows};
        at += rows;
    }
    bb->source = (pf_batch){.n_tokens = row,
                            .ids = bb->source_ids,
                            .pos = bb->source_pos,
                            .seg = bb->source_seg,
                            .end = bb->source_end,
                            .sample = bb->source_sample,
                            .segments = bb->source_segments,
                            .n_segments = n,
                            .prompt_each = bb->opt.each_rows,
                            .step = bb->step};
}

void pf_batch_builder_get(pf_batch_builder *bb, int32_t i, pf_batch *out) {
    PF_ASSERT(i >= 0 && i < bb->n_micro);
    int32_t n_rows = bb->micro_rows[i] - bb->micro_source[i], n_labels = 0;
    memset(bb->starts, 0, (size_t)n_rows + 1);
    place_rows(bb, i);
    for (int32_t row = 0; row < n_rows; row++) {
        int32_t count = bb->row_labels[row];
        bb->row_labels[row] = n_labels;
        n_labels += count;
    }
    PF_ASSERT(n_labels == bb->micro_labels[i]);
    int32_t n_segments = make_segments(bb, n_rows);
    place_labels(bb, i);
    bb->prefix = (pf_ext_run){.length = bb->opt.prefix_rows, .row_end = n_rows};
    *out = (pf_batch){
        .n_tokens = n_rows,
        .ids = bb->ids,
        .pos = bb->pos,
        .seg = bb->seg,
        .type = bb->type,
        .end = bb->end,
        .sample = bb->sample,
        .segments = bb->segments,
        .n_segments = n_segments,
        .n_prompt = bb->opt.prompt_rows,
        .ext_runs = &bb->prefix,
        .n_ext_runs = bb->opt.prefix_rows > 0,
        .n_labels = n_labels,
        .label_row = bb->label_row,
        .label_target = bb->label_target,
        .label_weight = bb->label_weight,
        .label_sample = bb->label_sample,
        .label_values = bb->has_values ? bb->label_values : NULL,
        .step = bb->step,
    };
    if (bb->micro_source[i] == 0) {
        out->prompt_each = bb->opt.each_rows;
        return;
    }
    place_source(bb, i);
    out->source = &bb->source;
    out->source_runs = bb->source_runs;
    out->n_source_runs = bb->source.n_segments;
}

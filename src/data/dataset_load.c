/* dataset_load.c - file -> rendered rows -> tokens -> the examples that are kept. Rows that are
 * tokens already skip the middle.
 *
 * Three passes: read and render row by row; tokenize in blocks of rows, each block into memory of
 * its own; join the blocks in order while the length rules are applied. Only the second one uses
 * threads, and a block does not know of the others, so the result is that of one thread. */
#include "data/dataset.h"

#include "base/log.h"
#include "base/mem.h"
#include "data/label_values.h"
#include "data/template.h"
#include "token/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 64 /* rows */, MAX_ROW = 1 << 30 /* bytes of rendered text */ };

typedef struct row { /* rendered, then tokenized */
    int64_t row, line;
    size_t text, n_text, n_prompt_text;
    pf_encoded encoded;
    pf_token_row given;     /* rows that are tokens already */
    pf_class_row made;      /* rows whose target is a class */
    size_t n_first;         /* bytes of the first of two texts */
    int64_t words, n_words; /* in loader.lengths and loader.tags */
    bool clipped;           /* source or target were cut while encoding */
} row;

typedef struct loader {
    pf_dataset *ds;
    const pf_dataset_options *opt;
    pf_buf text;
    pf_buf rows; /* row[] */
    pf_buf *ids; /* per block, int32_t[] */
    int n_blocks;
    pf_buf *classes;      /* per block, int32_t[]: rows of words */
    pf_buf values;        /* float[]: targets that are numbers, n_values of each row */
    pf_buf lengths, tags; /* uint32_t[] bytes and int32_t[] classes of their words */
    pf_buf learned; /* rows that are tokens already: one byte per token; their ids are ids[0] */
    pthread_mutex_t lock; /* of the two below */
    int failed;           /* first block with an error; n_blocks: none */
    peft_error error;
} loader;

static bool has_classes(const loader *l) {
    const pf_class_columns *c = &l->opt->classes.columns;
    return c->label != NULL || c->many != NULL;
}

static bool has_values(const loader *l) {
    return has_classes(l) && pf_problem_has_values(l->opt->classes.problem);
}

static row *rows_of(const loader *l) {
    return (row *)(void *)l->rows.data;
}

static int64_t count_rows(const loader *l) {
    return (int64_t)(l->rows.len / sizeof(row));
}

static peft_status add_row(loader *l, row *one, const pf_record *r, peft_error *err) {
    one->n_text = l->text.len - one->text;
    if (one->n_text > MAX_ROW)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld has %zu bytes of text, at most %d fit", r->path,
                       (long long)r->line, (long long)r->row, one->n_text, MAX_ROW);
    pf_buf_add(&l->rows, one, sizeof *one);
    if (!pf_buf_ok(&l->rows) || !pf_buf_ok(&l->text) || !pf_buf_ok(&l->lengths) ||
        !pf_buf_ok(&l->tags) || !pf_buf_ok(&l->values))
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory after %lld rows", r->path,
                       (long long)r->row);
    return PEFT_OK;
}

static peft_status render(loader *l, pf_template *first, pf_template *second, const pf_record *r,
                          peft_error *err) {
    row one = {.row = r->row, .line = r->line, .text = l->text.len};
    PF_TRY(pf_template_render(first, r, &l->text, err));
    if (second != NULL) {
        one.n_prompt_text = l->text.len - one.text;
        PF_TRY(pf_template_render(second, r, &l->text, err));
    }
    return add_row(l, &one, r, err);
}

static peft_status take_tokens(loader *l, const char *labels, const pf_record *r, peft_error *err) {
    row one = {.row = r->row, .line = r->line};
    PF_TRY(pf_token_row_read(&l->opt->tokens, labels, r, &l->ids[0], &l->learned, &one.given, err));
    one.encoded = (pf_encoded){.n_tokens = one.given.n_tokens, .n_prompt = one.given.first_label};
    pf_buf_add(&l->rows, &one, sizeof one);
    if (!pf_buf_ok(&l->rows))
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory after %lld rows", r->path,
                       (long long)r->row);
    return PEFT_OK;
}

/* Target and text of a row whose target is several classes, or numbers. */
static peft_status take_values(loader *l, pf_arena *a, const pf_record *r, peft_error *err) {
    const pf_class_rules *c = &l->opt->classes;
    float *v = PF_NEW_ARRAY(a, float, c->labels->n);
    PF_CHECK_ALLOC(v, err);
    PF_TRY(pf_label_values(c, r, a, v, err));
    pf_buf_add(&l->values, v, (size_t)c->labels->n * sizeof *v);
    pf_label_values_text(c->problem, c->labels, v, &l->text);
    return PEFT_OK;
}

/* A text, or two, and its class. */
static peft_status take_class(loader *l, pf_arena *a, pf_template *first, pf_template *second,
                              const pf_record *r, peft_error *err) {
    const pf_class_rules *c = &l->opt->classes;
    row one = {.row = r->row, .line = r->line, .text = l->text.len};
    pf_str label;
    PF_TRY(pf_template_render(first, r, &l->text, err));
    one.n_first = l->text.len - one.text;
    if (second != NULL) PF_TRY(pf_template_render(second, r, &l->text, err));
    one.n_prompt_text = l->text.len - one.text;
    if (has_values(l)) {
        PF_TRY(take_values(l, a, r, err));
        return add_row(l, &one, r, err);
    }
    PF_TRY(pf_record_label(r, c->columns.label, &label, err));
    PF_TRY(pf_label_id(c->labels, label, r, c->columns.label, &one.made.label, err));
    pf_buf_adds(&l->text, c->labels->items[one.made.label]);
    return add_row(l, &one, r, err);
}

/* Words and their classes; shown as words, then as classes, with blanks between them. */
static peft_status take_words(loader *l, pf_arena *a, const pf_record *r, peft_error *err) {
    const pf_class_rules *c = &l->opt->classes;
    row one = {.row = r->row, .line = r->line, .text = l->text.len};
    const pf_str *words, *tags;
    int n, n_tags;
    PF_TRY(pf_record_words(r, c->columns.words, "data.words", a, &words, &n, err));
    PF_TRY(pf_record_words(r, c->columns.label, "data.label", a, &tags, &n_tags, err));
    if (n != n_tags)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s:%lld: row %lld has %d %s and %d %s; each word needs its class", r->path,
                       (long long)r->line, (long long)r->row, n, c->columns.words, n_tags,
                       c->columns.label);
    one.words = (int64_t)(l->tags.len / sizeof(int32_t));
    one.n_words = n;
    for (int i = 0; i < n; i++) {
        int32_t id;
        const uint32_t length = (uint32_t)words[i].n;
        if (words[i].n > MAX_ROW)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s:%lld: row %lld: word %d is too long", r->path,
                           (long long)r->line, (long long)r->row, i);
        PF_TRY(pf_label_id(c->labels, tags[i], r, c->columns.label, &id, err));
        pf_buf_add(&l->text, words[i].p, words[i].n);
        if (i + 1 < n) pf_buf_addc(&l->text, ' ');
        pf_buf_add(&l->lengths, &length, sizeof length);
        pf_buf_add(&l->tags, &id, sizeof id);
    }
    one.n_first = one.n_prompt_text = l->text.len - one.text;
    for (int i = 0; i < n; i++)
        pf_buf_addf(&l->text, "%s%s", i == 0 ? "" : " ",
                    c->labels->items[((const int32_t *)(const void *)l->tags.data)[one.words + i]]);
    return add_row(l, &one, r, err);
}

/* {name?} is empty where a row lacks the column; where all rows do, somebody should know. */
static void warn_unseen(const pf_template *t, const char *path) {
    const pf_str name = t == NULL ? (pf_str){0} : pf_template_unseen(t);
    if (name.n > 0)
        PF_WARN("%s: no row has a column \"%.*s\": what %s takes from it is empty everywhere", path,
                name.n < 200 ? (int)name.n : 200, name.p, t->key);
}

static peft_status read_rows(loader *l, const char *path, peft_error *err) {
    const pf_dataset_options *opt = l->opt;
    pf_dataset *ds = l->ds;
    pf_template first = {0}, second = {0};
    const char *labels = NULL;
    const bool words = opt->classes.columns.words != NULL;
    ds->plain_text = opt->text != NULL && !has_classes(l);
    ds->labels = has_classes(l) ? opt->classes.labels : NULL;
    ds->from_tokens = opt->tokens.ids != NULL;
    if (ds->from_tokens) {
        l->n_blocks = 1;
        l->ids = pf_calloc(1, sizeof *l->ids);
        PF_CHECK_ALLOC(l->ids, err);
    } else if (has_classes(l)) {
        if (!words) PF_TRY(pf_template_compile(&first, &ds->arena, "data.text", opt->text, err));
        if (opt->classes.pair != NULL)
            PF_TRY(
                pf_template_compile(&second, &ds->arena, "data.text_pair", opt->classes.pair, err));
    } else if (ds->plain_text) {
        PF_TRY(pf_template_compile(&first, &ds->arena, "data.text", opt->text, err));
    } else {
        PF_TRY(pf_template_compile(&first, &ds->arena, "data.prompt",
                                   opt->prompt == NULL ? "" : opt->prompt, err));
        PF_TRY(pf_template_compile(&second, &ds->arena, "data.target",
                                   opt->target == NULL ? "" : opt->target, err));
    }
    pf_data_file f;
    pf_reader_options reader = opt->reader;
    reader.lists = words || has_values(l);
    PF_TRY(pf_data_file_open(&f, path, &reader, err));
    peft_status status = PEFT_OK;
    for (;;) {
        pf_record r;
        bool more = false;
        if (opt->max_rows > 0 && f.rows == opt->max_rows) break;
        status = pf_data_file_next(&f, &r, &more, err);
        if (status != PEFT_OK || !more) break;
        if (ds->from_tokens && f.rows == 1) labels = pf_token_labels_column(&opt->tokens, &r);
        pf_template *then = second.source != NULL ? &second : NULL;
        status = ds->from_tokens  ? take_tokens(l, labels, &r, err)
                 : words          ? take_words(l, &f.row, &r, err)
                 : has_classes(l) ? take_class(l, &f.row, &first, then, &r, err)
                                  : render(l, &first, ds->plain_text ? NULL : &second, &r, err);
        if (status != PEFT_OK) break;
    }
    ds->counts.rows = f.rows;
    ds->format = f.reader->name;
    memcpy(ds->file_sha256, f.sha256, sizeof f.sha256);
    if (status == PEFT_OK && f.rows == 0)
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s has no rows%s", path,
                         pf_streq(ds->format, "csv") && opt->reader.columns == NULL
                             ? ", only a header line"
                             : "");
    pf_data_file_close(&f);
    if (status == PEFT_OK) {
        warn_unseen(&first, path);
        warn_unseen(second.source == NULL ? NULL : &second, path);
    }
    return status;
}

static peft_status encode_class(loader *l, row *r, int block, pf_encoding *scratch,
                                peft_error *err) {
    const pf_class_rules *c = &l->opt->classes;
    const pf_tokenizer *t = l->opt->encode.tokenizer;
    const char *text = pf_buf_str(&l->text) + r->text;
    peft_status status;
    if (c->columns.words == NULL)
        status = pf_class_encode_text(c, t, text, r->n_first, r->n_prompt_text - r->n_first,
                                      c->pair != NULL, scratch, &l->ids[block], &r->made, err);
    else
        status = pf_class_encode_words(
            c, t, text, (const uint32_t *)(const void *)pf_buf_str(&l->lengths) + r->words,
            (const int32_t *)(const void *)pf_buf_str(&l->tags) + r->words, r->n_words, scratch,
            &l->ids[block], &l->classes[block], &r->made, err);
    r->encoded.n_tokens = pf_class_row_tokens(&r->made);
    return status;
}

/* Takes the end of a part of n tokens off, but for its last one if that is the end of the sequence.
 * Returns how many are left. */
static int32_t clip(int32_t *ids, int32_t n, int64_t most, int32_t eos) {
    if (most == 0 || n <= most) return n;
    if (ids[n - 1] == eos) ids[most - 1] = eos;
    return (int32_t)most;
}

/* data.overlength=truncate, for source and target each by itself: the row's ids are the last ones
 * of its block. */
static void clip_row(const pf_dataset_options *opt, row *r, pf_buf *block) {
    pf_encoded *e = &r->encoded;
    const int32_t eos = pf_tokenizer_special(opt->encode.tokenizer).eos, before = e->n_tokens;
    int32_t *ids = (int32_t *)(void *)(block->data + block->len) - before;
    const int32_t n = clip(ids, e->n_source, opt->max_source, eos);
    const int32_t rest = before - e->n_source; /* start and target */
    memmove(ids + n, ids + e->n_source, (size_t)rest * sizeof *ids);
    const int32_t target = clip(ids + n + 1, rest - 1, opt->max_target, eos);
    *e = (pf_encoded){.n_tokens = n + 1 + target, .n_prompt = n + 1, .n_source = n};
    block->len -= (size_t)(before - e->n_tokens) * sizeof *ids;
    r->clipped = e->n_tokens < before;
}

static void encode_block(void *ctx, int block, int worker) {
    (void)worker;
    loader *l = ctx;
    row *rows = rows_of(l);
    int64_t begin = (int64_t)block * BLOCK, n = count_rows(l);
    int64_t end = n - begin < BLOCK ? n : begin + BLOCK;
    pf_encoding scratch = {0};
    peft_error err = {0};
    for (int64_t i = begin; i < end; i++) {
        row *r = &rows[i];
        peft_status status =
            has_classes(l)
                ? encode_class(l, r, block, &scratch, &err)
                : pf_example_encode(&l->opt->encode, pf_buf_str(&l->text) + r->text, r->n_text,
                                    r->n_prompt_text, &scratch, &l->ids[block], &r->encoded, &err);
        if (status == PEFT_OK) {
            if (r->encoded.n_source > 0 && l->opt->overlength == PF_OVERLENGTH_TRUNCATE)
                clip_row(l->opt, r, &l->ids[block]);
            continue;
        }
        pf_fail_prefix(&err, status, "%s:%lld: row %lld", l->ds->path, (long long)r->line,
                       (long long)r->row);
        pthread_mutex_lock(&l->lock);
        if (block < l->failed) {
            l->failed = block;
            l->error = err;
        }
        pthread_mutex_unlock(&l->lock);
        break;
    }
    pf_encoding_release(&scratch);
}

static peft_status encode_rows(loader *l, peft_error *err) {
    if (l->ds->from_tokens) return PEFT_OK;
    l->n_blocks = (int)((count_rows(l) + BLOCK - 1) / BLOCK);
    l->ids = pf_calloc((size_t)l->n_blocks, sizeof *l->ids);
    PF_CHECK_ALLOC(l->ids, err);
    if (l->opt->classes.columns.words != NULL) {
        l->classes = pf_calloc((size_t)l->n_blocks, sizeof *l->classes);
        PF_CHECK_ALLOC(l->classes, err);
    }
    l->failed = l->n_blocks;
    pf_pool_run(l->opt->pool, l->n_blocks, encode_block, l);
    if (l->failed < l->n_blocks) {
        if (err != NULL) *err = l->error;
        return l->error.status;
    }
    return PEFT_OK;
}

/* Beyond any of the limits? */
static bool is_over(const loader *l, const row *r) {
    const pf_dataset_options *o = l->opt;
    const pf_encoded *e = &r->encoded;
    const int64_t limit = l->ds->counts.limit;
    if (limit > 0 && e->n_tokens > limit) return true;
    if (e->n_source == 0) return false;
    return (o->max_source > 0 && e->n_source > o->max_source) ||
           (o->max_target > 0 && e->n_tokens - e->n_source - 1 > o->max_target);
}

static peft_status pair_too_long(const loader *l, const row *r, peft_error *err) {
    const pf_data_counts *c = &l->ds->counts;
    const pf_encoded *e = &r->encoded;
    return PF_FAIL(
        err, PEFT_E_FORMAT,
        "%s:%lld: row %lld has %d tokens of prompt and %d of target; "
        "training.max_source_length is %lld and max_target_length %lld (0: any). %lld of "
        "%lld rows are longer. Choose data.overlength=drop to leave them out, or "
        "data.overlength=truncate to cut their ends",
        l->ds->path, (long long)r->line, (long long)r->row, e->n_source,
        e->n_tokens - e->n_source - 1, (long long)l->opt->max_source, (long long)l->opt->max_target,
        (long long)c->over_limit, (long long)c->rows);
}

/* The three choices, for rows that are too long. */
static peft_status too_long(const loader *l, const row *r, peft_error *err) {
    const pf_data_counts *c = &l->ds->counts;
    if (c->limit == 0 || r->encoded.n_tokens <= c->limit) return pair_too_long(l, r, err);
    bool by_model = l->opt->max_positions > 0 && c->limit == l->opt->max_positions;
    char third[160] = "";
    if (!by_model && (l->opt->max_positions == 0 || c->longest <= l->opt->max_positions))
        snprintf(third, sizeof third, ", or training.max_length=%lld to let them all in",
                 (long long)c->longest);
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s:%lld: row %lld has %d tokens, and %s is %lld. %lld of %lld rows are longer; "
                   "the longest is row %lld with %lld. Choose data.overlength=drop to leave them "
                   "out, data.overlength=truncate to cut their ends%s",
                   l->ds->path, (long long)r->line, (long long)r->row, r->encoded.n_tokens,
                   by_model ? "the model's context" : "training.max_length", (long long)c->limit,
                   (long long)c->over_limit, (long long)c->rows, (long long)c->longest_row,
                   (long long)c->longest, third);
}

/* Counts what the limit means for the rows as they are. */
static peft_status measure(loader *l, peft_error *err) {
    pf_data_counts *c = &l->ds->counts;
    const row *rows = rows_of(l), *first_long = NULL;
    c->limit = l->opt->max_length;
    if (l->opt->max_positions > 0 && (c->limit == 0 || l->opt->max_positions < c->limit))
        c->limit = l->opt->max_positions;
    for (int64_t i = 0; i < c->rows; i++) {
        int32_t n = rows[i].encoded.n_tokens;
        if (n > c->longest) {
            c->longest = n;
            c->longest_row = rows[i].row;
            c->longest_line = rows[i].line;
        }
        if (is_over(l, &rows[i])) {
            if (c->over_limit++ == 0) first_long = &rows[i];
        }
    }
    if (first_long != NULL && l->opt->overlength == PF_OVERLENGTH_ERROR)
        return too_long(l, first_long, err);
    return PEFT_OK;
}

/* Which tokens of a row are learned, where the file said so. */
static void take_labels(pf_example *e, pf_token_row given, const unsigned char *learned,
                        float *weights) {
    if (e->n_tokens < given.n_tokens) given = pf_token_row_cut(&given, learned, e->n_tokens);
    e->n_prompt = given.first_label;
    e->end_label = given.end_label;
    e->n_learned =
        given.n_learned - (given.first_label == 0); /* nothing predicts the first token */
    if (given.end_label - given.first_label > given.n_learned) e->flags |= PF_EXAMPLE_GAPS;
    if (weights != NULL)
        for (int32_t i = 0; i < e->n_tokens; i++) weights[i] = (float)learned[i];
}

/* A row with classes, at the end of the data set. */
static void keep_class(loader *l, const row *r, const int32_t *ids, const int32_t *classes,
                       bool truncate) {
    pf_dataset *ds = l->ds;
    pf_data_counts *c = &ds->counts;
    pf_example e = {.first = ds->n_tokens,
                    .row = r->row,
                    .line = r->line,
                    .text = r->text,
                    .n_text = r->n_text,
                    .n_prompt_text = r->n_prompt_text,
                    .flags = PF_EXAMPLE_CLASSES | (truncate ? PF_EXAMPLE_TRUNCATED : 0)};
    int32_t *out = ds->classes + ds->n_tokens;
    e.n_tokens = pf_class_row_put(&l->opt->classes, &r->made, truncate ? (int32_t)c->limit : 0, ids,
                                  classes, ds->tokens + ds->n_tokens, out, &e.second_from);
    for (int32_t i = 0; i < e.n_tokens; i++) e.n_learned += out[i] >= 0;
    if (e.n_learned == 0) {
        c->without_labels++;
        return;
    }
    if (ds->values != NULL) {
        const size_t bytes = (size_t)ds->n_values * sizeof *ds->values;
        memcpy(ds->values + ds->n * ds->n_values, l->values.data + (size_t)(r - rows_of(l)) * bytes,
               bytes);
    }
    e.n_prompt = e.n_tokens;
    ds->examples[ds->n++] = e;
    ds->n_tokens += e.n_tokens;
    c->truncated += truncate;
    c->tokens += e.n_tokens;
    c->supervised += e.n_learned;
    if (e.n_tokens > c->max_tokens) c->max_tokens = e.n_tokens;
}

static void keep(loader *l, const row *r, const int32_t *ids, const unsigned char *learned,
                 bool truncate) {
    pf_dataset *ds = l->ds;
    pf_data_counts *c = &ds->counts;
    pf_example e = {.first = ds->n_tokens,
                    .n_tokens = truncate ? (int32_t)c->limit : r->encoded.n_tokens,
                    .n_prompt = r->encoded.n_prompt,
                    .n_source = r->encoded.n_source,
                    .row = r->row,
                    .line = r->line,
                    .text = r->text,
                    .n_text = r->n_text,
                    .n_prompt_text = r->n_prompt_text};
    if (e.n_prompt > e.n_tokens) e.n_prompt = e.n_tokens;
    if (r->encoded.split) e.flags |= PF_EXAMPLE_SPLIT;
    if (e.n_source >= e.n_tokens) e.n_source = e.n_tokens - 1; /* nothing to learn is left */
    truncate |= r->clipped;
    if (truncate) e.flags |= PF_EXAMPLE_TRUNCATED;
    if (learned != NULL)
        take_labels(&e, r->given, learned, ds->weights == NULL ? NULL : ds->weights + ds->n_tokens);
    else if (r->n_text == r->n_prompt_text)
        e.flags |= PF_EXAMPLE_EMPTY_TARGET;
    int32_t supervised = pf_example_supervised(&e);
    if (supervised == 0) {
        c->without_labels++;
        return;
    }
    memcpy(ds->tokens + ds->n_tokens, ids, sizeof *ids * (size_t)e.n_tokens);
    ds->examples[ds->n++] = e;
    ds->n_tokens += e.n_tokens;
    c->truncated += truncate;
    c->split += (e.flags & PF_EXAMPLE_SPLIT) != 0;
    c->empty_targets += (e.flags & PF_EXAMPLE_EMPTY_TARGET) != 0;
    c->tokens += e.n_tokens;
    c->supervised += supervised;
    if (e.n_tokens > c->max_tokens) c->max_tokens = e.n_tokens;
}

static bool has_gaps(const loader *l) {
    const row *rows = rows_of(l);
    for (int64_t i = 0; i < count_rows(l); i++) {
        const pf_token_row *t = &rows[i].given;
        if (t->end_label - t->first_label > t->n_learned) return true;
    }
    return false;
}

static peft_status join(loader *l, peft_error *err) {
    pf_dataset *ds = l->ds;
    pf_data_counts *c = &ds->counts;
    const row *rows = rows_of(l);
    size_t bytes = 0;
    for (int b = 0; b < l->n_blocks; b++) bytes += l->ids[b].len;
    const bool gaps = ds->from_tokens && has_gaps(l); /* else labels go by position alone */
    ds->tokens = pf_malloc(bytes > 0 ? bytes : 1);
    ds->examples = pf_calloc((size_t)c->rows, sizeof *ds->examples);
    if (gaps) ds->weights = pf_malloc(l->learned.len * sizeof *ds->weights);
    if (has_classes(l)) ds->classes = pf_malloc(bytes > 0 ? bytes : 1);
    if (has_values(l)) {
        ds->problem = l->opt->classes.problem;
        ds->n_values = l->opt->classes.labels->n;
        ds->values = pf_malloc(l->values.len > 0 ? l->values.len : 1);
    }
    if (ds->tokens == NULL || ds->examples == NULL || (gaps && ds->weights == NULL) ||
        (has_classes(l) && ds->classes == NULL) || (has_values(l) && ds->values == NULL))
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory for %zu tokens", ds->path,
                       bytes / sizeof *ds->tokens);
    const int32_t *ids = NULL, *classes = NULL;
    const unsigned char *learned =
        ds->from_tokens ? (const unsigned char *)pf_buf_str(&l->learned) : NULL;
    for (int64_t i = 0; i < c->rows; i++) {
        if (i % BLOCK == 0 && i / BLOCK < l->n_blocks)
            ids = (const int32_t *)(const void *)l->ids[i / BLOCK].data;
        if (l->classes != NULL && i % BLOCK == 0)
            classes = (const int32_t *)(const void *)l->classes[i / BLOCK].data;
        const row *r = &rows[i];
        bool over = is_over(l, r);
        if (over && l->opt->overlength == PF_OVERLENGTH_DROP)
            c->dropped++;
        else if (has_classes(l))
            keep_class(l, r, ids, classes, over);
        else
            keep(l, r, ids, learned, over);
        ids += r->encoded.n_tokens;
        if (classes != NULL) classes += r->encoded.n_tokens;
        if (learned != NULL) learned += r->encoded.n_tokens;
    }
    if (ds->n > 0) return PEFT_OK;
    if (c->dropped == c->rows)
        return PF_FAIL(
            err, PEFT_E_FORMAT,
            "%s: all %lld rows are longer than %lld tokens, and data.overlength is drop; "
            "raise training.max_length, or choose data.overlength=truncate",
            ds->path, (long long)c->rows, (long long)c->limit);
    return PF_FAIL(
        err, PEFT_E_FORMAT,
        "%s: all labels are masked: of %lld rows %lld were dropped for their length, and "
        "in the others no token of the target is left to learn (longest prompt and "
        "target: %lld tokens, limit: %lld)",
        ds->path, (long long)c->rows, (long long)c->dropped, (long long)c->longest,
        (long long)c->limit);
}

static void add_text(pf_sha256 *h, const char *name, const char *value) {
    pf_buf line = {0};
    pf_buf_addf(&line, "%s %zu ", name, value == NULL ? (size_t)0 : strlen(value) + 1);
    pf_sha256_add(h, line.data, line.len);
    if (value != NULL) pf_sha256_add(h, value, strlen(value));
    pf_sha256_add(h, "\n", 1);
    pf_buf_free(&line);
}

/* Everything that decides the tokens, in one hash. */
static peft_status fingerprint(loader *l, peft_error *err) {
    const pf_dataset_options *opt = l->opt;
    pf_sha256 *h = pf_sha256_new();
    PF_CHECK_ALLOC(h, err);
    add_text(h, "file", l->ds->file_sha256);
    add_text(h, "format", l->ds->format);
    add_text(h, "field", opt->reader.field);
    for (int i = 0; opt->reader.columns != NULL && i < opt->reader.columns->n; i++)
        add_text(h, "column", opt->reader.columns->items[i]);
    add_text(h, "prompt", opt->prompt);
    add_text(h, "target", opt->target);
    add_text(h, "text", opt->text);
    if (opt->tokens.ids != NULL) { /* only then: other sets keep the hash they always had */
        add_text(h, "input_ids", opt->tokens.ids);
        add_text(h, "labels", opt->tokens.labels);
    }
    add_text(h, "tokenizer", pf_tokenizer_fingerprint(opt->encode.tokenizer));
    if (has_classes(l)) { /* likewise */
        const pf_class_rules *c = &opt->classes;
        add_text(h, "label", c->columns.label);
        add_text(h, "words", c->columns.words);
        add_text(h, "pair", c->pair);
        for (int i = 0; i < c->labels->n; i++) add_text(h, "class", c->labels->items[i]);
        const int rules[] = {c->all_tokens, c->on_first, c->blank_before_words, c->pad};
        pf_sha256_add(h, rules, sizeof rules);
        if (has_values(l)) {
            add_text(h, "problem", pf_problem_name(c->problem));
            add_text(h, "delimiter", c->columns.delimiter);
            for (int i = 0; c->columns.many != NULL && i < c->columns.many->n; i++)
                add_text(h, "label column", c->columns.many->items[i]);
        }
    }
    char line[160];
    snprintf(line, sizeof line, "%d %d bos %d eos %d limit %lld %d rows %lld",
             opt->reader.delimiter, opt->reader.no_quotes, (int)opt->encode.add_bos,
             opt->encode.add_eos, (long long)l->ds->counts.limit, (int)opt->overlength,
             (long long)opt->max_rows);
    add_text(h, "options", line);
    if (opt->encode.encoder_decoder) {
        snprintf(line, sizeof line, "start %d source %lld target %lld", opt->encode.decoder_start,
                 (long long)opt->max_source, (long long)opt->max_target);
        add_text(h, "encoder and decoder", line);
    }
    pf_sha256_hex(h, l->ds->fingerprint);
    pf_sha256_free(h);
    return PEFT_OK;
}

peft_status pf_dataset_load(pf_dataset *ds, const char *path, const pf_dataset_options *opt,
                            peft_error *err) {
    memset(ds, 0, sizeof *ds);
    pf_arena_init(&ds->arena, "data set");
    loader l = {.ds = ds, .opt = opt};
    pthread_mutex_init(&l.lock, NULL);
    peft_status status = PEFT_OK;
    ds->path = pf_arena_strdup(&ds->arena, path);
    if (ds->path == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
    if (status == PEFT_OK) status = read_rows(&l, path, err);
    if (status == PEFT_OK) status = encode_rows(&l, err);
    if (status == PEFT_OK) status = measure(&l, err);
    if (status == PEFT_OK) status = join(&l, err);
    if (status == PEFT_OK) status = fingerprint(&l, err);
    for (int b = 0; b < l.n_blocks && l.ids != NULL; b++) pf_buf_free(&l.ids[b]);
    for (int b = 0; b < l.n_blocks && l.classes != NULL; b++) pf_buf_free(&l.classes[b]);
    pf_free(l.ids);
    pf_free(l.classes);
    pf_buf_free(&l.lengths);
    pf_buf_free(&l.tags);
    pf_buf_free(&l.values);
    pf_buf_free(&l.learned);
    pf_buf_free(&l.rows);
    pthread_mutex_destroy(&l.lock);
    if (status == PEFT_OK) {
        ds->text = l.text.data; /* pf_buf and pf_malloc are one heap */
        ds->n_text = l.text.len;
    } else {
        pf_buf_free(&l.text);
        pf_dataset_release(ds);
    }
    return status;
}

/* classify.c - see classify.h. One text at a time: tokens as the data reader makes them, one pass,
 * probabilities from the logits of its entries. */
#include "recipes/classify.h"

#include "base/mem.h"
#include "data/batch_builder.h"
#include "text/json.h"
#include "train/loss_graph.h"
#include "train/value_metrics.h"

#include <math.h>
#include <string.h>

struct pf_classifier {
    const pf_loaded *loaded;
    pf_class_rules rules;
    pf_loss_graph graph;
    pf_batch_builder *builder;
    int64_t room; /* tokens that both were made for */
    pf_encoding encoding;
    pf_buf text, lengths, tags, ids, classes; /* of the row in hand */
    int32_t *row_ids, *row_classes;           /* (room) */
};

static bool is_type_of(const pf_model *m, const char *type) {
    return pf_streq(json_string_value(json_object_get(m->config, "model_type")), type);
}

/* As run_ner has it: these tell a word after a blank from one without. */
static bool tells_blanks(const pf_model *m) {
    return is_type_of(m, "gpt2") || is_type_of(m, "bloom") || is_type_of(m, "roberta");
}

pf_class_rules pf_class_rules_of(const pf_model *m) {
    const json_t *pad = json_object_get(m->config, "pad_token_id");
    return (pf_class_rules){
        .labels = &m->labels,
        .problem = m->problem,
        .on_first = m->family->bidirectional,
        .blank_before_words = tells_blanks(m),
        .types = is_type_of(m, "bert"), /* RoBERTa's are all 0, as its tokenizer has them */
        .pad = json_is_integer(pad) ? (int32_t)json_integer_value(pad) : -1,
    };
}

peft_status pf_classifier_new(pf_classifier **out, const pf_loaded *l, peft_error *err) {
    *out = NULL;
    if (!pf_task_is_classes(l->model->task))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is open for %s and tells no classes; name an adapter that was trained "
                       "with peft.task_type SEQ_CLS or TOKEN_CLS, or such a model",
                       l->model->name, pf_task_name(l->model->task));
    pf_classifier *c = pf_calloc(1, sizeof *c);
    PF_CHECK_ALLOC(c, err);
    c->loaded = l;
    c->rules = pf_class_rules_of(l->model);
    *out = c;
    return PEFT_OK;
}

static void release_room(pf_classifier *c) {
    pf_loss_graph_release(&c->graph);
    pf_batch_builder_free(c->builder);
    pf_free(c->row_ids);
    pf_free(c->row_classes);
    c->builder = NULL;
    c->row_ids = c->row_classes = NULL;
    c->room = 0;
}

void pf_classifier_free(pf_classifier *c) {
    if (c == NULL) return;
    release_room(c);
    pf_encoding_release(&c->encoding);
    pf_buf *const bufs[] = {&c->text, &c->lengths, &c->tags, &c->ids, &c->classes};
    for (size_t i = 0; i < PF_COUNT(bufs); i++) pf_buf_free(bufs[i]);
    pf_free(c);
}

static peft_status make_room(pf_classifier *c, int64_t n, peft_error *err) {
    pf_model *m = c->loaded->model;
    const pf_lead lead = pf_model_lead(m, true);
    const int64_t most = pf_model_positions(m, true);
    if (most > 0 && n > most)
        return PF_FAIL(err, PEFT_E_FORMAT, "the text has %lld tokens, the model's context %lld",
                       (long long)n, (long long)most);
    if (n <= c->room) return PEFT_OK;
    release_room(c);
    const int64_t room = n < 256 ? 256 : 2 * n, rows = room + lead.prompt + lead.each;
    const pf_loss_graph_options go = {
        .adapters = true, .fuse = true, .logits = true, .max_tokens = rows, .max_labels = room};
    const pf_batch_builder_options bo = {.max_tokens = (int32_t)rows,
                                         .max_labels = (int32_t)room,
                                         .max_samples = 1,
                                         .prompt_rows = lead.prompt,
                                         .prefix_rows = lead.prefix,
                                         .prefix_apart = lead.apart,
                                         .each_rows = lead.each,
                                         .share = PF_SHARE_NEVER,
                                         .rope_original = pf_rope_original(&m->rope)};
    c->row_ids = pf_malloc((size_t)room * sizeof *c->row_ids);
    c->row_classes = pf_malloc((size_t)room * sizeof *c->row_classes);
    PF_CHECK_ALLOC(c->row_ids, err);
    PF_CHECK_ALLOC(c->row_classes, err);
    PF_TRY(pf_batch_builder_new(&c->builder, &bo, err));
    PF_TRY(pf_loss_graph_init(&c->graph, m, c->loaded->backend, &go, err));
    c->room = room;
    return PEFT_OK;
}

/* ---- a line to tokens ------------------------------------------------------------------------ */

static peft_status add_string(pf_classifier *c, const json_t *v, const char *expected,
                              peft_error *err) {
    if (!json_is_string(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "expected %s, found %s", expected, pf_json_kind(v));
    pf_buf_add(&c->text, json_string_value(v), json_string_length(v));
    return PEFT_OK;
}

static peft_status encode_text(pf_classifier *c, const json_t *v, pf_class_row *row,
                               peft_error *err) {
    static const char expected[] = "a JSON string, or a list of two";
    const bool pair = json_is_array(v) && json_array_size(v) == 2;
    PF_TRY(add_string(c, pair ? json_array_get(v, 0) : v, expected, err));
    const size_t n_first = c->text.len;
    if (pair) PF_TRY(add_string(c, json_array_get(v, 1), expected, err));
    row->label = 0;
    return pf_class_encode_text(&c->rules, c->loaded->tokenizer, pf_buf_str(&c->text), n_first,
                                c->text.len - n_first, pair, &c->encoding, &c->ids, row, err);
}

static peft_status encode_words(pf_classifier *c, const json_t *v, pf_class_row *row,
                                peft_error *err) {
    if (!json_is_array(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "expected a list of words, found %s", pf_json_kind(v));
    for (size_t i = 0; i < json_array_size(v); i++) {
        const size_t before = c->text.len;
        PF_TRY(add_string(c, json_array_get(v, i), "a word", err));
        const uint32_t n = (uint32_t)(c->text.len - before);
        pf_buf_addc(&c->text, ' ');
        pf_buf_add(&c->lengths, &n, sizeof n);
        const int32_t which = (int32_t)i; /* in place of a class: comes back with the entry */
        pf_buf_add(&c->tags, &which, sizeof which);
    }
    return pf_class_encode_words(&c->rules, c->loaded->tokenizer, pf_buf_str(&c->text),
                                 (const uint32_t *)(const void *)pf_buf_str(&c->lengths),
                                 (const int32_t *)(const void *)pf_buf_str(&c->tags),
                                 (int64_t)json_array_size(v), &c->encoding, &c->ids, &c->classes,
                                 row, err);
}

/* ---- classes --------------------------------------------------------------------------------- */

/* The likeliest class of an entry; p (V): probabilities. */
static int32_t judge(const pf_real *z, int32_t V, double *p) {
    int32_t best = 0;
    double sum = 0;
    for (int32_t k = 1; k < V; k++)
        if (z[k] > z[best]) best = k;
    for (int32_t k = 0; k < V; k++) sum += p[k] = exp((double)z[k] - (double)z[best]);
    for (int32_t k = 0; k < V; k++) p[k] /= sum;
    return best;
}

static void add_scores(const pf_strlist *names, const double *p, pf_buf *out) {
    for (int32_t k = 0; k < names->n; k++) {
        pf_buf_adds(out, k > 0 ? ", " : "");
        pf_json_add_cstr(out, names->items[k]);
        pf_buf_addf(out, ": %.6f", p[k]);
    }
}

static void add_text_answer(const pf_strlist *names, int32_t best, const double *p, pf_buf *out) {
    pf_buf_adds(out, "{\"label\": ");
    pf_json_add_cstr(out, names->items[best]);
    pf_buf_adds(out, ", \"scores\": {");
    add_scores(names, p, out);
    pf_buf_adds(out, "}}");
}

/* Each class by itself; p (V): room for probabilities. */
static void add_classes_answer(const pf_strlist *names, const pf_real *z, double threshold,
                               double *p, pf_buf *out) {
    bool any = false;
    pf_buf_adds(out, "{\"labels\": [");
    for (int32_t k = 0; k < names->n; k++) {
        p[k] = pf_sigmoid((double)z[k]);
        if (!(p[k] > threshold)) continue;
        pf_buf_adds(out, any ? ", " : "");
        pf_json_add_cstr(out, names->items[k]);
        any = true;
    }
    pf_buf_adds(out, "], \"scores\": {");
    add_scores(names, p, out);
    pf_buf_adds(out, "}}");
}

static void add_numbers_answer(const pf_strlist *names, const pf_real *z, double *p, pf_buf *out) {
    for (int32_t k = 0; k < names->n; k++) p[k] = (double)z[k];
    if (names->n == 1) {
        pf_buf_addf(out, "{\"value\": %.6f}", p[0]);
        return;
    }
    pf_buf_adds(out, "{\"values\": {");
    add_scores(names, p, out);
    pf_buf_adds(out, "}}");
}

/* Words of which the tokenizer made nothing have no entry, and no answer. */
static void add_word_answer(const pf_strlist *names, const json_t *word, int32_t best, double p,
                            bool first, pf_buf *out) {
    pf_buf_adds(out, first ? "{\"word\": " : ", {\"word\": ");
    pf_json_add_str(out, json_string_value(word), json_string_length(word), 0);
    pf_buf_adds(out, ", \"label\": ");
    pf_json_add_cstr(out, names->items[best]);
    pf_buf_addf(out, ", \"score\": %.6f}", p);
}

static peft_status answer(pf_classifier *c, const json_t *v, bool words, double threshold,
                          double *p, pf_buf *out, peft_error *err) {
    const pf_strlist *names = &c->loaded->model->labels;
    pf_class_row row = {0};
    pf_batch batch;
    pf_loss_sums unused = {0};
    int32_t n_micro;
    PF_TRY(words ? encode_words(c, v, &row, err) : encode_text(c, v, &row, err));
    PF_TRY(make_room(c, pf_class_row_tokens(&row), err));
    pf_sample s = {.tokens = c->row_ids, .classes = c->row_classes};
    s.n_tokens = pf_class_row_put(&c->rules, &row, 0, (const int32_t *)(const void *)c->ids.data,
                                  words ? (const int32_t *)(const void *)c->classes.data : NULL,
                                  c->row_ids, c->row_classes, &s.second_from);
    if (s.n_tokens == 0 || row.n_first + row.n_second == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "there is nothing to classify");
    PF_TRY(pf_batch_builder_begin(c->builder, &s, 1, 0, &n_micro, err));
    pf_batch_builder_get(c->builder, 0, &batch);
    PF_TRY(pf_loss_graph_forward(&c->graph, &batch, &unused, err));
    const pf_real *z = pf_exec_data(c->graph.exec, c->graph.logits);
    const pf_problem problem = c->loaded->model->problem;
    if (problem == PF_PROBLEM_REGRESSION) {
        add_numbers_answer(names, z, p, out);
        return PEFT_OK;
    }
    if (problem == PF_PROBLEM_MULTI) {
        add_classes_answer(names, z, threshold > 0 ? threshold : 0.5, p, out);
        return PEFT_OK;
    }
    if (!words) {
        const int32_t best = judge(z, names->n, p);
        add_text_answer(names, best, p, out);
        return PEFT_OK;
    }
    pf_buf_addc(out, '[');
    for (int32_t e = 0; e < batch.n_labels; e++) {
        const int32_t w = c->row_classes[batch.label_row[e] - batch.n_prompt];
        const int32_t best = judge(z + (int64_t)e * names->n, names->n, p);
        add_word_answer(names, json_array_get(v, (size_t)w), best, p[best], e == 0, out);
    }
    pf_buf_addc(out, ']');
    return PEFT_OK;
}

peft_status pf_classifier_answer(pf_classifier *c, const struct json_t *v, double threshold,
                                 pf_buf *out, peft_error *err) {
    pf_buf *const bufs[] = {&c->text, &c->lengths, &c->tags, &c->ids, &c->classes};
    for (size_t i = 0; i < PF_COUNT(bufs); i++) pf_buf_clear(bufs[i]);
    double *p = pf_malloc((size_t)c->loaded->model->labels.n * sizeof *p);
    PF_CHECK_ALLOC(p, err);
    const peft_status status =
        answer(c, v, c->loaded->model->task == PF_TASK_TOKEN_CLS, threshold, p, out, err);
    pf_free(p);
    return status;
}

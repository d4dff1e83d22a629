/* api_model.c - the door of model.h: an open model, text in and numbers or text out. */
#include "api/open_model.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/batch_spec.h"
#include "formats/inspect.h"
#include "recipes/classify.h"
#include "text/json.h"
#include "train/evaluator.h"
#include "train/loss_graph.h"

#include <string.h>

peft_status peft_model_open(peft_model **out, const peft_model_options *opt, peft_error *err) {
    *out = NULL;
    peft_model *m = pf_calloc(1, sizeof *m);
    PF_CHECK_ALLOC(m, err);
    const pf_load_options load = {.model = opt->path,
                                  .adapter = opt->adapter,
                                  .threads = opt->threads,
                                  .ignore_left_over_weights = opt->ignore_left_over_weights,
                                  .tokenizer_only = opt->tokenizer_only};
    peft_status status = pf_load(&m->loaded, &load, err);
    if (status != PEFT_OK) {
        pf_free(m);
        return status;
    }
    if (m->loaded.adapter != NULL) status = pf_open_model_add(m, "default", m->loaded.adapter, err);
    if (status != PEFT_OK) {
        peft_model_close(m);
        return status;
    }
    m->max_length = opt->max_length;
    m->max_sequences = opt->max_sequences > 0 ? opt->max_sequences : 8;
    *out = m;
    return PEFT_OK;
}

void peft_model_close(peft_model *m) {
    if (m == NULL) return;
    pf_open_model_forget_graphs(m);
    pf_encoding_release(&m->encoding);
    pf_open_model_close_adapters(m);
    pf_unload(&m->loaded);
    pf_free(m);
}

static peft_status needs_weights(const peft_model *m, peft_error *err) {
    if (m->loaded.model != NULL) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_STATE, "the model was opened for its tokenizer alone");
}

/* --- generation
 * ----------------------------------------------------------------------------------------------------------
 */

typedef struct writing { /* texts as they grow */
    peft_model *m;
    const peft_generate_options *opt;
    pf_decode_stream *streams;
    pf_buf *texts;
    size_t *shown; /* bytes that on_text has had */
    peft_status status;
    peft_error *err;
} writing;

/* What may be shown: all but an end that could still become a stop text. */
static size_t safe_length(const peft_generate_options *opt, const char *text, size_t n) {
    size_t hold = 0;
    for (int i = 0; i < opt->n_stop; i++) {
        size_t m = strlen(opt->stop[i]);
        for (size_t k = m < n ? m : n; k > hold; k--) {
            if (memcmp(text + n - k, opt->stop[i], k) == 0) hold = k;
        }
    }
    return n - hold;
}

static void show(writing *w, int i, size_t until) {
    if (w->opt->on_text == NULL || until <= w->shown[i]) return;
    pf_buf piece = {0};
    pf_buf_add(&piece, w->texts[i].data + w->shown[i], until - w->shown[i]);
    if (pf_buf_ok(&piece)) w->opt->on_text(w->opt->ctx, i, pf_buf_str(&piece));
    pf_buf_free(&piece);
    w->shown[i] = until;
}

static bool take_token(void *ctx, int i, int32_t id) {
    writing *w = ctx;
    w->status = pf_decode_stream_add(&w->streams[i], id, &w->texts[i], w->err);
    if (w->status != PEFT_OK) return true;
    const size_t n = w->texts[i].len;
    const size_t cut = pf_cut_at_stop(pf_buf_str(&w->texts[i]), n, w->opt->stop, w->opt->n_stop);
    show(w, i, cut < n ? cut : safe_length(w->opt, pf_buf_str(&w->texts[i]), n));
    return cut < n;
}

static peft_status make_generator(peft_model *m, peft_error *err) {
    if (m->generator != NULL) return PEFT_OK;
    /* a context nobody asked to be long need not have the room of the longest */
    int64_t length = m->max_length > 0                  ? m->max_length
                     : m->loaded.model->encoder_decoder ? 1024
                                                        : 4096;
    const pf_generator_options go = {
        .max_sequences = m->max_sequences, .max_length = length, .adapters = true, .fuse = true};
    return pf_generator_new(&m->generator, m->loaded.model, m->loaded.backend, &go, err);
}

/* A source ends with EOS, also where the tokenizer's files do not say so (pf_prompt_encode). */
static void end_source(const peft_model *m, int32_t *ids, int32_t *n) {
    const int32_t eos = pf_tokenizer_special(m->loaded.tokenizer).eos;
    if (eos >= 0 && (*n == 0 || ids[*n - 1] != eos)) ids[(*n)++] = eos;
}

static peft_status generate(peft_model *m, pf_arena *a, const char *const *prompts, int n,
                            const peft_generate_options *opt, char **texts, peft_error *err) {
    const int32_t limit =
        opt->max_new_tokens > 0
            ? (int32_t)(opt->max_new_tokens < 1 << 20 ? opt->max_new_tokens : 1 << 20)
            : 256;
    pf_generation *items = PF_NEW_ARRAY(a, pf_generation, n);
    writing w = {.m = m, .opt = opt, .err = err};
    w.streams = PF_NEW_ARRAY(a, pf_decode_stream, n);
    w.texts = PF_NEW_ARRAY(a, pf_buf, n);
    w.shown = PF_NEW_ARRAY(a, size_t, n);
    if (items == NULL || w.streams == NULL || w.texts == NULL || w.shown == NULL) {
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    peft_status status = PEFT_OK;
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        pf_decode_stream_init(&w.streams[i], m->loaded.tokenizer, true);
        status = pf_tokenizer_encode(m->loaded.tokenizer, prompts[i], strlen(prompts[i]),
                                     opt->raw ? 0 : PF_ENCODE_SPECIAL, &m->encoding, err);
        if (status != PEFT_OK) break;
        /* special tokens behind a prompt would end it before it begins; an encoder reads them */
        const bool source = m->loaded.model->encoder_decoder;
        items[i].n_prompt = (int32_t)(m->encoding.n - (source ? 0 : m->encoding.n_after));
        int32_t *ids = PF_NEW_ARRAY(a, int32_t, items[i].n_prompt + 2);
        items[i].ids = PF_NEW_ARRAY(a, int32_t, limit);
        if (ids == NULL || items[i].ids == NULL)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        else if (items[i].n_prompt > 0)
            memcpy(ids, m->encoding.ids, (size_t)items[i].n_prompt * sizeof *ids);
        if (status == PEFT_OK && source && !opt->raw) end_source(m, ids, &items[i].n_prompt);
        items[i].prompt = ids;
    }
    const pf_generate_options go = {
        .sampling = {.do_sample = opt->do_sample,
                     .temperature = opt->temperature > 0 ? opt->temperature : 1,
                     .top_k = opt->top_k,
                     .top_p = opt->top_p > 0 ? opt->top_p : 1,
                     .min_p = opt->min_p,
                     .repetition_penalty =
                         opt->repetition_penalty > 0 ? opt->repetition_penalty : 1,
                     .seed = opt->seed},
        .max_new_tokens = limit,
        .eos = m->loaded.eos,
        .n_eos = m->loaded.n_eos,
        .on_token = take_token,
        .ctx = &w,
    };
    if (status == PEFT_OK) status = pf_generator_run(m->generator, &go, items, n, err);
    if (status == PEFT_OK) status = w.status;
    for (int i = 0; i < n; i++) {
        if (status == PEFT_OK) status = pf_decode_stream_end(&w.streams[i], &w.texts[i], err);
        pf_decode_stream_release(&w.streams[i]);
        pf_buf_reserve(&w.texts[i], 1);
        if (status == PEFT_OK && !pf_buf_ok(&w.texts[i]))
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (status == PEFT_OK) {
            size_t end = pf_cut_at_stop(w.texts[i].data, w.texts[i].len, opt->stop, opt->n_stop);
            w.texts[i].data[end] = '\0';
            w.texts[i].len = end;
            show(&w, i, end);
            texts[i] = w.texts[i].data;
        } else {
            pf_buf_free(&w.texts[i]);
        }
    }
    for (int i = 0; status != PEFT_OK && i < n; i++) { /* those that were handed over already */
        pf_free(texts[i]);
        texts[i] = NULL;
    }
    return status;
}

peft_status peft_generate(peft_model *m, const char *const *prompts, int n,
                          const peft_generate_options *opt, char **texts, peft_error *err) {
    for (int i = 0; i < n; i++) texts[i] = NULL;
    PF_TRY(needs_weights(m, err));
    PF_TRY(make_generator(m, err));
    const peft_generate_options none = {0};
    pf_arena a;
    pf_arena_init(&a, "generation");
    peft_status status = generate(m, &a, prompts, n, opt != NULL ? opt : &none, texts, err);
    pf_arena_release(&a);
    return status;
}

/* --- lines
 * ---------------------------------------------------------------------------------------------------------------
 */

/* A JSON string or list of ids as tokens in m->encoding; a string gets the special tokens unless
 * told otherwise. */
static peft_status tokens_of(peft_model *m, const json_t *v, bool special, pf_arena *a,
                             int32_t **ids, int64_t *n, peft_error *err) {
    if (json_is_string(v)) {
        PF_TRY(pf_tokenizer_encode(m->loaded.tokenizer, json_string_value(v), json_string_length(v),
                                   special ? PF_ENCODE_SPECIAL : 0, &m->encoding, err));
        *ids = m->encoding.ids;
        *n = (int64_t)m->encoding.n;
        return PEFT_OK;
    }
    if (!json_is_array(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "expected a JSON string or a list of ids, found %s",
                       pf_json_kind(v));
    *n = (int64_t)json_array_size(v);
    *ids = PF_NEW_ARRAY(a, int32_t, *n + 1);
    PF_CHECK_ALLOC(*ids, err);
    for (int64_t i = 0; i < *n; i++) {
        const json_t *id = json_array_get(v, (size_t)i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX) {
            return PF_FAIL(err, PEFT_E_FORMAT, "element %lld is no token id", (long long)i);
        }
        (*ids)[i] = (int32_t)json_integer_value(id);
    }
    return PEFT_OK;
}

static void add_ids(pf_buf *out, const int32_t *ids, int64_t n) {
    pf_buf_addc(out, '[');
    for (int64_t i = 0; i < n; i++) pf_buf_addf(out, "%s%d", i > 0 ? ", " : "", ids[i]);
    pf_buf_addc(out, ']');
}

static peft_status make_scores(peft_model *m, int64_t n, peft_error *err) {
    if (m->scores.exec != NULL && m->scores_room >= n) return PEFT_OK;
    pf_loss_graph_release(&m->scores);
    m->scores_room = n < 512 ? 512 : n;
    const pf_loss_graph_options lg = {.adapters = true,
                                      .fuse = true,
                                      .max_tokens = m->scores_room,
                                      .max_labels = m->scores_room,
                                      .max_source =
                                          m->loaded.model->encoder_decoder ? m->scores_room : 0};
    return pf_loss_graph_init(&m->scores, m->loaded.model, m->loaded.backend, &lg, err);
}

static void add_nll(const peft_model *m, int64_t n, pf_buf *out) {
    const pf_real *nll = pf_exec_data(m->scores.exec, m->scores.nll);
    pf_buf_adds(out, ", \"nll\": [");
    for (int64_t i = 0; i < n; i++) {
        if (i > 0) pf_buf_adds(out, ", ");
        pf_json_add_float(out, (float)nll[i]);
    }
    pf_buf_adds(out, "]}");
}

static peft_status score(peft_model *m, const int32_t *ids, int64_t n, pf_arena *a, pf_buf *out,
                         peft_error *err) {
    const pf_model *model = m->loaded.model;
    const pf_lead lead = pf_model_lead(model, true);
    const int64_t most = pf_model_positions(model, true);
    if (n > most && most > 0) {
        return PF_FAIL(err, PEFT_E_FORMAT, "the text has %lld tokens, the model's context %lld",
                       (long long)n, (long long)most);
    }
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] >= model->vocab) {
            return PF_FAIL(err, PEFT_E_FORMAT, "id %d is outside of the model's vocabulary of %lld",
                           ids[i], (long long)model->vocab);
        }
    }
    pf_buf_adds(out, "{\"ids\": ");
    add_ids(out, ids, n);
    if (n < 2) {
        pf_buf_adds(out, ", \"nll\": []}");
    } else {
        PF_TRY(make_scores(m, lead.prompt + lead.each + n, err));
        int32_t *pos = PF_NEW_ARRAY(a, int32_t, n), *zero = PF_NEW_ARRAY(a, int32_t, n),
                *end = PF_NEW_ARRAY(a, int32_t, n);
        float *weight = PF_NEW_ARRAY(a, float, n);
        if (pos == NULL || zero == NULL || end == NULL || weight == NULL)
            return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        /* the last token predicts nothing that is known: its row is left out */
        const int32_t rows = (int32_t)n - 1;
        for (int32_t i = 0; i < rows; i++) {
            pos[i] = i;
            end[i] = rows;
            weight[i] = 1;
        }
        const pf_segment root = {
            .length = rows, .parent = -1, .subtree_end = rows, .rope_length = (int32_t)n};
        pf_batch behind, batch;
        const pf_batch text = {.n_tokens = rows,
                               .ids = ids,
                               .pos = pos,
                               .seg = zero,
                               .end = end,
                               .sample = zero,
                               .segments = &root,
                               .n_segments = 1,
                               .n_labels = rows,
                               .label_row = pos,
                               .label_target = ids + 1,
                               .label_weight = weight,
                               .label_sample = zero};
        pf_loss_sums sums = {0};
        PF_TRY(pf_batch_behind(&behind, a, &text, lead.prompt, lead.prefix, lead.apart, err));
        PF_TRY(pf_batch_each_behind(&batch, a, &behind, lead.each, err));
        PF_TRY(pf_loss_graph_forward(&m->scores, &batch, &sums, err));
        add_nll(m, rows, out);
    }
    return PEFT_OK;
}

/* Encoder and decoder: {"prompt": ..., "target": ...}, each a string or a list of ids; what every
 * token of the target costs. */
static peft_status score_pair(peft_model *m, const json_t *v, bool special, pf_arena *a,
                              pf_buf *out, peft_error *err) {
    const json_t *parts[2] = {json_object_get(v, "prompt"), json_object_get(v, "target")};
    int32_t *ids[2], n_source = 0;
    int64_t n[2];
    if (parts[0] == NULL || parts[1] == NULL)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s has an encoder and a decoder; expected "
                       "{\"prompt\": ..., \"target\": ...}, each a string or a list of ids",
                       m->loaded.model->architecture);
    for (int k = 0; k < 2; k++) {
        int32_t *found;
        PF_TRY(tokens_of(m, parts[k], special, a, &found, &n[k], err));
        ids[k] = PF_NEW_ARRAY(a, int32_t, n[k] + 2);
        PF_CHECK_ALLOC(ids[k], err);
        if (k == 1) ids[k][0] = m->loaded.model->decoder_start;
        if (n[k] > 0) memcpy(ids[k] + k, found, (size_t)n[k] * sizeof *found);
        for (int64_t i = 0; i < n[k]; i++) {
            if (found[i] >= m->loaded.model->vocab)
                return PF_FAIL(err, PEFT_E_FORMAT,
                               "id %d is outside of the model's vocabulary of %lld", found[i],
                               (long long)m->loaded.model->vocab);
        }
    }
    if (n[0] > (1 << 24) || n[1] > (1 << 24))
        return PF_FAIL(err, PEFT_E_FORMAT, "the texts are too long");
    n_source = (int32_t)n[0];
    if (special && json_is_string(parts[0])) end_source(m, ids[0], &n_source);
    pf_buf_adds(out, "{\"ids\": ");
    add_ids(out, ids[1] + 1, n[1]);
    if (n_source == 0) return PF_FAIL(err, PEFT_E_FORMAT, "the prompt has no tokens");
    if (n[1] == 0) {
        pf_buf_adds(out, ", \"nll\": []}");
        return PEFT_OK;
    }
    const pf_sample s = {.source = ids[0],
                         .n_source = n_source,
                         .tokens = ids[1],
                         .n_tokens = (int32_t)n[1] + 1,
                         .first_label = 1};
    const pf_lead lead = pf_model_lead(m->loaded.model, true);
    const pf_batch_builder_options o = {.max_tokens =
                                            lead.prompt + lead.each + n_source + s.n_tokens,
                                        .max_samples = 1,
                                        .prompt_rows = lead.prompt,
                                        .prefix_rows = lead.prefix,
                                        .each_rows = lead.each};
    pf_batch_builder *bb;
    pf_batch batch;
    pf_loss_sums sums = {0};
    int32_t n_micro;
    PF_TRY(make_scores(m, o.max_tokens, err));
    PF_TRY(pf_batch_builder_new(&bb, &o, err));
    peft_status status = pf_batch_builder_begin(bb, &s, 1, 0, &n_micro, err);
    if (status == PEFT_OK) {
        pf_batch_builder_get(bb, 0, &batch);
        status = pf_loss_graph_forward(&m->scores, &batch, &sums, err);
    }
    pf_batch_builder_free(bb);
    if (status == PEFT_OK) add_nll(m, n[1], out);
    return status;
}

static peft_status answer_generate(peft_model *m, const json_t *v, const peft_generate_options *opt,
                                   pf_buf *out, peft_error *err) {
    if (!json_is_string(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "expected a JSON string, found %s", pf_json_kind(v));
    const char *prompt = json_string_value(v);
    if (strlen(prompt) != json_string_length(v))
        return PF_FAIL(err, PEFT_E_FORMAT, "the prompt holds a NUL character");
    char *text;
    PF_TRY(peft_generate(m, &prompt, 1, opt, &text, err));
    pf_json_add_str(out, text, strlen(text), 0);
    pf_free(text);
    return PEFT_OK;
}

static peft_status answer(peft_model *m, const char *command, const json_t *v,
                          const peft_lines_options *opt, pf_arena *a, pf_buf *out,
                          peft_error *err) {
    int32_t *ids;
    int64_t n;
    if (pf_streq(command, "tokenize")) {
        if (!json_is_string(v))
            return PF_FAIL(err, PEFT_E_FORMAT, "expected a JSON string, found %s", pf_json_kind(v));
        PF_TRY(tokens_of(m, v, !opt->no_special, a, &ids, &n, err));
        add_ids(out, ids, n);
        return PEFT_OK;
    }
    if (pf_streq(command, "detokenize")) {
        if (!json_is_array(v))
            return PF_FAIL(err, PEFT_E_FORMAT, "expected a list of ids, found %s", pf_json_kind(v));
        PF_TRY(tokens_of(m, v, false, a, &ids, &n, err));
        pf_buf text = {0};
        peft_status status =
            pf_tokenizer_decode(m->loaded.tokenizer, ids, (size_t)n, false, &text, err);
        if (status == PEFT_OK) pf_json_add_str(out, pf_buf_str(&text), text.len, 0);
        pf_buf_free(&text);
        return status;
    }
    PF_TRY(needs_weights(m, err));
    if (pf_streq(command, "classify")) {
        if (m->classifier == NULL) PF_TRY(pf_classifier_new(&m->classifier, &m->loaded, err));
        return pf_classifier_answer(m->classifier, v, opt->threshold, out, err);
    }
    if (pf_task_is_classes(m->loaded.model->task))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is open for %s: it tells classes and predicts no tokens; use classify",
                       m->loaded.model->name, pf_task_name(m->loaded.model->task));
    if (pf_streq(command, "score") && m->loaded.model->encoder_decoder)
        return score_pair(m, v, !opt->no_special, a, out, err);
    if (pf_streq(command, "score")) {
        PF_TRY(tokens_of(m, v, !opt->no_special, a, &ids, &n, err));
        return score(m, ids, n, a, out, err);
    }
    if (pf_streq(command, "generate")) return answer_generate(m, v, opt->generate, out, err);
    return PF_FAIL(err, PEFT_E_USAGE, "'%s' is no command for lines", command);
}

peft_status peft_answer_line(peft_model *m, const char *command, const char *line,
                             const peft_lines_options *opt, char **text, bool *answered,
                             peft_error *err) {
    const peft_lines_options none = {0};
    pf_arena a;
    pf_arena_init(&a, "line");
    pf_buf out = {0};
    json_t *v = NULL;
    peft_error why = {0};
    peft_status status = pf_json_parse(&v, line, strlen(line), "line", &why);
    if (status == PEFT_OK)
        status = answer(m, command, v, opt != NULL ? opt : &none, &a, &out, &why);
    json_decref(v);
    *answered = status == PEFT_OK;
    if (status != PEFT_OK) {
        pf_buf_clear(&out);
        pf_buf_adds(&out, "{\"error\": ");
        pf_json_add_cstr(&out, why.message);
        pf_buf_addc(&out, '}');
    }
    pf_arena_release(&a);
    *text = out.data;
    if (pf_buf_ok(&out)) return PEFT_OK;
    pf_buf_free(&out);
    return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status peft_inspect(const char *path, bool json, char **text, peft_error *err) {
    *text = NULL;
    json_t *described;
    PF_TRY(pf_inspect(&described, path, err));
    pf_buf out = {0};
    peft_status status =
        json ? pf_json_dump(&out, described, 2, 0, err) : pf_inspect_text(&out, described, err);
    json_decref(described);
    if (status == PEFT_OK && !pf_buf_ok(&out)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK)
        *text = out.data;
    else
        pf_buf_free(&out);
    return status;
}

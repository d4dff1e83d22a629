/* data_load.c - see data_load.h. */
#include "data/data_load.h"

#include "base/hash.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

static pf_overlength overlength_of(const char *name) {
    if (pf_streq(name, "drop")) return PF_OVERLENGTH_DROP;
    if (pf_streq(name, "truncate")) return PF_OVERLENGTH_TRUNCATE;
    return PF_OVERLENGTH_ERROR;
}

static pf_reader_options reader_of(const pf_data_cfg *d) {
    return (pf_reader_options){.format = d->format,
                               .field = d->field,
                               .columns = &d->columns.list,
                               .delimiter = d->delimiter == NULL ? 0 : d->delimiter[0],
                               .no_quotes = !d->quotes};
}

pf_class_columns pf_data_label_columns(const pf_data_cfg *data) {
    const pf_strlist *many = &data->label_columns.list;
    return (pf_class_columns){.label = data->label,
                              .words = data->words,
                              .many = many->n > 0 ? many : NULL,
                              .delimiter = data->label_delimiter};
}

peft_status pf_data_look_at_labels(const pf_data_cfg *data, pf_problem told, pf_arena *a,
                                   pf_label_look *out, peft_error *err) {
    const pf_reader_options reader = reader_of(data);
    const pf_class_columns columns = pf_data_label_columns(data);
    const char *path =
        data->train != NULL && pf_path_exists(data->train) ? data->train : data->test;
    *out = (pf_label_look){.problem = told};
    if (!pf_data_has_label(data) || path == NULL || !pf_path_exists(path)) return PEFT_OK;
    if (data->words == NULL) return pf_label_look_at(path, &reader, &columns, told, a, out, err);
    out->problem = PF_PROBLEM_SINGLE;
    return pf_labels_scan(path, &reader, &columns, 0, a, &out->names, err);
}

static pf_dataset_options options_of(const pf_data_load_options *opt) {
    const pf_data_cfg *d = opt->data;
    pf_dataset_options o = {
        .reader = reader_of(d),
        .prompt = d->prompt,
        .target = d->target,
        .text = d->text,
        .tokens = {.ids = d->input_ids, .labels = d->labels, .vocab = opt->vocab},
        .encode = {.tokenizer = opt->tokenizer,
                   .add_bos = pf_streq(d->add_bos, "true")    ? PF_BOS_ALWAYS
                              : pf_streq(d->add_bos, "false") ? PF_BOS_NEVER
                                                              : PF_BOS_AUTO,
                   .add_eos = d->add_eos,
                   .encoder_decoder = opt->encoder_decoder,
                   .decoder_start = opt->decoder_start},
        .max_length = opt->training->max_length,
        .max_source = opt->encoder_decoder ? opt->training->max_source_length : 0,
        .max_target = opt->encoder_decoder ? opt->training->max_target_length : 0,
        .max_positions = opt->max_positions,
        .overlength = overlength_of(d->overlength),
        .pool = opt->pool,
    };
    if (opt->classes != NULL) o.classes = *opt->classes;
    return o;
}

/* What rows were longer than. */
static const char *limit_words(const pf_dataset_options *o, int64_t limit, char *out, size_t n) {
    if (o->max_source > 0 || o->max_target > 0) {
        return limit > 0 ? "training.max_source_length, max_target_length or max_length"
                         : "training.max_source_length or max_target_length";
    }
    snprintf(out, n, "%lld tokens", (long long)limit);
    return out;
}

static void report(const pf_dataset *ds, const pf_dataset_options *o) {
    const pf_data_counts *c = &ds->counts;
    char words[48];
    const char *limit = limit_words(o, c->limit, words, sizeof words);
    PF_INFO("%s: %lld of %lld rows, %lld tokens, %lld of them %s; the longest row has %d", ds->path,
            (long long)ds->n, (long long)c->rows, (long long)c->tokens, (long long)c->supervised,
            ds->values != NULL    ? "with a target"
            : ds->classes != NULL ? "with a class"
                                  : "learned",
            c->max_tokens);
    if (c->dropped > 0)
        PF_WARN("%s: %lld of %lld rows are longer than %s and were dropped "
                "(data.overlength=drop); the longest has %lld",
                ds->path, (long long)c->dropped, (long long)c->rows, limit, (long long)c->longest);
    if (c->truncated > 0)
        PF_WARN("%s: %lld of %lld rows are longer than %s and were cut at the end "
                "(data.overlength=truncate); the longest has %lld",
                ds->path, (long long)c->truncated, (long long)c->rows, limit,
                (long long)c->longest);
    if (c->without_labels > 0)
        PF_WARN("%s: %lld of %lld rows have no token to learn and were left out", ds->path,
                (long long)c->without_labels, (long long)c->rows);
    if (c->empty_targets > 0)
        PF_WARN("%s: %lld of %lld rows have an empty %s", ds->path, (long long)c->empty_targets,
                (long long)c->rows, ds->plain_text ? "text" : "target");
}

static peft_status make_fingerprint(pf_data *d, const pf_data_load_options *opt, peft_error *err) {
    pf_buf text = {0};
    pf_buf_addf(&text, "train %s\ntest %s\ntest_size %.17g seed %lld\n", d->train_set.fingerprint,
                d->test_set.fingerprint, opt->data->test_size, (long long)opt->training->data_seed);
    peft_status status = PEFT_OK;
    if (pf_buf_ok(&text))
        pf_sha256_of(text.data, text.len, d->fingerprint);
    else
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&text);
    return status;
}

static void warn_without_eos(const pf_data_load_options *opt) {
    if (opt->data->input_ids == NULL && !pf_data_has_label(opt->data) && opt->data->add_eos &&
        pf_tokenizer_special(opt->tokenizer).eos < 0)
        PF_WARN("%s names no end-of-sequence token: none is learned, and generation will not know "
                "where to stop (data.add_eos=false says that this is meant)",
                pf_tokenizer_source(opt->tokenizer));
}

/* An encoder reads prompts, a decoder learns targets: both have to be told apart. */
static peft_status check_kind(const pf_data_load_options *opt, peft_error *err) {
    const pf_training_cfg *t = opt->training;
    if (!opt->encoder_decoder) {
        if (t->max_source_length > 0 || t->max_target_length > 0)
            PF_WARN("training.max_source_length and max_target_length are for models with an "
                    "encoder; here training.max_length says how long a row may be");
        return PEFT_OK;
    }
    if (opt->data->text != NULL)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.text is one text, and the model has an encoder and a decoder; give "
                       "data.prompt for the one and data.target for the other");
    if (opt->data->input_ids != NULL)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.input_ids is not supported for models with an encoder; give texts "
                       "with data.prompt and data.target");
    return PEFT_OK;
}

static void warn_context(const pf_data_load_options *opt) {
    if (opt->max_positions > 0 && opt->training->max_length > opt->max_positions)
        PF_WARN("training.max_length is %lld and the model's context %lld tokens: no row may be "
                "longer than %lld",
                (long long)opt->training->max_length, (long long)opt->max_positions,
                (long long)opt->max_positions);
}

static peft_status load(pf_data *d, const pf_data_load_options *opt, peft_error *err) {
    const pf_data_cfg *cfg = opt->data;
    pf_dataset_options o = options_of(opt);
    PF_TRY(check_kind(opt, err));
    warn_without_eos(opt);
    warn_context(opt);
    bool split = cfg->test == NULL && cfg->test_size > 0;
    if (cfg->train != NULL && (!opt->test_only || split)) {
        o.max_rows = cfg->max_samples;
        PF_TRY(pf_dataset_load(&d->train_set, cfg->train, &o, err));
        report(&d->train_set, &o);
        if (split)
            PF_TRY(pf_split_by_size(&d->train_set, cfg->test_size,
                                    (uint64_t)opt->training->data_seed, &d->arena, &d->train,
                                    &d->test, err));
        else
            PF_TRY(pf_split_all(&d->train_set, &d->arena, &d->train, err));
    }
    if (cfg->test != NULL) {
        o.max_rows = 0;
        PF_TRY(pf_dataset_load(&d->test_set, cfg->test, &o, err));
        report(&d->test_set, &o);
        PF_TRY(pf_split_all(&d->test_set, &d->arena, &d->test, err));
    }
    if (d->train.n == 0 && d->test.n == 0)
        return PF_FAIL(err, PEFT_E_CONFIG, "there are no rows: data.%s is not given%s",
                       opt->test_only ? "test" : "train",
                       opt->test_only ? ", and data.test_size takes none of data.train" : "");
    return make_fingerprint(d, opt, err);
}

peft_status pf_data_load(pf_data *d, const pf_data_load_options *opt, peft_error *err) {
    memset(d, 0, sizeof *d);
    pf_arena_init(&d->arena, "data");
    peft_status status = load(d, opt, err);
    if (status != PEFT_OK) pf_data_release(d);
    return status;
}

void pf_data_release(pf_data *d) {
    if (d == NULL) return;
    pf_dataset_release(&d->train_set);
    pf_dataset_release(&d->test_set);
    pf_arena_release(&d->arena);
    memset(d, 0, sizeof *d);
}

pf_step_plan_options pf_data_step_options(const pf_data_load_options *opt) {
    const pf_training_cfg *t = opt->training;
    return (pf_step_plan_options){
        .batch_size = t->per_device_train_batch_size,
        .accumulation = t->gradient_accumulation_steps,
        .shuffle = opt->data->shuffle,
        .seed = (uint64_t)t->data_seed,
        .packing = t->packing,
        .pack_length = t->max_length > 0 ? t->max_length : opt->max_positions,
    };
}

pf_share pf_data_share(const pf_data_cfg *cfg) {
    if (pf_streq(cfg->share_prefixes, "always")) return PF_SHARE_ALWAYS;
    if (pf_streq(cfg->share_prefixes, "never")) return PF_SHARE_NEVER;
    return PF_SHARE_AUTO;
}

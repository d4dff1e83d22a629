/* data_stats.c - the figures; data_stats_print.c writes them down. */
#include "data/data_stats.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef struct keyed { /* an example by its text */
    uint64_t hash;
    pf_str text;
    int64_t at; /* in the view */
} keyed;

static int by_hash(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Sets made from tokens have no text: their examples are compared by the bytes of their ids. */
static pf_str tokens_of(const pf_dataset *ds, int64_t i, int32_t from, int32_t to) {
    const int32_t *ids = ds->tokens + ds->examples[i].first;
    return (pf_str){(const char *)(ids + from), (size_t)(to - from) * sizeof *ids};
}

static pf_str prompt_of(const pf_dataset *ds, int64_t i) {
    return ds->from_tokens ? tokens_of(ds, i, 0, ds->examples[i].n_prompt)
                           : pf_dataset_prompt(ds, i);
}

static pf_str target_of(const pf_dataset *ds, int64_t i) {
    const pf_example *e = &ds->examples[i];
    return ds->from_tokens ? tokens_of(ds, i, e->n_prompt, e->n_tokens) : pf_dataset_target(ds, i);
}

static pf_str whole_text(const pf_dataset *ds, int64_t i) {
    if (ds->from_tokens) return tokens_of(ds, i, 0, ds->examples[i].n_tokens);
    return (pf_str){ds->text + ds->examples[i].text, ds->examples[i].n_text};
}

/* The whole text also has to be cut at one place to be the same example. */
static uint64_t text_seed(const pf_dataset *ds, int64_t i, bool prompt) {
    const pf_example *e = &ds->examples[i];
    return prompt ? 1 : 2 + (ds->from_tokens ? (size_t)e->n_prompt : e->n_prompt_text);
}

/* The view's texts (or prompts), sorted, so that equal ones stand together in the order of the
 * view. */
static keyed *sorted_texts(const pf_data_view *v, bool prompt, peft_error *err) {
    keyed *all = pf_calloc((size_t)v->n, sizeof *all);
    if (all == NULL) {
        pf_fail(err, PEFT_E_NOMEM, "out of memory for the texts of %lld rows", (long long)v->n);
        return NULL;
    }
    for (int64_t i = 0; i < v->n; i++) {
        int64_t e = v->index[i];
        pf_str text = prompt ? prompt_of(v->set, e) : whole_text(v->set, e);
        all[i] = (keyed){pf_hash64(text.p, text.n, text_seed(v->set, e, prompt)), text, i};
    }
    qsort(all, (size_t)v->n, sizeof *all, by_hash);
    return all;
}

static bool same(const keyed *a, const keyed *b) {
    return a->hash == b->hash && pf_str_eq(a->text, b->text);
}

static bool holds(const keyed *all, int64_t n, const keyed *one) {
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (all[mid].hash < one->hash)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < n && all[low].hash == one->hash; low++)
        if (same(&all[low], one)) return true;
    return false;
}

static peft_status count_repeats(const pf_data_view *v, pf_view_stats *s, peft_error *err) {
    keyed *texts = sorted_texts(v, false, err), *prompts = NULL;
    if (texts == NULL) return PEFT_E_NOMEM;
    for (int64_t i = 1; i < v->n; i++) s->duplicates += same(&texts[i], &texts[i - 1]);
    pf_free(texts);
    if (v->set->plain_text) return PEFT_OK;
    prompts = sorted_texts(v, true, err);
    if (prompts == NULL) return PEFT_E_NOMEM;
    for (int64_t i = 0, first = 0; i < v->n; i++) {
        if (!same(&prompts[i], &prompts[first])) first = i;
        pf_str a = target_of(v->set, v->index[prompts[i].at]);
        pf_str b = target_of(v->set, v->index[prompts[first].at]);
        s->contradictory += !pf_str_eq(a, b);
    }
    pf_free(prompts);
    return PEFT_OK;
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return x < y ? -1 : x > y;
}

/* 1, 2 or 5 times a power of ten, so that the longest falls into one of a dozen bins. */
static int32_t nice_width(int32_t longest) {
    for (int64_t power = 1;; power *= 10)
        for (int k = 1; k <= 5; k += k == 1 ? 1 : 3)
            if (power * k * 12 >= longest) return (int32_t)(power * k);
}

static peft_status measure(const pf_data_view *v, pf_view_stats *s, peft_error *err) {
    int32_t *lengths = pf_calloc((size_t)v->n, sizeof *lengths);
    PF_CHECK_ALLOC(lengths, err);
    for (int64_t i = 0; i < v->n; i++) {
        const pf_example *e = &v->set->examples[v->index[i]];
        int32_t supervised = pf_example_supervised(e);
        lengths[i] = e->n_tokens;
        s->tokens += e->n_tokens;
        s->supervised += supervised;
        if (supervised > s->longest_target) s->longest_target = supervised;
        s->split += (e->flags & PF_EXAMPLE_SPLIT) != 0;
        s->truncated += (e->flags & PF_EXAMPLE_TRUNCATED) != 0;
        s->empty_targets += (e->flags & PF_EXAMPLE_EMPTY_TARGET) != 0;
    }
    qsort(lengths, (size_t)v->n, sizeof *lengths, ascending);
    s->examples = v->n;
    s->shortest = lengths[0];
    s->longest = lengths[v->n - 1];
    s->p50 = lengths[(v->n - 1) * 50 / 100];
    s->p90 = lengths[(v->n - 1) * 90 / 100];
    s->p95 = lengths[(v->n - 1) * 95 / 100];
    s->p99 = lengths[(v->n - 1) * 99 / 100];
    s->bin_width = nice_width(s->longest);
    s->n_bins = (s->longest - 1) / s->bin_width + 1;
    for (int64_t i = 0; i < v->n; i++) s->bins[(lengths[i] - 1) / s->bin_width]++;
    pf_free(lengths);
    return count_repeats(v, s, err);
}

static peft_status compare(const pf_data *d, bool prompt, int64_t *count, peft_error *err) {
    keyed *train = sorted_texts(&d->train, prompt, err);
    if (train == NULL) return PEFT_E_NOMEM;
    keyed *test = sorted_texts(&d->test, prompt, err);
    if (test == NULL) {
        pf_free(train);
        return PEFT_E_NOMEM;
    }
    for (int64_t i = 0; i < d->test.n; i++) *count += holds(train, d->train.n, &test[i]);
    pf_free(train);
    pf_free(test);
    return PEFT_OK;
}

/* Builds the steps of one epoch, each in one piece, to see what common prefixes save. */
static peft_status count_rows(pf_data_stats *out, const pf_data *d, pf_step_plan *plan,
                              pf_share share, peft_error *err) {
    int32_t most = pf_step_plan_max_samples(plan);
    int64_t longest = 1;
    for (int64_t k = 0; k < out->steps_per_epoch; k++) {
        pf_step s;
        pf_step_plan_get(plan, k, &s);
        if (s.tokens > longest) longest = s.tokens;
    }
    if (longest > INT32_MAX / 2) return PEFT_OK; /* no step is planned like that */
    pf_batch_builder *bb = NULL;
    pf_batch_builder_options opt = {
        .max_tokens = (int32_t)longest, .max_samples = most, .share = share};
    pf_sample *samples = pf_calloc((size_t)most, sizeof *samples);
    PF_CHECK_ALLOC(samples, err);
    peft_status status = pf_batch_builder_new(&bb, &opt, err);
    for (int64_t k = 0; k < out->steps_per_epoch && status == PEFT_OK; k++) {
        pf_step s;
        int32_t n_micro = 0;
        pf_step_plan_get(plan, k, &s);
        for (int32_t i = 0; i < s.n; i++)
            samples[i] = pf_dataset_sample(d->train.set, s.examples[i], i);
        status = pf_batch_builder_begin(bb, samples, s.n, 0, &n_micro, err);
        out->rows += pf_batch_builder_figures(bb).rows;
        out->rows_plain += pf_batch_builder_figures(bb).rows_plain;
    }
    pf_batch_builder_free(bb);
    pf_free(samples);
    return status;
}

peft_status pf_data_stats_make(pf_data_stats *out, const pf_data *d,
                               const pf_step_plan_options *step, pf_share share, peft_error *err) {
    memset(out, 0, sizeof *out);
    if (d->train.n > 0) {
        PF_TRY(measure(&d->train, &out->train, err));
        pf_step_plan *plan = NULL;
        PF_TRY(pf_step_plan_new(&plan, &d->train, step, err));
        out->steps_per_epoch = pf_step_plan_steps_per_epoch(plan);
        peft_status status = count_rows(out, d, plan, share, err);
        pf_step_plan_free(plan);
        PF_TRY(status);
    }
    if (d->test.n > 0) PF_TRY(measure(&d->test, &out->test, err));
    if (d->train.n > 0 && d->test.n > 0) {
        PF_TRY(compare(d, false, &out->test_in_train, err));
        if (!d->test.set->plain_text) PF_TRY(compare(d, true, &out->test_prompts_in_train, err));
    }
    return PEFT_OK;
}

/* data_stats_print.c - the figures of data_stats.h as text for people and as JSON for programs. */
#include "data/data_stats.h"

#include "text/json.h"

#include <math.h>

static double percent(int64_t part, int64_t whole) {
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0.0;
}

static void file_text(const pf_dataset *ds, pf_buf *out) {
    const pf_data_counts *c = &ds->counts;
    pf_buf_addf(out, "file             %s (%s), %lld rows\n", ds->path, ds->format,
                (long long)c->rows);
    pf_buf_addf(out, "  longest row    %lld tokens (row %lld, line %lld)", (long long)c->longest,
                (long long)c->longest_row, (long long)c->longest_line);
    if (c->limit > 0)
        pf_buf_addf(out, "; limit %lld: %lld rows beyond it, %lld dropped, %lld cut",
                    (long long)c->limit, (long long)c->over_limit, (long long)c->dropped,
                    (long long)c->truncated);
    pf_buf_addc(out, '\n');
    if (c->without_labels > 0)
        pf_buf_addf(out, "  left out       %lld rows without a token to learn\n",
                    (long long)c->without_labels);
}

static void view_text(const char *name, const pf_view_stats *s, pf_buf *out) {
    pf_buf_addf(out, "%-16s %lld examples, %lld tokens, %lld learned (%.1f %%)\n", name,
                (long long)s->examples, (long long)s->tokens, (long long)s->supervised,
                percent(s->supervised, s->tokens));
    pf_buf_addf(out,
                "  tokens         mean %.1f; shortest %d, median %d, 90 %% up to %d, 95 %% %d, "
                "99 %% %d, longest %d\n",
                (double)s->tokens / (double)s->examples, s->shortest, s->p50, s->p90, s->p95,
                s->p99, s->longest);
    pf_buf_addf(out, "  learned        mean %.1f; longest %d\n",
                (double)s->supervised / (double)s->examples, s->longest_target);
    pf_buf_addf(out,
                "  split          %lld examples where a token would have straddled prompt and "
                "target\n",
                (long long)s->split);
    pf_buf_addf(out, "  empty targets  %lld\n", (long long)s->empty_targets);
    pf_buf_addf(out,
                "  repeated       %lld examples; %lld with a known prompt but another target\n",
                (long long)s->duplicates, (long long)s->contradictory);
    int64_t most = 1;
    for (int i = 0; i < s->n_bins; i++)
        if (s->bins[i] > most) most = s->bins[i];
    for (int i = 0; i < s->n_bins; i++) {
        pf_buf_addf(out, "  %6d -%6d %7lld%s", i * s->bin_width + 1, (i + 1) * s->bin_width,
                    (long long)s->bins[i], s->bins[i] > 0 ? " " : "");
        for (int64_t k = 0; k < (s->bins[i] * 50 + most - 1) / most; k++) pf_buf_addc(out, '#');
        pf_buf_addc(out, '\n');
    }
}

/* How often class k occurs: once per text, or per labelled token. */
static int64_t count_class(const pf_data_view *v, int k) {
    int64_t count = 0;
    if (v->set->values != NULL) {
        for (int64_t i = 0; i < v->n; i++)
            count += v->set->values[v->index[i] * v->set->n_values + k] > 0;
        return count;
    }
    for (int64_t i = 0; i < v->n; i++) {
        const pf_example *e = &v->set->examples[v->index[i]];
        for (int32_t t = 0; t < e->n_tokens; t++) count += v->set->classes[e->first + t] == k;
    }
    return count;
}

typedef struct range {
    double mean, deviation, least, most;
} range;

/* Of output k of a regression. */
static range range_of(const pf_data_view *v, int k) {
    range r = {0};
    double squares = 0;
    for (int64_t i = 0; i < v->n; i++) {
        const double y = (double)v->set->values[v->index[i] * v->set->n_values + k];
        const double step = y - r.mean;
        r.mean += step / (double)(i + 1);
        squares += step * (y - r.mean);
        if (i == 0 || y < r.least) r.least = y;
        if (i == 0 || y > r.most) r.most = y;
    }
    r.deviation = v->n > 0 ? sqrt(squares / (double)v->n) : 0;
    return r;
}

static bool is_regression(const pf_data_view *v) {
    return v->set->values != NULL && v->set->problem == PF_PROBLEM_REGRESSION;
}

static void numbers_text(const pf_data_view *v, pf_buf *out) {
    for (int k = 0; k < v->set->n_values; k++) {
        const range r = range_of(v, k);
        pf_buf_addf(out, "  %-14s %.4g to %.4g, mean %.4g, standard deviation %.4g\n",
                    v->set->n_values == 1 ? "numbers" : v->set->labels->items[k], r.least, r.most,
                    r.mean, r.deviation);
    }
}

static void numbers_json(const char *name, const pf_data_view *v, pf_buf *out) {
    pf_buf_addf(out, ", \"%s\": {", name);
    for (int k = 0; k < v->set->n_values; k++) {
        const range r = range_of(v, k);
        pf_buf_adds(out, k > 0 ? ", " : "");
        pf_json_add_cstr(out, v->set->labels->items[k]);
        pf_buf_addf(out, ": {\"min\": %.7g, \"max\": %.7g, \"mean\": %.7g, \"std\": %.7g}", r.least,
                    r.most, r.mean, r.deviation);
    }
    pf_buf_addc(out, '}');
}

static void classes_text(const pf_data_view *v, pf_buf *out) {
    if (v->set->classes == NULL) return;
    if (is_regression(v)) {
        numbers_text(v, out);
        return;
    }
    pf_buf_adds(out, "  classes       ");
    for (int k = 0; k < v->set->labels->n; k++)
        pf_buf_addf(out, "%s %s %lld", k > 0 ? "," : "", v->set->labels->items[k],
                    (long long)count_class(v, k));
    pf_buf_addc(out, '\n');
}

static void classes_json(const char *name, const pf_data_view *v, pf_buf *out) {
    if (v->set->classes == NULL) return;
    if (is_regression(v)) {
        numbers_json(name, v, out);
        return;
    }
    pf_buf_addf(out, ", \"%s\": {", name);
    for (int k = 0; k < v->set->labels->n; k++) {
        pf_buf_adds(out, k > 0 ? ", " : "");
        pf_json_add_cstr(out, v->set->labels->items[k]);
        pf_buf_addf(out, ": %lld", (long long)count_class(v, k));
    }
    pf_buf_addc(out, '}');
}

void pf_data_stats_text(const pf_data_stats *s, const pf_data *d, pf_buf *out) {
    if (d->train_set.path != NULL) file_text(&d->train_set, out);
    if (d->test_set.path != NULL) file_text(&d->test_set, out);
    if (s->train.examples > 0) {
        view_text("train", &s->train, out);
        classes_text(&d->train, out);
        pf_buf_addf(out, "  steps          %lld in an epoch\n", (long long)s->steps_per_epoch);
        pf_buf_addf(out,
                    "  shared         %lld of %lld rows (%.1f %%) are beginnings that samples of a "
                    "step have in common\n",
                    (long long)(s->rows_plain - s->rows), (long long)s->rows_plain,
                    percent(s->rows_plain - s->rows, s->rows_plain));
    }
    if (s->test.examples > 0) {
        view_text("test", &s->test, out);
        classes_text(&d->test, out);
    }
    if (s->train.examples > 0 && s->test.examples > 0)
        pf_buf_addf(out,
                    "leakage          %lld of %lld test examples are in the training set, %lld of "
                    "their prompts are\n",
                    (long long)s->test_in_train, (long long)s->test.examples,
                    (long long)s->test_prompts_in_train);
    pf_buf_addf(out, "fingerprint      %s\n", d->fingerprint);
}

static void add_int(pf_buf *out, const char *name, int64_t v) {
    pf_buf_addf(out, ", \"%s\": %lld", name, (long long)v);
}

static void file_json(const char *name, const pf_dataset *ds, pf_buf *out) {
    const pf_data_counts *c = &ds->counts;
    pf_buf_addf(out, ", \"%s\": {\"path\": ", name);
    pf_json_add_cstr(out, ds->path);
    pf_buf_addf(out, ", \"format\": \"%s\", \"sha256\": \"%s\"", ds->format, ds->file_sha256);
    add_int(out, "rows", c->rows);
    add_int(out, "longest", c->longest);
    add_int(out, "longest_row", c->longest_row);
    add_int(out, "longest_line", c->longest_line);
    add_int(out, "limit", c->limit);
    add_int(out, "over_limit", c->over_limit);
    add_int(out, "dropped", c->dropped);
    add_int(out, "truncated", c->truncated);
    add_int(out, "without_labels", c->without_labels);
    pf_buf_addc(out, '}');
}

static void view_json(const char *name, const pf_view_stats *s, pf_buf *out) {
    pf_buf_addf(out, ", \"%s\": {\"examples\": %lld", name, (long long)s->examples);
    add_int(out, "tokens", s->tokens);
    add_int(out, "supervised", s->supervised);
    add_int(out, "shortest", s->shortest);
    add_int(out, "p50", s->p50);
    add_int(out, "p90", s->p90);
    add_int(out, "p95", s->p95);
    add_int(out, "p99", s->p99);
    add_int(out, "longest", s->longest);
    add_int(out, "longest_target", s->longest_target);
    add_int(out, "split", s->split);
    add_int(out, "truncated", s->truncated);
    add_int(out, "empty_targets", s->empty_targets);
    add_int(out, "duplicates", s->duplicates);
    add_int(out, "contradictory", s->contradictory);
    pf_buf_adds(out, ", \"lengths\": [");
    for (int i = 0; i < s->n_bins; i++)
        pf_buf_addf(out, "%s{\"from\": %d, \"to\": %d, \"count\": %lld}", i > 0 ? ", " : "",
                    i * s->bin_width + 1, (i + 1) * s->bin_width, (long long)s->bins[i]);
    pf_buf_adds(out, "]}");
}

void pf_data_stats_json(const pf_data_stats *s, const pf_data *d, pf_buf *out) {
    pf_buf_addf(out, "{\"fingerprint\": \"%s\"", d->fingerprint);
    if (d->train_set.path != NULL) file_json("train_file", &d->train_set, out);
    if (d->test_set.path != NULL) file_json("test_file", &d->test_set, out);
    if (s->train.examples > 0) {
        view_json("train", &s->train, out);
        classes_json("train_classes", &d->train, out);
        add_int(out, "steps_per_epoch", s->steps_per_epoch);
        add_int(out, "rows", s->rows);
        add_int(out, "rows_plain", s->rows_plain);
    }
    if (s->test.examples > 0) {
        view_json("test", &s->test, out);
        classes_json("test_classes", &d->test, out);
    }
    if (s->train.examples > 0 && s->test.examples > 0) {
        add_int(out, "test_in_train", s->test_in_train);
        add_int(out, "test_prompts_in_train", s->test_prompts_in_train);
    }
    pf_buf_addc(out, '}');
}

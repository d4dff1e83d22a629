/* test_batch_builder.c - whatever is shared and however the step is cut, the micro-batches describe
 * the samples that went in: every label once, on a row that sees exactly the tokens before it. */
#include "data/batch_builder.h"
#include "data/batch_spec.h"

#include "base/arena.h"
#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_SAMPLES = 40, MAX_LENGTH = 60, VOCAB = 50 };

typedef struct step {
    int32_t n;
    int32_t tokens[MAX_SAMPLES][MAX_LENGTH];
    float weights[MAX_SAMPLES][MAX_LENGTH];
    pf_sample samples[MAX_SAMPLES];
} step;

typedef struct draw {
    pf_rng_key key;
    uint64_t at;
} draw;

static int32_t below(draw *d, int32_t bound) {
    return (int32_t)pf_rng_below_at(d->key, d->at++, (uint64_t)bound);
}

/* Few symbols and copied beginnings, so that prefixes are common, several levels deep, and whole
 * samples repeat. */
static void make_step(step *s, draw *d) {
    s->n = 1 + below(d, MAX_SAMPLES);
    int32_t symbols = 1 + below(d, 4) * below(d, 4);
    for (int32_t i = 0; i < s->n; i++) {
        int32_t length = 1 + below(d, MAX_LENGTH), copied = 0;
        if (i > 0 && below(d, 3) > 0) {
            const pf_sample *from = &s->samples[below(d, i)];
            copied = below(d, from->n_tokens + 1);
            if (below(d, 4) == 0) copied = length = from->n_tokens;
            if (copied > length) length = copied;
            memcpy(s->tokens[i], from->tokens, sizeof(int32_t) * (size_t)copied);
        }
        for (int32_t k = copied; k < length; k++) s->tokens[i][k] = below(d, symbols);
        for (int32_t k = 0; k < length; k++) s->weights[i][k] = (float)below(d, 8);
        s->samples[i] = (pf_sample){.tokens = s->tokens[i],
                                    .n_tokens = length,
                                    .first_label = 1 + below(d, length),
                                    .weights = below(d, 2) ? s->weights[i] : NULL,
                                    .index = i};
        if (below(d, 3) == 0) s->samples[i].end_label = 1 + below(d, length);
    }
}

static bool is_target(const pf_sample *s, int32_t k) {
    int32_t end = s->end_label > 0 ? s->end_label : s->n_tokens;
    return k >= s->first_label && k < end && (s->weights == NULL || s->weights[k] > 0);
}

/* Rows that ids 0..n-1 of a sample take when every common prefix is held once: the number of
 * different prefixes. */
static int64_t distinct_prefixes(const step *s, bool keep_tail, int32_t rope_original) {
    int64_t count = 0;
    for (int32_t i = 0; i < s->n; i++) {
        const pf_sample *a = &s->samples[i];
        int32_t known = 0, rows = pf_sample_rows(a, keep_tail);
        for (int32_t j = 0; j < i; j++) {
            const pf_sample *b = &s->samples[j];
            int32_t k = 0, other = pf_sample_rows(b, keep_tail);
            if (rope_original > 0 && (a->n_tokens > rope_original || b->n_tokens > rope_original) &&
                a->n_tokens != b->n_tokens)
                continue;
            while (k < rows && k < other && a->tokens[k] == b->tokens[k]) k++;
            if (k > known) known = k;
        }
        count += rows - known;
    }
    return count;
}

/* Does row i of the batch see exactly tokens[0..pos] of the sample? */
static bool sees(const pf_batch *b, int32_t i, const pf_sample *s) {
    int32_t at = 0;
    for (int32_t j = 0; j <= i; j++) {
        if (b->end[j] <= i) continue;
        if (at >= s->n_tokens || b->ids[j] != s->tokens[at] || b->pos[j] != at) return false;
        at++;
    }
    return at == b->pos[i] + 1;
}

/* keys[sample][pos]: key of the row that the label's token is predicted from; -1 where it is not
 * known yet. */
static int64_t check_step(pf_batch_builder *bb, const step *s, const pf_batch_builder_options *opt,
                          int32_t keys[][MAX_LENGTH]) {
    static unsigned char labels[MAX_SAMPLES][MAX_LENGTH], rows_seen[MAX_SAMPLES][MAX_LENGTH];
    memset(labels, 0, sizeof labels);
    peft_error err = {0};
    int32_t n_micro = 0;
    int64_t rows = 0, n_labels = 0, allocations = pf_alloc_count();
    if (pf_batch_builder_begin(bb, s->samples, s->n, 7, &n_micro, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    for (int32_t m = 0; m < n_micro; m++) {
        pf_batch b;
        pf_batch_builder_get(bb, m, &b);
        if (pf_batch_check(&b, VOCAB, 0, &err) != PEFT_OK) fail_msg("%s", err.message);
        assert_true(b.n_tokens <= opt->max_tokens);
        assert_true(b.n_labels <= (opt->max_labels > 0 ? opt->max_labels : opt->max_tokens));
        assert_int_equal(b.step, 7);
        rows += b.n_tokens;
        n_labels += b.n_labels;
        for (int32_t e = 0; e < b.n_labels; e++) {
            int32_t row = b.label_row[e], k = b.pos[row] + 1;
            const pf_sample *sample = &s->samples[b.label_sample[e]];
            assert_true(is_target(sample, k));
            assert_int_equal(b.label_target[e], sample->tokens[k]);
            assert_true(b.label_weight[e] == (sample->weights ? sample->weights[k] : 1.0f));
            assert_true(sees(&b, row, sample));
            assert_int_equal(labels[b.label_sample[e]][k]++, 0);
            /* the key of a row is that of a sample that has it, and of no later one than this; no
             * cut changes it */
            assert_true(b.sample[row] <= b.label_sample[e]);
            int32_t *key = &keys[b.label_sample[e]][b.pos[row]];
            if (*key < 0) *key = b.sample[row];
            assert_int_equal(b.sample[row], *key);
            const pf_segment *seg = &b.segments[b.seg[row]];
            if (opt->rope_original > 0) {
                if (sample->n_tokens > opt->rope_original)
                    assert_int_equal(seg->rope_length, sample->n_tokens);
                else
                    assert_true(seg->rope_length <= opt->rope_original);
            }
        }
        memset(rows_seen, 0, sizeof rows_seen);
        for (int32_t row = 0; row < b.n_tokens; row++) {
            assert_true(sees(&b, row, &s->samples[b.sample[row]]));
            assert_int_equal(rows_seen[b.sample[row]][b.pos[row]]++, 0);
        }
    }
    assert_int_equal(pf_alloc_count(), allocations);
    double weight = 0;
    int64_t expected = 0, plain = 0;
    for (int32_t i = 0; i < s->n; i++) {
        plain += pf_sample_rows(&s->samples[i], opt->keep_tail);
        for (int32_t k = 0; k < s->samples[i].n_tokens; k++) {
            bool target = is_target(&s->samples[i], k);
            assert_int_equal(labels[i][k], target);
            if (!target) continue;
            expected++;
            weight += s->samples[i].weights ? (double)s->samples[i].weights[k] : 1.0;
        }
    }
    pf_batch_figures f = pf_batch_builder_figures(bb);
    assert_int_equal(n_labels, expected);
    assert_int_equal(f.labels, expected);
    assert_int_equal(f.rows_plain, plain);
    assert_int_equal(f.rows, rows);
    assert_true(f.label_weight == weight);
    return rows;
}

static void test_properties(void **state) {
    (void)state;
    static step s;
    int shared_cuts = 0;
    for (uint64_t trial = 0; trial < 600; trial++) {
        draw d = {pf_rng_make_key(11, PF_RNG_DATA, trial), 0};
        make_step(&s, &d);
        bool keep_tail = below(&d, 2), dropout = below(&d, 2);
        int32_t rope_original = below(&d, 2) ? below(&d, MAX_LENGTH) : 0;
        int32_t budgets[] = {MAX_LENGTH, MAX_LENGTH + below(&d, 100), MAX_SAMPLES * MAX_LENGTH};
        int64_t unlimited[3] = {0};
        static int32_t keys[3][MAX_SAMPLES][MAX_LENGTH];
        memset(keys, -1, sizeof keys);
        for (int budget = 2; budget >= 0; budget--) {
            for (int share = PF_SHARE_AUTO; share <= PF_SHARE_ALWAYS; share++) {
                pf_batch_builder_options opt = {
                    .max_tokens = budgets[budget],
                    .max_labels = budget == 1 ? MAX_LENGTH : 0,
                    .max_samples = MAX_SAMPLES,
                    .share = (pf_share)share,
                    .dropout = dropout,
                    .rope_original = rope_original,
                    .keep_tail = keep_tail,
                };
                pf_batch_builder *bb = NULL;
                assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
                int64_t rows = check_step(bb, &s, &opt, keys[share]);
                int64_t plain = pf_batch_builder_figures(bb).rows_plain;
                assert_true(rows <= plain);
                if (share == PF_SHARE_NEVER || (share == PF_SHARE_AUTO && dropout))
                    assert_int_equal(rows, plain);
                if (budget == 2)
                    unlimited[share] = rows;
                else if (rows > unlimited[share] && share == PF_SHARE_ALWAYS)
                    shared_cuts++;
                assert_int_equal(check_step(bb, &s, &opt, keys[share]),
                                 rows); /* nothing is left behind */
                pf_batch_builder_free(bb);
            }
        }
        assert_int_equal(unlimited[PF_SHARE_ALWAYS],
                         distinct_prefixes(&s, keep_tail, rope_original));
        assert_true(unlimited[PF_SHARE_ALWAYS] <= unlimited[PF_SHARE_AUTO]);
    }
    assert_true(shared_cuts > 50); /* trees that had to be cut did occur */
}

static pf_sample sample_of(const int32_t *tokens, int32_t n, int32_t first_label, int32_t index) {
    return (pf_sample){.tokens = tokens, .n_tokens = n, .first_label = first_label, .index = index};
}

/* The drawing of batch.h: A B C, A B and A D, with one label after the whole and one inside what is
 * shared. */
static void test_tree(void **state) {
    (void)state;
    static const int32_t abc[] = {1, 2, 3, 4, 5, 6, 7, 30}, ad[] = {1, 2, 3, 4, 8, 9, 10, 31},
                         ab[] = {1, 2, 3, 4, 5, 6, 32};
    pf_sample samples[] = {sample_of(abc, 8, 5, 0), sample_of(ad, 8, 7, 1), sample_of(ab, 7, 5, 2)};
    pf_batch_builder *bb = NULL;
    pf_batch_builder_options opt = {.max_tokens = 100, .max_samples = 3, .share = PF_SHARE_ALWAYS};
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    int32_t n_micro = 0;
    assert_int_equal(pf_batch_builder_begin(bb, samples, 3, 0, &n_micro, NULL), PEFT_OK);
    assert_int_equal(n_micro, 1);
    pf_batch b;
    pf_batch_builder_get(bb, 0, &b);
    assert_int_equal(b.n_tokens, 10);
    static const int32_t ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    static const int32_t pos[] = {0, 1, 2, 3, 4, 5, 6, 4, 5, 6};
    static const int32_t end[] = {10, 10, 10, 10, 7, 7, 7, 10, 10, 10};
    static const int32_t key[] = {0, 0, 0, 0, 0, 0, 0, 1, 1, 1};
    assert_memory_equal(b.ids, ids, sizeof ids);
    assert_memory_equal(b.pos, pos, sizeof pos);
    assert_memory_equal(b.end, end, sizeof end);
    assert_memory_equal(b.sample, key, sizeof key);
    /* nothing goes on from A B but C, so both are one segment */
    assert_int_equal(b.n_segments, 3);
    static const int32_t parent[] = {-1, 0, 0}, length[] = {4, 3, 3};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(b.segments[i].parent, parent[i]);
        assert_int_equal(b.segments[i].length, length[i]);
    }
    static const int32_t row[] = {4, 4, 5, 5, 6, 9}, target[] = {6, 6, 7, 32, 30, 31},
                         sample[] = {0, 2, 0, 2, 0, 1};
    assert_int_equal(b.n_labels, 6);
    assert_memory_equal(b.label_row, row, sizeof row);
    assert_memory_equal(b.label_target, target, sizeof target);
    assert_memory_equal(b.label_sample, sample, sizeof sample);
    pf_batch_builder_free(bb);
}

/* Nothing shared: the order given, first fit. */
static void test_first_fit(void **state) {
    (void)state;
    static const int32_t a[] = {1, 1, 1, 1, 1, 9}, b[] = {2, 2, 2, 9}, c[] = {3, 3, 3, 3, 9},
                         d[] = {4, 4, 9};
    pf_sample samples[] = {sample_of(a, 6, 1, 0), sample_of(b, 4, 1, 1), sample_of(c, 5, 1, 2),
                           sample_of(d, 3, 1, 3)};
    for (int share = PF_SHARE_AUTO; share <= PF_SHARE_ALWAYS; share++) {
        pf_batch_builder *bb = NULL;
        pf_batch_builder_options opt = {
            .max_tokens = 7, .max_samples = 4, .share = (pf_share)share};
        assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
        int32_t n_micro = 0;
        assert_int_equal(pf_batch_builder_begin(bb, samples, 4, 0, &n_micro, NULL), PEFT_OK);
        assert_int_equal(n_micro, 2);
        pf_batch first, second;
        pf_batch_builder_get(bb, 0, &first);
        static const int32_t ids0[] = {1, 1, 1, 1, 1, 4, 4}, ids1[] = {2, 2, 2, 3, 3, 3, 3};
        assert_int_equal(first.n_tokens, 7);
        assert_memory_equal(first.ids, ids0, sizeof ids0);
        pf_batch_builder_get(bb, 1, &second);
        assert_int_equal(second.n_tokens, 7);
        assert_memory_equal(second.ids, ids1, sizeof ids1);
        pf_batch_builder_free(bb);
    }
}

/* A prefix that saves less than it costs stays where it is: 3 rows x (2 - 1) is below the overhead,
 * 3 x (3 - 1) not. */
static void test_cost_model(void **state) {
    (void)state;
    static const int32_t a[] = {1, 1, 1, 5, 5}, b[] = {1, 1, 1, 6, 6}, c[] = {1, 1, 1, 7, 7};
    pf_sample samples[] = {sample_of(a, 5, 1, 0), sample_of(b, 5, 1, 1), sample_of(c, 5, 1, 2)};
    pf_batch_builder *bb = NULL;
    pf_batch_builder_options opt = {.max_tokens = 20, .max_samples = 3};
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    int32_t n_micro = 0;
    assert_int_equal(PF_SHARE_OVERHEAD, 4);
    assert_int_equal(pf_batch_builder_begin(bb, samples, 2, 0, &n_micro, NULL), PEFT_OK);
    assert_int_equal(pf_batch_builder_figures(bb).rows, 8);
    assert_int_equal(pf_batch_builder_begin(bb, samples, 3, 0, &n_micro, NULL), PEFT_OK);
    assert_int_equal(pf_batch_builder_figures(bb).rows_plain, 12);
    assert_int_equal(pf_batch_builder_figures(bb).rows, 6);

    /* "1 1 5" is not kept (1 row) and hands its two branches to "1 1": 2 rows x (3 - 1) pays */
    static const int32_t d[] = {1, 1, 5, 5, 5}, e[] = {1, 1, 5, 6, 6}, f[] = {1, 1, 7, 7, 7};
    pf_sample more[] = {sample_of(d, 5, 1, 0), sample_of(e, 5, 1, 1), sample_of(f, 5, 1, 2)};
    assert_int_equal(pf_batch_builder_begin(bb, more, 3, 0, &n_micro, NULL), PEFT_OK);
    assert_int_equal(pf_batch_builder_figures(bb).rows, 8);
    pf_batch_builder_free(bb);
}

/* Rows below a prefix cost, too: one token of 40 samples of 60 saves 39 rows, where 4 + 40 * 58 /
 * 32 are asked for; three tokens save 117. */
static void test_cost_of_rows_below(void **state) {
    (void)state;
    enum { N = 40, LENGTH = 60 };
    static int32_t tokens[N][LENGTH];
    static pf_sample samples[N];
    pf_batch_builder *bb = NULL;
    const pf_batch_builder_options opt = {.max_tokens = N * LENGTH, .max_samples = N};
    assert_int_equal(PF_SHARE_BELOW, 32);
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    for (int common = 1; common <= 3; common += 2) {
        for (int i = 0; i < N; i++) {
            for (int t = 0; t < LENGTH; t++) tokens[i][t] = t < common ? 1 : 2 + i;
            samples[i] = sample_of(tokens[i], LENGTH, 1, i);
        }
        int32_t n_micro = 0;
        assert_int_equal(pf_batch_builder_begin(bb, samples, N, 0, &n_micro, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_figures(bb).rows,
                         N * (LENGTH - 1) - (common == 3 ? 3 * (N - 1) : 0));
    }
    pf_batch_builder_free(bb);
}

static void same_ints(const int32_t *a, const int32_t *b, int32_t n) {
    for (int32_t i = 0; i < n; i++) assert_int_equal(a[i], b[i]);
}

/* Behind a learned prompt and prefix a micro-batch is what it is without, with the prompt as the
 * root of its roots: two ways to the same arrays. */
static void test_behind(void **state) {
    (void)state;
    static step s;
    for (uint64_t trial = 0; trial < 200; trial++) {
        draw d = {pf_rng_make_key(13, PF_RNG_DATA, trial), 0};
        make_step(&s, &d);
        const int32_t prompt = below(&d, 6), prefix = below(&d, 4);
        pf_batch_builder_options opt = {.max_tokens = MAX_LENGTH + below(&d, 100),
                                        .max_samples = MAX_SAMPLES,
                                        .share = (pf_share)below(&d, 3)};
        pf_batch_builder *plain, *with;
        opt.max_labels = opt.max_tokens;
        assert_int_equal(pf_batch_builder_new(&plain, &opt, NULL), PEFT_OK);
        opt.max_tokens += prompt;
        opt.prompt_rows = prompt;
        opt.prefix_rows = prefix;
        assert_int_equal(pf_batch_builder_new(&with, &opt, NULL), PEFT_OK);
        int32_t n, n_with;
        assert_int_equal(pf_batch_builder_begin(plain, s.samples, s.n, 7, &n, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_begin(with, s.samples, s.n, 7, &n_with, NULL), PEFT_OK);
        assert_int_equal(n, n_with);
        assert_int_equal(pf_batch_builder_figures(with).rows,
                         pf_batch_builder_figures(plain).rows + n * prompt);
        for (int32_t m = 0; m < n; m++) {
            pf_arena a;
            pf_batch in, want, got;
            peft_error err = {0};
            pf_arena_init(&a, "behind");
            pf_batch_builder_get(plain, m, &in);
            pf_batch_builder_get(with, m, &got);
            assert_int_equal(pf_batch_behind(&want, &a, &in, prompt, prefix, false, &err), PEFT_OK);
            if (pf_batch_check(&got, VOCAB, prefix, &err) != PEFT_OK) fail_msg("%s", err.message);
            assert_int_equal(got.n_tokens, want.n_tokens);
            assert_int_equal(got.n_prompt, prompt);
            same_ints(got.ids + prompt, want.ids + prompt, in.n_tokens);
            same_ints(got.pos, want.pos, got.n_tokens);
            same_ints(got.seg, want.seg, got.n_tokens);
            same_ints(got.end, want.end, got.n_tokens);
            same_ints(got.sample + prompt, want.sample + prompt, in.n_tokens);
            assert_int_equal(got.n_segments, want.n_segments);
            same_ints((const int32_t *)got.segments, (const int32_t *)want.segments,
                      5 * got.n_segments);
            same_ints(got.label_row, want.label_row, got.n_labels);
            assert_int_equal(got.n_ext_runs, prefix > 0);
            if (prefix > 0)
                same_ints((const int32_t *)got.ext_runs, (const int32_t *)want.ext_runs, 5);
            pf_arena_release(&a);
        }
        pf_batch_builder_free(plain);
        pf_batch_builder_free(with);
    }
}

/* Every text behind rows of a learned prompt of its own: the sources where there are some, else the
 * samples. Two ways to the same arrays, and any cut has all rows. */
static void test_each_behind(void **state) {
    (void)state;
    enum { MOST = MAX_SAMPLES * (2 * MAX_LENGTH + 6) };
    static step s;
    static int32_t source[MAX_LENGTH];
    for (uint64_t trial = 0; trial < 200; trial++) {
        draw d = {pf_rng_make_key(17, PF_RNG_DATA, trial), 0};
        make_step(&s, &d);
        const bool sources = below(&d, 2) == 1;
        const int32_t each = 1 + below(&d, 5), prefix = below(&d, 4);
        int64_t before = 0;
        for (int32_t i = 0; i < s.n && sources; i++) {
            s.samples[i].source = source;
            s.samples[i].n_source = 1 + below(&d, MAX_LENGTH);
        }
        for (int32_t i = 0; i < s.n; i++)
            before += each * (pf_sample_rows(&s.samples[i], false) > 0);
        pf_batch_builder_options opt = {.max_tokens = MOST,
                                        .max_samples = MAX_SAMPLES,
                                        .prefix_rows = prefix,
                                        .share = PF_SHARE_ALWAYS};
        pf_batch_builder *plain, *with, *cut;
        if (!sources) opt.share = PF_SHARE_NEVER;
        assert_int_equal(pf_batch_builder_new(&plain, &opt, NULL), PEFT_OK);
        opt.each_rows = each;
        opt.share = PF_SHARE_ALWAYS; /* there is nothing to share */
        assert_int_equal(pf_batch_builder_new(&with, &opt, NULL), PEFT_OK);
        opt.max_tokens = 2 * MAX_LENGTH + each + below(&d, 100);
        assert_int_equal(pf_batch_builder_new(&cut, &opt, NULL), PEFT_OK);
        int32_t n, n_with, n_cut, rows = 0;
        assert_int_equal(pf_batch_builder_begin(plain, s.samples, s.n, 7, &n, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_begin(with, s.samples, s.n, 7, &n_with, NULL), PEFT_OK);
        assert_int_equal(pf_batch_builder_begin(cut, s.samples, s.n, 7, &n_cut, NULL), PEFT_OK);
        assert_true(n == n_with && n <= 1);
        const pf_batch_figures f = pf_batch_builder_figures(with);
        assert_int_equal(f.rows, pf_batch_builder_figures(plain).rows + before);
        for (int32_t m = 0; m < n_cut; m++) {
            pf_batch b;
            peft_error err = {0};
            pf_batch_builder_get(cut, m, &b);
            if (pf_batch_check(&b, VOCAB, prefix, &err) != PEFT_OK) fail_msg("%s", err.message);
            const int32_t all = b.n_tokens + (b.source != NULL ? b.source->n_tokens : 0);
            assert_true(all <= opt.max_tokens);
            rows += all;
        }
        assert_int_equal(rows, f.rows);
        for (int32_t m = 0; m < n; m++) {
            pf_arena a;
            pf_batch in, want, got;
            peft_error err = {0};
            pf_arena_init(&a, "behind");
            pf_batch_builder_get(plain, m, &in);
            pf_batch_builder_get(with, m, &got);
            assert_int_equal(pf_batch_each_behind(&want, &a, &in, each, &err), PEFT_OK);
            if (pf_batch_check(&got, VOCAB, prefix, &err) != PEFT_OK) fail_msg("%s", err.message);
            if (sources) {
                assert_int_equal(got.prompt_each, 0);
                assert_int_equal(got.n_source_runs, want.n_source_runs);
                same_ints((const int32_t *)got.source_runs, (const int32_t *)want.source_runs,
                          5 * got.n_source_runs);
                same_ints(got.ids, want.ids, got.n_tokens);
                same_ints(got.pos, want.pos, got.n_tokens);
            }
            same_ints(got.label_row, want.label_row, got.n_labels);
            same_ints(got.label_target, want.label_target, got.n_labels);
            const pf_batch *g = sources ? got.source : &got, *w = sources ? want.source : &want;
            assert_int_equal(g->prompt_each, each);
            assert_int_equal(w->prompt_each, each);
            assert_int_equal(g->n_tokens, w->n_tokens);
            assert_int_equal(g->n_segments, w->n_segments);
            for (int32_t i = 0; i < g->n_segments; i++) {
                const pf_segment *x = &g->segments[i], *y = &w->segments[i];
                assert_true(x->start == y->start && x->length == y->length &&
                            x->parent == y->parent && x->subtree_end == y->subtree_end);
            }
            same_ints(g->ids, w->ids, g->n_tokens);
            same_ints(g->seg, w->seg, g->n_tokens);
            same_ints(g->end, w->end, g->n_tokens);
            same_ints(g->sample, w->sample, g->n_tokens);
            same_ints(g->pos, w->pos, g->n_tokens);
            pf_arena_release(&a);
        }
        pf_batch_builder_free(plain);
        pf_batch_builder_free(with);
        pf_batch_builder_free(cut);
    }
}

/* The class of a text is told by the first row, which is the prompt's; others by their own. */
static void test_classes_behind_rows(void **state) {
    (void)state;
    static const int32_t tokens[] = {4, 5, 6, 7}, classes[] = {2, -1, 1, -1};
    const pf_sample s = {.tokens = tokens, .n_tokens = 4, .classes = classes, .second_from = 2};
    const pf_batch_builder_options opt = {.max_tokens = 7, .max_samples = 1, .each_rows = 3};
    pf_batch_builder *bb;
    pf_batch b;
    int32_t n;
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    assert_int_equal(pf_batch_builder_begin(bb, &s, 1, 0, &n, NULL), PEFT_OK);
    pf_batch_builder_get(bb, 0, &b);
    assert_int_equal(pf_batch_check(&b, VOCAB, 0, NULL), PEFT_OK);
    same_ints(b.label_row, (const int32_t[]){0, 5}, b.n_labels);
    same_ints(b.label_target, (const int32_t[]){2, 1}, 2);
    same_ints(b.type, (const int32_t[]){0, 0, 0, 0, 0, 1, 1}, b.n_tokens);
    same_ints(b.pos, (const int32_t[]){0, 1, 2, 3, 4, 5, 6}, b.n_tokens);
    same_ints(b.ids + 3, tokens, 4);
    pf_batch_builder_free(bb);
}

static void test_refusals(void **state) {
    (void)state;
    static const int32_t a[] = {1, 2, 3, 4, 5};
    pf_sample long_one = sample_of(a, 5, 1, 17), no_rows = sample_of(a, 5, 5, 0);
    pf_batch_builder *bb = NULL;
    peft_error err = {0};
    pf_batch_builder_options opt = {.max_tokens = 3, .max_samples = 1};
    assert_int_equal(pf_batch_builder_new(&bb, &opt, NULL), PEFT_OK);
    int32_t n_micro = 5;
    assert_int_equal(pf_batch_builder_begin(bb, &long_one, 1, 0, &n_micro, &err), PEFT_E_SHAPE);
    assert_non_null(strstr(err.message, "sample 17 needs 4 rows"));
    assert_int_equal(n_micro, 0);
    pf_sample two[] = {no_rows, no_rows};
    assert_int_equal(pf_batch_builder_begin(bb, two, 2, 0, &n_micro, &err), PEFT_E_SHAPE);
    assert_non_null(strstr(err.message, "2 samples"));
    long_one.first_label = 0;
    assert_int_equal(pf_batch_builder_begin(bb, &long_one, 1, 0, &n_micro, &err), PEFT_E_SHAPE);
    assert_int_equal(pf_batch_builder_begin(bb, &no_rows, 1, 0, &n_micro, &err), PEFT_OK);
    assert_int_equal(n_micro, 0); /* nothing to learn from it, nothing computed */
    pf_batch_builder_free(bb);
    opt.max_tokens = 0;
    assert_int_equal(pf_batch_builder_new(&bb, &opt, &err), PEFT_E_SHAPE);
    assert_null(bb);
    pf_batch_builder_free(NULL);
}

static void test_out_of_memory(void **state) {
    (void)state;
    pf_batch_builder_options opt = {.max_tokens = 100000, .max_samples = 1000};
    int failures = 0;
    for (int n = 1; n < 100; n++) {
        pf_batch_builder *bb = NULL;
        pf_alloc_fail_at(n);
        peft_status status = pf_batch_builder_new(&bb, &opt, NULL);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) {
            pf_batch_builder_free(bb);
            assert_true(failures > 0);
            return;
        }
        assert_int_equal(status, PEFT_E_NOMEM);
        assert_null(bb);
        failures++;
    }
    fail_msg("never enough memory");
}

/* Sources are rows of their own that count towards the budget; each is seen by its own sample, and
 * samples with equal tokens do not share. */
static void test_sources(void **state) {
    (void)state;
    enum { N = 7, MOST = 40 };
    int32_t source[N][16], tokens[N][16];
    pf_sample samples[N];
    for (int32_t i = 0; i < N; i++) {
        for (int32_t k = 0; k < 16; k++) {
            source[i][k] = 10 + i;
            tokens[i][k] = k; /* the same in all */
        }
        samples[i] = (pf_sample){.source = source[i],
                                 .n_source = 3 + i,
                                 .tokens = tokens[i],
                                 .n_tokens = 6 + i % 3,
                                 .first_label = 1,
                                 .index = i};
    }
    const pf_batch_builder_options o = {
        .max_tokens = MOST, .max_samples = N, .share = PF_SHARE_ALWAYS};
    peft_error err = {0};
    pf_batch_builder *bb;
    int32_t n_micro, seen = 0, most = 0, most_source = 0;
    assert_int_equal(pf_batch_builder_new(&bb, &o, &err), PEFT_OK);
    assert_int_equal(pf_batch_builder_begin(bb, samples, N, 0, &n_micro, &err), PEFT_OK);
    assert_true(n_micro > 1);
    for (int32_t m = 0; m < n_micro; m++) {
        pf_batch b;
        pf_batch_builder_get(bb, m, &b);
        if (pf_batch_check(&b, 64, 0, &err) != PEFT_OK) fail_msg("%s", err.message);
        assert_non_null(b.source);
        assert_true(b.n_tokens + b.source->n_tokens <= MOST);
        if (b.n_tokens + b.source->n_tokens > most) most = b.n_tokens + b.source->n_tokens;
        if (b.source->n_tokens > most_source) most_source = b.source->n_tokens;
        assert_int_equal(b.n_source_runs, b.n_segments);
        for (int32_t r = 0; r < b.n_source_runs; r++, seen++) {
            const pf_ext_run *run = &b.source_runs[r];
            const pf_sample *s = &samples[b.sample[run->row_begin]];
            assert_int_equal(run->length, s->n_source);
            assert_int_equal(run->row_end - run->row_begin, s->n_tokens - 1);
            assert_int_equal(b.segments[r].start, run->row_begin);
            for (int32_t k = 0; k < run->length; k++) {
                assert_int_equal(b.source->ids[run->ext + k], 10 + s->index);
                assert_int_equal(b.source->pos[run->ext + k], k);
                assert_int_equal(b.source->sample[run->ext + k], s->index);
            }
        }
    }
    assert_int_equal(seen, N);
    const pf_batch_figures f = pf_batch_builder_figures(bb);
    assert_int_equal(f.rows, f.rows_plain);
    assert_int_equal(f.most_rows, most);
    assert_int_equal(f.most_source, most_source);
    samples[0].n_source = MOST;
    assert_int_equal(pf_batch_builder_begin(bb, samples, N, 0, &n_micro, &err), PEFT_E_SHAPE);
    pf_batch_builder_free(bb);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_properties),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_first_fit),
        cmocka_unit_test(test_cost_model),
        cmocka_unit_test(test_cost_of_rows_below),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_behind),
        cmocka_unit_test(test_each_behind),
        cmocka_unit_test(test_classes_behind_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

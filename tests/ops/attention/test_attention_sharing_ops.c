/* test_attention_sharing_ops.c - a row's bits depend on its keys alone: the same rows computed as
 * one sample, below a shared prefix, from a cache, and token by token give the same numbers, bit
 * for bit, on every instruction set. */
#include "op_fixture.h"

#include "base/str.h"
#include "ops/attention/attention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { T = 150, H = 6, KH = 2, D = 20 };

static const int64_t no_window = 0, window = 50;

static peft_status build(op_fixture *f, pf_value **root, peft_error *err) {
    pf_value *q = op_rows(f, "q", H * D, 0, 1.5), *k = op_rows(f, "k", KH * D, 0.1, 1.5);
    pf_value *v = op_rows(f, "v", KH * D, 0, 1), *ext_k = NULL, *ext_v = NULL;
    if (op_batch(f)->n_ext_runs > 0) {
        ext_k = op_state(f, "ext_k", T + 15, KH * D, 0, 1);
        ext_v = op_state(f, "ext_v", T + 15, KH * D, 0, 1);
    }
    pf_attention_args args = {.n_heads = H,
                              .n_kv_heads = KH,
                              .head_dim = D,
                              .scale = 0.2,
                              .window = *(const int64_t *)op_args(f)};
    return pf_attention(op_graph(f), "att", q, k, v, ext_k, ext_v, &args, root, err);
}

static const op_seg whole_segs[] = {{T, -1, 0}};
static const op_batch_spec whole = {.name = "whole", .segs = whole_segs, .n_segs = 1};
static const op_seg split_segs[] = {{71, -1, 0}, {1, 0, 0}, {13, 1, 0}, {65, 2, 0}};
static const op_batch_spec split = {.name = "split", .segs = split_segs, .n_segs = 4};

static pf_real *numbers(op_fixture *f, const char *name) {
    for (int i = 0; i < f->n_inputs; i++) {
        if (pf_streq(f->inputs[i].name, name)) {
            return f->inputs[i].param != NULL ? f->inputs[i].param->data : f->inputs[i].data;
        }
    }
    fail_msg("no input %s", name);
    return NULL;
}

static void compare(const pf_real *got, const pf_real *want, int64_t rows, int64_t first,
                    const char *what) {
    for (int64_t i = 0; i < rows * H * D; i++) {
        if (memcmp(&got[i], &want[i], sizeof *got) != 0) {
            fail_msg("%s: row %lld, column %lld is %.9g, not %.9g", what,
                     (long long)(first + i / (H * D)), (long long)(i % (H * D)), (double)got[i],
                     (double)want[i]);
        }
    }
}

/* Rows [first, first + n) with the rows before them in a cache, in two runs. */
static void check_cached(const op_fixture *w, const pf_real *want, op_way way, const int64_t *args,
                         int32_t first, int32_t n) {
    const op_seg segs[] = {{n, -1, first}};
    const int32_t cut = first / 3;
    const op_ext ext[] = {
        {10, cut, 0, 0}, {10 + cut + 5, first - cut, cut, 0}}; /* not where they were, with a gap */
    const op_batch_spec spec = {.name = "cached",
                                .segs = segs,
                                .n_segs = 1,
                                .ext = ext,
                                .n_ext = 2,
                                .ext_rows = first + 15};
    const op_case c = {.name = "cached", .batch = &spec, .build = build, .args = args};
    op_fixture *f = op_fixture_new(&c, way);
    static const char *const rows[3] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) {
        const int64_t cols = i == 0 ? H * D : KH * D;
        const pf_real *all = op_numbers(w, rows[i]);
        memcpy(numbers(f, rows[i]), all + first * cols, (size_t)(n * cols) * sizeof *all);
        if (i == 0) continue;
        pf_real *cache = numbers(f, i == 1 ? "ext_k" : "ext_v");
        for (int64_t t = 0; t < first; t++) {
            memcpy(cache + (10 + t + (t >= cut ? 5 : 0)) * cols, all + t * cols,
                   (size_t)cols * sizeof *all);
        }
    }
    op_fixture_run(f);
    int64_t got_rows, cols;
    const pf_real *got = op_fixture_root(f, &got_rows, &cols);
    compare(got, want + first * H * D, n, first,
            n == 1 ? "one token from the cache" : "from the cache");
    op_fixture_free(f);
}

static void check(const int64_t *args) {
    const op_case plain = {.name = "plain", .batch = &whole, .build = build, .args = args};
    const op_case tree = {.name = "tree", .batch = &split, .build = build, .args = args};
    pf_cpu_force(PF_ISA_AVX512);
    for (int isa = (int)pf_cpu_level(); isa >= PF_ISA_SCALAR; isa--) {
        op_way way = {.isa = (pf_isa)isa, .threads = 1, .forward_only = true};
        op_fixture *f = op_fixture_new(&plain, way), *s = op_fixture_new(&tree, way);
        op_fixture_run(f);
        op_fixture_run(s);
        int64_t rows, cols;
        const pf_real *want = op_fixture_root(f, &rows, &cols),
                      *got = op_fixture_root(s, &rows, &cols);
        compare(got, want, T, 0, "below a prefix");
        check_cached(f, want, way, args, 100, 50);
        check_cached(f, want, way, args, 60, 3);
        for (int32_t t = 3; t < T; t += 13) check_cached(f, want, way, args, t, 1);
        op_fixture_free(f);
        op_fixture_free(s);
    }
}

static void test_sharing(void **state) {
    (void)state;
    check(&no_window);
}

static void test_sharing_window(void **state) {
    (void)state;
    check(&window);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sharing),
                                       cmocka_unit_test(test_sharing_window)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

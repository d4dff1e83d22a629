/* Shared prefixes against transformers and peft with the dense mask of the tree (folder trees/).
 * The samples of a batch go through the batch builder, once with prefixes held once and once as
 * whole samples: both must give the loss and every gradient of transformers, and the first as many
 * rows as there are different prefixes. That leaving the tree out of the mask would show is checked
 * by the script that made the fixtures, and here once more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#define TOL 1e-5

static const char *const cases[] = {"llama", "window"};

/* Rows of the first batch of every case: the drawing in tools/make_tree_fixtures.py, counted. */
enum { CRAFTED_ROWS = 73, CRAFTED_ROWS_PLAIN = 201, CUT = 32 };

static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

static const json_t *tree_of(const fixture *f, int batch) {
    const json_t *tree = json_array_get(json_object_get(f->info, "trees"), (size_t)batch);
    assert_non_null(tree);
    return tree;
}

/* Largest difference of any gradient, relative to the largest entry of its tensor. */
static double gradients_differ(const fixture *f, int batch, const char **tensor) {
    const pf_params *ps = &f->adapter->params;
    double worst = 0;
    *tensor = "";
    assert_true(ps->n > 0);
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        const int64_t n = p->rows * p->cols;
        const char *name = pf_arena_printf(&f->adapter->arena, "grad.%d.%s", batch, p->name);
        const float *want = tensor_of(&f->expected, name, n);
        double diff = 0, size = 0;
        for (int64_t k = 0; k < n; k++) {
            const double d = fabs((double)p->grad[k] - (double)want[k]);
            if (!(d <= diff)) diff = d;
            size = fmax(size, fabs((double)want[k]));
        }
        assert_true(size > 0);
        if (!(diff / size <= worst)) {
            worst = diff / size;
            *tensor = p->name;
        }
    }
    return worst;
}

static void check_batch(fixture *f, int batch, const how *h) {
    const json_t *tree = tree_of(f, batch);
    const double want = number_of(tree, "loss");
    const int64_t rows = (int64_t)number_of(tree, "rows"),
                  plain = (int64_t)number_of(tree, "rows_plain");
    const char *tensor;
    int n_micro;
    runner r;
    open_runner(&r, f, h, true);
    const double loss = run_step(&r, f, batch, true, &n_micro);
    const pf_batch_figures figures = pf_batch_builder_figures(r.builder);
    close_runner(&r);

    const double d_loss = fabs(loss - want) / fabs(want);
    const double d_grad = gradients_differ(f, batch, &tensor);
    print_message("%-7s %d %-10s %3d of %3d rows in %d  loss %.1e  gradient %.1e\n", f->name, batch,
                  h->name, (int)figures.rows, (int)plain, n_micro, d_loss, d_grad);
    if (!(d_loss <= TOL)) fail_msg("%s: loss is %.9g, not %.9g", f->name, loss, want);
    if (!(d_grad <= TOL)) fail_msg("%s: gradient of %s differs by %g", f->name, tensor, d_grad);

    assert_int_equal(figures.rows_plain, plain);
    assert_int_equal(figures.labels, (int64_t)number_of(tree, "labels"));
    if (h->share == PF_SHARE_NEVER) assert_int_equal(figures.rows, plain);
    if (h->share == PF_SHARE_ALWAYS && h->max_tokens == 0) assert_int_equal(figures.rows, rows);
    if (h->share == PF_SHARE_ALWAYS && h->max_tokens > 0) {
        assert_true(n_micro > 1 && figures.rows >= rows);
    }
    if (h->share != PF_SHARE_NEVER) assert_true(figures.rows < plain);
    if (batch == 0) {
        assert_int_equal(plain, CRAFTED_ROWS_PLAIN);
        assert_int_equal(rows, CRAFTED_ROWS);
    }
}

/* Shared or not, in one batch or cut, fused or not, whatever is saved for the backward pass. */
static void equals_a_dense_mask(void **state) {
    (void)state;
    static const how ways[] = {
        {"shared", true, PF_SAVE_MINIMAL, 0, PF_SHARE_ALWAYS},
        {"unshared", true, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER},
        {"auto", true, PF_SAVE_MINIMAL, 0, PF_SHARE_AUTO},
        {"cut", true, PF_SAVE_MINIMAL, CUT, PF_SHARE_ALWAYS},
        {"unfused", false, PF_SAVE_ALL, 0, PF_SHARE_ALWAYS},
        {"checkpoint", true, PF_SAVE_CHECKPOINT, 0, PF_SHARE_ALWAYS},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        fixture f;
        open_fixture_of(&f, "trees", cases[i], backend);
        assert_int_equal(f.n_steps, 2);
        for (int batch = 0; batch < f.n_steps; batch++)
            for (size_t k = 0; k < PF_COUNT(ways); k++) check_batch(&f, batch, &ways[k]);
        close_fixture(&f);
    }
}

/* The crafted batch is what it is said to be, as the builder lays it out. */
static void the_tree_has_every_shape(void **state) {
    (void)state;
    static const how shared = {"shared", true, PF_SAVE_MINIMAL, 0, PF_SHARE_ALWAYS};
    peft_error err = {0};
    fixture f;
    runner r;
    pf_batch b;
    int32_t n_micro, depth[64], children[64] = {0};
    int deepest = 0, one_token = 0, inside = 0, at_branch = 0;
    open_fixture_of(&f, "trees", "llama", backend);
    open_runner(&r, &f, &shared, false);
    OK(pf_batch_builder_begin(r.builder, f.steps[0], f.n_samples[0], 0, &n_micro, &err));
    assert_int_equal(n_micro, 1);
    pf_batch_builder_get(r.builder, 0, &b);
    assert_int_equal(b.n_tokens, CRAFTED_ROWS);
    assert_in_range(b.n_segments, 1, 64);
    for (int32_t s = 0; s < b.n_segments; s++) {
        const pf_segment *seg = &b.segments[s];
        depth[s] = seg->parent < 0 ? 1 : depth[seg->parent] + 1;
        if (depth[s] > deepest) deepest = depth[s];
        if (seg->parent < 0) continue;
        children[seg->parent]++;
        one_token += seg->length == 1;
    }
    for (int32_t e = 0; e < b.n_labels; e++) {
        const pf_segment *seg = &b.segments[b.seg[b.label_row[e]]];
        if (children[b.seg[b.label_row[e]]] == 0) continue;
        inside += b.label_row[e] < seg->start + seg->length - 1;
        at_branch += b.label_row[e] == seg->start + seg->length - 1;
    }
    assert_int_equal(deepest, 4);
    assert_int_equal(one_token, 4);
    assert_true(inside > 20 && at_branch > 8);
    close_runner(&r);
    close_fixture(&f);
}

/* The same rows as one run of tokens, without a tree: far away. */
static void without_the_tree_it_differs(void **state) {
    (void)state;
    static const how shared = {"shared", true, PF_SAVE_MINIMAL, 0, PF_SHARE_ALWAYS};
    for (int batch = 0; batch < 2; batch++) {
        peft_error err = {0};
        fixture f;
        runner r;
        pf_batch b;
        pf_loss_sums sums = {0};
        int32_t n_micro;
        open_fixture_of(&f, "trees", "llama", backend);
        open_runner(&r, &f, &shared, false);
        OK(pf_batch_builder_begin(r.builder, f.steps[batch], f.n_samples[batch], 0, &n_micro,
                                  &err));
        assert_int_equal(n_micro, 1);
        pf_batch_builder_get(r.builder, 0, &b);
        int32_t *seg = PF_NEW_ARRAY(&f.arena, int32_t, b.n_tokens);
        int32_t *end = PF_NEW_ARRAY(&f.arena, int32_t, b.n_tokens);
        for (int32_t i = 0; i < b.n_tokens; i++) {
            seg[i] = 0;
            end[i] = b.n_tokens;
        }
        const pf_segment one = {.start = 0,
                                .length = b.n_tokens,
                                .parent = -1,
                                .subtree_end = b.n_tokens,
                                .rope_length = b.n_tokens};
        b.seg = seg;
        b.end = end;
        b.segments = &one;
        b.n_segments = 1;
        OK(pf_loss_graph_forward(&r.graph, &b, &sums, &err));
        const double want = number_of(tree_of(&f, batch), "loss");
        assert_true(fabs(sums.nll / sums.weight - want) / want > 100 * TOL);
        close_runner(&r);
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_a_dense_mask),
        cmocka_unit_test(the_tree_has_every_shape),
        cmocka_unit_test(without_the_tree_it_differs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

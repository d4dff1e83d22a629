/* op_harness.c - what is checked of every case; see op_harness.h. */
#include "op_fixture.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The largest difference, by the largest number of `want`. */
static double distance(const pf_real *got, const pf_real *want, int64_t n) {
    double diff = 0, size = 1e-30;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= diff)) diff = d; /* NaN stays */
        if (fabs((double)want[i]) > size) size = fabs((double)want[i]);
    }
    return diff / size;
}

#ifdef PF_DOUBLE

static double loss_along(op_fixture *f, pf_param *p, const pf_real *start, const double *direction,
                         double h) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) p->data[i] = start[i] + h * direction[i];
    return op_fixture_loss(f);
}

/* Error of the fourth order: a step of 1e-3 leaves neither truncation nor rounding above 1e-8 or
 * so. */
static double slope_along(op_fixture *f, pf_param *p, const pf_real *start,
                          const double *direction) {
    const double h = 1e-3;
    double near = loss_along(f, p, start, direction, h) - loss_along(f, p, start, direction, -h);
    double far =
        loss_along(f, p, start, direction, 2 * h) - loss_along(f, p, start, direction, -2 * h);
    memcpy(p->data, start, (size_t)(p->rows * p->cols) * sizeof *p->data);
    return (8 * near - far) / (12 * h);
}

/* Along a few single elements and a few random directions, which see all elements. */
static void check_gradient(op_fixture *f, pf_param *p, double tol) {
    int64_t n = p->rows * p->cols;
    pf_real *start = pf_malloc((size_t)n * sizeof *start);
    double *direction = pf_calloc((size_t)n, sizeof *direction);
    assert_true(start != NULL && direction != NULL);
    memcpy(start, p->data, (size_t)n * sizeof *start);
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(p->grad[i]));
    if (!(largest > 0)) fail_msg("%s: the gradient of %s is zero", f->c->name, p->name);

    pf_rng_key key = pf_rng_make_key(1, PF_RNG_DATA, 0);
    for (int k = 0; k < 12; k++) {
        bool single = k < 9;
        int64_t at = single ? (int64_t)pf_rng_below_at(key, (uint64_t)k, (uint64_t)n) : -1;
        double want = 0, size = 0;
        for (int64_t i = 0; i < n; i++) {
            direction[i] = single ? i == at : pf_rng_normal_at(key, (uint64_t)(1000 * k + i)) / 10;
            want += p->grad[i] * direction[i];
            size += fabs(direction[i]) * largest;
        }
        double got = slope_along(f, p, start, direction);
        if (!(fabs(got - want) <= tol * (single ? size : sqrt(size * largest)) + 1e-10)) {
            fail_msg("%s: d loss / d %s %s %lld: differences give %.10g, the gradient %.10g "
                     "(largest %.3g)",
                     f->c->name, p->name, single ? "element" : "direction",
                     (long long)(single ? at : k), got, want, largest);
        }
    }
    pf_free(start);
    pf_free(direction);
}

static void check_oracle(const op_case *c, double tol) {
    op_way way = {.threads = 1, .forward_only = true};
    op_fixture *f = op_fixture_new(c, way);
    op_fixture_run(f);
    int64_t rows, cols;
    const pf_real *root = op_fixture_root(f, &rows, &cols);
    pf_real *want = pf_calloc((size_t)(rows * cols), sizeof *want);
    assert_non_null(want);
    c->oracle(f, want);
    double d = distance(root, want, rows * cols);
    if (!(d <= tol)) fail_msg("%s: differs from the oracle by %.3g", c->name, d);
    pf_free(want);
    op_fixture_free(f);
}

static void check_case(const op_case *c) {
    if (c->oracle != NULL) check_oracle(c, 1e-12);
    for (int fuse = 0; fuse <= (c->n_fused > 0); fuse++) {
        op_fixture *f = op_fixture_new(c, (op_way){.threads = 2, .fuse = fuse == 1});
        op_fixture_run(f);
        for (int i = 0; i < f->params.n; i++) {
            if (f->params.items[i]->frozen) continue;
            check_gradient(f, f->params.items[i], c->grad_tol > 0 ? c->grad_tol : 1e-6);
        }
        op_fixture_free(f);
    }
}

#else

/* A finished run: the root's rows and all gradients, in the order of row keys. */
typedef struct outcome {
    pf_real *root, *grad;
    int64_t rows, cols, n_grad;
    int n_fused;
} outcome;

static outcome run_way(const op_case *c, op_way way) {
    op_fixture *f = op_fixture_new(c, way);
    op_fixture_run(f);
    op_fixture_run(f); /* twice: nothing may be left over from the run before */
    outcome o = {.n_fused = f->n_fused, .n_grad = f->params.block_len};
    const pf_real *root = op_fixture_root(f, &o.rows, &o.cols);
    const int32_t *key =
        f->root->space == PF_SPACE_TOKENS ? f->batch->row_key : f->batch->label_key;
    int32_t n_keys = f->batch->b.n_tokens;
    size_t row = (size_t)o.cols * sizeof(pf_real);
    o.root = pf_calloc((size_t)n_keys, row);
    o.grad = pf_calloc((size_t)o.n_grad + 1, sizeof *o.grad);
    assert_true(o.root != NULL && o.grad != NULL);
    for (int64_t i = 0; i < o.rows; i++) memcpy(o.root + key[i] * o.cols, root + i * o.cols, row);
    o.rows = n_keys;
    memcpy(o.grad, f->params.grad, (size_t)o.n_grad * sizeof *o.grad);
    op_fixture_free(f);
    return o;
}

static void outcome_release(outcome *o) {
    pf_free(o->root);
    pf_free(o->grad);
}

static void near_enough(const op_case *c, const outcome *got, const outcome *want,
                        const char *what) {
    /* every parameter on its own: their gradients differ in size */
    double tol = c->tol > 0 ? c->tol : 1e-5;
    double d = distance(got->root, want->root, want->rows * want->cols);
    if (!(d <= tol))
        fail_msg("%s: forward: %s differs from the reference by %.3g", c->name, what, d);
    op_fixture *f = op_fixture_new(c, (op_way){.threads = 1});
    for (int i = 0; i < f->params.n; i++) {
        const pf_param *p = f->params.items[i];
        d = distance(got->grad + p->offset, want->grad + p->offset, p->rows * p->cols);
        if (!(d <= tol)) {
            fail_msg("%s: gradient of %s: %s differs from the reference by %.3g", c->name, p->name,
                     what, d);
        }
    }
    op_fixture_free(f);
}

static void same_bits(const op_case *c, const outcome *got, const outcome *want, bool gradients,
                      const char *what) {
    for (int64_t i = 0; i < want->rows * want->cols; i++) {
        if (memcmp(&got->root[i], &want->root[i], sizeof(pf_real)) != 0) {
            fail_msg("%s: forward: %s gives other bits in row %lld, column %lld: %.9g, not %.9g",
                     c->name, what, (long long)(i / want->cols), (long long)(i % want->cols),
                     (double)got->root[i], (double)want->root[i]);
        }
    }
    if (gradients &&
        memcmp(got->grad, want->grad, (size_t)want->n_grad * sizeof *want->grad) != 0) {
        fail_msg("%s: backward: %s gives other bits", c->name, what);
    }
}

static void check_oracle(const op_case *c, pf_isa isa) {
    op_fixture *f = op_fixture_new(c, (op_way){.isa = isa, .threads = 1, .forward_only = true});
    op_fixture_run(f);
    int64_t rows, cols;
    const pf_real *root = op_fixture_root(f, &rows, &cols);
    pf_real *want = pf_calloc((size_t)(rows * cols), sizeof *want);
    assert_non_null(want);
    c->oracle(f, want);
    double tol = c->tol > 0 ? c->tol : 1e-5, d = distance(root, want, rows * cols);
    if (!(d <= tol))
        fail_msg("%s: %s differs from the oracle by %.3g", c->name, pf_isa_name(isa), d);
    pf_free(want);
    op_fixture_free(f);
}

static pf_isa best_isa(void) {
    pf_cpu_force(PF_ISA_AVX512);
    return pf_cpu_level();
}

static void check_case(const op_case *c) {
    pf_isa best = best_isa();
    outcome want = run_way(c, (op_way){.isa = PF_ISA_SCALAR, .threads = 1, .policy = PF_SAVE_ALL});
    for (int isa = PF_ISA_SCALAR; isa <= (int)best; isa++) {
        char what[64];
        op_way way = {.isa = (pf_isa)isa, .threads = 1, .policy = PF_SAVE_ALL};
        outcome plain = run_way(c, way);
        near_enough(c, &plain, &want, pf_isa_name((pf_isa)isa));
        if (c->oracle != NULL) check_oracle(c, (pf_isa)isa);

        static const pf_save_policy policies[] = {PF_SAVE_MINIMAL, PF_SAVE_CHECKPOINT};
        for (int k = 0; k < 2; k++) {
            op_way other = way;
            other.threads = 2 + k;
            other.policy = policies[k];
            snprintf(what, sizeof what, "%s, %d threads, policy %d", pf_isa_name((pf_isa)isa),
                     other.threads, (int)other.policy);
            outcome o = run_way(c, other);
            same_bits(c, &o, &plain, true, what);
            outcome_release(&o);
        }

        op_way moved = way;
        moved.reversed = true;
        outcome o = run_way(c, moved);
        snprintf(what, sizeof what, "%s, samples in another order", pf_isa_name((pf_isa)isa));
        same_bits(c, &o, &plain, false, what);
        outcome_release(&o);

        way.fuse = true;
        outcome fused = run_way(c, way);
        if (fused.n_fused != c->n_fused) {
            fail_msg("%s: %d fusions, not %d", c->name, fused.n_fused, c->n_fused);
        }
        near_enough(c, &fused, &want, "the fused graph");
        for (int k = 0; k < 2 && c->n_fused > 0; k++) {
            way.policy = policies[k];
            o = run_way(c, way);
            snprintf(what, sizeof what, "fused, policy %d", (int)way.policy);
            same_bits(c, &o, &fused, true, what);
            outcome_release(&o);
        }
        outcome_release(&fused);
        outcome_release(&plain);
    }
    outcome_release(&want);
}

/* --- timing ----------------------------------------------------------------------------------- */

/* The best of many runs: other work on the machine can only add to the time. */
static void bench_way(const op_case *c, op_way way) {
    op_fixture *f = op_fixture_new(c, way);
    const pf_graph *g = f->g;
    peft_error err = {0};
    double *best = pf_calloc((size_t)g->n_nodes, sizeof *best);
    assert_non_null(best);
    op_fixture_run(f);
    double start = pf_now();
    for (int run = 0; run < 3 || pf_now() - start < 1; run++) {
        if (pf_exec_profile(f->exec, true, &err) != PEFT_OK) fail_msg("%s", err.message);
        op_fixture_run(f);
        for (int i = 0; i < g->n_nodes; i++) {
            double s = f->exec->profile[i].seconds;
            if (run == 0 || s < best[i]) best[i] = s;
        }
    }
    for (int i = 0; i < g->n_nodes; i++) {
        const pf_profile_row *row = &f->exec->profile[i];
        const char *op = g->nodes[i]->op->name;
        bool own =
            pf_streq(op, "embed") || pf_streq(op, "embed_grad"); /* the harness's, see op_rows */
        if (row->calls == 0 || (own && strstr(c->name, "embed") == NULL)) continue;
        printf("%-34s %-14s %-9s %d thr  %9.3f ms  %8.1f GFLOP/s  %7.2f GB/s\n", c->name, op,
               g->nodes[i]->kernel->name, way.threads, 1e3 * best[i],
               row->flops / (double)row->calls / best[i] * 1e-9,
               row->bytes / (double)row->calls / best[i] * 1e-9);
    }
    pf_free(best);
    op_fixture_free(f);
}

static int bench(int argc, char **argv, const op_case *cases, int n_cases) {
    const char *filter = "", *only = "";
    int threads = 1;
    for (int i = 1; i < argc; i++) {
        if (pf_streq(argv[i], "--threads") && i + 1 < argc)
            threads = (int)strtol(argv[++i], NULL, 10);
        else if (pf_streq(argv[i], "--isa") && i + 1 < argc)
            only = argv[++i];
        else if (argv[i][0] != '-')
            filter = argv[i];
    }
    pf_isa best = best_isa();
    for (int k = 0; k < n_cases; k++) {
        if (strstr(cases[k].name, filter) == NULL || (filter[0] == 0 && !cases[k].only_bench))
            continue;
        for (int isa = (int)best; isa >= PF_ISA_SCALAR; isa--) {
            if (only[0] != 0 && !pf_streq(only, pf_isa_name((pf_isa)isa))) continue;
            bench_way(&cases[k], (op_way){.isa = (pf_isa)isa, .threads = threads, .fuse = true});
        }
    }
    return 0;
}

#endif

static void run_case(void **state) {
    check_case(*state);
}

int op_harness_main(int argc, char **argv, const op_case *cases, int n_cases) {
#ifndef PF_DOUBLE
    for (int i = 1; i < argc; i++) {
        if (pf_streq(argv[i], "--bench")) return bench(argc, argv, cases, n_cases);
    }
#else
    (void)argc;
    (void)argv;
#endif
    struct CMUnitTest *tests = pf_calloc((size_t)n_cases, sizeof *tests);
    if (tests == NULL) return 1;
    size_t n = 0;
    for (int i = 0; i < n_cases; i++) {
        if (cases[i].only_bench) continue;
        tests[n++] = (struct CMUnitTest){.name = cases[i].name,
                                         .test_func = run_case,
                                         .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    int failed = _cmocka_run_group_tests("ops", tests, n, NULL, NULL);
    pf_free(tests);
    return failed;
}

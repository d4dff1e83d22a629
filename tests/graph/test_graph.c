/* test_graph.c - builder, gradients, recomputation, plan and executor, with ops of the test's own:
 * the graph knows none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "graph/autodiff.h"
#include "graph/exec.h"
#include "graph/fusion.h"

/* --- a little algebra: input (T,1) = ids, times (param 1x1), square, add, sum of both
 * --------------------------------- */

static peft_status like_first(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    pf_graph_out(g, n, n->in[0]->space, n->in[0]->rows, n->in[0]->cols);
    return PEFT_OK;
}

static peft_status tokens_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    pf_graph_out(g, n, PF_SPACE_TOKENS, 0, 1);
    return PEFT_OK;
}

static int64_t n_rows(const pf_exec *x, const pf_node *n) {
    return pf_exec_rows(x, n->out[0]);
}

static int runs_of_square;

static peft_status run_tokens(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < n_rows(x, n); i++) y[i] = (pf_real)x->batch->ids[i];
    return PEFT_OK;
}

static peft_status run_times(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *a = pf_exec_data(x, n->in[0]), *w = pf_exec_data(x, n->in[1]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < n_rows(x, n); i++) y[i] = a[i] * w[0];
    return PEFT_OK;
}

static peft_status run_times_sink(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *dy = pf_exec_data(x, n->in[0]), *a = pf_exec_data(x, n->in[1]);
    pf_real *dw = pf_exec_data(x, n->in[2]);
    for (int64_t i = 0; i < pf_exec_rows(x, n->in[0]); i++) dw[0] += dy[i] * a[i];
    return PEFT_OK;
}

static peft_status run_square(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    runs_of_square++;
    const pf_real *a = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < n_rows(x, n); i++) y[i] = a[i] * a[i];
    return PEFT_OK;
}

static peft_status run_square_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *dy = pf_exec_data(x, n->in[0]), *a = pf_exec_data(x, n->in[1]);
    pf_real *dx = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < n_rows(x, n); i++) dx[i] = 2 * a[i] * dy[i];
    return PEFT_OK;
}

static peft_status run_add(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_real *a = pf_exec_data(x, n->in[0]), *b = pf_exec_data(x, n->in[1]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    for (int64_t i = 0; i < n_rows(x, n); i++) y[i] = a[i] + b[i];
    return PEFT_OK;
}

static peft_status no_outputs(pf_graph *g, pf_node *n, peft_error *err) {
    (void)g;
    (void)n;
    (void)err;
    return PEFT_OK;
}

static peft_status times_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(n->in[1])) {
        pf_value *a = pf_grad_need(ad, n->in[0], err);
        assert_non_null(a);
        pf_value *in[] = {dy, a, pf_grad_sink(ad, n->in[1])};
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "times_sink", n->name, NULL, in, 3, NULL, err));
    }
    if (pf_grad_wanted(n->in[0])) {
        pf_value *in[] = {dy, n->in[1]};
        pf_node *d;
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "times", n->name, NULL, in, 2, &d, err));
        PF_TRY(pf_grad_give(ad, n->in[0], d->out[0], err));
    }
    return PEFT_OK;
}

static peft_status square_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *in[] = {pf_grad_of(ad, n->out[0]), pf_grad_need(ad, n->in[0], err)};
    assert_non_null(in[1]);
    pf_node *d;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "square_grad", n->name, NULL, in, 2, &d, err));
    return pf_grad_give(ad, n->in[0], d->out[0], err);
}

static peft_status add_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *dy = pf_grad_of(ad, n->out[0]);
    PF_TRY(pf_grad_give(ad, n->in[0], dy, err));
    return pf_grad_give(ad, n->in[1], dy, err);
}

#define KERNEL(fn)                                                                                 \
    (const pf_kernel_row[]) {                                                                      \
        {"cpu", "reference", NULL, fn, NULL}, {                                                    \
            0                                                                                      \
        }                                                                                          \
    }
static const pf_op *const table[] = {
    &(const pf_op){.name = "tokens", .shape = tokens_shape, .kernels = KERNEL(run_tokens)},
    &(const pf_op){
        .name = "times", .shape = like_first, .vjp = times_vjp, .kernels = KERNEL(run_times)},
    &(const pf_op){.name = "times_sink",
                   .shape = no_outputs,
                   .flags = PF_OP_SIDE_EFFECT,
                   .kernels = KERNEL(run_times_sink)},
    &(const pf_op){.name = "square",
                   .shape = like_first,
                   .vjp = square_vjp,
                   .flags = PF_OP_CHEAP,
                   .kernels = KERNEL(run_square)},
    &(const pf_op){.name = "square_grad",
                   .shape = like_first,
                   .in_place = 1,
                   .kernels = KERNEL(run_square_grad)},
    &(const pf_op){.name = "add",
                   .shape = like_first,
                   .vjp = add_vjp,
                   .in_place = 1,
                   .kernels = KERNEL(run_add)},
    NULL,
};

static pf_value *emit(pf_graph *g, const char *op, const char *name, pf_value *a, pf_value *b) {
    pf_value *in[] = {a, b};
    pf_node *n;
    peft_error err;
    assert_int_equal(pf_graph_emit(g, op, name, NULL, in,
                                   a == NULL   ? 0
                                   : b == NULL ? 1
                                               : 2,
                                   &n, &err),
                     PEFT_OK);
    return n->out[0];
}

/* loss = sum over rows of (w x)^4 + (w x)^2, through squares of squares in `layers` blocks */
static void run_policy(pf_save_policy policy, pf_real *loss, pf_real *grad, int *squares,
                       int64_t *arena) {
    peft_error err = {0};
    pf_params ps;
    pf_params_init(&ps);
    pf_param *w;
    assert_int_equal(pf_params_add(&ps, "w", 1, 1, &w, &err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, true, &err), PEFT_OK);
    w->data[0] = (pf_real)0.5;

    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, table, &err), PEFT_OK);
    g->params = &ps;
    pf_value *x = emit(g, "tokens", "x", NULL, NULL);
    pf_graph_block_begin(g, 0, x);
    pf_value *a = emit(g, "times", "times", x, pf_graph_param(g, w));
    pf_value *b = emit(g, "square", "square1", a, NULL);
    pf_value *c = emit(g, "square", "square2", b, NULL);
    pf_value *y = emit(g, "add", "sum", b, c);
    pf_graph_block_end(g);
    y->result = true;
    pf_real coef[3] = {1, 1, 1};
    pf_value *seed = pf_graph_input(g, "coef", PF_SPACE_TOKENS, 1, coef);
    assert_int_equal(pf_autodiff_run(g, y, seed, policy, &err), PEFT_OK);

    pf_backend *be;
    assert_int_equal(pf_backend_open_cpu(&be, 1, &err), PEFT_OK);
    pf_exec *exec;
    const int64_t capacity[PF_SPACE_COUNT] = {8, 8};
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    const int32_t ids[] = {1, 2, 3};
    pf_batch batch = {.n_tokens = 3, .ids = ids};
    runs_of_square = 0;
    assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_OK);
    assert_int_equal(pf_exec_forward(exec, &err), PEFT_OK);
    assert_int_equal(pf_exec_backward(exec, &err), PEFT_OK);
    const pf_real *out = pf_exec_data(exec, y);
    *loss = out[0] + out[1] + out[2];
    *grad = w->grad[0];
    *squares = runs_of_square;
    *arena = exec->plan.arena_bytes;

    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
}

static void gradients_do_not_depend_on_what_is_saved(void **state) {
    (void)state;
    /* d/dw of sum (w x)^4 + (w x)^2 = sum 4 w^3 x^4 + 2 w x^2 with w = 1/2, x = 1 2 3 */
    const double want_loss = (1 + 16 + 81) / 16.0 + (1 + 4 + 9) / 4.0;
    const double want_grad = 0.5 * (1 + 16 + 81) + 1.0 * (1 + 4 + 9);
    const int want_squares[] = {[PF_SAVE_ALL] = 2, [PF_SAVE_MINIMAL] = 3, [PF_SAVE_CHECKPOINT] = 3};
    for (pf_save_policy p = PF_SAVE_MINIMAL; p <= PF_SAVE_ALL; p++) {
        pf_real loss, grad;
        int squares;
        int64_t arena;
        run_policy(p, &loss, &grad, &squares, &arena);
        assert_true(fabs((double)loss - want_loss) < 1e-6);
        assert_true(fabs((double)grad - want_grad) < 1e-5);
        assert_int_equal(squares, want_squares[p]); /* b is needed once more; c never is */
        assert_true(arena > 0 && arena % 64 == 0);
    }
}

static void a_batch_beyond_the_plan_is_refused(void **state) {
    (void)state;
    peft_error err = {0};
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, table, &err), PEFT_OK);
    emit(g, "tokens", "x", NULL, NULL);
    pf_backend *be;
    assert_int_equal(pf_backend_open_cpu(&be, 1, &err), PEFT_OK);
    pf_exec *exec;
    const int64_t capacity[PF_SPACE_COUNT] = {2, 2};
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    const int32_t ids[] = {1, 2, 3};
    pf_batch batch = {.n_tokens = 3, .ids = ids};
    assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_E_STATE);
    assert_string_equal(err.message, "a batch of 3 tokens does not fit the plan for 2");
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
}

static void a_non_finite_number_is_named(void **state) {
    (void)state;
    peft_error err = {0};
    pf_params ps;
    pf_params_init(&ps);
    pf_param *w;
    assert_int_equal(pf_params_add(&ps, "w", 1, 1, &w, &err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, false, &err), PEFT_OK);
    w->data[0] = (pf_real)NAN;
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, table, &err), PEFT_OK);
    emit(g, "times", "layers.0.times", emit(g, "tokens", "x", NULL, NULL), pf_graph_param(g, w));
    pf_backend *be;
    assert_int_equal(pf_backend_open_cpu(&be, 1, &err), PEFT_OK);
    pf_exec *exec;
    const int64_t capacity[PF_SPACE_COUNT] = {4, 4};
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    exec->check_finite = true;
    const int32_t ids[] = {1, 2};
    pf_batch batch = {.n_tokens = 2, .ids = ids};
    assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_OK);
    assert_int_equal(pf_exec_forward(exec, &err), PEFT_E_DIVERGED);
    assert_string_equal(err.message,
                        "layers.0.times (times, forward pass): NaN in row 0, column 0");
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
}

/* Buffers that live at the same time must not overlap: checked by brute force on a long chain with
 * many shapes. */
static void live_buffers_do_not_overlap(void **state) {
    (void)state;
    peft_error err = {0};
    pf_params ps;
    pf_params_init(&ps);
    pf_param *w;
    assert_int_equal(pf_params_add(&ps, "w", 1, 1, &w, &err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, true, &err), PEFT_OK);
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, table, &err), PEFT_OK);
    g->params = &ps;
    pf_value *x = emit(g, "tokens", "x", NULL, NULL), *kept = x;
    for (int i = 0; i < 60; i++) {
        pf_value *a = emit(g, "times", "a", x, pf_graph_param(g, w));
        pf_value *b = emit(g, "square", "b", a, NULL);
        x = emit(g, "add", "c", b, i % 3 == 0 ? kept : a);
        if (i % 7 == 0) kept = x;
    }
    x->result = true;
    pf_real coef[64] = {0};
    assert_int_equal(pf_autodiff_run(g, x, pf_graph_input(g, "coef", PF_SPACE_TOKENS, 1, coef),
                                     PF_SAVE_MINIMAL, &err),
                     PEFT_OK);
    pf_backend *be;
    assert_int_equal(pf_backend_open_null(&be, 2, &err), PEFT_OK);
    pf_plan plan;
    const int64_t capacity[PF_SPACE_COUNT] = {64, 64};
    assert_int_equal(pf_plan_make(&plan, g, be, capacity, &err), PEFT_OK);
    const int64_t bytes = 64 * (int64_t)sizeof(pf_real);
    int64_t highest = 0;
    for (int i = 0; i < g->n_values; i++) {
        const pf_value *a = g->values[i];
        if (a->kind != PF_VALUE_ACT || a->home != a) continue;
        assert_true(a->offset >= 0 && a->offset + bytes <= plan.arena_bytes);
        if (a->offset + bytes > highest) highest = a->offset + bytes;
        for (int k = 0; k < i; k++) {
            const pf_value *b = g->values[k];
            if (b->kind != PF_VALUE_ACT || b->home != b) continue;
            bool together = a->first <= b->last && b->first <= a->last;
            bool overlap = a->offset < b->offset + bytes && b->offset < a->offset + bytes;
            assert_false(together && overlap);
        }
    }
    assert_int_equal(highest, plan.arena_bytes);
    assert_true(plan.at_peak[PF_MEM_SAVED] + plan.at_peak[PF_MEM_BACKWARD] +
                    plan.at_peak[PF_MEM_FORWARD] <=
                plan.arena_bytes);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
}

/* y = x w^8 where w^8 is made of w alone: its squares run once while the weights stay. With `keep`
 * the graph trains, so that it is worth the room; else every pass makes it. */
static void check_made_once(bool keep) {
    peft_error err = {0};
    pf_params ps;
    pf_params_init(&ps);
    pf_param *w;
    assert_int_equal(pf_params_add(&ps, "w", 1, 1, &w, &err), PEFT_OK);
    assert_int_equal(pf_params_seal(&ps, false, &err), PEFT_OK);
    pf_graph *g;
    assert_int_equal(pf_graph_new(&g, table, &err), PEFT_OK);
    if (keep) g->params = &ps;
    pf_value *x = emit(g, "tokens", "x", NULL, NULL);
    x = emit(g, "times", "before", x, pf_graph_param(g, w));
    pf_value *p = pf_graph_param(g, w);
    for (int i = 0; i < 3; i++) p = emit(g, "square", "p", p, NULL);
    x = emit(g, "times", "after", x, p);
    for (int i = 0; i < 4; i++) x = emit(g, "add", "y", x, x); /* who takes over its room? */
    x->result = true;
    pf_backend *be;
    assert_int_equal(pf_backend_open_cpu(&be, 1, &err), PEFT_OK);
    pf_exec *exec;
    const int64_t capacity[PF_SPACE_COUNT] = {4, 4};
    assert_int_equal(pf_exec_new(&exec, g, be, capacity, &err), PEFT_OK);
    assert_int_equal(exec->plan.n_of_weights, keep ? 3 : 0);
    runs_of_square = 0;
    for (int pass = 0; pass < 9; pass++) {
        const bool new_weights = pass % 3 == 0;
        if (new_weights) {
            w->data[0] = (pf_real)(1 + pass);
            pf_exec_weights_stay(exec, pass < 6);
        }
        const int32_t ids[] = {1, 2 + pass, 3};
        pf_batch batch = {.n_tokens = 3, .ids = ids};
        assert_int_equal(pf_exec_bind(exec, &batch, &err), PEFT_OK);
        assert_int_equal(pf_exec_forward(exec, &err), PEFT_OK);
        const double want = 16 * pow((double)w->data[0], 9);
        for (int i = 0; i < 3; i++) {
            const double y = (double)pf_exec_data(exec, x)[i];
            assert_true(fabs(y - want * ids[i]) <= 1e-5 * want * ids[i]);
        }
    }
    assert_int_equal(runs_of_square, keep ? 3 * (1 + 1 + 3) : 3 * 9);
    pf_exec_free(exec);
    pf_backend_close(be);
    pf_graph_free(g);
    pf_params_release(&ps);
}

static void what_is_made_of_weights_is_made_once(void **state) {
    (void)state;
    check_made_once(true);
    check_made_once(false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_made_of_weights_is_made_once),
        cmocka_unit_test(gradients_do_not_depend_on_what_is_saved),
        cmocka_unit_test(a_batch_beyond_the_plan_is_refused),
        cmocka_unit_test(a_non_finite_number_is_named),
        cmocka_unit_test(live_buffers_do_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

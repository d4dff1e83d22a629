/* test_param.c - parameters by name, and as values of a graph: the same one for the same one, also
 * among thousands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "graph/graph.h"

enum { N = 3000 };

static pf_param *by_number(const pf_params *ps, int i) {
    char name[64];
    snprintf(name, sizeof name, "layers.%d.lora_A.weight", i);
    return pf_params_find(ps, name);
}

static void test_many(void **state) {
    (void)state;
    static const pf_op *const no_ops[] = {NULL};
    peft_error err;
    pf_params ps;
    pf_graph *g;
    pf_params_init(&ps);
    assert_null(pf_params_find(&ps, "layers.0.lora_A.weight"));
    for (int i = 0; i < N; i++) {
        char name[64];
        pf_param *p;
        snprintf(name, sizeof name, "layers.%d.lora_A.weight", i);
        assert_int_equal(pf_params_add(&ps, name, 1, 1 + i % 3, &p, &err), PEFT_OK);
    }
    pf_param *twice;
    assert_int_equal(pf_params_add(&ps, "layers.17.lora_A.weight", 1, 1, &twice, &err),
                     PEFT_E_STATE);
    assert_int_equal(pf_params_seal(&ps, true, &err), PEFT_OK);
    pf_params_freeze(&ps, by_number(&ps, 5));

    assert_int_equal(pf_graph_new(&g, no_ops, &err), PEFT_OK);
    g->params = &ps;
    for (int i = 0; i < N; i++) {
        pf_param *p = by_number(&ps, i);
        assert_ptr_equal(p, ps.items[i]);
        pf_value *v = pf_graph_param(g, p), *d = pf_graph_grad(g, p);
        assert_ptr_equal(v->param, p);
        assert_int_equal(v->kind, PF_VALUE_PARAM);
        assert_int_equal(v->needs_grad, i != 5);
        assert_int_equal(d->kind, PF_VALUE_GRAD);
        assert_ptr_not_equal(v, d);
    }
    const int made = g->n_values;
    assert_int_equal(made, 2 * N);
    for (int i = 0; i < N; i++) {
        assert_ptr_equal(pf_graph_param(g, ps.items[i]), g->values[2 * i]);
        assert_ptr_equal(pf_graph_grad(g, ps.items[i]), g->values[2 * i + 1]);
    }
    assert_int_equal(g->n_values, made);
    assert_null(pf_params_find(&ps, "layers.3000.lora_A.weight"));
    pf_graph_free(g);
    pf_params_release(&ps);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

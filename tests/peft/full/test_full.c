/* method full: every base tensor once, as f32, saved as a model and opened again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "peft/peft_test.h"

static pf_arena arena;

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_arena_release(&arena);
    return 0;
}

static pf_adapter *attach_full(pf_model *m) {
    peft_error err = {0};
    pf_adapter *ad;
    const pf_peft_cfg cfg = {.method = "full", .given = true};
    if (pf_adapter_attach(&ad, m, &cfg, 1, true, &err) != PEFT_OK) fail_msg("%s", err.message);
    return ad;
}

static void trains_every_weight_once(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/parity/full_tied");
    pf_adapter *ad = attach_full(m);
    char line[160];
    pf_adapter_describe(ad, line, sizeof line);
    assert_string_equal(line,
                        "trainable params: 23,776 || all params: 23,776 || trainable%: 100.0000");
    assert_ptr_equal(m->head->trained_weight, m->embedding->trained_weight);
    assert_null(pf_params_find(&ad->params, "lm_head.weight"));
    const pf_param *e = pf_params_find(&ad->params, "model.embed_tokens.weight");
    const pf_param *n = pf_params_find(&ad->params, "model.layers.0.self_attn.q_norm.weight");
    assert_true(e->decay && !n->decay && n->is_vector && !e->is_vector);
    float base[32];
    pf_weight_read_tile(m->embedding->weight, 9, 1, 0, 32, base, 32);
    assert_memory_equal(base, e->data + 9 * 32, sizeof base);
    pf_adapter_close(ad);
    assert_null(m->head->trained_weight);
    pf_model_close(m);

    m = open_base(GOLDEN "/parity/full_untied");
    ad = attach_full(m);
    assert_non_null(pf_params_find(&ad->params, "lm_head.weight"));
    const pf_param *b = pf_params_find(&ad->params, "model.layers.1.self_attn.k_proj.bias");
    assert_true(b->is_vector && !b->decay);
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* The folder is a model with the trained numbers; as an adapter it goes back onto the base. */
static void saves_a_model(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/parity/bf16");
    pf_adapter *ad = attach_full(m);
    pf_param *e = pf_params_find(&ad->params, "model.embed_tokens.weight");
    e->data[5] = 42;
    const char *dir = fresh_dir(&arena, "full_saved");
    peft_error err = {0};
    if (pf_adapter_save(ad, dir, &err) != PEFT_OK) fail_msg("%s", err.message);
    pf_model *saved = open_base(dir);
    float v[8];
    pf_weight_read_tile(saved->embedding->weight, 0, 1, 0, 8, v, 8);
    assert_true(v[5] == 42);
    assert_int_equal(saved->dtype, PF_DTYPE_F32);
    assert_string_equal(json_string_value(json_object_get(saved->config, "dtype")), "float32");
    pf_model_close(saved);

    pf_model *again = open_base(GOLDEN "/parity/bf16");
    pf_adapter *loaded = open_adapter(again, dir);
    assert_int_equal(loaded->params.n, ad->params.n);
    for (int i = 0; i < ad->params.n; i++) {
        const pf_param *p = ad->params.items[i], *q = pf_params_find(&loaded->params, p->name);
        assert_memory_equal(p->data, q->data, (size_t)(p->rows * p->cols) * sizeof(pf_real));
    }
    pf_adapter_close(loaded);
    pf_model_close(again);
    pf_adapter_close(ad);
    pf_model_close(m);
}

static void one_trainer_at_a_time(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/parity/full_tied");
    pf_adapter *ad = attach_full(m), *other;
    peft_error err = {0};
    const pf_peft_cfg cfg = {.method = "full"};
    assert_int_not_equal(pf_adapter_attach(&other, m, &cfg, 1, true, &err), PEFT_OK);
    assert_string_equal(err.message, "model.embed_tokens: its weight is trained by another adapter "
                                     "of this model already");
    assert_ptr_equal(m->params, &ad->params);
    assert_non_null(m->embedding->trained_weight);
    pf_adapter_close(ad);
    pf_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_every_weight_once),
        cmocka_unit_test(saves_a_model),
        cmocka_unit_test(one_trainer_at_a_time),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* (IA)3: what is attached where, for the usual modules, for chosen layers and for texts of a file;
 * logits and training are tests/golden/test_methods.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "peft/peft_test.h"

#include "base/file.h"

#include <string.h>
#include <unistd.h>

#define BASE GOLDEN "/methods/base_llama"

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

/* An adapter as these overrides configure it. */
static pf_adapter *attach(pf_model *m, const char *const *keys, int n) {
    peft_error err = {0};
    pf_run_cfg *run = PF_NEW(&arena, pf_run_cfg);
    pf_cfg *cfg = PF_NEW(&arena, pf_cfg);
    pf_adapter *ad = NULL;
    pf_cfg_ext list[PF_MAX_METHODS];
    const int n_list = pf_method_sections(list);
    const pf_cfg_source source = {.overrides = keys, .n_overrides = n};
    if (pf_run_cfg_open(run, cfg, &arena, &source, list, n_list, PF_RUN_ANY, &err) != PEFT_OK ||
        pf_adapter_attach(&ad, m, &run->peft, 1, false, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    return ad;
}

static const pf_param *find(const pf_adapter *ad, const char *site) {
    char name[256];
    snprintf(name, sizeof name, "base_model.model.%s.ia3_l", site);
    return pf_params_find(&ad->params, name);
}

static void usual_modules(void **state) {
    (void)state;
    static const char *const keys[] = {"peft.method=ia3"};
    pf_model *m = open_base(BASE);
    pf_adapter *ad = attach(m, keys, 1);
    assert_int_equal(ad->params.n, 3 * m->n_layers);
    const pf_param *k = find(ad, "model.layers.0.self_attn.k_proj"),
                   *down = find(ad, "model.layers.1.mlp.down_proj");
    assert_non_null(k);
    assert_non_null(down);
    assert_true(k->rows == 16 && k->cols == 1);       /* at the output */
    assert_true(down->rows == 1 && down->cols == 48); /* at the input */
    for (int64_t i = 0; i < ad->params.items[0]->rows; i++)
        assert_true(ad->params.items[0]->data[i] == 1);
    /* ones change nothing, but they do act */
    assert_true(
        pf_adapter_touches(ad, pf_model_find_site(m, "model.layers.0.self_attn.k_proj"), true));
    assert_false(
        pf_adapter_touches(ad, pf_model_find_site(m, "model.layers.0.mlp.up_proj"), false));
    pf_adapter_close(ad);
    pf_model_close(m);
}

static void nothing_is_scaled_at_an_input(void **state) {
    (void)state;
    static const char *const keys[] = {"peft.method=ia3", "peft.ia3.feedforward_modules=none"};
    pf_model *m = open_base(BASE);
    pf_adapter *ad = attach(m, keys, 2);
    const pf_param *down = find(ad, "model.layers.1.mlp.down_proj");
    assert_true(down != NULL && down->rows == 32 && down->cols == 1);
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* peft's class knows no layers: the file has whole paths, and opens to the same modules. */
static void chosen_layers_are_saved_as_paths(void **state) {
    (void)state;
    static const char *const keys[] = {"peft.method=ia3", "peft.ia3.layers_to_transform=[1]"};
    peft_error err = {0};
    const char *dir = pf_arena_printf(&arena, TEST_BINARY_DIR "/tests/ia3-%ld", (long)getpid());
    pf_model *m = open_base(BASE);
    pf_adapter *ad = attach(m, keys, 2);
    assert_int_equal(ad->params.n, 3);
    assert_null(find(ad, "model.layers.0.self_attn.k_proj"));
    assert_int_equal(pf_make_dirs(dir, &err), PEFT_OK);
    assert_int_equal(pf_adapter_save(ad, dir, &err), PEFT_OK);
    pf_adapter_close(ad);
    pf_buf text = {0};
    assert_int_equal(
        pf_read_file(&text, pf_path_join(&arena, dir, "adapter_config.json"), 1 << 20, &err),
        PEFT_OK);
    assert_non_null(strstr(pf_buf_str(&text), "\"model.layers.1.mlp.down_proj\""));
    assert_null(strstr(pf_buf_str(&text), "layers_to_transform"));
    pf_buf_free(&text);
    if (pf_adapter_open(&ad, m, dir, false, &err) != PEFT_OK) fail_msg("%s", err.message);
    assert_int_equal(ad->params.n, 3);
    const pf_param *down = find(ad, "model.layers.1.mlp.down_proj");
    assert_true(down != NULL && down->rows == 1);
    pf_adapter_close(ad);
    pf_model_close(m);
    pf_remove_tree(dir, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual_modules),
        cmocka_unit_test(nothing_is_scaled_at_an_input),
        cmocka_unit_test(chosen_layers_are_saved_as_paths),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

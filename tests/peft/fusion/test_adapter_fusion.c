/* AdapterFusion beside what tests/golden/test_methods.c compares with AdapterHub: first weights,
 * folders of AdapterHub's save_adapter_setup, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_util.h"

#include "base/file.h"
#include "formats/file_util.h"
#include "peft/adapter_file.h"
#include "peft/fusion/adapter_fusion.h"

#include <math.h>

#define METHODS TEST_SOURCE_DIR "/tests/golden/methods/"

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

static pf_model *open_base(void) {
    peft_error err = {0};
    pf_model *m;
    OK(pf_model_open(&m, METHODS "base_llama", NULL, &err));
    return m;
}

static const char *in(const char *dir, const char *file) {
    return pf_path_join(&arena, dir, file);
}

static void first_weights(void **state) {
    (void)state;
    peft_error err = {0};
    pf_model *m = open_base();
    pf_adapter *ad;
    const char *paths[] = {METHODS "seq_bn/end", METHODS "bn_norms_inside/end"},
               *names[] = {"a", "b"};
    const pf_adapter_fusion_cfg section = {.adapters = {.list = {.items = paths, .n = 2}},
                                           .adapter_names = {.list = {.items = names, .n = 2}},
                                           .query = true,
                                           .key = true,
                                           .value = true,
                                           .value_initialized = true,
                                           .value_before_softmax = true,
                                           .regularization = true};
    const pf_peft_cfg cfg = {.method = "adapter_fusion", .method_cfg = &section, .given = true};
    OK(pf_adapter_attach(&ad, m, &cfg, 7, true, &err));
    assert_int_equal(ad->params.n, 2 * 5);
    pf_param *v = pf_params_find(
        &ad->params, "model.layers.1.output_adapters.adapter_fusion_layer.a,b.value.weight");
    pf_param *q = pf_params_find(
        &ad->params, "model.layers.1.output_adapters.adapter_fusion_layer.a,b.query.weight");
    assert_non_null(v);
    assert_non_null(q);
    double square = 0;
    for (int64_t i = 0; i < 32 * 32; i++) {
        assert_true(v->data[i] == (pf_real)(i % 33 == 0 ? 1 : 1e-6));
        square += (double)q->data[i] * (double)q->data[i] / (32 * 32);
    }
    assert_true(fabs(sqrt(square) - 0.02) < 0.002);
    assert_int_equal(pf_adapter_trained(ad), 2 * (3 * 32 * 32 + 2 * 32)); /* the adapters are not */
    v->data[1] = 3; /* drawn back to zero, the diagonal to one */
    v->data[33] = 3;
    OK(pf_adapter_after_backward(ad, &err));
    assert_true(fabs((double)v->grad[1] - 0.06) < 1e-6);
    assert_true(fabs((double)v->grad[33] - 0.04) < 1e-6);
    assert_true(q->grad[1] == 0);
    pf_adapter_close(ad);
    pf_model_close(m);
}

static void copy(const char *from, const char *to, const char *file) {
    peft_error err = {0};
    pf_mapping f;
    OK(pf_make_dirs(to, &err));
    OK(pf_map_file(&f, in(from, file), &err));
    OK(pf_write_file(in(to, file), f.data, f.size, &err));
    pf_unmap_file(&f);
}

/* <dir>/adapter_a, <dir>/adapter_b, <dir>/adapter_a,adapter_b: as AdapterHub has them */
static const char *make_setup(const char *setup_json) {
    const char *from = METHODS "fusion/end", *dir = fresh_dir(&arena, "setup");
    const char *parts[] = {"adapter_a", "adapter_b"};
    for (int i = 0; i < 2; i++) {
        copy(in(from, parts[i]), in(dir, parts[i]), "adapter_config.json");
        copy(in(from, parts[i]), in(dir, parts[i]), "adapter.safetensors");
    }
    copy(from, in(dir, "adapter_a,adapter_b"), "adapter_fusion_config.json");
    copy(from, in(dir, "adapter_a,adapter_b"), "model_adapter_fusion.safetensors");
    put_text(&arena, dir, "adapter_setup.json",
             pf_arena_printf(&arena, "{\"adapter_setup\": %s, \"head_setup\": null}", setup_json));
    return dir;
}

#define SINGLE(name) "{\"type\": \"single\", \"children\": [\"" name "\"]}"
#define BOTH         SINGLE("adapter_a") ", " SINGLE("adapter_b")

static void setups(void **state) {
    (void)state;
    peft_error err = {0};
    pf_model *m = open_base();
    pf_adapter *ad, *same;
    const char *dir = make_setup("{\"type\": \"Fuse\", \"children\": [" BOTH "]}");
    OK(pf_adapter_open(&ad, m, dir, false, &err));
    pf_adapter_suspend(ad);
    OK(pf_adapter_open(&same, m, METHODS "fusion/end", false, &err));
    assert_int_equal(ad->params.n, same->params.n);
    for (int i = 0; i < ad->params.n; i++)
        assert_memory_equal(ad->params.items[i]->data, same->params.items[i]->data,
                            (size_t)(ad->params.items[i]->cols) * sizeof(pf_real));
    pf_adapter_close(same);
    pf_adapter_close(ad);

    static const struct {
        const char *setup, *message;
    } cases[] = {
        {"{\"type\": \"Stack\", \"children\": [" BOTH "]}",
         "a setup of type Stack is not read; Fuse is"},
        {"{\"type\": \"Fuse\", \"children\": [{\"type\": \"Stack\", \"children\": []}]}",
         "a fusion over other setups is not read"},
        {"{\"type\": \"Fuse\", \"children\": [" BOTH "], \"kwargs\": {\"name\": \"../x\"}}",
         "is no name of a folder"},
        {"{\"type\": \"Fuse\", \"children\": []}", "is no name of a folder"},
        {"[]", "adapter_setup"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        assert_int_not_equal(pf_adapter_open(&ad, m, make_setup(cases[i].setup), false, &err),
                             PEFT_OK);
        if (strstr(err.message, cases[i].message) == NULL) fail_msg("%s", err.message);
        assert_null(ad);
    }
    pf_model_close(m);
}

static void refuses(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"config\": {\"query_before_ln\": false, \"temperature\": true}, \"adapter_names\": "
         "[\"adapter_a\", \"adapter_b\"]}",
         "temperature is true"},
        {"{\"config\": {\"query_before_ln\": false, \"query\": false, \"key\": false, \"value\": "
         "false}, \"name\": \"x\"}",
         "nothing in it is trained"},
        {"{\"config\": {\"query_before_ln\": false}, \"name\": \"a,b\"}",
         "is a fusion over the adapter 'a', which is not here; put its folder at"},
        {"{\"config\": {\"query_before_ln\": false}, \"adapter_names\": [\"../a\"]}",
         "'../a' is no name of an adapter"},
        {"{\"config\": {\"query_before_ln\": false, \"dropout_prob\": 1}, \"name\": \"a,b\"}",
         "dropout_prob should be at least 0 and below 1"},
    };
    peft_error err = {0};
    pf_model *m = open_base();
    pf_adapter *ad;
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        const char *dir = fresh_dir(&arena, "refused_fusion");
        put_text(&arena, dir, PF_FUSION_CONFIG, cases[i].config);
        put_text(&arena, dir, "model_adapter_fusion.safetensors", "");
        assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK);
        if (strstr(err.message, cases[i].message) == NULL) fail_msg("%s", err.message);
        assert_null(ad);
    }
    /* a fusion over itself, and over a folder of several */
    const char *around = fresh_dir(&arena, "around"), *self = in(around, "a");
    OK(pf_make_dirs(self, &err));
    put_text(&arena, self, PF_FUSION_CONFIG,
             "{\"config\": {\"query_before_ln\": false}, \"name\": \"a,b\"}");
    put_text(&arena, self, "model_adapter_fusion.safetensors", "");
    OK(pf_make_dirs(in(around, "b"), &err));
    assert_int_not_equal(pf_adapter_open(&ad, m, self, false, &err), PEFT_OK);
    if (strstr(err.message, "holds a fusion itself") == NULL) fail_msg("%s", err.message);
    const char *several = in(self, "a"); /* an adapter on top of the fusion that holds it */
    OK(pf_make_dirs(several, &err));
    put_text(&arena, several, "adapter_config.json", "{\"config\": {}}");
    put_text(&arena, several, "adapters.json", "{\"on_top_of\": [\"..\"]}");
    assert_int_not_equal(pf_adapter_open(&ad, m, self, false, &err), PEFT_OK);
    if (strstr(err.message, "holds several adapters") == NULL) fail_msg("%s", err.message);
    const char *dir = fresh_dir(&arena, "pickle");
    put_text(&arena, dir, PF_FUSION_CONFIG,
             "{\"config\": {\"query_before_ln\": false}, \"name\": \"a,b\"}");
    put_text(&arena, dir, "pytorch_model_adapter_fusion.bin", "x");
    assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK);
    assert_non_null(strstr(err.message, "torch.load('pytorch_model_adapter_fusion.bin'"));
    pf_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_weights),
        cmocka_unit_test(setups),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

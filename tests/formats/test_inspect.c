/* inspect.c: what is said of files and folders, as JSON and as a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "formats/file_util.h"
#include "formats/inspect.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/"

static pf_arena a;

static const char *str(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}
static int64_t num(const json_t *o, const char *key) {
    return json_integer_value(json_object_get(o, key));
}

static json_t *inspect(const char *path) {
    json_t *d;
    peft_error err;
    if (pf_inspect(&d, path, &err) != PEFT_OK) fail_msg("%s", err.message);
    return d;
}

static void test_one_file(void **state) {
    (void)state;
    json_t *d = inspect(GOLDEN "all_types.safetensors");
    assert_string_equal(str(d, "kind"), "safetensors");
    assert_string_equal(str(d, "path"), GOLDEN "all_types.safetensors");
    const json_t *total = json_object_get(d, "total"), *tensors = json_object_get(d, "tensors");
    assert_int_equal(num(total, "tensors"), 22);
    assert_int_equal(num(total, "parameters"), 122);
    assert_int_equal(num(total, "bytes"), 402);
    assert_int_equal(num(json_object_get(total, "dtypes"), "BF16"), 2);
    assert_int_equal(json_array_size(tensors), 22);
    const json_t *t = json_array_get(tensors, 11), *shape = json_object_get(t, "shape");
    assert_string_equal(str(t, "name"), "three.dims");
    assert_string_equal(str(t, "dtype"), "BF16");
    assert_string_equal(str(t, "file"), "all_types.safetensors");
    assert_int_equal(num(t, "bytes"), 20);
    assert_int_equal(json_array_size(shape), 3);
    assert_int_equal(json_integer_value(json_array_get(shape, 2)), 5);
    const json_t *file = json_array_get(json_object_get(d, "files"), 0);
    assert_int_equal(num(file, "bytes"), 2002);
    assert_string_equal(str(json_object_get(file, "metadata"), "format"), "pt");
    json_decref(d);
}

static void test_folders(void **state) {
    (void)state;
    json_t *d = inspect(GOLDEN "sharded");
    assert_string_equal(str(d, "kind"), "folder"); /* no config.json */
    assert_int_equal(json_array_size(json_object_get(d, "files")), 4);
    assert_int_equal(num(json_object_get(d, "total"), "bytes"), 352);
    json_decref(d);
    d = inspect(GOLDEN "sharded/model.safetensors.index.json");
    assert_string_equal(str(d, "kind"), "sharded");
    assert_int_equal(json_array_size(json_object_get(d, "tensors")), 9);
    json_decref(d);

    /* a checkpoint: an adapter with the state of a run */
    const char *dir = fresh_dir(&a, "inspect");
    pf_mapping map;
    static const char *const names[] = {"adapter_model.safetensors", "adapter_config.json"};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        assert_int_equal(pf_map_file(&map, pf_path_join(&a, GOLDEN "adapter", names[i]), NULL),
                         PEFT_OK);
        put_file(&a, dir, names[i], map.data, map.size);
        pf_unmap_file(&map);
    }
    put_text(&a, dir, "trainer_state.json",
             "{\"global_step\": 20, \"epoch\": 1.5, \"log_history\": [{\"loss\": 1}], "
             "\"best_metric\": null}");
    put_text(&a, dir, "state.safetensors", "not looked at");
    d = inspect(dir);
    assert_string_equal(str(d, "kind"), "checkpoint");
    assert_int_equal(num(json_object_get(d, "adapter_config"), "r"), 2);
    const json_t *run = json_object_get(d, "trainer_state");
    assert_int_equal(num(run, "global_step"), 20);
    assert_null(json_object_get(run, "log_history"));
    assert_int_equal(json_array_size(json_object_get(d, "tensors")), 8);
    assert_int_equal(json_array_size(json_object_get(d, "files")), 4);
    json_decref(d);

    put_text(&a, dir, "trainer_state.json", "[]");
    peft_error err;
    assert_int_equal(pf_inspect(&d, dir, &err), PEFT_E_FORMAT);
    assert_true(d == NULL &&
                pf_ends_with(err.message, "trainer_state.json: a list, where an object should be"));
}

static void test_page(void **state) {
    (void)state;
    static const char want[] =
        "PATH: adapter\n"
        "  tensors  8, 112 numbers, 448 B (8 F32)\n"
        "\n"
        "adapter_config.json\n"
        "  base_model_name_or_path  org/base\n"
        "  bias                     none\n"
        "  inference_mode           true\n"
        "  lora_alpha               4\n"
        "  lora_dropout             0.0\n"
        "  peft_type                LORA\n"
        "  r                        2\n"
        "  target_modules           [\"q_proj\", \"v_proj\"]\n"
        "  task_type                CAUSAL_LM\n"
        "\n"
        "files\n"
        "     1.4 KiB  adapter_model.safetensors\n"
        "                format = pt\n"
        "       244 B  adapter_config.json\n"
        "\n"
        "name                                                            type  shape        size\n"
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight  F32   2 x 8        64 B\n"
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight  F32   8 x 2        64 B\n"
        "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight  F32   2 x 8        64 B\n"
        "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight  F32   4 x 2        32 B\n"
        "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight  F32   2 x 8        64 B\n"
        "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight  F32   8 x 2        64 B\n"
        "base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight  F32   2 x 8        64 B\n"
        "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight  F32   4 x 2        32 B\n";
    pf_buf out;
    pf_buf_init(&out);
    json_t *d = inspect(GOLDEN "adapter");
    json_object_set_new(d, "path", json_string("PATH"));
    assert_int_equal(pf_inspect_text(&out, d, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&out), want);
    json_decref(d);
    /* names of every kind keep the columns and the terminal in order */
    pf_buf_clear(&out);
    d = inspect(GOLDEN "all_types.safetensors");
    assert_int_equal(pf_inspect_text(&out, d, NULL), PEFT_OK);
    assert_non_null(
        strstr(pf_buf_str(&out),
               "\nquote \" backslash \\ newline \\x0a bell \\x07 é 日本 😀  I64          3 "));
    assert_non_null(
        strstr(pf_buf_str(&out),
               "\nscalar                                             F32          scalar  "));
    assert_null(strchr(pf_buf_str(&out), '\x07'));
    json_decref(d);
    pf_buf_free(&out);
}

static void test_refusals(void **state) {
    (void)state;
    json_t *d;
    peft_error err;
    const char *dir = fresh_dir(&a, "inspect");
    unsetenv("HF_HOME");
    setenv("HF_HUB_CACHE", dir, 1);
    assert_int_equal(pf_inspect(&d, dir, &err), PEFT_E_MISSING);
    assert_true(
        pf_ends_with(err.message, "/inspect holds no tensors that can be read (.safetensors)"));
    assert_int_equal(pf_inspect(&d, put_text(&a, dir, "x.pt", "x"), &err), PEFT_E_UNSUPPORTED);
    assert_int_equal(pf_inspect(&d, dir, &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "x.pt is a PyTorch pickle"));
    assert_int_equal(pf_inspect(&d, put_text(&a, dir, "x.gguf", "GGUF"), &err), PEFT_E_UNSUPPORTED);
    assert_int_equal(pf_inspect(&d, put_text(&a, dir, "x.safetensors", "x"), &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "x.safetensors: the file has 1 bytes"));
    assert_int_equal(pf_inspect(&d, "nobody/nothing", &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "no model 'nobody/nothing' on this machine"));
    assert_null(d);
    unsetenv("HF_HUB_CACHE");
}

static int setup(void **state) {
    (void)state;
    pf_arena_init(&a, "test");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_arena_release(&a);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_file),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* safetensors_shards.c: the same cut, names, shards and index as huggingface_hub, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "formats/file_util.h"
#include "formats/safetensors_index.h"
#include "formats/safetensors_shards.h"
#include "formats/safetensors_write.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/sharded/"

/* In the order in which the fixture's script lists them: what is in which shard depends on it. */
static const char *const names[] = {
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.1.input_layernorm.weight",
    "model.layers.2.mlp.up_proj.weight",
    "model.layers.2.input_layernorm.weight",
    "lm_head.weight",
    "model.norm.wéight",
};

static void load(pf_tensor_source *src, pf_stored_tensor list[PF_COUNT(names)]) {
    assert_int_equal(pf_safetensors_open_sharded(src, GOLDEN "model.safetensors.index.json", NULL),
                     PEFT_OK);
    for (size_t i = 0; i < PF_COUNT(names); i++)
        list[i] = src->tensors[pf_tensor_source_find(src, names[i])];
}

static peft_status feed(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    const pf_stored_tensor *list = ctx;
    assert_string_equal(list[index].name, t->name);
    return pf_tensor_sink_add(sink, list[index].data, t->bytes, err);
}

static void test_same_bytes_as_the_reference(void **state) {
    (void)state;
    pf_tensor_source src;
    pf_stored_tensor list[PF_COUNT(names)], empty[PF_COUNT(names)];
    peft_error err;
    pf_strlist files;
    pf_arena a;
    int n_files = 0;
    pf_arena_init(&a, "test");
    const char *dir = fresh_dir(&a, "safetensors_shards");
    load(&src, list);
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        empty[i] = list[i];
        empty[i].data = NULL;
    }
    assert_int_equal(pf_safetensors_write_sharded(dir, "model", empty, PF_COUNT(names), 100,
                                                  &pf_safetensors_pt, 1, feed, list, &n_files,
                                                  &err),
                     PEFT_OK);
    assert_int_equal(n_files, 4);
    assert_int_equal(pf_list_dir(&files, &a, dir, NULL), PEFT_OK);
    assert_int_equal(files.n, 5);
    for (int i = 0; i < files.n; i++) {
        assert_same_file(pf_path_join(&a, dir, files.items[i]),
                         pf_path_join(&a, GOLDEN, files.items[i]));
    }
    /* never over a model that is there */
    assert_int_equal(pf_safetensors_write_sharded(dir, "model", list, PF_COUNT(names), 0, NULL, 0,
                                                  NULL, NULL, NULL, &err),
                     PEFT_E_CREATE);
    assert_non_null(strstr(err.message,
                           "model.safetensors.index.json is there already; choose another folder"));
    pf_tensor_source_close(&src);
    pf_arena_release(&a);
}

static void test_limits(void **state) {
    (void)state;
    pf_tensor_source src, back;
    pf_stored_tensor list[PF_COUNT(names)];
    peft_error err;
    pf_arena a;
    pf_arena_init(&a, "test");
    load(&src, list);
    static const struct {
        uint64_t limit;
        int files;
    } rows[] = {{0, 1}, {352, 1}, {351, 2}, {120, 4}, {1, 9}, {UINT64_MAX, 1}};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        int n_files = 0;
        const char *dir = fresh_dir(&a, "safetensors_shards");
        assert_int_equal(pf_safetensors_write_sharded(dir, "model", list, PF_COUNT(names),
                                                      rows[i].limit, NULL, 0, NULL, NULL, &n_files,
                                                      &err),
                         PEFT_OK);
        assert_int_equal(n_files, rows[i].files);
        if (n_files == 1) {
            assert_int_equal(
                pf_safetensors_open_source(&back, pf_path_join(&a, dir, "model.safetensors"), &err),
                PEFT_OK);
        } else {
            assert_int_equal(
                pf_safetensors_open_sharded(
                    &back, pf_path_join(&a, dir, "model.safetensors.index.json"), &err),
                PEFT_OK);
        }
        assert_int_equal(back.n_files, n_files);
        assert_int_equal(back.n_tensors, (int)PF_COUNT(names));
        for (size_t k = 0; k < PF_COUNT(names); k++) {
            const pf_stored_tensor *t;
            assert_int_equal(pf_tensor_source_get(&back, names[k], &t, &err), PEFT_OK);
            assert_memory_equal(t->data, list[k].data, list[k].bytes);
        }
        pf_tensor_source_close(&back);
    }
    pf_tensor_source_close(&src);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_as_the_reference),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

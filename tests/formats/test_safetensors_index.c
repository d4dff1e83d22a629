/* safetensors_index.c: folders of shards as transformers writes them; what an index may not say;
 * sources. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "formats/file_util.h"
#include "formats/safetensors_index.h"
#include "formats/safetensors_write.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/"

static void test_reads_shards(void **state) {
    (void)state;
    pf_tensor_source src;
    peft_error err;
    const pf_stored_tensor *t;
    assert_int_equal(
        pf_safetensors_open_sharded(&src, GOLDEN "sharded/model.safetensors.index.json", &err),
        PEFT_OK);
    assert_int_equal(src.n_files, 4);
    assert_int_equal(src.n_tensors, 9);
    assert_int_equal(pf_tensor_source_bytes(&src), 352);
    assert_int_equal(pf_tensor_source_get(&src, "model.norm.wéight", &t, &err), PEFT_OK);
    assert_true(
        pf_ends_with(pf_tensor_source_path(&src, t), "sharded/model-00004-of-00004.safetensors"));
    float x[4];
    pf_dtype_to_f32(t->dtype, t->data, 4, x);
    for (int i = 0; i < 4; i++) assert_true(x[i] == (float)((i + 5) * 5 % 37 - 18) / 8.0f);
    assert_int_equal(pf_tensor_source_get(&src, "model.layers.1.mlp.up_proj.weigth", &t, &err),
                     PEFT_E_MISSING);
    assert_null(t);
    assert_non_null(strstr(err.message,
                           "no tensor 'model.layers.1.mlp.up_proj.weigth'; the nearest is "
                           "'model.layers.1.mlp.up_proj.weight'"));
    size_t copied = 1;
    assert_int_equal(pf_tensor_source_align(&src, &copied, &err), PEFT_OK);
    assert_int_equal(copied, 0);
    pf_tensor_source_close(&src);
    pf_tensor_source_close(&src);
    pf_tensor_source_close(NULL);
}

static void test_aligns_what_is_not(void **state) {
    (void)state;
    pf_tensor_source src;
    peft_error err;
    size_t copied = 0;
    assert_int_equal(pf_safetensors_open_source(&src, GOLDEN "unaligned.safetensors", &err),
                     PEFT_OK);
    const pf_stored_tensor *t = &src.tensors[pf_tensor_source_find(&src, "a")];
    assert_true((uintptr_t)t->data % 4 != 0);
    const void *bytes = src.tensors[pf_tensor_source_find(&src, "b")].data;
    assert_int_equal(pf_tensor_source_align(&src, &copied, &err), PEFT_OK);
    assert_int_equal(copied, 64);
    assert_true((uintptr_t)t->data % 64 == 0);
    const float *x = t->data;
    assert_true(x[0] == 1.0f && x[1] == -2.0f && x[2] == 0.5f);
    assert_ptr_equal(src.tensors[pf_tensor_source_find(&src, "b")].data,
                     bytes); /* bytes stand well anywhere */
    pf_tensor_source_close(&src);
}

static void test_index_text(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } rows[] = {
        /* clang-format off */
        {"[1]", "i: a list, where an object with a weight_map should be"},
        {"{\"weight_map\":{}}", "i: weight_map is empty"},
        {"{\"weight_map\":{\"a\":1}}", "i: weight_map: the file of tensor 'a' is a whole number, not text"},
        {"{\"weight_map\":{\"a\":\"\"}}", "i: weight_map: tensor 'a' is placed in '', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "i: weight_map: tensor 'a' is placed in '/etc/passwd', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"../m.safetensors\"}}", "i: weight_map: tensor 'a' is placed in '../m.safetensors', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"sub/../../m.safetensors\"}}", "i: weight_map: tensor 'a' is placed in 'sub/../../m.safetensors', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"sub//m\"}}", "i: weight_map: tensor 'a' is placed in 'sub//m', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"sub/\"}}", "i: weight_map: tensor 'a' is placed in 'sub/', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"..\\\\m\"}}", "i: weight_map: tensor 'a' is placed in '..\\m', which is not inside the folder"},
        {"{\"weight_map\":{\"a\":\"m\\u0000/../x\"}}", "i: weight_map: tensor 'a' is placed in 'm', which is not inside the folder"},
        /* clang-format on */
    };
    pf_shard_index ix;
    peft_error err;
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        assert_int_equal(pf_shard_index_parse(&ix, rows[i].text, strlen(rows[i].text), "i", &err),
                         PEFT_E_FORMAT);
        assert_string_equal(err.message, rows[i].message);
        assert_null(ix.entries);
    }
    static const char *const json_errors[] = {"",
                                              "{",
                                              "{\"weight_map\":{\"a\":\"m\",\"a\":\"m\"}}",
                                              "{\"a\":1}",
                                              "{\"weight_map\":[]}",
                                              "{\"weight_map\":{\"a\":\"\xff\"}}"};
    for (size_t i = 0; i < PF_COUNT(json_errors); i++) {
        assert_int_not_equal(
            pf_shard_index_parse(&ix, json_errors[i], strlen(json_errors[i]), "i", &err), PEFT_OK);
        assert_true(strncmp(err.message, "i:", 2) == 0);
    }
    static const char good[] =
        "{\"weight_map\":{\"b\":\"2\",\"c\":\"sub/1\",\"a\":\"2\",\"d\":\"0\"}}";
    assert_int_equal(pf_shard_index_parse(&ix, good, sizeof good - 1, "i", &err), PEFT_OK);
    assert_int_equal(ix.n_files, 3);
    assert_string_equal(ix.files[pf_shard_index_find(&ix, "a")], "2");
    assert_string_equal(ix.files[pf_shard_index_find(&ix, "c")], "sub/1");
    assert_string_equal(ix.files[pf_shard_index_find(&ix, "d")], "0");
    assert_int_equal(pf_shard_index_find(&ix, "e"), -1);
    pf_shard_index_close(&ix);
    pf_shard_index_close(NULL);
}

/* Folders whose files do not agree. */
static void put_shard(pf_arena *a, const char *dir, const char *file, const char *const *names,
                      int n) {
    pf_stored_tensor t[4];
    const int64_t two[] = {2};
    const float data[2] = {0};
    for (int i = 0; i < n; i++) {
        assert_int_equal(pf_stored_tensor_set(&t[i], names[i], PF_DTYPE_F32, 1, two, data, NULL),
                         PEFT_OK);
    }
    const char *path = pf_path_join(a, dir, file);
    assert_int_equal(pf_safetensors_write(path, t, n, NULL, 0, NULL, NULL, NULL), PEFT_OK);
}

static void test_folders_that_do_not_agree(void **state) {
    (void)state;
    static const struct {
        const char *map;
        const char *one[3], *two[3];
        const char *message; /* with $ for the folder */
    } rows[] = {
        /* clang-format off */
        {"\"a\":\"1.st\",\"b\":\"2.st\"", {"a"}, {"b"}, NULL},
        {"\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"3.st\",\"d\":\"4.st\"", {"a"}, {"b"}, "$/i.json: 2 of 4 shards are missing from the folder, the first is '3.st' (is the download complete?)"},
        {"\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"2.st\"", {"a"}, {"b"}, "$/i.json: tensor 'c' should be in 2.st and is not"},
        {"\"a\":\"1.st\",\"b\":\"2.st\"", {"a"}, {"b", "c"}, "$/2.st: tensor 'c' is not in the index $/i.json"},
        {"\"a\":\"1.st\",\"b\":\"2.st\"", {"a", "b"}, {"b"}, "$/1.st: tensor 'b' is here, but the index $/i.json places it in 2.st"},
        {"\"a\":\"1.st\",\"b\":\"2.st\"", {"b"}, {"a"}, "$/1.st: tensor 'b' is here, but the index $/i.json places it in 2.st"},
        /* clang-format on */
    };
    pf_arena a;
    pf_arena_init(&a, "test");
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        const char *dir = fresh_dir(&a, "safetensors_index");
        int n1 = rows[i].one[1] != NULL ? 2 : 1, n2 = rows[i].two[1] != NULL ? 2 : 1;
        put_shard(&a, dir, "1.st", rows[i].one, n1);
        put_shard(&a, dir, "2.st", rows[i].two, n2);
        const char *index =
            put_text(&a, dir, "i.json", pf_arena_printf(&a, "{\"weight_map\":{%s}}", rows[i].map));
        pf_tensor_source src;
        peft_error err;
        peft_status status = pf_safetensors_open_sharded(&src, index, &err);
        if (rows[i].message == NULL) {
            assert_int_equal(status, PEFT_OK);
            pf_tensor_source_close(&src);
            continue;
        }
        pf_buf want;
        pf_buf_init(&want);
        for (const char *s = rows[i].message; *s != 0; s++) {
            if (*s == '$')
                pf_buf_adds(&want, dir);
            else
                pf_buf_addc(&want, *s);
        }
        assert_int_not_equal(status, PEFT_OK);
        assert_string_equal(err.message, pf_buf_str(&want));
        pf_buf_free(&want);
    }
    /* a broken shard is named */
    const char *dir = fresh_dir(&a, "safetensors_index");
    pf_tensor_source src;
    peft_error err;
    put_text(&a, dir, "1.st", "broken");
    const char *index = put_text(&a, dir, "i.json", "{\"weight_map\":{\"a\":\"1.st\"}}");
    assert_int_equal(pf_safetensors_open_sharded(&src, index, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "1.st: the file has 6 bytes"));
    pf_arena_release(&a);
}

static void test_out_of_memory(void **state) {
    (void)state;
    static const char good[] =
        "{\"weight_map\":{\"b\":\"2\",\"c\":\"sub/1\",\"a\":\"2\",\"d\":\"0\"}}";
    for (int64_t n = 1; n < 40; n++) {
        pf_shard_index ix;
        pf_tensor_source src;
        pf_alloc_fail_at(n);
        peft_status a = pf_shard_index_parse(&ix, good, sizeof good - 1, "i", NULL);
        pf_alloc_fail_at(n);
        peft_status b =
            pf_safetensors_open_sharded(&src, GOLDEN "sharded/model.safetensors.index.json", NULL);
        pf_alloc_fail_at(0);
        assert_true((a == PEFT_OK || a == PEFT_E_NOMEM) && (b == PEFT_OK || b == PEFT_E_NOMEM));
        pf_shard_index_close(&ix);
        pf_tensor_source_close(&src);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_shards),  cmocka_unit_test(test_aligns_what_is_not),
        cmocka_unit_test(test_index_text),    cmocka_unit_test(test_folders_that_do_not_agree),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

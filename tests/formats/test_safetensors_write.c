/* safetensors_write.c: byte for byte what the reference library writes; nothing half under the
 * final name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "formats/file_util.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"

#include <errno.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/"

/* Feeds a tensor from its own data in pieces of growing size. */
static peft_status feed_pieces(void *ctx, int index, const pf_stored_tensor *t,
                               pf_tensor_sink *sink, peft_error *err) {
    int *calls = ctx;
    (void)index;
    (*calls)++;
    for (size_t at = 0, k = 1; at < t->bytes; at += k, k = k * 2 + 1) {
        if (k > t->bytes - at) k = t->bytes - at;
        PF_TRY(pf_tensor_sink_add(sink, (const char *)t->data + at, k, err));
    }
    return PEFT_OK;
}

static void test_same_bytes_as_the_reference(void **state) {
    (void)state;
    static const char *const files[] = {GOLDEN "all_types.safetensors",
                                        GOLDEN "adapter/adapter_model.safetensors",
                                        GOLDEN "sharded/model-00002-of-00004.safetensors"};
    pf_arena a;
    pf_arena_init(&a, "test");
    const char *dir = fresh_dir(&a, "safetensors_write"),
               *path = pf_path_join(&a, dir, "out.safetensors");
    for (size_t f = 0; f < PF_COUNT(files); f++) {
        pf_safetensors st;
        peft_error err;
        assert_int_equal(pf_safetensors_open(&st, files[f], &err), PEFT_OK);
        /* given in reverse: the order is the writer's business */
        pf_stored_tensor *list = malloc((size_t)st.n_tensors * sizeof *list);
        assert_non_null(list);
        for (int i = 0; i < st.n_tensors; i++) list[i] = st.tensors[st.n_tensors - 1 - i];
        assert_int_equal(
            pf_safetensors_write(path, list, st.n_tensors, &pf_safetensors_pt, 1, NULL, NULL, &err),
            PEFT_OK);
        assert_same_file(path, files[f]);
        int calls = 0;
        assert_int_equal(pf_safetensors_write(path, list, st.n_tensors, &pf_safetensors_pt, 1,
                                              feed_pieces, &calls, &err),
                         PEFT_OK);
        assert_same_file(path, files[f]);
        assert_int_equal(calls, st.n_tensors);
        free(list);
        pf_safetensors_close(&st);
    }
    pf_arena_release(&a);
}

static peft_status feed_f32(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                            peft_error *err) {
    const float *x = ctx;
    assert_int_equal(index, 0);
    size_t n = (size_t)pf_stored_tensor_count(t);
    PF_TRY(pf_tensor_sink_add_f32(sink, x, n / 2, err));
    return pf_tensor_sink_add_f32(sink, x + n / 2, n - n / 2, err);
}

static void test_numbers_and_metadata_come_back(void **state) {
    (void)state;
    enum { N = 5001 };
    float *x = malloc(N * sizeof *x);
    pf_arena a;
    pf_arena_init(&a, "test");
    const char *path = pf_path_join(&a, fresh_dir(&a, "safetensors_write"), "n.safetensors");
    const pf_metadata metadata[] = {{"z", "last \"first\" \\ \n\x01 é"}, {"a", ""}};
    const int64_t shape[] = {3, N / 3};
    static const pf_dtype types[] = {PF_DTYPE_F32, PF_DTYPE_F16, PF_DTYPE_BF16, PF_DTYPE_F64};
    assert_non_null(x);
    for (int i = 0; i < N; i++) x[i] = (float)(i % 255) - 100.0f; /* exact in every type */
    for (size_t k = 0; k < PF_COUNT(types); k++) {
        pf_stored_tensor t;
        pf_safetensors st;
        peft_error err;
        assert_int_equal(pf_stored_tensor_set(&t, "x", types[k], 2, shape, NULL, &err), PEFT_OK);
        assert_int_equal(pf_safetensors_write(path, &t, 1, metadata, 2, feed_f32, x, &err),
                         PEFT_OK);
        assert_int_equal(pf_safetensors_open(&st, path, &err), PEFT_OK);
        assert_int_equal(st.header_size % 8, 0);
        assert_string_equal(pf_safetensors_metadata(&st, "z"), metadata[0].value);
        assert_string_equal(pf_safetensors_metadata(&st, "a"), "");
        float y[N];
        pf_dtype_to_f32(types[k], st.tensors[0].data, N, y);
        assert_memory_equal(x, y, sizeof y);
        pf_safetensors_close(&st);
    }
    /* nothing at all is a file too */
    pf_safetensors st;
    assert_int_equal(pf_safetensors_write(path, NULL, 0, NULL, 0, NULL, NULL, NULL), PEFT_OK);
    assert_int_equal(pf_safetensors_open(&st, path, NULL), PEFT_OK);
    assert_int_equal(st.n_tensors, 0);
    pf_safetensors_close(&st);
    free(x);
    pf_arena_release(&a);
}

static peft_status feed_short(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                              peft_error *err) {
    (void)ctx;
    (void)index;
    return pf_tensor_sink_add(sink, "12345678", t->bytes - 1, err);
}

static void test_refusals(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    const char *dir = fresh_dir(&a, "safetensors_write"),
               *path = pf_path_join(&a, dir, "r.safetensors");
    const float data[2] = {1, 2};
    const int64_t two[] = {2}, many[] = {INT64_MAX, 2};
    pf_stored_tensor t[2];
    peft_error err;
    pf_strlist left;
    assert_int_equal(pf_stored_tensor_set(&t[0], "a", PF_DTYPE_F32, 1, two, data, &err), PEFT_OK);
    assert_int_equal(pf_stored_tensor_set(&t[1], "a", PF_DTYPE_F16, 1, two, data, &err), PEFT_OK);
    assert_int_equal(pf_safetensors_write(path, t, 2, NULL, 0, NULL, NULL, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "r.safetensors: two tensors are called 'a'"));
    t[1].name = "__metadata__";
    assert_int_equal(pf_safetensors_write(path, t, 2, NULL, 0, NULL, NULL, &err), PEFT_E_FORMAT);
    t[1].name = "b\xff";
    assert_int_equal(pf_safetensors_write(path, t, 2, NULL, 0, NULL, NULL, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "tensor 'b\\xff' is not valid UTF-8"));
    t[1].name = "b";
    assert_int_equal(pf_safetensors_write(path, t, 2, NULL, 0, feed_short, NULL, &err),
                     PEFT_E_STATE);
    assert_non_null(strstr(err.message, "r.safetensors: tensor 'a' was given 1 bytes too few"));
    assert_int_equal(pf_stored_tensor_set(&t[0], "big", PF_DTYPE_F32, 2, many, NULL, &err),
                     PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "tensor 'big': shape [9223372036854775807,2] is too large for any machine");
    assert_int_equal(pf_list_dir(&left, &a, dir, NULL), PEFT_OK);
    assert_int_equal(left.n, 0); /* no file, and no temporary one */
    pf_arena_release(&a);
}

/* Whichever write, sync or rename fails: an error, the old file stays as it was, nothing else stays
 * behind. */
static void test_faults(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    const char *dir = fresh_dir(&a, "safetensors_write");
    const char *path = put_text(&a, dir, "f.safetensors", "old");
    const float data[2] = {1, 2};
    const int64_t two[] = {2};
    pf_stored_tensor t;
    peft_error err;
    assert_int_equal(pf_stored_tensor_set(&t, "a", PF_DTYPE_F32, 1, two, data, &err), PEFT_OK);
    int failures = 0;
    for (int64_t n = 1; n < 50; n++) {
        pf_mapping map;
        pf_strlist left;
        pf_file_fault(n, ENOSPC, false);
        peft_status status = pf_safetensors_write(path, &t, 1, NULL, 0, NULL, NULL, &err);
        pf_file_fault(0, 0, false);
        if (status == PEFT_OK) break;
        failures++;
        assert_non_null(
            strstr(err.message, dir)); /* the file, or the folder that could not be synced */
        assert_int_equal(pf_list_dir(&left, &a, dir, NULL), PEFT_OK);
        assert_int_equal(left.n, 1);
        assert_int_equal(pf_map_file(&map, path, NULL), PEFT_OK);
        bool renamed =
            map.size != 3; /* when the sync of the folder failed, the new file is there, complete */
        if (renamed) {
            pf_safetensors st;
            assert_int_equal(pf_safetensors_open(&st, path, NULL), PEFT_OK);
            pf_safetensors_close(&st);
        }
        pf_unmap_file(&map);
    }
    assert_true(failures >= 3);
    for (int64_t n = 1; n < 60; n++) {
        pf_alloc_fail_at(n);
        peft_status status = pf_safetensors_write(path, &t, 1, NULL, 0, NULL, NULL, &err);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_as_the_reference),
        cmocka_unit_test(test_numbers_and_metadata_come_back),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* hub_cache.c, hf_folder.c: from a name to a folder, from a folder to its files, and what is said
 * when one is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "formats/file_util.h"
#include "formats/hf_folder.h"
#include "formats/hub_cache.h"

#include <unistd.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats"
#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER  "fedcba9876543210fedcba9876543210fedcba98"

static pf_arena a;

static void put_in(const char *dir, const char *file, const char *text) {
    const char *path = pf_path_join(&a, dir, file);
    assert_int_equal(pf_make_dirs(pf_path_dir(&a, path), NULL), PEFT_OK);
    assert_int_equal(pf_write_file(path, text, strlen(text), NULL), PEFT_OK);
}

static void clear_environment(void) {
    unsetenv("HF_HUB_CACHE");
    unsetenv("HUGGINGFACE_HUB_CACHE");
    unsetenv("HF_HOME");
    unsetenv("XDG_CACHE_HOME");
}

/* A cache as huggingface_hub leaves it: refs, snapshots of links, blobs. */
static const char *make_cache(const char *name) {
    const char *cache = fresh_dir(&a, name),
               *model = pf_path_join(&a, cache, "models--org--tiny-1.0");
    put_in(model, "refs/main", COMMIT);
    put_in(model, "refs/refs/pr/1", OTHER "\n");
    put_in(model, "refs/broken", "../../../etc");
    put_in(model, "refs/gone", "0000000000000000000000000000000000000000");
    put_in(model, "blobs/b1", "{\"model_type\": \"llama\"}");
    put_in(model, "snapshots/" OTHER "/config.json", "{}");
    pf_mapping map;
    assert_int_equal(pf_map_file(&map, GOLDEN "/adapter/adapter_model.safetensors", NULL), PEFT_OK);
    put_file(&a, pf_path_join(&a, model, "blobs"), "b2", map.data, map.size);
    pf_unmap_file(&map);
    const char *snapshot = pf_path_join(&a, model, "snapshots/" COMMIT);
    assert_int_equal(pf_make_dirs(snapshot, NULL), PEFT_OK);
    assert_int_equal(symlink("../../blobs/b1", pf_path_join(&a, snapshot, "config.json")), 0);
    assert_int_equal(symlink("../../blobs/b2", pf_path_join(&a, snapshot, "model.safetensors")), 0);
    put_in(cache, "models--gpt2/refs/main", COMMIT);
    put_in(cache, "models--gpt2/snapshots/" COMMIT "/config.json", "[1]");
    return cache;
}

static void test_which_cache(void **state) {
    (void)state;
    const char *origin;
    clear_environment();
    setenv("HOME", "/home/u", 1);
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/home/u/.cache/huggingface/hub");
    setenv("XDG_CACHE_HOME", "/xdg", 1);
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/xdg/huggingface/hub");
    setenv("HF_HOME", "~/hf", 1);
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/home/u/hf/hub");
    assert_string_equal(origin, "HF_HOME");
    setenv("HUGGINGFACE_HUB_CACHE", "/old", 1);
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/old");
    setenv("HF_HUB_CACHE", "/new", 1);
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/new");
    assert_string_equal(origin, "HF_HUB_CACHE");
    setenv("HF_HUB_CACHE", "", 1); /* empty is not set */
    assert_string_equal(pf_hub_cache_dir(&a, &origin), "/old");
    clear_environment();
}

static void test_names_in_the_cache(void **state) {
    (void)state;
    const char *cache = make_cache("hub"), *path, *commit;
    const char *model = pf_path_join(&a, cache, "models--org--tiny-1.0");
    peft_error err;
    setenv("HF_HUB_CACHE", cache, 1);
    assert_int_equal(pf_hub_resolve(&a, "org/tiny-1.0", NULL, &path, &commit, &err), PEFT_OK);
    assert_string_equal(path, pf_path_join(&a, model, "snapshots/" COMMIT));
    assert_string_equal(commit, COMMIT);
    assert_int_equal(pf_hub_resolve(&a, "org/tiny-1.0", OTHER, &path, &commit, &err), PEFT_OK);
    assert_string_equal(commit, OTHER);
    assert_int_equal(pf_hub_resolve(&a, "org/tiny-1.0", "refs/pr/1", &path, NULL, &err), PEFT_OK);
    assert_string_equal(path, pf_path_join(&a, model, "snapshots/" OTHER));
    assert_int_equal(pf_hub_resolve(&a, "gpt2", NULL, &path, &commit, &err), PEFT_OK);
    assert_true(pf_ends_with(path, "models--gpt2/snapshots/" COMMIT));
    assert_int_equal(pf_hub_resolve(&a, model, NULL, &path, &commit, &err),
                     PEFT_OK); /* a path stays one */
    assert_string_equal(path, model);
    assert_null(commit);

    static const struct {
        const char *name, *revision;
        peft_status status;
        const char *message; /* $ for the cache */
    } rows[] = {
        /* clang-format off */
        {"org/other", NULL, PEFT_E_MISSING, "no model 'org/other' on this machine; looked for\n  the folder ./org/other\n  $/models--org--other (the Hugging Face cache, from HF_HUB_CACHE)\nDownload it where there is internet (hf download org/other), or give the path of its folder"},
        {"org/tiny-1.0", "dev", PEFT_E_MISSING, "$/models--org--tiny-1.0 has no revision 'dev' (snapshots: " COMMIT ", " OTHER "); name one of them as the revision, or download it: hf download org/tiny-1.0 --revision dev"},
        {"org/tiny-1.0", "broken", PEFT_E_FORMAT, "$/models--org--tiny-1.0/refs/broken does not hold the name of a commit"},
        {"org/tiny-1.0", "gone", PEFT_E_MISSING, "$/models--org--tiny-1.0/refs/gone names a snapshot that is not there: $/models--org--tiny-1.0/snapshots/0000000000000000000000000000000000000000; download it again: hf download org/tiny-1.0"},
        {"org/tiny-1.0", "../../x", PEFT_E_CONFIG, "'../../x' cannot be a revision of org/tiny-1.0"},
        {"org/tiny-1.0", "a//b", PEFT_E_CONFIG, "'a//b' cannot be a revision of org/tiny-1.0"},
        {"org/tiny-1.0", "", PEFT_E_CONFIG, "'' cannot be a revision of org/tiny-1.0"},
        {"./org/tiny-1.0", NULL, PEFT_E_MISSING, "there is no folder ./org/tiny-1.0 (a model on the hub is called org/name)"},
        {"org/tiny/1.0", NULL, PEFT_E_MISSING, "there is no folder org/tiny/1.0 (a model on the hub is called org/name)"},
        {"..", NULL, PEFT_OK, NULL}, /* a folder */
        {"../nothing-here", NULL, PEFT_E_MISSING, "there is no folder ../nothing-here (a model on the hub is called org/name)"},
        {"org/..", NULL, PEFT_E_MISSING, "there is no folder org/.. (a model on the hub is called org/name)"},
        {"org--x/y", NULL, PEFT_E_MISSING, "there is no folder org--x/y (a model on the hub is called org/name)"},
        {"", NULL, PEFT_E_MISSING, "there is no folder  (a model on the hub is called org/name)"},
        {"/dev/null", NULL, PEFT_E_UNSUPPORTED, "/dev/null is a file; a model is named by the folder that holds its files"},
        /* clang-format on */
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        assert_int_equal(pf_hub_resolve(&a, rows[i].name, rows[i].revision, &path, &commit, &err),
                         rows[i].status);
        if (rows[i].status == PEFT_OK) continue;
        assert_true(path == NULL && commit == NULL);
        pf_buf want;
        pf_buf_init(&want);
        for (const char *s = rows[i].message; *s != 0; s++) {
            if (*s == '$')
                pf_buf_adds(&want, cache);
            else
                pf_buf_addc(&want, *s);
        }
        assert_string_equal(err.message, pf_buf_str(&want));
        pf_buf_free(&want);
    }
    clear_environment();
}

static void test_a_cached_model(void **state) {
    (void)state;
    pf_hf_folder f;
    pf_tensor_source src;
    peft_error err;
    json_t *config;
    setenv("HF_HUB_CACHE", make_cache("hub"), 1);
    assert_int_equal(pf_hf_folder_open(&f, "org/tiny-1.0", NULL, &err), PEFT_OK);
    assert_string_equal(f.commit, COMMIT);
    assert_string_equal(f.name, "org/tiny-1.0");
    assert_int_equal(pf_hf_folder_read_config(&f, &config, &err), PEFT_OK);
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "llama");
    json_decref(config);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_OK);
    assert_int_equal(src.n_tensors, 8);
    pf_tensor_source_close(&src);
    assert_null(f.tokenizer);
    assert_int_equal(pf_hf_folder_open_adapter(&f, &src, &err), PEFT_E_MISSING);
    assert_non_null(strstr(
        err.message, "has no adapter_model.safetensors; it holds config.json, model.safetensors; "
                     "complete it: hf download org/tiny-1.0"));
    pf_hf_folder_close(&f);
    assert_int_equal(pf_hf_folder_open(&f, "gpt2", NULL, &err), PEFT_OK);
    assert_int_equal(pf_hf_folder_read_config(&f, &config, &err), PEFT_E_FORMAT);
    assert_true(pf_ends_with(err.message, "config.json: a list, where an object should be"));
    assert_null(config);
    pf_hf_folder_close(&f);
    pf_hf_folder_close(NULL);
    clear_environment();
}

static void test_weights_that_are_not_there(void **state) {
    (void)state;
    pf_hf_folder f;
    pf_tensor_source src;
    peft_error err;
    json_t *config;
    const char *dir = fresh_dir(&a, "hf_folder");
    assert_int_equal(pf_hf_folder_open(&f, dir, NULL, &err), PEFT_OK);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_E_MISSING);
    assert_true(pf_ends_with(
        err.message, "hf_folder has no model.safetensors or model.safetensors.index.json; it holds "
                     "nothing"));
    assert_int_equal(pf_hf_folder_read_config(&f, &config, &err), PEFT_E_MISSING);
    assert_true(
        pf_ends_with(err.message, "hf_folder has no config.json: it is not the folder of a model"));
    put_text(&a, dir, "training_args.bin", "x");
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_E_MISSING);
    put_text(&a, dir, "model.gguf", "x");
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "model.gguf: this version does not read GGUF"));
    put_text(&a, dir, "pytorch_model.bin", "x");
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_E_UNSUPPORTED);
    assert_non_null(
        strstr(err.message,
               "pytorch_model.bin is a PyTorch pickle; reading one can run whatever program it "
               "holds, so it is not opened. Convert it once"));
    assert_int_equal(symlink("../nowhere", pf_path_join(&a, dir, "model.safetensors")), 0);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_E_MISSING);
    assert_non_null(
        strstr(err.message, "model.safetensors is a link to a file that is not there; download"));
    pf_hf_folder_close(&f);
    assert_int_equal(pf_hf_folder_open(&f, pf_path_join(&a, dir, "model.gguf"), NULL, &err),
                     PEFT_E_UNSUPPORTED);
    assert_null(f.path);
}

static char said[1000];
static void hear(void *ctx, pf_log_level level, const char *text) {
    (void)ctx;
    (void)level;
    snprintf(said, sizeof said, "%s", text);
}

static void test_folders(void **state) {
    (void)state;
    pf_hf_folder f;
    pf_tensor_source src;
    peft_error err;
    json_t *config;
    assert_int_equal(pf_hf_folder_open(&f, GOLDEN "/sharded", NULL, &err), PEFT_OK);
    assert_true(f.weights == NULL && f.weights_index != NULL && f.commit == NULL);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_OK);
    assert_true(src.n_files == 4 && src.n_tensors == 9);
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&f);

    assert_int_equal(pf_hf_folder_open(&f, GOLDEN "/adapter", NULL, &err), PEFT_OK);
    assert_int_equal(pf_hf_folder_read_adapter_config(&f, &config, &err), PEFT_OK);
    assert_int_equal(json_integer_value(json_object_get(config, "r")), 2);
    json_decref(config);
    assert_int_equal(pf_hf_folder_open_adapter(&f, &src, &err), PEFT_OK);
    assert_int_equal(src.n_tensors, 8);
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&f);

    /* one file goes before an index; data that are not aligned are copied, and it is said */
    const char *dir = fresh_dir(&a, "hf_folder");
    pf_mapping map;
    assert_int_equal(pf_map_file(&map, GOLDEN "/unaligned.safetensors", NULL), PEFT_OK);
    put_file(&a, dir, "model.safetensors", map.data, map.size);
    put_text(&a, dir, "model.safetensors.index.json", "{}");
    put_text(&a, dir, "spiece.model", "x");
    pf_unmap_file(&map);
    assert_int_equal(pf_hf_folder_open(&f, dir, NULL, &err), PEFT_OK);
    assert_true(f.weights_index == NULL && pf_ends_with(f.tokenizer_model, "/spiece.model"));
    pf_log_set_sink(hear, NULL);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_OK);
    pf_log_set_sink(NULL, NULL);
    assert_true(pf_ends_with(
        said,
        "model.safetensors: the file does not align its tensors; 64 B of them are copied into "
        "memory"));
    for (int i = 0; i < src.n_tensors; i++) {
        assert_int_equal(
            (uintptr_t)src.tensors[i].data % pf_dtype_info(src.tensors[i].dtype)->align, 0);
    }
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&f);
}

static void test_out_of_memory(void **state) {
    (void)state;
    for (int64_t n = 1; n < 60; n++) {
        pf_hf_folder f;
        pf_tensor_source src = {0};
        pf_alloc_fail_at(n);
        peft_status status = pf_hf_folder_open(&f, GOLDEN "/sharded", NULL, NULL);
        if (status == PEFT_OK) status = pf_hf_folder_open_weights(&f, &src, NULL);
        pf_alloc_fail_at(0);
        assert_true(status == PEFT_OK || status == PEFT_E_NOMEM);
        pf_tensor_source_close(&src);
        pf_hf_folder_close(&f);
    }
}

static void test_real_models(void **state) {
    (void)state;
    pf_hf_folder f;
    pf_tensor_source src;
    peft_error err;
    if (!pf_is_dir(TEST_SHARED_DIR "/data/models")) {
        print_message("no " TEST_SHARED_DIR "/data/models: not tried\n");
        skip();
    }
    assert_int_equal(
        pf_hf_folder_open(&f, TEST_SHARED_DIR "/data/models/tinystories-656k", NULL, &err),
        PEFT_OK);
    assert_true(f.config != NULL && f.generation_config != NULL && f.tokenizer != NULL);
    assert_true(f.tokenizer_config != NULL && f.special_tokens_map != NULL && f.vocab == NULL);
    assert_int_equal(pf_hf_folder_open_weights(&f, &src, &err), PEFT_OK);
    assert_int_equal(pf_tensor_source_find(&src, "model.embed_tokens.weight"), -1);
    const pf_stored_tensor *t = &src.tensors[pf_tensor_source_find(&src, "lm_head.weight")];
    assert_true(t->shape[0] == 2048 && t->shape[1] == 128 && t->dtype == PF_DTYPE_F32);
    assert_int_equal(src.files[0].n_metadata, 2);
    assert_string_equal(src.files[0].metadata[1].value, "lm_head.weight");
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&f);
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
        cmocka_unit_test(test_which_cache),    cmocka_unit_test(test_names_in_the_cache),
        cmocka_unit_test(test_a_cached_model), cmocka_unit_test(test_weights_that_are_not_there),
        cmocka_unit_test(test_folders),        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_real_models),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

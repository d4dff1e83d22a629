/* The engine against transformers and peft: for every folder of parity/, logits, the loss of each
 * of 20 optimizer steps, raw gradients of the first and the adapter after the last. There the
 * samples of a step are one padded batch; here they are rows without padding, cut into
 * micro-batches. The script that made the fixtures has checked that each misses its tolerance by a
 * factor of 100 when the feature it is about is switched off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "base/file.h"

#include <unistd.h>

static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

/* ---- cases ----------------------------------------------------------------------------------- */

static double check_logits(fixture *f, bool fuse) {
    const int32_t *ids[16], *source[16];
    int32_t lengths[16], n_source[16];
    for (int i = 0; i < f->n_samples[0]; i++) {
        ids[i] = f->steps[0][i].tokens;
        lengths[i] = f->steps[0][i].n_tokens;
        source[i] = f->steps[0][i].source;
        n_source[i] = f->steps[0][i].n_source;
    }
    pf_batch batch = whole_samples(&f->arena, ids, lengths, f->n_samples[0]);
    add_sources(&f->arena, &batch, source, n_source, f->n_samples[0]);
    const float *want = tensor_of(&f->expected, "logits", batch.n_labels * f->model->vocab);
    double d = logits_differ(f->model, backend, &batch, true, fuse, want);
    if (!(d <= TOL_LOGITS)) fail_msg("%s: a logit differs by %g", f->name, d);
    return d;
}

static void check_evaluation(fixture *f, const how *h) {
    const json_t *losses = json_object_get(f->info, "eval_losses");
    runner r;
    open_runner(&r, f, h, false);
    for (int i = 0; i < f->n_steps; i++) {
        double loss = run_step(&r, f, i, false, NULL);
        check_loss(f, i, loss, json_number_value(json_array_get(losses, (size_t)i)));
    }
    close_runner(&r);
}

/* The adapter written here holds what peft's file holds, in its shapes. */
static void check_written(fixture *f) {
    if (pf_streq(text_of(f->info, "method"), "full")) return;
    peft_error err = {0};
    pf_safetensors theirs, ours;
    const char *dir =
        pf_arena_printf(&f->arena, TEST_BINARY_DIR "/tests/parity-%ld", (long)getpid());
    OK(pf_make_dirs(dir, &err));
    OK(pf_adapter_save(f->adapter, dir, &err));
    OK(pf_safetensors_open(&theirs, fixture_path(f, "adapter/adapter_model.safetensors"), &err));
    OK(pf_safetensors_open(&ours, pf_path_join(&f->arena, dir, "adapter_model.safetensors"), &err));
    for (int i = 0; i < ours.n_tensors; i++) {
        const pf_stored_tensor *a = &ours.tensors[i], *b = pf_safetensors_find(&theirs, a->name);
        if (b == NULL || a->dtype != b->dtype || a->n_dims != b->n_dims ||
            memcmp(a->shape, b->shape, (size_t)a->n_dims * sizeof *a->shape) != 0 ||
            memcmp(a->data, b->data, a->bytes) != 0)
            fail_msg("%s: %s is written otherwise than peft has it", f->name, a->name);
    }
    pf_safetensors_close(&ours);
    pf_safetensors_close(&theirs);
    pf_remove_tree(dir, NULL);
}

/* Every case the usual way. */
static void equals_transformers(void **state) {
    (void)state;
    static const how usual = {"usual", true, PF_SAVE_MINIMAL, SMALL_CUT, PF_SHARE_AUTO};
    static const how whole = {"whole", true, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER};
    pf_arena a;
    pf_strlist names = {0};
    int n = 0;
    pf_arena_init(&a, "names");
    assert_int_equal(pf_list_dir(&names, &a, GOLDEN "/parity", NULL), PEFT_OK);
    for (int i = 0; i < names.n; i++) {
        fixture f;
        char line[160];
        const char *dir = pf_path_join(&a, GOLDEN "/parity", names.items[i]);
        if (pf_starts_with(names.items[i], "real_") || !pf_is_dir(dir)) continue;
        open_fixture(&f, names.items[i], backend);
        pf_adapter_describe(f.adapter, line, sizeof line);
        assert_string_equal(line, text_of(f.info, "trainable"));
        check_written(&f);
        double plain = check_logits(&f, false), fused = check_logits(&f, true);
        if (json_object_get(f.info, "steps") != NULL) {
            check_training(&f, json_object_get(f.info, "whole") != NULL ? &whole : &usual);
        } else {
            check_evaluation(&f, &usual);
            print_message("%-18s logits %.1e, fused %.1e\n", f.name, plain, fused);
        }
        close_fixture(&f);
        n++;
    }
    assert_true(n >= 25);
    pf_arena_release(&a);
}

/* Cuts, recomputation, fusion and shared prefixes change nothing. */
static void any_way_to_run_a_step(void **state) {
    (void)state;
    static const char *const names[] = {"gqa",           "qwen3",
                                        "window",        "modules_to_save",
                                        "full_tied",     "embedding_lora",
                                        "rope_dynamic",  "neox_parallel",
                                        "gpt2_saved",    "bloom",
                                        "falcon_40b",    "opt_350m",
                                        "stablelm_12b",  "gemma2_final_cap",
                                        "gemma2_full",   "gemma3",
                                        "phi3_longrope", "granite",
                                        "mixtral",       "qwen2_moe_full",
                                        "qwen3_moe",     "t5_small",
                                        "t5_full_tied"};
    static const how ways[] = {
        {"whole", true, PF_SAVE_MINIMAL, 0, PF_SHARE_AUTO},
        {"unfused", false, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER},
        {"checkpoint", true, PF_SAVE_CHECKPOINT, SMALL_CUT, PF_SHARE_NEVER},
        {"all saved", false, PF_SAVE_ALL, 0, PF_SHARE_NEVER},
        {"shared", true, PF_SAVE_CHECKPOINT, 0, PF_SHARE_ALWAYS},
    };
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        for (size_t k = 0; k < PF_COUNT(ways); k++) {
            fixture f;
            open_fixture(&f, names[i], backend);
            check_training(&f, &ways[k]);
            close_fixture(&f);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(any_way_to_run_a_step),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Checkpoints: what is saved is loaded; a save that fails or is killed at any operation leaves a
 * good one; every flipped byte and every truncation is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "train/checkpoint.h"
#include "train/early_stopping.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a run with a little of everything, whose state is a function of the step -------------------
 */

typedef struct toy {
    pf_arena arena;
    pf_params ps;
    pf_optimizer opt;
    pf_schedule sched;
    pf_best best;
    pf_early_stopping stop;
    pf_section sections[6];
    char dir[256];
} toy;

static const char config_text[] = "{\"r\": 8}\n";

static peft_status save_adapter(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    toy *t = ctx;
    const char *path;
    PF_TRY(pf_ckpt_put_file(w, "adapter_config.json", config_text, strlen(config_text), err));
    PF_TRY(pf_ckpt_file(w, "adapter_model.safetensors", &path, err));
    pf_stored_tensor tensors[2];
    for (int i = 0; i < 2; i++) {
        const pf_param *p = t->ps.items[i];
        PF_TRY(pf_stored_tensor_set(&tensors[i], p->name, PF_DTYPE_F32, 2,
                                    (int64_t[]){p->rows, p->cols}, p->data, err));
    }
    return pf_safetensors_write(path, tensors, 2, &pf_safetensors_pt, 1, NULL, NULL, err);
}

static peft_status load_adapter(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    toy *t = ctx;
    const char *path;
    PF_TRY(pf_ckpt_find_file(r, "adapter_model.safetensors", &t->arena, &path, err));
    pf_safetensors st;
    PF_TRY(pf_safetensors_open(&st, path, err));
    for (int i = 0; i < 2; i++) {
        pf_param *p = t->ps.items[i];
        const pf_stored_tensor *x = pf_safetensors_find(&st, p->name);
        assert_non_null(x);
        memcpy(p->data, x->data, x->bytes);
    }
    pf_safetensors_close(&st);
    return PEFT_OK;
}

static peft_status save_trainer(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    (void)ctx;
    char text[64];
    int n = snprintf(text, sizeof text, "{\"global_step\": %lld}\n", (long long)pf_ckpt_step(w));
    return pf_ckpt_put_file(w, "trainer_state.json", text, (size_t)n, err);
}

static peft_status load_trainer(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    const char *path;
    return pf_ckpt_find_file(r, "trainer_state.json", &((toy *)ctx)->arena, &path, err);
}

static void toy_begin(toy *t, const char *name) {
    memset(t, 0, sizeof *t);
    pf_arena_init(&t->arena, "test");
    pf_params_init(&t->ps);
    static const char *const names[] = {"layer.lora_A.weight", "layer.lora_B.weight"};
    for (int i = 0; i < 2; i++) {
        pf_param *p;
        pf_params_add(&t->ps, names[i], 2 + i, 3, &p, NULL);
    }
    pf_params_seal(&t->ps, true, NULL);
    pf_optimizer_cfg opt = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    pf_optimizer_init(&t->opt, &t->arena, &t->ps, &opt, NULL);
    pf_cfg_pair smooth = {.key = "smooth", .text = "true"};
    pf_cfg_map args = {&smooth, 1};
    pf_schedule_cfg sched = {.type = "greedy", .lr = 1, .total_steps = 9, .args = &args};
    pf_schedule_init(&t->sched, &t->arena, &sched, NULL);
    pf_best_init(&t->best, "eval_loss", false);
    pf_early_stopping_init(&t->stop, "eval_loss", false, 3, 0);
    t->sections[0] =
        (pf_section){.name = "adapter", .ctx = t, .save = save_adapter, .load = load_adapter};
    t->sections[1] =
        (pf_section){.name = "trainer", .ctx = t, .save = save_trainer, .load = load_trainer};
    t->sections[2] = pf_optimizer_section(&t->opt);
    t->sections[3] = pf_schedule_section(&t->sched);
    t->sections[4] = pf_best_section(&t->best);
    t->sections[5] = pf_early_stopping_section(&t->stop);
    /* in memory where there is such a place: thousands of syncs */
    const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : TEST_BINARY_DIR;
    snprintf(t->dir, sizeof t->dir, "%s/test_checkpoint_%ld_%s", root, (long)getpid(), name);
    pf_remove_tree(t->dir, NULL);
    assert_int_equal(pf_make_dirs(t->dir, NULL), PEFT_OK);
}

static void toy_end(toy *t) {
    pf_remove_tree(t->dir, NULL);
    pf_params_release(&t->ps);
    pf_arena_release(&t->arena);
}

static void set_state(toy *t, int step) {
    for (int64_t i = 0; i < t->ps.block_len; i++) {
        t->ps.data[i] = (pf_real)(step + 0.1 * (double)i);
        t->ps.m[i] = (pf_real)(step * 0.01 + (double)i);
        t->ps.v[i] = (pf_real)(step + 1000);
    }
    t->opt.t = step;
    t->opt.moved = true;
    pf_schedule_start(&t->sched);
    for (int i = 0; i < step; i++) pf_schedule_metric(&t->sched, i == 0 ? INFINITY : i * 0.3);
    pf_best_init(&t->best, "eval_loss", false);
    pf_best_update(&t->best, 10 - step, step);
    t->stop.best = t->best;
    t->stop.waited = step % 2;
}

static void state_is(const toy *t, int step) {
    for (int k = 0; k < t->ps.n; k++) {
        const pf_param *p = t->ps.items[k];
        for (int64_t j = 0; j < p->rows * p->cols; j++) {
            int64_t i = p->offset + j;
            assert_true(t->ps.data[i] == (pf_real)(step + 0.1 * (double)i));
            assert_true(t->ps.m[i] == (pf_real)(step * 0.01 + (double)i));
            assert_true(t->ps.v[i] == (pf_real)(step + 1000));
        }
    }
    assert_int_equal(t->opt.t, step);
    assert_true(t->opt.moved && !t->opt.checked);
    assert_int_equal(t->sched.state.window_n, step);
    assert_true(t->best.any && t->best.value == 10 - step && t->best.step == step);
    assert_int_equal(t->stop.waited, step % 2);
}

static peft_status save_keeping(toy *t, int step, int keep, int best, peft_error *err) {
    set_state(t, step);
    pf_checkpoint_save_cfg cfg = {.run_dir = t->dir,
                                  .step = step,
                                  .sections = t->sections,
                                  .n_sections = 6,
                                  .params = &t->ps,
                                  .save_total_limit = keep,
                                  .best_step = best};
    return pf_checkpoint_save(&cfg, err);
}

static peft_status save(toy *t, int step, peft_error *err) {
    return save_keeping(t, step, 0, -1, err);
}

/* The newest good checkpoint, loaded and compared; its step, or -1. */
static int load_newest(toy *t, pf_strlist *skipped) {
    pf_checkpoint_info info;
    peft_error err = {0};
    if (pf_checkpoint_newest(t->dir, &t->arena, &info, skipped, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    if (info.path == NULL) return -1;
    set_state(t, 77); /* something else */
    if (pf_checkpoint_load(info.path, t->sections, 6, &err) != PEFT_OK) fail_msg("%s", err.message);
    state_is(t, (int)info.step);
    return (int)info.step;
}

static int count_entries(toy *t, bool hidden) {
    pf_strlist names;
    assert_int_equal(pf_list_dir(&names, &t->arena, t->dir, NULL), PEFT_OK);
    int n = 0;
    for (int i = 0; i < names.n; i++) n += (names.items[i][0] == '.') == hidden;
    return n;
}

/* ---- tests --------------------------------------------------------------------------------------
 */

static void what_is_saved_is_loaded(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "roundtrip");
    assert_int_equal(load_newest(&t, NULL), -1);
    for (int step = 1; step <= 3; step++) {
        peft_error err = {0};
        if (save(&t, step, &err) != PEFT_OK) fail_msg("%s", err.message);
        assert_int_equal(load_newest(&t, NULL), step);
    }
    char path[400];
    static const char *const names[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "trainer_state.json", "state.safetensors", "manifest.json"};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/checkpoint-3/%s", t.dir, names[i]);
        assert_true(pf_path_exists(path));
    }
    assert_int_equal(count_entries(&t, true), 0);
    /* a slash at the end is the same folder */
    snprintf(path, sizeof path, "%s/checkpoint-2/", t.dir);
    assert_int_equal(pf_checkpoint_load(path, t.sections, 6, NULL), PEFT_OK);
    state_is(&t, 2);
    /* the same state gives the same bytes */
    pf_buf a = {0}, b = {0};
    snprintf(path, sizeof path, "%s/checkpoint-3/manifest.json", t.dir);
    assert_int_equal(pf_read_file(&a, path, 1 << 20, NULL), PEFT_OK);
    assert_int_equal(save(&t, 3, NULL), PEFT_OK);
    assert_int_equal(pf_read_file(&b, path, 1 << 20, NULL), PEFT_OK);
    assert_string_equal(pf_buf_str(&a), pf_buf_str(&b));
    pf_buf_free(&a);
    pf_buf_free(&b);
    toy_end(&t);
}

/* Before each fault: checkpoint-1 alone, or 1 and an earlier attempt at 2. */
static void prepare(toy *t, bool again) {
    pf_remove_tree(t->dir, NULL);
    assert_int_equal(pf_make_dirs(t->dir, NULL), PEFT_OK);
    assert_int_equal(save(t, 1, NULL), PEFT_OK);
    if (again) assert_int_equal(save(t, 2, NULL), PEFT_OK);
}

static void check_after_fault(toy *t, bool saved, bool again) {
    assert_int_equal(pf_checkpoint_sweep(t->dir, NULL), PEFT_OK);
    assert_int_equal(count_entries(t, true), 0);
    pf_strlist skipped = {0};
    int step = load_newest(t, &skipped);
    assert_int_equal(skipped.n, 0); /* never a broken one under a final name */
    if (saved || again)
        assert_int_equal(step, 2);
    else
        assert_true(step == 1 || step == 2);
    assert_int_equal(save_keeping(t, 2, 1, -1, NULL), PEFT_OK);
    assert_int_equal(load_newest(t, NULL), 2);
}

static void quiet(void *ctx, pf_log_level level, const char *text) {
    (void)level;
    (void)text;
    ++*(int *)ctx;
}

static void a_fault_at_each_operation(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "fault");
    int messages = 0;
    pf_log_set_sink(quiet, &messages);
    static const int errnos[] = {EIO, ENOSPC};
    for (int again = 0; again < 2; again++) {
        prepare(&t, again);
        int64_t before = pf_file_ops();
        assert_int_equal(save_keeping(&t, 2, 1, -1, NULL), PEFT_OK);
        int64_t ops = pf_file_ops() - before;
        assert_true(ops > 15);
        for (int kind = 0; kind < 4; kind++) {
            for (int64_t n = 1; n <= ops; n++) {
                prepare(&t, again);
                peft_error err = {0};
                pf_file_fault(n, errnos[kind % 2], kind >= 2);
                peft_status status = save_keeping(&t, 2, 1, -1, &err);
                pf_file_fault(0, 0, false);
                if (status != PEFT_OK) {
                    assert_int_equal(status, PEFT_E_IO);
                    assert_non_null(strstr(err.message, t.dir));
                    assert_non_null(strstr(err.message, strerror(errnos[kind % 2])));
                }
                check_after_fault(&t, status == PEFT_OK, again);
            }
        }
    }
    pf_log_set_sink(NULL, NULL);
    assert_true(messages > 0); /* a rotation that failed is a warning */
    toy_end(&t);
}

static void killed_at_each_operation(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "kill");
    for (int again = 0; again < 2; again++) {
        int64_t n = 1;
        for (;; n++) {
            prepare(&t, again);
            fflush(NULL);
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                pf_file_fault(n, -1, false);
                _exit(save_keeping(&t, 2, 1, -1, NULL) == PEFT_OK ? 0 : 1);
            }
            int how = 0;
            assert_int_equal(waitpid(child, &how, 0), child);
            bool finished = WIFEXITED(how) && WEXITSTATUS(how) == 0;
            assert_true(finished || (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL));
            check_after_fault(&t, finished, again);
            if (finished) break;
        }
        assert_true(n > 15);
    }
    toy_end(&t);
}

static void write_bytes(const char *path, const char *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void refused_and_named(toy *t, const char *file) {
    pf_arena_mark mark = pf_arena_get_mark(&t->arena);
    pf_checkpoint_info info;
    pf_strlist skipped = {0};
    assert_int_equal(pf_checkpoint_newest(t->dir, &t->arena, &info, &skipped, NULL), PEFT_OK);
    assert_int_equal(info.step, 1);
    assert_int_equal(skipped.n, 1);
    assert_non_null(strstr(skipped.items[0], "checkpoint-2"));
    if (strstr(skipped.items[0], file) == NULL) fail_msg("%s: %s", file, skipped.items[0]);
    pf_arena_rewind(&t->arena, mark);
}

static void every_flip_and_truncation_is_refused(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "flip");
    prepare(&t, true);
    char dir[300];
    snprintf(dir, sizeof dir, "%s/checkpoint-2", t.dir);
    pf_strlist names;
    assert_int_equal(pf_list_dir(&names, &t.arena, dir, NULL), PEFT_OK);
    assert_int_equal(names.n, 5);
    for (int i = 0; i < names.n; i++) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, names.items[i]);
        pf_buf whole = {0};
        assert_int_equal(pf_read_file(&whole, path, 1 << 20, NULL), PEFT_OK);
        for (size_t at = 0; at < whole.len; at++) {
            whole.data[at] ^= (char)(1 << at % 8);
            write_bytes(path, whole.data, whole.len);
            refused_and_named(&t, names.items[i]);
            whole.data[at] ^= (char)(1 << at % 8);
        }
        for (size_t n = 0; n < whole.len; n++) {
            write_bytes(path, whole.data, n);
            refused_and_named(&t, names.items[i]);
        }
        pf_buf_addc(&whole, '\n');
        write_bytes(path, whole.data, whole.len);
        refused_and_named(&t, names.items[i]);
        unlink(path);
        refused_and_named(&t, names.items[i]);
        write_bytes(path, whole.data, whole.len - 1);
        pf_buf_free(&whole);
    }
    assert_int_equal(load_newest(&t, NULL), 2);
    toy_end(&t);
}

static void messages_say_what_is_wrong(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "messages");
    prepare(&t, true);
    char dir[300], path[400], want[800];
    peft_error err;
    pf_checkpoint_info info;
    snprintf(dir, sizeof dir, "%s/checkpoint-2", t.dir);

    snprintf(path, sizeof path, "%s/trainer_state.json", dir);
    write_bytes(path, "{", 1);
    assert_int_equal(pf_checkpoint_verify(dir, &t.arena, &info, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want, "%s: trainer_state.json has 1 bytes, 19 were written", dir);
    assert_string_equal(err.message, want);

    write_bytes(path, "{\"global_step\": 3}\n", 19);
    assert_int_equal(pf_checkpoint_verify(dir, &t.arena, &info, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want,
             "%s: trainer_state.json is damaged: its sha256 is not what was written", dir);
    assert_string_equal(err.message, want);

    unlink(path);
    assert_int_equal(pf_checkpoint_verify(dir, &t.arena, &info, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want, "%s: trainer_state.json is missing", dir);
    assert_string_equal(err.message, want);

    snprintf(path, sizeof path, "%s/manifest.json", dir);
    unlink(path);
    assert_int_equal(pf_checkpoint_verify(dir, &t.arena, &info, &err), PEFT_E_MISSING);
    snprintf(want, sizeof want,
             "%s has no manifest.json: it is not complete, or another program wrote it", dir);
    assert_string_equal(err.message, want);

    snprintf(path, sizeof path, "%s/checkpoint-5", t.dir); /* a folder that was renamed by hand */
    snprintf(dir, sizeof dir, "%s/checkpoint-1", t.dir);
    assert_int_equal(rename(dir, path), 0);
    assert_int_equal(pf_checkpoint_verify(path, &t.arena, &info, &err), PEFT_E_FORMAT);
    snprintf(want, sizeof want, "%s holds step 1, not the one of its name", path);
    assert_string_equal(err.message, want);
    toy_end(&t);
}

static void rotation_keeps_newest_best_and_folders(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "rotate");
    for (int step = 1; step <= 5; step++)
        assert_int_equal(save_keeping(&t, step, 2, 1, NULL), PEFT_OK);
    int64_t *steps;
    int n;
    assert_int_equal(pf_checkpoint_list(t.dir, &t.arena, &steps, &n, NULL), PEFT_OK);
    assert_int_equal(n, 2); /* the best and the newest */
    assert_true(steps[0] == 1 && steps[1] == 5);
    char path[400];
    snprintf(path, sizeof path, "%s/checkpoint-1/merged", t.dir);
    assert_int_equal(pf_make_dirs(path, NULL), PEFT_OK);
    for (int step = 6; step <= 8; step++)
        assert_int_equal(save_keeping(&t, step, 1, -1, NULL), PEFT_OK);
    assert_int_equal(pf_checkpoint_list(t.dir, &t.arena, &steps, &n, NULL), PEFT_OK);
    assert_int_equal(n, 2); /* somebody merged a model into checkpoint-1 */
    assert_true(steps[0] == 1 && steps[1] == 8);
    /* a run that went back: the one just written stays although it is not the newest by number */
    assert_int_equal(save_keeping(&t, 3, 1, -1, NULL), PEFT_OK);
    assert_int_equal(pf_checkpoint_list(t.dir, &t.arena, &steps, &n, NULL), PEFT_OK);
    assert_true(n == 2 && steps[0] == 1 && steps[1] == 3);
    assert_int_equal(count_entries(&t, true), 0);
    toy_end(&t);
}

static void going_back_supersedes_later_ones(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "supersede");
    int messages = 0;
    pf_log_set_sink(quiet, &messages);
    for (int round = 0; round < 2; round++) {
        for (int step = 1; step <= 3; step++) assert_int_equal(save(&t, step, NULL), PEFT_OK);
        assert_int_equal(pf_checkpoint_supersede(t.dir, 1, NULL), PEFT_OK);
        assert_int_equal(load_newest(&t, NULL), 1);
    }
    pf_log_set_sink(NULL, NULL);
    assert_int_equal(messages, 4);
    assert_int_equal(count_entries(&t, false), 5);
    toy_end(&t);
}

static void nonfinite_state_is_not_saved(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "nan");
    prepare(&t, false);
    for (int kind = 0; kind < 3; kind++) {
        set_state(&t, 2);
        pf_real *block = kind == 0 ? t.ps.data : kind == 1 ? t.ps.m : t.ps.v;
        block[t.ps.items[1]->offset + 4] = kind == 2 ? INFINITY : NAN;
        pf_checkpoint_save_cfg cfg = {.run_dir = t.dir,
                                      .step = 2,
                                      .sections = t.sections,
                                      .n_sections = 6,
                                      .params = &t.ps,
                                      .best_step = -1};
        peft_error err = {0};
        assert_int_equal(pf_checkpoint_save(&cfg, &err), PEFT_E_DIVERGED);
        assert_string_equal(
            err.message,
            kind == 0 ? "checkpoint-2 is not written: the weight layer.lora_B.weight[1,1] is NaN"
            : kind == 1
                ? "checkpoint-2 is not written: element 4 of "
                  "optimizer.exp_avg.layer.lora_B.weight is not finite. The earlier checkpoints "
                  "are as they were"
                : "checkpoint-2 is not written: element 4 of "
                  "optimizer.exp_avg_sq.layer.lora_B.weight is not finite. The earlier "
                  "checkpoints are as they were");
        assert_int_equal(load_newest(&t, NULL), 1);
        assert_int_equal(count_entries(&t, true), 0);
    }
    toy_end(&t);
}

static void another_run_does_not_load(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "other");
    prepare(&t, false);
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoint-1", t.dir);
    peft_error err = {0};

    pf_section extra = t.sections[2];
    extra.name = "sampler";
    assert_int_equal(pf_checkpoint_load(path, &extra, 1, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message,
                           "checkpoint-1 has no sampler: it was written by "
                           "peft-toolkit " PEFT_VERSION " with another configuration"));
    extra.optional = true;
    assert_int_equal(pf_checkpoint_load(path, &extra, 1, &err), PEFT_OK);

    t.best.metric = "eval_f1";
    assert_int_equal(pf_checkpoint_load(path, &t.sections[4], 1, &err), PEFT_E_CONFIG);
    assert_string_equal(err.message, "the checkpoint kept the best of eval_loss; this run asks for "
                                     "the best of eval_f1. Resume with the metric of the start");

    t.ps.items[1]->rows = 4; /* another rank */
    assert_int_equal(pf_checkpoint_load(path, &t.sections[2], 1, &err), PEFT_E_SHAPE);
    assert_non_null(strstr(err.message, "optimizer.exp_avg.layer.lora_B.weight is F32 [3,3]; this "
                                        "run needs F32 [4,3]"));
    t.ps.items[1]->rows = 3;
    t.ps.items[1]->name = "other.weight";
    assert_int_equal(pf_checkpoint_load(path, &t.sections[2], 1, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "has no optimizer.exp_avg.other.weight"));

    pf_schedule_cfg linear = {.type = "linear", .lr = 1, .total_steps = 9};
    pf_schedule_init(&t.sched, &t.arena, &linear, NULL);
    assert_int_equal(pf_checkpoint_load(path, &t.sections[3], 1, &err), PEFT_E_CONFIG);
    assert_string_equal(err.message, "the checkpoint was written with training.lr_scheduler_type "
                                     "greedy, this run has linear; resume with the one of the "
                                     "start");
    toy_end(&t);
}

static void sweep_removes_only_its_own(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "sweep");
    prepare(&t, false);
    static const char *const stay[] = {".gitignore", "notes.txt", "checkpoint-x", ".tmp-mine",
                                       ".a.tmp-1-x"};
    static const char *const go[] = {".tmp-checkpoint-9-0123456789abcdef",
                                     ".tmp-delete-checkpoint-3-00", ".metrics.jsonl.tmp-123-4"};
    char path[400];
    for (size_t i = 0; i < PF_COUNT(stay) + PF_COUNT(go); i++) {
        snprintf(path, sizeof path, "%s/%s", t.dir,
                 i < PF_COUNT(stay) ? stay[i] : go[i - PF_COUNT(stay)]);
        assert_int_equal(pf_make_dirs(path, NULL), PEFT_OK);
    }
    assert_int_equal(pf_checkpoint_sweep(t.dir, NULL), PEFT_OK);
    assert_int_equal(count_entries(&t, true) + count_entries(&t, false), (int)PF_COUNT(stay) + 1);
    assert_int_equal(pf_checkpoint_sweep("/nonexistent/folder", NULL), PEFT_OK);
    toy_end(&t);
}

static void every_failed_allocation_leaves_a_good_one(void **state) {
    (void)state;
    toy t;
    toy_begin(&t, "nomem");
    prepare(&t, false);
    for (int n = 1;; n++) {
        set_state(&t, 2);
        pf_checkpoint_save_cfg cfg = {
            .run_dir = t.dir, .step = 2, .sections = t.sections, .n_sections = 6, .best_step = -1};
        pf_alloc_fail_at(n);
        peft_status status = pf_checkpoint_save(&cfg, NULL);
        pf_alloc_fail_at(0);
        assert_int_equal(load_newest(&t, NULL), status == PEFT_OK ? 2 : 1);
        if (status == PEFT_OK) {
            assert_true(n > 10);
            break;
        }
        assert_int_equal(status, PEFT_E_NOMEM);
        assert_int_equal(count_entries(&t, true), 0);
    }
    char path[300];
    snprintf(path, sizeof path, "%s/checkpoint-2", t.dir);
    for (int n = 1;; n++) {
        pf_alloc_fail_at(n);
        peft_status status = pf_checkpoint_load(path, t.sections, 6, NULL);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    toy_end(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_is_loaded),
        cmocka_unit_test(a_fault_at_each_operation),
        cmocka_unit_test(killed_at_each_operation),
        cmocka_unit_test(every_flip_and_truncation_is_refused),
        cmocka_unit_test(messages_say_what_is_wrong),
        cmocka_unit_test(rotation_keeps_newest_best_and_folders),
        cmocka_unit_test(going_back_supersedes_later_ones),
        cmocka_unit_test(nonfinite_state_is_not_saved),
        cmocka_unit_test(another_run_does_not_load),
        cmocka_unit_test(sweep_removes_only_its_own),
        cmocka_unit_test(every_failed_allocation_leaves_a_good_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

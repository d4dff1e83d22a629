/* run_dir.c - see run_dir.h. */
#include "train/run_dir.h"

#include "base/log.h"
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CONFIG ((size_t)16 << 20)

/* What else a run leaves, and what says that there is one. */
static const char *const traces[] = {"environment.json", "requirements.txt", "metrics.csv",
                                     "train.log",        "report.html",      "README.md",
                                     "prompts.jsonl",    "timing.json"};
static const char *const signs[] = {"finished",
                                    "trainer_state.json",
                                    "metrics.jsonl",
                                    "adapter_model.safetensors",
                                    "adapter.safetensors",
                                    "adapter_config.json",
                                    "model_adapter_fusion.safetensors",
                                    "adapter_fusion_config.json",
                                    "adapters.json",
                                    "config.resolved.json"};

char *pf_run_dir_file(pf_run_dir *d, const char *name) {
    return pf_path_join(&d->arena, d->path, name);
}

const char *pf_run_dir_holds(const char *path, pf_arena *a) {
    int64_t *steps;
    int n;
    if (pf_checkpoint_list(path, a, &steps, &n, NULL) == PEFT_OK && n > 0)
        return pf_arena_printf(a, "checkpoint-%lld", (long long)steps[n - 1]);
    for (size_t i = 0; i < PF_COUNT(signs); i++) {
        const char *file = pf_path_join(a, path, signs[i]);
        if (file != NULL && pf_path_exists(file)) return signs[i];
    }
    return NULL;
}

/* ---- overwriting --------------------------------------------------------------------------------
 */

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return a != NULL && b != NULL && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

static peft_status remove_names(pf_run_dir *d, const char *const *names, size_t n,
                                peft_error *err) {
    for (size_t i = 0; i < n; i++) {
        const char *file = pf_run_dir_file(d, names[i]);
        PF_CHECK_ALLOC(file, err);
        PF_TRY(pf_remove_file(file, err));
    }
    return PEFT_OK;
}

/* checkpoint-<n> and superseded-checkpoint-<n>[-<k>] */
static bool is_checkpoint(const char *name) {
    if (pf_starts_with(name, "superseded-")) name += strlen("superseded-");
    if (!pf_starts_with(name, "checkpoint-")) return false;
    name += strlen("checkpoint-");
    return name[0] != '\0' && name[strspn(name, "0123456789-")] == '\0';
}

/* The signs go last: a folder that is emptied half way still counts as one that holds a run. */
static peft_status remove_run(pf_run_dir *d, peft_error *err) {
    pf_strlist names;
    PF_TRY(pf_checkpoint_sweep(d->path, err));
    PF_TRY(pf_list_dir(&names, &d->arena, d->path, err));
    for (int i = 0; i < names.n; i++) {
        if (!is_checkpoint(names.items[i])) continue;
        const char *dir = pf_run_dir_file(d, names.items[i]);
        PF_CHECK_ALLOC(dir, err);
        PF_TRY(pf_remove_tree(dir, err));
    }
    PF_TRY(remove_names(d, traces, PF_COUNT(traces), err));
    return remove_names(d, signs, PF_COUNT(signs), err);
}

/* ---- opening ------------------------------------------------------------------------------------
 */

static bool file_says(const char *path, const pf_buf *text) {
    pf_buf old = {0};
    bool same = pf_read_file(&old, path, MAX_CONFIG, NULL) == PEFT_OK && old.len == text->len &&
                memcmp(pf_buf_str(&old), pf_buf_str(text), old.len) == 0;
    pf_buf_free(&old);
    return same;
}

static peft_status copy_config(pf_run_dir *d, const char *config_path, bool held_run,
                               peft_error *err) {
    const char *to = pf_run_dir_file(d, "config.yaml");
    PF_CHECK_ALLOC(to, err);
    if (same_file(config_path, to)) return PEFT_OK;
    pf_buf text = {0};
    peft_status status = pf_read_file(&text, config_path, MAX_CONFIG, err);
    if (status == PEFT_OK && (!pf_path_exists(to) || !file_says(to, &text))) {
        if (pf_path_exists(to) && !held_run) {
            status = PF_FAIL(err, PEFT_E_CREATE,
                             "%s is there already and is not %s; choose another "
                             "training.output_dir",
                             to, config_path);
        } else {
            status = pf_write_file(to, pf_buf_str(&text), text.len, err);
        }
    }
    pf_buf_free(&text);
    return status;
}

static peft_status open_log(pf_run_dir *d, bool fresh, peft_error *err) {
    const char *path = pf_run_dir_file(d, "train.log");
    PF_CHECK_ALLOC(path, err);
    d->log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0666);
    if (d->log_fd < 0) return pf_fail_errno(err, PEFT_E_CREATE, errno, "cannot create %s", path);
    pf_log_set_file(d->log_fd);
    return PEFT_OK;
}

static peft_status take_lock(pf_run_dir *d, peft_error *err) {
    peft_status status = pf_make_dirs(d->path, err);
    if (status != PEFT_OK) {
        pf_fail_prefix(err, status, "training.output_dir");
        return status;
    }
    const char *lock = pf_run_dir_file(d, ".lock");
    PF_CHECK_ALLOC(lock, err);
    status = pf_lock_file(&d->lock, lock, err);
    if (status == PEFT_E_BUSY)
        pf_fail_prefix(err, status, "%s is being trained right now", d->path);
    else if (status != PEFT_OK)
        pf_fail_prefix(err, status, "training.output_dir");
    return status;
}

static peft_status open_dir(pf_run_dir *d, const pf_run_dir_options *opt, peft_error *err) {
    d->path = pf_arena_strdup(&d->arena, opt->path);
    PF_CHECK_ALLOC(d->path, err);
    PF_TRY(take_lock(d, err));
    const char *held = pf_run_dir_holds(d->path, &d->arena);
    if (held != NULL && !opt->overwrite && !opt->resume) {
        return PF_FAIL(err, PEFT_E_CREATE,
                       "%s holds a run already (%s); continue it with --resume, replace it with "
                       "--overwrite, or choose another training.output_dir",
                       d->path, held);
    }
    const char *mark = pf_run_dir_file(d, "finished");
    PF_CHECK_ALLOC(mark, err);
    if (opt->resume && !opt->overwrite && pf_path_exists(mark)) {
        d->finished = true;
        return PEFT_OK;
    }
    if (held != NULL && opt->overwrite) PF_TRY(remove_run(d, err));
    PF_TRY(pf_checkpoint_sweep(d->path, err));
    if (opt->config_path != NULL) PF_TRY(copy_config(d, opt->config_path, held != NULL, err));
    PF_TRY(pf_run_dir_put(d, "config.resolved.json", opt->resolved_json, strlen(opt->resolved_json),
                          err));
    return open_log(d, held == NULL || opt->overwrite, err);
}

peft_status pf_run_dir_open(pf_run_dir *d, const pf_run_dir_options *opt, peft_error *err) {
    *d = (pf_run_dir){.lock = {.fd = -1}, .log_fd = -1};
    pf_arena_init(&d->arena, "run folder");
    peft_status status = open_dir(d, opt, err);
    if (status != PEFT_OK) pf_run_dir_close(d);
    return status;
}

void pf_run_dir_close(pf_run_dir *d) {
    if (d == NULL || d->path == NULL) return;
    if (d->log_fd >= 0) {
        pf_log_set_file(-1);
        close(d->log_fd);
    }
    pf_unlock_file(&d->lock);
    pf_arena_release(&d->arena);
    *d = (pf_run_dir){.lock = {.fd = -1}, .log_fd = -1};
}

/* ---- files --------------------------------------------------------------------------------------
 */

peft_status pf_run_dir_put(pf_run_dir *d, const char *name, const void *data, size_t n,
                           peft_error *err) {
    const char *file = pf_run_dir_file(d, name);
    PF_CHECK_ALLOC(file, err);
    return pf_write_file(file, data, n, err);
}

peft_status pf_run_dir_mark_finished(pf_run_dir *d, peft_error *err) {
    return pf_run_dir_put(d, "finished", "", 0, err);
}

peft_status pf_run_dir_environment(pf_run_dir *d, const pf_environment_cfg *cfg, peft_error *err) {
    pf_buf text = {0};
    peft_status status = pf_environment_json(&text, cfg, err);
    if (status == PEFT_OK) status = pf_run_dir_put(d, "environment.json", text.data, text.len, err);
    pf_buf_clear(&text);
    if (status == PEFT_OK) status = pf_requirements_text(&text, err);
    if (status == PEFT_OK) status = pf_run_dir_put(d, "requirements.txt", text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}

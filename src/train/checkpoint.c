/* checkpoint.c - writing checkpoints, and removing old ones; checkpoint_read.c reads them. See
 * checkpoint.h for the protocol. */
#include "train/checkpoint.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/safetensors_write.h"
#include "train/checkpoint_manifest.h"
#include "train/optimizer.h"

#include <math.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

struct pf_ckpt_writer {
    pf_arena arena;
    int64_t step;
    const char *name;                /* checkpoint-<step> */
    const char *tmp_dir, *final_dir; /* while writing, afterwards */
    const pf_section *section;       /* that is being saved */
    pf_stored_tensor *tensors;
    int n_tensors, cap;
    pf_strlist files;
};

/* ---- what sections call ------------------------------------------------------------------------
 */

int64_t pf_ckpt_step(const pf_ckpt_writer *w) {
    return w->step;
}

const char *pf_ckpt_dir(const pf_ckpt_writer *w) {
    return w->tmp_dir;
}

const char *pf_ckpt_final_dir(const pf_ckpt_writer *w) {
    return w->final_dir;
}

static int64_t first_nonfinite(pf_dtype dtype, const void *data, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (dtype == PF_DTYPE_F32 && !isfinite(((const float *)data)[i])) return i;
        if (dtype == PF_DTYPE_F64 && !isfinite(((const double *)data)[i])) return i;
    }
    return -1;
}

static peft_status add_tensor(pf_ckpt_writer *w, const char *key, pf_dtype dtype, int n_dims,
                              const int64_t *shape, const void *data, peft_error *err) {
    if (w->n_tensors == w->cap) {
        int cap = w->cap == 0 ? 64 : 2 * w->cap;
        pf_stored_tensor *grown = PF_NEW_ARRAY(&w->arena, pf_stored_tensor, cap);
        PF_CHECK_ALLOC(grown, err);
        if (w->n_tensors > 0) memcpy(grown, w->tensors, (size_t)w->n_tensors * sizeof *grown);
        w->tensors = grown;
        w->cap = cap;
    }
    const char *name = pf_arena_printf(&w->arena, "%s.%s", w->section->name, key);
    PF_CHECK_ALLOC(name, err);
    return pf_stored_tensor_set(&w->tensors[w->n_tensors++], name, dtype, n_dims, shape, data, err);
}

static peft_status put_copy(pf_ckpt_writer *w, const char *key, pf_dtype dtype, int n_dims,
                            const int64_t *shape, const void *data, size_t bytes, peft_error *err) {
    void *copy = pf_arena_alloc(&w->arena, bytes);
    PF_CHECK_ALLOC(copy, err);
    if (bytes > 0) memcpy(copy, data, bytes);
    return add_tensor(w, key, dtype, n_dims, shape, copy, err);
}

peft_status pf_ckpt_put_int(pf_ckpt_writer *w, const char *key, int64_t v, peft_error *err) {
    return put_copy(w, key, PF_DTYPE_I64, 0, NULL, &v, sizeof v, err);
}

peft_status pf_ckpt_put_real(pf_ckpt_writer *w, const char *key, double v, peft_error *err) {
    return put_copy(w, key, PF_DTYPE_F64, 0, NULL, &v, sizeof v, err);
}

peft_status pf_ckpt_put_text(pf_ckpt_writer *w, const char *key, const char *text,
                             peft_error *err) {
    if (text == NULL) return PEFT_OK;
    size_t n = strlen(text);
    int64_t shape[1] = {(int64_t)n};
    return put_copy(w, key, PF_DTYPE_U8, 1, shape, text, n, err);
}

peft_status pf_ckpt_put_tensor(pf_ckpt_writer *w, const char *key, pf_dtype dtype, int n_dims,
                               const int64_t *shape, const void *data, peft_error *err) {
    PF_TRY(add_tensor(w, key, dtype, n_dims, shape, data, err));
    const pf_stored_tensor *t = &w->tensors[w->n_tensors - 1];
    int64_t bad = first_nonfinite(dtype, data, pf_stored_tensor_count(t));
    if (bad < 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_DIVERGED,
                   "%s is not written: element %lld of %s is not finite. The earlier checkpoints "
                   "are as they were",
                   w->name, (long long)bad, t->name);
}

peft_status pf_ckpt_put_real_block(pf_ckpt_writer *w, const char *key, int64_t rows, int64_t cols,
                                   const pf_real *data, peft_error *err) {
    int64_t shape[2] = {rows, cols};
    return pf_ckpt_put_tensor(w, key, sizeof(pf_real) == 4 ? PF_DTYPE_F32 : PF_DTYPE_F64, 2, shape,
                              data, err);
}

peft_status pf_ckpt_file(pf_ckpt_writer *w, const char *name, const char **path, peft_error *err) {
    PF_ASSERT(pf_manifest_name_ok(name) && !pf_strlist_has(&w->files, name));
    PF_TRY(pf_strlist_add(&w->files, &w->arena, name, err));
    *path = pf_path_join(&w->arena, w->tmp_dir, name);
    PF_CHECK_ALLOC(*path, err);
    return PEFT_OK;
}

peft_status pf_ckpt_put_file(pf_ckpt_writer *w, const char *name, const void *data, size_t n,
                             peft_error *err) {
    const char *path;
    PF_TRY(pf_ckpt_file(w, name, &path, err));
    return pf_write_file(path, data, n, err);
}

/* ---- saving ------------------------------------------------------------------------------------
 */

static peft_status hidden_path(pf_arena *a, const char *run_dir, const char *kind, const char *name,
                               char **out, peft_error *err) {
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
        random = (uint64_t)getpid();
    const char *base =
        pf_arena_printf(a, ".tmp-%s%s-%016llx", kind, name, (unsigned long long)random);
    PF_CHECK_ALLOC(base, err);
    *out = pf_path_join(a, run_dir, base);
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

static peft_status write_manifest(pf_ckpt_writer *w, const pf_checkpoint_save_cfg *cfg,
                                  peft_error *err) {
    pf_manifest m = {.step = cfg->step, .program = "peft-toolkit " PEFT_VERSION};
    for (int i = 0; i < cfg->n_sections; i++)
        PF_TRY(pf_strlist_add(&m.sections, &w->arena, cfg->sections[i].name, err));
    m.files = PF_NEW_ARRAY(&w->arena, pf_manifest_file, w->files.n);
    PF_CHECK_ALLOC(m.files, err);
    for (int i = 0; i < w->files.n; i++) {
        pf_manifest_file *f = &m.files[m.n_files++];
        f->name = w->files.items[i];
        const char *path = pf_path_join(&w->arena, w->tmp_dir, f->name);
        PF_CHECK_ALLOC(path, err);
        PF_TRY(pf_file_size(path, &f->size, err));
        PF_TRY(pf_sha256_file(path, f->sha256, err));
    }
    const char *path = pf_path_join(&w->arena, w->tmp_dir, PF_MANIFEST_NAME);
    PF_CHECK_ALLOC(path, err);
    pf_buf text = {0};
    peft_status status = pf_manifest_text(&text, &m, err);
    if (status == PEFT_OK) status = pf_write_file(path, text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}

static peft_status write_all(pf_ckpt_writer *w, const pf_checkpoint_save_cfg *cfg,
                             peft_error *err) {
    PF_TRY(pf_make_dirs(w->tmp_dir, err));
    for (int i = 0; i < cfg->n_sections; i++) {
        w->section = &cfg->sections[i];
        peft_status status = w->section->save(w->section->ctx, w, err);
        if (status != PEFT_OK) return status;
    }
    const char *path;
    PF_TRY(pf_ckpt_file(w, PF_STATE_NAME, &path, err));
    PF_TRY(pf_safetensors_write(path, w->tensors, w->n_tensors, &pf_safetensors_pt, 1, NULL, NULL,
                                err));
    return write_manifest(w, cfg, err);
}

/* The one moment at which the checkpoint comes to be. One of the same step steps aside first, and
 * comes back (here, or by pf_checkpoint_sweep) should the new one not arrive. */
static peft_status put_in_place(pf_ckpt_writer *w, const char *run_dir, peft_error *err) {
    char *old = NULL;
    if (pf_path_exists(w->final_dir)) {
        PF_TRY(hidden_path(&w->arena, run_dir, "old-", w->name, &old, err));
        PF_TRY(pf_rename(w->final_dir, old, err));
    }
    peft_status status = pf_rename(w->tmp_dir, w->final_dir, err);
    if (status != PEFT_OK) {
        if (old != NULL) pf_rename(old, w->final_dir, NULL);
        return status;
    }
    PF_TRY(pf_sync_dir(run_dir, err));
    peft_error why;
    if (old != NULL && pf_remove_tree(old, &why) != PEFT_OK) PF_WARN("%s", why.message);
    return PEFT_OK;
}

/* ---- removing ----------------------------------------------------------------------------------
 */

/* A folder of the checkpoint's own: a part of its adapter. */
static bool is_part(pf_arena *a, const char *dir) {
    const char *config = pf_path_join(a, dir, "adapter_config.json");
    return config != NULL && pf_path_exists(config);
}

static bool holds_folder(pf_arena *a, const char *dir) {
    pf_strlist names;
    if (pf_list_dir(&names, a, dir, NULL) != PEFT_OK) return true;
    for (int i = 0; i < names.n; i++) {
        const char *path = pf_path_join(a, dir, names.items[i]);
        if (path == NULL || (pf_is_dir(path) && !is_part(a, path))) return true;
    }
    return false;
}

/* Out of sight by one rename, then gone: nobody meets half a checkpoint. */
static peft_status remove_checkpoint(pf_arena *a, const char *run_dir, const char *dir,
                                     const char *name, peft_error *err) {
    char *hidden;
    PF_TRY(hidden_path(a, run_dir, "delete-", name, &hidden, err));
    PF_TRY(pf_rename(dir, hidden, err));
    return pf_remove_tree(hidden, err);
}

static peft_status rotate(pf_arena *a, const pf_checkpoint_save_cfg *cfg, const char *just_written,
                          peft_error *err) {
    int64_t *steps;
    int n;
    PF_TRY(pf_checkpoint_list(cfg->run_dir, a, &steps, &n, err));
    if (n <= cfg->save_total_limit) return PEFT_OK;
    pf_checkpoint_info info;
    PF_TRY(pf_checkpoint_verify(just_written, a, &info, err));
    int keep = n;
    for (int i = 0; i < n && keep > cfg->save_total_limit; i++) {
        if (steps[i] == cfg->step || steps[i] == cfg->best_step) continue;
        const char *name = pf_arena_printf(a, "checkpoint-%lld", (long long)steps[i]);
        PF_CHECK_ALLOC(name, err);
        const char *dir = pf_path_join(a, cfg->run_dir, name);
        PF_CHECK_ALLOC(dir, err);
        if (holds_folder(a, dir)) {
            PF_DEBUG("%s stays, it holds a folder", dir);
            continue;
        }
        PF_TRY(remove_checkpoint(a, cfg->run_dir, dir, name, err));
        keep--;
    }
    return PEFT_OK;
}

peft_status pf_checkpoint_save(const pf_checkpoint_save_cfg *cfg, peft_error *err) {
    pf_ckpt_writer w = {.step = cfg->step};
    pf_arena_init(&w.arena, "checkpoint");
    peft_status status = PEFT_OK;
    char *tmp_dir = NULL;
    w.name = pf_arena_printf(&w.arena, "checkpoint-%lld", (long long)cfg->step);
    if (w.name != NULL) w.final_dir = pf_path_join(&w.arena, cfg->run_dir, w.name);
    if (w.final_dir == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    if (cfg->params != NULL) {
        status = pf_weights_check_finite(cfg->params, NULL, err);
        if (status != PEFT_OK) {
            pf_fail_prefix(err, status, "%s is not written", w.name);
            goto out;
        }
    }
    PF_TRY_OUT(hidden_path(&w.arena, cfg->run_dir, "", w.name, &tmp_dir, err));
    w.tmp_dir = tmp_dir;
    PF_TRY_OUT(write_all(&w, cfg, err));
    PF_TRY_OUT(put_in_place(&w, cfg->run_dir, err));
    tmp_dir = NULL;
    if (cfg->save_total_limit > 0) {
        peft_error why = {0};
        if (rotate(&w.arena, cfg, w.final_dir, &why) != PEFT_OK)
            PF_WARN("old checkpoints stay: %s", why.message);
    }
out:
    if (tmp_dir != NULL) pf_remove_tree(tmp_dir, NULL);
    pf_arena_release(&w.arena);
    return status;
}

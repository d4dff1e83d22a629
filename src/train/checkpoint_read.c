/* checkpoint_read.c - listing, verifying, loading and tidying checkpoints. See checkpoint.h. */
#include "train/checkpoint.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/safetensors.h"
#include "train/checkpoint_manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names -------------------------------------------------------------------------------------
 */

/* The step of "checkpoint-<step>", or -1. */
static int64_t step_of(const char *name) {
    static const char prefix[] = "checkpoint-";
    if (!pf_starts_with(name, prefix)) return -1;
    const char *digits = name + sizeof prefix - 1;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 18 || digits[n] != '\0' || (digits[0] == '0' && n > 1)) return -1;
    return strtoll(digits, NULL, 10);
}

static int by_step(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

peft_status pf_checkpoint_list(const char *run_dir, pf_arena *a, int64_t **steps, int *n,
                               peft_error *err) {
    *steps = NULL;
    *n = 0;
    if (!pf_path_exists(run_dir)) return PEFT_OK;
    pf_strlist names;
    PF_TRY(pf_list_dir(&names, a, run_dir, err));
    *steps = PF_NEW_ARRAY(a, int64_t, names.n);
    PF_CHECK_ALLOC(*steps, err);
    for (int i = 0; i < names.n; i++) {
        int64_t step = step_of(names.items[i]);
        if (step >= 0) (*steps)[(*n)++] = step;
    }
    if (*n > 1) qsort(*steps, (size_t)*n, sizeof **steps, by_step);
    return PEFT_OK;
}

/* ---- verifying ---------------------------------------------------------------------------------
 */

static peft_status verify_file(const char *dir, pf_arena *a, const pf_manifest_file *f,
                               peft_error *err) {
    const char *path = pf_path_join(a, dir, f->name);
    PF_CHECK_ALLOC(path, err);
    uint64_t size;
    char hex[PF_SHA256_HEX];
    if (!pf_path_exists(path))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is missing", dir, f->name);
    PF_TRY(pf_file_size(path, &size, err));
    if (size != f->size) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s has %llu bytes, %llu were written", dir, f->name,
                       (unsigned long long)size, (unsigned long long)f->size);
    }
    PF_TRY(pf_sha256_file(path, hex, err));
    if (strcmp(hex, f->sha256) != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is damaged: its sha256 is not what was written",
                       dir, f->name);
    }
    return PEFT_OK;
}

static peft_status verify(const char *dir, pf_arena *a, pf_manifest *m, peft_error *err) {
    if (!pf_is_dir(dir))
        return PF_FAIL(err, PEFT_E_MISSING, "there is no checkpoint folder %s", dir);
    const char *path = pf_path_join(a, dir, PF_MANIFEST_NAME);
    PF_CHECK_ALLOC(path, err);
    if (!pf_path_exists(path)) {
        return PF_FAIL(
            err, PEFT_E_MISSING,
            "%s has no " PF_MANIFEST_NAME ": it is not complete, or another program wrote it", dir);
    }
    PF_TRY(pf_manifest_read(m, a, path, err));
    int64_t named = step_of(pf_path_base(dir));
    if (named >= 0 && named != m->step) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s holds step %lld, not the one of its name", dir,
                       (long long)m->step);
    }
    bool state = false;
    for (int i = 0; i < m->n_files; i++) {
        PF_TRY(verify_file(dir, a, &m->files[i], err));
        state = state || pf_streq(m->files[i].name, PF_STATE_NAME);
    }
    if (!state) return PF_FAIL(err, PEFT_E_FORMAT, "%s has no " PF_STATE_NAME, dir);
    return PEFT_OK;
}

/* The folder's name is what messages and step_of want, so slashes at its end go. */
static peft_status plain_path(const char *dir, pf_arena *a, char **out, peft_error *err) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    *out = pf_arena_strndup(a, dir, n);
    PF_CHECK_ALLOC(*out, err);
    return PEFT_OK;
}

peft_status pf_checkpoint_verify(const char *dir, pf_arena *a, pf_checkpoint_info *out,
                                 peft_error *err) {
    pf_manifest m;
    char *path;
    *out = (pf_checkpoint_info){0};
    PF_TRY(plain_path(dir, a, &path, err));
    PF_TRY(verify(path, a, &m, err));
    *out = (pf_checkpoint_info){.step = m.step, .path = path, .program = m.program};
    return PEFT_OK;
}

peft_status pf_checkpoint_newest(const char *run_dir, pf_arena *a, pf_checkpoint_info *out,
                                 pf_strlist *skipped, peft_error *err) {
    *out = (pf_checkpoint_info){0};
    int64_t *steps;
    int n;
    PF_TRY(pf_checkpoint_list(run_dir, a, &steps, &n, err));
    for (int i = n - 1; i >= 0; i--) {
        const char *name = pf_arena_printf(a, "checkpoint-%lld", (long long)steps[i]);
        PF_CHECK_ALLOC(name, err);
        const char *dir = pf_path_join(a, run_dir, name);
        PF_CHECK_ALLOC(dir, err);
        peft_error why = {0};
        peft_status status = pf_checkpoint_verify(dir, a, out, &why);
        if (status == PEFT_OK) return PEFT_OK;
        if (status == PEFT_E_NOMEM) return PF_FAIL(err, status, "%s", why.message);
        if (skipped != NULL) PF_TRY(pf_strlist_add(skipped, a, why.message, err));
    }
    return PEFT_OK;
}

/* ---- loading -----------------------------------------------------------------------------------
 */

struct pf_ckpt_reader {
    const char *dir;
    int64_t step;
    pf_manifest manifest;
    pf_safetensors state;
    const pf_section *section; /* that is being loaded */
};

int64_t pf_ckpt_saved_step(const pf_ckpt_reader *r) {
    return r->step;
}

static const pf_stored_tensor *find(const pf_ckpt_reader *r, const char *key) {
    char name[1024];
    int n = snprintf(name, sizeof name, "%s.%s", r->section->name, key);
    if (n < 0 || (size_t)n >= sizeof name) return NULL;
    return pf_safetensors_find(&r->state, name);
}

peft_status pf_ckpt_get_tensor(const pf_ckpt_reader *r, const char *key, pf_dtype dtype, int n_dims,
                               const int64_t *shape, void *data, peft_error *err) {
    const pf_stored_tensor *t = find(r, key);
    if (t == NULL) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s/" PF_STATE_NAME
                       " has no %s.%s: it was written with another configuration or adapter",
                       r->dir, r->section->name, key);
    }
    bool same = t->dtype == dtype && t->n_dims == n_dims;
    for (int i = 0; i < n_dims && same; i++) same = t->shape[i] == shape[i];
    if (!same) {
        pf_stored_tensor want;
        char have[PF_SHAPE_TEXT], need[PF_SHAPE_TEXT];
        PF_TRY(pf_stored_tensor_set(&want, key, dtype, n_dims, shape, NULL, err));
        return PF_FAIL(
            err, PEFT_E_SHAPE,
            "%s/" PF_STATE_NAME ": %s is %s %s; this run needs %s %s: it was written with another "
            "configuration or adapter",
            r->dir, t->name, pf_dtype_info(t->dtype)->name, pf_shape_text(t, have, sizeof have),
            pf_dtype_info(dtype)->name, pf_shape_text(&want, need, sizeof need));
    }
    if (t->bytes > 0) memcpy(data, t->data, t->bytes);
    return PEFT_OK;
}

peft_status pf_ckpt_get_int(const pf_ckpt_reader *r, const char *key, int64_t *v, peft_error *err) {
    return pf_ckpt_get_tensor(r, key, PF_DTYPE_I64, 0, NULL, v, err);
}

peft_status pf_ckpt_get_count(const pf_ckpt_reader *r, const char *key, int64_t *v,
                              peft_error *err) {
    int64_t n;
    PF_TRY(pf_ckpt_get_int(r, key, &n, err));
    if (n < 0 || n > (int64_t)1 << 53) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s/" PF_STATE_NAME ": %s.%s is %lld, which counts nothing", r->dir,
                       r->section->name, key, (long long)n);
    }
    *v = n;
    return PEFT_OK;
}

peft_status pf_ckpt_get_real(const pf_ckpt_reader *r, const char *key, double *v, peft_error *err) {
    return pf_ckpt_get_tensor(r, key, PF_DTYPE_F64, 0, NULL, v, err);
}

peft_status pf_ckpt_get_real_block(const pf_ckpt_reader *r, const char *key, int64_t rows,
                                   int64_t cols, pf_real *data, peft_error *err) {
    int64_t shape[2] = {rows, cols};
    return pf_ckpt_get_tensor(r, key, sizeof(pf_real) == 4 ? PF_DTYPE_F32 : PF_DTYPE_F64, 2, shape,
                              data, err);
}

int64_t pf_ckpt_count(const pf_ckpt_reader *r, const char *key) {
    const pf_stored_tensor *t = find(r, key);
    return t != NULL && t->n_dims == 1 ? t->shape[0] : -1;
}

peft_status pf_ckpt_get_text(const pf_ckpt_reader *r, const char *key, pf_arena *a, const char **v,
                             peft_error *err) {
    *v = NULL;
    const pf_stored_tensor *t = find(r, key);
    if (t == NULL) return PEFT_OK;
    if (t->n_dims != 1)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s/" PF_STATE_NAME ": %s is not a text", r->dir,
                       t->name);
    int64_t shape[1] = {pf_ckpt_count(r, key)};
    char *text = pf_arena_alloc(a, (shape[0] > 0 ? (size_t)shape[0] : 0) + 1);
    PF_CHECK_ALLOC(text, err);
    PF_TRY(pf_ckpt_get_tensor(r, key, PF_DTYPE_U8, 1, shape, text, err));
    *v = text;
    return PEFT_OK;
}

peft_status pf_ckpt_find_file(const pf_ckpt_reader *r, const char *name, pf_arena *a,
                              const char **path, peft_error *err) {
    *path = NULL;
    for (int i = 0; i < r->manifest.n_files; i++) {
        if (!pf_streq(r->manifest.files[i].name, name)) continue;
        *path = pf_path_join(a, r->dir, name);
        PF_CHECK_ALLOC(*path, err);
        return PEFT_OK;
    }
    return PF_FAIL(err, PEFT_E_MISSING, "%s has no %s", r->dir, name);
}

peft_status pf_checkpoint_load(const char *dir, const pf_section *sections, int n_sections,
                               peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "checkpoint");
    pf_ckpt_reader r = {0};
    char *path;
    peft_status status;
    PF_TRY_OUT(plain_path(dir, &a, &path, err));
    r.dir = path;
    PF_TRY_OUT(verify(path, &a, &r.manifest, err));
    r.step = r.manifest.step;
    const char *state = pf_path_join(&a, path, PF_STATE_NAME);
    if (state == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    PF_TRY_OUT(pf_safetensors_open(&r.state, state, err));
    for (int i = 0; i < n_sections; i++) {
        r.section = &sections[i];
        if (!pf_strlist_has(&r.manifest.sections, sections[i].name)) {
            if (sections[i].optional) continue;
            status = PF_FAIL(err, PEFT_E_FORMAT,
                             "%s has no %s: it was written by %s with another configuration", path,
                             sections[i].name, r.manifest.program);
            goto out;
        }
        if (sections[i].load != NULL) PF_TRY_OUT(sections[i].load(sections[i].ctx, &r, err));
    }
out:
    pf_safetensors_close(&r.state);
    pf_arena_release(&a);
    return status;
}

/* ---- tidying -----------------------------------------------------------------------------------
 */

/* ".<name>.tmp-<pid>-<n>": what a killed pf_file_writer leaves. */
static bool is_writer_leftover(const char *name) {
    const char *tmp = strstr(name, ".tmp-");
    if (name[0] != '.' || tmp == NULL || tmp == name) return false;
    const char *pid = tmp + 5;
    size_t n = strspn(pid, "0123456789");
    if (n == 0 || pid[n] != '-') return false;
    const char *serial = pid + n + 1;
    size_t k = strspn(serial, "0123456789");
    return k > 0 && serial[k] == '\0';
}

/* ".tmp-old-checkpoint-<step>-<rand>": a checkpoint that stepped aside for a new one of its step.
 * If the new one did not come, it returns. */
static peft_status put_back(pf_arena *a, const char *run_dir, const char *name, const char *path,
                            bool *done, peft_error *err) {
    static const char prefix[] = ".tmp-old-";
    *done = false;
    const char *dash = strrchr(name, '-');
    if (!pf_starts_with(name, prefix) || dash == NULL) return PEFT_OK;
    const char *begin = name + sizeof prefix - 1;
    if (dash <= begin) return PEFT_OK;
    const char *final_name = pf_arena_strndup(a, begin, (size_t)(dash - begin));
    PF_CHECK_ALLOC(final_name, err);
    if (step_of(final_name) < 0) return PEFT_OK;
    const char *final_dir = pf_path_join(a, run_dir, final_name);
    PF_CHECK_ALLOC(final_dir, err);
    if (pf_path_exists(final_dir)) return PEFT_OK;
    PF_TRY(pf_rename(path, final_dir, err));
    *done = true;
    return pf_sync_dir(run_dir, err);
}

peft_status pf_checkpoint_sweep(const char *run_dir, peft_error *err) {
    if (!pf_path_exists(run_dir)) return PEFT_OK;
    pf_arena a;
    pf_arena_init(&a, "sweep");
    pf_strlist names;
    peft_status status;
    PF_TRY_OUT(pf_list_dir(&names, &a, run_dir, err));
    for (int i = 0; i < names.n; i++) {
        const char *name = names.items[i];
        bool ours = pf_starts_with(name, ".tmp-checkpoint-") ||
                    pf_starts_with(name, ".tmp-delete-checkpoint-") ||
                    pf_starts_with(name, ".tmp-old-checkpoint-") || is_writer_leftover(name);
        if (!ours) continue;
        const char *path = pf_path_join(&a, run_dir, name);
        if (path == NULL) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
            goto out;
        }
        bool back;
        PF_TRY_OUT(put_back(&a, run_dir, name, path, &back, err));
        if (!back) PF_TRY_OUT(pf_remove_tree(path, err));
    }
out:
    pf_arena_release(&a);
    return status;
}

peft_status pf_checkpoint_supersede(const char *run_dir, int64_t step, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "supersede");
    int64_t *steps;
    int n;
    peft_status status;
    PF_TRY_OUT(pf_checkpoint_list(run_dir, &a, &steps, &n, err));
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (steps[i] <= step) continue;
        const char *from = pf_arena_printf(&a, "%s/checkpoint-%lld", run_dir, (long long)steps[i]);
        const char *to = NULL;
        for (int k = 1; k < 10000 && from != NULL; k++) {
            char again[16] = "";
            if (k > 1) snprintf(again, sizeof again, "-%d", k);
            to = pf_arena_printf(&a, "%s/superseded-checkpoint-%lld%s", run_dir,
                                 (long long)steps[i], again);
            if (to == NULL || !pf_path_exists(to)) break;
        }
        if (from == NULL || to == NULL) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
            goto out;
        }
        PF_TRY_OUT(pf_rename(from, to, err));
        PF_INFO("%s is now %s: this run goes on from step %lld", from, pf_path_base(to),
                (long long)step);
        any = true;
    }
    if (any) PF_TRY_OUT(pf_sync_dir(run_dir, err));
out:
    pf_arena_release(&a);
    return status;
}

/* checkpoint.h - saving and finding the whole state of a run.
 *
 *   <run>/checkpoint-<step>/
 *     adapter_config.json adapter_model.safetensors trainer_state.json   whatever files the
 * sections write state.safetensors     numbers, texts and tensors of all sections,
 * "<section>.<key>" manifest.json         written last: sha256 and size of every file, and of
 * itself
 *
 * Promise: a folder named checkpoint-N is complete, or its manifest does not verify and whoever
 * looks for a checkpoint passes over it by name. A save goes to `.tmp-checkpoint-N-<rand>` in the
 * run's folder; every file is synced as it is written, the manifest last, then the folder is
 * renamed and the run's folder synced. A process killed anywhere leaves the earlier checkpoints as
 * they were; a save that fails removes what it wrote. Each write, sync and rename goes through
 * base/file, so a test can fail every one.
 *
 * Sections: each part of the program that has state brings one (pf_section). Their order is the
 * order of saving and loading.
 *
 * The caller holds the run's lock (run_dir.h). Only whole optimizer steps are saved. */
#ifndef PF_CHECKPOINT_H
#define PF_CHECKPOINT_H

#include "base/arena.h"
#include "base/str.h"
#include "graph/param.h"
#include "tensor/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_ckpt_writer pf_ckpt_writer;
typedef struct pf_ckpt_reader pf_ckpt_reader;

typedef struct pf_section {
    const char *name; /* letters, digits, underscores: "optimizer" */
    void *ctx;
    peft_status (*save)(void *ctx, pf_ckpt_writer *w, peft_error *err);
    /* NULL: written for others, nothing to load */
    peft_status (*load)(void *ctx, const pf_ckpt_reader *r, peft_error *err);
    bool optional; /* a checkpoint without it is fine: load is then not called */
} pf_section;

/* ---- inside save. Keys are the section's own; values are copied, tensors borrowed until the save
 * is over. A float tensor with a NaN or infinity is refused (PEFT_E_DIVERGED). */
peft_status pf_ckpt_put_int(pf_ckpt_writer *w, const char *key, int64_t v, peft_error *err);
peft_status pf_ckpt_put_real(pf_ckpt_writer *w, const char *key, double v, peft_error *err);
peft_status pf_ckpt_put_text(pf_ckpt_writer *w, const char *key, const char *text,
                             peft_error *err); /* NULL: as if not there */
peft_status pf_ckpt_put_tensor(pf_ckpt_writer *w, const char *key, pf_dtype dtype, int n_dims,
                               const int64_t *shape, const void *data, peft_error *err);
/* The data of a parameter (or a moment of it): its shape, the type of pf_real. */
peft_status pf_ckpt_put_real_block(pf_ckpt_writer *w, const char *key, int64_t rows, int64_t cols,
                                   const pf_real *data, peft_error *err);
/* A file of the checkpoint's folder: written here, or by the section itself to the path it gets,
 * with a writer of base/file. */
peft_status pf_ckpt_put_file(pf_ckpt_writer *w, const char *name, const void *data, size_t n,
                             peft_error *err);
peft_status pf_ckpt_file(pf_ckpt_writer *w, const char *name, const char **path, peft_error *err);
int64_t pf_ckpt_step(const pf_ckpt_writer *w);
const char *pf_ckpt_dir(const pf_ckpt_writer *w);       /* where its files are written */
const char *pf_ckpt_final_dir(const pf_ckpt_writer *w); /* <run>/checkpoint-<step>, not there yet */

/* ---- inside load. A missing or misshapen entry fails and is named. */
peft_status pf_ckpt_get_int(const pf_ckpt_reader *r, const char *key, int64_t *v, peft_error *err);
/* A number that counts something: 0 to 2^53. */
peft_status pf_ckpt_get_count(const pf_ckpt_reader *r, const char *key, int64_t *v,
                              peft_error *err);
peft_status pf_ckpt_get_real(const pf_ckpt_reader *r, const char *key, double *v, peft_error *err);
/* Into the arena; NULL when it was NULL. */
peft_status pf_ckpt_get_text(const pf_ckpt_reader *r, const char *key, pf_arena *a, const char **v,
                             peft_error *err);
/* Copies; dtype and shape must agree. */
peft_status pf_ckpt_get_tensor(const pf_ckpt_reader *r, const char *key, pf_dtype dtype, int n_dims,
                               const int64_t *shape, void *data, peft_error *err);
peft_status pf_ckpt_get_real_block(const pf_ckpt_reader *r, const char *key, int64_t rows,
                                   int64_t cols, pf_real *data, peft_error *err);
/* The elements of a one-dimensional tensor, -1 when there is none of that name. */
int64_t pf_ckpt_count(const pf_ckpt_reader *r, const char *key);
/* Path of a file of the checkpoint, into the arena. */
peft_status pf_ckpt_find_file(const pf_ckpt_reader *r, const char *name, pf_arena *a,
                              const char **path, peft_error *err);
int64_t pf_ckpt_saved_step(const pf_ckpt_reader *r);

/* ---- whole checkpoints --------------------------------------------------------------------------
 */
typedef struct pf_checkpoint_save_cfg {
    const char *run_dir;
    int64_t step;
    const pf_section *sections;
    int n_sections;
    const pf_params *params;  /* whose weights must be finite; NULL: none */
    int64_t save_total_limit; /* 0: keep all */
    int64_t best_step;        /* a checkpoint that stays; -1: none */
} pf_checkpoint_save_cfg;

/* A checkpoint of the same step is replaced. Afterwards old ones go, as save_total_limit says:
 * never the one just written (which is read again and verified first), nor the best, nor one that
 * holds a folder (a merged model, say). Failing to remove one is a warning. */
peft_status pf_checkpoint_save(const pf_checkpoint_save_cfg *cfg, peft_error *err);

typedef struct pf_checkpoint_info {
    int64_t step;
    const char *path, *program; /* in the arena; which program wrote it */
} pf_checkpoint_info;

/* Reads every byte. PEFT_E_FORMAT (PEFT_E_MISSING without a manifest) and one line that names the
 * checkpoint, the file, and what is wrong. */
peft_status pf_checkpoint_verify(const char *dir, pf_arena *a, pf_checkpoint_info *out,
                                 peft_error *err);
/* The newest one that verifies; out->path is NULL when there is none. `skipped` receives one line
 * for each newer one that does not. */
peft_status pf_checkpoint_newest(const char *run_dir, pf_arena *a, pf_checkpoint_info *out,
                                 pf_strlist *skipped, peft_error *err);
/* Verifies, then lets each section load. On failure state may be half loaded. */
peft_status pf_checkpoint_load(const char *dir, const pf_section *sections, int n_sections,
                               peft_error *err);

/* Steps of the folders named checkpoint-<step>, ascending; nothing is read in them. */
peft_status pf_checkpoint_list(const char *run_dir, pf_arena *a, int64_t **steps, int *n,
                               peft_error *err);
/* Removes what killed saves left, and puts back a checkpoint that was being replaced. For the start
 * of a run. */
peft_status pf_checkpoint_sweep(const char *run_dir, peft_error *err);
/* A run that goes on from `step` leaves later checkpoints behind: they are renamed to
 * superseded-checkpoint-<n>, so that nobody resumes from them by mistake. */
peft_status pf_checkpoint_supersede(const char *run_dir, int64_t step, peft_error *err);

#endif

/* run_dir.h - the folder of a run (training.output_dir): who may use it, and what stands in it.
 *
 *   config.yaml config.resolved.json train.log   from the moment it is opened
 *   environment.json requirements.txt            pf_run_dir_environment
 *   metrics.jsonl checkpoint-<step>/             while it runs (tracker.h, checkpoint.h)
 *   finished                                     written last: the run is complete
 *
 * One process at a time holds a run (`.lock`, released when the process ends, however it ends). A
 * folder that holds a run is refused unless it is to be resumed or overwritten. Overwriting removes
 * what a run writes, by name, and nothing else; the configuration that the user gave is never
 * removed or replaced, even where it lies in this folder. */
#ifndef PF_RUN_DIR_H
#define PF_RUN_DIR_H

#include "base/arena.h"
#include "base/file.h"
#include "train/environment.h"

typedef struct pf_run_dir_options {
    const char *path;
    bool resume, overwrite;    /* resume: there may be no run yet */
    const char *config_path;   /* copied to config.yaml; NULL: none */
    const char *resolved_json; /* config.resolved.json */
} pf_run_dir_options;

typedef struct pf_run_dir {
    pf_arena arena;
    const char *path;
    pf_file_lock lock;
    int log_fd; /* train.log, to which messages go while the folder is open */
    bool
        finished; /* it held a complete run when it was opened to be resumed: nothing was written */
} pf_run_dir;

peft_status pf_run_dir_open(pf_run_dir *d, const pf_run_dir_options *opt, peft_error *err);
peft_status pf_run_dir_environment(pf_run_dir *d, const pf_environment_cfg *cfg, peft_error *err);
peft_status pf_run_dir_put(pf_run_dir *d, const char *name, const void *data, size_t n,
                           peft_error *err);
peft_status pf_run_dir_mark_finished(pf_run_dir *d, peft_error *err);
void pf_run_dir_close(pf_run_dir *d); /* NULL and zeroed ones are fine */

/* A path in it, in its arena; NULL when memory is out. */
char *pf_run_dir_file(pf_run_dir *d, const char *name);

/* What a folder holds of a run ("checkpoint-500", "metrics.jsonl"), in the arena, or NULL. */
const char *pf_run_dir_holds(const char *path, pf_arena *a);

#endif

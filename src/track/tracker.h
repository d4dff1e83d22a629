/* tracker.h - where the figures of a run go: metrics.jsonl always, others when they are asked for.
 *
 * A tracker is a kind (one pf_tracker descriptor, one row in trackers.def); a run opens some of
 * them as one pf_trackers and hands every row to all. Opening may fail and stops the run before it
 * starts. Afterwards a row that a tracker cannot deliver does not stop a run: the tracker keeps it,
 * tries again with the next one, and says so once. But no checkpoint and no end without the record
 * of the run: pf_trackers_sync fails while a tracker with `record` still lacks rows.
 *
 * A resumed run opens with resume_step: rows of later steps are dropped, for they are computed
 * again, so the rows of an interrupted run are those of an uninterrupted one. */
#ifndef PF_TRACKER_H
#define PF_TRACKER_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct pf_metric {
    const char *name; /* loss, eval_exact_match; borrowed for the call */
    double value;
    bool whole; /* a count: printed without a fraction */
} pf_metric;

typedef struct pf_metric_row {
    int64_t step;
    double epoch;
    const pf_metric *items;
    int n;
} pf_metric_row;

typedef struct pf_track_param {
    const char *name, *value; /* peft.lora.r, 8 */
} pf_track_param;

typedef struct pf_track_run {
    const char *run_dir, *run_name;
    int64_t resume_step; /* the step the run goes on from; -1: a new run */
} pf_track_run;

typedef struct pf_tracker {
    const char *name, *what; /* "jsonl", "metrics.jsonl, one row a line" */
    bool record;             /* the run's own: what is not in it is lost */
    /* *self lives in the arena or is freed by close; run is borrowed for the call. */
    peft_status (*open)(void **self, pf_arena *a, const pf_track_run *run, peft_error *err);
    /* NULL where a kind has no use for it */
    peft_status (*params)(void *self, const pf_track_param *items, int n, peft_error *err);
    peft_status (*scalars)(void *self, const pf_metric_row *row, peft_error *err);
    peft_status (*artifact)(void *self, const char *path, peft_error *err);
    peft_status (*sync)(void *self, peft_error *err); /* what was handed over is safe on return */
    peft_status (*close)(void *self, peft_error *err);
} pf_tracker;

extern const pf_tracker *const pf_tracker_table[]; /* ends in NULL */
const pf_tracker *pf_tracker_find(const char *name);

typedef struct pf_tracker_open {
    const pf_tracker *kind;
    void *self;
    bool failing; /* said already */
} pf_tracker_open;

typedef struct pf_trackers { /* zeroed: none */
    pf_tracker_open *items;
    int n;
} pf_trackers;

/* names: of kinds; one that is not known is an error. Lives in the arena until close. */
peft_status pf_trackers_open(pf_trackers *t, pf_arena *a, const pf_track_run *run,
                             const char *const *names, int n, peft_error *err);
void pf_trackers_params(pf_trackers *t, const pf_track_param *items, int n);
void pf_trackers_scalars(pf_trackers *t, const pf_metric_row *row);
void pf_trackers_artifact(pf_trackers *t, const char *path);
/* Before a checkpoint and before a run is called finished: its rows must not be lost later. Fails
 * for the record alone, when all were tried. */
peft_status pf_trackers_sync(pf_trackers *t, peft_error *err);
void pf_trackers_close(pf_trackers *t);

#endif

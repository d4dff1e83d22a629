/* run_timing.h - where the time and the memory of a run went: timing.json.
 *
 * Times are kept apart from metrics.jsonl, whose rows are the same bytes in every run of one
 * configuration. All of them are seconds since the process began, so the first one of a list is
 * what somebody waited for. After `reserve` nothing is allocated; steps beyond the reserve are not
 * kept one by one. */
#ifndef PF_RUN_TIMING_H
#define PF_RUN_TIMING_H

#include "base/arena.h"
#include "base/buf.h"

#include <stdint.h>

enum { PF_TIMING_PHASES = 12 };

typedef struct pf_run_timing { /* zeroed and begun before use */
    double offset;             /* age of the process minus the clock */
    struct {
        const char *name; /* literal: "config", "model", ... */
        double at;        /* when it was done */
    } phases[PF_TIMING_PHASES];
    int n_phases;
    double *ends; /* of the steps of this process, evaluation and checkpoint included */
    double *busy; /* seconds of computing in each */
    int64_t n, room;
    int64_t first_step;       /* the number of step ends[0] */
    uint64_t start_anon;      /* anonymous memory of the process before anything was opened */
    uint64_t peak_anon, plan; /* anonymous memory at most; what was planned for it; bytes */
    int64_t tokens, supervised_tokens, rows, rows_plain; /* of all steps */
    int64_t trained_parameters;
} pf_run_timing;

void pf_run_timing_begin(pf_run_timing *t);
void pf_run_timing_phase(pf_run_timing *t, const char *name);
/* Room for `steps` of them. */
peft_status pf_run_timing_reserve(pf_run_timing *t, pf_arena *a, int64_t steps, peft_error *err);
void pf_run_timing_step(pf_run_timing *t, double seconds);
/* Looks at the memory in use. */
void pf_run_timing_watch(pf_run_timing *t);
void pf_run_timing_json(const pf_run_timing *t, pf_buf *out);

#endif

/* report.h - report.html: a run on one page, in one file, with nothing fetched from anywhere (its
 * own content policy forbids it). What the curve shows, the curves, the evaluations, some answers,
 * the configuration and the environment. Whatever comes from outside is escaped. */
#ifndef PF_REPORT_H
#define PF_REPORT_H

#include "train/diagnosis.h"
#include "train/environment.h"

typedef struct pf_report_answer {
    const char *prompt, *target, *answer; /* texts; cut for display */
    bool exact;
} pf_report_answer;

typedef struct pf_report_cfg {
    const char *title; /* the run's name or folder */
    const pf_trainer_state *state;
    const pf_diagnosis *diagnosis; /* NULL: none */
    const pf_named_text *facts;    /* "model", "method", "rows", ... shown at the top */
    int n_facts;
    const pf_report_answer *answers;
    int n_answers;
    const char *config_text, *environment_text; /* as they stand in the folder; NULL: none */
} pf_report_cfg;

peft_status pf_report_html(pf_buf *out, const pf_report_cfg *cfg, peft_error *err);

#endif

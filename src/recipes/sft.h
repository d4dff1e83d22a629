/* sft.h - supervised fine-tuning, one optimizer step at a time. The page to read is sft.c. */
#ifndef PF_SFT_H
#define PF_SFT_H

#include "base/status.h"
#include "peft/run.h"

typedef struct pf_sft pf_sft;

peft_status pf_sft_open(pf_sft **out, const peft_run_options *opt, peft_error *err);
peft_status pf_sft_step(pf_sft *s, peft_step_report *report, peft_error *err);
peft_status pf_sft_finish(pf_sft *s, peft_error *err);
void pf_sft_close(pf_sft *s);

/* open, step until done, finish, close; with a progress bar, and a checkpoint where a signal asks
 * for one. */
peft_status pf_sft_run(const peft_run_options *opt, peft_error *err);
/* Safe in a signal handler. */
void pf_sft_request_stop(int sig);

#endif

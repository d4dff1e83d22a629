/* side_job.h - one function on a thread of its own, beside what goes on. With niceness 10 it gets
 * the time that others leave (a tenth of a busy core), with 0 its full share. It may look at
 * pf_side_job_cancelled and return early. */
#ifndef PF_SIDE_JOB_H
#define PF_SIDE_JOB_H

#include "base/status.h"

#include <stdbool.h>

typedef struct pf_side_job pf_side_job;
typedef peft_status (*pf_side_fn)(void *ctx, const pf_side_job *job, peft_error *err);

peft_status pf_side_job_start(pf_side_job **out, pf_side_fn fn, void *ctx, int niceness,
                              peft_error *err);
bool pf_side_job_cancelled(const pf_side_job *job);
/* Waits for the end; gives the function's status and error, again and again. */
peft_status pf_side_job_wait(pf_side_job *job, peft_error *err);
void pf_side_job_free(pf_side_job *job); /* cancels, waits; NULL is fine */

#endif

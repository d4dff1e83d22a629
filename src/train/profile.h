/* profile.h - where the time of training goes: per op, and per kind of work.
 *
 * The executor times its nodes (exec.h), the pool counts the seconds that its workers are busy
 * (pool.h); this puts both beside what the machine can do, which is measured once, in a moment, at
 * begin. Meant for `train --profile`. */
#ifndef PF_PROFILE_H
#define PF_PROFILE_H

#include "graph/exec.h"

typedef struct pf_profile {
    double flops, bytes; /* per second: a large f32 product, a stream through memory; all threads */
    double steps, optimizer; /* seconds inside steps, and of these in the optimizer */
    double busy;             /* worker seconds inside steps */
    int64_t n_steps;
} pf_profile;

/* Measures the machine (about a tenth of a second). */
peft_status pf_profile_begin(pf_profile *p, pf_backend *be, peft_error *err);
/* A step that began at `start` and came to its optimizer at `reached` ends now; busy: worker
 * seconds in it. */
void pf_profile_step(pf_profile *p, double start, double reached, double busy);
/* Prints the tables of an executor that was profiled. outside: seconds between the steps
 * (evaluation, files). */
void pf_profile_say(const pf_profile *p, const pf_exec *x, double outside);

#endif

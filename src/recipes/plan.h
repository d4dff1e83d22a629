/* plan.h - what a run will need and how fast it will be, without running it. */
#ifndef PF_PLAN_RECIPE_H
#define PF_PLAN_RECIPE_H

#include "base/buf.h"
#include "peft/run.h"

peft_status pf_plan_run(const peft_plan_options *opt, pf_buf *out, peft_error *err);

#endif

/* eval.h - metrics of a base or an adapter on the test rows of a configuration. */
#ifndef PF_EVAL_H
#define PF_EVAL_H

#include "base/buf.h"
#include "peft/run.h"

/* Adds one object {"eval_loss": ..., ...} to json. */
peft_status pf_eval(const peft_eval_options *opt, pf_buf *json, peft_error *err);

#endif

/* merge.h - fold an adapter into its base, read the result back, and compare. */
#ifndef PF_MERGE_H
#define PF_MERGE_H

#include "base/status.h"
#include "peft/adapter.h"

peft_status pf_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err);

#endif

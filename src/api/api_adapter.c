/* api_adapter.c - the door of adapter.h. */
#include "peft/adapter.h"

#include "recipes/merge.h"

peft_status peft_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err) {
    return pf_merge(opt, out, err);
}

/* api_adapter.c - the door of adapter.h. */
#include "peft/adapter.h"

#include "api/text_out.h"
#include "factors/adapter_diff.h"
#include "recipes/adapter_tools.h"
#include "recipes/merge.h"

peft_status peft_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err) {
    return pf_merge(opt, out, err);
}

peft_status peft_adapter_combine(const peft_combine_options *opt, char **text, peft_error *err) {
    pf_buf said = {0};
    return pf_give_text(&said, pf_adapter_combine(opt, &said, err), text, err);
}

peft_status peft_adapter_convert(const peft_convert_options *opt, char **text, peft_error *err) {
    pf_buf said = {0};
    return pf_give_text(&said, pf_adapter_convert(opt, &said, err), text, err);
}

peft_status peft_adapter_diff(const char *a, const char *b, bool json, bool *same, char **text,
                              peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, pf_adapter_diff(a, b, json, &out, same, err), text, err);
}

peft_status peft_adapter_inspect(const char *dir, bool json, char **text, peft_error *err) {
    pf_buf out = {0};
    return pf_give_text(&out, pf_adapter_look(dir, json, &out, err), text, err);
}

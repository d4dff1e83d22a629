/* api_adapter.c - the door of adapter.h. */
#include "peft/adapter.h"

#include "base/buf.h"
#include "factors/adapter_diff.h"
#include "recipes/adapter_tools.h"
#include "recipes/merge.h"

peft_status peft_merge(const peft_merge_options *opt, peft_merge_report *out, peft_error *err) {
    return pf_merge(opt, out, err);
}

/* The text goes to the caller, who frees it with peft_free. */
static peft_status give(pf_buf *b, peft_status status, char **text, peft_error *err) {
    *text = NULL;
    if (status == PEFT_OK) pf_buf_reserve(b, 1);
    if (status == PEFT_OK && !pf_buf_ok(b)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK)
        *text = b->data;
    else
        pf_buf_free(b);
    return status;
}

peft_status peft_adapter_combine(const peft_combine_options *opt, char **text, peft_error *err) {
    pf_buf said = {0};
    return give(&said, pf_adapter_combine(opt, &said, err), text, err);
}

peft_status peft_adapter_convert(const peft_convert_options *opt, char **text, peft_error *err) {
    pf_buf said = {0};
    return give(&said, pf_adapter_convert(opt, &said, err), text, err);
}

peft_status peft_adapter_diff(const char *a, const char *b, bool json, bool *same, char **text,
                              peft_error *err) {
    pf_buf out = {0};
    return give(&out, pf_adapter_diff(a, b, json, &out, same, err), text, err);
}

peft_status peft_adapter_inspect(const char *dir, bool json, char **text, peft_error *err) {
    pf_buf out = {0};
    return give(&out, pf_adapter_look(dir, json, &out, err), text, err);
}

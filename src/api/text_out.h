/* text_out.h - how the doors of libpeft hand texts to their callers. */
#ifndef PF_TEXT_OUT_H
#define PF_TEXT_OUT_H

#include "base/buf.h"

/* The text of a buffer becomes the caller's, who frees it with peft_free; the buffer is released
 * when `status` is a failure. */
static inline peft_status pf_give_text(pf_buf *b, peft_status status, char **text,
                                       peft_error *err) {
    *text = NULL;
    if (status == PEFT_OK) pf_buf_reserve(b, 1);
    if (status == PEFT_OK && !pf_buf_ok(b)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK)
        *text = b->data;
    else
        pf_buf_free(b);
    return status;
}

#endif

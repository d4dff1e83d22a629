/* pages.h - docs/methods.md and docs/models.md, from the rows: what can be trained, on what. */
#ifndef PF_PAGES_H
#define PF_PAGES_H

#include "base/buf.h"

peft_status pf_methods_page(pf_buf *out, peft_error *err);
peft_status pf_models_page(pf_buf *out, peft_error *err);

#endif

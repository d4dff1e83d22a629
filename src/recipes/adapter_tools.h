/* adapter_tools.h - adapters as things: combined, turned into another format or method. Folders
 * appear complete under their names or not at all. */
#ifndef PF_ADAPTER_TOOLS_H
#define PF_ADAPTER_TOOLS_H

#include "base/buf.h"
#include "peft/adapter.h"

/* What was done, for people, goes to `said`. */
peft_status pf_adapter_combine(const peft_combine_options *opt, pf_buf *said, peft_error *err);
peft_status pf_adapter_convert(const peft_convert_options *opt, pf_buf *said, peft_error *err);

#endif

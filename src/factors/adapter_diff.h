/* adapter_diff.h - two adapter folders side by side: which keys of their configurations differ,
 * which tensors only one has, and how far the others are apart. Any method, any format: it looks at
 * files. */
#ifndef PF_ADAPTER_DIFF_H
#define PF_ADAPTER_DIFF_H

#include "base/buf.h"

/* Text, or one JSON object. *same: no difference at all. */
peft_status pf_adapter_diff(const char *a, const char *b, bool json, pf_buf *out, bool *same,
                            peft_error *err);
/* Of one folder: its configuration in a line, and the tensors with their norms; of a LoRA the norm
 * of each update. */
peft_status pf_adapter_look(const char *dir, bool json, pf_buf *out, peft_error *err);

#endif

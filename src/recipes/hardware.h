/* hardware.h - which hardware holds a run, how long it takes there, and at what price: an estimate
 * from a table that users edit (share/hardware.yaml). */
#ifndef PF_HARDWARE_H
#define PF_HARDWARE_H

#include "recipes/prepared.h"

/* Rows by price, then time; what does not fit last. `path`: the table; NULL: found beside the
 * program or in its source tree. */
peft_status pf_hardware_recommend(const pf_prepared *p, const char *path, bool json, pf_buf *out,
                                  peft_error *err);

#endif

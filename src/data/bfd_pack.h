/* bfd_pack.h - best-fit decreasing: samples -> rows of a fixed length, none of them cut.
 *
 * Membership and order are those of TRL's packing strategy "bfd" (trl/data_utils.py; Ding et al.
 * 2024, "Fewer Truncations Improve Language Modeling", arXiv 2404.10830): samples go from long to
 * short, equal ones in the order given, each into the fullest row that has room; of rows with equal
 * room the one that got it first. As there, each run of 1000 samples is packed for itself. */
#ifndef PF_BFD_PACK_H
#define PF_BFD_PACK_H

#include "base/status.h"

#include <stdint.h>

enum { PF_BFD_RUN = 1000 };

/* lengths (n), each between 1 and row_length. members (n): indices, row after row; row r holds
 * members[starts[r] .. starts[r + 1]); starts has room for n + 1. */
peft_status pf_bfd_pack(const int32_t *lengths, int64_t n, int64_t row_length, int64_t *members,
                        int64_t *starts, int64_t *n_rows, peft_error *err);

#endif

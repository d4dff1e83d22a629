/* base_hash.h - the sha256 of the base weights, for the record of a run. Reading them takes longer
 * than everything else before the first step, so it is done beside the first steps.
 *
 * One hash over size and bytes of each file, in order. Of a base of more than PF_BASE_HASH_LIMIT
 * bytes the first MiB of each file counts (headers, and with them every name, type, shape and
 * offset); the label of the hash says so. */
#ifndef PF_BASE_HASH_H
#define PF_BASE_HASH_H

#include "base/hash.h"
#include "formats/tensor_source.h"

#define PF_BASE_HASH_LIMIT ((uint64_t)32 << 30)

typedef struct pf_base_hash pf_base_hash;

/* The files are named by src, which outlives the hash. */
peft_status pf_base_hash_start(pf_base_hash **out, const pf_tensor_source *src, peft_error *err);
/* Waits. label: "base", or what else it is a hash of. */
peft_status pf_base_hash_get(pf_base_hash *h, const char **label, char hex[PF_SHA256_HEX],
                             peft_error *err);
void pf_base_hash_free(pf_base_hash *h); /* an unfinished one is given up; NULL is fine */

#endif

/* hash.h - SHA-256 for what must be trusted (manifests, provenance), a fast 64-bit hash for tables.
 */
#ifndef PF_HASH_H
#define PF_HASH_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#define PF_SHA256_HEX 65 /* 64 digits and a NUL */

typedef struct pf_sha256 pf_sha256;
pf_sha256 *pf_sha256_new(void); /* NULL when memory is out */
void pf_sha256_add(pf_sha256 *h, const void *data, size_t n);
void pf_sha256_hex(pf_sha256 *h, char out[PF_SHA256_HEX]); /* ends the hash; free comes next */
void pf_sha256_free(pf_sha256 *h);

void pf_sha256_of(const void *data, size_t n, char out[PF_SHA256_HEX]);
peft_status pf_sha256_file(const char *path, char out[PF_SHA256_HEX], peft_error *err);

uint64_t pf_hash64(const void *data, size_t n, uint64_t seed);

#endif

/* safetensors.h - reading a .safetensors file in place.
 *
 *   8 bytes   little-endian length N of the header
 *   N bytes   {"__metadata__": {text: text}, "name": {"dtype": "F32", "shape": [2,3],
 *             "data_offsets": [0,24]}, ...}
 *   the rest  the tensors' bytes, row-major, little-endian
 *
 * The file is mapped and stays so until close; tensors point into the mapping and are never copied.
 * Everything the format promises is checked before open returns: whoever holds a pf_safetensors can
 * trust shapes, sizes and offsets. Tensors cover the data without a hole or an overlap and stand in
 * the order of their offsets. Their data may stand at any alignment (see pf_tensor_source_align).
 * Memory beside the mapping is a small multiple of the header, which is at most
 * PF_SAFETENSORS_MAX_HEADER. Read-only after open; any thread may look things up.
 *
 * Writing is in safetensors_write.h, folders of several files in safetensors_index.h. */
#ifndef PF_SAFETENSORS_H
#define PF_SAFETENSORS_H

#include "base/arena.h"
#include "base/file.h"
#include "formats/stored_tensor.h"

#define PF_SAFETENSORS_MAX_HEADER 100000000u /* as the reference library has it */

typedef struct pf_safetensors {
    pf_arena arena;
    pf_mapping map;   /* empty when parsed from memory */
    const char *path; /* for messages */
    size_t size;      /* of the file */
    size_t header_size;
    pf_stored_tensor *tensors; /* in order of their data */
    int n_tensors;
    int *by_name;          /* indices into tensors */
    pf_metadata *metadata; /* by key */
    int n_metadata;
} pf_safetensors;

peft_status pf_safetensors_open(pf_safetensors *st, const char *path, peft_error *err);
/* The same from memory, which is borrowed until close; `path` is what messages call it. */
peft_status pf_safetensors_parse(pf_safetensors *st, const void *bytes, size_t size,
                                 const char *path, peft_error *err);
void pf_safetensors_close(pf_safetensors *st); /* NULL and zeroed ones are fine */

/* Borrowed until close; NULL when there is none. */
const pf_stored_tensor *pf_safetensors_find(const pf_safetensors *st, const char *name);
const char *pf_safetensors_metadata(const pf_safetensors *st, const char *key);

#endif

/* tensor_source.h - the tensors of a model by name, over one file or many, whatever their format.
 *
 * A reader opens its files and hands each over with its list of tensors; the source owns them until
 * close. Names are unique over all files. Tensors keep the order of the files and, in each, of
 * their data; an index into `tensors` is stable, so users may keep tables beside it. Data are
 * read-only and mapped. After pf_tensor_source_align every tensor's data are aligned for their
 * type: those that were not (headers of odd length, as early writers left them) are copied.
 *
 * Life cycle: init -> add_file* -> finish -> (find | align)* -> close. Who opens folders:
 * hf_folder.h. */
#ifndef PF_TENSOR_SOURCE_H
#define PF_TENSOR_SOURCE_H

#include "base/arena.h"
#include "formats/stored_tensor.h"

typedef struct pf_tensor_file {
    const char *path;
    uint64_t size;
    const pf_metadata *metadata; /* borrowed from the owner */
    int n_metadata;
    void *owner; /* what keeps the data in place */
    void (*close)(void *owner);
} pf_tensor_file;

typedef struct pf_tensor_source {
    pf_arena arena;
    pf_stored_tensor *tensors;
    int n_tensors, cap_tensors;
    int *by_name;
    pf_tensor_file *files;
    int n_files, cap_files;
    void *copies;  /* of what was not aligned */
    size_t copied; /* their bytes */
} pf_tensor_source;

void pf_tensor_source_init(pf_tensor_source *src);
void pf_tensor_source_close(pf_tensor_source *src); /* NULL and zeroed ones are fine */

/* Takes the file over, also when it fails. Names and path are borrowed from the owner. */
peft_status pf_tensor_source_add_file(pf_tensor_source *src, const pf_tensor_file *file,
                                      const pf_stored_tensor *tensors, int n, peft_error *err);
/* After the last file: makes names findable; fails where a name is in two files. */
peft_status pf_tensor_source_finish(pf_tensor_source *src, peft_error *err);
/* Copies the data of tensors that stand at an address unfit for their type. *bytes (may be NULL):
 * how many. */
peft_status pf_tensor_source_align(pf_tensor_source *src, size_t *bytes, peft_error *err);

int pf_tensor_source_find(const pf_tensor_source *src, const char *name); /* index, or -1 */
/* As find; the message of a missing one names the file or folder and the nearest name. */
peft_status pf_tensor_source_get(const pf_tensor_source *src, const char *name,
                                 const pf_stored_tensor **out, peft_error *err);
/* The file that a tensor is in, for messages. */
const char *pf_tensor_source_path(const pf_tensor_source *src, const pf_stored_tensor *t);
uint64_t pf_tensor_source_bytes(const pf_tensor_source *src); /* of all tensors */

#endif

/* safetensors_index.h - a model in several .safetensors files, its shards, and the index that ties
 * them together, model.safetensors.index.json:
 *
 *   {"metadata": {"total_size": BYTES}, "weight_map": {TENSOR: FILE, ...}}
 *
 * Reading is strict: the shards are all there, each tensor of the index is in the shard that it
 * names and in no other, and no shard holds one that the index does not know. A shard's name may
 * lead into the index's folder only (a link there may point anywhere: the Hugging Face cache is
 * made of links). Writing them: safetensors_shards.h. */
#ifndef PF_SAFETENSORS_INDEX_H
#define PF_SAFETENSORS_INDEX_H

#include "formats/tensor_source.h"

typedef struct pf_shard_entry {
    const char *tensor;
    int file;
} pf_shard_entry;

typedef struct pf_shard_index {
    pf_arena arena;
    const char *path;
    const char **files; /* as the index spells them, each once, in order of name */
    int n_files;
    pf_shard_entry *entries; /* in order of name */
    int n_entries;
} pf_shard_index;

peft_status pf_shard_index_parse(pf_shard_index *ix, const char *text, size_t n, const char *path,
                                 peft_error *err);
peft_status pf_shard_index_open(pf_shard_index *ix, const char *path, peft_error *err);
void pf_shard_index_close(pf_shard_index *ix);
int pf_shard_index_find(const pf_shard_index *ix,
                        const char *tensor); /* the file's number, or -1 */

/* One file, or all shards of an index, as a source; src is initialized here and closed when it
 * fails. */
peft_status pf_safetensors_open_source(pf_tensor_source *src, const char *path, peft_error *err);
peft_status pf_safetensors_open_sharded(pf_tensor_source *src, const char *index_path,
                                        peft_error *err);
/* One more file of a source that the caller puts together (tensor_source.h). */
peft_status pf_safetensors_add_file(pf_tensor_source *src, const char *path, peft_error *err);

#endif

/* safetensors_shards.h - writing a model as one .safetensors file, or as several and their index
 * (safetensors_index.h) when it is larger than the caller wants files to be. Cut and named as
 * huggingface_hub does it. The index is written last, so that a folder without one is recognized as
 * unfinished. */
#ifndef PF_SAFETENSORS_SHARDS_H
#define PF_SAFETENSORS_SHARDS_H

#include "formats/tensor_sink.h"

/* Writes STEM.safetensors into the folder, or STEM-00001-of-0000N.safetensors and the index when
 * there is more than max_shard_bytes (a tensor larger than that has a shard to itself; 0: no
 * limit). Tensors are dealt out in the order given. Refuses a folder that holds a model of that
 * name already. *n_files (may be NULL): files of tensors written. */
peft_status pf_safetensors_write_sharded(const char *dir, const char *stem,
                                         const pf_stored_tensor *tensors, int n_tensors,
                                         uint64_t max_shard_bytes, const pf_metadata *metadata,
                                         int n_metadata, pf_tensor_fill fill, void *fill_ctx,
                                         int *n_files, peft_error *err);

#endif

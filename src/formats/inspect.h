/* inspect.h - what a file or folder holds: tensors with shapes, types and sizes, metadata,
 * configuration. As JSON for programs and as a table for people; the table is made from the JSON,
 * so both say the same.
 *
 *   kind     "safetensors" (one file), "sharded" (an index), and of folders "model", "adapter",
 *            "checkpoint" (has a trainer_state.json), or "folder" (safetensors files of some kind)
 *   path     and commit, where a hub name led to a snapshot
 *   tensors  [{"name", "dtype", "shape", "bytes", "file"}] in the order of the files' data
 *   total    {"tensors", "parameters", "bytes", "dtypes": {"BF16": tensors}}
 *   files    [{"name", "bytes", "metadata"?}]; metadata of those that hold the tensors
 *   config, generation_config, adapter_config, trainer_state   as in the folder (of the last one,
 * single values only)
 *
 * What is not read: pickles and GGUF, which are refused by name. */
#ifndef PF_INSPECT_H
#define PF_INSPECT_H

#include "base/buf.h"
#include "text/json.h"

/* path: a file, a folder, or the name of a model in the Hugging Face cache. */
peft_status pf_inspect(json_t **out, const char *path, peft_error *err);
peft_status pf_inspect_text(pf_buf *out, const json_t *described, peft_error *err);

#endif

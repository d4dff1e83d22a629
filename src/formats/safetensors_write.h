/* safetensors_write.h - writing one .safetensors file, as the reference library does: the same
 * bytes for the same tensors and metadata. Tensors stand by type (largest alignment first) and
 * name; the header is padded with spaces to a multiple of 8, so that all data are aligned. The file
 * appears under its name complete or not at all. */
#ifndef PF_SAFETENSORS_WRITE_H
#define PF_SAFETENSORS_WRITE_H

#include "formats/tensor_sink.h"

/* {"format": "pt"}: what transformers and peft look for. */
extern const pf_metadata pf_safetensors_pt;

/* metadata is written in the order given; fill may be NULL (tensor_sink.h). Fails where two names
 * are equal, a name is not UTF-8, or the header would be above the limit that readers have. */
peft_status pf_safetensors_write(const char *path, const pf_stored_tensor *tensors, int n_tensors,
                                 const pf_metadata *metadata, int n_metadata, pf_tensor_fill fill,
                                 void *fill_ctx, peft_error *err);

#endif

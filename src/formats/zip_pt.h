/* zip_pt.h - writing a .pt file: what torch.save makes of a state dict, and what
 * torch.load(weights_only=True) opens. A zip of
 *
 *   NAME/data.pkl     a pickle (protocol 2) of a dict from names to tensors, each of which is a
 * view of NAME/data/0 ...   a storage: the tensor's bytes, at a multiple of 64 NAME/byteorder
 * little NAME/version      3
 *
 * with NAME the file's name without its ending. The pickle is byte for byte that of torch.save.
 *
 * There is no reader. A pickle is a program for the machine that reads it, so files of this kind
 * are never opened here; pf_refuse_pickle says what to do instead. */
#ifndef PF_ZIP_PT_H
#define PF_ZIP_PT_H

#include "formats/tensor_sink.h"

/* Tensors are stored in the order given. same_as (may be NULL) has one entry per tensor: -1, or the
 * index of an earlier tensor of equal type and size whose storage this one shares, as a tied weight
 * does; its bytes are then not asked for. fill may be NULL (tensor_sink.h). offsets (may be NULL)
 * receives where in the file the data of each tensor begin, for reading them back. */
peft_status pf_pt_write(const char *path, const pf_stored_tensor *tensors, int n_tensors,
                        const int *same_as, pf_tensor_fill fill, void *fill_ctx, uint64_t *offsets,
                        peft_error *err);

/* True for names that end as pickles do: .pt .pth .bin .ckpt .pkl. */
bool pf_is_pickle_name(const char *path);
/* Always fails, saying why and how to convert. */
peft_status pf_refuse_pickle(const char *path, peft_error *err);

#endif

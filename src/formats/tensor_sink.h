/* tensor_sink.h - how writers are fed: one tensor at a time, in pieces.
 *
 * A writer is given the list of tensors and a pf_tensor_fill. It decides the order, and calls fill
 * once for each tensor; fill hands over the bytes through pf_tensor_sink_add, in pieces of any
 * size, exactly as many as the tensor has. So a merged model is written without ever being in
 * memory. Without a fill the tensors' own `data` are written. */
#ifndef PF_TENSOR_SINK_H
#define PF_TENSOR_SINK_H

#include "formats/stored_tensor.h"

typedef struct pf_tensor_sink {
    const pf_stored_tensor *tensor;
    uint64_t left; /* bytes still to come */
    peft_status (*write)(void *ctx, const void *data, size_t n, peft_error *err);
    void *ctx;
} pf_tensor_sink;

/* index: of t in the list that the writer was given. */
typedef peft_status (*pf_tensor_fill)(void *ctx, int index, const pf_stored_tensor *t,
                                      pf_tensor_sink *sink, peft_error *err);

peft_status pf_tensor_sink_add(pf_tensor_sink *sink, const void *data, size_t n, peft_error *err);
/* n numbers, stored in the tensor's type (F32, F16, BF16 or F64). */
peft_status pf_tensor_sink_add_f32(pf_tensor_sink *sink, const float *x, size_t n, peft_error *err);

/* For writers: the whole life of one tensor's sink. `path` is for messages. */
peft_status pf_tensor_sink_run(pf_tensor_sink *sink, const char *path, int index,
                               pf_tensor_fill fill, void *fill_ctx, peft_error *err);

#endif

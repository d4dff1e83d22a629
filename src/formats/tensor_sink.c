/* tensor_sink.c - counts what a writer is given, so that no tensor is written short or long. */
#include "formats/tensor_sink.h"

#include "base/banned.h"

peft_status pf_tensor_sink_add(pf_tensor_sink *sink, const void *data, size_t n, peft_error *err) {
    PF_ASSERT(n <= sink->left);
    if (n == 0) return PEFT_OK;
    sink->left -= n;
    return sink->write(sink->ctx, data, n, err);
}

peft_status pf_tensor_sink_add_f32(pf_tensor_sink *sink, const float *x, size_t n,
                                   peft_error *err) {
    enum { PIECE = 2048 };
    unsigned char out[PIECE * sizeof(double)];
    for (size_t i = 0; i < n;) {
        size_t k = n - i < PIECE ? n - i : PIECE, bytes = 0;
        bool fits = pf_dtype_bytes(sink->tensor->dtype, k, &bytes);
        PF_ASSERT(fits && bytes <= sizeof out);
        pf_dtype_from_f32(sink->tensor->dtype, x + i, k, out);
        PF_TRY(pf_tensor_sink_add(sink, out, bytes, err));
        i += k;
    }
    return PEFT_OK;
}

peft_status pf_tensor_sink_run(pf_tensor_sink *sink, const char *path, int index,
                               pf_tensor_fill fill, void *fill_ctx, peft_error *err) {
    char name[PF_NAME_TEXT];
    const pf_stored_tensor *t = sink->tensor;
    sink->left = t->bytes;
    if (fill != NULL) {
        PF_TRY(fill(fill_ctx, index, t, sink, err));
    } else {
        PF_ASSERT(t->data != NULL || t->bytes == 0);
        PF_TRY(pf_tensor_sink_add(sink, t->data, t->bytes, err));
    }
    if (sink->left > 0) {
        return PF_FAIL(err, PEFT_E_STATE, "%s: tensor %s was given %llu bytes too few", path,
                       pf_name_text(t->name, name, sizeof name), (unsigned long long)sink->left);
    }
    return PEFT_OK;
}

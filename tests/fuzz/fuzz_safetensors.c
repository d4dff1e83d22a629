/* A safetensors file from anywhere: refused with one line, or every byte of every tensor lies
 * inside and is found by name. */
#include "formats/safetensors.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pf_safetensors st;
    peft_error err = {0};
    if (pf_safetensors_parse(&st, data, size, "fuzz", &err) != PEFT_OK) {
        PF_ASSERT(strncmp(err.message, "fuzz: ", 6) == 0 && strchr(err.message, '\n') == NULL);
        pf_safetensors_close(&st);
        return 0;
    }
    const uint8_t *at = data + 8 + st.header_size;
    for (int i = 0; i < st.n_tensors; i++) {
        const pf_stored_tensor *t = &st.tensors[i];
        char shape[PF_SHAPE_TEXT], name[PF_NAME_TEXT];
        pf_weight w;
        PF_ASSERT(t->bytes == 0 || t->data == at);
        PF_ASSERT(pf_safetensors_find(&st, t->name) == t);
        at += t->bytes;
        pf_shape_text(t, shape, sizeof shape);
        pf_name_text(t->name, name, sizeof name);
        if (t->bytes > 0 && pf_stored_weight(t, "fuzz", &w, NULL) == PEFT_OK) {
            pf_real x[4];
            pf_weight_read_tile(&w, w.rows - 1, 1, w.cols - 1, 1, x, 1);
        }
    }
    PF_ASSERT(at == data + size);
    for (int i = 0; i < st.n_metadata; i++) {
        PF_ASSERT(pf_safetensors_metadata(&st, st.metadata[i].key) == st.metadata[i].value);
    }
    pf_safetensors_close(&st);
    return 0;
}

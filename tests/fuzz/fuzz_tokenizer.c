/* fuzz_tokenizer.c - any bytes as a tokenizer file and a text: two bytes of length, the text, then
 * the file (tokenizer.json, SentencePiece or tiktoken). What opens must encode any text, with
 * offsets inside it, and decode what it encoded. */
#include "base/buf.h"
#include "base/log.h"
#include "token/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const pf_tokenizer *t, const char *text, size_t n) {
    pf_encoding e = {0};
    pf_buf out = {0};
    for (unsigned flags = 0; flags < 8; flags += 3) {
        if (pf_tokenizer_encode(t, text, n, flags, &e, NULL) != PEFT_OK) continue;
        for (size_t i = 0; i < e.n; i++)
            if (e.from[i] > e.to[i] || e.to[i] > n) abort();
        pf_buf_clear(&out);
        (void)pf_tokenizer_decode(t, e.ids, e.n, (flags & 1) != 0, &out, NULL);
    }
    pf_decode_stream s;
    pf_decode_stream_init(&s, t, false);
    for (size_t i = 0; i < e.n && i < 64; i++)
        if (pf_decode_stream_add(&s, e.ids[i], &out, NULL) != PEFT_OK) break;
    (void)pf_decode_stream_end(&s, &out, NULL);
    pf_decode_stream_release(&s);
    for (int32_t id = -1; id < 8; id++) {
        pf_buf_clear(&out);
        (void)pf_tokenizer_token(t, id, &out);
    }
    pf_encoding_release(&e);
    pf_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    pf_log_set_level(PF_LOG_ERROR);
    size_t n = (size_t)data[0] | (size_t)data[1] << 8;
    if (n > size - 2) n = size - 2;
    pf_tokenizer *t = NULL;
    if (pf_tokenizer_open_bytes(&t, data + 2 + n, size - 2 - n, "fuzz", NULL) == PEFT_OK)
        use(t, (const char *)data + 2, n);
    pf_tokenizer_close(t);
    return 0;
}

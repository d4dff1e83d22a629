/* fuzz_json.c - any bytes: parse, dump, parse again; what we wrote must read back as the same
 * value. */
#include "base/buf.h"
#include "text/json.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    json_t *v = NULL;
    if (pf_json_parse(&v, text, size, "fuzz", NULL) == PEFT_OK) {
        for (unsigned flags = 0; flags <= PF_JSON_HF; flags += PF_JSON_HF) {
            pf_buf out = {0};
            json_t *again = NULL;
            if (pf_json_dump(&out, v, flags != 0 ? 2 : 0, flags, NULL) != PEFT_OK) abort();
            if (pf_json_parse(&again, pf_buf_str(&out), out.len, "again", NULL) != PEFT_OK) abort();
            if (!json_equal(v, again)) abort();
            json_decref(again);
            pf_buf_free(&out);
        }
        int64_t i = 0;
        const char *s = NULL;
        (void)pf_json_get_int(v, "fuzz", "a", 0, 9, &i, NULL);
        (void)pf_json_opt_str(v, "fuzz", "b", "", &s, NULL);
        json_decref(v);
    }
    pf_jsonl lines;
    pf_jsonl_init(&lines, text, size, "fuzz");
    do {
        (void)pf_jsonl_next(&lines, &v, NULL);
        json_decref(v);
    } while (lines.at < lines.n);
    return 0;
}

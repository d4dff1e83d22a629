/* fuzz_reader.c - any bytes as a data file: records or a message, with every reader. The first byte
 * picks the reader. */
#include "data/reader.h"
#include "data/token_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const formats[] = {"auto", "csv", "tsv", "json", "jsonl", "text"};
    static const char *const names[] = {"f.csv", "f.json", "f.jsonl", "f", "f.tsv.gz"};
    if (size < 1) return 0;
    pf_reader_options opt = {.format = formats[data[0] % 6],
                             .field = data[0] & 0x80 ? "rows" : NULL,
                             .no_quotes = (data[0] & 0x40) != 0};
    pf_data_file f;
    peft_error err;
    if (pf_data_text_open(&f, names[data[0] % 5], data + 1, size - 1, &opt, &err) != PEFT_OK) {
        if (err.message[0] == 0) abort();
        return 0;
    }
    pf_record r;
    int64_t last_line = 0, rows = 0;
    for (bool more = true; more;) {
        if (pf_data_file_next(&f, &r, &more, &err) != PEFT_OK) break;
        if (!more) break;
        if (r.row != ++rows || r.line < last_line || r.line < 1) abort();
        last_line = r.line;
        size_t sum = 0;
        for (int i = 0; i < r.n; i++) { /* every byte may be read */
            for (size_t k = 0; k < r.fields[i].name.n; k++)
                sum += (unsigned char)r.fields[i].name.p[k];
            for (size_t k = 0; k < r.fields[i].value.n; k++)
                sum += (unsigned char)r.fields[i].value.p[k];
        }
        if (sum == (size_t)-1) abort();
        if (r.n < 2) continue;
        char ids[32], labels[32]; /* the same values as rows of tokens */
        snprintf(ids, sizeof ids, "%.*s", (int)r.fields[0].name.n, r.fields[0].name.p);
        snprintf(labels, sizeof labels, "%.*s", (int)r.fields[1].name.n, r.fields[1].name.p);
        const pf_token_columns columns = {.ids = ids, .labels = labels, .vocab = 1000};
        pf_buf tokens = {0}, learned = {0};
        pf_token_row t;
        if (pf_token_row_read(&columns, labels, &r, &tokens, &learned, &t, &err) == PEFT_OK) {
            if (t.n_tokens < 1 || learned.len != (size_t)t.n_tokens || t.end_label > t.n_tokens)
                abort();
        }
        pf_buf_free(&tokens);
        pf_buf_free(&learned);
    }
    pf_data_file_close(&f);
    return 0;
}

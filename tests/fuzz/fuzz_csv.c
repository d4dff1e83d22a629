/* fuzz_csv.c - any bytes as a delimited text; every field is read to its last byte. */
#include "text/csv.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const char *text, size_t n, const pf_csv_options *opt) {
    pf_csv c;
    if (pf_csv_open(&c, text, n, "fuzz", opt, NULL) != PEFT_OK) return;
    bool more = true;
    size_t bytes = 0;
    while (pf_csv_next(&c, &more, NULL) == PEFT_OK && more) {
        for (int i = 0; i < c.n_columns; i++) {
            size_t bad = 0;
            if (!pf_utf8_valid(c.fields[i].p, c.fields[i].n, &bad)) abort();
            bytes += c.fields[i].n;
        }
    }
    if (bytes > n) abort();
    pf_csv_close(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *names[2] = {"a", "b"};
    const pf_strlist columns = {names, 2};
    const pf_csv_options tsv = {.delimiter = '\t', .no_quotes = true, .columns = &columns};
    read_all((const char *)data, size, NULL);
    read_all((const char *)data, size, &tsv);
    return 0;
}

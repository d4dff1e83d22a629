/* tokenize_lines.c - the tokenizer from outside: one JSON string a line in, one JSON line out; for
 * tools/check_tokenizers.py.
 *
 *   bench_tokenize_lines MODEL [--no-special] [--continue] [--full] [--stream] [--hex]  < lines
 *
 * Out: [ids], or with --full {"ids","offsets","trimmed","text","skipped"}: byte offsets as they are
 * and as `tokenizers` trims them, the ids decoded with and without special tokens; with --stream
 * decoded one by one as well. With --hex a line is a string of hex digits instead, so that it can
 * hold any bytes. Seconds spent loading and encoding go to stderr. */
#include "base/buf.h"
#include "base/clock.h"
#include "token/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *text_of(const pf_tokenizer *t, const pf_encoding *e, bool skip, peft_error *err) {
    pf_buf out = {0};
    json_t *v = NULL;
    if (pf_tokenizer_decode(t, e->ids, e->n, skip, &out, err) == PEFT_OK)
        v = json_stringn(pf_buf_str(&out), out.len);
    pf_buf_free(&out);
    return v;
}

static json_t *streamed(const pf_tokenizer *t, const pf_encoding *e, peft_error *err) {
    pf_decode_stream s;
    pf_buf out = {0};
    peft_status status = PEFT_OK;
    pf_decode_stream_init(&s, t, false);
    for (size_t i = 0; i < e->n && status == PEFT_OK; i++)
        status = pf_decode_stream_add(&s, e->ids[i], &out, err);
    if (status == PEFT_OK) status = pf_decode_stream_end(&s, &out, err);
    json_t *v = status == PEFT_OK ? json_stringn(pf_buf_str(&out), out.len) : NULL;
    pf_decode_stream_release(&s);
    pf_buf_free(&out);
    return v;
}

static json_t *ids_of(const pf_encoding *e) {
    json_t *a = json_array();
    for (size_t i = 0; i < e->n; i++) json_array_append_new(a, json_integer(e->ids[i]));
    return a;
}

static json_t *offsets_of(const pf_encoding *e) {
    json_t *a = json_array();
    for (size_t i = 0; i < e->n; i++) {
        json_array_append_new(a, json_integer(e->from[i]));
        json_array_append_new(a, json_integer(e->to[i]));
    }
    return a;
}

static size_t unhex(char *line, size_t n) {
    size_t len = 0;
    for (size_t i = 0; i + 1 < n; i += 2) {
        char two[3] = {line[i], line[i + 1], 0};
        line[len++] = (char)strtol(two, NULL, 16);
    }
    return len;
}

/* Processor time of this thread, so that a busy machine does not count. */
static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    static peft_error err;
    unsigned flags = PF_ENCODE_SPECIAL;
    bool full = false, hex = false, stream = false;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--no-special") == 0) flags &= ~(unsigned)PF_ENCODE_SPECIAL;
        if (strcmp(argv[i], "--continue") == 0) flags = PF_ENCODE_CONTINUE;
        if (strcmp(argv[i], "--full") == 0) full = true;
        if (strcmp(argv[i], "--stream") == 0) full = stream = true;
        if (strcmp(argv[i], "--hex") == 0) hex = true;
    }
    if (argc < 2) {
        fprintf(stderr,
                "usage: %s MODEL [--no-special] [--continue] [--full] [--stream] [--hex] < lines\n",
                argv[0]);
        return 2;
    }
    pf_tokenizer *t;
    double start = pf_now(), loaded, spent = 0;
    if (pf_tokenizer_open(&t, argv[1], &err) != PEFT_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    loaded = pf_now() - start;
    pf_encoding e = {0};
    char *line = NULL;
    size_t cap = 0;
    uint64_t tokens = 0, bytes = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        json_t *text =
            hex ? NULL : json_loadb(line, (size_t)n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        const char *p = hex ? line : json_string_value(text);
        size_t len = hex ? unhex(line, (size_t)n) : json_string_length(text);
        json_t *out;
        start = cpu_now();
        peft_status status =
            p == NULL ? PEFT_E_FORMAT : pf_tokenizer_encode(t, p, len, flags, &e, &err);
        spent += cpu_now() - start;
        if (p == NULL) snprintf(err.message, sizeof err.message, "not a JSON string");
        tokens += e.n;
        bytes += len;
        if (status != PEFT_OK) {
            out = json_pack("{s:s}", "error", err.message);
        } else if (!full) {
            out = ids_of(&e);
        } else {
            out = json_pack("{s:o,s:o,s:o*,s:o*}", "ids", ids_of(&e), "offsets", offsets_of(&e),
                            "text", text_of(t, &e, false, &err), "skipped",
                            text_of(t, &e, true, &err));
            if (stream) json_object_set_new(out, "stream", streamed(t, &e, &err));
            if (pf_tokenizer_encode(t, p, len, flags | PF_ENCODE_TRIM, &e, &err) == PEFT_OK)
                json_object_set_new(out, "trimmed", offsets_of(&e));
        }
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(out);
        json_decref(text);
    }
    fprintf(stderr, "{\"load\": %.4f, \"encode\": %.4f, \"tokens\": %llu, \"bytes\": %llu}\n",
            loaded, spent, (unsigned long long)tokens, (unsigned long long)bytes);
    free(line);
    pf_encoding_release(&e);
    pf_tokenizer_close(t);
    return 0;
}

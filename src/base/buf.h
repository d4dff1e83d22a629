/* buf.h - a growing run of bytes; text ones always end in a NUL that is not counted.
 *
 * Failure is sticky: when memory is out the buffer keeps what it has, `failed` is set, and later
 * appends do nothing, so a long text is built first and checked once (pf_buf_ok). Life cycle: zero
 * or pf_buf_init -> append* -> pf_buf_free. */
#ifndef PF_BUF_H
#define PF_BUF_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_buf {
    char *data; /* NULL while empty; data[len] == 0 afterwards */
    size_t len, cap;
    bool failed;
} pf_buf;

void pf_buf_init(pf_buf *b);
void pf_buf_free(pf_buf *b);
void pf_buf_clear(pf_buf *b); /* length 0, memory kept */
void pf_buf_add(pf_buf *b, const void *bytes, size_t n);
void pf_buf_addc(pf_buf *b, char c);
void pf_buf_adds(pf_buf *b, const char *s);
void pf_buf_add_int(pf_buf *b, int64_t v); /* decimal, as %lld, without the cost of a format */
void pf_buf_addf(pf_buf *b, const char *fmt, ...) PEFT_PRINTF(2, 3);
void pf_buf_reserve(pf_buf *b, size_t total);
const char *pf_buf_str(const pf_buf *b); /* never NULL; borrowed until the next append */
bool pf_buf_ok(const pf_buf *b);

#endif

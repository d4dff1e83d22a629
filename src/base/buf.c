/* buf.c - growing text; see buf.h. */
#include "base/buf.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

void pf_buf_init(pf_buf *b) {
    *b = (pf_buf){0};
}

void pf_buf_free(pf_buf *b) {
    if (b == NULL) return;
    pf_free(b->data);
    *b = (pf_buf){0};
}

void pf_buf_clear(pf_buf *b) {
    b->len = 0;
    if (b->data != NULL) b->data[0] = '\0';
}

void pf_buf_reserve(pf_buf *b, size_t total) {
    size_t need;
    if (b->failed || !pf_add_size(total, 1, &need)) {
        b->failed = true;
        return;
    }
    if (need <= b->cap) return;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need) {
        if (!pf_mul_size(cap, 2, &cap)) {
            cap = need;
            break;
        }
    }
    char *data = pf_realloc(b->data, cap);
    if (data == NULL) {
        b->failed = true;
        return;
    }
    if (b->data == NULL) data[0] = '\0';
    b->data = data;
    b->cap = cap;
}

void pf_buf_add(pf_buf *b, const void *bytes, size_t n) {
    size_t total;
    if (!pf_add_size(b->len, n, &total)) {
        b->failed = true;
        return;
    }
    pf_buf_reserve(b, total);
    if (b->failed || n == 0) return;
    memcpy(b->data + b->len, bytes, n);
    b->len = total;
    b->data[total] = '\0';
}

void pf_buf_add_int(pf_buf *b, int64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    uint64_t left = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (v < 0) pf_buf_addc(b, '-');
    pf_buf_add(b, digits + at, sizeof digits - at);
}

void pf_buf_addc(pf_buf *b, char c) {
    pf_buf_add(b, &c, 1);
}

void pf_buf_adds(pf_buf *b, const char *s) {
    pf_buf_add(b, s, strlen(s));
}

void pf_buf_addf(pf_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0) {
        pf_buf_reserve(b, b->len + (size_t)n);
        if (!b->failed) {
            vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
            b->len += (size_t)n;
        }
    } else {
        b->failed = true;
    }
    va_end(again);
}

const char *pf_buf_str(const pf_buf *b) {
    return b->data != NULL ? b->data : "";
}

bool pf_buf_ok(const pf_buf *b) {
    return !b->failed;
}

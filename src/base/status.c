/* status.c - filling errors; see status.h. */
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *peft_status_text(peft_status status) {
    switch (status) {
#define TEXT(name, exit_code, text)                                                                \
    case name:                                                                                     \
        return text;
        PEFT_STATUS_LIST(TEXT)
#undef TEXT
    }
    return "unknown status";
}

int peft_status_exit_code(peft_status status) {
    switch (status) {
#define CODE(name, exit_code, text)                                                                \
    case name:                                                                                     \
        return exit_code;
        PEFT_STATUS_LIST(CODE)
#undef CODE
    }
    return 1;
}

/* Marks a text that did not fit; cuts at a character, not inside one. */
static void end_with_dots(char *message, size_t size) {
    size_t at = size - 4;
    while (at > 0 && ((unsigned char)message[at] & 0xC0) == 0x80) at--;
    memcpy(message + at, "...", 4);
}

peft_status pf_failv(peft_error *err, peft_status status, const char *fmt, va_list ap) {
    if (err == NULL) return status;
    err->status = status;
    int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
    if (n < 0)
        memcpy(err->message, "error", 6);
    else if ((size_t)n >= sizeof err->message)
        end_with_dots(err->message, sizeof err->message);
    return status;
}

peft_status pf_fail(peft_error *err, peft_status status, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    pf_failv(err, status, fmt, ap);
    va_end(ap);
    return status;
}

peft_status pf_fail_prefix(peft_error *err, peft_status status, const char *fmt, ...) {
    if (err == NULL) return status;
    char rest[PEFT_ERROR_MAX];
    memcpy(rest, err->message, sizeof rest);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    err->status = status;
    if (n < 0) n = 0;
    if ((size_t)n >= sizeof err->message) {
        end_with_dots(err->message, sizeof err->message);
        return status;
    }
    size_t left = sizeof err->message - (size_t)n;
    int m = snprintf(err->message + n, left, ": %s", rest);
    if (m >= 0 && (size_t)m >= left) end_with_dots(err->message, sizeof err->message);
    return status;
}

static peft_status status_of_errno(int errnum, peft_status otherwise) {
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
        return PEFT_E_MISSING;
    case EACCES:
    case EPERM:
    case EROFS:
        return PEFT_E_PERMISSION;
    case ENOSPC:
    case EDQUOT:
    case EIO:
        return PEFT_E_IO;
    case ENOMEM:
        return PEFT_E_NOMEM;
    default:
        return otherwise;
    }
}

peft_status pf_fail_errno(peft_error *err, peft_status status, int errnum, const char *fmt, ...) {
    status = status_of_errno(errnum, status);
    if (err == NULL) return status;
    va_list ap;
    va_start(ap, fmt);
    pf_failv(err, status, fmt, ap);
    va_end(ap);
    char reason[256];
    size_t n = strlen(err->message);
    const char *text = strerror_r(errnum, reason, sizeof reason);
    snprintf(err->message + n, sizeof err->message - n, ": %s", text);
    return status;
}

void pf_assert_failed(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: internal error: %s does not hold. Please report this.\n", file, line,
            what);
    abort();
}

/* status.h - raising and passing on errors inside the library.
 *
 *   PF_TRY(f(x, err));                                    passes a failure on to the caller
 *   return PF_FAIL(err, PEFT_E_SHAPE, "x has %d", n);     makes one
 *
 * Three voices: the user's mistake and the machine's are a status with a sentence; ours is
 * PF_ASSERT, which aborts and is never reachable from an input file. */
#ifndef PF_STATUS_H
#define PF_STATUS_H

#include "peft/error.h"

#include <stdarg.h>

/* Fill err (may be NULL) and return status. */
peft_status pf_fail(peft_error *err, peft_status status, const char *fmt, ...) PEFT_PRINTF(3, 4);
peft_status pf_failv(peft_error *err, peft_status status, const char *fmt, va_list ap);
/* Put "prefix: " before the text that err already holds; returns the given status. */
peft_status pf_fail_prefix(peft_error *err, peft_status status, const char *fmt, ...)
    PEFT_PRINTF(3, 4);
/* As pf_fail with ": strerror(errnum)" added, and the status that fits errnum (ENOENT missing,
 * EACCES and EROFS permission, ENOSPC and EDQUOT io, ENOMEM nomem, otherwise the given one). */
peft_status pf_fail_errno(peft_error *err, peft_status status, int errnum, const char *fmt, ...)
    PEFT_PRINTF(4, 5);

#define PF_FAIL(err, status, ...) pf_fail((err), (status), __VA_ARGS__)
#define PF_TRY(call)                                                                               \
    do {                                                                                           \
        peft_status pf_try_status_ = (call);                                                       \
        if (pf_try_status_ != PEFT_OK) return pf_try_status_;                                      \
    } while (0)
/* As PF_TRY for functions with one exit: sets `status` and jumps to `out`. */
#define PF_TRY_OUT(call)                                                                           \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != PEFT_OK) goto out;                                                           \
    } while (0)

_Noreturn void pf_assert_failed(const char *file, int line, const char *what);
#define PF_ASSERT(cond) ((cond) ? (void)0 : pf_assert_failed(__FILE__, __LINE__, #cond))

#define PF_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif

/* error.h - the one way in which libpeft says that something went wrong.
 *
 * Every fallible function returns a peft_status and takes a peft_error as its last argument; NULL
 * is fine there. On failure the error holds one clear text: what, where (file:line:column, tensor,
 * row) and what to try. On success the error is left as it was. Each status has one exit code,
 * which the command-line program uses as its own. */
#ifndef PEFT_ERROR_H
#define PEFT_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PEFT_API               __attribute__((visibility("default")))
#define PEFT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PEFT_API
#define PEFT_PRINTF(fmt, args)
#endif

/* clang-format off */
/*      name            exit  text */
#define PEFT_STATUS_LIST(X) \
    X(PEFT_OK,             0, "success") \
    X(PEFT_E_FAILED,       1, "a check did not hold") \
    X(PEFT_E_USAGE,        2, "wrong command line") \
    X(PEFT_E_DIVERGED,     5, "training diverged") \
    X(PEFT_E_NOMEM,        6, "out of memory") \
    X(PEFT_E_FORMAT,      65, "malformed data") \
    X(PEFT_E_SHAPE,       65, "sizes do not agree") \
    X(PEFT_E_MISSING,     66, "input is missing") \
    X(PEFT_E_UNSUPPORTED, 69, "not supported") \
    X(PEFT_E_DEVICE,      69, "device failed") \
    X(PEFT_E_STATE,       70, "call out of order") \
    X(PEFT_E_CREATE,      73, "cannot create output") \
    X(PEFT_E_IO,          74, "input or output failed") \
    X(PEFT_E_BUSY,        75, "in use by another process") \
    X(PEFT_E_PERMISSION,  77, "permission denied") \
    X(PEFT_E_CONFIG,      78, "configuration is wrong") \
    X(PEFT_E_INTERRUPTED,130, "interrupted") \
    X(PEFT_E_TERMINATED, 143, "terminated")
/* clang-format on */

typedef enum peft_status {
#define PEFT_STATUS_ENUM(name, exit_code, text) name,
    PEFT_STATUS_LIST(PEFT_STATUS_ENUM)
#undef PEFT_STATUS_ENUM
} peft_status;

#define PEFT_ERROR_MAX 4096 /* bytes of text, longer ones end in "..." */

typedef struct peft_error {
    peft_status status;
    char message[PEFT_ERROR_MAX]; /* UTF-8, no final newline; several findings stand on lines of
                                     their own */
} peft_error;

/* The short text of a status, never NULL. */
PEFT_API
const char *peft_status_text(peft_status status);
/* The exit code that the command-line program ends with. */
PEFT_API
int peft_status_exit_code(peft_status status);

#ifdef __cplusplus
}
#endif
#endif

/* log.h - messages for people, on stderr (and in the run's train.log while one is set). Data goes
 * to stdout and never through here. Thread-safe. Colour only on a terminal, and not with NO_COLOR
 * or TERM=dumb. */
#ifndef PF_LOG_H
#define PF_LOG_H

#include "peft/error.h"

#include <stdbool.h>

typedef enum pf_log_level { PF_LOG_ERROR, PF_LOG_WARN, PF_LOG_INFO, PF_LOG_DEBUG } pf_log_level;

void pf_log_set_level(pf_log_level level); /* messages above it are not shown; INFO at first */
pf_log_level pf_log_get_level(void);
/* Also append each message, with a time, to this file descriptor; -1 stops. Borrowed. */
void pf_log_set_file(int fd);
/* Called with every message instead of writing to stderr; NULL restores stderr. */
void pf_log_set_sink(void (*sink)(void *ctx, pf_log_level level, const char *text), void *ctx);

void pf_log(pf_log_level level, const char *fmt, ...) PEFT_PRINTF(2, 3);
#define PF_INFO(...)  pf_log(PF_LOG_INFO, __VA_ARGS__)
#define PF_WARN(...)  pf_log(PF_LOG_WARN, __VA_ARGS__)
#define PF_ERROR(...) pf_log(PF_LOG_ERROR, __VA_ARGS__)
#define PF_DEBUG(...) pf_log(PF_LOG_DEBUG, __VA_ARGS__)

bool pf_stderr_is_terminal(void);
/* A line that replaces itself on a terminal; elsewhere one line every ten seconds (`final` always
 * prints). */
void pf_log_progress(bool final, const char *fmt, ...) PEFT_PRINTF(2, 3);

#endif

/* log.c - messages for people; see log.h. */
#include "base/log.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int level_shown = PF_LOG_INFO;
static int file_fd = -1;
static void (*sink_fn)(void *, pf_log_level, const char *);
static void *sink_ctx;
static bool progress_on_line; /* a progress line stands unfinished on the terminal */
static double progress_time;

void pf_log_set_level(pf_log_level level) {
    level_shown = level;
}

pf_log_level pf_log_get_level(void) {
    return (pf_log_level)level_shown;
}

void pf_log_set_file(int fd) {
    pthread_mutex_lock(&lock);
    file_fd = fd;
    pthread_mutex_unlock(&lock);
}

void pf_log_set_sink(void (*sink)(void *, pf_log_level, const char *), void *ctx) {
    pthread_mutex_lock(&lock);
    sink_fn = sink;
    sink_ctx = ctx;
    pthread_mutex_unlock(&lock);
}

bool pf_stderr_is_terminal(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && !(term != NULL && strcmp(term, "dumb") == 0);
}

static bool use_colour(void) {
    const char *no = getenv("NO_COLOR");
    return (no == NULL || no[0] == '\0') && pf_stderr_is_terminal();
}

static void to_file(const char *text) {
    if (file_fd < 0) return;
    char when[32];
    pf_wall_iso(when, sizeof when);
    dprintf(file_fd, "%s %s\n", when, text);
}

/* Names from files stand in messages; they must not steer the reader's terminal. */
static void without_controls(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++) {
        bool c1 = p[0] == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0; /* U+0080 to U+009F */
        if ((*p < ' ' && *p != '\n' && *p != '\t') || *p == 0x7F) *p = '?';
        if (c1) p[0] = p[1] = '?';
    }
}

void pf_log(pf_log_level level, const char *fmt, ...) {
    if ((int)level > level_shown) return;
    char text[8192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    without_controls(text);

    static const char *const words[] = {"error: ", "warning: ", "", ""};
    static const char *const colours[] = {"\033[31m", "\033[33m", "", "\033[2m"};
    pthread_mutex_lock(&lock);
    if (sink_fn != NULL) {
        sink_fn(sink_ctx, level, text);
    } else {
        bool colour = colours[level][0] != '\0' && use_colour();
        fprintf(stderr, "%s%s%s%s%s\n", progress_on_line ? "\r\033[K" : "",
                colour ? colours[level] : "", words[level], text, colour ? "\033[0m" : "");
        progress_on_line = false;
    }
    to_file(text);
    pthread_mutex_unlock(&lock);
}

void pf_log_progress(bool final, const char *fmt, ...) {
    if (level_shown < PF_LOG_INFO) return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    without_controls(text);
    pthread_mutex_lock(&lock);
    bool terminal = sink_fn == NULL && pf_stderr_is_terminal();
    double now = pf_now();
    if (!final && progress_time > 0 && now - progress_time < (terminal ? 0.1 : 10.0)) {
        pthread_mutex_unlock(&lock);
        return;
    }
    progress_time = now;
    if (sink_fn != NULL) {
        sink_fn(sink_ctx, PF_LOG_INFO, text);
    } else if (terminal) {
        fprintf(stderr, "\r\033[K%s%s", text, final ? "\n" : "");
        fflush(stderr);
        progress_on_line = !final;
    } else {
        fprintf(stderr, "%s\n", text);
    }
    pthread_mutex_unlock(&lock);
}

/* progress.c - see progress.h; format_meter and EMA of tqdm 4. */
#include "train/progress.h"

#include "base/clock.h"
#include "base/log.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAR       10
#define SMOOTHING 0.3

static bool locale_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *v = getenv(names[i]);
        if (v == NULL || v[0] == '\0') continue;
        return strstr(v, "UTF-8") != NULL || strstr(v, "utf8") != NULL ||
               strstr(v, "utf-8") != NULL || strstr(v, "UTF8") != NULL;
    }
    return false;
}

void pf_progress_begin(pf_progress *p, const char *what, const char *unit, int64_t initial,
                       int64_t total) {
    *p = (pf_progress){
        .what = what, .unit = unit, .initial = initial, .done = initial, .total = total};
    p->start = p->last = pf_now();
    p->ascii = !locale_is_utf8();
}

static void bar(char *out, size_t n, double share, bool ascii) {
    static const char *const eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    static const char *const tenths[] = {" ", "1", "2", "3", "4", "5", "6", "7", "8", "9", "#"};
    const char *const *marks = ascii ? tenths : eighths;
    int steps = ascii ? 10 : 8, filled = (int)(share * BAR * steps);
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; i < BAR; i++) {
        int mark = filled - i * steps;
        if (mark < 0) mark = 0;
        if (mark > steps) mark = steps;
        int len = snprintf(out + at, n - at, "%s", marks[mark]);
        at += len > 0 && (size_t)len < n - at ? (size_t)len : 0;
    }
}

static const char *interval(double seconds, char *out, size_t n) {
    return pf_format_seconds(floor(seconds), out, n); /* tqdm cuts off */
}

void pf_progress_format(char *out, size_t n, const pf_progress *p, double elapsed, double rate) {
    if (!(rate > 0) && elapsed > 0) rate = (double)(p->done - p->initial) / elapsed;
    char speed[48], gone[32], left[32], blocks[64];
    if (!(rate > 0))
        snprintf(speed, sizeof speed, "?%s/s", p->unit);
    else if (rate >= 1)
        snprintf(speed, sizeof speed, "%5.2f%s/s", rate, p->unit);
    else
        snprintf(speed, sizeof speed, "%5.2fs/%s", 1 / rate, p->unit);
    double share = p->total > 0 ? (double)p->done / (double)p->total : 0;
    if (share > 1) share = 1;
    bar(blocks, sizeof blocks, share, p->ascii);
    if (rate > 0)
        interval((double)(p->total > p->done ? p->total - p->done : 0) / rate, left, sizeof left);
    else
        snprintf(left, sizeof left, "?");
    snprintf(out, n, "%s: %3.0f%%|%s| %lld/%lld [%s<%s, %s%s%s]", p->what, 100 * share, blocks,
             (long long)p->done, (long long)p->total, interval(elapsed, gone, sizeof gone), left,
             speed, p->postfix[0] != '\0' ? ", " : "", p->postfix);
}

static void show(pf_progress *p, bool final) {
    double rate = 0;
    if (p->updates > 0) rate = p->ema_n / p->ema_t; /* both have the same bias, it cancels */
    char line[512];
    pf_progress_format(line, sizeof line, p, pf_now() - p->start, final ? 0 : rate);
    pf_log_progress(final, "%s", line);
}

void pf_progress_set(pf_progress *p, int64_t done, const char *fmt, ...) {
    if (fmt != NULL) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(p->postfix, sizeof p->postfix, fmt, ap);
        va_end(ap);
    }
    double now = pf_now();
    if (done > p->done && now > p->last) {
        p->ema_n = SMOOTHING * (double)(done - p->done) + (1 - SMOOTHING) * p->ema_n;
        p->ema_t = SMOOTHING * (now - p->last) + (1 - SMOOTHING) * p->ema_t;
        p->updates++;
        p->last = now;
    }
    p->done = done;
    show(p, false);
}

void pf_progress_end(pf_progress *p) {
    show(p, true);
}

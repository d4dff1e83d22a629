/* progress.h - one line that says how far a loop is, in tqdm's words:
 *
 *   Training:  45%|████▌     | 450/1000 [02:15<02:45,  3.33it/s, loss=1.23, lr=1.8e-4]
 *
 * It goes through pf_log_progress, which rewrites it in place on a terminal and prints one every
 * ten seconds elsewhere. The rate is tqdm's moving average. Blocks are drawn with # where the
 * locale is not UTF-8. */
#ifndef PF_PROGRESS_H
#define PF_PROGRESS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pf_progress {
    const char *what, *unit; /* "Training", "it"; borrowed */
    int64_t total, initial, done;
    double start, last; /* pf_now() */
    double ema_n, ema_t;
    int updates;
    bool ascii;
    char postfix[256];
} pf_progress;

/* `initial`: done before, by the run that is resumed; it counts for the bar, not for the rate. */
void pf_progress_begin(pf_progress *p, const char *what, const char *unit, int64_t initial,
                       int64_t total);
/* fmt: what stands behind the rate ("loss=%.4g, lr=%.3g"); NULL keeps it. */
void pf_progress_set(pf_progress *p, int64_t done, const char *fmt, ...) PEFT_PRINTF(3, 4);
void pf_progress_end(pf_progress *p); /* the line stays */

/* The line itself. rate 0: not known yet. */
void pf_progress_format(char *out, size_t n, const pf_progress *p, double elapsed, double rate);

#endif

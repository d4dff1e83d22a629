/* svg_chart.h - a line chart as inline SVG: axes with round numbers, a legend, a few lines.
 *
 * Text and colours come from the page's style sheet (classes s0, s1, ... for the lines). A value
 * that is not finite makes a gap. Lines of more than PF_CHART_POINTS points are thinned so that the
 * smallest and the largest of each part stay. */
#ifndef PF_SVG_CHART_H
#define PF_SVG_CHART_H

#include "base/arena.h"
#include "base/buf.h"

#define PF_CHART_POINTS 1000

typedef struct pf_chart_line {
    const char *name;
    const double *x, *y;
    int n;
    bool dots; /* a mark at each point (for few points) */
} pf_chart_line;

/* Appends <figure>...</figure>; nothing when no line has a finite point. The title and the names
 * are escaped here. */
peft_status pf_svg_chart(pf_buf *out, pf_arena *a, const char *title, const pf_chart_line *lines,
                         int n_lines, peft_error *err);

/* Text as HTML: the five characters with a meaning escaped, control characters (but tab and line
 * end) and bytes that are not UTF-8 shown as U+FFFD. */
void pf_html_add(pf_buf *out, const char *s, size_t n);
void pf_html_adds(pf_buf *out, const char *s);

/* At most n_max round numbers (1, 2 or 5 times a power of ten apart) from lo to hi; returns how
 * many.
 */
int pf_chart_ticks(double lo, double hi, int n_max, double *ticks);

#endif

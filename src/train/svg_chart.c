/* svg_chart.c - see svg_chart.h. */
#include "train/svg_chart.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

#define WIDTH  720
#define HEIGHT 240
#define LEFT   64
#define RIGHT  12
#define TOP    10
#define BOTTOM 26
#define TICKS  12

void pf_html_add(pf_buf *out, const char *s, size_t n) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = pf_utf8_decode(s + i, n - i, &cp);
        bool shown =
            len > 0 && (cp >= 0x20 || cp == '\n' || cp == '\t') && !(cp >= 0x7F && cp < 0xA0);
        if (!shown)
            pf_buf_adds(out, "\xEF\xBF\xBD");
        else if (cp == '&')
            pf_buf_adds(out, "&amp;");
        else if (cp == '<')
            pf_buf_adds(out, "&lt;");
        else if (cp == '>')
            pf_buf_adds(out, "&gt;");
        else if (cp == '"')
            pf_buf_adds(out, "&quot;");
        else if (cp == '\'')
            pf_buf_adds(out, "&#39;");
        else
            pf_buf_add(out, s + i, (size_t)len);
        i += len > 0 ? (size_t)len : 1;
    }
}

void pf_html_adds(pf_buf *out, const char *s) {
    if (s != NULL) pf_html_add(out, s, strlen(s));
}

int pf_chart_ticks(double lo, double hi, int n_max, double *ticks) {
    if (!(hi > lo) || n_max < 2) return 0;
    double unit = pow(10, floor(log10((hi - lo) / n_max)));
    static const double steps[] = {1, 2, 5, 10, 20};
    for (size_t k = 0; k < PF_COUNT(steps); k++) {
        double step = unit * steps[k], first = ceil(lo / step - 1e-9) * step;
        double count = floor((hi - first) / step + 1e-9) + 1;
        if (!(count >= 0 && count <= n_max)) continue; /* NaN where the step underflows */
        int n = (int)count;
        for (int i = 0; i < n; i++) {
            ticks[i] = first + i * step;
            if (fabs(ticks[i]) < step * 1e-9) ticks[i] = 0;
        }
        return n;
    }
    return 0;
}

typedef struct frame {
    double x0, x1, y0, y1;
} frame;

static double px(const frame *f, double x) {
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double py(const frame *f, double y) {
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

static bool fit(frame *f, const pf_chart_line *lines, int n_lines) {
    *f = (frame){INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int k = 0; k < n_lines; k++) {
        for (int i = 0; i < lines[k].n; i++) {
            double x = lines[k].x[i], y = lines[k].y[i];
            if (!isfinite(x) || !isfinite(y)) continue;
            f->x0 = fmin(f->x0, x);
            f->x1 = fmax(f->x1, x);
            f->y0 = fmin(f->y0, y);
            f->y1 = fmax(f->y1, y);
        }
    }
    if (!(f->x1 >= f->x0)) return false;
    if (f->x1 == f->x0) {
        f->x0 -= 1;
        f->x1 += 1;
    }
    /* A scale from zero where the values reach near it, else one that shows the differences. */
    if (f->y0 >= 0 && f->y0 < 0.3 * f->y1) f->y0 = 0;
    double pad = (f->y1 - f->y0) * 0.05;
    if (f->y1 == f->y0) pad = f->y1 != 0 ? fabs(f->y1) * 0.1 : 1;
    if (f->y0 != 0) f->y0 -= pad;
    f->y1 += pad;
    return isfinite(f->y1 - f->y0) && isfinite(f->x1 - f->x0);
}

static void add_axes(pf_buf *out, const frame *f) {
    double ticks[TICKS];
    int n = pf_chart_ticks(f->y0, f->y1, 6, ticks);
    for (int i = 0; i < n; i++) {
        double y = py(f, ticks[i]);
        pf_buf_addf(out,
                    "<line class=\"grid\" x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\"/>"
                    "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>",
                    LEFT, y, WIDTH - RIGHT, y, LEFT - 6, y + 4, ticks[i]);
    }
    n = pf_chart_ticks(f->x0, f->x1, 8, ticks);
    for (int i = 0; i < n; i++) {
        pf_buf_addf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.6g</text>",
                    px(f, ticks[i]), HEIGHT - 8, ticks[i]);
    }
}

/* Indices to draw, into keep: all, or the smallest and the largest of each of PF_CHART_POINTS / 2
 * parts. */
static int thin(const pf_chart_line *l, int *keep) {
    int n = 0;
    if (l->n <= PF_CHART_POINTS) {
        for (; n < l->n; n++) keep[n] = n;
        return n;
    }
    int parts = PF_CHART_POINTS / 2;
    for (int p = 0; p < parts; p++) {
        int from = (int)((int64_t)p * l->n / parts), to = (int)((int64_t)(p + 1) * l->n / parts);
        int lo = from, hi = from;
        for (int i = from; i < to; i++) {
            if (l->y[i] < l->y[lo] || isnan(l->y[lo])) lo = i;
            if (l->y[i] > l->y[hi] || isnan(l->y[hi])) hi = i;
        }
        keep[n++] = lo < hi ? lo : hi;
        if (lo != hi) keep[n++] = lo < hi ? hi : lo;
    }
    return n;
}

static void add_line(pf_buf *out, const frame *f, const pf_chart_line *l, int index, int *keep) {
    int n = thin(l, keep);
    bool open = false;
    for (int i = 0; i < n; i++) {
        double x = l->x[keep[i]], y = l->y[keep[i]];
        if (!isfinite(x) || !isfinite(y)) {
            if (open) pf_buf_adds(out, "\"/>");
            open = false;
            continue;
        }
        if (!open) pf_buf_addf(out, "<polyline class=\"s%d\" points=\"", index);
        open = true;
        pf_buf_addf(out, "%.1f,%.1f ", px(f, x), py(f, y));
    }
    if (open) pf_buf_adds(out, "\"/>");
    for (int i = 0; i < n && l->dots; i++) {
        double x = l->x[keep[i]], y = l->y[keep[i]];
        if (!isfinite(x) || !isfinite(y)) continue;
        pf_buf_addf(out, "<circle class=\"s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", index,
                    px(f, x), py(f, y));
        pf_html_adds(out, l->name);
        pf_buf_addf(out, " %.6g at step %.6g</title></circle>", y, x);
    }
}

peft_status pf_svg_chart(pf_buf *out, pf_arena *a, const char *title, const pf_chart_line *lines,
                         int n_lines, peft_error *err) {
    frame f;
    if (!fit(&f, lines, n_lines)) return PEFT_OK;
    int *keep = PF_NEW_ARRAY(a, int, PF_CHART_POINTS);
    PF_CHECK_ALLOC(keep, err);
    pf_buf_adds(out, "<figure><figcaption>");
    pf_html_adds(out, title);
    for (int k = 0; k < n_lines; k++) {
        pf_buf_addf(out, " <span class=\"key k%d\">", k);
        pf_html_adds(out, lines[k].name);
        pf_buf_adds(out, "</span>");
    }
    pf_buf_addf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\">", WIDTH, HEIGHT);
    add_axes(out, &f);
    for (int k = 0; k < n_lines; k++) add_line(out, &f, &lines[k], k, keep);
    pf_buf_adds(out, "</svg></figure>\n");
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

/* report.c - see report.h. */
#include "train/report.h"

#include "train/svg_chart.h"

#include <math.h>
#include <string.h>

#define MAX_EVALS  200 /* rows of the table */
#define MAX_NAMES  40
#define MAX_ANSWER 2000 /* bytes shown of a text */

// clang-format off
static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
static const char style[] =
    "</title>\n<style>\n"
    ":root{--bg:#fff;--fg:#1c2024;--dim:#667;--line:#dde;--box:#f4f6f8;--c0:#1f6feb;--c1:#d9480f;--c2:#2b8a3e;--c3:#862e9c}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e4e7eb;--dim:#99a;--line:#333a42;--box:#1e2329;"
    "--c0:#6cb0ff;--c1:#ff9f6b;--c2:#7bd88f;--c3:#d9a0f0}}\n"
    "body{margin:2rem auto;padding:0 1rem;max-width:60rem;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}\n"
    ".say{background:var(--box);border-left:4px solid var(--c0);padding:.6rem 1rem;border-radius:4px}.say p{margin:.3rem 0}\n"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.25rem .6rem;text-align:right;"
    "border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}.best td{font-weight:600}\n"
    ".wide{overflow-x:auto}td.t{text-align:left;white-space:pre-wrap;overflow-wrap:anywhere;vertical-align:top}\n"
    "figure{margin:1rem 0}svg{width:100%;height:auto}svg text{fill:var(--dim);font-size:11px}.grid{stroke:var(--line)}\n"
    "polyline{fill:none;stroke-width:1.5;stroke-linejoin:round}circle{stroke:none}\n"
    "polyline.s0{stroke:var(--c0)}polyline.s1{stroke:var(--c1)}polyline.s2{stroke:var(--c2)}polyline.s3{stroke:var(--c3)}\n"
    "circle.s0{fill:var(--c0)}circle.s1{fill:var(--c1)}circle.s2{fill:var(--c2)}circle.s3{fill:var(--c3)}\n"
    ".key{margin-left:1rem;color:var(--dim)}.key::before{content:\"\";display:inline-block;width:1em;height:3px;"
    "margin-right:.4em;vertical-align:middle;background:currentColor}.k0{color:var(--c0)}.k1{color:var(--c1)}.k2{color:var(--c2)}.k3{color:var(--c3)}\n"
    "pre{background:var(--box);padding:1rem;overflow-x:auto;font-size:13px;border-radius:4px}.dim{color:var(--dim)}\n"
    "</style></head><body>\n";
// clang-format on

typedef struct page {
    pf_buf *out;
    pf_arena *a;
    const pf_report_cfg *cfg;
} page;

/* ---- curves -------------------------------------------------------------------------------------
 */

/* The points at which a metric was logged. */
static peft_status line_of(const page *p, const char *metric, const char *name, bool dots,
                           pf_chart_line *line, peft_error *err) {
    const pf_trainer_state *s = p->cfg->state;
    double *x = PF_NEW_ARRAY(p->a, double, s->n_rows), *y = PF_NEW_ARRAY(p->a, double, s->n_rows);
    PF_CHECK_ALLOC(x, err);
    PF_CHECK_ALLOC(y, err);
    *line = (pf_chart_line){.name = name, .x = x, .y = y, .dots = dots};
    for (int64_t i = 0; i < s->n_rows && line->n < INT32_MAX; i++) {
        double v;
        if (!pf_log_row_value(s, &s->rows[i], metric, &v)) continue;
        x[line->n] = (double)s->rows[i].step;
        y[line->n++] = v;
    }
    return PEFT_OK;
}

typedef struct curve {
    const char *metric, *name;
    bool dots;
} curve;

static peft_status add_chart(const page *p, const char *title, const curve *curves, int n,
                             peft_error *err) {
    pf_chart_line lines[4];
    int used = 0;
    for (int i = 0; i < n; i++) {
        PF_TRY(line_of(p, curves[i].metric, curves[i].name, curves[i].dots, &lines[used], err));
        if (lines[used].n > 0) used++;
    }
    return pf_svg_chart(p->out, p->a, title, lines, used, err);
}

static peft_status add_charts(const page *p, peft_error *err) {
    static const curve loss[] = {{"loss", "training", false}, {"eval_loss", "validation", true}};
    static const curve scores[] = {{"eval_exact_match", "exact match", true},
                                   {"eval_f1", "F1", true},
                                   {"eval_bleu", "BLEU", true}};
    static const curve accuracy[] = {{"eval_token_accuracy", "token accuracy", true},
                                     {"eval_accuracy", "accuracy of classes", true}};
    static const curve numbers[] = {{"eval_pearson", "Pearson", true},
                                    {"eval_spearmanr", "Spearman", true}};
    static const curve rate[] = {{"learning_rate", "learning rate", false}};
    static const curve norm[] = {{"grad_norm", "gradient norm", false}};
    pf_buf_adds(p->out, "<h2>Curves <span class=\"dim\">(over optimizer steps)</span></h2>\n");
    PF_TRY(add_chart(p, "Loss", loss, 2, err));
    PF_TRY(add_chart(p, "Answers, %", scores, 3, err));
    PF_TRY(add_chart(p, "Accuracy", accuracy, 2, err));
    PF_TRY(add_chart(p, "Correlation", numbers, 2, err));
    PF_TRY(add_chart(p, "Learning rate", rate, 1, err));
    return add_chart(p, "Gradient norm before clipping", norm, 1, err);
}

/* ---- tables -------------------------------------------------------------------------------------
 */

static void add_number(pf_buf *out, double v) {
    if (isfinite(v) && v == floor(v) && fabs(v) < 1e15)
        pf_buf_addf(out, "%.0f", v);
    else
        pf_buf_addf(out, "%.5g", v);
}

static bool is_eval(const pf_trainer_state *s, const pf_log_row *row) {
    for (int i = 0; i < row->n; i++) {
        if (pf_starts_with(s->metrics[row->first + i].name, "eval_")) return true;
    }
    return false;
}

static void add_evals(const page *p) {
    const pf_trainer_state *s = p->cfg->state;
    const char *names[MAX_NAMES];
    int n_names = 0;
    int64_t n = 0;
    for (int i = 0; i < s->names.n && n_names < MAX_NAMES; i++) {
        if (pf_starts_with(s->names.items[i], "eval_")) names[n_names++] = s->names.items[i];
    }
    for (int64_t i = 0; i < s->n_rows; i++) n += is_eval(s, &s->rows[i]);
    if (n_names == 0 || n == 0) return;
    pf_buf_adds(p->out, "<h2>Evaluations</h2>\n<div class=\"wide\"><table><tr><th>step</th>"
                        "<th>epoch</th>");
    for (int k = 0; k < n_names; k++) {
        pf_buf_adds(p->out, "<th>");
        pf_html_adds(p->out, names[k] + strlen("eval_"));
        pf_buf_adds(p->out, "</th>");
    }
    pf_buf_adds(p->out, "</tr>\n");
    int64_t skip = n > MAX_EVALS ? n - MAX_EVALS : 0, at = 0;
    for (int64_t i = 0; i < s->n_rows; i++) {
        const pf_log_row *row = &s->rows[i];
        if (!is_eval(s, row) || at++ < skip) continue;
        bool best = s->has_best && row->step == s->best_global_step;
        pf_buf_addf(p->out, "<tr%s><td>%lld%s</td><td>%.3g</td>", best ? " class=\"best\"" : "",
                    (long long)row->step, best ? " (best)" : "", row->epoch);
        for (int k = 0; k < n_names; k++) {
            double v;
            pf_buf_adds(p->out, "<td>");
            if (pf_log_row_value(s, row, names[k], &v)) add_number(p->out, v);
            pf_buf_adds(p->out, "</td>");
        }
        pf_buf_adds(p->out, "</tr>\n");
    }
    pf_buf_adds(p->out, "</table></div>\n");
    if (skip > 0)
        pf_buf_addf(p->out, "<p class=\"dim\">The first %lld are in metrics.jsonl.</p>\n",
                    (long long)skip);
}

static void add_cell(pf_buf *out, const char *text) {
    size_t n = text != NULL ? strlen(text) : 0, shown = n;
    if (shown > MAX_ANSWER) { /* not inside a character */
        shown = MAX_ANSWER;
        while (shown > 0 && ((unsigned char)text[shown] & 0xC0) == 0x80) shown--;
    }
    pf_buf_adds(out, "<td class=\"t\">");
    if (n > 0) pf_html_add(out, text, shown);
    pf_buf_adds(out, shown < n ? " …</td>" : "</td>");
}

static void add_answers(const page *p) {
    if (p->cfg->n_answers == 0) return;
    pf_buf_adds(p->out, "<h2>Answers of the last evaluation</h2>\n<div class=\"wide\"><table><tr>"
                        "<th>prompt</th><th>expected</th><th>answer</th><th>exact</th></tr>\n");
    for (int i = 0; i < p->cfg->n_answers; i++) {
        const pf_report_answer *r = &p->cfg->answers[i];
        pf_buf_adds(p->out, "<tr>");
        add_cell(p->out, r->prompt);
        add_cell(p->out, r->target);
        add_cell(p->out, r->answer);
        pf_buf_adds(p->out, r->exact ? "<td>yes</td></tr>\n" : "<td>no</td></tr>\n");
    }
    pf_buf_adds(p->out, "</table></div>\n");
}

static void add_facts(const page *p) {
    const pf_trainer_state *s = p->cfg->state;
    pf_buf_adds(p->out, "<table>");
    for (int i = 0; i < p->cfg->n_facts; i++) {
        pf_buf_adds(p->out, "<tr><td>");
        pf_html_adds(p->out, p->cfg->facts[i].name);
        pf_buf_adds(p->out, "</td><td class=\"t\">");
        pf_html_adds(p->out, p->cfg->facts[i].value);
        pf_buf_adds(p->out, "</td></tr>\n");
    }
    pf_buf_addf(p->out, "<tr><td>steps</td><td class=\"t\">%lld of %lld (epoch %.3g)</td></tr>\n",
                (long long)s->global_step, (long long)s->max_steps, s->epoch);
    if (s->has_best) {
        pf_buf_adds(p->out, "<tr><td>best evaluation</td><td class=\"t\">");
        add_number(p->out, s->best_metric);
        pf_buf_addf(p->out, " at step %lld</td></tr>\n", (long long)s->best_global_step);
    }
    pf_buf_adds(p->out, "</table>\n");
}

static void add_text(const page *p, const char *title, const char *text) {
    if (text == NULL) return;
    pf_buf_addf(p->out, "<details><summary>%s</summary><pre>", title);
    pf_html_adds(p->out, text);
    pf_buf_adds(p->out, "</pre></details>\n");
}

static peft_status add_page(const page *p, peft_error *err) {
    const pf_report_cfg *cfg = p->cfg;
    pf_buf_adds(p->out, head);
    pf_html_adds(p->out, cfg->title);
    pf_buf_adds(p->out, style);
    pf_buf_adds(p->out, "<h1>");
    pf_html_adds(p->out, cfg->title);
    pf_buf_adds(p->out, "</h1>\n");
    if (cfg->diagnosis != NULL) {
        pf_buf_adds(p->out, "<div class=\"say\"><p><strong>The loss curve: ");
        pf_html_adds(p->out, cfg->diagnosis->title);
        pf_buf_adds(p->out, ".</strong></p><p>");
        pf_html_adds(p->out, cfg->diagnosis->shows);
        pf_buf_adds(p->out, "</p><p>");
        pf_html_adds(p->out, cfg->diagnosis->advice);
        pf_buf_adds(p->out, "</p></div>\n");
    }
    add_facts(p);
    PF_TRY(add_charts(p, err));
    add_evals(p);
    add_answers(p);
    pf_buf_adds(p->out, "<h2>Records</h2>\n");
    add_text(p, "Configuration as understood, with the origin of each value", cfg->config_text);
    add_text(p, "Environment", cfg->environment_text);
    pf_buf_adds(p->out, "<p class=\"dim\">Every logged value is in metrics.jsonl. Written by "
                        "peft-toolkit " PEFT_VERSION ".</p>\n</body></html>\n");
    return pf_buf_ok(p->out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status pf_report_html(pf_buf *out, const pf_report_cfg *cfg, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "report");
    peft_status status = add_page(&(page){.out = out, .a = &a, .cfg = cfg}, err);
    pf_arena_release(&a);
    return status;
}

/* report.html: one closed page, nothing from outside, whatever the texts are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "train/report.h"
#include "train/svg_chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Every tag that is opened is closed in order, and attributes are quoted. */
static void well_formed(const char *html) {
    char stack[64][16];
    int depth = 0;
    for (const char *p = html; *p != '\0'; p++) {
        if (*p != '<' || p[1] == '!') continue;
        bool closing = p[1] == '/';
        const char *name = p + 1 + closing;
        size_t n = strcspn(name, " />\n");
        assert_true(n > 0 && n < 16);
        const char *end = name;
        for (bool quoted = false; *end != '>' || quoted; end++) {
            assert_true(*end != '\0');
            assert_true(*end != '<'); /* not inside a tag */
            if (*end == '"') quoted = !quoted;
        }
        bool empty = end[-1] == '/' || (n == 4 && memcmp(name, "meta", 4) == 0);
        if (closing) {
            assert_true(depth > 0);
            depth--;
            if (strlen(stack[depth]) != n || memcmp(stack[depth], name, n) != 0)
                fail_msg("</%.*s> closes <%s>", (int)n, name, stack[depth]);
        } else if (!empty) {
            assert_true(depth < 64);
            memcpy(stack[depth], name, n);
            stack[depth++][n] = '\0';
        }
        p = end;
    }
    assert_int_equal(depth, 0);
}

static void nothing_from_outside(const char *html) {
    static const char *const words[] = {"http:",   "https:",  "src=", "href=", "url(",  "@import",
                                        "<script", "<iframe", "<img", "<link", "onload"};
    for (size_t i = 0; i < PF_COUNT(words); i++) {
        if (strstr(html, words[i]) != NULL) fail_msg("%s", words[i]);
    }
    assert_non_null(strstr(html, "default-src 'none'"));
}

static void fill(pf_trainer_state *s, pf_arena *a, int n) {
    pf_trainer_state_init(s, a);
    s->max_steps = s->global_step = n;
    s->epoch = 3;
    for (int i = 1; i <= n; i++) {
        pf_metric m[] = {{"loss", i == 7 ? NAN : 2.5 * exp(-i * 2.0 / n), 0},
                         {"learning_rate", 2e-4 * (n - i) / n, 0},
                         {"grad_norm", 0.5, 0}};
        pf_trainer_state_log(s, &(pf_metric_row){i, 3.0 * i / n, m, 3}, NULL);
        pf_metric e[] = {{"eval_loss", 2.6 * exp(-i * 1.8 / n), 0},
                         {"eval_exact_match", 80.0 * i / n, 0}};
        if (i % (n / 5) == 0) pf_trainer_state_log(s, &(pf_metric_row){i, 3.0 * i / n, e, 2}, NULL);
    }
    s->has_best = true;
    s->best_metric = 80;
    s->best_global_step = n;
}

static void a_page_holds_the_run(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    fill(&s, &a, 50);
    pf_diagnosis d = {.title = "falls steadily", .shows = "From 2 to 1.", .advice = "Nothing."};
    const pf_named_text facts[] = {{"model", "smol"}, {"method", "lora r=8"}};
    const pf_report_answer answers[] = {{"Q: capital of France?\nA:", "Paris", "Paris", true},
                                        {"Q: 1+1", "2", "3", false}};
    const pf_report_cfg cfg = {.title = "outputs/qa",
                               .state = &s,
                               .diagnosis = &d,
                               .facts = facts,
                               .n_facts = 2,
                               .answers = answers,
                               .n_answers = 2,
                               .config_text = "{\"seed\": 42}",
                               .environment_text = "{}"};
    pf_buf out = {0};
    assert_int_equal(pf_report_html(&out, &cfg, NULL), PEFT_OK);
    well_formed(out.data);
    nothing_from_outside(out.data);
    static const char *const there[] = {
        "<title>outputs/qa</title>",
        "The loss curve: falls steadily.",
        "From 2 to 1.",
        "lora r=8",
        "50 of 50 (epoch 3)",
        "<tr class=\"best\"><td>50 (best)</td><td>3</td><td>0.42978</td><td>80</td></tr>",
        "<td class=\"t\">Q: capital of France?\nA:</td><td class=\"t\">Paris</td>",
        "{&quot;seed&quot;: 42}",
        "80 at step 50",
        "eval",
        ">exact match 16 at step 10</title>"};
    for (size_t i = 0; i < PF_COUNT(there); i++) {
        if (strstr(out.data, there[i]) == NULL) fail_msg("%s", there[i]);
    }
    int charts = 0, lines = 0;
    for (const char *p = out.data; (p = strstr(p, "<svg ")) != NULL; p++) charts++;
    for (const char *p = out.data; (p = strstr(p, "<polyline ")) != NULL; p++) lines++;
    assert_int_equal(charts, 4); /* loss, answers, rate, norm; no token accuracy was logged */
    assert_int_equal(lines, 6);  /* the NaN cuts the training loss in two */
    pf_buf_free(&out);
    pf_arena_release(&a);
}

static void hostile_texts_are_only_text(void **state) {
    (void)state;
    static const char evil[] = "</pre><script>alert(1)</script><img src=x onerror=\"a\"> & ' \" "
                               "\x1b[31m \xFF \x01 --> ]]> &lt; \xC2\x9B";
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    pf_trainer_state_init(&s, &a);
    pf_metric m[] = {{"eval_<b>", 1, 0}, {"loss", 2, 0}};
    pf_trainer_state_log(&s, &(pf_metric_row){1, 1, m, 2}, NULL);
    pf_diagnosis d = {.title = evil, .shows = evil, .advice = evil};
    const pf_named_text fact = {evil, evil};
    const pf_report_answer answer = {evil, evil, evil, false};
    const pf_report_cfg cfg = {evil, &s, &d, &fact, 1, &answer, 1, evil, evil};
    pf_buf out = {0};
    assert_int_equal(pf_report_html(&out, &cfg, NULL), PEFT_OK);
    well_formed(out.data);
    assert_null(strstr(out.data, "<script"));
    assert_null(strstr(out.data, "<img"));
    assert_null(strstr(out.data, "<b>"));
    assert_null(strchr(out.data, 0x1b));
    assert_true(pf_utf8_valid(out.data, out.len, NULL));
    assert_non_null(strstr(out.data, "&lt;script&gt;alert(1)&lt;/script&gt;"));
    pf_buf_free(&out);
    pf_arena_release(&a);
}

static void odd_curves_do_no_harm(void **state) {
    (void)state;
    static const double odd[][4] = {
        {NAN, NAN, NAN, NAN}, {1, 1, 1, 1},        {0, 0, 0, 0},     {1e308, -1e308, 1, 2},
        {1e-300, 0, 0, 0},    {INFINITY, 1, 2, 3}, {-5, -4, -3, -2}, {1e15, 1e15 + 1, 1e15, 1e15}};
    const double x[] = {1, 2, 3, 4};
    pf_arena a;
    pf_arena_init(&a, "test");
    for (size_t i = 0; i < PF_COUNT(odd); i++) {
        for (int n = 0; n <= 4; n++) {
            pf_buf out = {0};
            pf_chart_line line = {.name = "a<b", .x = x, .y = odd[i], .n = n, .dots = true};
            assert_int_equal(pf_svg_chart(&out, &a, "t", &line, 1, NULL), PEFT_OK);
            well_formed(pf_buf_str(&out));
            assert_null(strstr(pf_buf_str(&out), "nan"));
            assert_null(strstr(pf_buf_str(&out), "inf"));
            pf_buf_free(&out);
        }
    }
    pf_arena_release(&a);
}

static void long_curves_are_thinned_but_keep_their_spikes(void **state) {
    (void)state;
    enum { N = 100000 };
    pf_arena a;
    pf_arena_init(&a, "test");
    double *x = PF_NEW_ARRAY(&a, double, N), *y = PF_NEW_ARRAY(&a, double, N);
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = 1;
    }
    y[77777] = 3; /* the top of the frame is 3.1 of 3.1: its place is near the upper edge */
    pf_buf out = {0};
    pf_chart_line line = {.name = "loss", .x = x, .y = y, .n = N};
    assert_int_equal(pf_svg_chart(&out, &a, "t", &line, 1, NULL), PEFT_OK);
    assert_true(out.len < 40000);
    char want[32];
    snprintf(want, sizeof want, "%.1f,", 64 + 77777.0 / (N - 1) * (720 - 64 - 12));
    assert_non_null(strstr(out.data, want));
    pf_buf_free(&out);
    pf_arena_release(&a);
}

static void ticks_are_round(void **state) {
    (void)state;
    static const struct {
        double lo, hi;
        int n;
        double first, step;
    } rows[] = {{0, 1, 6, 0, 0.2},
                {0, 100, 6, 0, 20},
                {0.93, 1.07, 8, 0.94, 0.02},
                {-3, 3, 7, -3, 1},
                {1, 1000, 5, 200, 200},
                {2e-5, 2e-4, 10, 2e-5, 2e-5},
                {1e15, 1e15 + 40, 5, 1e15, 10}};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        double ticks[16];
        int n = pf_chart_ticks(rows[i].lo, rows[i].hi, rows[i].n, ticks);
        assert_true(n >= 2 && n <= rows[i].n);
        for (int k = 0; k < n; k++) {
            double want = rows[i].first + k * rows[i].step;
            if (fabs(ticks[k] - want) > 1e-9 * rows[i].step + 1e-12 * fabs(want))
                fail_msg("%g..%g: tick %d is %.17g", rows[i].lo, rows[i].hi, k, ticks[k]);
        }
    }
    double ticks[4];
    assert_int_equal(pf_chart_ticks(1, 1, 4, ticks), 0);
    assert_int_equal(pf_chart_ticks(NAN, 1, 4, ticks), 0);
}

static void memory_failures_are_reported(void **state) {
    (void)state;
    pf_arena a;
    pf_arena_init(&a, "test");
    pf_trainer_state s;
    fill(&s, &a, 20);
    const pf_report_cfg cfg = {.title = "x", .state = &s};
    for (int n = 1;; n++) {
        pf_buf out = {0};
        pf_alloc_fail_at(n);
        peft_status status = pf_report_html(&out, &cfg, NULL);
        pf_alloc_fail_at(0);
        pf_buf_free(&out);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_holds_the_run),
        cmocka_unit_test(hostile_texts_are_only_text),
        cmocka_unit_test(odd_curves_do_no_harm),
        cmocka_unit_test(long_curves_are_thinned_but_keep_their_spikes),
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(memory_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

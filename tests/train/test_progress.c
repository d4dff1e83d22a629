/* The progress line; expected lines are tqdm 4.67's format_meter(..., ncols=None). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "train/progress.h"

#include <stdio.h>
#include <string.h>

static void lines_equal_tqdm(void **state) {
    (void)state;
    static const struct {
        pf_progress p;
        double elapsed, rate;
        const char *line;
    } rows[] = {
        {{.what = "Training",
          .unit = "it",
          .done = 450,
          .total = 1000,
          .postfix = "loss=1.23, lr=1.8e-4"},
         135.4,
         3.3333,
         "Training:  45%|████▌     | 450/1000 [02:15<02:45,  3.33it/s, loss=1.23, lr=1.8e-4]"},
        {{.what = "Training", .unit = "it", .total = 10},
         0,
         0,
         "Training:   0%|          | 0/10 [00:00<?, ?it/s]"},
        {{.what = "Evaluating", .unit = "it", .done = 10, .total = 10},
         7262.9,
         0,
         "Evaluating: 100%|██████████| 10/10 [2:01:02<00:00, 726.29s/it]"},
        {{.what = "Training", .unit = "it", .done = 1, .total = 3},
         12,
         0,
         "Training:  33%|███▎      | 1/3 [00:12<00:24, 12.00s/it]"},
        {{.what = "Training", .unit = "it", .done = 333, .total = 1000, .ascii = true},
         1,
         0,
         "Training:  33%|###3      | 333/1000 [00:01<00:02, 333.00it/s]"},
        {{.what = "Training", .unit = "it", .done = 999, .total = 1000, .initial = 500},
         10,
         0,
         "Training: 100%|█████████▉| 999/1000 [00:10<00:00, 49.90it/s]"},
        {{.what = "x", .unit = "step", .done = 57, .total = 100},
         30,
         0,
         "x:  57%|█████▋    | 57/100 [00:30<00:22,  1.90step/s]"},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        char line[512];
        pf_progress_format(line, sizeof line, &rows[i].p, rows[i].elapsed, rows[i].rate);
        assert_string_equal(line, rows[i].line);
    }
}

static void keep(void *ctx, pf_log_level level, const char *text) {
    (void)level;
    snprintf(ctx, 512, "%s", text);
}

static void the_last_line_always_shows(void **state) {
    (void)state;
    char line[512] = "";
    pf_log_set_sink(keep, line);
    pf_progress p;
    pf_progress_begin(&p, "Training", "it", 2, 4);
    pf_progress_set(&p, 3, "loss=%.4g", 0.5);
    pf_progress_set(&p, 4, NULL);
    pf_progress_end(&p);
    pf_log_set_sink(NULL, NULL);
    assert_non_null(strstr(line, "| 4/4 ["));
    assert_non_null(strstr(line, ", loss=0.5]"));
}

static void odd_numbers_do_no_harm(void **state) {
    (void)state;
    char line[512];
    pf_progress p = {.what = "x", .unit = "it", .done = 7};
    pf_progress_format(line, sizeof line, &p, 1, 0); /* no total */
    assert_string_equal(line, "x:   0%|          | 7/0 [00:01<00:00,  7.00it/s]");
    p.total = 5; /* more done than there is */
    p.ascii = true;
    pf_progress_format(line, sizeof line, &p, 1, 0);
    assert_string_equal(line, "x: 100%|##########| 7/5 [00:01<00:00,  7.00it/s]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_equal_tqdm),
        cmocka_unit_test(the_last_line_always_shows),
        cmocka_unit_test(odd_numbers_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

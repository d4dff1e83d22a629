/* test_cfg_explain.c - --explain, and docs/config.md as it stands in the repository against the
 * rows. After a change of rows: UPDATE_DOCS=1 build/dev/tests/test_cfg_explain writes the page
 * anew. */
#include "base/file.h"
#include "config/run_config.h"
#include "peft/lora/lora.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pf_cfg_ext method_sections[PF_MAX_METHODS];

static int n_method_sections(void) {
    return pf_method_sections(method_sections);
}

static void explain(const char *path, const char *const *args, int n, pf_buf *out,
                    peft_error *err) {
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    pf_arena_init(&a, "test");
    const pf_cfg_source source = {.overrides = args, .n_overrides = n};
    assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, method_sections, n_method_sections(),
                                     PF_RUN_ANY, err),
                     PEFT_OK);
    (void)pf_cfg_explain(&cfg, path, out, err);
    pf_arena_release(&a);
}

static void test_key(void **state) {
    (void)state;
    const char *const args[] = {"peft.lora.alpha=32"};
    pf_buf out = {0};
    peft_error err = {0};
    explain("peft.lora.lora_alpha", args, 1, &out, &err);
    assert_string_equal(
        pf_buf_str(&out),
        "peft.lora.alpha: the update is scaled by alpha / r\n"
        "  takes        a number between 0 and 1000000\n"
        "  default      16\n"
        "  also written lora_alpha\n"
        "  now          32 (command line)\n"
        "  set it with  peft.lora.alpha=... on the command line, or PEFT_PEFT__LORA__ALPHA in the "
        "environment\n");
    pf_buf_clear(&out);
    explain("peft.method", NULL, 0, &out, &err);
    assert_non_null(strstr(pf_buf_str(&out), "  takes        one of lora, "));
    pf_buf_clear(&out);
    explain("model.pad_token", NULL, 0, &out, &err);
    assert_non_null(strstr(pf_buf_str(&out), "  note         changes nothing here: "));
    pf_buf_free(&out);
}

static void test_section(void **state) {
    (void)state;
    pf_buf out = {0};
    peft_error err = {0};
    explain("callbacks.early_stopping", NULL, 0, &out, &err);
    assert_string_equal(
        pf_buf_str(&out),
        "callbacks.early_stopping: stop when a metric no longer improves\n"
        "  patience = 3                             stop after so many evaluations in a row "
        "without "
        "improvement\n"
        "  metric                                   metric of an evaluation to watch; default: "
        "training.metric_for_best_model\n"
        "  threshold = 0                            an improvement is at least this much\n"
        "  greater_is_better = auto                 is bigger better? auto: yes, unless the "
        "metric's "
        "name ends in loss, perplexity, mse or mae\n");
    pf_buf_clear(&out);
    explain(NULL, NULL, 0, &out, &err);
    assert_non_null(strstr(pf_buf_str(&out), "  training: ...  "));
    assert_non_null(strstr(pf_buf_str(&out), "  seed = 42  "));
    pf_buf_clear(&out);
    explain("training.lerning_rate", NULL, 0, &out, &err);
    assert_string_equal(pf_buf_str(&out), "");
    assert_string_equal(
        err.message,
        "\"training.lerning_rate\" is not a known key; did you mean training.learning_rate?");
    pf_buf_free(&out);
}

/* Rows are read by people: one line of help each, no full stop, no tabs, and no key of two
 * meanings. */
static void test_rows_are_well_formed(void **state) {
    (void)state;
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    peft_error err = {0};
    pf_arena_init(&a, "test");
    const pf_cfg_source source = {0};
    assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, method_sections, n_method_sections(),
                                     PF_RUN_ANY, &err),
                     PEFT_OK);
    for (int i = 0; i < cfg.n; i++) {
        const pf_cfg_item *item = &cfg.items[i];
        const pf_cfg_row *row = item->row;
        assert_true(row->help != NULL && row->help[0] != 0);
        assert_false(pf_ends_with(row->help, "."));
        assert_null(strpbrk(row->help, "\n\t|"));
        for (int k = 0; k < cfg.n; k++)
            if (k != i && cfg.items[k].parent == item->parent)
                assert_false(pf_cfg_row_is(cfg.items[k].row, row->name));
        if (row->type == PF_CFG_T_ENUM && row->text != NULL)
            assert_non_null(pf_cfg_choice(item->choices, row->text, &a));
        if ((row->type == PF_CFG_T_INT || row->type == PF_CFG_T_FLOAT) &&
            !(row->flags & PF_CFG_UNSET))
            assert_true(row->number >= row->min && row->number <= row->max);
        if (row->type == PF_CFG_T_INT && row->size == sizeof(int))
            assert_true(row->min >= -2147483648.0 && row->max <= 2147483647.0);
    }
    pf_arena_release(&a);
}

static void test_page_is_current(void **state) {
    (void)state;
    const char *path = TEST_SOURCE_DIR "/docs/config.md";
    pf_buf page = {0}, stored = {0};
    peft_error err = {0};
    assert_int_equal(pf_run_cfg_markdown(&page, method_sections, n_method_sections(), &err),
                     PEFT_OK);
    if (getenv("UPDATE_DOCS") != NULL)
        assert_int_equal(pf_write_file(path, page.data, page.len, &err), PEFT_OK);
    if (pf_read_file(&stored, path, 1 << 20, &err) != PEFT_OK) fail_msg("%s", err.message);
    if (strcmp(pf_buf_str(&page), pf_buf_str(&stored)) != 0)
        fail_msg("docs/config.md is not what the rows say; run this test with UPDATE_DOCS=1");
    pf_buf_free(&page);
    pf_buf_free(&stored);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key),
        cmocka_unit_test(test_section),
        cmocka_unit_test(test_rows_are_well_formed),
        cmocka_unit_test(test_page_is_current),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

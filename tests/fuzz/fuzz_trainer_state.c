/* fuzz_trainer_state.c - any text as trainer_state.json. What is read is written again as a text
 * that reads back as itself, and the page and the words made from it are made without harm. */
#include "base/buf.h"
#include "base/log.h"
#include "train/diagnosis.h"
#include "train/report.h"
#include "train/trainer_state.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_rows(const pf_trainer_state *s) {
    int64_t at = 0;
    for (int64_t i = 0; i < s->n_rows; i++) {
        double value;
        if (s->rows[i].step < 0 || s->rows[i].first != at || s->rows[i].n < 0) abort();
        at += s->rows[i].n;
        (void)pf_log_row_value(s, &s->rows[i], "loss", &value);
    }
    if (at != s->n_metrics) abort();
}

static void check_text(pf_trainer_state *s) {
    pf_buf first = {0}, again = {0};
    if (pf_trainer_state_text(&first, s, NULL) != PEFT_OK) abort();
    if (pf_trainer_state_parse(s, first.data, first.len, "again", NULL) != PEFT_OK) abort();
    check_rows(s);
    if (pf_trainer_state_text(&again, s, NULL) != PEFT_OK) abort();
    if (first.len != again.len || memcmp(first.data, again.data, first.len) != 0) abort();
    pf_buf_free(&first);
    pf_buf_free(&again);
}

static void show(const pf_trainer_state *s, pf_arena *a) {
    const pf_curve_context ctx = {.learning_rate = 2e-4, .batch = 4, .lora_r = 8};
    pf_diagnosis d;
    pf_buf page = {0};
    if (pf_diagnose_state(&d, a, s, &ctx, NULL) != PEFT_OK) abort();
    if (d.title == NULL || d.shows == NULL || d.advice == NULL) abort();
    const pf_report_cfg cfg = {.title = "fuzz", .state = s, .diagnosis = &d};
    if (pf_report_html(&page, &cfg, NULL) != PEFT_OK) abort();
    if (strstr(pf_buf_str(&page), "</html>") == NULL) abort();
    pf_buf_free(&page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    peft_error err = {0};
    pf_arena a;
    pf_trainer_state s;
    pf_log_set_level(PF_LOG_ERROR);
    pf_arena_init(&a, "fuzz");
    pf_trainer_state_init(&s, &a);
    if (pf_trainer_state_parse(&s, (const char *)data, size, "fuzz", &err) == PEFT_OK) {
        check_rows(&s);
        check_text(&s);
        show(&s, &a);
    } else if (err.message[0] == '\0' || s.n_rows != 0) {
        abort(); /* refused without a word, or half read */
    }
    pf_arena_release(&a);
    return 0;
}

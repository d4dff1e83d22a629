/* peft_test.h - for tests of adapters: a configuration in C, and models that are only shapes. */
#ifndef PEFT_TEST_H
#define PEFT_TEST_H

#include "models/model_test.h"
#include "peft/lora/lora.h"
#include "peft/method.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden"

/* A list, or with single one expression; "" is none. Names are separated by blanks. */
static inline pf_cfg_strings names_of(pf_arena *a, const char *text, bool single) {
    pf_cfg_strings s = {.single = single};
    if (single) {
        assert_int_equal(pf_strlist_add(&s.list, a, text, NULL), PEFT_OK);
        return s;
    }
    for (const char *p = text; *p != 0;) {
        size_t n = strcspn(p, " ");
        assert_int_equal(pf_strlist_add(&s.list, a, pf_arena_strndup(a, p, n), NULL), PEFT_OK);
        p += n + (p[n] == ' ');
    }
    return s;
}

static inline pf_lora_cfg lora_cfg_of(pf_arena *a, const char *targets) {
    return (pf_lora_cfg){.r = 8,
                         .alpha = 16,
                         .target_modules = names_of(a, targets, false),
                         .bias = "none",
                         .init_lora_weights = "true"};
}

static inline pf_cfg_ints ints_of(pf_arena *a, int n, const int64_t *items) {
    pf_cfg_ints l = {PF_NEW_ARRAY(a, int64_t, n), n};
    memcpy(l.items, items, (size_t)n * sizeof *items);
    return l;
}

/* The shapes of a tiny model with two layers, biases everywhere, q/k norms where the architecture
 * has them. */
static inline pf_model *open_shapes(pf_arena *a, const char *architecture, const char *extra) {
    peft_error err = {0};
    pf_model *m;
    const char *dir = make_folder(a, "shapes", tiny_config(a, architecture, extra), NULL, NULL, 0);
    if (pf_model_open(&m, dir, &(pf_model_options){.shapes_only = true}, &err) != PEFT_OK) {
        fail_msg("%s", err.message);
    }
    return m;
}

static inline pf_model *open_base(const char *dir) {
    peft_error err = {0};
    pf_model *m;
    if (pf_model_open(&m, dir, NULL, &err) != PEFT_OK) fail_msg("%s", err.message);
    return m;
}

static inline pf_adapter *attach_lora(pf_model *m, const pf_lora_cfg *lora, bool training) {
    peft_error err = {0};
    pf_adapter *ad;
    const pf_peft_cfg cfg = {.method = "lora", .method_cfg = lora, .given = true};
    if (pf_adapter_attach(&ad, m, &cfg, 1, training, &err) != PEFT_OK) fail_msg("%s", err.message);
    return ad;
}

static inline pf_adapter *open_adapter(pf_model *m, const char *dir) {
    peft_error err = {0};
    pf_adapter *ad;
    if (pf_adapter_open(&ad, m, dir, false, &err) != PEFT_OK) fail_msg("%s", err.message);
    return ad;
}

#endif

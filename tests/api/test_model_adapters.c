/* Several adapters on one base: each gives what it gives alone, none gives the base, and one that
 * is gone leaves nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/file.h"
#include "peft/model.h"
#include "peft/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METHODS TEST_SOURCE_DIR "/tests/golden/methods/"

static char base[] = "/tmp/base-XXXXXX";

/* The base of the parity tests, with a tokenizer that nobody asks. */
static int setup(void **state) {
    (void)state;
    static const char tokenizer[] =
        "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, "
        "\"merges\": []}}";
    char path[256];
    if (mkdtemp(base) == NULL) return -1;
    snprintf(path, sizeof path, "%s/config.json", base);
    if (symlink(METHODS "base_llama/config.json", path) != 0) return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", base);
    if (symlink(METHODS "base_llama/model.safetensors", path) != 0) return -1;
    snprintf(path, sizeof path, "%s/tokenizer.json", base);
    FILE *f = fopen(path, "w");
    if (f == NULL || fputs(tokenizer, f) < 0) return -1;
    return fclose(f);
}

static int teardown(void **state) {
    (void)state;
    peft_error err = {0};
    return pf_remove_tree(base, &err) == PEFT_OK ? 0 : -1;
}

/* The scores of a few ids, as text. */
static char *scores(peft_model *m) {
    char *answer;
    bool answered;
    peft_error err = {0};
    if (peft_answer_line(m, "score", "[1, 5, 9, 33, 12, 40, 3]", NULL, &answer, &answered, &err) !=
            PEFT_OK ||
        !answered)
        fail_msg("%s %s", err.message, answer);
    return answer;
}

static peft_model *open_with(const char *adapter) {
    peft_error err = {0};
    peft_model *m;
    const peft_model_options opt = {.path = base, .adapter = adapter, .threads = 1};
    if (peft_model_open(&m, &opt, &err) != PEFT_OK) fail_msg("%s", err.message);
    return m;
}

static char *alone(const char *adapter) {
    peft_model *m = open_with(adapter);
    char *s = scores(m);
    peft_model_close(m);
    return s;
}

static void check(peft_model *m, const char *name, const char *want) {
    peft_error err = {0};
    if (peft_model_set_adapter(m, name, &err) != PEFT_OK) fail_msg("%s", err.message);
    char *s = scores(m);
    assert_string_equal(s, want);
    peft_free(s);
}

static void each_acts_alone(void **state) {
    (void)state;
    peft_error err = {0};
    char *plain = alone(NULL), *lora = alone(METHODS "lora/end"), *ia3 = alone(METHODS "ia3/end"),
         *norms = alone(METHODS "ln_tuning/end");
    assert_string_not_equal(plain, lora);
    assert_string_not_equal(lora, ia3);
    assert_string_not_equal(plain, norms);
    peft_model *m = open_with(METHODS "lora/end");
    assert_int_equal(peft_model_load_adapter(m, "ia3", METHODS "ia3/end", &err), PEFT_OK);
    assert_int_equal(peft_model_load_adapter(m, "norms", METHODS "ln_tuning/end", &err), PEFT_OK);
    char *still = scores(m); /* loading does not let it act */
    assert_string_equal(still, lora);
    peft_free(still);
    for (int round = 0; round < 3; round++) {
        check(m, "ia3", ia3);
        check(m, "norms", norms);
        check(m, NULL, plain);
        check(m, "default", lora);
    }
    assert_int_equal(peft_model_delete_adapter(m, "default", &err), PEFT_OK);
    check(m, NULL, plain);
    check(m, "norms", norms);
    assert_int_equal(peft_model_delete_adapter(m, "norms", &err), PEFT_OK); /* while it acts */
    check(m, NULL, plain);
    check(m, "ia3", ia3);
    peft_model_close(m);
    peft_free(plain), peft_free(lora), peft_free(ia3), peft_free(norms);
}

static void wrong_names(void **state) {
    (void)state;
    peft_error err = {0};
    peft_model *m = open_with(METHODS "lora/end");
    assert_int_equal(peft_model_set_adapter(m, "x", &err), PEFT_E_MISSING);
    assert_string_equal(err.message, "no adapter is loaded under the name 'x'; loaded: default");
    assert_int_equal(peft_model_load_adapter(m, "default", METHODS "ia3/end", &err), PEFT_E_STATE);
    assert_int_equal(peft_model_load_adapter(m, "y", METHODS "nothing", &err), PEFT_E_MISSING);
    assert_int_equal(peft_model_delete_adapter(m, "y", &err), PEFT_E_MISSING);
    char *want = alone(METHODS "lora/end");
    check(m, "default", want); /* nothing of that did harm */
    peft_free(want);
    peft_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_acts_alone),
        cmocka_unit_test(wrong_names),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

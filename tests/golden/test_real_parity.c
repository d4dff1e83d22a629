/* Two pretrained models on rows of real data sets: the loss of each of 20 optimizer steps equals
 * that of transformers and peft. Models and data are those of ../shared/data; without it the test
 * skips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

static pf_backend *backend;

static const char *const names[] = {"real_stories260K_hf_gsm8k", "real_stories260K_hf_qa_epic",
                                    "real_tinystories_656k_gsm8k", "real_tinystories_656k_qa_epic"};

static void equals_transformers(void **state) {
    (void)state;
    static const how usual = {"real", true, PF_SAVE_CHECKPOINT, 300, PF_SHARE_AUTO};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        fixture f;
        open_fixture(&f, names[i], backend);
        check_training(&f, &usual);
        close_fixture(&f);
    }
}

int main(void) {
    if (!pf_is_dir(TEST_SHARED_DIR "/data/models/stories260K-hf")) {
        fprintf(stderr, "skipped: %s/data is not there\n", TEST_SHARED_DIR);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_transformers)};
    if (pf_backend_open_cpu(&backend, 2, NULL) != PEFT_OK) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pf_backend_close(backend);
    return failed;
}

/* fuzz_config.c - any text as a configuration, and its first line as an override: read, checked,
 * dumped, explained. The dump of whatever is accepted has to be JSON. */
#include "config/run_config.h"
#include "peft/lora/lora.h"
#include "text/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static pf_cfg_ext method_sections[PF_MAX_METHODS];

static int n_method_sections(void) {
    return pf_method_sections(method_sections);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pf_arena a;
    pf_arena_init(&a, "fuzz");
    const char *text = (const char *)data, *end = memchr(data, '\n', size);
    const char *line = pf_arena_strndup(&a, text, end != NULL ? (size_t)(end - text) : size);
    const char *const overrides[] = {line, "callbacks.early_stopping.patience=3", "~training.fp16"};
    const char *const env[] = {"PEFT_SEED=7", "PEFT_PEFT__LORA__RANK_PATTERN={a: 3}", NULL};
    for (int n = 0; n <= 3; n += 3) {
        pf_run_cfg run;
        pf_cfg cfg;
        const pf_cfg_source source = {.text = text,
                                      .text_len = size,
                                      .text_name = "fuzz",
                                      .overrides = overrides,
                                      .n_overrides = n,
                                      .env = n > 0 ? env : NULL};
        if (pf_run_cfg_open(&run, &cfg, &a, &source, method_sections, n_method_sections(),
                            PF_RUN_ANY, NULL) != PEFT_OK)
            continue;
        pf_buf out = {0};
        json_t *v = NULL;
        pf_cfg_dump(&cfg, &out);
        if (pf_json_parse(&v, pf_buf_str(&out), out.len, "dump", NULL) != PEFT_OK) abort();
        json_decref(v);
        pf_buf_clear(&out);
        (void)pf_cfg_explain(&cfg, line, &out, NULL);
        pf_buf_free(&out);
    }
    pf_arena_release(&a);
    return 0;
}

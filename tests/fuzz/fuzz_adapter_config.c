/* fuzz_adapter_config.c - any text as adapter_config.json, put on the shapes of a small model. What
 * is accepted can be attached or is refused; names and patterns run against every module of the
 * model. */
#include "base/log.h"
#include "models/model_open.h"
#include "peft/method.h"
#include "text/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char small[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 8, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"intermediate_size\": 12, \"vocab_size\": 10, "
    "\"attention_bias\": true}";

static pf_model *open_small(void) {
    json_t *config;
    pf_model *m;
    if (pf_json_parse(&config, small, strlen(small), "small", NULL) != PEFT_OK) abort();
    if (pf_model_open_config(&m, config, "small", NULL) != PEFT_OK) abort();
    return m;
}

/* The method of peft_type; LoRA without one, and for those that read their folder in another way.
 */
static const pf_method *method_of(const json_t *config) {
    const char *type = json_string_value(json_object_get(config, "peft_type"));
    for (int i = 0; type != NULL && pf_method_table[i] != NULL; i++) {
        const pf_method *m = pf_method_table[i];
        if (m->peft_type != NULL && strcmp(m->peft_type, type) == 0 && m->read_config != NULL)
            return m;
    }
    return pf_method_find("lora");
}

static void attach(pf_model *m, const pf_method *method, const void *method_cfg) {
    pf_adapter *ad;
    const pf_peft_cfg cfg = {.method = method->name, .method_cfg = method_cfg, .given = true};
    char line[160];
    if (pf_adapter_attach(&ad, m, &cfg, 1, true, NULL) == PEFT_OK) {
        json_t *again = json_object();
        pf_adapter_describe(ad, line, sizeof line);
        if (ad->params.n < 1 && method == pf_method_find("lora")) abort();
        if (ad->method->write_config(ad, again, NULL) != PEFT_OK) abort();
        json_decref(again);
    }
    pf_adapter_close(ad);
    for (int i = 0; i < m->n_sites; i++) {
        if (m->sites[i]->attached != NULL || m->sites[i]->trained_weight != NULL) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pf_model *m;
    json_t *config;
    pf_arena a;
    const void *cfg;
    pf_log_set_level(PF_LOG_ERROR);
    if (m == NULL) m = open_small();
    if (pf_json_parse(&config, (const char *)data, size, "fuzz", NULL) != PEFT_OK) return 0;
    pf_arena_init(&a, "fuzz");
    const pf_method *method = method_of(config);
    if (json_is_object(config) && method->read_config(&a, config, "fuzz", &cfg, NULL) == PEFT_OK) {
        attach(m, method, cfg);
    }
    json_decref(config);
    pf_arena_release(&a);
    return 0;
}

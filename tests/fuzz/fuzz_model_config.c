/* fuzz_model_config.c - any text as config.json: a family opens its shapes, or says why not. RoPE
 * frequencies of whatever is accepted must be numbers, and every site must have its shapes. */
#include "base/log.h"
#include "models/model_open.h"
#include "text/json.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const pf_model *m) {
    float freq[512];
    double factor;
    if (m->n_params <= 0 || m->n_sites <= 0) abort();
    for (int i = 0; i < m->n_sites; i++) {
        const pf_site *s = m->sites[i];
        if (s->index != i || s->in_dim < 1 || s->out_dim < 1) abort();
        if (s->weight != NULL && s->weight->data != NULL) abort();
    }
    if (m->rope.dim > 1024) return;
    if (pf_rope_frequencies(&m->rope, freq, &factor, NULL) != PEFT_OK) return;
    for (int64_t i = 0; i < m->rope.dim / 2; i++) {
        if (!isfinite(freq[i])) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *config;
    pf_model *m;
    pf_log_set_level(PF_LOG_ERROR);
    if (pf_json_parse(&config, (const char *)data, size, "fuzz", NULL) != PEFT_OK) return 0;
    if (pf_model_open_config(&m, config, "fuzz", NULL) == PEFT_OK) check(m);
    pf_model_close(m);
    return 0;
}

/* dataset.c - what others ask a data set for; loading it is dataset_load.c. */
#include "data/dataset.h"

#include "base/mem.h"

#include <string.h>

/* The first token has none before it that could predict it. */
static int32_t first_label(const pf_example *e) {
    return e->n_prompt > 1 ? e->n_prompt : 1;
}

int32_t pf_example_supervised(const pf_example *e) {
    return e->n_tokens > first_label(e) ? e->n_tokens - first_label(e) : 0;
}

pf_sample pf_dataset_sample(const pf_dataset *ds, int64_t i, int32_t index) {
    const pf_example *e = &ds->examples[i];
    return (pf_sample){.tokens = ds->tokens + e->first,
                       .n_tokens = e->n_tokens,
                       .first_label = first_label(e),
                       .index = index};
}

pf_str pf_dataset_prompt(const pf_dataset *ds, int64_t i) {
    const pf_example *e = &ds->examples[i];
    return (pf_str){ds->text + e->text, e->n_prompt_text};
}

pf_str pf_dataset_target(const pf_dataset *ds, int64_t i) {
    const pf_example *e = &ds->examples[i];
    return (pf_str){ds->text + e->text + e->n_prompt_text, e->n_text - e->n_prompt_text};
}

void pf_dataset_release(pf_dataset *ds) {
    if (ds == NULL) return;
    pf_free(ds->tokens);
    pf_free(ds->examples);
    pf_free(ds->text);
    pf_arena_release(&ds->arena);
    memset(ds, 0, sizeof *ds);
}

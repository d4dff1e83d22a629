/* dataset.c - what others ask a data set for; loading it is dataset_load.c. */
#include "data/dataset.h"

#include "base/mem.h"

#include <string.h>

/* The first token has none before it that could predict it. */
static int32_t first_label(const pf_example *e) {
    return e->n_prompt > 1 ? e->n_prompt : 1;
}

static int32_t end_label(const pf_example *e) {
    return e->end_label > 0 ? e->end_label : e->n_tokens;
}

int32_t pf_example_supervised(const pf_example *e) {
    if (e->flags & (PF_EXAMPLE_GAPS | PF_EXAMPLE_CLASSES)) return e->n_learned;
    return end_label(e) > first_label(e) ? end_label(e) - first_label(e) : 0;
}

bool pf_dataset_learns(const pf_dataset *ds, int64_t i, int32_t k) {
    const pf_example *e = &ds->examples[i];
    if (ds->classes != NULL) return ds->classes[e->first + k] >= 0;
    if (k < first_label(e) || k >= end_label(e)) return false;
    return (e->flags & PF_EXAMPLE_GAPS) == 0 || ds->weights[e->first + k] != 0;
}

pf_sample pf_dataset_sample(const pf_dataset *ds, int64_t i, int32_t index) {
    const pf_example *e = &ds->examples[i];
    if (e->n_source > 0)
        return (pf_sample){.source = ds->tokens + e->first,
                           .n_source = e->n_source,
                           .tokens = ds->tokens + e->first + e->n_source,
                           .n_tokens = e->n_tokens - e->n_source,
                           .first_label = e->n_prompt - e->n_source,
                           .index = index};
    return (pf_sample){.tokens = ds->tokens + e->first,
                       .n_tokens = e->n_tokens,
                       .first_label = first_label(e),
                       .end_label = e->end_label,
                       .weights = e->flags & PF_EXAMPLE_GAPS ? ds->weights + e->first : NULL,
                       .classes = ds->classes != NULL ? ds->classes + e->first : NULL,
                       .class_weights = ds->class_weights,
                       .values = ds->values != NULL ? ds->values + i * ds->n_values : NULL,
                       .second_from = e->second_from,
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

peft_status pf_dataset_text(const pf_dataset *ds, int64_t i, const pf_tokenizer *t, pf_buf *out,
                            peft_error *err) {
    const pf_example *e = &ds->examples[i];
    if (ds->from_tokens)
        return pf_tokenizer_decode(t, ds->tokens + e->first, (size_t)e->n_tokens, false, out, err);
    pf_buf_add(out, ds->text + e->text, e->n_text);
    return PEFT_OK;
}

void pf_dataset_release(pf_dataset *ds) {
    if (ds == NULL) return;
    pf_free(ds->tokens);
    pf_free(ds->weights);
    pf_free(ds->classes);
    pf_free(ds->values);
    pf_free(ds->examples);
    pf_free(ds->text);
    pf_arena_release(&ds->arena);
    memset(ds, 0, sizeof *ds);
}

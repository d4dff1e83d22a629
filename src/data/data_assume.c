/* data_assume.c - see data_assume.h. */
#include "data/data_assume.h"

#include "base/mem.h"

#include <string.h>

/* All rows are the same run of zeros: nobody looks at the tokens of a plan. */
static peft_status fill(pf_dataset *ds, int64_t n, int32_t length, int32_t n_prompt,
                        int32_t n_source, peft_error *err) {
    ds->path = "(no data)";
    ds->format = "assumed";
    ds->tokens = pf_calloc((size_t)length, sizeof *ds->tokens);
    ds->examples = pf_calloc((size_t)n, sizeof *ds->examples);
    if (ds->tokens == NULL || ds->examples == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++)
        ds->examples[i] =
            (pf_example){.n_tokens = length, .n_prompt = n_prompt, .n_source = n_source, .row = i};
    ds->n = n;
    ds->n_tokens = n * length;
    ds->counts = (pf_data_counts){.rows = n,
                                  .tokens = n * length,
                                  .supervised = n * (length - n_prompt),
                                  .longest = length,
                                  .max_tokens = length};
    return PEFT_OK;
}

static peft_status assume(pf_data *d, const pf_assumed_rows *rows, peft_error *err) {
    pf_arena_init(&d->train_set.arena, "data set");
    pf_arena_init(&d->test_set.arena, "data set");
    const int32_t source = rows->encoder_decoder ? rows->length / 2 : 0;
    PF_TRY(fill(&d->train_set, rows->train, rows->length, source + 1, source, err));
    PF_TRY(pf_split_all(&d->train_set, &d->arena, &d->train, err));
    if (rows->test == 0) return PEFT_OK;
    PF_TRY(fill(&d->test_set, rows->test, rows->length,
                rows->encoder_decoder ? source + 1 : rows->length - 1, source, err));
    return pf_split_all(&d->test_set, &d->arena, &d->test, err);
}

peft_status pf_data_assume(pf_data *d, const pf_assumed_rows *rows, peft_error *err) {
    PF_ASSERT(rows->train > 0 && rows->test >= 0 && rows->length > 1);
    memset(d, 0, sizeof *d);
    pf_arena_init(&d->arena, "data");
    peft_status status = assume(d, rows, err);
    if (status != PEFT_OK) pf_data_release(d);
    return status;
}

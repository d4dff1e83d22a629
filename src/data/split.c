/* split.c - see split.h. */
#include "data/split.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>

peft_status pf_split_all(const pf_dataset *ds, pf_arena *a, pf_data_view *out, peft_error *err) {
    int64_t *index = PF_NEW_ARRAY(a, int64_t, ds->n);
    PF_CHECK_ALLOC(index, err);
    for (int64_t i = 0; i < ds->n; i++) index[i] = i;
    *out = (pf_data_view){.set = ds, .index = index, .n = ds->n};
    return PEFT_OK;
}

static peft_status count_of(const pf_dataset *ds, double test_size, int64_t *count,
                            peft_error *err) {
    int64_t rows = ds->counts.rows;
    double n = test_size;
    if (!(test_size > 0) || (test_size >= 1 && test_size != floor(test_size)))
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.test_size is %g; give a share between 0 and 1, or a number of rows",
                       test_size);
    /* 0.1 of 1100 is 110, whatever the last bit of the product says */
    if (test_size < 1) n = ceil(test_size * (double)rows - 1e-6);
    if (n >= (double)rows)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "data.test_size is %g, and %s has %lld rows: none is left to train on",
                       test_size, ds->path, (long long)rows);
    *count = n < 1 ? 1 : (int64_t)n;
    return PEFT_OK;
}

peft_status pf_split_by_size(const pf_dataset *ds, double test_size, uint64_t seed, pf_arena *a,
                             pf_data_view *train, pf_data_view *test, peft_error *err) {
    int64_t count = 0, rows = ds->counts.rows;
    PF_TRY(count_of(ds, test_size, &count, err));
    int64_t *index = PF_NEW_ARRAY(a, int64_t, ds->n);
    int64_t *order = pf_calloc((size_t)rows, sizeof *order);
    unsigned char *held = pf_calloc((size_t)rows, 1);
    if (index == NULL || order == NULL || held == NULL) {
        pf_free(order);
        pf_free(held);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the split of %lld rows",
                       (long long)rows);
    }
    pf_rng_permutation(pf_rng_make_key(seed, PF_RNG_SPLIT, 0), rows, order);
    for (int64_t i = 0; i < count; i++) held[order[i]] = 1;
    int64_t n_train = 0, n_test = 0;
    for (int64_t i = 0; i < ds->n; i++)
        if (!held[ds->examples[i].row - 1]) index[n_train++] = i;
    for (int64_t i = 0; i < ds->n; i++)
        if (held[ds->examples[i].row - 1]) index[n_train + n_test++] = i;
    pf_free(order);
    pf_free(held);
    if (n_train == 0 || n_test == 0)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: of its %lld rows %lld were kept, and data.test_size %g leaves none of "
                       "them to %s",
                       ds->path, (long long)rows, (long long)ds->n, test_size,
                       n_train == 0 ? "train on" : "evaluate on");
    *train = (pf_data_view){.set = ds, .index = index, .n = n_train};
    *test = (pf_data_view){.set = ds, .index = index + n_train, .n = n_test};
    return PEFT_OK;
}

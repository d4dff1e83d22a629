/* class_weights.c - see class_weights.h. */
#include "data/class_weights.h"

#include <math.h>
#include <stdlib.h>

/* A class that does not occur weighs 1: nobody will ask. */
static peft_status balance(const pf_data_view *v, int K, pf_arena *a, float *w, peft_error *err) {
    int64_t *count = PF_NEW_ARRAY(a, int64_t, K), all = 0;
    PF_CHECK_ALLOC(count, err);
    for (int64_t i = 0; i < v->n; i++) {
        const pf_example *e = &v->set->examples[v->index[i]];
        for (int32_t t = 0; t < e->n_tokens; t++) {
            const int32_t class = v->set->classes[e->first + t];
            if (class < 0) continue;
            count[class]++;
            all++;
        }
    }
    for (int k = 0; k < K; k++)
        w[k] = count[k] > 0 ? (float)((double)all / ((double)K * (double)count[k])) : 1;
    return PEFT_OK;
}

peft_status pf_class_weights_make(const pf_strlist *given, const pf_strlist *labels,
                                  const pf_data_view *train, pf_arena *a, const float **out,
                                  peft_error *err) {
    char names[200];
    *out = NULL;
    if (given->n == 0) return PEFT_OK;
    float *w = PF_NEW_ARRAY(a, float, labels->n);
    PF_CHECK_ALLOC(w, err);
    *out = w;
    if (given->n == 1 && pf_streq(given->items[0], "balanced"))
        return balance(train, labels->n, a, w, err);
    if (given->n != labels->n)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.class_weights has %d number%s, and there are %d classes: %s; "
                       "\"balanced\" weighs them by how often they occur",
                       given->n, given->n == 1 ? "" : "s", labels->n,
                       pf_labels_text(labels, names, sizeof names));
    for (int k = 0; k < given->n; k++) {
        char *end;
        const double v = strtod(given->items[k], &end);
        if (*end != 0 || end == given->items[k] || !(v > 0 && v <= 1e6))
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "training.class_weights has \"%.40s\" for class %s; it should be a "
                           "number above 0, up to 1e6",
                           given->items[k], labels->items[k]);
        w[k] = (float)v;
    }
    return PEFT_OK;
}

/* sampler.c - see sampler.h. */
#include "infer/sampler.h"

#include "base/rng.h"

#include <string.h>

pf_sampling pf_sampling_greedy(void) {
    return (pf_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
}

peft_status pf_sampler_init(pf_sampler *s, pf_arena *a, const pf_sampling *how, int64_t vocab,
                            peft_error *err) {
    *s = (pf_sampler){.how = *how, .vocab = vocab};
    s->logits = PF_NEW_ARRAY(a, pf_real, vocab);
    s->order = PF_NEW_ARRAY(a, int32_t, vocab);
    s->in = PF_NEW_ARRAY(a, unsigned char, vocab);
    if (s->logits == NULL || s->order == NULL || s->in == NULL) {
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    return PEFT_OK;
}

static int32_t largest(const pf_real *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++) {
        if (x[i] > x[best]) best = i;
    }
    return (int32_t)best;
}

static void penalize(pf_sampler *s, const int32_t *ids, int64_t n_ids) {
    memset(s->in, 0, (size_t)s->vocab);
    for (int64_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= s->vocab || s->in[ids[i]]) continue;
        s->in[ids[i]] = 1;
        pf_real *z = &s->logits[ids[i]];
        *z = *z < 0 ? *z * (pf_real)s->how.repetition_penalty
                    : *z / (pf_real)s->how.repetition_penalty;
    }
}

/* Larger logit first, lower id among equals: a heap sort, for n may be 250,000 and no memory is
 * asked for here. */
static bool before(const pf_sampler *s, int32_t a, int32_t b) {
    return s->logits[a] != s->logits[b] ? s->logits[a] > s->logits[b] : a < b;
}

static void sift_down(pf_sampler *s, int64_t at, int64_t n) {
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= n) return;
        if (child + 1 < n && before(s, s->order[child], s->order[child + 1])) child++;
        if (!before(s, s->order[at], s->order[child])) return;
        int32_t t = s->order[at];
        s->order[at] = s->order[child];
        s->order[child] = t;
        at = child;
    }
}

static void sort_order(pf_sampler *s) {
    int64_t n = s->vocab;
    for (int64_t i = 0; i < n; i++) s->order[i] = (int32_t)i;
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift_down(s, i, n);
    for (int64_t end = n - 1; end > 0; end--) {
        int32_t t = s->order[0];
        s->order[0] = s->order[end];
        s->order[end] = t;
        sift_down(s, 0, end);
    }
}

int32_t pf_sampler_next(pf_sampler *s, const pf_real *logits, const int32_t *ids, int64_t n_ids,
                        uint64_t sequence) {
    memcpy(s->logits, logits, (size_t)s->vocab * sizeof *logits);
    if (s->how.repetition_penalty != 1) penalize(s, ids, n_ids);
    if (!s->how.do_sample) return largest(s->logits, s->vocab);

    for (int64_t i = 0; i < s->vocab; i++) s->logits[i] /= (pf_real)s->how.temperature;
    sort_order(s);
    int64_t n = s->vocab;
    if (s->how.top_k > 0 && s->how.top_k < n) {
        /* everything equal to the k-th stays, as in Hugging Face's TopKLogitsWarper */
        pf_real least = s->logits[s->order[s->how.top_k - 1]];
        n = s->how.top_k;
        while (n < s->vocab && s->logits[s->order[n]] == least) n++;
    }
    double top = s->logits[s->order[0]];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)s->logits[s->order[i]] - top);
    if (s->how.top_p < 1) {
        /* the smallest set whose probability reaches top_p; at least one token */
        double kept = 0;
        int64_t i = 0;
        while (i < n) {
            kept += exp((double)s->logits[s->order[i]] - top);
            i++;
            if (kept >= s->how.top_p * sum) break;
        }
        n = i;
        sum = kept;
    }
    if (s->how.min_p > 0) {
        /* relative to the most likely token, whose unnormalized probability is 1 */
        int64_t i = 1;
        while (i < n && exp((double)s->logits[s->order[i]] - top) >= s->how.min_p) i++;
        n = i;
        sum = 0;
        for (i = 0; i < n; i++) sum += exp((double)s->logits[s->order[i]] - top);
    }
    pf_rng_key key = pf_rng_make_key(s->how.seed, PF_RNG_SAMPLE, sequence);
    double draw = pf_rng_uniform_at(key, (uint64_t)n_ids) * sum;
    for (int64_t i = 0; i < n; i++) {
        draw -= exp((double)s->logits[s->order[i]] - top);
        if (draw < 0) return s->order[i];
    }
    return s->order[n - 1];
}

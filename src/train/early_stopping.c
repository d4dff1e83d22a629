/* early_stopping.c - see early_stopping.h. */
#include "train/early_stopping.h"

#include <math.h>
#include <stdio.h>

void pf_best_init(pf_best *b, const char *metric, bool greater_is_better) {
    *b = (pf_best){.metric = metric, .greater_is_better = greater_is_better};
}

bool pf_best_better(const pf_best *b, double value) {
    if (isnan(value)) return false;
    if (!b->any) return true;
    return b->greater_is_better ? value > b->value : value < b->value;
}

bool pf_best_update(pf_best *b, double value, int64_t step) {
    if (!pf_best_better(b, value)) return false;
    b->any = true;
    b->value = value;
    b->step = step;
    return true;
}

void pf_early_stopping_init(pf_early_stopping *s, const char *metric, bool greater_is_better,
                            int64_t patience, double threshold) {
    *s = (pf_early_stopping){.patience = patience, .threshold = threshold};
    pf_best_init(&s->best, metric, greater_is_better);
}

bool pf_early_stopping_update(pf_early_stopping *s, double value, int64_t step) {
    bool first = !s->best.any;
    double before = s->best.value;
    bool better = pf_best_update(&s->best, value, step);
    if (better && (first || fabs(value - before) > s->threshold))
        s->waited = 0;
    else
        s->waited++;
    return s->waited >= s->patience;
}

void pf_early_stopping_reason(const pf_early_stopping *s, char *out, size_t n) {
    const char *plural = s->waited == 1 ? "" : "s";
    if (!s->best.any) {
        snprintf(out, n, "%s was not a number in %lld evaluation%s", s->best.metric,
                 (long long)s->waited, plural);
    } else if (s->threshold > 0) {
        snprintf(out, n,
                 "%s did not improve by more than %g in %lld evaluation%s; the best is %.6g (step "
                 "%lld)",
                 s->best.metric, s->threshold, (long long)s->waited, plural, s->best.value,
                 (long long)s->best.step);
    } else {
        snprintf(out, n, "%s did not improve in %lld evaluation%s; the best is %.6g (step %lld)",
                 s->best.metric, (long long)s->waited, plural, s->best.value,
                 (long long)s->best.step);
    }
}

/* ---- checkpoints ------------------------------------------------------------------------------
 */

static peft_status save_best(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_best *b = ctx;
    PF_TRY(pf_ckpt_put_text(w, "metric", b->metric, err));
    PF_TRY(pf_ckpt_put_int(w, "any", b->any, err));
    PF_TRY(pf_ckpt_put_real(w, "value", b->value, err));
    return pf_ckpt_put_int(w, "step", b->step, err);
}

static peft_status load_best(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_best *b = ctx;
    pf_arena a;
    pf_arena_init(&a, "best");
    const char *metric;
    int64_t any = 0;
    peft_status status;
    PF_TRY_OUT(pf_ckpt_get_text(r, "metric", &a, &metric, err));
    PF_TRY_OUT(pf_ckpt_get_int(r, "any", &any, err));
    PF_TRY_OUT(pf_ckpt_get_real(r, "value", &b->value, err));
    PF_TRY_OUT(pf_ckpt_get_count(r, "step", &b->step, err));
    b->any = any != 0;
    if (!pf_streq(metric, b->metric)) {
        status =
            PF_FAIL(err, PEFT_E_CONFIG,
                    "the checkpoint kept the best of %s; this run asks for the best of %s. "
                    "Resume with the metric of the start",
                    metric != NULL ? metric : "no metric", b->metric != NULL ? b->metric : "none");
    }
out:
    pf_arena_release(&a);
    return status;
}

pf_section pf_best_section(pf_best *b) {
    return (pf_section){.name = "best", .ctx = b, .save = save_best, .load = load_best};
}

static peft_status save_stopping(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_early_stopping *s = ctx;
    PF_TRY(pf_ckpt_put_int(w, "waited", s->waited, err));
    return save_best((void *)(uintptr_t)&s->best, w, err);
}

static peft_status load_stopping(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_early_stopping *s = ctx;
    PF_TRY(pf_ckpt_get_count(r, "waited", &s->waited, err));
    return load_best(&s->best, r, err);
}

pf_section pf_early_stopping_section(pf_early_stopping *s) {
    return (pf_section){
        .name = "early_stopping", .ctx = s, .save = save_stopping, .load = load_stopping};
}

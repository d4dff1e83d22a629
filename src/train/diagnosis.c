/* diagnosis.c - the rules and the words of diagnosis.h. */
#include "train/diagnosis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 200

typedef struct figures {
    const pf_curve_point *train, *eval; /* as logged */
    int n_train, n_eval;
    double *x; /* averaged */
    int n;
    double start, end, noise, level;
    double quarter; /* what the last quarter lowered the loss by, a share */
    int jump;       /* index in train, -1: none */
    double before_jump;
    int best, last_bad; /* indices in eval; the first loss that is not finite, in train */
    const pf_curve_context *ctx;
    pf_arena *a;
} figures;

static const char *const titles[] = {
#define TITLE(id, text) text,
    PF_FINDING_LIST(TITLE)
#undef TITLE
};

/* ---- figures ------------------------------------------------------------------------------------
 */

static double mean(const double *x, int from, int to) {
    double sum = 0;
    for (int i = from; i < to; i++) sum += x[i];
    return sum / (to - from);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *x, int n) { /* sorts x */
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 == 1 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static double noise_of(const double *x, int n, double *scratch) {
    for (int i = 1; i < n; i++) scratch[i - 1] = fabs(x[i] - x[i - 1]);
    return 1.4826 * median(scratch, n - 1) / sqrt(2);
}

/* The same as a share of the loss: early losses are larger, and so are their swings. */
static double relative_noise_of(const double *x, int n, double *scratch) {
    for (int i = 1; i < n; i++) {
        double between = 0.5 * (fabs(x[i]) + fabs(x[i - 1]));
        scratch[i - 1] = between > 0 ? fabs(x[i] - x[i - 1]) / between : 0;
    }
    return 1.4826 * median(scratch, n - 1) / sqrt(2);
}

static int find_jump(figures *f, const double *raw, double noise) {
    for (int i = 1; i < f->n_train; i++) {
        double before[5];
        int n = i < 5 ? i : 5;
        memcpy(before, raw + i - n, (size_t)n * sizeof *before);
        double m = median(before, n), rise = raw[i] - m;
        if (!(rise > 0.4 * m && rise > 8 * noise * m && rise > 0.05 * f->start)) continue;
        f->before_jump = m;
        return i;
    }
    return -1;
}

static peft_status measure(figures *f, peft_error *err) {
    int n = f->n_train;
    f->n = n < PARTS ? n : PARTS;
    double *raw = PF_NEW_ARRAY(f->a, double, n), *scratch = PF_NEW_ARRAY(f->a, double, n);
    f->x = PF_NEW_ARRAY(f->a, double, f->n);
    PF_CHECK_ALLOC(raw, err);
    PF_CHECK_ALLOC(scratch, err);
    PF_CHECK_ALLOC(f->x, err);
    for (int i = 0; i < n; i++) raw[i] = f->train[i].loss;
    for (int i = 0; i < f->n; i++) {
        int64_t from = (int64_t)i * n / f->n, to = (int64_t)(i + 1) * n / f->n;
        f->x[i] = mean(raw, (int)from, (int)to);
    }
    int tenth = f->n / 10 > 1 ? f->n / 10 : 1, last = tenth > 2 ? tenth : 2;
    f->start = mean(f->x, 0, tenth);
    f->end = mean(f->x, f->n - last, f->n);
    int q = f->n / 4 > 2 ? f->n / 4 : 2;
    double before = mean(f->x, f->n - 2 * q > 0 ? f->n - 2 * q : 0, f->n - q);
    f->quarter = before > 0 ? (before - mean(f->x, f->n - q, f->n)) / before : 0;
    f->noise = noise_of(f->x, f->n, scratch);
    memcpy(scratch, f->x, (size_t)f->n * sizeof *scratch);
    f->level = median(scratch, f->n);
    f->jump = find_jump(f, raw, relative_noise_of(raw, n, scratch));
    return PEFT_OK;
}

/* Mean training loss over the few points up to a step; NaN when there are none. */
static double train_near(const figures *f, int64_t step) {
    double sum = 0;
    int n = 0;
    for (int i = f->n_train - 1; i >= 0 && n < 3; i--) {
        if (f->train[i].step > step) continue;
        sum += f->train[i].loss;
        n++;
    }
    return n > 0 ? sum / n : NAN;
}

static bool overfits(figures *f) {
    f->best = 0;
    for (int i = 1; i < f->n_eval; i++) {
        if (f->eval[i].loss < f->eval[f->best].loss) f->best = i;
    }
    if (f->n_eval < 2) return false;
    int after = f->n_eval - 1 - f->best;
    double best = f->eval[f->best].loss, last = f->eval[f->n_eval - 1].loss;
    if (after == 0 || last - best <= (after >= 2 ? 0.02 : 0.05) * best) return false;
    double then = train_near(f, f->eval[f->best].step);
    double now = train_near(f, f->eval[f->n_eval - 1].step);
    return !(now > 1.02 * then);
}

static pf_finding judge(figures *f) {
    f->last_bad = -1;
    for (int i = 0; i < f->n_train && f->last_bad < 0; i++) {
        if (!isfinite(f->train[i].loss)) f->last_bad = i;
    }
    bool bad = f->ctx->diverged != NULL || f->last_bad >= 0;
    for (int i = 0; i < f->n_eval; i++) bad = bad || !isfinite(f->eval[i].loss);
    if (bad) return PF_FINDING_NAN;
    if (f->n_train < 4) return PF_FINDING_SHORT;
    double fall = f->start - f->end;
    if (f->jump >= 0) return PF_FINDING_JUMPS;
    if (-fall > 0.05 * f->start && -fall > 3 * f->noise) return PF_FINDING_RISES;
    if (overfits(f)) return PF_FINDING_OVERFITS;
    double lr = f->ctx->learning_rate;
    if (f->noise > 0.1 * f->level && fall < 4 * f->noise)
        return lr > 0 && lr < 5e-5 ? PF_FINDING_FLAT : PF_FINDING_OSCILLATES;
    if (fall < 0.03 * f->start) return PF_FINDING_FLAT;
    return PF_FINDING_FALLS;
}

/* ---- words --------------------------------------------------------------------------------------
 */

static double percent(double from, double to) {
    return from != 0 ? 100 * (to - from) / from : 0;
}

static void add_train(pf_buf *b, const figures *f) {
    pf_buf_addf(b, "The training loss went from %.4g to %.4g (%+.0f %%) over steps %lld to %lld.",
                f->start, f->end, percent(f->start, f->end), (long long)f->train[0].step,
                (long long)f->train[f->n_train - 1].step);
}

static void add_eval(pf_buf *b, const figures *f) {
    if (f->n_eval == 0) {
        pf_buf_adds(b, " Nothing was evaluated, so overfitting would not show: give data.test or "
                       "data.test_size.");
        return;
    }
    const pf_curve_point *best = &f->eval[f->best], *last = &f->eval[f->n_eval - 1];
    if (f->best == f->n_eval - 1) {
        pf_buf_addf(b, " eval_loss is at its best at the last evaluation, %.4g (step %lld).",
                    last->loss, (long long)last->step);
    } else {
        pf_buf_addf(b, " eval_loss was at its best at step %lld, %.4g; the last one is %.4g.",
                    (long long)best->step, best->loss, last->loss);
    }
}

static void add_rate(pf_buf *b, const figures *f, double factor) {
    double lr = f->ctx->learning_rate;
    if (lr > 0)
        pf_buf_addf(b, "training.learning_rate=%.1g (it is %.3g)", lr * factor, lr);
    else
        pf_buf_adds(b, factor < 1 ? "a lower training.learning_rate"
                                  : "a higher training.learning_rate");
}

static void add_calmer(pf_buf *b, const figures *f) {
    add_rate(b, f, 1.0 / 3);
    if (!(f->ctx->max_grad_norm > 0) || f->ctx->max_grad_norm > 1)
        pf_buf_adds(b, ", training.max_grad_norm=1");
    if (f->ctx->warmup_steps == 0) pf_buf_adds(b, ", training.warmup_ratio=0.1");
}

static void say_nan(const figures *f, pf_buf *shows, pf_buf *advice) {
    if (f->ctx->diverged != NULL)
        pf_buf_addf(shows, "Training stopped: %s.", f->ctx->diverged);
    else if (f->last_bad >= 0)
        pf_buf_addf(shows, "The training loss is not a number from step %lld on.",
                    (long long)f->train[f->last_bad].step);
    else
        pf_buf_adds(shows, "An evaluation gave a loss that is not a number.");
    int good = f->last_bad >= 0 ? f->last_bad : f->n_train;
    if (good > 0) {
        const pf_curve_point *p = &f->train[good - 1];
        pf_buf_addf(shows, " The last finite training loss was %.4g at step %lld", p->loss,
                    (long long)p->step);
        if (isfinite(p->grad_norm))
            pf_buf_addf(shows, ", with a gradient norm of %.3g", p->grad_norm);
        pf_buf_adds(shows, ".");
    }
    pf_buf_adds(advice, "Go on from the last checkpoint with ");
    add_calmer(advice, f);
    pf_buf_adds(advice,
                "; with training.fp16 or bf16, try it without. If it comes at the same step "
                "each time, look at the rows of that step (peft-toolkit data preview).");
}

static void say_jump(const figures *f, pf_buf *shows, pf_buf *advice) {
    const pf_curve_point *p = &f->train[f->jump];
    pf_buf_addf(shows, "At step %lld the training loss jumped from about %.4g to %.4g",
                (long long)p->step, f->before_jump, p->loss);
    if (isfinite(p->grad_norm) && isfinite(p->lr))
        pf_buf_addf(shows, " (gradient norm %.3g, learning rate %.2g)", p->grad_norm, p->lr);
    int back = f->jump;
    while (back < f->n_train && f->train[back].loss > 1.1 * f->before_jump) back++;
    if (back < f->n_train)
        pf_buf_addf(shows, ", and was back by step %lld.", (long long)f->train[back].step);
    else
        pf_buf_addf(shows, ", and has not come back: it ended at %.4g.", f->end);
    pf_buf_adds(advice, "Try ");
    add_calmer(advice, f);
    pf_buf_addf(advice,
                ". One jump that comes back is often a few odd rows: look at the data around step "
                "%lld (very long targets, wrong columns).",
                (long long)p->step);
}

static void say_overfit(const figures *f, pf_buf *shows, pf_buf *advice) {
    const pf_curve_point *best = &f->eval[f->best], *last = &f->eval[f->n_eval - 1];
    pf_buf_addf(shows,
                "eval_loss was at its best at step %lld, %.4g, and rose to %.4g by step %lld "
                "(%+.0f %%), while the training loss went from %.4g to %.4g: the adapter learns "
                "the training rows by heart.",
                (long long)best->step, best->loss, last->loss, (long long)last->step,
                percent(best->loss, last->loss), train_near(f, best->step),
                train_near(f, last->step));
    pf_buf_addf(advice, "Use the state of step %lld", (long long)best->step);
    if (!f->ctx->load_best) pf_buf_adds(advice, " (training.load_best_model_at_end=true keeps it)");
    if (!f->ctx->early_stopping)
        pf_buf_adds(advice, ", stop early (callbacks.early_stopping.patience=2)");
    double epochs = f->ctx->num_train_epochs;
    if (epochs > 1)
        pf_buf_addf(advice, ", train fewer epochs than %g", epochs);
    else
        pf_buf_adds(advice, ", train fewer steps");
    if (f->ctx->lora_r > 4)
        pf_buf_addf(advice, ", a smaller peft.lora.r than %lld", (long long)f->ctx->lora_r);
    if (f->ctx->lora_r > 0 && f->ctx->lora_dropout < 0.1)
        pf_buf_adds(advice, ", peft.lora.dropout=0.1");
    pf_buf_adds(advice, ", and above all more or more varied data.");
}

static void say_oscillation(const figures *f, pf_buf *shows, pf_buf *advice) {
    add_train(shows, f);
    pf_buf_addf(shows,
                " It swings by about %.3g from one point to the next, %.0f %% of its level, "
                "which is as much as it got better.",
                f->noise, 100 * f->noise / f->level);
    pf_buf_adds(advice, "Try ");
    add_rate(advice, f, 1.0 / 3);
    if (f->ctx->batch > 0)
        pf_buf_addf(advice,
                    ", a larger step than %lld samples "
                    "(training.gradient_accumulation_steps)",
                    (long long)f->ctx->batch);
    else
        pf_buf_adds(advice, ", a larger training.gradient_accumulation_steps");
    pf_buf_adds(advice, ". If rows are very different in length or kind, some of it is the data: a "
                        "larger training.logging_steps averages more.");
}

static void say_flat(const figures *f, pf_buf *shows, pf_buf *advice) {
    add_train(shows, f);
    add_eval(shows, f);
    double lr = f->ctx->learning_rate;
    if (f->end < 0.05) {
        pf_buf_adds(advice, "The loss is as good as zero: there is nothing left to learn in this "
                            "data, or the targets stand in the prompts (peft-toolkit data preview "
                            "shows what is supervised).");
        return;
    }
    if (f->noise > 0.1 * f->level)
        pf_buf_addf(shows, " It swings by about %.3g, which at this learning rate is the rows.",
                    f->noise);
    pf_buf_adds(advice, "Rate: ");
    if (lr > 0 && f->ctx->lora_r > 0 && lr < 5e-5) {
        pf_buf_addf(advice,
                    "training.learning_rate=2e-4 (it is %.3g); LoRA usually wants 1e-4 to "
                    "5e-4.",
                    lr);
    } else {
        add_rate(advice, f, lr > 0 && lr < 1e-6 ? 10 : 3);
        pf_buf_adds(advice, ".");
    }
    pf_buf_adds(advice, " Targets: train more of the model (peft.lora.target_modules=all-linear");
    if (f->ctx->lora_r > 0)
        pf_buf_addf(advice, ", peft.lora.r=%lld", (long long)f->ctx->lora_r * 2);
    pf_buf_adds(advice,
                "). Data: see with peft-toolkit data preview that the prompt holds what the "
                "target needs, and that the answer is what is supervised.");
}

static void say_fall(const figures *f, pf_buf *shows, pf_buf *advice) {
    add_train(shows, f);
    add_eval(shows, f);
    bool still = f->quarter > 0.03;
    if (still) {
        pf_buf_addf(shows, " It is still falling: the last quarter lowered it by %.0f %%.",
                    100 * f->quarter);
        pf_buf_adds(advice, "More may come from going on: ");
        if (f->ctx->num_train_epochs > 0)
            pf_buf_addf(advice, "training.num_train_epochs=%g.",
                        ceil(f->ctx->num_train_epochs * 2));
        else
            pf_buf_adds(advice, "a larger training.num_train_epochs.");
    } else {
        pf_buf_adds(shows, " It has levelled off.");
        pf_buf_adds(advice, "Nothing has to change. For a lower loss: more data");
        if (f->ctx->lora_r > 0)
            pf_buf_addf(advice, ", peft.lora.r=%lld or more target_modules",
                        (long long)f->ctx->lora_r * 2);
        pf_buf_adds(advice, ", or a larger base model.");
    }
}

static void say(pf_finding finding, const figures *f, pf_buf *shows, pf_buf *advice) {
    switch (finding) {
    case PF_FINDING_NAN:
        say_nan(f, shows, advice);
        break;
    case PF_FINDING_SHORT:
        pf_buf_addf(shows, "%d training losses were logged; a curve takes at least 4.", f->n_train);
        pf_buf_adds(advice, "Log more often (training.logging_steps=1) or train longer.");
        break;
    case PF_FINDING_JUMPS:
        say_jump(f, shows, advice);
        break;
    case PF_FINDING_RISES:
        add_train(shows, f);
        pf_buf_adds(shows, " It gets worse: the steps are too large.");
        pf_buf_adds(advice, "Try ");
        add_calmer(advice, f);
        pf_buf_adds(advice, ".");
        break;
    case PF_FINDING_OVERFITS:
        say_overfit(f, shows, advice);
        break;
    case PF_FINDING_OSCILLATES:
        say_oscillation(f, shows, advice);
        break;
    case PF_FINDING_FLAT:
        say_flat(f, shows, advice);
        break;
    case PF_FINDING_FALLS:
        say_fall(f, shows, advice);
        break;
    }
}

peft_status pf_diagnose(pf_diagnosis *out, pf_arena *a, const pf_curve_point *train, int n_train,
                        const pf_curve_point *eval, int n_eval, const pf_curve_context *ctx,
                        peft_error *err) {
    figures f = {.train = train,
                 .n_train = n_train,
                 .eval = eval,
                 .n_eval = n_eval,
                 .ctx = ctx,
                 .a = a,
                 .jump = -1,
                 .last_bad = -1};
    bool finite = true;
    for (int i = 0; i < n_train; i++) finite = finite && isfinite(train[i].loss);
    if (finite && n_train >= 4) PF_TRY(measure(&f, err));
    pf_buf shows = {0}, advice = {0};
    out->finding = judge(&f);
    out->title = titles[out->finding];
    say(out->finding, &f, &shows, &advice);
    out->shows = pf_arena_strdup(a, pf_buf_str(&shows));
    out->advice = pf_arena_strdup(a, pf_buf_str(&advice));
    bool ok = pf_buf_ok(&shows) && pf_buf_ok(&advice) && out->shows != NULL && out->advice != NULL;
    pf_buf_free(&shows);
    pf_buf_free(&advice);
    return ok ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

static double value_or_nan(const pf_trainer_state *s, const pf_log_row *row, const char *name) {
    double v;
    return pf_log_row_value(s, row, name, &v) ? v : NAN;
}

peft_status pf_diagnose_state(pf_diagnosis *out, pf_arena *a, const pf_trainer_state *s,
                              const pf_curve_context *ctx, peft_error *err) {
    pf_curve_point *train = PF_NEW_ARRAY(a, pf_curve_point, s->n_rows);
    pf_curve_point *eval = PF_NEW_ARRAY(a, pf_curve_point, s->n_rows);
    PF_CHECK_ALLOC(train, err);
    PF_CHECK_ALLOC(eval, err);
    int n_train = 0, n_eval = 0;
    for (int64_t i = 0; i < s->n_rows && i < INT32_MAX; i++) {
        const pf_log_row *row = &s->rows[i];
        double v;
        if (pf_log_row_value(s, row, "loss", &v)) {
            train[n_train++] = (pf_curve_point){.step = row->step,
                                                .loss = v,
                                                .grad_norm = value_or_nan(s, row, "grad_norm"),
                                                .lr = value_or_nan(s, row, "learning_rate")};
        }
        if (pf_log_row_value(s, row, "eval_loss", &v))
            eval[n_eval++] =
                (pf_curve_point){.step = row->step, .loss = v, .grad_norm = NAN, .lr = NAN};
    }
    return pf_diagnose(out, a, train, n_train, eval, n_eval, ctx, err);
}

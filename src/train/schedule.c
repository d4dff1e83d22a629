/* schedule.c - the kinds of schedules, their arguments, and the closed forms; schedule_adaptive.c
 * has those that follow a metric. The formulas keep transformers' order of operations, so the rates
 * are the same doubles. */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* ---- closed forms: the factor of step t -------------------------------------------------------
 */

static double max2(double a, double b) {
    return a > b ? a : b;
}

/* The part that nearly all share. Steps are doubles here, as transformers makes them. */
static bool warming_up(const pf_schedule *s, double t, double *factor) {
    double w = (double)s->cfg.warmup_steps;
    if (t >= w) return false;
    *factor = t / max2(1, w);
    return true;
}

static double progress(const pf_schedule *s, double t) {
    double w = (double)s->cfg.warmup_steps;
    return (t - w) / max2(1, (double)s->cfg.total_steps - w);
}

static double constant(const pf_schedule *s, double t) {
    (void)s;
    (void)t;
    return 1;
}

static double constant_with_warmup(const pf_schedule *s, double t) {
    double f;
    return warming_up(s, t, &f) ? f : 1;
}

static double linear(const pf_schedule *s, double t) {
    double f, total = (double)s->cfg.total_steps, w = (double)s->cfg.warmup_steps;
    return warming_up(s, t, &f) ? f : max2(0, (total - t) / max2(1, total - w));
}

static double cosine(const pf_schedule *s, double t) {
    double f;
    if (warming_up(s, t, &f)) return f;
    f = 0.5 * (1.0 + cos(PI * s->args.num_cycles * 2.0 * progress(s, t)));
    f = f * (1 - s->args.min_lr_rate) + s->args.min_lr_rate;
    return max2(0, f);
}

static double cosine_with_restarts(const pf_schedule *s, double t) {
    double f;
    if (warming_up(s, t, &f)) return f;
    double p = progress(s, t);
    if (p >= 1.0) return 0;
    return max2(0, 0.5 * (1.0 + cos(PI * fmod(s->args.num_cycles * p, 1.0))));
}

static double polynomial(const pf_schedule *s, double t) {
    double f, lr = s->cfg.lr, end = s->args.lr_end;
    double total = (double)s->cfg.total_steps, w = (double)s->cfg.warmup_steps;
    if (warming_up(s, t, &f)) return f;
    if (t > total || total == w) return end / lr;
    double left = 1 - (t - w) / (total - w);
    return ((lr - end) * pow(left, s->args.power) + end) / lr;
}

static double inverse_sqrt(const pf_schedule *s, double t) {
    double f;
    if (warming_up(s, t, &f)) return f;
    double shift = s->args.timescale - (double)s->cfg.warmup_steps;
    return 1.0 / sqrt((t + shift) / s->args.timescale);
}

static double cosine_warmup_with_min_lr(const pf_schedule *s, double t) {
    double w = (double)s->cfg.warmup_steps, start = s->args.warmup_lr_rate;
    if (t < w) {
        return isnan(start) ? (t + 1.0) / max2(1, w) : start + (1.0 - start) * t / max2(1, w - 1);
    }
    double p = (t - w + 1.0) / max2(1, (double)s->cfg.total_steps - w);
    double f = 0.5 * (1.0 + cos(PI * s->args.num_cycles * 2.0 * p));
    f = f * (1 - s->args.min_lr_rate) + s->args.min_lr_rate;
    return max2(0, f);
}

enum { WSD_LINEAR, WSD_COSINE, WSD_1_SQRT };

static double warmup_stable_decay(const pf_schedule *s, double t) {
    const pf_schedule_args *a = &s->args;
    double w = (double)s->cfg.warmup_steps, f = 0;
    if (t < w) {
        double p = t / max2(1, w);
        if (a->warmup_type == WSD_LINEAR) f = p;
        if (a->warmup_type == WSD_COSINE) f = 0.5 * (1.0 - cos(PI * p));
        if (a->warmup_type == WSD_1_SQRT) f = 1.0 - sqrt(1.0 - p);
        return max2(0, f * (1.0 - a->min_lr_ratio) + a->min_lr_ratio);
    }
    if (t < w + a->num_stable_steps) return 1;
    if (t >= w + a->num_stable_steps + a->num_decay_steps) return a->min_lr_ratio;
    double p = (t - w - a->num_stable_steps) / max2(1, a->num_decay_steps);
    if (a->decay_type == WSD_LINEAR) f = 1.0 - p;
    if (a->decay_type == WSD_COSINE) f = 0.5 * (1.0 + cos(PI * a->num_cycles * 2.0 * p));
    if (a->decay_type == WSD_1_SQRT) f = 1.0 - sqrt(p);
    return max2(0, f * (1.0 - a->min_lr_ratio) + a->min_lr_ratio);
}

/* ---- arguments --------------------------------------------------------------------------------
 */

typedef struct arg_row {
    const char *name;
    size_t offset;
    const char *words; /* of an int field, separated by blanks; NULL: a double */
    double min, max;
    bool whole;
} arg_row;

#define ARG(f) offsetof(pf_schedule_args, f)
#define NUMBER(f, lo, hi)                                                                          \
    { #f, ARG(f), NULL, lo, hi, false }
#define WHOLE(f, lo, hi)                                                                           \
    { #f, ARG(f), NULL, lo, hi, true }
#define WORD(f, choice_words)                                                                      \
    { #f, ARG(f), choice_words, 0, 0, false }

static const arg_row arg_rows[] = {
    NUMBER(num_cycles, 0, 1e9),
    NUMBER(lr_end, 0, 1e9),
    NUMBER(power, 0, 1e3),
    NUMBER(timescale, 1e-9, 1e18),
    NUMBER(min_lr, 0, 1e9),
    NUMBER(min_lr_rate, 0, 1),
    NUMBER(warmup_lr_rate, 0, 1),
    WHOLE(num_decay_steps, 0, 1e15),
    WHOLE(num_stable_steps, 0, 1e15),
    NUMBER(min_lr_ratio, 0, 1),
    NUMBER(factor, 0, 1),
    WHOLE(patience, 0, 1e15),
    NUMBER(threshold, 0, 1e9),
    WHOLE(cooldown, 0, 1e15),
    WHOLE(warmup, 0, 1e15),
    NUMBER(max_lr, 0, 1e9),
    NUMBER(eps, 0, 1e9),
    WHOLE(window_size, 1, 1e6),
    WHOLE(reset_start, 0, 1e15),
    WORD(warmup_type, "linear cosine 1-sqrt"),
    WORD(mode, "min max"),
    WORD(decay_type, "linear cosine 1-sqrt"),
    WORD(smooth, "false true"),
    WORD(threshold_mode, "rel abs"),
};

struct pf_schedule_kind {
    const char *name;
    double (*factor)(const pf_schedule *s, double step); /* NULL: adaptive */
    void (*metric)(pf_schedule *s, double value);
    const char *takes; /* arguments, separated by blanks */
    pf_schedule_args defaults;
};

// clang-format off
static const pf_schedule_kind kinds[] = {
    {"linear", linear, NULL, "", {.num_cycles = 0}},
    {"cosine", cosine, NULL, "num_cycles", {.num_cycles = 0.5}},
    {"cosine_with_restarts", cosine_with_restarts, NULL, "num_cycles", {.num_cycles = 1}},
    {"polynomial", polynomial, NULL, "lr_end power", {.lr_end = 1e-7, .power = 1}},
    {"constant", constant, NULL, "", {.num_cycles = 0}},
    {"constant_with_warmup", constant_with_warmup, NULL, "", {.num_cycles = 0}},
    {"inverse_sqrt", inverse_sqrt, NULL, "timescale", {.timescale = NAN}},
    {"reduce_lr_on_plateau", NULL, pf_schedule_plateau,
     "mode factor patience threshold threshold_mode cooldown min_lr eps",
     {.factor = 0.1, .patience = 10, .threshold = 1e-4, .eps = 1e-8}},
    {"cosine_with_min_lr", cosine, NULL, "num_cycles min_lr min_lr_rate",
     {.num_cycles = 0.5, .min_lr = NAN, .min_lr_rate = NAN}},
    {"cosine_warmup_with_min_lr", cosine_warmup_with_min_lr, NULL, "num_cycles min_lr min_lr_rate warmup_lr_rate",
     {.num_cycles = 0.5, .min_lr = NAN, .min_lr_rate = NAN, .warmup_lr_rate = NAN}},
    {"warmup_stable_decay", warmup_stable_decay, NULL,
     "num_decay_steps num_stable_steps warmup_type decay_type min_lr_ratio num_cycles",
     {.num_decay_steps = NAN, .num_stable_steps = NAN, .decay_type = WSD_COSINE, .num_cycles = 0.5}},
    {"greedy", NULL, pf_schedule_greedy,
     "mode factor patience threshold threshold_mode cooldown warmup min_lr max_lr eps smooth window_size reset_start",
     {.factor = 0.95, .patience = 10, .threshold = 1e-6, .threshold_mode = 1, .min_lr = 1e-3, .max_lr = 1, .eps = 1e-8,
      .window_size = 50, .reset_start = 500}},
};
// clang-format on

/* Index of `word` among blank-separated words, or -1. */
static int word_index(const char *words, const char *word) {
    size_t n = strlen(word);
    int index = 0;
    for (const char *w = words; *w != '\0'; index++) {
        size_t len = strcspn(w, " ");
        if (len == n && memcmp(w, word, n) == 0) return index;
        w += len + strspn(w + len, " ");
    }
    return -1;
}

static peft_status set_arg(pf_schedule *s, const arg_row *row, const pf_cfg_pair *given,
                           peft_error *err) {
    char *field = (char *)&s->args + row->offset;
    if (row->words != NULL) {
        int index = given->text == NULL ? -1 : word_index(row->words, given->text);
        if (index < 0) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "training.lr_scheduler_kwargs.%s is %s; it is one of: %s", row->name,
                           given->text == NULL ? "missing" : given->text, row->words);
        }
        memcpy(field, &index, sizeof index);
        return PEFT_OK;
    }
    double v = given->number;
    if (!given->is_number || !(v >= row->min && v <= row->max) || (row->whole && v != floor(v))) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.lr_scheduler_kwargs.%s is %s; it should be a %snumber between %g "
                       "and %g",
                       row->name, given->text == NULL ? "missing" : given->text,
                       row->whole ? "whole " : "", row->min, row->max);
    }
    memcpy(field, &v, sizeof v);
    return PEFT_OK;
}

static peft_status unknown_arg(const pf_schedule_kind *kind, const char *key, peft_error *err) {
    const char *known[PF_COUNT(arg_rows)];
    int n = 0;
    for (size_t i = 0; i < PF_COUNT(arg_rows); i++) {
        if (word_index(kind->takes, arg_rows[i].name) >= 0) known[n++] = arg_rows[i].name;
    }
    int near = pf_nearest(key, known, n);
    if (near >= 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.lr_scheduler_kwargs.%s is not an argument of %s; did you mean %s?",
                       key, kind->name, known[near]);
    }
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "training.lr_scheduler_kwargs.%s is not an argument of %s, which takes %s", key,
                   kind->name, n == 0 ? "none" : kind->takes);
}

static peft_status read_args(pf_schedule *s, peft_error *err) {
    const pf_cfg_map *map = s->cfg.args;
    for (int i = 0; map != NULL && i < map->n; i++) {
        const arg_row *row = NULL;
        for (size_t k = 0; k < PF_COUNT(arg_rows) && row == NULL; k++) {
            if (pf_streq(arg_rows[k].name, map->items[i].key)) row = &arg_rows[k];
        }
        if (row == NULL || word_index(s->kind->takes, row->name) < 0)
            return unknown_arg(s->kind, map->items[i].key, err);
        PF_TRY(set_arg(s, row, &map->items[i], err));
    }
    return PEFT_OK;
}

/* What transformers derives, and what it refuses. */
static peft_status complete(pf_schedule *s, peft_error *err) {
    pf_schedule_args *a = &s->args;
    const pf_schedule_kind *kind = s->kind;
    if (word_index(kind->takes, "min_lr_rate") >= 0) {
        if (isnan(a->min_lr) == isnan(a->min_lr_rate)) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "training.lr_scheduler_type %s needs %s of "
                           "training.lr_scheduler_kwargs.min_lr and min_lr_rate",
                           kind->name, isnan(a->min_lr) ? "one" : "only one");
        }
        if (isnan(a->min_lr_rate)) a->min_lr_rate = a->min_lr / s->cfg.lr;
    }
    if (kind->factor == polynomial && !(s->cfg.lr > a->lr_end)) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.lr_scheduler_kwargs.lr_end is %g; it should be below "
                       "training.learning_rate, %g",
                       a->lr_end, s->cfg.lr);
    }
    if (kind->factor == inverse_sqrt && isnan(a->timescale))
        a->timescale = s->cfg.warmup_steps > 0 ? (double)s->cfg.warmup_steps : 10000;
    if (kind->factor == warmup_stable_decay) {
        if (isnan(a->num_decay_steps)) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           "training.lr_scheduler_type warmup_stable_decay needs "
                           "training.lr_scheduler_kwargs.num_decay_steps (a tenth of all steps "
                           "is usual: %lld)",
                           (long long)(s->cfg.total_steps + 9) / 10);
        }
        if (isnan(a->num_stable_steps)) {
            a->num_stable_steps =
                (double)s->cfg.total_steps - (double)s->cfg.warmup_steps - a->num_decay_steps;
        }
    }
    if (kind->metric != NULL && a->factor >= 1) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.lr_scheduler_kwargs.factor is %g; it should be below 1",
                       a->factor);
    }
    return PEFT_OK;
}

peft_status pf_schedule_init(pf_schedule *s, pf_arena *a, const pf_schedule_cfg *cfg,
                             peft_error *err) {
    *s = (pf_schedule){.cfg = *cfg};
    const char *names[PF_COUNT(kinds)];
    for (size_t i = 0; i < PF_COUNT(kinds); i++) {
        names[i] = kinds[i].name;
        if (pf_streq(cfg->type, kinds[i].name)) s->kind = &kinds[i];
    }
    if (s->kind == NULL) {
        int near = cfg->type == NULL ? -1 : pf_nearest(cfg->type, names, (int)PF_COUNT(names));
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "training.lr_scheduler_type is %s, which is not a schedule; did you mean "
                       "%s?",
                       cfg->type == NULL ? "missing" : cfg->type,
                       near < 0 ? "linear" : names[near]);
    }
    if (!(cfg->lr > 0) || cfg->total_steps < 1 || cfg->warmup_steps < 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "a schedule needs a learning rate above 0, at least one step, and no "
                       "negative warmup; it has %g, %lld, %lld",
                       cfg->lr, (long long)cfg->total_steps, (long long)cfg->warmup_steps);
    }
    s->args = s->kind->defaults;
    s->args.mode = cfg->greater_is_better ? 1 : 0;
    PF_TRY(read_args(s, err));
    PF_TRY(complete(s, err));
    if (s->args.smooth) {
        s->state.window = PF_NEW_ARRAY(a, double, s->args.window_size);
        PF_CHECK_ALLOC(s->state.window, err);
    }
    pf_schedule_start(s);
    return PEFT_OK;
}

double pf_schedule_factor(const pf_schedule *s, int64_t step) {
    if (s->kind->factor == NULL) return s->state.lr / s->cfg.lr;
    return s->kind->factor(s, (double)step);
}

double pf_schedule_lr(const pf_schedule *s, int64_t step) {
    if (s->kind->factor == NULL) return s->state.lr;
    return s->cfg.lr * s->kind->factor(s, (double)step);
}

const char *pf_schedule_name(const pf_schedule *s) {
    return s->kind->name;
}

bool pf_schedule_is_adaptive(const pf_schedule *s) {
    return s->kind->metric != NULL;
}

void pf_schedule_metric(pf_schedule *s, double value) {
    if (s->kind->metric != NULL) s->kind->metric(s, value);
}

int64_t pf_schedule_warmup(int64_t steps, double ratio, int64_t total_steps) {
    return steps >= 1 ? steps : (int64_t)ceil((double)total_steps * ratio);
}

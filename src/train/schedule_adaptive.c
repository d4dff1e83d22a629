/* schedule_adaptive.c - schedules that follow a metric: torch's ReduceLROnPlateau and transformers'
 * GreedyLR (arXiv 2512.14527), step by step. See schedule.h. */
#include "train/schedule.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void pf_schedule_start(pf_schedule *s) {
    double *window = s->state.window;
    s->state = (pf_schedule_state){.lr = s->cfg.lr,
                                   .best = s->args.mode == 0 ? INFINITY : -INFINITY,
                                   .reset = (int64_t)s->args.reset_start,
                                   .window = window};
}

bool pf_schedule_better(const pf_schedule *s, double value) {
    double best = s->state.best, t = s->args.threshold;
    bool relative = s->args.threshold_mode == 0;
    if (s->args.mode == 0) return value < (relative ? best * (1.0 - t) : best - t);
    return value > (relative ? best * (1.0 + t) : best + t);
}

static double lowered(const pf_schedule *s) {
    double lr = s->state.lr * s->args.factor;
    return lr > s->args.min_lr ? lr : s->args.min_lr;
}

void pf_schedule_plateau(pf_schedule *s, double value) {
    pf_schedule_state *st = &s->state;
    if (pf_schedule_better(s, value)) {
        st->best = value;
        st->bad = 0;
    } else {
        st->bad++;
    }
    if (st->cooldown > 0) {
        st->cooldown--;
        st->bad = 0;
    }
    if (st->bad > (int64_t)s->args.patience) {
        double lr = lowered(s);
        if (st->lr - lr > s->args.eps) st->lr = lr;
        st->cooldown = (int64_t)s->args.cooldown;
        st->bad = 0;
    }
}

/* StreamingAverage: the sum is kept by adding and taking away, rounding included. */
static double smoothed(pf_schedule *s, double value) {
    pf_schedule_state *st = &s->state;
    int64_t size = (int64_t)s->args.window_size;
    st->window_sum += value;
    if (st->window_n == size) {
        st->window_sum -= st->window[0];
        memmove(st->window, st->window + 1, (size_t)(size - 1) * sizeof *st->window);
        st->window_n--;
    }
    st->window[st->window_n++] = value;
    return st->window_sum / (double)st->window_n;
}

static void raise_lr(pf_schedule *s) {
    double lr = s->state.lr / s->args.factor;
    if (lr > s->args.max_lr) lr = s->args.max_lr;
    if (lr - s->state.lr > s->args.eps) s->state.lr = lr;
    s->state.reset = (int64_t)s->args.reset_start;
}

/* A long stay at the lowest rate starts everything anew. */
static void lower_lr(pf_schedule *s) {
    double lr = lowered(s);
    if (s->state.lr - lr > s->args.eps) s->state.lr = lr;
    if (s->state.lr <= s->args.min_lr && --s->state.reset <= 0) pf_schedule_start(s);
}

void pf_schedule_greedy(pf_schedule *s, double value) {
    pf_schedule_state *st = &s->state;
    if (s->args.smooth) value = smoothed(s, value);
    if (st->cooldown > 0 || st->warmup > 0) {
        if (st->cooldown > 0)
            st->cooldown--;
        else
            st->warmup--;
        st->bad = st->good = 0;
        return;
    }
    if (pf_schedule_better(s, value)) {
        st->best = value;
        st->bad = 0;
        st->good++;
    } else {
        st->bad++;
        st->good = 0;
    }
    if (st->good > (int64_t)s->args.patience) {
        raise_lr(s);
        st->warmup = (int64_t)s->args.warmup;
        st->good = 0;
    } else if (st->bad > (int64_t)s->args.patience) {
        lower_lr(s);
        /* GreedyLR sets these after a reset too. */
        st->cooldown = (int64_t)s->args.cooldown;
        st->bad = 0;
    }
}

/* ---- checkpoints ------------------------------------------------------------------------------
 */

static peft_status save_schedule(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_schedule *s = ctx;
    const pf_schedule_state *st = &s->state;
    PF_TRY(pf_ckpt_put_text(w, "type", pf_schedule_name(s), err));
    if (!pf_schedule_is_adaptive(s)) return PEFT_OK;
    int64_t counters[] = {st->bad, st->good, st->cooldown, st->warmup, st->reset};
    int64_t n = PF_COUNT(counters), window_n = st->window_n;
    for (int64_t i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "counter%lld", (long long)i);
        PF_TRY(pf_ckpt_put_int(w, key, counters[i], err));
    }
    PF_TRY(pf_ckpt_put_real(w, "lr", st->lr, err));
    PF_TRY(pf_ckpt_put_real(w, "best", st->best, err)); /* infinite at first */
    if (!s->args.smooth) return PEFT_OK;
    PF_TRY(pf_ckpt_put_real(w, "window_sum", st->window_sum, err));
    /* as bits: a metric may be infinite, and a tensor of numbers must not be */
    return pf_ckpt_put_tensor(w, "window", PF_DTYPE_U64, 1, &window_n, st->window, err);
}

static peft_status load_schedule(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_schedule *s = ctx;
    pf_schedule_state *st = &s->state;
    pf_arena a;
    pf_arena_init(&a, "schedule");
    const char *type;
    int64_t *counters[] = {&st->bad, &st->good, &st->cooldown, &st->warmup, &st->reset};
    peft_status status;
    PF_TRY_OUT(pf_ckpt_get_text(r, "type", &a, &type, err));
    if (!pf_streq(type, pf_schedule_name(s))) {
        status = PF_FAIL(err, PEFT_E_CONFIG,
                         "the checkpoint was written with training.lr_scheduler_type %s, this run "
                         "has %s; resume with the one of the start",
                         type != NULL ? type : "unknown", pf_schedule_name(s));
        goto out;
    }
    if (!pf_schedule_is_adaptive(s)) goto out;
    for (size_t i = 0; i < PF_COUNT(counters); i++) {
        char key[32];
        snprintf(key, sizeof key, "counter%zu", i);
        PF_TRY_OUT(pf_ckpt_get_count(r, key, counters[i], err));
    }
    PF_TRY_OUT(pf_ckpt_get_real(r, "lr", &st->lr, err));
    PF_TRY_OUT(pf_ckpt_get_real(r, "best", &st->best, err));
    if (!s->args.smooth) goto out;
    int64_t n = pf_ckpt_count(r, "window");
    if (n < 0 || n > (int64_t)s->args.window_size) {
        status = PF_FAIL(err, PEFT_E_SHAPE,
                         "the checkpoint was written with another window_size of "
                         "training.lr_scheduler_kwargs");
        goto out;
    }
    st->window_n = n;
    PF_TRY_OUT(pf_ckpt_get_real(r, "window_sum", &st->window_sum, err));
    PF_TRY_OUT(pf_ckpt_get_tensor(r, "window", PF_DTYPE_U64, 1, &n, st->window, err));
out:
    pf_arena_release(&a);
    return status;
}

pf_section pf_schedule_section(pf_schedule *s) {
    return (pf_section){.name = "schedule", .ctx = s, .save = save_schedule, .load = load_schedule};
}

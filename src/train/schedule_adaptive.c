/* schedule_adaptive.c - schedules that follow a metric: torch's ReduceLROnPlateau and transformers'
 * GreedyLR (arXiv 2512.14527), step by step. See schedule.h. */
#include "train/schedule.h"

#include <math.h>
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

/* diagnosis.h - what a loss curve shows, in plain words, with the figures, and what to change.
 *
 * The rules are fixed, so one curve always gets the same words. x1..xn are the logged training
 * losses; n > 200 are first averaged in 200 equal parts (not for jumps). Then
 *
 *   start, end   mean of the first and of the last tenth (at least one point, at least two)
 *   noise        1.4826 * median |x_i - x_(i-1)| / sqrt(2): the standard deviation about a smooth
 *                curve, deaf to a few outliers
 *   level        median of the x_i
 *
 * and the first of these that holds is the finding:
 *
 *   NaN          a loss or evaluation is not finite, or the run stopped for that
 *   too short    fewer than 4 points
 *   jumps        some x_i is above the median of up to 5 points before it by more than 0.4 of that
 *                median, 8 times the noise (measured as a share of the loss), and 0.05 of start
 *   rises        end is above start by more than 0.05 of start and 3 times the noise
 *   overfits     the last eval_loss is above the smallest by more than 0.02 of it, at least two
 *                evaluations (or one, then 0.05) after it, and the training loss did not rise since
 *   oscillates   the noise is above 0.1 of level, and start - end below 4 times the noise
 *   flat         start - end is below 0.03 of start; or it would oscillate, but the learning rate
 * is known and below 5e-5: steps that small do not swing a loss, different rows do falls otherwise;
 * "still" when the last quarter lowered it by more than 0.03 */
#ifndef PF_DIAGNOSIS_H
#define PF_DIAGNOSIS_H

#include "train/trainer_state.h"

/* clang-format off */
#define PF_FINDING_LIST(X) \
    X(PF_FINDING_NAN,        "NaN") \
    X(PF_FINDING_SHORT,      "too short to tell") \
    X(PF_FINDING_JUMPS,      "jumps") \
    X(PF_FINDING_RISES,      "rises") \
    X(PF_FINDING_OVERFITS,   "falls, then validation rises: overfitting") \
    X(PF_FINDING_OSCILLATES, "oscillates") \
    X(PF_FINDING_FLAT,       "flat") \
    X(PF_FINDING_FALLS,      "falls steadily")
/* clang-format on */

typedef enum pf_finding {
#define PF_FINDING_ENUM(id, text) id,
    PF_FINDING_LIST(PF_FINDING_ENUM)
#undef PF_FINDING_ENUM
} pf_finding;

typedef struct pf_curve_point {
    int64_t step;
    double loss, grad_norm, lr; /* the last two NaN where they were not logged */
} pf_curve_point;

typedef struct pf_curve_context { /* for the advice; zero where it is not known */
    double learning_rate, num_train_epochs, max_grad_norm;
    int64_t warmup_steps, batch; /* samples of an optimizer step */
    int64_t lora_r;
    double lora_dropout;
    bool early_stopping, load_best;
    const char *diverged; /* the message that stopped the run, or NULL */
} pf_curve_context;

typedef struct pf_diagnosis {
    pf_finding finding;
    const char *title;  /* "falls steadily" */
    const char *shows;  /* what the curve shows, sentences with figures */
    const char *advice; /* what to change */
} pf_diagnosis;

/* Texts live in the arena. */
peft_status pf_diagnose(pf_diagnosis *out, pf_arena *a, const pf_curve_point *train, int n_train,
                        const pf_curve_point *eval, int n_eval, const pf_curve_context *ctx,
                        peft_error *err);
/* The curves of log_history: rows with "loss" and rows with "eval_loss". */
peft_status pf_diagnose_state(pf_diagnosis *out, pf_arena *a, const pf_trainer_state *s,
                              const pf_curve_context *ctx, peft_error *err);

#endif

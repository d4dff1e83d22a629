/* optimizer.c - see optimizer.h. */
#include "train/optimizer.h"

#include "ops/optim/adamw.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

peft_status pf_optimizer_init(pf_optimizer *o, pf_arena *a, pf_params *params,
                              const pf_optimizer_cfg *cfg, peft_error *err) {
    *o = (pf_optimizer){.cfg = *cfg, .params = params};
    if (params->grad == NULL)
        return PF_FAIL(err, PEFT_E_STATE, "the parameters are not sealed for training");
    if (params->n == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "nothing is trained: no tensor is attached to the model. Look at the "
                       "peft section, target_modules first");
    }
    int64_t widest = 1;
    o->runs = PF_NEW_ARRAY(a, pf_optimizer_run, params->n);
    PF_CHECK_ALLOC(o->runs, err);
    for (int i = 0; i < params->n; i++) {
        const pf_param *p = params->items[i];
        if (p->frozen) continue;
        if (p->grad_map != NULL && p->cols > widest) widest = p->cols;
        /* A run reaches to the next parameter: the padding between them is zero and stays so. */
        int64_t end = p->offset + pf_param_room(p);
        pf_optimizer_run *last = o->n_runs > 0 ? &o->runs[o->n_runs - 1] : NULL;
        if (last != NULL && last->offset + last->len == p->offset && last->decay == p->decay &&
            last->lr_scale == (double)p->lr_scale) {
            last->len = end - last->offset;
        } else {
            o->runs[o->n_runs++] = (pf_optimizer_run){.offset = p->offset,
                                                      .len = end - p->offset,
                                                      .lr_scale = (double)p->lr_scale,
                                                      .decay = p->decay};
        }
    }
    o->map_row = PF_NEW_ARRAY(a, double, widest);
    PF_CHECK_ALLOC(o->map_row, err);
    return PEFT_OK;
}

/* The parameter that element `at` of the block belongs to. */
static const pf_param *param_at(const pf_params *ps, int64_t at) {
    const pf_param *best = ps->items[0];
    for (int i = 1; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        if (p->offset <= at && (best->offset > at || p->offset > best->offset)) best = p;
    }
    return best;
}

static const char *value_name(double v) {
    return isnan(v) ? "NaN" : v > 0 ? "infinite" : "-infinite";
}

static peft_status name_nonfinite(const pf_params *ps, const pf_real *block, int64_t at,
                                  const char *what, peft_error *err) {
    const pf_param *p = param_at(ps, at);
    int64_t in = at - p->offset;
    return PF_FAIL(err, PEFT_E_DIVERGED, "%s %s[%lld,%lld] is %s", what, p->name,
                   (long long)(in / p->cols), (long long)(in % p->cols),
                   value_name((double)block[at]));
}

peft_status pf_weights_check_finite(const pf_params *params, pf_pool *pool, peft_error *err) {
    int64_t at = pf_first_nonfinite(pool, params->block_len, params->data);
    if (at < 0) return PEFT_OK;
    return name_nonfinite(params, params->data, at, "the weight", err);
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        if (p->grad[i] != 0) return false;
    }
    return true;
}

/* `excepted`: look at those that may be zero at the first step, else at the others. */
static peft_status check_nonzero(const pf_optimizer *o, bool excepted, peft_error *err) {
    const pf_param *dead = NULL;
    int n_dead = 0, n = 0;
    for (int i = 0; i < o->params->n; i++) {
        const pf_param *p = o->params->items[i];
        if (p->frozen || p->may_idle || p->zero_grad_ok != excepted) continue;
        n++;
        if (!all_zero(p)) continue;
        if (n_dead++ == 0) dead = p;
    }
    if (dead == NULL) return PEFT_OK;
    if (n_dead == n) {
        return PF_FAIL(err, PEFT_E_FAILED,
                       "no gradient reaches %s, nor %s: nothing would be trained. Are "
                       "all labels masked (data preview shows them), or is the loss constant?",
                       dead->name, n > 1 ? "any other trainable tensor" : "anything else");
    }
    char others[48] = "";
    if (n_dead > 1) snprintf(others, sizeof others, " (and of %d other tensors)", n_dead - 1);
    return PF_FAIL(err, PEFT_E_FAILED,
                   "the gradient of %s is zero throughout%s: it would never be trained. "
                   "The model does not use it in this run; leave it out of target_modules or "
                   "modules_to_save",
                   dead->name, others);
}

/* Gradients as the parameters want them: each row times the map. */
static void map_gradients(const pf_optimizer *o) {
    double *row = o->map_row;
    for (int i = 0; i < o->params->n; i++) {
        const pf_param *p = o->params->items[i];
        if (p->frozen || p->grad_map == NULL) continue;
        const int64_t r = p->cols;
        for (int64_t k = 0; k < p->rows; k++) {
            pf_real *g = p->grad + k * r;
            memset(row, 0, (size_t)r * sizeof *row);
            for (int64_t a = 0; a < r; a++) {
                for (int64_t b = 0; b < r; b++)
                    row[b] += (double)g[a] * (double)p->grad_map[a * r + b];
            }
            for (int64_t b = 0; b < r; b++) g[b] = (pf_real)row[b];
        }
    }
}

peft_status pf_optimizer_step(pf_optimizer *o, pf_pool *pool, double lr, pf_optimizer_report *out,
                              peft_error *err) {
    pf_params *ps = o->params;
    if (ps->made.params != NULL) PF_TRY(ps->made.hand_on(ps->made.ctx, err));
    double norm = sqrt(pf_sum_squares(pool, ps->block_len, ps->grad));
    if (!isfinite(norm)) {
        int64_t at = pf_first_nonfinite(pool, ps->block_len, ps->grad);
        if (at >= 0) return name_nonfinite(ps, ps->grad, at, "the gradient of", err);
        return PF_FAIL(err, PEFT_E_DIVERGED, "the norm of the gradients overflows");
    }
    if (!o->checked) PF_TRY(check_nonzero(o, false, err));
    bool look_again = o->moved && !o->checked_excepted;
    if (look_again) PF_TRY(check_nonzero(o, true, err));
    o->checked = true;
    if (look_again) o->checked_excepted = true;

    double clip = 1;
    if (o->cfg.max_grad_norm > 0) {
        clip = o->cfg.max_grad_norm / (norm + 1e-6);
        if (clip > 1) clip = 1;
    }
    map_gradients(o);
    for (int i = 0; i < o->n_runs; i++) {
        const pf_optimizer_run *r = &o->runs[i];
        pf_adamw how = {.lr = lr * r->lr_scale,
                        .beta1 = o->cfg.beta1,
                        .beta2 = o->cfg.beta2,
                        .eps = o->cfg.eps,
                        .weight_decay = r->decay ? o->cfg.weight_decay : 0,
                        .t = o->t + 1};
        pf_adamw_update(pool, &how, clip, r->len, ps->data + r->offset, ps->grad + r->offset,
                        ps->m + r->offset, ps->v + r->offset);
    }
    o->t++;
    if (lr > 0) o->moved = true;
    PF_TRY(pf_params_make(ps, -1, err));
    if (out != NULL) *out = (pf_optimizer_report){.grad_norm = norm, .clip = clip, .lr = lr};
    return PEFT_OK;
}

/* ---- checkpoints ------------------------------------------------------------------------------
 */

static const char *const moment_names[] = {"exp_avg", "exp_avg_sq"}; /* torch's names */

static peft_status moment_key(const pf_param *p, int which, char *out, size_t n, peft_error *err) {
    int len = snprintf(out, n, "%s.%s", moment_names[which], p->name);
    if (len >= 0 && (size_t)len < n) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED, "the name %s is too long", p->name);
}

static peft_status save_optimizer(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_optimizer *o = ctx;
    const pf_params *ps = o->params;
    PF_TRY(pf_ckpt_put_int(w, "t", o->t, err));
    PF_TRY(pf_ckpt_put_int(w, "moved", o->moved, err));
    PF_TRY(pf_ckpt_put_int(w, "checked", o->checked, err));
    PF_TRY(pf_ckpt_put_int(w, "checked_excepted", o->checked_excepted, err));
    PF_TRY(pf_ckpt_put_int(w, "n_params", ps->n, err));
    for (int i = 0; i < ps->n; i++) {
        for (int k = 0; k < 2 && !ps->items[i]->constant; k++) {
            const pf_param *p = ps->items[i];
            char key[900];
            PF_TRY(moment_key(p, k, key, sizeof key, err));
            PF_TRY(pf_ckpt_put_real_block(w, key, p->rows, p->cols,
                                          (k == 0 ? ps->m : ps->v) + p->offset, err));
        }
    }
    return PEFT_OK;
}

static peft_status load_optimizer(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_optimizer *o = ctx;
    const pf_params *ps = o->params;
    int64_t moved, checked, checked_excepted, n_params;
    PF_TRY(pf_ckpt_get_count(r, "t", &o->t, err));
    PF_TRY(pf_ckpt_get_int(r, "moved", &moved, err));
    PF_TRY(pf_ckpt_get_int(r, "checked", &checked, err));
    PF_TRY(pf_ckpt_get_int(r, "checked_excepted", &checked_excepted, err));
    PF_TRY(pf_ckpt_get_int(r, "n_params", &n_params, err));
    o->moved = moved != 0;
    o->checked = checked != 0;
    o->checked_excepted = checked_excepted != 0;
    for (int i = 0; i < ps->n; i++) {
        for (int k = 0; k < 2 && !ps->items[i]->constant; k++) {
            const pf_param *p = ps->items[i];
            char key[900];
            PF_TRY(moment_key(p, k, key, sizeof key, err));
            PF_TRY(pf_ckpt_get_real_block(r, key, p->rows, p->cols,
                                          (k == 0 ? ps->m : ps->v) + p->offset, err));
        }
    }
    if (n_params != ps->n) {
        return PF_FAIL(err, PEFT_E_SHAPE,
                       "the checkpoint trains %lld tensors, this run %d: the adapter is not the "
                       "same",
                       (long long)n_params, ps->n);
    }
    return PEFT_OK;
}

pf_section pf_optimizer_section(pf_optimizer *o) {
    return (pf_section){
        .name = "optimizer", .ctx = o, .save = save_optimizer, .load = load_optimizer};
}

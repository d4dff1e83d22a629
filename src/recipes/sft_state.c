/* sft_state.c - the state of a run on disk: checkpoints, resume, the best weights. */
#include "recipes/sft_parts.h"

#include "base/cpu.h"
#include "base/file.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* --- sections: each part of the run that has state
 * -------------------------------------------------------------------- */

static peft_status save_adapter(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_adapter *ad = ((const pf_sft *)ctx)->p.loaded.adapter;
    const char *path, *names[PF_ADAPTER_FILES];
    pf_arena a;
    pf_arena_init(&a, "checkpoint");
    const int n = pf_adapter_files(ad, &a, names);
    peft_status status = n > 0 ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int i = 0; i < n && status == PEFT_OK; i++) status = pf_ckpt_file(w, names[i], &path, err);
    if (status == PEFT_OK) status = pf_adapter_save(ad, pf_ckpt_dir(w), err);
    pf_arena_release(&a);
    return status;
}

/* Weights and moments as the run has them: the block, parameter by parameter. */
static peft_status save_params(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_params *ps = &((const pf_sft *)ctx)->p.loaded.adapter->params;
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        const pf_real *const blocks[] = {ps->data, ps->m, ps->v};
        static const char *const names[] = {"weight", "exp_avg", "exp_avg_sq"};
        for (int k = 0; k < (p->constant ? 1 : 3); k++) {
            char key[512];
            snprintf(key, sizeof key, "%s.%s", names[k], p->name);
            PF_TRY(pf_ckpt_put_real_block(w, key, p->rows, p->cols, blocks[k] + p->offset, err));
        }
    }
    return PEFT_OK;
}

static peft_status load_params(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_params *ps = &((pf_sft *)ctx)->p.loaded.adapter->params;
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        pf_real *const blocks[] = {ps->data, ps->m, ps->v};
        static const char *const names[] = {"weight", "exp_avg", "exp_avg_sq"};
        for (int k = 0; k < (p->constant ? 1 : 3); k++) {
            char key[512];
            snprintf(key, sizeof key, "%s.%s", names[k], p->name);
            PF_TRY(pf_ckpt_get_real_block(r, key, p->rows, p->cols, blocks[k] + p->offset, err));
        }
    }
    return pf_params_make(ps, -1, err);
}

/* Counters of the loop, and what was chosen for this machine: a resumed run makes the same choices.
 */
static peft_status save_loop(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const pf_sft *s = ctx;
    const struct {
        const char *key;
        int64_t value;
    } ints[] = {
        {"step", s->step},
        {"evaluated_step", s->evaluated_step},
        {"evaluation_pending", s->evaluation_pending},
        {"stopped", s->stopped},
        {"loss_count", s->loss_count},
        {"tokens_seen", s->tokens_seen},
        {"supervised_seen", s->supervised_seen},
        {"rows_seen", s->rows_seen},
        {"rows_plain", s->rows_plain},
        {"max_tokens", s->p.memory.max_tokens},
        {"max_labels", s->p.memory.max_labels},
        {"max_target", s->p.memory.max_target},
        {"max_source", s->p.memory.max_source},
        {"save_policy", (int64_t)s->p.memory.policy},
        {"save_bf16", s->p.save_bf16},
    };
    char saved[PF_SAVED_TEXT];
    pf_saved_set_write(&s->p.memory.saved, saved, sizeof saved);
    for (size_t i = 0; i < PF_COUNT(ints); i++)
        PF_TRY(pf_ckpt_put_int(w, ints[i].key, ints[i].value, err));
    PF_TRY(pf_ckpt_put_real(w, "loss_sum", s->loss_sum, err));
    PF_TRY(pf_ckpt_put_real(w, "total_loss", s->total_loss, err));
    PF_TRY(pf_ckpt_put_text(w, "saved_set", saved, err));
    PF_TRY(pf_ckpt_put_text(w, "isa", pf_isa_name(pf_cpu_level()), err));
    PF_TRY(pf_ckpt_put_text(w, "compute", pf_compute_name(s->p.compute.type), err));
    PF_TRY(pf_ckpt_put_text(w, "data", s->p.data.fingerprint, err));
    return pf_ckpt_put_text(w, "tokenizer", pf_tokenizer_fingerprint(s->p.loaded.tokenizer), err);
}

static peft_status check_same(const pf_sft *s, const pf_ckpt_reader *r, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "resume");
    const char *data, *tokenizer;
    peft_status status = pf_ckpt_get_text(r, "data", &a, &data, err);
    if (status == PEFT_OK) status = pf_ckpt_get_text(r, "tokenizer", &a, &tokenizer, err);
    if (status == PEFT_OK && !pf_streq(data, s->p.data.fingerprint)) {
        status = PF_FAIL(err, PEFT_E_CONFIG,
                         "the data are not those of the checkpoint (files, templates, limits or "
                         "tokenizer changed); resume "
                         "with the same, or start a new run with --overwrite");
    }
    if (status == PEFT_OK &&
        !pf_streq(tokenizer, pf_tokenizer_fingerprint(s->p.loaded.tokenizer))) {
        status = PF_FAIL(err, PEFT_E_CONFIG,
                         "the tokenizer is not that of the checkpoint; resume with the same one");
    }
    pf_arena_release(&a);
    return status;
}

static peft_status load_loop(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_sft *s = ctx;
    int64_t pending, stopped;
    const struct {
        const char *key;
        int64_t *value;
    } ints[] = {
        {"step", &s->step},
        {"evaluated_step", &s->evaluated_step},
        {"evaluation_pending", &pending},
        {"stopped", &stopped},
        {"loss_count", &s->loss_count},
        {"tokens_seen", &s->tokens_seen},
        {"supervised_seen", &s->supervised_seen},
        {"rows_seen", &s->rows_seen},
        {"rows_plain", &s->rows_plain},
    };
    PF_TRY(check_same(s, r, err));
    for (size_t i = 0; i < PF_COUNT(ints); i++)
        PF_TRY(pf_ckpt_get_int(r, ints[i].key, ints[i].value, err));
    if (s->step != pf_ckpt_saved_step(r)) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "the checkpoint is of step %lld and its loop of step %lld: resume from "
                       "another one",
                       (long long)pf_ckpt_saved_step(r), (long long)s->step);
    }
    s->evaluation_pending = pending != 0;
    s->stopped = stopped != 0;
    PF_TRY(pf_ckpt_get_real(r, "loss_sum", &s->loss_sum, err));
    return pf_ckpt_get_real(r, "total_loss", &s->total_loss, err);
}

static int list_sections(pf_sft *s, pf_section *out) {
    const pf_section all[] = {
        {.name = "adapter", .ctx = s, .save = save_adapter, .load = NULL, .optional = true},
        {.name = "params", .ctx = s, .save = save_params, .load = load_params},
        pf_optimizer_section(&s->optimizer),
        pf_schedule_section(&s->schedule),
        pf_best_section(&s->best),
        pf_early_stopping_section(&s->stopping),
        pf_trainer_state_section(&s->state),
        {.name = "loop", .ctx = s, .save = save_loop, .load = load_loop},
    };
    memcpy(out, all, sizeof all);
    return (int)PF_COUNT(all);
}

#define MAX_SECTIONS 16

/* What trainer_state.json says beside log_history. */
peft_status pf_sft_update_state(pf_sft *s, peft_error *err) {
    pf_trainer_state *st = &s->state;
    st->global_step = s->step;
    st->epoch = pf_sft_epoch(s);
    st->num_input_tokens_seen = s->tokens_seen;
    /* as transformers counts: six per weight and token, whatever is trained */
    st->total_flos = 6.0 * (double)s->p.loaded.model->n_params * (double)s->tokens_seen;
    st->should_stop = s->stopped || s->step >= s->p.total_steps;
    st->has_best = s->best.any;
    if (!s->best.any) return PEFT_OK;
    st->best_metric = s->best.value;
    if (st->best_global_step == s->best.step && st->best_model_checkpoint != NULL) return PEFT_OK;
    st->best_global_step = s->best.step;
    st->best_model_checkpoint =
        pf_arena_printf(&s->p.arena, "%s/checkpoint-%lld", s->dir.path, (long long)s->best.step);
    PF_CHECK_ALLOC(st->best_model_checkpoint, err);
    return PEFT_OK;
}

/* --- saving
 * ----------------------------------------------------------------------------------------------------------------
 */

peft_status pf_sft_save(pf_sft *s, peft_error *err) {
    pf_section sections[MAX_SECTIONS];
    pf_checkpoint_save_cfg cfg = {.run_dir = s->dir.path,
                                  .step = s->step,
                                  .sections = sections,
                                  .n_sections = list_sections(s, sections),
                                  .params = &s->p.loaded.adapter->params,
                                  .save_total_limit = s->p.run.training.save_total_limit,
                                  .best_step = -1};
    if (s->p.run.training.load_best_model_at_end && s->best.any) cfg.best_step = s->best.step;
    PF_TRY(pf_sft_update_state(s, err));
    peft_status status = pf_trackers_sync(&s->trackers, err);
    if (status != PEFT_OK)
        return pf_fail_prefix(
            err, status, "checkpoint-%lld was not made (make room, then continue with --resume)",
            (long long)s->step);
    PF_TRY(pf_sft_complete_environment(s, err));
    PF_TRY(pf_checkpoint_save(&cfg, err));
    s->saved_step = s->step;
    s->new_best = false;
    return PEFT_OK;
}

peft_status pf_sft_save_last(pf_sft *s, peft_error *err) {
    if (pf_streq(s->p.run.training.save_strategy, "no") && !s->new_best) return PEFT_OK;
    return pf_sft_save(s, err);
}

peft_status pf_sft_restore_best(pf_sft *s, peft_error *err) {
    if (!s->p.run.training.load_best_model_at_end || !s->best.any || s->best.step == s->step)
        return PEFT_OK;
    pf_arena a;
    pf_arena_init(&a, "best");
    const char *dir =
        pf_arena_printf(&a, "%s/checkpoint-%lld", s->dir.path, (long long)s->best.step);
    const pf_section params = {.name = "params", .ctx = s, .load = load_params};
    peft_status status = dir != NULL ? pf_checkpoint_load(dir, &params, 1, err)
                                     : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_arena_release(&a);
    if (status != PEFT_OK)
        return pf_fail_prefix(err, status, "the best weights (step %lld)", (long long)s->best.step);
    PF_INFO("the final adapter is that of step %lld, the best by %s (%g)", (long long)s->best.step,
            s->best.metric, s->best.value);
    return PEFT_OK;
}

/* --- resuming
 * --------------------------------------------------------------------------------------------------------------
 */

/* What was chosen when the checkpoint was made is chosen again: the instruction set of the kernels,
 * the type of arithmetic, the token budget, what is recomputed. Anything else could change bits. */
static peft_status recall_choices(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_sft *s = ctx;
    int64_t tokens, labels, target, source, policy, save_bf16;
    const char *isa, *saved, *compute;
    PF_TRY(pf_ckpt_get_int(r, "max_tokens", &tokens, err));
    PF_TRY(pf_ckpt_get_int(r, "max_labels", &labels, err));
    PF_TRY(pf_ckpt_get_int(r, "max_target", &target, err));
    PF_TRY(pf_ckpt_get_int(r, "max_source", &source, err));
    PF_TRY(pf_ckpt_get_text(r, "saved_set", &s->p.arena, &saved, err));
    PF_TRY(pf_ckpt_get_int(r, "save_policy", &policy, err));
    PF_TRY(pf_ckpt_get_int(r, "save_bf16", &save_bf16, err));
    s->p.save_bf16 = save_bf16 != 0;
    PF_TRY(pf_ckpt_get_text(r, "isa", &s->p.arena, &isa, err));
    PF_TRY(pf_ckpt_get_text(r, "compute", &s->p.arena, &compute, err));
    if (!pf_compute_by_name(compute, &s->p.compute.type))
        return PF_FAIL(err, PEFT_E_FORMAT, "the checkpoint's arithmetic \"%.20s\" is unknown",
                       compute);
    for (pf_isa level = PF_ISA_SCALAR; level <= PF_ISA_AVX512; level++) {
        if (pf_streq(isa, pf_isa_name(level))) pf_cpu_force(level);
    }
    if (!pf_streq(isa, pf_isa_name(pf_cpu_level()))) {
        PF_WARN("the checkpoint was made with %s kernels and this machine has %s: the run goes on, "
                "its last bits may differ",
                isa, pf_isa_name(pf_cpu_level()));
    }
    pf_memory_plan *m = &s->p.memory;
    const bool known = policy >= PF_SAVE_MINIMAL && policy <= PF_SAVE_SELECTED;
    pf_saved_set set;
    const int64_t most = 1 << 28; /* as the configuration allows */
    if (tokens < s->p.request.longest || labels < s->p.request.most_labels || tokens > most ||
        labels > most || target < 1 || target > tokens || source < 0 || source > tokens ||
        (m->max_source > 0 && (target < m->max_target || source < m->max_source)) || !known ||
        !pf_saved_set_read(&set, saved))
        return PEFT_OK; /* rows were added that need more: planned anew */
    m->max_tokens = tokens;
    m->max_labels = labels;
    m->max_target = target;
    m->max_source = source;
    m->policy = (pf_save_policy)policy;
    m->saved = set;
    return PEFT_OK;
}

peft_status pf_sft_find_checkpoint(pf_sft *s, const peft_run_options *opt, peft_error *err) {
    const char *from = opt->resume_from;
    const char *asked = s->p.run.training.resume_from_checkpoint;
    bool newest = opt->resume;
    if (from == NULL && asked != NULL) {
        if (pf_streq(asked, "true"))
            newest = true;
        else
            from = asked;
    }
    s->resumed = from != NULL || newest;
    pf_checkpoint_info found = {0};
    if (from != NULL) {
        PF_TRY(pf_checkpoint_verify(from, &s->p.arena, &found, err));
    } else if (newest) {
        pf_strlist skipped = {0};
        PF_TRY(pf_checkpoint_newest(s->dir.path, &s->p.arena, &found, &skipped, err));
        for (int i = 0; i < skipped.n; i++) PF_WARN("%s; an earlier one is used", skipped.items[i]);
        if (found.path == NULL) PF_INFO("no checkpoint was made yet; starting from the beginning");
    }
    s->checkpoint = found.path;
    if (found.path == NULL) return PEFT_OK;
    const pf_section choices = {.name = "loop", .ctx = s, .load = recall_choices};
    return pf_checkpoint_load(found.path, &choices, 1, err);
}

peft_status pf_sft_resume(pf_sft *s, peft_error *err) {
    if (s->checkpoint != NULL) {
        pf_section sections[MAX_SECTIONS];
        const int n = list_sections(s, sections);
        PF_TRY(pf_checkpoint_load(s->checkpoint, sections, n, err));
        s->saved_step = s->step;
        PF_INFO("resuming after step %lld from %s", (long long)s->step, s->checkpoint);
    }
    s->first_step = s->step;
    return s->resumed ? pf_checkpoint_supersede(s->dir.path, s->step, err) : PEFT_OK;
}

/* run_config_notes.c - what a run has to say about its configuration before it starts. */
#include "config/run_config.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

static bool is_active(const char *const *active, int n, const char *path) {
    for (int i = 0; i < n; i++)
        if (strcmp(active[i], path) == 0) return true;
    return false;
}

static peft_status say(pf_strlist *out, pf_arena *a, const char *text, peft_error *err) {
    const char *copy = pf_arena_strdup(a, text);
    PF_CHECK_ALLOC(copy, err);
    return pf_strlist_add(out, a, copy, err);
}

peft_status pf_run_cfg_notes(const pf_run_cfg *run, const pf_cfg *cfg, const char *const *active,
                             int n_active, pf_arena *a, pf_strlist *out, peft_error *err) {
    for (int i = 0; i < cfg->notes.n; i++) PF_TRY(pf_strlist_add(out, a, cfg->notes.items[i], err));
    const struct {
        bool given;
        const char *path, *service;
    } trackers[] = {{run->logging.mlflow.given, "logging.mlflow", "MLflow"},
                    {run->logging.wandb.given, "logging.wandb", "Weights & Biases"},
                    {run->logging.tensorboard.given, "logging.tensorboard", "TensorBoard"},
                    {run->logging.csv, "logging.csv", "metrics.csv"}};
    char line[512];
    for (size_t i = 0; i < PF_COUNT(trackers); i++) {
        if (!trackers[i].given || is_active(active, n_active, trackers[i].path)) continue;
        snprintf(line, sizeof line,
                 "%s is not active yet: nothing is sent to %s; every metric is in %s/metrics.jsonl",
                 trackers[i].path, trackers[i].service, run->training.output_dir);
        PF_TRY(say(out, a, line, err));
    }
    if (run->distributed.given && !is_active(active, n_active, "distributed")) {
        const long long device = run->training.per_device_train_batch_size,
                        steps = run->training.gradient_accumulation_steps;
        if (run->distributed.world_size > 1)
            snprintf(
                line, sizeof line,
                "distributed is not active yet: this run has one rank, so an optimizer step sees "
                "%lld x %lld = %lld samples, not %lld as with %lld ranks",
                device, steps, device * steps,
                device * steps * (long long)run->distributed.world_size,
                (long long)run->distributed.world_size);
        else
            snprintf(line, sizeof line,
                     "distributed is not active yet: this run has one rank, and an optimizer step "
                     "sees %lld x %lld = %lld samples",
                     device, steps, device * steps);
        PF_TRY(say(out, a, line, err));
    }
    return PEFT_OK;
}

const char *pf_run_cfg_compute(const pf_run_cfg *run, char *line, size_t n) {
    const pf_training_cfg *t = &run->training;
    line[0] = 0;
    if (strcmp(t->compute, "auto") == 0) return "f32 bf16 int8";
    if (t->fp16)
        snprintf(line, n,
                 "training.fp16: this run computes in f32; on a CPU half precision would be "
                 "slower and lose range");
    return t->bf16 && strcmp(t->compute, "f32") == 0 ? "f32 bf16" : t->compute;
}

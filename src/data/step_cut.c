/* step_cut.c - see step_cut.h. */
#include "data/step_cut.h"

#include "base/mem.h"

static void add(pf_step_cut *c, const pf_step *step, const pf_sample *samples,
                const pf_batch_figures *f, int32_t n_micro, bool keep_tail) {
    c->steps++;
    c->micro += n_micro;
    c->computed += f->rows;
    c->tokens += step->tokens;
    c->supervised += f->labels;
    if (f->most_rows > c->rows) c->rows = f->most_rows;
    if (f->most_labels > c->labels) c->labels = f->most_labels;
    if (f->most_target > c->target) c->target = f->most_target;
    if (f->most_source > c->source) c->source = f->most_source;
    for (int32_t i = 0; i < step->n; i++) {
        const double rows = pf_sample_rows(&samples[i], keep_tail);
        const double source = rows > 0 ? samples[i].n_source : 0; /* sees itself, and is seen */
        c->row_pairs += rows * rows + source * (source + rows);
        c->computed_source += (int64_t)source;
    }
}

peft_status pf_step_cut_find(pf_step_cut *out, pf_step_plan *plan, const pf_dataset *set,
                             const pf_batch_builder_options *opt, int64_t n_steps,
                             int64_t most_tokens, peft_error *err) {
    *out = (pf_step_cut){0};
    pf_batch_builder *bb;
    PF_TRY(pf_batch_builder_new(&bb, opt, err));
    pf_sample *samples = pf_calloc((size_t)opt->max_samples, sizeof *samples);
    peft_status status = samples != NULL ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    while (status == PEFT_OK && out->steps < n_steps && out->tokens < most_tokens) {
        pf_step step;
        pf_step_plan_get(plan, out->steps, &step);
        for (int32_t i = 0; i < step.n; i++)
            samples[i] = pf_dataset_sample(set, step.examples[i], i);
        int32_t n_micro;
        status = pf_batch_builder_begin(bb, samples, step.n, (uint64_t)step.step, &n_micro, err);
        const pf_batch_figures f = pf_batch_builder_figures(bb);
        if (status == PEFT_OK) add(out, &step, samples, &f, n_micro, opt->keep_tail);
    }
    pf_free(samples);
    pf_batch_builder_free(bb);
    out->exact = out->steps == n_steps;
    if (status == PEFT_OK && !out->exact) {
        /* a shared row may have a label of every sample that shares it: then only rows bound them
         */
        const bool shares =
            opt->share == PF_SHARE_ALWAYS || (opt->share == PF_SHARE_AUTO && !opt->dropout);
        const int64_t bound =
            shares ? opt->max_tokens : pf_step_plan_max_labels(plan, opt->max_tokens, false);
        out->rows = out->target = opt->max_tokens;
        if (out->source > 0) out->source = opt->max_tokens;
        if (bound > out->labels) out->labels = bound;
    }
    return status;
}

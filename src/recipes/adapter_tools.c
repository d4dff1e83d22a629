/* adapter_tools.c - see adapter_tools.h. */
#include "recipes/adapter_tools.h"

#include "base/file.h"
#include "base/str.h"
#include "factors/combine.h"
#include "factors/factors.h"
#include "factors/to_factors.h"
#include "recipes/loaded.h"

#include <string.h>
#include <unistd.h>

enum { MOST_SETS = 32 };

/* Under a temporary name beside it first. */
static peft_status write_folder(pf_factors *f, const pf_factor_format *format, const char *output,
                                bool overwrite, peft_error *err) {
    if (pf_path_exists(output) && !overwrite)
        return PF_FAIL(err, PEFT_E_CREATE,
                       "%s is there already; choose another --output, or replace it with "
                       "--overwrite",
                       output);
    const char *tmp = pf_arena_printf(&f->arena, "%s.tmp-%ld", output, (long)getpid());
    PF_CHECK_ALLOC(tmp, err);
    peft_status status = pf_factors_write(f, format, tmp, err);
    if (status == PEFT_OK && pf_path_exists(output)) status = pf_remove_tree(output, err);
    if (status == PEFT_OK) status = pf_rename(tmp, output, err);
    if (status != PEFT_OK) (void)pf_remove_tree(tmp, NULL);
    return status;
}

static int64_t numbers_of(const pf_factors *f) {
    int64_t n = 0;
    for (int i = 0; i < f->n; i++) n += f->items[i].r * (f->items[i].in + f->items[i].out);
    return n;
}

static void say_written(pf_buf *said, const pf_factors *f, const char *output, const char *what) {
    int64_t least = f->items[0].r, most = least;
    for (int i = 1; i < f->n; i++) {
        least = f->items[i].r < least ? f->items[i].r : least;
        most = f->items[i].r > most ? f->items[i].r : most;
    }
    pf_buf_addf(said, "written: %s (%s; %d modules, ", output, what, f->n);
    if (least == most)
        pf_buf_addf(said, "rank %lld", (long long)most);
    else
        pf_buf_addf(said, "ranks %lld to %lld", (long long)least, (long long)most);
    pf_buf_addf(said, ", %lld numbers)\n", (long long)numbers_of(f));
}

/* ---- combine --------------------------------------------------------------------------------- */

static peft_status combine(pf_factors *out, pf_factors **sets, int n,
                           const peft_combine_options *opt, pf_buf *said, peft_error *err) {
    double weights[MOST_SETS], left;
    for (int i = 0; i < n; i++) weights[i] = opt->weights != NULL ? opt->weights[i] : 1;
    const pf_combine_options o = {.kind = opt->kind != NULL ? opt->kind : "linear",
                                  .density = opt->density > 0 ? opt->density : 1,
                                  .frequency = opt->majority_frequency,
                                  .svd_rank = opt->svd_rank,
                                  .seed = opt->seed};
    PF_TRY(pf_factors_combine(out, sets, weights, n, &o, &left, err));
    out->base_name = sets[0]->base_name;
    out->task_type = sets[0]->task_type;
    PF_TRY(write_folder(out, pf_factor_format_find("peft"), opt->output, opt->overwrite, err));
    say_written(said, out, opt->output, o.kind);
    if (left > 0)
        pf_buf_addf(said, "of no module is more than %.3g %% left out (of the update's norm)\n",
                    100 * left);
    return PEFT_OK;
}

peft_status pf_adapter_combine(const peft_combine_options *opt, pf_buf *said, peft_error *err) {
    pf_factors all[MOST_SETS], *sets[MOST_SETS], out;
    int n = 0;
    if (opt->n_adapters < 1 || opt->n_adapters > MOST_SETS || opt->output == NULL)
        return PF_FAIL(err, PEFT_E_USAGE, "combine: name 1 to %d adapters and an output folder",
                       MOST_SETS);
    peft_status status = PEFT_OK;
    for (; n < opt->n_adapters && status == PEFT_OK; n += status == PEFT_OK) {
        status = pf_factors_open(&all[n], opt->adapters[n], NULL, err);
        sets[n] = &all[n];
    }
    if (status == PEFT_OK) {
        pf_factors_init(&out, opt->output);
        status = combine(&out, sets, n, opt, said, err);
        pf_factors_release(&out);
    }
    for (int i = 0; i < n; i++) pf_factors_release(&all[i]);
    return status;
}

/* ---- convert --------------------------------------------------------------------------------- */

/* Between formats: the numbers stay, their places and names change. */
static peft_status to_format(const peft_convert_options *opt, const pf_factor_format *to,
                             pf_buf *said, peft_error *err) {
    pf_factors f;
    const pf_factor_format *from;
    PF_TRY(pf_factors_open(&f, opt->adapter, &from, err));
    peft_status status = PEFT_OK;
    if (opt->model != NULL) status = pf_factors_know_model(&f, opt->model, err);
    if (status == PEFT_OK) status = write_folder(&f, to, opt->output, opt->overwrite, err);
    if (status == PEFT_OK) {
        pf_buf_addf(said, "%s -> ", from->name);
        say_written(said, &f, opt->output, to->name);
    }
    pf_factors_release(&f);
    return status;
}

/* Any change of weights as a LoRA of one rank. */
static peft_status to_lora(const peft_convert_options *opt, pf_buf *said, peft_error *err) {
    pf_loaded l;
    pf_factors f;
    pf_to_factors_report report;
    const pf_load_options load = {.model = opt->model,
                                  .adapter = opt->adapter,
                                  .threads = opt->threads,
                                  .ignore_left_over_weights = opt->ignore_left_over_weights};
    if (opt->rank < 1)
        return PF_FAIL(err, PEFT_E_USAGE, "convert: --to lora needs a rank: --rank 16");
    PF_TRY(pf_load(&l, &load, err));
    pf_factors_init(&f, opt->adapter);
    peft_status status = pf_to_factors(&f, l.adapter, opt->rank, &report, err);
    if (status == PEFT_OK)
        status = write_folder(&f, pf_factor_format_find("peft"), opt->output, opt->overwrite, err);
    if (status == PEFT_OK) {
        pf_buf_addf(said, "%s -> ", l.adapter->method->name);
        say_written(said, &f, opt->output, "lora");
        pf_buf_addf(said,
                    "left out, of the norm of what changes: %.3g %% in all, at most %.3g %% (%s)\n",
                    100 * report.all, 100 * report.worst, report.where);
    }
    pf_factors_release(&f);
    pf_unload(&l);
    return status;
}

peft_status pf_adapter_convert(const peft_convert_options *opt, pf_buf *said, peft_error *err) {
    if (opt->adapter == NULL || opt->output == NULL || opt->to == NULL)
        return PF_FAIL(err, PEFT_E_USAGE, "convert: name the adapter, --to and --output");
    if (pf_streq(opt->to, "lora")) return to_lora(opt, said, err);
    const pf_factor_format *to = pf_factor_format_find(opt->to);
    if (to == NULL)
        return PF_FAIL(err, PEFT_E_USAGE,
                       "convert: --to is '%s'; it should be peft, adapterhub, mlx (formats of a "
                       "LoRA) or lora (any method as a LoRA)",
                       opt->to);
    return to_format(opt, to, said, err);
}

/* plan.c - see plan.h. Steered by the same configuration as training; weights, tokenizer and data
 * are looked at where they are there. */
#include "recipes/plan.h"

#include "base/cpu.h"
#include "recipes/hardware.h"
#include "recipes/prepared.h"

#include <stdio.h>

#define SPEED_SECONDS 1.5 /* of measuring */

static void add_text(const pf_prepared *p, pf_buf *out) {
    char line[256];
    pf_adapter_describe(p->loaded.adapter, line, sizeof line);
    pf_buf_addf(out, "%s\n", line);
    if (p->assumed[0] != '\0')
        pf_buf_addf(out, "%s\n", p->assumed);
    else
        pf_buf_addf(out, "steps: %lld (%lld per epoch)\n", (long long)p->total_steps,
                    (long long)p->steps_per_epoch);
    pf_memory_plan_text(&p->memory, &p->request, out);
    if (p->speed.tokens_per_second <= 0) return;
    pf_buf_addf(out, "speed: about ");
    pf_speed_text(&p->speed, out);
    char time[32];
    if (p->assumed[0] == '\0')
        pf_buf_addf(out, "; all steps: %s",
                    pf_format_duration(p->speed.step * (double)p->total_steps, time, sizeof time));
    pf_buf_addf(out,
                "\n  predicted for this machine (%d thread%s, %s, %s) from %d kinds of operations, "
                "timed one by one at %lld rows in %.1f s",
                p->loaded.backend->n_workers, p->loaded.backend->n_workers == 1 ? "" : "s",
                pf_isa_name(pf_cpu_level()), pf_compute_name(p->compute.type), p->speed.kinds,
                (long long)p->speed.rows, p->speed.spent);
    if (p->speed.guessed > 0)
        pf_buf_addf(out, "; %d of them taken at the rate of the others", p->speed.guessed);
    pf_buf_adds(out, "; evaluations and files not counted\n");
}

static void add_json(const pf_prepared *p, pf_buf *out) {
    pf_memory_plan_json(&p->memory, &p->request, out);
    if (p->speed.tokens_per_second > 0)
        pf_buf_addf(out, ", \"tokens_per_second\": %.6g, \"step_seconds\": %.6g",
                    p->speed.tokens_per_second, p->speed.step);
    pf_buf_adds(out, "}\n");
}

peft_status pf_plan_run(const peft_plan_options *opt, pf_buf *out, peft_error *err) {
    const pf_prepare_options prepare = {.config_path = opt->run.config_path,
                                        .overrides = opt->run.overrides,
                                        .n_overrides = opt->run.n_overrides,
                                        .purpose = PF_RUN_PLAN,
                                        .with_data = true,
                                        .with_training = true,
                                        .shapes_only = true};
    pf_prepared p;
    PF_TRY(pf_prepare(&p, &prepare, err));
    peft_status status = PEFT_OK;
    if (opt->speed) status = pf_prepared_speed(&p, SPEED_SECONDS, err);
    if (status == PEFT_OK && opt->recommend) {
        status = pf_hardware_recommend(&p, opt->hardware_path, opt->json, out, err);
    } else if (status == PEFT_OK) {
        (opt->json ? add_json : add_text)(&p, out);
    }
    pf_prepared_release(&p);
    return status;
}

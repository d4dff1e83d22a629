/* run_timing.c - see run_timing.h. */
#include "train/run_timing.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "text/json.h"

void pf_run_timing_begin(pf_run_timing *t) {
    *t = (pf_run_timing){.offset = pf_process_age() - pf_now(), .start_anon = pf_memory_anon()};
    t->peak_anon = t->start_anon;
}

void pf_run_timing_phase(pf_run_timing *t, const char *name) {
    if (t->n_phases == PF_TIMING_PHASES) return;
    t->phases[t->n_phases].name = name;
    t->phases[t->n_phases++].at = pf_now() + t->offset;
    pf_run_timing_watch(t);
}

peft_status pf_run_timing_reserve(pf_run_timing *t, pf_arena *a, int64_t steps, peft_error *err) {
    t->ends = PF_NEW_ARRAY(a, double, steps);
    t->busy = PF_NEW_ARRAY(a, double, steps);
    if (t->ends == NULL || t->busy == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    t->room = steps;
    return PEFT_OK;
}

void pf_run_timing_step(pf_run_timing *t, double seconds) {
    if (t->n < t->room) {
        t->busy[t->n] = seconds;
        t->ends[t->n++] = pf_now() + t->offset;
    }
    pf_run_timing_watch(t);
}

void pf_run_timing_watch(pf_run_timing *t) {
    uint64_t now = pf_memory_anon();
    if (now > t->peak_anon) t->peak_anon = now;
}

static void add_list(pf_buf *out, const char *name, const double *values, int64_t n) {
    pf_buf_addf(out, ",\n  \"%s\": [", name);
    for (int64_t i = 0; i < n; i++) pf_buf_addf(out, "%s%.6f", i > 0 ? ", " : "", values[i]);
    pf_buf_addc(out, ']');
}

void pf_run_timing_json(const pf_run_timing *t, pf_buf *out) {
    pf_buf_adds(out, "{\n  \"phases\": {");
    for (int i = 0; i < t->n_phases; i++) {
        pf_buf_adds(out, i > 0 ? ", " : "");
        pf_json_add_cstr(out, t->phases[i].name);
        pf_buf_addf(out, ": %.6f", t->phases[i].at);
    }
    pf_buf_addf(out, "},\n  \"first_step\": %lld", (long long)t->first_step);
    add_list(out, "step_ends", t->ends, t->n);
    add_list(out, "step_seconds", t->busy, t->n);
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {
        {"tokens", t->tokens},
        {"supervised_tokens", t->supervised_tokens},
        {"rows", t->rows},
        {"rows_plain", t->rows_plain},
        {"trained_parameters", t->trained_parameters},
        {"planned_bytes", (int64_t)t->plan},
        {"above_start_bytes", (int64_t)(t->peak_anon - t->start_anon)},
        {"peak_anon_bytes", (int64_t)t->peak_anon},
        {"peak_rss_bytes", (int64_t)pf_memory_peak_rss()},
    };
    for (size_t i = 0; i < PF_COUNT(counts); i++)
        pf_buf_addf(out, ",\n  \"%s\": %lld", counts[i].name, (long long)counts[i].value);
    pf_buf_adds(out, "\n}\n");
}

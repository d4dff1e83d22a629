/* jsonl_tracker.c - metrics.jsonl: every logged value at full precision, one row a line; the source
 * of truth that other views of a run are made from.
 *
 *   {"step": 20, "epoch": 0.5, "loss": 1.2345678, "learning_rate": 0.0002}
 *
 * Numbers are the shortest digits that read back as the same double. NaN and the infinities, which
 * JSON does not have, are the texts "NaN", "Infinity" and "-Infinity". No times of day: two runs of
 * one configuration write the same rows, but for those that measure time. */
#include "text/json.h"
#include "track/line_file.h"
#include "track/tracker.h"

#include <math.h>

typedef struct jsonl {
    pf_line_file file;
    pf_buf line; /* reused */
} jsonl;

static bool is_kept(void *ctx, const char *line, size_t n) {
    int64_t last = *(const int64_t *)ctx;
    json_t *row;
    if (pf_json_parse(&row, line, n, "metrics.jsonl", NULL) != PEFT_OK) return false;
    int64_t step;
    bool kept = json_is_object(row) &&
                pf_json_get_int(row, "metrics.jsonl", "step", INT64_MIN, INT64_MAX, &step, NULL) ==
                    PEFT_OK &&
                step <= last;
    json_decref(row);
    return kept;
}

static peft_status jsonl_open(void **self, pf_arena *a, const pf_track_run *run, peft_error *err) {
    jsonl *t = PF_NEW(a, jsonl);
    PF_CHECK_ALLOC(t, err);
    const char *path = pf_path_join(a, run->run_dir, "metrics.jsonl");
    PF_CHECK_ALLOC(path, err);
    int64_t last = run->resume_step;
    PF_TRY(pf_line_file_open(&t->file, path, last >= 0 ? is_kept : NULL, &last, err));
    *self = t;
    return PEFT_OK;
}

static void add_value(pf_buf *out, const pf_metric *m) {
    if (isnan(m->value))
        pf_buf_adds(out, "\"NaN\"");
    else if (isinf(m->value))
        pf_buf_adds(out, m->value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else if (m->whole)
        pf_buf_addf(out, "%.0f", m->value);
    else
        pf_json_add_real(out, m->value);
}

static peft_status jsonl_scalars(void *self, const pf_metric_row *row, peft_error *err) {
    jsonl *t = self;
    pf_buf_clear(&t->line);
    pf_buf_addf(&t->line, "{\"step\": %lld, \"epoch\": ", (long long)row->step);
    pf_json_add_real(&t->line, row->epoch);
    for (int i = 0; i < row->n; i++) {
        pf_buf_adds(&t->line, ", ");
        pf_json_add_cstr(&t->line, row->items[i].name);
        pf_buf_adds(&t->line, ": ");
        add_value(&t->line, &row->items[i]);
    }
    pf_buf_addc(&t->line, '}');
    if (!pf_buf_ok(&t->line)) return PF_FAIL(err, PEFT_E_NOMEM, "metrics.jsonl: out of memory");
    return pf_line_file_add(&t->file, t->line.data, t->line.len, err);
}

static peft_status jsonl_sync(void *self, peft_error *err) {
    return pf_line_file_sync(&((jsonl *)self)->file, err);
}

static peft_status jsonl_close(void *self, peft_error *err) {
    jsonl *t = self;
    pf_buf_free(&t->line);
    return pf_line_file_close(&t->file, err);
}

const pf_tracker pf_tracker_jsonl = {
    .name = "jsonl",
    .what = "metrics.jsonl, one row a line",
    .record = true,
    .open = jsonl_open,
    .scalars = jsonl_scalars,
    .sync = jsonl_sync,
    .close = jsonl_close,
};

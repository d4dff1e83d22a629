/* trainer_state.c - see trainer_state.h. */
#include "train/trainer_state.h"

#include "base/file.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

#define FILE_NAME "trainer_state.json"
#define MAX_FILE  ((size_t)1 << 30)
#define MAX_NAMES 1024 /* different metrics of a file; they are searched one by one */

void pf_trainer_state_init(pf_trainer_state *s, pf_arena *a) {
    *s = (pf_trainer_state){.arena = a, .logging_steps = 500, .eval_steps = 500, .save_steps = 500};
}

/* ---- rows ---------------------------------------------------------------------------------------
 */

static peft_status grow(pf_arena *a, void **items, int64_t n, int64_t *cap, int64_t need,
                        size_t size, peft_error *err) {
    if (need <= *cap) return PEFT_OK;
    int64_t wider = *cap * 2 > need ? *cap * 2 : need;
    void *p = pf_arena_array(a, (size_t)wider, size);
    PF_CHECK_ALLOC(p, err);
    if (n > 0) memcpy(p, *items, (size_t)n * size);
    *items = p;
    *cap = wider;
    return PEFT_OK;
}

peft_status pf_trainer_state_reserve(pf_trainer_state *s, int64_t rows, int64_t metrics,
                                     peft_error *err) {
    void *r = s->rows, *m = s->metrics;
    PF_TRY(grow(s->arena, &r, s->n_rows, &s->cap_rows, s->n_rows + rows, sizeof *s->rows, err));
    s->rows = r;
    PF_TRY(grow(s->arena, &m, s->n_metrics, &s->cap_metrics, s->n_metrics + metrics,
                sizeof *s->metrics, err));
    s->metrics = m;
    return PEFT_OK;
}

static peft_status keep_name(pf_trainer_state *s, const char *name, const char **kept,
                             peft_error *err) {
    for (int i = 0; i < s->names.n; i++) {
        if (pf_streq(s->names.items[i], name)) {
            *kept = s->names.items[i];
            return PEFT_OK;
        }
    }
    PF_TRY(pf_strlist_add(&s->names, s->arena, name, err));
    *kept = s->names.items[s->names.n - 1];
    return PEFT_OK;
}

peft_status pf_trainer_state_log(pf_trainer_state *s, const pf_metric_row *row, peft_error *err) {
    PF_TRY(pf_trainer_state_reserve(s, s->n_rows == s->cap_rows ? 64 : 0,
                                    s->n_metrics + row->n > s->cap_metrics ? 512 + row->n : 0,
                                    err));
    for (int i = 0; i < row->n; i++) {
        pf_metric *m = &s->metrics[s->n_metrics + i];
        *m = row->items[i];
        PF_TRY(keep_name(s, row->items[i].name, &m->name, err));
    }
    s->rows[s->n_rows++] =
        (pf_log_row){.step = row->step, .epoch = row->epoch, .first = s->n_metrics, .n = row->n};
    s->n_metrics += row->n;
    return PEFT_OK;
}

bool pf_log_row_value(const pf_trainer_state *s, const pf_log_row *row, const char *name,
                      double *value) {
    for (int i = 0; i < row->n; i++) {
        const pf_metric *m = &s->metrics[row->first + i];
        if (!pf_streq(m->name, name)) continue;
        *value = m->value;
        return true;
    }
    return false;
}

/* ---- writing ------------------------------------------------------------------------------------
 */

static json_t *number(double v, bool whole) {
    if (isnan(v)) return json_string("NaN");
    if (isinf(v)) return json_string(v > 0 ? "Infinity" : "-Infinity");
    if (whole && fabs(v) < 9e18) return json_integer((json_int_t)v);
    return json_real(v);
}

static int set(json_t *obj, const char *key, json_t *v) {
    return json_object_set_new(obj, key, v); /* NULL (out of memory) gives -1 */
}

static json_t *history(const pf_trainer_state *s) {
    json_t *list = json_array();
    for (int64_t i = 0; i < s->n_rows && list != NULL; i++) {
        const pf_log_row *row = &s->rows[i];
        json_t *obj = json_object();
        int bad = set(obj, "epoch", number(row->epoch, false));
        bad |= set(obj, "step", json_integer(row->step));
        for (int k = 0; k < row->n; k++) {
            const pf_metric *m = &s->metrics[row->first + k];
            bad |= set(obj, m->name, number(m->value, m->whole));
        }
        if (bad != 0 || json_array_append_new(list, obj) != 0) {
            if (bad != 0) json_decref(obj);
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *callbacks(const pf_trainer_state *s) {
    json_t *control =
        json_pack("{s:{s:b,s:b,s:b,s:b,s:b},s:{}}", "args", "should_epoch_stop", 0,
                  "should_evaluate", 0, "should_log", 0, "should_save", (int)s->should_save,
                  "should_training_stop", (int)s->should_stop, "attributes");
    json_t *all = json_object();
    int bad = set(all, "TrainerControl", control);
    if (s->stopping != NULL) {
        bad |= set(all, "EarlyStoppingCallback",
                   json_pack("{s:{s:I,s:f},s:{s:I}}", "args", "early_stopping_patience",
                             (json_int_t)s->stopping->patience, "early_stopping_threshold",
                             s->stopping->threshold, "attributes",
                             "early_stopping_patience_counter", (json_int_t)s->stopping->waited));
    }
    if (bad == 0) return all;
    json_decref(all);
    return NULL;
}

static json_t *text_or_null(const char *s) {
    return s != NULL ? json_string(s) : json_null();
}

peft_status pf_trainer_state_text(pf_buf *out, const pf_trainer_state *s, peft_error *err) {
    json_t *top = json_object();
    int bad = 0;
    bad |=
        set(top, "best_global_step", s->has_best ? json_integer(s->best_global_step) : json_null());
    bad |= set(top, "best_metric", s->has_best ? number(s->best_metric, false) : json_null());
    bad |= set(top, "best_model_checkpoint", text_or_null(s->best_model_checkpoint));
    bad |= set(top, "epoch", number(s->epoch, false));
    bad |= set(top, "eval_steps", json_integer(s->eval_steps));
    bad |= set(top, "global_step", json_integer(s->global_step));
    bad |= set(top, "is_hyper_param_search", json_false());
    bad |= set(top, "is_local_process_zero", json_true());
    bad |= set(top, "is_world_process_zero", json_true());
    bad |= set(top, "log_history", history(s));
    bad |= set(top, "logging_steps", json_integer(s->logging_steps));
    bad |= set(top, "max_steps", json_integer(s->max_steps));
    bad |= set(top, "num_input_tokens_seen", json_integer(s->num_input_tokens_seen));
    bad |= set(top, "num_train_epochs", json_integer(s->num_train_epochs));
    bad |= set(top, "save_steps", json_integer(s->save_steps));
    bad |= set(top, "stateful_callbacks", callbacks(s));
    bad |= set(top, "total_flos", number(s->total_flos, false));
    bad |= set(top, "train_batch_size", json_integer(s->train_batch_size));
    bad |= set(top, "trial_name", json_null());
    bad |= set(top, "trial_params", json_null());
    peft_status status = bad != 0 ? PF_FAIL(err, PEFT_E_NOMEM, "out of memory")
                                  : pf_json_dump(out, top, 2, PF_JSON_HF, err);
    json_decref(top);
    if (status != PEFT_OK) return status;
    pf_buf_addc(out, '\n');
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status pf_trainer_state_write(const pf_trainer_state *s, const char *path, peft_error *err) {
    pf_buf text = {0};
    peft_status status = pf_trainer_state_text(&text, s, err);
    if (status == PEFT_OK) status = pf_write_file(path, text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}

/* ---- reading ------------------------------------------------------------------------------------
 */

static bool read_number(const json_t *v, pf_metric *m) {
    const char *text = json_string_value(v);
    if (json_is_number(v)) {
        m->value = json_number_value(v);
        m->whole = json_is_integer(v);
        return true;
    }
    if (text == NULL) return false;
    m->value = pf_streq(text, "NaN") ? NAN : pf_streq(text, "-Infinity") ? -INFINITY : INFINITY;
    return pf_streq(text, "NaN") || pf_ends_with(text, "Infinity");
}

static peft_status read_row(pf_trainer_state *s, const json_t *obj, const char *path, size_t at,
                            peft_error *err) {
    pf_metric metrics[256], epoch = {0};
    pf_metric_row row = {.items = metrics};
    const char *key;
    json_t *v;
    if (!json_is_object(obj))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: log_history[%zu] is not an object", path, at);
    PF_TRY(pf_json_get_int(obj, path, "step", 0, INT64_MAX, &row.step, err));
    json_object_foreach((json_t *)(uintptr_t)obj, key, v) {
        if (pf_streq(key, "step")) continue;
        pf_metric m = {.name = key};
        if (!read_number(v, &m)) continue; /* texts and lists that other tools log */
        if (pf_streq(key, "epoch"))
            epoch = m;
        else if (row.n < (int)PF_COUNT(metrics))
            metrics[row.n++] = m;
    }
    row.epoch = epoch.value;
    PF_TRY(pf_trainer_state_log(s, &row, err));
    if (s->names.n <= MAX_NAMES) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: log_history has more than %d different metrics", path,
                   MAX_NAMES);
}

static peft_status read_fields(pf_trainer_state *s, const json_t *top, const char *path,
                               peft_error *err) {
    const json_t *list, *best = json_object_get(top, "best_metric");
    const char *checkpoint;
    pf_metric epoch = {0}, flos = {0}, metric = {0};
    PF_TRY(pf_json_get_int(top, path, "global_step", 0, INT64_MAX, &s->global_step, err));
    PF_TRY(pf_json_get_int(top, path, "max_steps", 0, INT64_MAX, &s->max_steps, err));
    PF_TRY(pf_json_opt_int(top, path, "logging_steps", 500, 0, INT64_MAX, &s->logging_steps, err));
    PF_TRY(pf_json_opt_int(top, path, "eval_steps", 500, 0, INT64_MAX, &s->eval_steps, err));
    PF_TRY(pf_json_opt_int(top, path, "save_steps", 500, 0, INT64_MAX, &s->save_steps, err));
    PF_TRY(
        pf_json_opt_int(top, path, "train_batch_size", 0, 0, INT64_MAX, &s->train_batch_size, err));
    PF_TRY(
        pf_json_opt_int(top, path, "num_train_epochs", 0, 0, INT64_MAX, &s->num_train_epochs, err));
    PF_TRY(pf_json_opt_int(top, path, "num_input_tokens_seen", 0, 0, INT64_MAX,
                           &s->num_input_tokens_seen, err));
    PF_TRY(
        pf_json_opt_int(top, path, "best_global_step", 0, 0, INT64_MAX, &s->best_global_step, err));
    PF_TRY(pf_json_opt_str(top, path, "best_model_checkpoint", NULL, &checkpoint, err));
    if (checkpoint != NULL) {
        s->best_model_checkpoint = pf_arena_strdup(s->arena, checkpoint);
        PF_CHECK_ALLOC(s->best_model_checkpoint, err);
    }
    if (read_number(json_object_get(top, "epoch"), &epoch)) s->epoch = epoch.value;
    if (read_number(json_object_get(top, "total_flos"), &flos)) s->total_flos = flos.value;
    s->has_best = read_number(best, &metric);
    if (s->has_best) s->best_metric = metric.value;
    PF_TRY(pf_json_get_array(top, path, "log_history", &list, err));
    for (size_t i = 0; i < json_array_size(list); i++)
        PF_TRY(read_row(s, json_array_get(list, i), path, i, err));
    return PEFT_OK;
}

static peft_status read_top(pf_trainer_state *s, const json_t *top, const char *path,
                            peft_error *err) {
    pf_trainer_state fresh;
    pf_trainer_state_init(&fresh, s->arena);
    fresh.stopping = s->stopping;
    if (!json_is_object(top)) return PF_FAIL(err, PEFT_E_FORMAT, "%s is not an object", path);
    PF_TRY(read_fields(&fresh, top, path, err));
    *s = fresh;
    return PEFT_OK;
}

peft_status pf_trainer_state_parse(pf_trainer_state *s, const char *text, size_t n,
                                   const char *name, peft_error *err) {
    json_t *top;
    PF_TRY(pf_json_parse(&top, text, n, name, err));
    peft_status status = read_top(s, top, name, err);
    json_decref(top);
    return status;
}

peft_status pf_trainer_state_read(pf_trainer_state *s, const char *path, peft_error *err) {
    json_t *top;
    PF_TRY(pf_json_load(&top, path, MAX_FILE, err));
    peft_status status = read_top(s, top, path, err);
    json_decref(top);
    return status;
}

/* ---- checkpoints --------------------------------------------------------------------------------
 */

static peft_status save_state(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    pf_buf text = {0};
    peft_status status = pf_trainer_state_text(&text, ctx, err);
    if (status == PEFT_OK) status = pf_ckpt_put_file(w, FILE_NAME, text.data, text.len, err);
    pf_buf_free(&text);
    return status;
}

static peft_status load_state(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    pf_trainer_state *s = ctx;
    const char *path;
    PF_TRY(pf_ckpt_find_file(r, FILE_NAME, s->arena, &path, err));
    return pf_trainer_state_read(s, path, err);
}

pf_section pf_trainer_state_section(pf_trainer_state *s) {
    return (pf_section){.name = "trainer_state", .ctx = s, .save = save_state, .load = load_state};
}

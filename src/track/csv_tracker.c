/* csv_tracker.c - metrics.csv: the rows of metrics.jsonl as a table, for spreadsheets.
 *
 *   step,epoch,loss,learning_rate,eval_loss
 *   20,0.5,1.2345678,0.0002,
 *
 * A metric gets its column when it comes for the first time: the table is then written anew, so
 * every line always has all columns. Empty: not measured in this row. NaN and the infinities are
 * nan, inf, -inf. */
#include "base/map.h"
#include "text/json.h"
#include "track/line_file.h"
#include "track/tracker.h"

#include <math.h>
#include <string.h>

#define MAX_COLUMNS 1000

typedef struct csv {
    const char *path;
    pf_line_file file;
    pf_map columns; /* name -> index behind step and epoch */
    int written;    /* columns that the file has */
    pf_buf line;
    const pf_metric **cells; /* of the row being written, by column */
} csv;

static void add_name(pf_buf *out, const char *name) {
    if (strpbrk(name, ",\"\r\n") == NULL) {
        pf_buf_adds(out, name);
        return;
    }
    pf_buf_addc(out, '"');
    for (; *name != '\0'; name++) {
        if (*name == '"') pf_buf_addc(out, '"');
        pf_buf_addc(out, *name);
    }
    pf_buf_addc(out, '"');
}

static void add_number(pf_buf *out, double v, bool whole) {
    if (isnan(v))
        pf_buf_adds(out, "nan");
    else if (isinf(v))
        pf_buf_adds(out, v > 0 ? "inf" : "-inf");
    else if (whole)
        pf_buf_addf(out, "%.0f", v);
    else
        pf_json_add_real(out, v);
}

static void add_header(pf_buf *out, const csv *t) {
    pf_buf_adds(out, "step,epoch");
    for (int i = 0; i < t->columns.n; i++) {
        pf_buf_addc(out, ',');
        add_name(out, t->columns.entries[i].key);
    }
}

typedef struct reading {
    csv *t;
    int64_t last;
    bool header_read, bad;
} reading;

/* The columns of an old table's header; names with commas in them are quoted. */
static bool read_header(csv *t, const char *p, size_t n) {
    static const char fixed[] = "step,epoch";
    size_t at = sizeof fixed - 1;
    if (n < at || memcmp(p, fixed, at) != 0) return false;
    pf_buf name = {0};
    bool ok = true;
    while (at < n && ok) {
        ok = p[at++] == ',';
        pf_buf_clear(&name);
        bool quoted = at < n && p[at] == '"';
        if (quoted) at++;
        for (; at < n; at++) {
            if (quoted && p[at] == '"' && at + 1 < n && p[at + 1] == '"')
                at++;
            else if (quoted ? p[at] == '"' : p[at] == ',')
                break;
            pf_buf_addc(&name, p[at]);
        }
        if (quoted) at++;
        ok = ok && pf_buf_ok(&name) && t->columns.n < MAX_COLUMNS &&
             pf_map_put(&t->columns, pf_buf_str(&name), name.len, t->columns.n, NULL, NULL, NULL) ==
                 PEFT_OK;
    }
    pf_buf_free(&name);
    return ok;
}

static bool is_kept(void *ctx, const char *line, size_t n) {
    reading *r = ctx;
    if (!r->header_read) {
        r->header_read = true;
        r->bad = !read_header(r->t, line, n);
        return !r->bad;
    }
    if (r->bad) return false;
    char digits[32];
    size_t len = 0;
    while (len < n && len < sizeof digits - 1 && line[len] != ',') len++;
    memcpy(digits, line, len);
    digits[len] = '\0';
    int64_t step;
    return pf_parse_int(digits, &step) && step <= r->last;
}

static void csv_free(csv *t) {
    pf_map_release(&t->columns);
    pf_buf_free(&t->line);
}

static peft_status csv_open(void **self, pf_arena *a, const pf_track_run *run, peft_error *err) {
    csv *t = PF_NEW(a, csv);
    PF_CHECK_ALLOC(t, err);
    t->path = pf_path_join(a, run->run_dir, "metrics.csv");
    PF_CHECK_ALLOC(t->path, err);
    t->cells = PF_NEW_ARRAY(a, const pf_metric *, MAX_COLUMNS);
    PF_CHECK_ALLOC(t->cells, err);
    pf_map_init(&t->columns);
    reading r = {.t = t, .last = run->resume_step};
    peft_status status =
        pf_line_file_open(&t->file, t->path, run->resume_step >= 0 ? is_kept : NULL, &r, err);
    if (status == PEFT_OK && t->file.file.size == 0) {
        pf_map_release(&t->columns); /* of a table that could not be read */
        pf_map_init(&t->columns);
        status = pf_line_file_add(&t->file, "step,epoch", strlen("step,epoch"), err);
        if (status != PEFT_OK) pf_line_file_close(&t->file, NULL);
    }
    if (status != PEFT_OK) {
        csv_free(t);
        return status;
    }
    t->written = t->columns.n;
    *self = t;
    return PEFT_OK;
}

/* Lines of numbers, each with commas added up to the present width. */
static void add_padded(pf_buf *out, const csv *t, const char *lines, size_t n) {
    while (n > 0) {
        const char *end = memchr(lines, '\n', n);
        if (end == NULL) return;
        size_t len = (size_t)(end - lines);
        pf_buf_add(out, lines, len);
        int commas = 0;
        for (size_t i = 0; i < len; i++) commas += lines[i] == ',';
        for (; commas < t->columns.n + 1; commas++) pf_buf_addc(out, ',');
        pf_buf_addc(out, '\n');
        lines += len + 1;
        n -= len + 1;
    }
}

/* Writes the table again with all columns, and with the lines that wait. */
static peft_status widen(csv *t, peft_error *err) {
    pf_buf old = {0}, wide = {0};
    peft_status status;
    PF_TRY_OUT(pf_read_file(&old, t->path, (size_t)4 << 30, err));
    add_header(&wide, t);
    pf_buf_addc(&wide, '\n');
    const char *end = old.len > 0 ? memchr(old.data, '\n', old.len) : NULL;
    if (end != NULL) add_padded(&wide, t, end + 1, old.len - (size_t)(end + 1 - old.data));
    if (t->file.waiting.len > 0) add_padded(&wide, t, t->file.waiting.data, t->file.waiting.len);
    if (!pf_buf_ok(&wide)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "metrics.csv: out of memory");
        goto out;
    }
    PF_TRY_OUT(pf_write_file(t->path, wide.data, wide.len, err));
    pf_buf_clear(&t->file.waiting);
    pf_append_close(&t->file.file);
    PF_TRY_OUT(pf_append_open(&t->file.file, t->path, err));
    t->written = t->columns.n;
out:
    pf_buf_free(&old);
    pf_buf_free(&wide);
    return status;
}

static peft_status csv_scalars(void *self, const pf_metric_row *row, peft_error *err) {
    csv *t = self;
    for (int i = 0; i < row->n; i++) {
        const char *name = row->items[i].name;
        if (pf_map_finds(&t->columns, name) != NULL) continue;
        if (t->columns.n == MAX_COLUMNS) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "metrics.csv: more than %d columns",
                           MAX_COLUMNS);
        }
        PF_TRY(pf_map_put(&t->columns, name, strlen(name), t->columns.n, NULL, NULL, err));
    }
    for (int i = 0; i < t->columns.n; i++) t->cells[i] = NULL;
    for (int i = 0; i < row->n; i++)
        t->cells[pf_map_finds(&t->columns, row->items[i].name)->value] = &row->items[i];
    pf_buf_clear(&t->line);
    pf_buf_addf(&t->line, "%lld,", (long long)row->step);
    add_number(&t->line, row->epoch, false);
    for (int i = 0; i < t->columns.n; i++) {
        pf_buf_addc(&t->line, ',');
        if (t->cells[i] != NULL) add_number(&t->line, t->cells[i]->value, t->cells[i]->whole);
    }
    if (!pf_buf_ok(&t->line)) return PF_FAIL(err, PEFT_E_NOMEM, "metrics.csv: out of memory");
    if (t->columns.n == t->written)
        return pf_line_file_add(&t->file, t->line.data, t->line.len, err);
    PF_TRY(pf_line_file_wait(&t->file, t->line.data, t->line.len, err));
    return widen(t, err);
}

static peft_status csv_sync(void *self, peft_error *err) {
    csv *t = self;
    if (t->columns.n > t->written) PF_TRY(widen(t, err));
    return pf_line_file_sync(&t->file, err);
}

static peft_status csv_close(void *self, peft_error *err) {
    csv *t = self;
    if (t->columns.n > t->written)
        widen(t, NULL); /* else the lines wait still, and close says so */
    if (t->columns.n > t->written) pf_append_close(&t->file.file);
    peft_status status = pf_line_file_close(&t->file, err);
    csv_free(t);
    return status;
}

const pf_tracker pf_tracker_csv = {
    .name = "csv",
    .what = "metrics.csv, a table of the same rows",
    .open = csv_open,
    .scalars = csv_scalars,
    .sync = csv_sync,
    .close = csv_close,
};

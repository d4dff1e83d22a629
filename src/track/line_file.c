/* line_file.c - see line_file.h. */
#include "track/line_file.h"

#include <string.h>

#define MAX_FILE    ((size_t)4 << 30)
#define MAX_WAITING ((size_t)64 << 20)

static peft_status trim(const char *path, pf_line_keep keep, void *ctx, peft_error *err) {
    pf_buf old = {0}, kept = {0};
    peft_status status;
    PF_TRY_OUT(pf_read_file(&old, path, MAX_FILE, err));
    for (size_t at = 0; at < old.len;) {
        const char *end = memchr(old.data + at, '\n', old.len - at);
        if (end == NULL) break; /* torn */
        size_t n = (size_t)(end - old.data) - at;
        if (keep(ctx, old.data + at, n)) pf_buf_add(&kept, old.data + at, n + 1);
        at += n + 1;
    }
    if (!pf_buf_ok(&kept)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    if (kept.len != old.len) PF_TRY_OUT(pf_write_file(path, pf_buf_str(&kept), kept.len, err));
out:
    pf_buf_free(&old);
    pf_buf_free(&kept);
    return status;
}

peft_status pf_line_file_open(pf_line_file *f, const char *path, pf_line_keep keep, void *ctx,
                              peft_error *err) {
    *f = (pf_line_file){.file.fd = -1, .path = path};
    if (keep == NULL)
        PF_TRY(pf_remove_file(path, err));
    else if (pf_path_exists(path))
        PF_TRY(trim(path, keep, ctx, err));
    return pf_append_open(&f->file, path, err);
}

peft_status pf_line_file_flush(pf_line_file *f, peft_error *err) {
    if (f->waiting.len == 0) return PEFT_OK;
    if (f->file.fd < 0) PF_TRY(pf_append_open(&f->file, f->path, err));
    PF_TRY(pf_append_add(&f->file, f->waiting.data, f->waiting.len, err));
    pf_buf_clear(&f->waiting);
    return PEFT_OK;
}

peft_status pf_line_file_wait(pf_line_file *f, const char *line, size_t n, peft_error *err) {
    if (f->waiting.len + n + 1 > MAX_WAITING || f->waiting.failed) {
        f->lost = true;
        return PF_FAIL(err, PEFT_E_IO, "%s: rows are lost, too many wait to be written", f->path);
    }
    pf_buf_add(&f->waiting, line, n);
    pf_buf_addc(&f->waiting, '\n');
    return PEFT_OK;
}

peft_status pf_line_file_add(pf_line_file *f, const char *line, size_t n, peft_error *err) {
    PF_TRY(pf_line_file_wait(f, line, n, err));
    return pf_line_file_flush(f, err);
}

peft_status pf_line_file_sync(pf_line_file *f, peft_error *err) {
    PF_TRY(pf_line_file_flush(f, err));
    if (f->lost) return PF_FAIL(err, PEFT_E_IO, "%s: rows are lost", f->path);
    return f->file.fd < 0 ? PEFT_OK : pf_append_sync(&f->file, err);
}

peft_status pf_line_file_close(pf_line_file *f, peft_error *err) {
    peft_status status = PEFT_OK;
    if (f->file.fd >= 0)
        status = pf_line_file_sync(f, err);
    else if (f->waiting.len > 0)
        status = PF_FAIL(err, PEFT_E_IO, "%s could not be written to its end", f->path);
    pf_append_close(&f->file);
    pf_buf_free(&f->waiting);
    return status;
}

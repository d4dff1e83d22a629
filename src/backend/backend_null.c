/* backend_null.c - a device that plans: every buffer has a size and no memory. */
#include "backend/backend.h"

#include "base/arena.h"
#include "base/mem.h"

static peft_status null_alloc(pf_backend *be, pf_buffer *out, size_t size, const char *what,
                              peft_error *err) {
    (void)be;
    (void)what;
    (void)err;
    *out = (pf_buffer){.size = size};
    return PEFT_OK;
}

static void null_free(pf_backend *be, pf_buffer *buf) {
    (void)be;
    *buf = (pf_buffer){0};
}

static peft_status null_upload(pf_backend *be, pf_buffer *dst, size_t offset, const void *src,
                               size_t n, peft_error *err) {
    (void)be;
    (void)dst;
    (void)offset;
    (void)src;
    (void)n;
    return PF_FAIL(err, PEFT_E_STATE, "the null backend plans, it holds no data");
}

static peft_status null_download(pf_backend *be, void *dst, const pf_buffer *src, size_t offset,
                                 size_t n, peft_error *err) {
    (void)be;
    (void)dst;
    (void)src;
    (void)offset;
    (void)n;
    return PF_FAIL(err, PEFT_E_STATE, "the null backend plans, it holds no data");
}

static peft_status null_sync(pf_backend *be, peft_error *err) {
    (void)be;
    (void)err;
    return PEFT_OK;
}

static void null_close(pf_backend *be) {
    pf_free(be);
}

peft_status pf_backend_open_null(pf_backend **out, int n_threads, peft_error *err) {
    *out = pf_calloc(1, sizeof **out);
    PF_CHECK_ALLOC(*out, err);
    **out = (pf_backend){.name = "null",
                         .n_workers = n_threads > 0 ? n_threads : 1,
                         .alloc = null_alloc,
                         .free = null_free,
                         .upload = null_upload,
                         .download = null_download,
                         .sync = null_sync,
                         .close = null_close};
    return PEFT_OK;
}

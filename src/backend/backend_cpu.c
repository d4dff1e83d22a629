/* backend_cpu.c - host memory and a thread pool; work is done when a call returns. */
#include "backend/backend.h"

#include "base/cpu.h"
#include "base/mem.h"
#include "base/str.h"

#include <string.h>
#include <sys/mman.h>

/* Large blocks come straight from the kernel: zero pages cost nothing until touched, each page is
 * touched first by the worker that computes on it, and freeing gives the memory back. */
#define MAP_FROM ((size_t)1 << 20)

static peft_status cpu_alloc(pf_backend *be, pf_buffer *out, size_t size, const char *what,
                             peft_error *err) {
    (void)be;
    *out = (pf_buffer){.size = size};
    if (size >= MAP_FROM) {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        out->data = p == MAP_FAILED ? NULL : p;
        if (out->data != NULL) madvise(p, size, MADV_HUGEPAGE);
        out->handle = out->data; /* marks a mapping */
    } else {
        out->data = pf_aligned_malloc(size > 0 ? size : 64, 64);
        if (out->data != NULL) memset(out->data, 0, size);
    }
    if (out->data == NULL) {
        char need[32], have[32];
        return PF_FAIL(err, PEFT_E_NOMEM,
                       "out of memory: %s need %s, %s are free. Try "
                       "training.gradient_checkpointing=true, a smaller "
                       "training.tokens_per_batch, or training.memory_limit",
                       what, pf_format_bytes((double)size, need, sizeof need),
                       pf_format_bytes((double)pf_memory_available(), have, sizeof have));
    }
    return PEFT_OK;
}

static void cpu_free(pf_backend *be, pf_buffer *buf) {
    (void)be;
    if (buf->handle != NULL)
        munmap(buf->data, buf->size);
    else
        pf_free(buf->data);
    *buf = (pf_buffer){0};
}

static peft_status cpu_upload(pf_backend *be, pf_buffer *dst, size_t offset, const void *src,
                              size_t n, peft_error *err) {
    (void)be;
    if (offset > dst->size || n > dst->size - offset) {
        return PF_FAIL(err, PEFT_E_STATE, "upload of %zu bytes past the end of a buffer of %zu", n,
                       dst->size);
    }
    memcpy((unsigned char *)dst->data + offset, src, n);
    return PEFT_OK;
}

static peft_status cpu_download(pf_backend *be, void *dst, const pf_buffer *src, size_t offset,
                                size_t n, peft_error *err) {
    (void)be;
    if (offset > src->size || n > src->size - offset) {
        return PF_FAIL(err, PEFT_E_STATE, "download of %zu bytes past the end of a buffer of %zu",
                       n, src->size);
    }
    memcpy(dst, (const unsigned char *)src->data + offset, n);
    return PEFT_OK;
}

static peft_status cpu_sync(pf_backend *be, peft_error *err) {
    (void)be;
    (void)err;
    return PEFT_OK;
}

static void cpu_close(pf_backend *be) {
    pf_pool_free(be->pool);
    pf_free(be);
}

peft_status pf_backend_open_cpu(pf_backend **out, int n_threads, peft_error *err) {
    *out = NULL;
    pf_backend *be = pf_calloc(1, sizeof *be);
    PF_CHECK_ALLOC(be, err);
    *be = (pf_backend){.name = "cpu",
                       .alloc = cpu_alloc,
                       .free = cpu_free,
                       .upload = cpu_upload,
                       .download = cpu_download,
                       .sync = cpu_sync,
                       .close = cpu_close};
    peft_status status = pf_pool_new(&be->pool, n_threads, err);
    if (status != PEFT_OK) {
        pf_free(be);
        return status;
    }
    be->n_workers = pf_pool_workers(be->pool);
    *out = be;
    return PEFT_OK;
}

void pf_backend_close(pf_backend *be) {
    if (be != NULL) be->close(be);
}

/* base_hash.c - see base_hash.h. */
#include "train/base_hash.h"

#include "base/mem.h"
#include "base/side_job.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

struct pf_base_hash {
    pf_side_job *job;
    const pf_tensor_source *src;
    bool whole;
    unsigned char *chunk;
    pf_sha256 *sha;
    char hex[PF_SHA256_HEX];
};

/* Read rather than mapped, so that pages of the weights that nobody needs do not count as ours. */
static peft_status add_file(pf_base_hash *h, const char *path, uint64_t size,
                            const pf_side_job *job, peft_error *err) {
    pf_sha256_add(h->sha, &size, sizeof size);
    const uint64_t end = h->whole || size < CHUNK ? size : CHUNK;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return PF_FAIL(err, PEFT_E_MISSING, "cannot open %s: %s", path, strerror(errno));
    peft_status status = PEFT_OK;
    for (uint64_t at = 0; at < end && status == PEFT_OK && !pf_side_job_cancelled(job);) {
        const uint64_t left = end - at;
        ssize_t n = read(fd, h->chunk, left < CHUNK ? (size_t)left : CHUNK);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            status = PF_FAIL(err, PEFT_E_IO, "cannot read %s at byte %llu: %s", path,
                             (unsigned long long)at, n < 0 ? strerror(errno) : "it became shorter");
            break;
        }
        pf_sha256_add(h->sha, h->chunk, (size_t)n);
        at += (uint64_t)n;
    }
    close(fd);
    return status;
}

static peft_status run(void *ctx, const pf_side_job *job, peft_error *err) {
    pf_base_hash *h = ctx;
    for (int i = 0; i < h->src->n_files; i++)
        PF_TRY(add_file(h, h->src->files[i].path, h->src->files[i].size, job, err));
    pf_sha256_hex(h->sha, h->hex);
    return PEFT_OK;
}

peft_status pf_base_hash_start(pf_base_hash **out, const pf_tensor_source *src, peft_error *err) {
    *out = NULL;
    pf_base_hash *h = pf_calloc(1, sizeof *h);
    PF_CHECK_ALLOC(h, err);
    uint64_t bytes = 0;
    for (int i = 0; i < src->n_files; i++) bytes += src->files[i].size;
    h->src = src;
    h->whole = bytes <= PF_BASE_HASH_LIMIT;
    h->chunk = pf_malloc(CHUNK);
    h->sha = pf_sha256_new();
    peft_status status = PEFT_OK;
    if (h->chunk == NULL || h->sha == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_side_job_start(&h->job, run, h, 10, err);
    if (status != PEFT_OK) {
        pf_base_hash_free(h);
        return status;
    }
    *out = h;
    return PEFT_OK;
}

peft_status pf_base_hash_get(pf_base_hash *h, const char **label, char hex[PF_SHA256_HEX],
                             peft_error *err) {
    PF_TRY(pf_side_job_wait(h->job, err));
    *label = h->whole ? "base" : "base (first MiB of each file)";
    memcpy(hex, h->hex, PF_SHA256_HEX);
    return PEFT_OK;
}

void pf_base_hash_free(pf_base_hash *h) {
    if (h == NULL) return;
    pf_side_job_free(h->job);
    pf_sha256_free(h->sha);
    pf_free(h->chunk);
    pf_free(h);
}

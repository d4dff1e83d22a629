/* backend.h - what a device must offer: memory, transfers and an order of work. No mathematics
 * here.
 *
 * A graph is planned for one backend. Its kernels are found in each op's own list by the backend's
 * name, so a plugin that brings a device also brings rows for those lists, and nothing above this
 * file changes. Three backends exist: `cpu` (memory is host memory, work is done when the call
 * returns), `null` (plans, allocates and computes nothing; a 70B model is planned on a laptop with
 * it), and `cuda` (a plugin).
 *
 * Ownership: a buffer belongs to the backend that made it and ends with free. Offsets and sizes are
 * bytes. */
#ifndef PF_BACKEND_H
#define PF_BACKEND_H

#include "base/pool.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pf_backend pf_backend;

typedef struct pf_buffer {
    void *data;   /* address on the device; NULL for the null backend */
    size_t size;  /* bytes */
    void *handle; /* the backend's own */
} pf_buffer;

struct pf_backend {
    const char *name; /* "cpu", "null", "cuda": what kernel rows name */
    int n_workers;    /* threads that kernels may use; workspace is planned for as many */
    pf_pool *pool;    /* cpu only */
    peft_status (*alloc)(pf_backend *be, pf_buffer *out, size_t size, const char *what,
                         peft_error *err); /* zeroed, 64-byte aligned */
    void (*free)(pf_backend *be, pf_buffer *buf);
    peft_status (*upload)(pf_backend *be, pf_buffer *dst, size_t offset, const void *src, size_t n,
                          peft_error *err);
    peft_status (*download)(pf_backend *be, void *dst, const pf_buffer *src, size_t offset,
                            size_t n, peft_error *err);
    peft_status (*sync)(pf_backend *be, peft_error *err); /* everything queued so far is done */
    void (*close)(pf_backend *be);
};

/* The CPU backend with a thread pool of its own; n_threads 0 takes one per usable core. */
peft_status pf_backend_open_cpu(pf_backend **out, int n_threads, peft_error *err);
/* Plans only. n_threads as the planned machine would have. */
peft_status pf_backend_open_null(pf_backend **out, int n_threads, peft_error *err);
void pf_backend_close(pf_backend *be);

#endif

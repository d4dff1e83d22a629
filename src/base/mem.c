/* mem.c - malloc behind one door, with a counter that tests can set to fail; see mem.h. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdlib.h>

static _Atomic int64_t allocations;
static _Atomic int64_t fail_at; /* value of `allocations` that fails; 0: never */

static bool fails_now(void) {
    int64_t n = atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed) + 1;
    return n == atomic_load_explicit(&fail_at, memory_order_relaxed);
}

void pf_alloc_fail_at(int64_t n) {
    atomic_store(&fail_at, n > 0 ? atomic_load(&allocations) + n : 0);
}

int64_t pf_alloc_count(void) {
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void *pf_malloc(size_t size) {
    return fails_now() ? NULL : malloc(size > 0 ? size : 1);
}

void *pf_calloc(size_t count, size_t size) {
    size_t total;
    if (!pf_mul_size(count, size, &total)) return NULL;
    return fails_now() ? NULL : calloc(total > 0 ? total : 1, 1);
}

void *pf_realloc(void *ptr, size_t new_size) {
    return fails_now() ? NULL : realloc(ptr, new_size > 0 ? new_size : 1);
}

void *pf_aligned_malloc(size_t size, size_t align) {
    void *p = NULL;
    if (fails_now() ||
        posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size > 0 ? size : 1)) {
        return NULL;
    }
    return p;
}

void pf_free(void *ptr) {
    free(ptr);
}

void pf_give_back(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

_Bool pf_mul_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

_Bool pf_add_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

/* mem.h - the only door to malloc. Everything above base/ asks an arena or one of these.
 *
 * pf_alloc_fail_at(n) makes the n-th allocation from now fail (n = 1 is the next one), for tests
 * that try every n; pf_alloc_count() says how many allocations were asked for so far in this
 * process. */
#ifndef PF_MEM_H
#define PF_MEM_H

#include <stddef.h>
#include <stdint.h>

void *pf_malloc(size_t size);                 /* not zeroed; NULL when out */
void *pf_calloc(size_t count, size_t size);   /* zeroed; product checked */
void *pf_realloc(void *ptr, size_t new_size); /* as realloc */
void *pf_aligned_malloc(size_t size, size_t align);
void pf_free(void *ptr); /* ends all four; NULL is fine */
/* What was freed goes back to the system, where the library would keep it for later: behind a phase
 * that took much more than what follows. */
void pf_give_back(void);

void pf_alloc_fail_at(int64_t n); /* 0 switches it off */
int64_t pf_alloc_count(void);

/* Checked arithmetic for sizes that come from files: false on overflow, *out is then untouched. */
_Bool pf_mul_size(size_t a, size_t b, size_t *out);
_Bool pf_add_size(size_t a, size_t b, size_t *out);

#endif

/* arena.h - memory with a named lifetime.
 *
 * An arena hands out blocks that all end together. The name of the arena is the lifetime: process,
 * run, graph (until shapes change), step (reset each step), scratch (a mark and a rewind inside one
 * function). A function that allocates takes the arena as an argument, so that the lifetime of what
 * it returns shows in its signature.
 *
 * Invariants: blocks are 64-byte aligned when asked for through pf_arena_aligned, else 16; zeroed;
 * never moved. Rewound memory is poisoned under AddressSanitizer and gaps stand between blocks
 * there. Not thread-safe.
 *
 * Life cycle: init -> (alloc | mark .. rewind | reset)* -> release. */
#ifndef PF_ARENA_H
#define PF_ARENA_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pf_arena_chunk pf_arena_chunk;

typedef struct pf_arena {
    const char *name;        /* for messages and the memory table; borrowed */
    pf_arena_chunk *first;   /* oldest chunk */
    pf_arena_chunk *current; /* where the next block comes from */
    size_t used;             /* bytes handed out, gaps not counted */
    size_t peak;             /* largest `used` so far */
    size_t reserved;         /* bytes taken from malloc */
} pf_arena;

typedef struct pf_arena_mark {
    pf_arena_chunk *chunk;
    size_t offset;
    size_t used;
} pf_arena_mark;

void pf_arena_init(pf_arena *a, const char *name);
void pf_arena_release(pf_arena *a); /* NULL and zeroed arenas are fine */

/* A zeroed block, or NULL when memory is out. Size 0 gives a valid, unique pointer. */
void *pf_arena_alloc(pf_arena *a, size_t size);
void *pf_arena_aligned(pf_arena *a, size_t size, size_t align);
/* count * size with the product checked for overflow. */
void *pf_arena_array(pf_arena *a, size_t count, size_t size);
char *pf_arena_strdup(pf_arena *a, const char *s);
char *pf_arena_strndup(pf_arena *a, const char *s, size_t n);
char *pf_arena_printf(pf_arena *a, const char *fmt, ...) PEFT_PRINTF(2, 3);

#define PF_NEW(arena, type)          ((type *)pf_arena_alloc((arena), sizeof(type)))
#define PF_NEW_ARRAY(arena, type, n) ((type *)pf_arena_array((arena), (size_t)(n), sizeof(type)))
/* Inside a function that returns peft_status and has `err`: fail when the allocation did. */
#define PF_CHECK_ALLOC(ptr, err)                                                                   \
    do {                                                                                           \
        if ((ptr) == NULL) return PF_FAIL((err), PEFT_E_NOMEM, "out of memory");                   \
    } while (0)

pf_arena_mark pf_arena_get_mark(const pf_arena *a);
void pf_arena_rewind(pf_arena *a, pf_arena_mark mark); /* everything after the mark is gone */
void pf_arena_reset(pf_arena *a);                      /* keeps the chunks for reuse */

#endif

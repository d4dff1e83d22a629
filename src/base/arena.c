/* arena.c - blocks that end together; see arena.h for the promises.
 *
 * Memory comes in chunks, each twice the one before up to a limit, so that small arenas stay small
 * and large ones ask malloc rarely. A block larger than a chunk gets a chunk of its own. Rewinding
 * goes back to an earlier place in an earlier chunk and keeps the later chunks for reuse.
 *
 * Under AddressSanitizer everything not handed out is poisoned, and a gap stands after each block:
 * a write past its end is caught at once, and so is a use after a rewind. */
#include "base/arena.h"

#include "base/mem.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   __asan_poison_memory_region((p), (n))
#define UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#define GAP            ((size_t)16)
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#define GAP            ((size_t)0)
#endif

#define MIN_ALIGN   ((size_t)16)
#define FIRST_CHUNK ((size_t)4 << 10)
#define LAST_CHUNK  ((size_t)1 << 20)

struct pf_arena_chunk {
    pf_arena_chunk *next;
    size_t size, used; /* of data[] */
    _Alignas(64) unsigned char data[];
};

void pf_arena_init(pf_arena *a, const char *name) {
    *a = (pf_arena){.name = name};
}

void pf_arena_release(pf_arena *a) {
    if (a == NULL) return;
    for (pf_arena_chunk *c = a->first; c != NULL;) {
        pf_arena_chunk *next = c->next;
        UNPOISON(c->data, c->size);
        pf_free(c);
        c = next;
    }
    *a = (pf_arena){.name = a->name};
}

/* The offset in c at which a block of this alignment could start. */
static size_t aligned_offset(const pf_arena_chunk *c, size_t align) {
    return (c->used + align - 1) & ~(align - 1);
}

static bool chunk_fits(const pf_arena_chunk *c, size_t size, size_t align) {
    size_t at = aligned_offset(c, align);
    return at <= c->size && size <= c->size - at;
}

/* Makes room: a chunk kept by a rewind, or a new one after the current. NULL when memory is out. */
static pf_arena_chunk *next_chunk(pf_arena *a, size_t size, size_t align) {
    pf_arena_chunk *c = a->current != NULL ? a->current->next : a->first;
    if (c != NULL && (c->used = 0, chunk_fits(c, size, align))) return a->current = c;

    size_t want = a->current == NULL ? FIRST_CHUNK : a->current->size * 2;
    if (want > LAST_CHUNK) want = LAST_CHUNK;
    size_t need;
    if (!pf_add_size(size, align, &need)) return NULL;
    if (want < need) want = need;
    size_t total;
    if (!pf_add_size(want, sizeof(pf_arena_chunk), &total)) return NULL;
    pf_arena_chunk *made = pf_aligned_malloc(total, 64);
    if (made == NULL) return NULL;
    *made = (pf_arena_chunk){.next = c, .size = want};
    POISON(made->data, made->size);
    if (a->current != NULL)
        a->current->next = made;
    else
        a->first = made;
    a->reserved += want;
    return a->current = made;
}

void *pf_arena_aligned(pf_arena *a, size_t size, size_t align) {
    if (align < MIN_ALIGN) align = MIN_ALIGN;
    PF_ASSERT((align & (align - 1)) == 0 && align <= 64);
    size_t padded;
    if (!pf_add_size(size > 0 ? size : 1, GAP, &padded)) return NULL;
    pf_arena_chunk *c = a->current;
    if (c == NULL || !chunk_fits(c, padded, align)) c = next_chunk(a, padded, align);
    if (c == NULL) return NULL;

    unsigned char *p = c->data + aligned_offset(c, align);
    c->used = (size_t)(p - c->data) + padded;
    a->used += size;
    if (a->used > a->peak) a->peak = a->used;
    UNPOISON(p, size);
    memset(p, 0, size);
    return p;
}

void *pf_arena_alloc(pf_arena *a, size_t size) {
    return pf_arena_aligned(a, size, MIN_ALIGN);
}

void *pf_arena_array(pf_arena *a, size_t count, size_t size) {
    size_t bytes;
    return pf_mul_size(count, size, &bytes) ? pf_arena_alloc(a, bytes) : NULL;
}

char *pf_arena_strndup(pf_arena *a, const char *s, size_t n) {
    size_t size;
    if (!pf_add_size(n, 1, &size)) return NULL;
    char *copy = pf_arena_alloc(a, size);
    if (copy != NULL && n > 0) memcpy(copy, s, n);
    return copy;
}

char *pf_arena_strdup(pf_arena *a, const char *s) {
    return pf_arena_strndup(a, s, strlen(s));
}

char *pf_arena_printf(pf_arena *a, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n >= 0 ? pf_arena_alloc(a, (size_t)n + 1) : NULL;
    if (text != NULL) vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    return text;
}

pf_arena_mark pf_arena_get_mark(const pf_arena *a) {
    return (pf_arena_mark){
        .chunk = a->current, .offset = a->current != NULL ? a->current->used : 0, .used = a->used};
}

void pf_arena_rewind(pf_arena *a, pf_arena_mark mark) {
    pf_arena_chunk *first_gone = mark.chunk != NULL ? mark.chunk->next : a->first;
    for (pf_arena_chunk *c = first_gone; c != NULL; c = c->next) {
        c->used = 0;
        POISON(c->data, c->size);
    }
    if (mark.chunk != NULL) {
        mark.chunk->used = mark.offset;
        POISON(mark.chunk->data + mark.offset, mark.chunk->size - mark.offset);
    }
    a->current = mark.chunk;
    a->used = mark.used;
}

void pf_arena_reset(pf_arena *a) {
    pf_arena_rewind(a, (pf_arena_mark){0});
}

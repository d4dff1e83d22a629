/* placement.c - first fit over lifetimes; see placement.h.
 *
 * What was placed is kept in ascending order of offsets, so that a gap is found in one walk over
 * those that live at the same time. A model with experts has a hundred thousand nodes whose scratch
 * lives at its node alone, and a few thousand other buffers. The former never meet each other, so
 * they look at the latter only, and of these at those that live nearby (`near`); they are put in
 * order when somebody asks for them. */
#include "graph/placement.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { NEAR = 256 /* nodes */ };

typedef struct placed {
    pf_room **long_lived, **points, **merged, **near;
    int n_long, n_points, n_sorted, n_near;
    int near_of; /* near: those that live somewhere in [near_of, near_of + NEAR); -1: nobody's */
} placed;

static bool meet(const pf_room *a, int first, int last) {
    return a->last >= first && a->first <= last;
}

static int lower_first(const void *a, const void *b) {
    const pf_room *x = *(pf_room *const *)a, *y = *(pf_room *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* The points placed since the last time take their places among the others. */
static void sort_points(placed *p) {
    if (p->n_sorted == p->n_points) return;
    qsort(p->points + p->n_sorted, (size_t)(p->n_points - p->n_sorted), sizeof *p->points,
          lower_first);
    int a = 0, b = p->n_sorted, n = 0;
    while (a < p->n_sorted && b < p->n_points)
        p->merged[n++] =
            p->points[b]->offset < p->points[a]->offset ? p->points[b++] : p->points[a++];
    while (a < p->n_sorted) p->merged[n++] = p->points[a++];
    memcpy(p->points, p->merged, (size_t)n * sizeof *p->points);
    p->n_sorted = p->n_points;
}

static void find_near(placed *p, int node) {
    if (p->near_of >= 0 && node >= p->near_of && node < p->near_of + NEAR) return;
    p->near_of = node / NEAR * NEAR;
    p->n_near = 0;
    for (int i = 0; i < p->n_long; i++) {
        if (meet(p->long_lived[i], p->near_of, p->near_of + NEAR - 1))
            p->near[p->n_near++] = p->long_lived[i];
    }
}

/* The lowest offset where `it` meets nobody of two lists, each in ascending order. */
static int64_t first_gap(const pf_room *it, pf_room *const *a, int n_a, pf_room *const *b,
                         int n_b) {
    int64_t at = 0;
    while (n_a > 0 || n_b > 0) {
        const bool take_a = n_b == 0 || (n_a > 0 && (*a)->offset <= (*b)->offset);
        const pf_room *r = take_a ? *a++ : *b++;
        n_a -= take_a;
        n_b -= !take_a;
        if (r->offset >= at + it->bytes) break;
        if (meet(r, it->first, it->last) && r->offset + r->bytes > at) at = r->offset + r->bytes;
    }
    return at;
}

static void add_long(placed *p, pf_room *it) {
    int k = p->n_long++;
    for (; k > 0 && p->long_lived[k - 1]->offset > it->offset; k--)
        p->long_lived[k] = p->long_lived[k - 1];
    p->long_lived[k] = it;
    p->near_of = -1;
}

peft_status pf_placement_make(pf_room *rooms, int n, int64_t *top, peft_error *err) {
    *top = 0;
    pf_room **lists = pf_calloc(4 * (size_t)n + 1, sizeof(pf_room *));
    PF_CHECK_ALLOC(lists, err);
    placed p = {.long_lived = lists,
                .points = lists + n,
                .merged = lists + 2 * (size_t)n,
                .near = lists + 3 * (size_t)n,
                .near_of = -1};
    for (int i = 0; i < n; i++) {
        pf_room *it = &rooms[i];
        if (it->first == it->last && it->value == NULL) {
            find_near(&p, it->first);
            it->offset = first_gap(it, p.near, p.n_near, NULL, 0);
            p.points[p.n_points++] = it;
        } else {
            sort_points(&p);
            it->offset = first_gap(it, p.long_lived, p.n_long, p.points, p.n_points);
            add_long(&p, it);
        }
        if (it->offset + it->bytes > *top) *top = it->offset + it->bytes;
    }
    pf_free(lists);
    return PEFT_OK;
}

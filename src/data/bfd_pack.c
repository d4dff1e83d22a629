/* bfd_pack.c - see bfd_pack.h. */
#include "data/bfd_pack.h"

#include <stdlib.h>

typedef struct item {
    int32_t length, at;
} item;

typedef struct row {
    int64_t room;
    int32_t since; /* when it got that room */
    int32_t n;
} row;

static int longest_first(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return x->at < y->at ? -1 : 1;
}

/* One run of n samples. Row k of *n_rows gets rows[k].n members; row_of says which row a sample is
 * in. */
static void pack_run(item *items, int32_t n, int64_t row_length, row *rows, int32_t *n_rows,
                     int32_t *row_of) {
    qsort(items, (size_t)n, sizeof *items, longest_first);
    *n_rows = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t best = -1;
        for (int32_t k = 0; k < *n_rows; k++) {
            if (rows[k].room < items[i].length) continue;
            if (best < 0 || rows[k].room < rows[best].room ||
                (rows[k].room == rows[best].room && rows[k].since < rows[best].since))
                best = k;
        }
        if (best < 0) {
            best = (*n_rows)++;
            rows[best] = (row){.room = row_length};
        }
        rows[best].room -= items[i].length;
        rows[best].since = i;
        rows[best].n++;
        row_of[i] = best;
    }
}

peft_status pf_bfd_pack(const int32_t *lengths, int64_t n, int64_t row_length, int64_t *members,
                        int64_t *starts, int64_t *n_rows, peft_error *err) {
    item items[PF_BFD_RUN];
    row rows[PF_BFD_RUN];
    int32_t row_of[PF_BFD_RUN], next[PF_BFD_RUN];
    *n_rows = 0;
    starts[0] = 0;
    for (int64_t begin = 0; begin < n; begin += PF_BFD_RUN) {
        int32_t run = (int32_t)(n - begin < PF_BFD_RUN ? n - begin : PF_BFD_RUN), used = 0;
        for (int32_t i = 0; i < run; i++) {
            items[i] = (item){lengths[begin + i], i};
            if (lengths[begin + i] < 1 || lengths[begin + i] > row_length)
                return PF_FAIL(err, PEFT_E_SHAPE,
                               "packing: sample %lld has %d tokens, a row holds %lld",
                               (long long)(begin + i), lengths[begin + i], (long long)row_length);
        }
        pack_run(items, run, row_length, rows, &used, row_of);
        for (int32_t k = 0, at = 0; k < used; k++) {
            next[k] = at;
            at += rows[k].n;
            starts[++*n_rows] = begin + at;
        }
        for (int32_t i = 0; i < run; i++) members[begin + next[row_of[i]]++] = begin + items[i].at;
    }
    return PEFT_OK;
}

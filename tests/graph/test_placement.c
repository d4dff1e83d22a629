/* test_placement.c - rooms are where a plain first fit over all others puts them, and never meet.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "graph/placement.h"

enum { MOST = 400 };

static bool meet(const pf_room *a, const pf_room *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset that is free of all before: 0 or where one of them ends. */
static int64_t plainly(const pf_room *rooms, int i) {
    int64_t best = -1;
    for (int c = -1; c < i; c++) {
        const int64_t at = c < 0 ? 0 : rooms[c].offset + rooms[c].bytes;
        bool is_free = best < 0 || at < best;
        for (int k = 0; is_free && k < i; k++) {
            if (!meet(&rooms[k], &rooms[i])) continue;
            is_free =
                rooms[k].offset >= at + rooms[i].bytes || rooms[k].offset + rooms[k].bytes <= at;
        }
        if (is_free) best = at;
    }
    return best;
}

static void test_first_fit(void **state) {
    (void)state;
    const pf_rng_key key = pf_rng_make_key(7, PF_RNG_DATA, 0);
    static pf_room rooms[MOST];
    static pf_value value;
    for (uint64_t round = 0; round < 40; round++) {
        uint64_t draw = 1000 * round;
        const int n = 1 + (int)(pf_rng_uniform_at(key, draw++) * (MOST - 1)), nodes = 2000;
        memset(rooms, 0, sizeof rooms);
        for (int i = 0; i < n; i++) {
            pf_room *r = &rooms[i];
            r->bytes = 64 * (1 + (int64_t)(pf_rng_uniform_at(key, draw++) * 9));
            r->first = (int)(pf_rng_uniform_at(key, draw++) * nodes);
            const double kind = pf_rng_uniform_at(key, draw++);
            r->value = kind < 0.4 ? &value : NULL; /* or scratch: one a node, at that node */
            r->last = r->value == NULL ? r->first
                                       : r->first + (int)(kind * pf_rng_uniform_at(key, draw++) *
                                                          (double)(kind < 0.2 ? 60 : 3000));
            for (int k = 0; k < i && r->value == NULL; k++) {
                if (rooms[k].value == NULL && rooms[k].first == r->first) r->value = &value;
            }
        }
        int64_t top, most = 0;
        peft_error err;
        assert_int_equal(pf_placement_make(rooms, n, &top, &err), PEFT_OK);
        for (int i = 0; i < n; i++) {
            assert_int_equal(rooms[i].offset, plainly(rooms, i));
            if (rooms[i].offset + rooms[i].bytes > most) most = rooms[i].offset + rooms[i].bytes;
        }
        assert_int_equal(top, most);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

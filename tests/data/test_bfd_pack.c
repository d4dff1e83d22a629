/* test_bfd_pack.c - the same rows as TRL, member by member (tests/golden/packing,
 * tools/make_packing_fixtures.py). */
#include "data/bfd_pack.h"

#include "data_test.h"

#include <stdlib.h>

enum { MAX = 4000 };

static int numbers(char *line, int64_t *out, char stop) {
    int n = 0;
    for (char *p = line; *p != 0 && *p != '\n' && *p != stop;) {
        char *end = NULL;
        out[n++] = strtoll(p, &end, 10);
        assert_true(end > p && n < MAX);
        for (p = end; *p == ' '; p++) {
        }
    }
    return n;
}

static void test_golden(void **state) {
    (void)state;
    pf_buf text = {0};
    assert_int_equal(
        pf_read_file(&text, TEST_SOURCE_DIR "/tests/golden/packing/bfd.txt", 1 << 20, NULL),
        PEFT_OK);
    int cases = 0;
    for (char *line = text.data; *line != 0; cases++) {
        static int64_t given[MAX], expected[MAX], members[MAX], starts[MAX + 1];
        static int32_t lengths[MAX];
        char *colon = strchr(line, ':');
        int64_t row_length = 0;
        assert_int_equal(numbers(line, &row_length, ':'), 1);
        int n = numbers(colon + 2, given, 0);
        for (int i = 0; i < n; i++) lengths[i] = (int32_t)given[i];
        int64_t n_rows = 0;
        peft_error err = {0};
        assert_int_equal(pf_bfd_pack(lengths, n, row_length, members, starts, &n_rows, &err),
                         PEFT_OK);
        char *p = strchr(line, '\n') + 1;
        for (int64_t row = 0; row < n_rows; row++) {
            int count = numbers(p, expected, '|');
            assert_int_equal(starts[row + 1] - starts[row], count);
            for (int i = 0; i < count; i++) assert_int_equal(members[starts[row] + i], expected[i]);
            p += strcspn(p, "|\n");
            assert_int_equal(*p, row + 1 < n_rows ? '|' : '\n');
            if (*p == '|') p += 2;
        }
        assert_int_equal(starts[n_rows], n);
        line = p + 1;
    }
    assert_int_equal(cases, 8);
    pf_buf_free(&text);
}

static void test_refuses(void **state) {
    (void)state;
    int64_t members[2], starts[3], n_rows = 0;
    peft_error err = {0};
    assert_int_equal(pf_bfd_pack((int32_t[]){4, 5}, 2, 4, members, starts, &n_rows, &err),
                     PEFT_E_SHAPE);
    assert_says(&err, "sample 1 has 5 tokens, a row holds 4");
    assert_int_equal(pf_bfd_pack(NULL, 0, 4, members, starts, &n_rows, &err), PEFT_OK);
    assert_int_equal(n_rows, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),
                                       cmocka_unit_test(test_refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

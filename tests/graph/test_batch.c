/* test_batch.c - pf_batch_check accepts the drawing in batch.h and names every way to break it. */
#include "data/batch_spec.h"
#include "graph/batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

/* A [0,4) root, B [4,6) child of A, C [6,7) child of B, D [7,10) child of A, and a second root E
 * [10,12) */
typedef struct fixture {
    pf_arena arena;
    pf_batch batch;
    pf_ext_run runs[2];
    int32_t kv[12];
} fixture;

static int setup(void **state) {
    static fixture f;
    static const int32_t a[] = {1, 2, 3, 4}, b[] = {5, 6}, c[] = {7}, d[] = {8, 9, 10},
                         e[] = {1, 2};
    memset(&f, 0, sizeof f);
    pf_arena_init(&f.arena, "test");
    pf_segment_spec segments[] = {{.parent = -1, .n = 4, .ids = a, .sample = 0},
                                  {.parent = 0, .n = 2, .ids = b, .sample = 0},
                                  {.parent = 1, .n = 1, .ids = c, .sample = 0},
                                  {.parent = 0, .n = 3, .ids = d, .sample = 1},
                                  {.parent = -1, .n = 2, .ids = e, .sample = 2}};
    pf_label_spec labels[] = {
        {4, 0, 2, 2, 1.0f}, {0, 3, 8, 1, 0.5f}, {0, 3, 5, 0, 1.0f}, {2, 0, 3, 0, 1.0f}};
    peft_error err;
    assert_int_equal(pf_batch_from_segments(&f.batch, &f.arena, segments, 5, labels, 4, &err),
                     PEFT_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    pf_arena_release(&f->arena);
    return 0;
}

static void test_drawing(void **state) {
    fixture *f = *state;
    const pf_batch *b = &f->batch;
    static const int32_t pos[] = {0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 0, 1};
    static const int32_t end[] = {10, 10, 10, 10, 7, 7, 7, 10, 10, 10, 12, 12};
    static const int32_t rope[] = {7, 7, 7, 7, 2};
    assert_int_equal(b->n_tokens, 12);
    assert_memory_equal(b->pos, pos, sizeof pos);
    assert_memory_equal(b->end, end, sizeof end);
    for (int i = 0; i < 5; i++) assert_int_equal(b->segments[i].rope_length, rope[i]);
    static const int32_t row[] = {3, 3, 6, 10}, target[] = {8, 5, 3, 2}, sample[] = {1, 0, 0, 2};
    assert_memory_equal(b->label_row, row, sizeof row);
    assert_memory_equal(b->label_target, target, sizeof target);
    assert_memory_equal(b->label_sample, sample, sizeof sample);
    assert_true(b->label_weight[0] == 0.5f);
    peft_error err;
    assert_int_equal(pf_batch_check(b, 11, 0, &err), PEFT_OK);
}

static void expect_broken(fixture *f, const char *text) {
    peft_error err = {0};
    assert_int_equal(pf_batch_check(&f->batch, 11, 16, &err), PEFT_E_SHAPE);
    if (strstr(err.message, text) == NULL) fail_msg("'%s' does not say '%s'", err.message, text);
}

/* Each row changes one number of one array, checks the message, and puts the number back. */
static void test_each_number(void **state) {
    fixture *f = *state;
    pf_batch *b = &f->batch;
    pf_segment *s = (pf_segment *)b->segments;
    struct {
        const int32_t *at;
        int32_t bad;
        const char *text;
    } rows[] = {
        {&b->ids[3], 11, "token id 11"},
        {&b->ids[0], -1, "token id -1"},
        {&b->pos[5], 4, "row 5 has"},
        {&b->pos[0], 1, "begins at position 1"},
        {&b->pos[7], 3, "has position 3"},
        {&b->seg[6], 1, "row 6 has segment 1"},
        {&b->seg[7], 99, "inside a segment"},
        {&b->end[4], 10, "row 4 has segment 1, end 10"},
        {&b->sample[2], -1, "sample -1"},
        {&s[1].start, 5, "segment 1 covers"},
        {&s[1].length, 0, "segment 1 covers"},
        {&s[4].length, 3, "segment 4 covers"},
        {&s[4].length, 1, "hold 11 of 12"},
        {&s[1].length, INT32_MAX, "segment 1 covers"},
        {&s[2].parent, 2, "parent 2"},
        {&s[2].parent, -2, "parent -2"},
        {&s[2].parent, 0, "by the ends of the subtrees it is 1"},
        {&s[3].parent, 1, "the subtree of segment 3 ends"},
        {&s[3].parent, -1, "by the ends of the subtrees it is 0"},
        {&s[1].subtree_end, 6, "the subtree of segment 2 ends"},
        {&s[1].subtree_end, 8, "by the ends of the subtrees it is 1"},
        {&s[2].subtree_end, 8, "the subtree of segment 2 ends"},
        {&s[0].subtree_end, 11, "by the ends of the subtrees it is 0"},
        {&s[4].subtree_end, 13, "the subtree of segment 4 ends"},
        {&s[0].rope_length, 0, "rope length 0"},
        {&b->label_row[1], 12, "label 1 is on row 12"},
        {&b->label_row[2], 2, "after a label on row 3"},
        {&b->label_row[0], -1, "label 0 is on row -1"},
        {&b->label_target[3], 11, "target 11"},
        {&b->label_sample[3], -1, "label 3 has sample -1"},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        int32_t *at = (int32_t *)rows[i].at, good = *at;
        *at = rows[i].bad;
        expect_broken(f, rows[i].text);
        *at = good;
    }
    ((float *)b->label_weight)[2] = NAN;
    expect_broken(f, "label 2 has weight");
    ((float *)b->label_weight)[2] = 1;
    b->n_segments = 13;
    expect_broken(f, "13 segments");
    b->n_segments = 5;
    b->n_tokens = 0;
    expect_broken(f, "0 rows");
    b->n_tokens = 12;
    const float *weights = b->label_weight;
    b->label_weight = NULL;
    expect_broken(f, "an array is missing");
    b->label_weight = weights;
    assert_int_equal(pf_batch_check(b, 11, 0, NULL), PEFT_OK);
}

static void test_external(void **state) {
    fixture *f = *state;
    pf_batch *b = &f->batch;
    f->runs[0] = (pf_ext_run){.ext = 0, .length = 5, .pos = 0, .row_begin = 10, .row_end = 12};
    f->runs[1] = (pf_ext_run){.ext = 8, .length = 2, .pos = 5, .row_begin = 10, .row_end = 12};
    b->ext_runs = f->runs;
    b->n_ext_runs = 2;
    b->kv_row = f->kv;
    ((int32_t *)b->pos)[10] = 7; /* goes on after the cache */
    ((int32_t *)b->pos)[11] = 8;
    assert_int_equal(pf_batch_check(b, 11, 16, NULL), PEFT_OK);
    f->runs[1].pos = 4;
    expect_broken(f, "not in the order of their positions");
    f->runs[1].pos = 5;
    f->runs[1].length = 9;
    expect_broken(f, "external run 1 has rows");
    f->runs[1].length = INT32_MAX;
    expect_broken(f, "external run 1 has rows");
    f->runs[1].length = 2;
    f->runs[1].row_end = 13;
    expect_broken(f, "is seen by rows");
    f->runs[1].row_end = 12;
    f->kv[3] = 16;
    expect_broken(f, "cache row 16");
    f->kv[3] = 0;
    f->runs[0].row_begin = 11; /* the root that starts at 7 is no longer covered */
    f->runs[1].row_begin = 11;
    expect_broken(f, "begins at position 7");
}

static void test_spec_refuses(void **state) {
    fixture *f = *state;
    static const int32_t ids[] = {1, 2};
    pf_batch out;
    peft_error err;
    pf_segment_spec segments[] = {{.parent = -1, .n = 2, .ids = ids},
                                  {.parent = -1, .n = 2, .ids = ids},
                                  {.parent = 0, .n = 2, .ids = ids}};
    pf_label_spec label = {.segment = 0, .offset = 2};
    assert_int_equal(pf_batch_from_segments(&out, &f->arena, segments, 3, NULL, 0, &err),
                     PEFT_E_SHAPE);
    assert_non_null(strstr(err.message, "pre-order"));
    assert_int_equal(pf_batch_from_segments(&out, &f->arena, segments, 2, &label, 1, &err),
                     PEFT_E_SHAPE);
    assert_non_null(strstr(err.message, "label 0"));
    assert_int_equal(pf_batch_from_segments(&out, &f->arena, segments, 0, NULL, 0, &err),
                     PEFT_E_SHAPE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_drawing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_number, setup, teardown),
        cmocka_unit_test_setup_teardown(test_external, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spec_refuses, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

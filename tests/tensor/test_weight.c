/* Views of stored matrices: every combination of slice, transpose and permutation reads what
 * indexing says it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/status.h"
#include "tensor/weight.h"

#define ROWS 300 /* above the 256 elements that are widened at a time */
#define COLS 37

/* Numbers that halves hold exactly, all different in a neighbourhood. */
static float number(int64_t r, int64_t c) {
    return (float)((r * 7 + c * 13) % 251) - 125.0f;
}

/* Stored at an odd address: files promise no alignment. */
static unsigned char *store(pf_dtype dtype) {
    size_t bytes;
    assert_true(pf_dtype_bytes(dtype, ROWS * COLS, &bytes));
    unsigned char *p = malloc(bytes + 1);
    assert_non_null(p);
    float row[COLS];
    for (int64_t r = 0; r < ROWS; r++) {
        size_t at;
        for (int64_t c = 0; c < COLS; c++) row[c] = number(r, c);
        assert_true(pf_dtype_bytes(dtype, r * COLS, &at));
        pf_dtype_from_f32(dtype, row, COLS, p + 1 + at);
    }
    return p;
}

static void check_tile(const pf_weight *w, int64_t r0, int64_t nr, int64_t c0, int64_t nc,
                       float (*want)(const void *ctx, int64_t r, int64_t c), const void *ctx) {
    int64_t ld = nc + 3;
    size_t n = (size_t)(nr * ld) + 1;
    pf_real *dst = malloc(n * sizeof *dst);
    assert_non_null(dst);
    for (size_t i = 0; i < n; i++) dst[i] = 1e30f;
    pf_weight_read_tile(w, r0, nr, c0, nc, dst, ld);
    for (int64_t r = 0; r < nr; r++) {
        for (int64_t c = 0; c < ld; c++) { /* and nothing is written beside the tile */
            assert_true(dst[r * ld + c] == (c < nc ? want(ctx, r0 + r, c0 + c) : 1e30f));
        }
    }
    free(dst);
}

static float as_stored(const void *ctx, int64_t r, int64_t c) {
    (void)ctx;
    return number(r, c);
}
static float turned(const void *ctx, int64_t r, int64_t c) {
    (void)ctx;
    return number(c, r);
}
static float permuted(const void *ctx, int64_t r, int64_t c) {
    return number(((const int32_t *)ctx)[r], c);
}
static float permuted_turned(const void *ctx, int64_t r, int64_t c) {
    return number(((const int32_t *)ctx)[c], r);
}
static float shifted(const void *ctx, int64_t r, int64_t c) {
    return number(r + *(const int64_t *)ctx, c);
}
static float shifted_turned(const void *ctx, int64_t r, int64_t c) {
    return number(c, r + *(const int64_t *)ctx);
}

static void test_views(void **state) {
    (void)state;
    static const pf_dtype types[] = {PF_DTYPE_F32, PF_DTYPE_F16, PF_DTYPE_BF16, PF_DTYPE_F64};
    int32_t perm[ROWS];
    for (int i = 0; i < ROWS; i++) perm[i] = (i * 11 + 5) % ROWS;
    for (size_t k = 0; k < PF_COUNT(types); k++) {
        unsigned char *p = store(types[k]);
        pf_weight w, s, v;
        w = pf_weight_of("w", types[k], p + 1, ROWS, COLS);
        check_tile(&w, 0, ROWS, 0, COLS, as_stored, NULL);
        check_tile(&w, 3, 7, 5, 30, as_stored, NULL);
        check_tile(&w, ROWS, 0, 0, COLS, as_stored, NULL);
        check_tile(&w, 9, 1, COLS, 0, as_stored, NULL);
        v = pf_weight_transpose(&w);
        assert_int_equal(v.rows, COLS);
        check_tile(&v, 0, COLS, 0, ROWS, turned, NULL);
        check_tile(&v, 2, 20, 17, 270, turned, NULL);
        pf_weight again = pf_weight_transpose(&v);
        check_tile(&again, 0, ROWS, 0, COLS, as_stored, NULL);

        int64_t off = 40;
        s = pf_weight_slice_rows(&w, off, 200);
        check_tile(&s, 0, 200, 0, COLS, shifted, &off);
        off = 11;
        s = pf_weight_slice_rows(&v, off, 20);
        check_tile(&s, 0, 20, 0, ROWS, shifted_turned, &off);

        s = w;
        s.row_perm = perm;
        check_tile(&s, 1, ROWS - 1, 0, COLS, permuted, perm);
        v = pf_weight_transpose(&s);
        check_tile(&v, 0, COLS, 2, 290, permuted_turned, perm);
        s = pf_weight_slice_rows(&s, 33, 100);
        check_tile(&s, 0, 100, 0, COLS, permuted, perm + 33);
        float row[COLS];
        pf_dtype_to_f32(types[k], pf_weight_stored_row(&s, 2), COLS, row);
        assert_true(row[4] == number(perm[35], 4));
        free(p);
    }
}

/* A tall stored matrix whose transpose is read in one go crosses the stretch of the inner loop. */
static void test_wide_rows_of_a_transpose(void **state) {
    (void)state;
    enum { R = 3, C = 700 };
    float data[R * C];
    pf_real out[C * R];
    for (int i = 0; i < R * C; i++) data[i] = (float)i;
    pf_weight w = pf_weight_of("w", PF_DTYPE_F32, data, R, C);
    pf_weight t = pf_weight_transpose(&w);
    pf_weight_read_tile(&t, 0, C, 0, R, out, R);
    for (int c = 0; c < C; c++) {
        for (int r = 0; r < R; r++) assert_true(out[c * R + r] == data[r * C + c]);
    }
    assert_int_equal(pf_weight_bytes(&w), sizeof data);
}

static void test_direct_access(void **state) {
    (void)state;
    float data[6] = {0};
    const float *f = NULL;
    const uint16_t *h = NULL;
    const int32_t perm[] = {1, 0};
    pf_weight w = pf_weight_of("w", PF_DTYPE_F32, data, 2, 3), t = pf_weight_transpose(&w), p = w,
              odd = w;
    assert_true(pf_weight_is_plain_f32(&w, &f) && f == data);
    assert_false(pf_weight_is_plain_u16(&w, PF_DTYPE_BF16, &h));
    assert_false(pf_weight_is_plain_f32(&t, &f));
    p.row_perm = perm;
    assert_false(pf_weight_is_plain_f32(&p, &f));
    odd.data = (const char *)data + 2;
    odd.rows = 1;
    assert_false(pf_weight_is_plain_f32(&odd, &f));
    pf_weight half = pf_weight_of("h", PF_DTYPE_F16, data, 2, 3);
    pf_weight last = pf_weight_slice_rows(&half, 1, 1);
    assert_true(pf_weight_is_plain_u16(&last, PF_DTYPE_F16, &h) &&
                h == (const uint16_t *)(const void *)data + 3);
    /* shapes alone, for the null backend: slicing needs no data */
    pf_weight none = pf_weight_of("n", PF_DTYPE_BF16, NULL, 10, 4);
    pf_weight cut = pf_weight_slice_rows(&none, 5, 5);
    assert_true(cut.data == NULL && cut.rows == 5 &&
                !pf_weight_is_plain_u16(&cut, PF_DTYPE_BF16, &h));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_wide_rows_of_a_transpose),
        cmocka_unit_test(test_direct_access),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

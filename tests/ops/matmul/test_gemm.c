/* Products of every form, type and instruction set against a plain sum in double, and the promise
 * of gemm.h: an element has the same bits whatever the number of rows, the path and the threads. */
#include "ops/matmul/gemm.h"

#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const pf_gemm_isa *const all_isas[] = {&pf_gemm_plain, &pf_gemm_avx2, &pf_gemm_avx512};

static bool can_run(const pf_gemm_isa *isa) {
    return isa->level <= pf_cpu_level();
}

static float *numbers(uint64_t salt, int64_t n) {
    float *p = pf_malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    pf_rng_key key = pf_rng_make_key(7, PF_RNG_DATA, salt);
    for (int64_t i = 0; i < n; i++) p[i] = (float)(pf_rng_uniform_at(key, (uint64_t)i) * 2 - 1);
    return p;
}

/* A stored weight of logical shape rows x cols in type t, transposed or with rows permuted. */
typedef struct stored {
    void *data;
    int32_t *perm;
    pf_weight w;
} stored;

static stored store(uint64_t salt, pf_dtype t, int64_t rows, int64_t cols, bool transposed,
                    bool permuted) {
    stored s = {0};
    float *src = numbers(salt, rows * cols);
    size_t bytes = 0;
    assert_true(pf_dtype_bytes(t, (uint64_t)(rows * cols), &bytes));
    s.data = pf_malloc(bytes);
    if (t == PF_DTYPE_F64) { /* a type that goes through read_tile */
        for (int64_t i = 0; i < rows * cols; i++) ((double *)s.data)[i] = src[i];
    } else {
        pf_dtype_from_f32(t, src, (size_t)(rows * cols), s.data);
    }
    pf_free(src);
    s.w = transposed ? pf_weight_of("w", t, s.data, cols, rows)
                     : pf_weight_of("w", t, s.data, rows, cols);
    if (transposed) s.w = pf_weight_transpose(&s.w);
    if (permuted) {
        const int64_t n = transposed ? cols : rows; /* of stored rows */
        s.perm = pf_malloc((size_t)n * sizeof *s.perm);
        for (int64_t i = 0; i < n; i++) s.perm[i] = (int32_t)(n - 1 - i);
        s.w.row_perm = s.perm;
    }
    return s;
}

static void drop(stored *s) {
    pf_free(s->data);
    pf_free(s->perm);
}

static float *widened(const pf_weight *w) {
    float *p = pf_malloc((size_t)(w->rows * w->cols) * sizeof *p);
    pf_weight_read_tile(w, 0, w->rows, 0, w->cols, p, w->cols);
    return p;
}

static void *workspace;

static void check_against_double(const pf_gemm_isa *isa, pf_gemm g, const char *what) {
    float *b = widened(g.b);
    float *start = numbers(3, g.m * g.n);
    memcpy(g.c, start, (size_t)(g.m * g.n) * sizeof *g.c);
    pf_gemm_run(NULL, isa, &g, workspace);
    for (int64_t i = 0; i < g.m; i++) {
        for (int64_t j = 0; j < g.n; j++) {
            double sum = 0, size = 0;
            for (int64_t k = 0; k < g.k; k++) {
                double x = g.form == PF_GEMM_TN ? g.a[k * g.lda + i] : g.a[i * g.lda + k];
                double y = g.form == PF_GEMM_NT ? b[j * g.k + k] : b[k * g.n + j];
                sum += x * y;
                size += fabs(x * y);
            }
            sum *= g.alpha;
            if (g.accumulate) sum += start[i * g.n + j];
            if (g.bias != NULL) sum += g.bias[j];
            double error = fabs(g.c[i * g.n + j] - sum);
            if (error > 3e-6 * (size + 1)) {
                print_error("%s %s m=%d n=%d k=%d: C[%d,%d] is off by %g\n", isa->name, what,
                            (int)g.m, (int)g.n, (int)g.k, (int)i, (int)j, error);
                fail();
            }
        }
    }
    pf_free(b);
    pf_free(start);
}

static void test_forms_and_types(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {1, 33, 7},    {3, 17, 31},  {5, 16, 385},
                                       {8, 64, 64},   {9, 65, 130},  {14, 32, 8},  {15, 31, 768},
                                       {29, 100, 40}, {64, 40, 401}, {131, 7, 20}, {20, 300, 1}};
    static const pf_dtype types[] = {PF_DTYPE_F32, PF_DTYPE_BF16, PF_DTYPE_F16, PF_DTYPE_F64};
    for (size_t v = 0; v < PF_COUNT(all_isas); v++) {
        const pf_gemm_isa *isa = all_isas[v];
        if (!can_run(isa)) continue;
        for (size_t s = 0; s < PF_COUNT(sizes); s++) {
            const int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
            float *a = numbers(1, m * k), *bias = numbers(2, n);
            float *c = pf_malloc((size_t)(m * n) * sizeof *c);
            for (int form = 0; form < 3; form++) {
                for (int variant = 0; variant < 12; variant++) {
                    const bool transposed = variant & 1, permuted = variant & 2;
                    const pf_dtype t = types[(size_t)variant / 4 + (form == 0 && variant > 9)];
                    stored b = form == PF_GEMM_NT ? store(4, t, n, k, transposed, permuted)
                                                  : store(4, t, k, n, transposed, permuted);
                    pf_gemm g = {.form = (pf_gemm_form)form,
                                 .m = m,
                                 .n = n,
                                 .k = k,
                                 .a = a,
                                 .lda = form == PF_GEMM_TN ? m : k,
                                 .b = &b.w,
                                 .c = c,
                                 .ldc = n,
                                 .alpha = variant & 1 ? 1.0f : 0.5f,
                                 .accumulate = variant & 2,
                                 .bias = variant & 4 ? bias : NULL};
                    static const char *const names[] = {"NT", "NN", "TN"};
                    check_against_double(isa, g, names[form]);
                    drop(&b);
                }
            }
            pf_free(a);
            pf_free(bias);
            pf_free(c);
        }
    }
}

/* A power-of-two distance between rows takes the path that packs A. */
static void test_packed_a(void **state) {
    (void)state;
    for (size_t v = 0; v < PF_COUNT(all_isas); v++) {
        if (!can_run(all_isas[v])) continue;
        const int64_t m = 37, n = 50, k = 1024; /* rows a page apart share one cache set */
        float *a = numbers(1, m * k), *c = pf_malloc((size_t)(m * n) * sizeof *c);
        stored b = store(4, PF_DTYPE_F32, n, k, false, false);
        pf_gemm g = {PF_GEMM_NT, m, n, k, a, k, &b.w, c, n, 1, false, NULL};
        check_against_double(all_isas[v], g, "NT");
        drop(&b);
        pf_free(a);
        pf_free(c);
    }
}

/* Rows of a product with all rows equal those of products with any part of the rows. */
static void test_cut_of_rows_keeps_bits(void **state) {
    (void)state;
    enum { M = 141 };
    static const int64_t shapes[][2] = {{97, 576}, {64, 1536}, {200, 400}, {33, 1024}};
    for (size_t v = 0; v < PF_COUNT(all_isas); v++) {
        const pf_gemm_isa *isa = all_isas[v];
        if (!can_run(isa)) continue;
        for (int bf16 = 0; bf16 < 2; bf16++) {
            for (size_t s = 0; s < PF_COUNT(shapes); s++) {
                for (int form = PF_GEMM_NT; form <= PF_GEMM_NN; form++) {
                    const int64_t n = shapes[s][0], k = shapes[s][1];
                    const pf_dtype t = bf16 ? PF_DTYPE_BF16 : PF_DTYPE_F32;
                    float *a = numbers(1, M * k), *bias = numbers(2, n);
                    float *whole = pf_malloc((size_t)(M * n) * sizeof *whole);
                    float *part = pf_malloc((size_t)(M * n) * sizeof *part);
                    stored b = form == PF_GEMM_NT ? store(5, t, n, k, false, false)
                                                  : store(5, t, k, n, false, false);
                    pf_gemm g = {(pf_gemm_form)form, M, n, k, a, k, &b.w, whole, n, 1, false, bias};
                    pf_gemm_run(NULL, isa, &g, workspace);
                    for (int64_t first = 0, len = 1; first < M; first += len, len = len * 2 + 1) {
                        if (first + len > M) len = M - first;
                        g.m = len;
                        g.a = a + first * k;
                        g.c = part + first * n;
                        pf_gemm_run(NULL, isa, &g, workspace);
                    }
                    assert_memory_equal(whole, part, (size_t)(M * n) * sizeof *whole);
                    for (int64_t i = 0; i < M; i++) { /* one row at a time, as generation does */
                        g.m = 1;
                        g.a = a + i * k;
                        g.c = part + i * n;
                        pf_gemm_run(NULL, isa, &g, workspace);
                    }
                    assert_memory_equal(whole, part, (size_t)(M * n) * sizeof *whole);
                    drop(&b);
                    pf_free(a);
                    pf_free(bias);
                    pf_free(whole);
                    pf_free(part);
                }
            }
        }
    }
}

enum { MAX_THREADS = 16 }; /* more than a product of this size has tasks for a few threads */

static void test_threads_and_wide_isas_keep_bits(void **state) {
    (void)state;
    const int64_t m = 300, n = 500, k = 700;
    float *a = numbers(1, m * k), *bias = numbers(2, n);
    float *one = pf_malloc((size_t)(m * n) * sizeof *one);
    float *many = pf_malloc((size_t)(m * n) * sizeof *many);
    float *avx2 = pf_malloc((size_t)(m * n) * sizeof *avx2);
    for (int form = 0; form < 3; form++) {
        stored b = form == PF_GEMM_NT ? store(5, PF_DTYPE_BF16, n, k, false, false)
                                      : store(5, PF_DTYPE_BF16, k, n, false, false);
        for (size_t v = 0; v < PF_COUNT(all_isas); v++) {
            const pf_gemm_isa *isa = all_isas[v];
            if (!can_run(isa)) continue;
            pf_gemm g = {(pf_gemm_form)form,
                         m,
                         n,
                         k,
                         a,
                         form == PF_GEMM_TN ? m : k,
                         &b.w,
                         one,
                         n,
                         1,
                         false,
                         bias};
            pf_gemm_run(NULL, isa, &g, workspace);
            for (int threads = 2; threads <= MAX_THREADS; threads += threads < 4 ? 1 : 6) {
                pf_pool *pool;
                assert_int_equal(pf_pool_new(&pool, threads, NULL), PEFT_OK);
                memset(many, 0, (size_t)(m * n) * sizeof *many);
                g.c = many;
                pf_gemm_run(pool, isa, &g, workspace);
                assert_memory_equal(one, many, (size_t)(m * n) * sizeof *one);
                pf_pool_free(pool);
            }
            if (isa == &pf_gemm_avx2) memcpy(avx2, one, (size_t)(m * n) * sizeof *one);
            if (isa == &pf_gemm_avx512)
                assert_memory_equal(one, avx2, (size_t)(m * n) * sizeof *one);
        }
        drop(&b);
    }
    pf_free(a);
    pf_free(bias);
    pf_free(one);
    pf_free(many);
    pf_free(avx2);
}

static void test_no_terms_is_zero_plus_bias(void **state) {
    (void)state;
    float c[6] = {1, 2, 3, 4, 5, 6}, bias[3] = {7, 8, 9};
    pf_weight w = pf_weight_of("w", PF_DTYPE_F32, c, 3, 0);
    pf_gemm g = {PF_GEMM_NT, 2, 3, 0, c, 0, &w, c, 3, 1, false, bias};
    pf_gemm_run(NULL, &pf_gemm_plain, &g, workspace);
    static const float want[6] = {7, 8, 9, 7, 8, 9};
    assert_memory_equal(c, want, sizeof want);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_and_types),
        cmocka_unit_test(test_packed_a),
        cmocka_unit_test(test_cut_of_rows_keeps_bits),
        cmocka_unit_test(test_threads_and_wide_isas_keep_bits),
        cmocka_unit_test(test_no_terms_is_zero_plus_bias),
    };
    workspace = pf_aligned_malloc((size_t)pf_gemm_workspace(MAX_THREADS), 64);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pf_free(workspace);
    return failed;
}

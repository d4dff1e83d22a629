/* Products in bf16 and int8: no element is further from the exact product than the rounding of the
 * operands allows; int8 has the same bits under every instruction set; and the promise of narrow.h,
 * the same bits in a batch of any size and on any number of threads. */
#include "ops/matmul/narrow.h"

#include "base/mem.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void *workspace;

static const pf_narrow_isa *const fast[] = {&pf_narrow_int8_avx512, &pf_narrow_bf16_avx512,
                                            &pf_narrow_int8_avxvnni, &pf_narrow_int8_avx2};

static bool can_run(const pf_narrow_isa *isa) {
    if (isa == &pf_narrow_int8_avx512) return pf_cpu_has_avx512_vnni();
    if (isa == &pf_narrow_bf16_avx512) return pf_cpu_has_avx512_bf16();
    if (isa == &pf_narrow_int8_avxvnni) return pf_cpu_has_avx_vnni();
    return pf_cpu_level() >= PF_ISA_AVX2;
}

typedef struct problem {
    pf_gemm g;
    pf_weight w;
    void *stored;
    float *a, *start, *bias, *scales, *wide; /* wide (rows, cols): the weight as floats */
    int32_t *perm;
} problem;

static float *numbers(uint64_t salt, int64_t n) {
    float *p = pf_malloc((size_t)n * sizeof *p);
    assert_non_null(p);
    pf_rng_key key = pf_rng_make_key(7, PF_RNG_DATA, salt);
    for (int64_t i = 0; i < n; i++) p[i] = (float)(pf_rng_uniform_at(key, (uint64_t)i) * 2 - 1);
    return p;
}

/* outliers: every third row of A holds a number far larger than the rest. */
static problem make(pf_gemm_form form, pf_dtype t, int64_t m, int64_t n, int64_t k, bool transposed,
                    bool permuted, bool outliers) {
    problem p = {0};
    const int64_t rows = form == PF_GEMM_NT ? n : k, cols = form == PF_GEMM_NT ? k : n;
    float *src = numbers(4, rows * cols);
    for (int64_t i = 0; i < rows * cols; i++) src[i] *= (float)(1 + i / cols % 5); /* rows differ */
    size_t bytes = 0;
    assert_true(pf_dtype_bytes(t, (uint64_t)(rows * cols), &bytes));
    p.stored = pf_malloc(bytes);
    if (t == PF_DTYPE_F64) {
        for (int64_t i = 0; i < rows * cols; i++) ((double *)p.stored)[i] = src[i];
    } else {
        pf_dtype_from_f32(t, src, (size_t)(rows * cols), p.stored);
    }
    pf_free(src);
    p.w = transposed ? pf_weight_of("w", t, p.stored, cols, rows)
                     : pf_weight_of("w", t, p.stored, rows, cols);
    if (transposed) p.w = pf_weight_transpose(&p.w);
    if (permuted) {
        const int64_t stored_rows = transposed ? cols : rows;
        p.perm = pf_malloc((size_t)stored_rows * sizeof *p.perm);
        for (int64_t i = 0; i < stored_rows; i++) p.perm[i] = (int32_t)(stored_rows - 1 - i);
        p.w.row_perm = p.perm;
    }
    p.scales = pf_malloc((size_t)rows * sizeof *p.scales);
    pf_weight_row_scales(&p.w, 0, rows, p.scales);
    float *faster = pf_malloc((size_t)rows * sizeof *faster);
    pf_narrow_scales(&p.w, 0, rows, faster);
    assert_memory_equal(p.scales, faster, (size_t)rows * sizeof *faster);
    pf_free(faster);
    p.w.row_scale = p.scales;
    p.wide = pf_malloc((size_t)(rows * cols) * sizeof *p.wide);
    pf_weight_read_tile(&p.w, 0, rows, 0, cols, p.wide, cols);
    p.a = numbers(1, m * k);
    for (int64_t i = 0; outliers && i < m; i += 3) p.a[i * k + i % k] = 300;
    p.start = numbers(3, m * n);
    p.bias = numbers(2, n);
    p.g = (pf_gemm){.form = form, .m = m, .n = n, .k = k, .a = p.a, .lda = k, .ldc = n, .alpha = 1};
    return p;
}

static void drop(problem *p) {
    pf_free(p->stored);
    pf_free(p->perm);
    pf_free(p->scales);
    pf_free(p->wide);
    pf_free(p->a);
    pf_free(p->start);
    pf_free(p->bias);
}

static float *run(problem *p, const pf_narrow_isa *isa, pf_pool *pool) {
    float *c = pf_malloc((size_t)(p->g.m * p->g.n) * sizeof *c);
    memcpy(c, p->start, (size_t)(p->g.m * p->g.n) * sizeof *c);
    p->g.b = &p->w;
    p->g.c = c;
    pf_narrow_run(pool, isa, &p->g, workspace);
    return c;
}

/* How far rounding its operands may move C[i, j]: half a step of each number of A times the weight,
 * and the other way round. */
static void check_bound(const problem *p, const pf_narrow_isa *isa, const float *c, bool outliers) {
    const pf_gemm *g = &p->g;
    const bool int8 = isa->type == PF_COMPUTE_INT8, nt = g->form == PF_GEMM_NT;
    for (int64_t i = 0; i < g->m; i++) {
        double top = 0;
        for (int64_t k = 0; k < g->k; k++) {
            double v = fabs(p->a[i * g->k + k]) * (nt || !int8 ? 1 : p->scales[k]);
            top = v > top ? v : top;
        }
        double step = top / 127 * (outliers && i % 3 == 0 ? 1.0 / 254 : 1);
        for (int64_t j = 0; j < g->n; j++) {
            double sum = g->accumulate ? p->start[i * g->n + j] : 0, room = 1e-5;
            for (int64_t k = 0; k < g->k; k++) {
                double a = p->a[i * g->k + k],
                       w = nt ? p->wide[j * g->k + k] : p->wide[k * g->n + j];
                double of_w = int8 ? p->scales[nt ? j : k] / 2 : fabs(w) / 256;
                double of_a = int8 ? step / 2 / (nt ? 1 : p->scales[k]) : fabs(a) / 256;
                sum += a * w;
                room += fabs(a) * of_w + fabs(w) * of_a + of_a * of_w + 1e-6 * fabs(a * w);
            }
            if (g->bias != NULL) sum += g->bias[j];
            double error = fabs(c[i * g->n + j] - sum);
            if (error <= room) continue;
            print_error("%s m=%d n=%d k=%d: C[%d,%d] is off by %g, more than %g\n", isa->name,
                        (int)g->m, (int)g->n, (int)g->k, (int)i, (int)j, error, room);
            fail();
        }
    }
}

static void check_same_bits(const float *x, const float *y, int64_t n, const char *what) {
    for (int64_t i = 0; i < n; i++) {
        if (pf_f32_bits(x[i]) == pf_f32_bits(y[i])) continue;
        print_error("%s: element %d is %.9g and %.9g\n", what, (int)i, (double)x[i], (double)y[i]);
        fail();
    }
}

static void test_bounds_and_bits(void **state) {
    (void)state;
    static const int64_t sizes[][3] = {{1, 1, 1},     {1, 33, 7},     {3, 17, 31},   {5, 16, 1537},
                                       {8, 64, 64},   {9, 65, 130},   {14, 32, 8},   {15, 31, 770},
                                       {29, 100, 40}, {64, 40, 3101}, {131, 70, 20}, {20, 300, 1},
                                       {1100, 9, 33}};
    static const pf_dtype types[] = {PF_DTYPE_F32, PF_DTYPE_BF16, PF_DTYPE_F16, PF_DTYPE_F64};
    for (size_t s = 0; s < PF_COUNT(sizes); s++) {
        for (int v = 0; v < 32; v++) {
            const pf_gemm_form form = v & 1 ? PF_GEMM_NN : PF_GEMM_NT;
            const bool outliers = (v & 8) != 0 && sizes[s][2] > 300;
            problem p = make(form, types[v / 8], sizes[s][0], sizes[s][1], sizes[s][2],
                             v % 8 == 2 || v % 8 == 3, v & 4, outliers);
            p.g.accumulate = v & 2;
            p.g.bias = v & 4 ? p.bias : NULL;
            for (int type = PF_COMPUTE_BF16; type <= PF_COMPUTE_INT8; type++) {
                const pf_narrow_isa *reference = pf_narrow_reference((pf_compute)type);
                float *c = run(&p, reference, NULL);
                check_bound(&p, reference, c, outliers && p.g.form == PF_GEMM_NT);
                for (size_t f = 0; f < PF_COUNT(fast); f++) {
                    if (fast[f]->type != (pf_compute)type || !can_run(fast[f])) continue;
                    float *d = run(&p, fast[f], NULL);
                    check_bound(&p, fast[f], d, outliers && p.g.form == PF_GEMM_NT);
                    if (type == PF_COMPUTE_INT8)
                        check_same_bits(c, d, p.g.m * p.g.n, fast[f]->name);
                    pf_free(d);
                }
                pf_free(c);
            }
            drop(&p);
        }
    }
}

/* Row 700 alone, and in a batch, on one thread, on three and on ten. */
static void test_cuts_and_threads(void **state) {
    (void)state;
    peft_error err = {0};
    pf_pool *pool, *many; /* with many, products are split further */
    assert_int_equal(pf_pool_new(&pool, 3, &err), PEFT_OK);
    assert_int_equal(pf_pool_new(&many, 10, &err), PEFT_OK);
    for (int form = PF_GEMM_NT; form <= PF_GEMM_NN; form++) {
        problem p = make((pf_gemm_form)form, PF_DTYPE_BF16, 1300, 200, 1600, false, false, true);
        for (int type = PF_COMPUTE_BF16; type <= PF_COMPUTE_INT8; type++) {
            const pf_narrow_isa *isa = pf_narrow_best((pf_compute)type);
            if (isa == NULL) continue;
            float *whole = run(&p, isa, NULL), *threads = run(&p, isa, pool);
            check_same_bits(whole, threads, p.g.m * p.g.n, "one thread and three");
            pf_free(threads);
            threads = run(&p, isa, many);
            check_same_bits(whole, threads, p.g.m * p.g.n, "one thread and ten");
            problem one = p;
            one.g.a = p.a + 699 * p.g.k;
            one.g.m = 2;
            float *part = run(&one, isa, pool);
            check_same_bits(whole + 699 * p.g.n, part, 2 * p.g.n, "a batch and two rows");
            pf_free(whole);
            pf_free(threads);
            pf_free(part);
        }
        drop(&p);
    }
    pf_pool_free(pool);
    pf_pool_free(many);
}

/* What is not finite is seen in the result: a row of A, a row of the weight. Zeros stay zero. */
static void test_not_finite(void **state) {
    (void)state;
    for (int form = PF_GEMM_NT; form <= PF_GEMM_NN; form++) {
        for (int best = 0; best < 2; best++) {
            const pf_narrow_isa *isa =
                best ? pf_narrow_best(PF_COMPUTE_INT8) : pf_narrow_reference(PF_COMPUTE_INT8);
            if (isa == NULL) continue;
            problem p = make((pf_gemm_form)form, PF_DTYPE_F32, 5, 40, 50, false, false, false);
            p.a[1 * 50 + 49] = NAN;
            p.a[2 * 50] = -INFINITY;
            memset(p.a + 3 * 50, 0, 50 * sizeof *p.a);
            for (int64_t k = 0; k < 50; k++) p.a[4 * 50 + k] = 1e-38f;
            float *c = run(&p, isa, NULL);
            for (int64_t j = 0; j < 40; j++) {
                assert_true(isfinite(c[j]) && isnan(c[40 + j]) && !isfinite(c[80 + j]));
                assert_true(c[120 + j] == 0 && c[160 + j] == 0);
            }
            pf_free(c);
            ((float *)p.stored)[7] = NAN; /* in row 0 of the weight */
            pf_weight_row_scales(&p.w, 0, p.w.rows, p.scales);
            c = run(&p, isa, NULL);
            assert_true(isnan(c[0]) && (form == PF_GEMM_NT ? isfinite(c[1]) : isnan(c[1])));
            pf_free(c);
            drop(&p);
        }
    }
}

int main(void) {
    workspace = pf_malloc((size_t)pf_narrow_workspace(1300, 3200, 3));
    assert_non_null(workspace);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds_and_bits),
        cmocka_unit_test(test_cuts_and_threads),
        cmocka_unit_test(test_not_finite),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    pf_free(workspace);
    return failed;
}

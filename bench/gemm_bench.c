/* gemm_bench.c - GFLOP/s of the dense products at the shapes of small language models, beside the
 * multiply-add rate of a loop that lives in registers ("peak") and beside oneDNN.
 *
 *   gemm_bench [--seconds S] [--threads N] [--type f32|bf16|f16] [--form nt|nn|tn] [--rows M]
 * [--all]
 *
 * Without --all only AVX-512 (or the best there is), oneDNN and the narrow products that this
 * processor is made for are timed. One table row per product: the best of several runs; % is of the
 * f32 peak of as many cores in the same instruction set (narrow products: of AVX-512 or what there
 * is), so a narrow product may pass 100. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "ops/matmul/gemm.h"
#include "ops/matmul/gemm_onednn.h"
#include "ops/matmul/narrow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef struct product {
    pf_gemm g;
    const pf_gemm_isa *isa; /* NULL: oneDNN, or: */
    const pf_narrow_isa *narrow;
    pf_pool *pool;
    void *workspace;
} product;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double spin512(int64_t n) {
    __m512 x[12];
    for (int i = 0; i < 12; i++) x[i] = _mm512_set1_ps((float)i);
    const __m512 y = _mm512_set1_ps(0.5f), z = _mm512_set1_ps(1e-3f);
    for (int64_t k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) x[i] = _mm512_fmadd_ps(x[i], y, z);
    }
    for (int i = 1; i < 12; i++) x[0] = _mm512_add_ps(x[0], x[i]);
    return _mm512_reduce_add_ps(x[0]);
}
__attribute__((target("avx2,fma"))) static double spin256(int64_t n) {
    __m256 x[12];
    for (int i = 0; i < 12; i++) x[i] = _mm256_set1_ps((float)i);
    const __m256 y = _mm256_set1_ps(0.5f), z = _mm256_set1_ps(1e-3f);
    for (int64_t k = 0; k < n; k++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) x[i] = _mm256_fmadd_ps(x[i], y, z);
    }
    float f[8];
    for (int i = 1; i < 12; i++) x[0] = _mm256_add_ps(x[0], x[i]);
    _mm256_storeu_ps(f, x[0]);
    return f[0];
}
#endif

static volatile double sink;

/* GFLOP/s of dependent-free fused multiply-adds on one core. */
static double peak(pf_isa isa) {
    double best = 0;
#if defined(__x86_64__)
    for (int r = 0; r < 8; r++) {
        const int64_t n = 2000000;
        double t = pf_now();
        sink = isa == PF_ISA_AVX512 ? spin512(n) : spin256(n);
        t = pf_now() - t;
        double rate = (double)n * 12 * (isa == PF_ISA_AVX512 ? 32 : 16) / t * 1e-9;
        if (rate > best) best = rate;
    }
#endif
    (void)isa;
    return best;
}

static bool run(const product *p) {
    if (p->narrow != NULL) {
        pf_narrow_run(p->pool, p->narrow, &p->g, p->workspace);
        return true;
    }
    if (p->isa == NULL) return pf_gemm_onednn_run(p->pool, &p->g, p->workspace, NULL) == PEFT_OK;
    pf_gemm_run(p->pool, p->isa, &p->g, p->workspace);
    return true;
}

static double rate(const product *p, double seconds) {
    if (!run(p)) return 0; /* built without oneDNN */
    double best = 1e30, start = pf_now();
    int runs = 0;
    do {
        double t = pf_now();
        run(p);
        t = pf_now() - t;
        if (t < best) best = t;
        runs++;
    } while (runs < 3 || pf_now() - start < seconds);
    return 2.0 * (double)p->g.m * (double)p->g.n * (double)p->g.k / best * 1e-9;
}

int main(int argc, char **argv) {
    double seconds = 0.2;
    int threads = 1;
    pf_dtype type = PF_DTYPE_F32;
    int only_form = -1;
    bool all = false, head = true;
    int64_t only_t = 0;
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (pf_streq(argv[i], "--seconds"))
            seconds = strtod(v, NULL), i++;
        else if (pf_streq(argv[i], "--threads"))
            threads = (int)strtol(v, NULL, 10), i++;
        else if (pf_streq(argv[i], "--rows"))
            only_t = strtol(v, NULL, 10), i++;
        else if (pf_streq(argv[i], "--type"))
            type = pf_dtype_by_torch_name(v), i++;
        else if (pf_streq(argv[i], "--form"))
            only_form = v[0] == 't' ? 2 : v[1] == 'n', i++;
        else if (pf_streq(argv[i], "--all"))
            all = true;
        else if (pf_streq(argv[i], "--no-head"))
            head = false;
        else
            return fprintf(stderr, "gemm_bench: unknown option %s\n", argv[i]), 2;
    }
    static const int64_t shapes[][2] = {{576, 576},  {576, 1536},  {1536, 576}, {896, 4864},
                                        {4864, 896}, {2048, 5632}, {576, 49152}};
    static const int64_t rows[] = {1, 8, 64, 256, 1024, 4096};
    static const char *const forms[] = {"NT", "NN", "TN"};
    const int64_t most_a = 4096 * 49152 / 8, most_b = 576 * 49152, most_c = 4096 * 49152 / 8;
    float *a = pf_malloc((size_t)most_a * 4), *b = pf_malloc((size_t)most_b * 4);
    float *c = pf_malloc((size_t)most_c * 4);
    void *stored = pf_malloc((size_t)most_b * 4);
    int64_t room = pf_gemm_workspace(threads), other = pf_gemm_onednn_workspace(threads);
    room = room > other ? room : other;
    other = pf_narrow_workspace(PF_NARROW_ROWS, 49152, threads);
    void *workspace = pf_aligned_malloc((size_t)(room > other ? room : other), 64);
    float *scales = pf_malloc(49152 * sizeof *scales);
    pf_pool *pool = NULL;
    if (a == NULL || b == NULL || c == NULL || stored == NULL || workspace == NULL ||
        scales == NULL || pf_pool_new(&pool, threads, NULL) != PEFT_OK)
        return fprintf(stderr, "gemm_bench: out of memory\n"), 6;
    for (int64_t i = 0; i < most_a; i++) a[i] = (float)(i % 17) * 0.01f;
    for (int64_t i = 0; i < most_b; i++) b[i] = (float)(i % 13) * 0.01f;
    for (int64_t i = 0; i < most_c; i++) c[i] = 0;
    pf_dtype_from_f32(type, b, (size_t)most_b, stored);

    const double peak512 = pf_cpu_level() >= PF_ISA_AVX512 ? peak(PF_ISA_AVX512) : 0;
    const double peak256 = pf_cpu_level() >= PF_ISA_AVX2 ? peak(PF_ISA_AVX2) : 0;
    printf("%s, %d thread(s), %s; peak of one core: avx512 %.0f, avx2 %.0f GFLOP/s\n",
           pf_cpu_model(), threads, pf_dtype_info(type)->torch_name, peak512, peak256);
    const pf_gemm_isa *isas[4];
    int n_isas = 0;
    if (pf_cpu_level() >= PF_ISA_AVX512) isas[n_isas++] = &pf_gemm_avx512;
    if (pf_cpu_level() >= PF_ISA_AVX2 && (all || n_isas == 0)) isas[n_isas++] = &pf_gemm_avx2;
    if (all || n_isas == 0) isas[n_isas++] = &pf_gemm_plain;
    isas[n_isas++] = NULL;
    printf("%-4s %5s %6s %6s", "form", "rows", "in", "out");
    for (int v = 0; v < n_isas; v++)
        printf(" %9s    %%", isas[v] != NULL ? isas[v]->name : "onednn");
    const pf_narrow_isa *narrow[2];
    int n_narrow = 0;
    for (int t = PF_COMPUTE_BF16; t <= PF_COMPUTE_INT8; t++) {
        narrow[n_narrow] = pf_narrow_best((pf_compute)t);
        if (narrow[n_narrow] == NULL) continue;
        printf(" %9s    %%", pf_compute_name((pf_compute)t));
        n_narrow++;
    }
    printf("\n");
    for (int f = 0; f < 3; f++) {
        if (only_form >= 0 ? f != only_form : !all && f == 2) continue;
        for (size_t s = 0; s < PF_COUNT(shapes); s++) {
            for (size_t r = 0; r < PF_COUNT(rows); r++) {
                const int64_t in = shapes[s][0], out = shapes[s][1], t = rows[r];
                if (only_t != 0 ? t != only_t : f == 2 && t < 64) continue;
                if (out > 20000 && (t > 256 || !head)) continue;
                pf_weight w = pf_weight_of("w", type, stored, out, in);
                pf_weight x = pf_gemm_dense(b, t, in, in);
                pf_weight_row_scales(&w, 0, out, scales);
                w.row_scale = scales;
                pf_gemm g = {.form = (pf_gemm_form)f, .a = a, .c = c, .alpha = 1};
                if (f == PF_GEMM_NT)
                    g.m = t, g.n = out, g.k = in, g.lda = in, g.b = &w, g.ldc = out;
                else if (f == PF_GEMM_NN)
                    g.m = t, g.n = in, g.k = out, g.lda = out, g.b = &w, g.ldc = in;
                else
                    g.m = out, g.n = in, g.k = t, g.lda = out, g.b = &x, g.ldc = in,
                    g.accumulate = true;
                printf("%-4s %5d %6d %6d", forms[f], (int)t, (int)in, (int)out);
                for (int v = 0; v < n_isas; v++) {
                    product p = {g, isas[v], NULL, pool, workspace};
                    if (isas[v] == NULL && f == 2) continue; /* not offered */
                    double gflops = rate(&p, seconds);
                    double top = isas[v] == &pf_gemm_avx2 || peak512 == 0 ? peak256 : peak512;
                    printf(" %9.1f %4.0f", gflops, 100 * gflops / (top * threads));
                }
                for (int v = 0; v < n_narrow && f != 2; v++) {
                    product p = {g, NULL, narrow[v], pool, workspace};
                    double gflops = rate(&p, seconds), top = peak512 > 0 ? peak512 : peak256;
                    printf(" %9.1f %4.0f", gflops, 100 * gflops / (top * threads));
                }
                printf("\n");
                fflush(stdout);
            }
        }
    }
    pf_pool_free(pool);
    pf_free(a);
    pf_free(b);
    pf_free(c);
    pf_free(stored);
    pf_free(scales);
    pf_free(workspace);
    return 0;
}

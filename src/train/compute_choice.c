/* compute_choice.c - see compute_choice.h. */
#include "train/compute_choice.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "ops/matmul/narrow.h"

#include <stdio.h>
#include <string.h>

enum { ROWS = 512, RUNS = 4 };

/* The largest weight of a block: most of the work looks like it. */
static const pf_weight *typical_weight(const pf_model *m) {
    const pf_weight *best = NULL;
    for (int i = 0; i < m->n_sites; i++) {
        const pf_site *s = m->sites[i];
        if (s->kind != PF_SITE_LINEAR || s->weight == NULL || s->weight->data == NULL) continue;
        if (best == NULL || s->weight->rows * s->weight->cols > best->rows * best->cols)
            best = s->weight;
    }
    return best;
}

typedef struct bench {
    pf_pool *pool;
    pf_weight w;
    float *a, *c;
    void *workspace;
} bench;

static double seconds_of(const bench *b, pf_compute type, pf_gemm_form form) {
    const bool nt = form == PF_GEMM_NT;
    const pf_gemm g = {.form = form,
                       .m = ROWS,
                       .n = nt ? b->w.rows : b->w.cols,
                       .k = nt ? b->w.cols : b->w.rows,
                       .a = b->a,
                       .lda = nt ? b->w.cols : b->w.rows,
                       .b = &b->w,
                       .c = b->c,
                       .ldc = nt ? b->w.rows : b->w.cols,
                       .alpha = 1};
    double best = 1e30;
    for (int r = 0; r < RUNS; r++) { /* the first one warms caches */
        double t = pf_now();
        if (type == PF_COMPUTE_F32)
            pf_gemm_run(b->pool, pf_gemm_best(), &g, b->workspace);
        else
            pf_narrow_run(b->pool, pf_narrow_isa_for(type), &g, b->workspace);
        t = pf_now() - t;
        if (t < best) best = t;
    }
    return best;
}

static double rate_of(const bench *b, pf_compute type) {
    const double seconds = seconds_of(b, type, PF_GEMM_NT) + seconds_of(b, type, PF_GEMM_NN);
    return 4.0 * ROWS * (double)b->w.rows * (double)b->w.cols / seconds * 1e-9;
}

static peft_status measure(pf_compute_choice *out, const bool *candidate, const pf_weight *w,
                           pf_pool *pool, peft_error *err) {
    const int64_t longer = w->rows > w->cols ? w->rows : w->cols;
    const int threads = pf_pool_workers(pool);
    const int64_t f32 = pf_gemm_workspace(threads);
    const int64_t narrow = pf_narrow_workspace(ROWS, longer, threads);
    bench b = {pool, *w, pf_malloc((size_t)(ROWS * longer) * sizeof(float)),
               pf_malloc((size_t)(ROWS * longer) * sizeof(float)),
               pf_aligned_malloc((size_t)(f32 > narrow ? f32 : narrow), 64)};
    float *scales = pf_malloc((size_t)w->rows * sizeof *scales);
    peft_status status = PEFT_OK;
    if (b.a == NULL || b.c == NULL || b.workspace == NULL || scales == NULL)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory while measuring types of arithmetic");
    if (status == PEFT_OK) {
        for (int64_t i = 0; i < ROWS * longer; i++) b.a[i] = (float)(i % 17 - 8) * 0.1f;
        pf_weight_row_scales(w, 0, w->rows, scales);
        b.w.row_scale = scales;
        for (int t = PF_COMPUTE_F32; t <= PF_COMPUTE_INT8; t++) {
            if (candidate[t]) out->rate[t] = rate_of(&b, (pf_compute)t);
        }
    }
    pf_free(b.a);
    pf_free(b.c);
    pf_free(b.workspace);
    pf_free(scales);
    return status;
}

static void choose_by_rate(pf_compute_choice *out) {
    size_t n = 0;
    out->type = PF_COMPUTE_F32;
    double best = 1.1 * out->rate[PF_COMPUTE_F32];
    n = (size_t)snprintf(out->note, sizeof out->note, "arithmetic: of");
    for (int t = PF_COMPUTE_F32; t <= PF_COMPUTE_INT8; t++) {
        if (out->rate[t] <= 0) continue;
        n += (size_t)snprintf(out->note + n, sizeof out->note - n, " %s %.0f",
                              pf_compute_name((pf_compute)t), out->rate[t]);
        if (t == PF_COMPUTE_F32 || out->rate[t] <= best) continue;
        best = out->rate[t];
        out->type = (pf_compute)t;
    }
    snprintf(out->note + n, sizeof out->note - n, " GOP/s on this machine %s was taken",
             pf_compute_name(out->type));
}

peft_status pf_compute_choose(pf_compute_choice *out, const char *words, const pf_model *m,
                              pf_pool *pool, peft_error *err) {
    *out = (pf_compute_choice){PF_COMPUTE_F32, {0}, ""};
    bool candidate[PF_COMPUTE_INT8 + 1] = {false};
    int n = 0;
    for (int t = PF_COMPUTE_F32; t <= PF_COMPUTE_INT8; t++) {
        if (strstr(words, pf_compute_name((pf_compute)t)) == NULL) continue;
        candidate[t] = true;
        out->type = (pf_compute)t;
        n++;
    }
    if (n == 1) {
        if (out->type != PF_COMPUTE_F32 && pf_narrow_best(out->type) == NULL)
            snprintf(out->note, sizeof out->note,
                     "training.compute is %s, for which this processor (at this level of PEFT_ISA) "
                     "has no instruction: it is computed in plain C, many times slower than f32; "
                     "training.compute=auto takes what is fast",
                     pf_compute_name(out->type));
        return PEFT_OK;
    }
    out->type = PF_COMPUTE_F32;
    const pf_weight *w = typical_weight(m);
    for (int t = PF_COMPUTE_BF16; t <= PF_COMPUTE_INT8; t++) {
        if (pf_narrow_best((pf_compute)t) == NULL) candidate[t] = false;
    }
    if (w == NULL || (!candidate[PF_COMPUTE_BF16] && !candidate[PF_COMPUTE_INT8])) {
        snprintf(out->note, sizeof out->note,
                 "arithmetic: f32; this processor has no instructions for a narrower type");
        return PEFT_OK;
    }
    PF_TRY(measure(out, candidate, w, pool, err));
    choose_by_rate(out);
    return PEFT_OK;
}

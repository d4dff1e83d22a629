/* lowrank_cpu.c - the skinny products of lowrank_kernels.h in plain C, written to be read, and what
 * the launchers share. lowrank_simd.h has the faster kernels, lowrank_down_cpu.c and
 * lowrank_up_cpu.c cut the work into tasks. */
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

enum { TURN = 64 /* rows of a task of pf_lowrank_turn */ };

/* --- kernels ------------------------------------------------------------------------------- */

static bool kept(const pf_skinny *k, int64_t i, int64_t c) {
    return k->mask == NULL || (k->mask[i * k->ldmask + c / 8] >> c % 8 & 1) != 0;
}

static void thin(const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i++) {
        const pf_real *x = k->x + i * k->ldx;
        for (int64_t j = 0; j < k->R; j++) {
            pf_real *s = k->s + i * k->lds + j;
            for (int64_t c0 = 0; c0 < k->C; c0 += PF_LOWRANK_PANEL) {
                const int64_t c1 = pf_min_i64(k->C, c0 + PF_LOWRANK_PANEL);
                pf_real sum = 0;
                for (int64_t c = c0; c < c1; c++) sum += x[c] * k->a[c * k->lda + j];
                *s = c0 == 0 ? k->scale * sum : *s + k->scale * sum;
            }
        }
    }
}

static void drop(const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i++) {
        for (int64_t c = 0; c < k->C; c++)
            k->y[i * k->ldy + c] = kept(k, i, c) ? k->x[i * k->ldx + c] : 0;
    }
}

static void turn(const pf_skinny *k) {
    for (int64_t j = 0; j < k->R; j++) {
        for (int64_t c = 0; c < k->C; c++) k->y[c * k->ldy + j] = k->a[j * k->lda + c];
    }
}

static void dots(const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i++) {
        for (int64_t j = 0; j < k->R; j++) {
            const pf_real *x = k->x + i * k->ldx, *a = k->a + j * k->lda;
            pf_real sum = 0;
            for (int64_t c = 0; c < k->C; c++) sum += kept(k, i, c) ? x[c] * a[c] : 0;
            k->s[i * k->lds + j] = k->scale * sum;
        }
    }
}

static void expand(const pf_skinny *k) {
    for (int64_t i = 0; i < k->M; i++) {
        const pf_real *s = k->s + i * k->lds;
        pf_real *y = k->y + i * k->ldy;
        for (int64_t c = 0; c < k->C; c++) {
            pf_real sum = 0;
            for (int64_t j = 0; j < k->R; j++)
                sum += s[j] * (k->a_rows != NULL ? k->a_rows[j][c] : k->a[j * k->lda + c]);
            if (!kept(k, i, c)) sum = 0;
            y[c] = k->accumulate ? y[c] + sum : sum;
        }
    }
}

static void outer(const pf_skinny *k) {
    for (int64_t i0 = 0; i0 < k->M; i0 += PF_LOWRANK_BLOCK) {
        const int64_t i1 = pf_min_i64(k->M, i0 + PF_LOWRANK_BLOCK);
        for (int64_t j = 0; j < k->R; j++) {
            for (int64_t c = 0; c < k->C; c++) {
                pf_real sum = 0;
                for (int64_t i = i0; i < i1; i++)
                    sum += kept(k, i, c) ? k->s[i * k->lds + j] * k->x[i * k->ldx + c] : 0;
                k->y[k->by_column ? c * k->ldy + j : j * k->ldy + c] += k->scale * sum;
            }
        }
    }
}

const pf_lowrank_isa pf_lowrank_cpu = {.gemm = &pf_gemm_plain,
                                       .mask = pf_dropout_bits_cpu,
                                       .thin = thin,
                                       .drop = drop,
                                       .turn = turn,
                                       .dots = dots,
                                       .expand = expand,
                                       .outer = outer};

/* --- shared by the launchers ----------------------------------------------------------------- */

typedef struct turn_job {
    const pf_real *src;
    int64_t rows, cols;
    pf_real *dst;
} turn_job;

static void turn_task(void *ctx, int task, int worker) {
    (void)worker;
    const turn_job *t = ctx;
    const int64_t from = (int64_t)task * TURN, to = pf_min_i64(t->rows, from + TURN);
    for (int64_t c = 0; c < t->cols; c++) {
        for (int64_t i = from; i < to; i++) t->dst[c * t->rows + i] = t->src[i * t->cols + c];
    }
}

void pf_lowrank_turn(pf_pool *pool, const pf_real *src, int64_t rows, int64_t cols, pf_real *dst) {
    turn_job t = {src, rows, cols, dst};
    pf_pool_run(pool, (int)pf_ceil_div(rows, TURN), turn_task, &t);
}

bool pf_lowrank_next_run(const int32_t *const *adapter, int32_t id, int64_t rows, int64_t at,
                         int64_t *from, int64_t *to) {
    if (adapter == NULL || *adapter == NULL) {
        *from = at;
        *to = rows;
        return at < rows;
    }
    const int32_t *of_row = *adapter;
    while (at < rows && of_row[at] != id) at++;
    *from = at;
    while (at < rows && of_row[at] == id) at++;
    *to = at;
    return *from < rows;
}

/* embed_lowrank_cpu.c - embed_lowrank and its gradient on the CPU, made of the skinny products of
 * lowrank_kernels.h. S (T, r) holds the columns of A of the batch's ids. */
#include "ops/embed/embed.h"
#include "ops/embed/embed_lowrank_kernels.h"
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

#include <string.h>

enum { ROWS = 32, STRIP = 96 }; /* of a task by rows; of one by columns */

typedef struct job {
    const int32_t *ids;
    const pf_lowrank_isa *isa;
    int64_t T, C, V, r;
    const pf_real *dy, *a;
    pf_real *s, *ds, *bt, *da, *db;
    pf_real scale;
} job;

static int64_t align64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static peft_status job_init(job *j, pf_exec *x, const pf_lowrank_isa *isa, const pf_value *rows,
                            const pf_value *a, double scale, peft_error *err) {
    const pf_batch *b = pf_batch_of_space(x->batch, rows->space);
    *j = (job){.ids = b->ids,
               .isa = isa,
               .T = b->n_tokens,
               .C = rows->cols,
               .V = a->cols,
               .r = a->rows,
               .a = pf_exec_data(x, a),
               .scale = (pf_real)scale};
    for (int64_t i = 0; i < j->T; i++) {
        if (b->ids[i] >= 0 && b->ids[i] < j->V) continue;
        return PF_FAIL(err, PEFT_E_SHAPE, "token row %lld has id %d, A has %lld columns",
                       (long long)i, (int)b->ids[i], (long long)j->V);
    }
    return PEFT_OK;
}

static void gather_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->T, from + ROWS);
    for (int64_t i = from; i < to; i++) {
        const pf_real *column = j->a + j->ids[i];
        for (int64_t k = 0; k < j->r; k++) j->s[i * j->r + k] = column[k * j->V];
    }
}

int64_t pf_embed_lowrank_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    return pf_gemm_workspace(n_workers) +
           align64(pf_value_rows(n->in[0], capacity) * n->in[1]->rows * (int64_t)sizeof(pf_real));
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa, peft_error *err) {
    const pf_embed_lowrank_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    const pf_real *base = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    job j;
    PF_TRY(job_init(&j, x, isa, n->in[0], n->in[1], args->scale, err));
    j.s = (pf_real *)(void *)(x->workspace + pf_gemm_workspace(pf_pool_workers(pool)));
    pf_pool_run(pool, (int)pf_ceil_div(j.T, ROWS), gather_task, &j);
    if (y != base) memcpy(y, base, (size_t)(j.T * j.C) * sizeof *y);
    const pf_weight b = pf_gemm_dense(pf_exec_data(x, n->in[2]), j.C, j.r, j.r);
    const pf_gemm g = {.form = PF_GEMM_NT,
                       .m = j.T,
                       .n = j.C,
                       .k = j.r,
                       .a = j.s,
                       .lda = j.r,
                       .b = &b,
                       .c = y,
                       .ldc = j.C,
                       .alpha = j.scale,
                       .accumulate = true};
    pf_gemm_run(pool, isa->gemm, &g, x->workspace);
    return PEFT_OK;
}

/* dS = scale dy B */
static void rows_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->T, from + ROWS);
    const pf_skinny k = {.M = to - from,
                         .R = j->r,
                         .C = j->C,
                         .x = j->dy + from * j->C,
                         .ldx = j->C,
                         .a = j->bt,
                         .lda = j->C,
                         .s = j->ds + from * j->r,
                         .lds = j->r,
                         .scale = j->scale};
    j->isa->dots(&k);
}

/* A task owns rows of A or columns of dy: the same token may stand in several rows. */
static void columns_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t rows_of_a = j->da != NULL ? j->r : 0;
    if (task < rows_of_a) {
        pf_real *da = j->da + task * j->V;
        for (int64_t i = 0; i < j->T; i++) da[j->ids[i]] += j->ds[i * j->r + task];
        return;
    }
    const int64_t c0 = (task - rows_of_a) * STRIP;
    const pf_skinny k = {.M = j->T,
                         .R = j->r,
                         .C = pf_min_i64(STRIP, j->C - c0),
                         .x = j->dy + c0,
                         .ldx = j->C,
                         .s = j->s,
                         .lds = j->r,
                         .y = j->db + c0 * j->r,
                         .ldy = j->r,
                         .scale = j->scale,
                         .by_column = true};
    j->isa->outer(&k);
}

int64_t pf_embed_lowrank_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n_workers;
    const int64_t real = (int64_t)sizeof(pf_real), r = n->in[1]->rows;
    return 2 * align64(pf_value_rows(n->in[0], capacity) * r * real) +
           align64(n->in[0]->cols * r * real);
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa,
                            peft_error *err) {
    const pf_embed_lowrank_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    job j;
    PF_TRY(job_init(&j, x, isa, n->in[0], n->in[1], args->scale, err));
    const int64_t bytes = align64(j.T * j.r * (int64_t)sizeof(pf_real));
    j.s = (pf_real *)(void *)x->workspace;
    j.ds = (pf_real *)(void *)(x->workspace + bytes);
    j.bt = (pf_real *)(void *)(x->workspace + 2 * bytes);
    j.dy = pf_exec_data(x, n->in[0]);
    j.da = pf_exec_data(x, n->in[3]);
    j.db = pf_exec_data(x, n->in[4]);
    pf_pool_run(pool, (int)pf_ceil_div(j.T, ROWS), gather_task, &j);
    pf_lowrank_turn(pool, pf_exec_data(x, n->in[2]), j.C, j.r, j.bt);
    pf_pool_run(pool, (int)pf_ceil_div(j.T, ROWS), rows_task, &j);
    int64_t tasks = j.da != NULL ? j.r : 0;
    if (j.db != NULL) tasks += pf_ceil_div(j.C, STRIP);
    pf_pool_run(pool, (int)tasks, columns_task, &j);
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first --------------------------------------------------- */

#define RUN(name)                                                                                  \
    static peft_status run_##name(pf_exec *x, const pf_node *n, peft_error *err) {                 \
        return run(x, n, &pf_lowrank_##name, err);                                                 \
    }                                                                                              \
    static peft_status run_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        return run_grad(x, n, &pf_lowrank_##name, err);                                            \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_embed_lowrank_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
const pf_kernel_row pf_embed_lowrank_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on

/* lowrank_up_cpu.c - launchers of lowrank_up and lowrank_up_grad on the CPU, for any instruction
 * set. Forward, B is turned once and every block of rows takes its update while it is in cache.
 * Backward, by rows: dS = scale dy B, for which B lies right as it is; by columns: dB = scale dyᵀ
 * S, each task adding over all rows in order. */
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

#include <string.h>

enum {
    ROWS = 48,  /* of a task of a pass by rows */
    STRIP = 48, /* columns of a task of the pass by columns */
    TURN = 96   /* rows of B in a task that turns or pads */
};

typedef struct job {
    const pf_lowrank_isa *isa;
    int64_t rows, from, to; /* those of the run in hand */
    int64_t out, r, padded;
    const pf_real *dy, *b;
    pf_real *s, *ds, *y, *db;
    pf_real *panel; /* B turned (r, out); backward B with padded rows, or B itself */
    pf_real scale;
    unsigned char *scratch; /* per worker: ROWS rows of S */
    int64_t scratch_bytes;
} job;

static int64_t reals(int64_t n) {
    return (n * (int64_t)sizeof(pf_real) + 63) / 64 * 64;
}

static int64_t pad(int64_t r) {
    return pf_ceil_div(r, PF_LOWRANK_PAD) * PF_LOWRANK_PAD;
}

/* --- forward --------------------------------------------------------------------------------- */

static void turn_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * TURN;
    const pf_skinny k = {.R = pf_min_i64(TURN, j->out - from),
                         .C = j->r,
                         .a = j->b + from * j->r,
                         .lda = j->r,
                         .y = j->panel + from,
                         .ldy = j->out};
    j->isa->turn(&k);
}

static void rows_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    pf_real *scaled = (pf_real *)(void *)(j->scratch + worker * j->scratch_bytes);
    const pf_real *s = j->s + from * j->r;
    for (int64_t i = 0; i < (to - from) * j->r; i++) scaled[i] = j->scale * s[i];
    const pf_skinny k = {.M = to - from,
                         .R = j->r,
                         .C = j->out,
                         .a = j->panel,
                         .lda = j->out,
                         .s = scaled,
                         .lds = j->r,
                         .y = j->y + from * j->out,
                         .ldy = j->out,
                         .accumulate = true};
    j->isa->expand(&k);
}

static int64_t up_room(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    const int64_t r = n->in[2]->cols, out = n->in[2]->rows;
    return reals(r * out) + n_workers * reals(ROWS * r);
}

static peft_status run_up(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_up_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    const pf_real *base = pf_exec_data(x, n->in[0]);
    job j = {.isa = isa,
             .rows = pf_exec_rows(x, n->in[0]),
             .out = n->in[2]->rows,
             .r = n->in[2]->cols,
             .b = pf_exec_data(x, n->in[2]),
             .s = pf_exec_data(x, n->in[1]),
             .y = pf_exec_data(x, n->out[0]),
             .panel = (pf_real *)(void *)x->workspace,
             .scale = (pf_real)args->scale};
    j.scratch = x->workspace + reals(j.r * j.out);
    j.scratch_bytes = reals(ROWS * j.r);
    if (j.y != base) memcpy(j.y, base, (size_t)(j.rows * j.out) * sizeof *base);
    pf_pool_run(pool, (int)pf_ceil_div(j.out, TURN), turn_task, &j);
    for (int64_t at = 0;
         pf_lowrank_next_run(args->adapter, args->adapter_id, j.rows, at, &j.from, &j.to);
         at = j.to)
        pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), rows_task, &j);
    return PEFT_OK;
}

/* --- backward -------------------------------------------------------------------------------- */

static void pad_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * TURN, to = pf_min_i64(j->out, from + TURN);
    for (int64_t o = from; o < to; o++) {
        pf_real *row = j->panel + o * j->padded;
        memcpy(row, j->b + o * j->r, (size_t)j->r * sizeof *row);
        memset(row + j->r, 0, (size_t)(j->padded - j->r) * sizeof *row);
    }
}

static void ds_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    const bool direct = j->padded == j->r;
    pf_real *wide = (pf_real *)(void *)(j->scratch + worker * j->scratch_bytes);
    const pf_skinny k = {.M = to - from,
                         .R = j->padded,
                         .C = j->out,
                         .x = j->dy + from * j->out,
                         .ldx = j->out,
                         .a = direct ? j->b : j->panel,
                         .lda = j->padded,
                         .s = direct ? j->ds + from * j->r : wide,
                         .lds = j->padded,
                         .scale = j->scale};
    j->isa->thin(&k);
    for (int64_t i = from; !direct && i < to; i++)
        memcpy(j->ds + i * j->r, wide + (i - from) * j->padded, (size_t)j->r * sizeof *wide);
}

static void db_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t c0 = (int64_t)task * STRIP;
    const pf_skinny k = {.M = j->to - j->from,
                         .R = j->r,
                         .C = pf_min_i64(STRIP, j->out - c0),
                         .x = j->dy + j->from * j->out + c0,
                         .ldx = j->out,
                         .s = j->s + j->from * j->r,
                         .lds = j->r,
                         .y = j->db + c0 * j->r,
                         .ldy = j->r,
                         .by_column = true,
                         .scale = j->scale};
    j->isa->outer(&k);
}

static int64_t up_grad_room(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    const int64_t r = n->in[2]->cols, out = n->in[2]->rows;
    return r == pad(r) ? 0 : reals(out * pad(r)) + n_workers * reals(ROWS * pad(r));
}

static peft_status run_up_grad(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_up_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    job j = {.isa = isa,
             .rows = pf_exec_rows(x, n->in[0]),
             .out = n->in[2]->rows,
             .r = n->in[2]->cols,
             .padded = pad(n->in[2]->cols),
             .dy = pf_exec_data(x, n->in[0]),
             .b = pf_exec_data(x, n->in[2]),
             .s = pf_exec_data(x, n->in[1]),
             .ds = pf_exec_data(x, n->out[0]),
             .db = pf_exec_data(x, n->in[3]),
             .panel = (pf_real *)(void *)x->workspace,
             .scale = (pf_real)args->scale};
    if (j.padded != j.r) {
        j.scratch = x->workspace + reals(j.out * j.padded);
        j.scratch_bytes = reals(ROWS * j.padded);
        pf_pool_run(pool, (int)pf_ceil_div(j.out, TURN), pad_task, &j);
    }
    if (args->adapter != NULL) /* rows of other adapters */
        memset(j.ds, 0, (size_t)(j.rows * j.r) * sizeof *j.ds);
    for (int64_t at = 0;
         pf_lowrank_next_run(args->adapter, args->adapter_id, j.rows, at, &j.from, &j.to);
         at = j.to) {
        pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), ds_task, &j);
        if (j.db != NULL) pf_pool_run(pool, (int)pf_ceil_div(j.out, STRIP), db_task, &j);
    }
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first ----------------------------------------------------- */

#define RUN(name)                                                                                  \
    static peft_status run_up_##name(pf_exec *x, const pf_node *n, peft_error *err) {              \
        (void)err;                                                                                 \
        return run_up(x, n, &pf_lowrank_##name);                                                   \
    }                                                                                              \
    static peft_status run_up_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {         \
        (void)err;                                                                                 \
        return run_up_grad(x, n, &pf_lowrank_##name);                                              \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_lowrank_up_kernel_rows[] = {
    PF_FAST_KERNELS(run_up, up_room)
    {.backend = "cpu", .name = "reference", .run = run_up_cpu, .workspace = up_room},
    {0},
};
const pf_kernel_row pf_lowrank_up_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_up_grad, up_grad_room)
    {.backend = "cpu", .name = "reference", .run = run_up_grad_cpu, .workspace = up_grad_room},
    {0},
};
// clang-format on

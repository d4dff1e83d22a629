/* lowrank_cpu.c - lowrank and lowrank_grad on the CPU: the reference kernels, written to be read,
 * and the launchers, which cut the work into tasks for any instruction set. lowrank_simd.h has the
 * faster kernels.
 *
 * Backward, first pass, by rows: the masks, S = drop(x) Aᵀ, dS = scale dy B, dx. Second pass, by
 * columns: dA = dSᵀ drop(x) and dB = scale dyᵀ S, each task adding over all rows in order. */
#include "ops/matmul/lowrank.h"
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

#include <string.h>

enum {
    ROWS = 32,  /* of a task of the passes by rows */
    STRIP = 96, /* columns of a task of the pass by columns; whole bytes of mask */
    TURN = 64   /* rows of a task of pf_lowrank_turn */
};

/* --- kernels ------------------------------------------------------------------------------- */

static bool kept(const pf_skinny *k, int64_t i, int64_t c) {
    return k->mask == NULL || (k->mask[i * k->ldmask + c / 8] >> c % 8 & 1) != 0;
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
            for (int64_t j = 0; j < k->R; j++) sum += s[j] * k->a[j * k->lda + c];
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
                                       .dots = dots,
                                       .expand = expand,
                                       .outer = outer};

typedef struct turn {
    const pf_real *src;
    int64_t rows, cols;
    pf_real *dst;
} turn;

static void turn_task(void *ctx, int task, int worker) {
    (void)worker;
    const turn *t = ctx;
    const int64_t from = (int64_t)task * TURN, to = pf_min_i64(t->rows, from + TURN);
    for (int64_t c = 0; c < t->cols; c++) {
        for (int64_t i = from; i < to; i++) t->dst[c * t->rows + i] = t->src[i * t->cols + c];
    }
}

void pf_lowrank_turn(pf_pool *pool, const pf_real *src, int64_t rows, int64_t cols, pf_real *dst) {
    turn t = {src, rows, cols, dst};
    pf_pool_run(pool, (int)pf_ceil_div(rows, TURN), turn_task, &t);
}

/* --- launchers ----------------------------------------------------------------------------- */

/* Rows [from, to) of one node that belong to the adapter, and where its things are. */
typedef struct job {
    const pf_exec *exec;
    const pf_lowrank_isa *isa;
    int space;
    int64_t from, to;
    int64_t in, out, r;
    const pf_real *x, *dy, *a;
    pf_real *bt, *s, *ds, *dx, *da, *db;
    pf_real scale, keep_scale;
    bool masked, add_to_dx;
    pf_dropout drop;
    uint8_t *bits; /* (rows, ldbits); in the forward pass (workers, ROWS, ldbits) */
    int64_t ldbits;
} job;

/* The next run of rows of our adapter at or after `at`; false when there is none. */
static bool next_run(const int32_t *const *adapter, int32_t id, int64_t rows, int64_t at,
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

static void make_masks(const job *j, int64_t from, int64_t to, uint8_t *bits) {
    const pf_batch *b = j->exec->batch;
    for (int64_t i = from; i < to; i++, bits += j->ldbits) {
        const int64_t row = j->space == PF_SPACE_LABELS ? b->label_row[i] : i;
        j->isa->mask(&j->drop, (uint32_t)b->sample[row], (uint32_t)b->pos[row], j->in, bits);
    }
}

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    uint8_t *bits = j->bits + (int64_t)worker * ROWS * j->ldbits;
    if (j->masked) make_masks(j, from, to, bits);
    pf_skinny k = {.M = to - from,
                   .R = j->r,
                   .C = j->in,
                   .x = j->x + from * j->in,
                   .ldx = j->in,
                   .mask = j->masked ? bits : NULL,
                   .ldmask = j->ldbits,
                   .a = j->a,
                   .lda = j->in,
                   .s = j->s + from * j->r,
                   .lds = j->r,
                   .scale = j->keep_scale};
    j->isa->dots(&k);
}

static int64_t align64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static bool is_masked(const pf_exec *x, double dropout) {
    return dropout > 0 && x->training;
}

int64_t pf_lowrank_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_lowrank_args *args = n->args;
    const int64_t rows = pf_value_rows(n->in[1], capacity), r = n->in[2]->rows;
    int64_t bytes = pf_gemm_workspace(n_workers) + align64(rows * r * (int64_t)sizeof(pf_real));
    if (args->dropout > 0) bytes += n_workers * ROWS * pf_dropout_bytes(n->in[1]->cols);
    return bytes;
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    const int64_t rows = pf_exec_rows(x, n->in[1]);
    const pf_real *base = pf_exec_data(x, n->in[0]);
    pf_real *y = pf_exec_data(x, n->out[0]);
    job j = {.exec = x,
             .isa = isa,
             .space = n->in[1]->space,
             .in = n->in[1]->cols,
             .out = n->in[0]->cols,
             .r = n->in[2]->rows,
             .x = pf_exec_data(x, n->in[1]),
             .a = pf_exec_data(x, n->in[2]),
             .keep_scale = 1,
             .masked = is_masked(x, args->dropout)};
    if (j.masked) {
        j.drop = pf_dropout_make(args->dropout, args->seed, x->batch->step, args->mask_key);
        j.keep_scale = (pf_real)j.drop.scale;
        j.ldbits = pf_dropout_bytes(j.in);
    }
    unsigned char *room = x->workspace + pf_gemm_workspace(pf_pool_workers(pool));
    j.s = (pf_real *)(void *)room;
    j.bits = room + align64(rows * j.r * (int64_t)sizeof(pf_real));
    if (y != base) memcpy(y, base, (size_t)(rows * j.out) * sizeof *y);

    const pf_weight b = pf_gemm_dense(pf_exec_data(x, n->in[3]), j.out, j.r, j.r);
    for (int64_t at = 0; next_run(args->adapter, args->adapter_id, rows, at, &j.from, &j.to);
         at = j.to) {
        pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), forward_task, &j);
        const pf_gemm g = {.form = PF_GEMM_NT,
                           .m = j.to - j.from,
                           .n = j.out,
                           .k = j.r,
                           .a = j.s + j.from * j.r,
                           .lda = j.r,
                           .b = &b,
                           .c = y + j.from * j.out,
                           .ldc = j.out,
                           .alpha = (pf_real)args->scale,
                           .accumulate = true};
        pf_gemm_run(pool, isa->gemm, &g, x->workspace);
    }
    return PEFT_OK;
}

static void rows_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    uint8_t *bits = j->bits + from * j->ldbits;
    if (j->masked) make_masks(j, from, to, bits);
    pf_skinny k = {.M = to - from, .R = j->r, .lds = j->r, .scale = j->keep_scale};
    if (j->db != NULL) { /* S = drop(x) Aᵀ */
        k.C = j->in;
        k.x = j->x + from * j->in;
        k.ldx = j->in;
        k.mask = j->masked ? bits : NULL;
        k.ldmask = j->ldbits;
        k.a = j->a;
        k.lda = j->in;
        k.s = j->s + from * j->r;
        j->isa->dots(&k);
    }
    k.C = j->out; /* dS = scale dy B */
    k.x = j->dy + from * j->out;
    k.ldx = j->out;
    k.mask = NULL;
    k.a = j->bt;
    k.lda = j->out;
    k.s = j->ds + from * j->r;
    k.scale = j->scale * j->keep_scale;
    j->isa->dots(&k);
    if (j->dx == NULL) return;
    k.C = j->in; /* dx (+)= drop(dS A) */
    k.mask = j->masked ? bits : NULL;
    k.ldmask = j->ldbits;
    k.a = j->a;
    k.lda = j->in;
    k.y = j->dx + from * j->in;
    k.ldy = j->in;
    k.accumulate = j->add_to_dx;
    j->isa->expand(&k);
}

static void columns_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_skinny k = {.M = j->to - j->from, .R = j->r, .lds = j->r};
    const int64_t strips_a = j->da != NULL ? pf_ceil_div(j->in, STRIP) : 0;
    if (task < strips_a) { /* dA += dSᵀ drop(x) */
        const int64_t c0 = (int64_t)task * STRIP;
        k.C = pf_min_i64(STRIP, j->in - c0);
        k.x = j->x + j->from * j->in + c0;
        k.ldx = j->in;
        k.mask = j->masked ? j->bits + j->from * j->ldbits + c0 / 8 : NULL;
        k.ldmask = j->ldbits;
        k.s = j->ds + j->from * j->r;
        k.y = j->da + c0;
        k.ldy = j->in;
        k.scale = 1;
    } else { /* dB += scale dyᵀ S */
        const int64_t c0 = (int64_t)(task - strips_a) * STRIP;
        k.C = pf_min_i64(STRIP, j->out - c0);
        k.x = j->dy + j->from * j->out + c0;
        k.ldx = j->out;
        k.s = j->s + j->from * j->r;
        k.y = j->db + c0 * j->r;
        k.ldy = j->r;
        k.by_column = true;
        k.scale = j->scale;
    }
    j->isa->outer(&k);
}

int64_t pf_lowrank_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)n_workers;
    const pf_lowrank_grad_args *args = n->args;
    const int64_t rows = pf_value_rows(n->in[1], capacity), r = n->in[2]->rows;
    int64_t bytes = align64(r * n->in[0]->cols * (int64_t)sizeof(pf_real));
    bytes += 2 * align64(rows * r * (int64_t)sizeof(pf_real));
    if (args->dropout > 0) bytes += rows * pf_dropout_bytes(n->in[1]->cols);
    return bytes;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_grad_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    const int64_t rows = pf_exec_rows(x, n->in[1]);
    const pf_real *acc = pf_exec_data(x, n->in[4]);
    job j = {.exec = x,
             .isa = isa,
             .space = n->in[1]->space,
             .in = n->in[1]->cols,
             .out = n->in[0]->cols,
             .r = n->in[2]->rows,
             .x = pf_exec_data(x, n->in[1]),
             .dy = pf_exec_data(x, n->in[0]),
             .a = pf_exec_data(x, n->in[2]),
             .dx = args->want_dx ? pf_exec_data(x, n->out[0]) : NULL,
             .da = pf_exec_data(x, n->in[5]),
             .db = pf_exec_data(x, n->in[6]),
             .scale = (pf_real)args->scale,
             .keep_scale = 1,
             .masked = is_masked(x, args->dropout),
             .add_to_dx = acc != NULL || args->adapter != NULL};
    if (j.masked) {
        j.drop = pf_dropout_make(args->dropout, args->seed, x->batch->step, args->mask_key);
        j.keep_scale = (pf_real)j.drop.scale;
        j.ldbits = pf_dropout_bytes(j.in);
    }
    unsigned char *room = x->workspace;
    j.bt = (pf_real *)(void *)room;
    room += align64(j.r * j.out * (int64_t)sizeof(pf_real));
    j.s = (pf_real *)(void *)room;
    room += align64(rows * j.r * (int64_t)sizeof(pf_real));
    j.ds = (pf_real *)(void *)room;
    j.bits = room + align64(rows * j.r * (int64_t)sizeof(pf_real));

    if (j.dx != NULL && j.add_to_dx && j.dx != acc) {
        if (acc != NULL)
            memcpy(j.dx, acc, (size_t)(rows * j.in) * sizeof *acc);
        else
            memset(j.dx, 0, (size_t)(rows * j.in) * sizeof *j.dx); /* rows of other adapters */
    }
    pf_lowrank_turn(pool, pf_exec_data(x, n->in[3]), j.out, j.r, j.bt);
    int64_t strips = j.da != NULL ? pf_ceil_div(j.in, STRIP) : 0;
    if (j.db != NULL) strips += pf_ceil_div(j.out, STRIP);
    for (int64_t at = 0; next_run(args->adapter, args->adapter_id, rows, at, &j.from, &j.to);
         at = j.to) {
        pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), rows_task, &j);
        pf_pool_run(pool, (int)strips, columns_task, &j);
    }
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first --------------------------------------------------- */

#define RUN(name)                                                                                  \
    static peft_status run_##name(pf_exec *x, const pf_node *n, peft_error *err) {                 \
        (void)err;                                                                                 \
        return run(x, n, &pf_lowrank_##name);                                                      \
    }                                                                                              \
    static peft_status run_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        (void)err;                                                                                 \
        return run_grad(x, n, &pf_lowrank_##name);                                                 \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_lowrank_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
const pf_kernel_row pf_lowrank_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on

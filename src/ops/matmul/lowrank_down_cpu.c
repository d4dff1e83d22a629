/* lowrank_down_cpu.c - launchers of lowrank_down and lowrank_down_grad on the CPU, for any
 * instruction set.
 *
 * Forward: the A's of all pairs are turned into one panel (in, sum of r), then every block of rows
 * is one thin product with it. Backward, by rows: dx += drop(dS A), all pairs in one chain; by
 * columns: dA of all pairs from one strip of x, each task adding over all rows in order. */
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

#include <string.h>

enum {
    ROWS = 48,     /* of a task of a pass by rows */
    MASKED = 12,   /* rows that are masked at a time */
    STRIP = 48,    /* columns of a task of the pass by columns; whole bytes of mask */
    TURN_COLS = 96 /* columns of A in a task that turns */
};

typedef struct pair {
    const pf_real *a;
    int64_t r, at; /* ranks; where they begin in the panel */
    pf_real *s;    /* S or dS, (rows, r) */
    pf_real *da;   /* NULL: not wanted */
} pair;

typedef struct job {
    const pf_exec *exec;
    const pf_lowrank_isa *isa;
    int space, n_pairs;
    pair pairs[PF_LOWRANK_GROUP];
    int64_t rows, from, to; /* those of the run in hand */
    int64_t in, ranks;      /* sum of r, and padded: */
    int64_t padded;
    const pf_real *x;
    pf_real *dx, *panel;
    const pf_real **a_rows; /* (ranks) */
    pf_real keep_scale;
    bool masked, add_to_dx;
    pf_dropout drop;
    uint8_t *bits; /* forward (workers, ROWS, ldbits), backward (rows, ldbits) */
    int64_t ldbits;
    unsigned char *scratch; /* per worker: rows of all pairs, and masked rows of x */
    int64_t scratch_bytes;
} job;

static int64_t align64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static int64_t reals(int64_t n) {
    return align64(n * (int64_t)sizeof(pf_real));
}

static int64_t pad(int64_t ranks) {
    return pf_ceil_div(ranks, PF_LOWRANK_PAD) * PF_LOWRANK_PAD;
}

static void set_masks(job *j, const pf_lowrank_down_args *args) {
    j->keep_scale = 1;
    j->masked = args->dropout > 0 && j->exec->training;
    if (!j->masked) return;
    j->drop = pf_dropout_make(args->dropout, args->seed, j->exec->batch->step, args->mask_key);
    j->keep_scale = (pf_real)j->drop.scale;
    j->ldbits = pf_dropout_bytes(j->in);
}

static void make_masks(const job *j, int64_t from, int64_t to, uint8_t *bits) {
    const pf_batch *b = pf_batch_of_space(j->exec->batch, j->space);
    for (int64_t i = from; i < to; i++, bits += j->ldbits) {
        const int64_t row = j->space == PF_SPACE_LABELS ? b->label_row[i] : i;
        j->isa->mask(&j->drop, (uint32_t)b->sample[row], (uint32_t)b->pos[row], j->in, bits);
    }
}

static void add_pair(job *j, const pf_real *a, int64_t r, pf_real *s, pf_real *da) {
    j->pairs[j->n_pairs++] = (pair){.a = a, .r = r, .at = j->ranks, .s = s, .da = da};
    j->ranks += r;
}

/* --- forward --------------------------------------------------------------------------------- */

/* Does S of the only pair have the panel's width? Then it is written where it belongs. */
static bool is_direct(const job *j) {
    return j->n_pairs == 1 && j->ranks == j->padded;
}

static void turn_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t c0 = (int64_t)task * TURN_COLS, n = pf_min_i64(TURN_COLS, j->in - c0);
    pf_real *to = j->panel + c0 * j->padded;
    for (int p = 0; p < j->n_pairs; p++) {
        const pf_skinny k = {.R = j->pairs[p].r,
                             .C = n,
                             .a = j->pairs[p].a + c0,
                             .lda = j->in,
                             .y = to + j->pairs[p].at,
                             .ldy = j->padded};
        j->isa->turn(&k);
    }
    for (int64_t c = 0; j->ranks < j->padded && c < n; c++)
        memset(to + c * j->padded + j->ranks, 0, (size_t)(j->padded - j->ranks) * sizeof *j->panel);
}

static void rows_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    pf_real *all = (pf_real *)(void *)(j->scratch + worker * j->scratch_bytes);
    pf_real *dropped = all + reals(ROWS * j->padded) / (int64_t)sizeof(pf_real);
    uint8_t *bits = j->bits + (int64_t)worker * ROWS * j->ldbits;
    if (j->masked) make_masks(j, from, to, bits);
    if (is_direct(j)) all = j->pairs[0].s + from * j->ranks;
    const int64_t step = j->masked ? MASKED : ROWS;
    for (int64_t i = from; i < to; i += step) {
        pf_skinny k = {.M = pf_min_i64(step, to - i),
                       .R = j->padded,
                       .C = j->in,
                       .x = j->x + i * j->in,
                       .ldx = j->in,
                       .a = j->panel,
                       .lda = j->padded,
                       .s = all + (i - from) * j->padded,
                       .lds = j->padded,
                       .scale = j->keep_scale};
        if (j->masked) {
            k.mask = bits + (i - from) * j->ldbits;
            k.ldmask = j->ldbits;
            k.y = dropped;
            k.ldy = j->in;
            j->isa->drop(&k);
            k.x = dropped;
            k.mask = NULL;
        }
        j->isa->thin(&k);
    }
    if (is_direct(j)) return;
    for (int p = 0; p < j->n_pairs; p++) {
        const pair *pr = &j->pairs[p];
        for (int64_t i = from; i < to; i++)
            memcpy(pr->s + i * pr->r, all + (i - from) * j->padded + pr->at,
                   (size_t)pr->r * sizeof *all);
    }
}

static int64_t ranks_of(const pf_node *n) {
    int64_t ranks = 0;
    for (int i = 1; i < n->n_in; i++) ranks += n->in[i]->rows;
    return ranks;
}

static int64_t worker_room(int64_t ranks, int64_t in, bool masked) {
    return reals(ROWS * pad(ranks)) + (masked ? reals(MASKED * in) : 0);
}

static int64_t down_room(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    const pf_lowrank_down_args *args = n->args;
    const int64_t in = n->in[0]->cols, ranks = ranks_of(n);
    int64_t bytes = reals(in * pad(ranks)) + n_workers * worker_room(ranks, in, args->dropout > 0);
    if (args->dropout > 0) bytes += n_workers * ROWS * pf_dropout_bytes(in);
    return bytes;
}

static peft_status run_down(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_down_args *args = n->args;
    pf_pool *pool = pf_exec_pool(x);
    job j = {.exec = x,
             .isa = isa,
             .space = n->in[0]->space,
             .rows = pf_exec_rows(x, n->in[0]),
             .in = n->in[0]->cols,
             .x = pf_exec_data(x, n->in[0])};
    for (int i = 1; i < n->n_in; i++)
        add_pair(&j, pf_exec_data(x, n->in[i]), n->in[i]->rows, pf_exec_data(x, n->out[i - 1]),
                 NULL);
    j.padded = pad(j.ranks);
    set_masks(&j, args);
    j.panel = (pf_real *)(void *)x->workspace;
    j.scratch = x->workspace + reals(j.in * j.padded);
    j.scratch_bytes = worker_room(j.ranks, j.in, args->dropout > 0);
    j.bits = j.scratch + pf_pool_workers(pool) * j.scratch_bytes;
    if (args->adapter != NULL) { /* rows of other adapters */
        for (int p = 0; p < j.n_pairs; p++)
            memset(j.pairs[p].s, 0, (size_t)(j.rows * j.pairs[p].r) * sizeof(pf_real));
    }
    pf_pool_run(pool, (int)pf_ceil_div(j.in, TURN_COLS), turn_task, &j);
    for (int64_t at = 0;
         pf_lowrank_next_run(args->adapter, args->adapter_id, j.rows, at, &j.from, &j.to);
         at = j.to)
        pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), rows_task, &j);
    return PEFT_OK;
}

/* --- backward -------------------------------------------------------------------------------- */

static void dx_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const int64_t from = j->from + (int64_t)task * ROWS, to = pf_min_i64(j->to, from + ROWS);
    uint8_t *bits = j->bits + from * j->ldbits;
    if (j->masked) make_masks(j, from, to, bits);
    if (j->dx == NULL) return;
    pf_real *all = (pf_real *)(void *)(j->scratch + worker * j->scratch_bytes);
    for (int64_t i = from; i < to; i++) {
        pf_real *row = all + (i - from) * j->ranks;
        for (int p = 0; p < j->n_pairs; p++) {
            const pf_real *ds = j->pairs[p].s + i * j->pairs[p].r;
            for (int64_t k = 0; k < j->pairs[p].r; k++) *row++ = j->keep_scale * ds[k];
        }
    }
    const pf_skinny k = {.M = to - from,
                         .R = j->ranks,
                         .C = j->in,
                         .mask = j->masked ? bits : NULL,
                         .ldmask = j->ldbits,
                         .a_rows = j->a_rows,
                         .s = all,
                         .lds = j->ranks,
                         .y = j->dx + from * j->in,
                         .ldy = j->in,
                         .accumulate = j->add_to_dx};
    j->isa->expand(&k);
}

static void da_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t c0 = (int64_t)task * STRIP;
    for (int64_t from = j->from; from < j->to; from += PF_LOWRANK_BLOCK) {
        for (int p = 0; p < j->n_pairs; p++) { /* the later ones find the strip in cache */
            const pair *pr = &j->pairs[p];
            if (pr->da == NULL) continue;
            const pf_skinny k = {.M = pf_min_i64(PF_LOWRANK_BLOCK, j->to - from),
                                 .R = pr->r,
                                 .C = pf_min_i64(STRIP, j->in - c0),
                                 .x = j->x + from * j->in + c0,
                                 .ldx = j->in,
                                 .mask = j->masked ? j->bits + from * j->ldbits + c0 / 8 : NULL,
                                 .ldmask = j->ldbits,
                                 .s = pr->s + from * pr->r,
                                 .lds = pr->r,
                                 .y = pr->da + c0,
                                 .ldy = j->in,
                                 .scale = j->keep_scale};
            j->isa->outer(&k);
        }
    }
}

static int64_t grad_ranks_of(const pf_node *n) {
    int64_t ranks = 0;
    for (int i = PF_DOWN_GRAD_PAIRS; i < n->n_in; i += 3) ranks += n->in[i]->rows;
    return ranks;
}

static int64_t down_grad_room(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_lowrank_down_grad_args *args = n->args;
    const pf_value *x = n->in[PF_DOWN_GRAD_X];
    const int64_t ranks = grad_ranks_of(n);
    int64_t bytes = align64(ranks * (int64_t)sizeof(pf_real *)) + n_workers * reals(ROWS * ranks);
    if (args->down.dropout > 0) bytes += pf_value_rows(x, capacity) * pf_dropout_bytes(x->cols);
    return bytes;
}

static peft_status run_down_grad(pf_exec *x, const pf_node *n, const pf_lowrank_isa *isa) {
    const pf_lowrank_down_grad_args *args = n->args;
    const pf_lowrank_down_args *down = &args->down;
    pf_pool *pool = pf_exec_pool(x);
    const pf_value *vx = n->in[PF_DOWN_GRAD_X];
    const pf_real *acc = pf_exec_data(x, n->in[PF_DOWN_GRAD_ACC]);
    job j = {.exec = x,
             .isa = isa,
             .space = vx->space,
             .rows = pf_exec_rows(x, vx),
             .in = vx->cols,
             .x = pf_exec_data(x, vx),
             .dx = args->want_dx ? pf_exec_data(x, n->out[0]) : NULL,
             .add_to_dx = acc != NULL || down->adapter != NULL};
    bool want_da = false;
    for (int i = PF_DOWN_GRAD_PAIRS; i < n->n_in; i += 3) {
        pf_real *da = pf_exec_data(x, n->in[i + 2]);
        want_da |= da != NULL;
        add_pair(&j, pf_exec_data(x, n->in[i]), n->in[i]->rows, pf_exec_data(x, n->in[i + 1]), da);
    }
    set_masks(&j, down);
    j.a_rows = (const pf_real **)(void *)x->workspace;
    for (int p = 0; p < j.n_pairs; p++) {
        for (int64_t r = 0; r < j.pairs[p].r; r++)
            j.a_rows[j.pairs[p].at + r] = j.pairs[p].a + r * j.in;
    }
    j.scratch = x->workspace + align64(j.ranks * (int64_t)sizeof(pf_real *));
    j.scratch_bytes = reals(ROWS * j.ranks);
    j.bits = j.scratch + pf_pool_workers(pool) * j.scratch_bytes;

    if (j.dx != NULL && j.add_to_dx && j.dx != acc) {
        if (acc != NULL)
            memcpy(j.dx, acc, (size_t)(j.rows * j.in) * sizeof *acc);
        else
            memset(j.dx, 0, (size_t)(j.rows * j.in) * sizeof *j.dx); /* rows of other adapters */
    }
    for (int64_t at = 0;
         pf_lowrank_next_run(down->adapter, down->adapter_id, j.rows, at, &j.from, &j.to);
         at = j.to) {
        if (j.dx != NULL || j.masked)
            pf_pool_run(pool, (int)pf_ceil_div(j.to - j.from, ROWS), dx_task, &j);
        if (want_da) pf_pool_run(pool, (int)pf_ceil_div(j.in, STRIP), da_task, &j);
    }
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first ----------------------------------------------------- */

#define RUN(name)                                                                                  \
    static peft_status run_down_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        (void)err;                                                                                 \
        return run_down(x, n, &pf_lowrank_##name);                                                 \
    }                                                                                              \
    static peft_status run_down_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {       \
        (void)err;                                                                                 \
        return run_down_grad(x, n, &pf_lowrank_##name);                                            \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_lowrank_down_kernel_rows[] = {
    PF_FAST_KERNELS(run_down, down_room)
    {.backend = "cpu", .name = "reference", .run = run_down_cpu, .workspace = down_room},
    {0},
};
const pf_kernel_row pf_lowrank_down_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_down_grad, down_grad_room)
    {.backend = "cpu", .name = "reference", .run = run_down_grad_cpu, .workspace = down_grad_room},
    {0},
};
// clang-format on

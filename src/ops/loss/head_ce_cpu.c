/* head_ce_cpu.c - head_ce and head_ce_grad on the CPU: the reference passes over a tile of logits,
 * and the launchers for any instruction set. head_ce_simd.h has the faster passes.
 *
 * Entries are taken in chunks, the vocabulary in tiles: a chunk's logits of one tile exist at a
 * time. Forward, the softmax is made on the way (Milakov & Gimelshein 2018, arXiv 1805.02867): the
 * largest logit m and the sum of e^(z - m) so far, and with a frozen head the sum of e^(z - m) W,
 * are rescaled when a tile brings a larger logit. */
#include "ops/loss/head_ce.h"
#include "ops/loss/head_ce_kernels.h"
#include "ops/matmul/linear_kernels.h"
#include "ops/matmul/narrow.h"
#include "ops/op_util.h"

#include <string.h>

enum { ROWS = 8 }; /* entries of a task of the passes over a tile */

/* --- kernels ------------------------------------------------------------------------------- */

static pf_real max_of(const pf_real *z, int64_t n) {
    pf_real m = z[0];
    for (int64_t i = 1; i < n; i++) m = z[i] > m ? z[i] : m;
    return m;
}

static void cap_logits(pf_real *z, int64_t n, pf_real cap) {
    for (int64_t i = 0; i < n; i++) z[i] = cap * pf_rtanh(z[i] / cap);
}

/* Of a capped logit; 1 without a cap. */
static pf_real slope_of(pf_real z, pf_real cap) {
    return cap > 0 ? 1 - z / cap * (z / cap) : 1;
}

static pf_real exp_sum(pf_real *z, int64_t n, pf_real m, pf_real cap) {
    pf_real sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const pf_real p = pf_rexp(z[i] - m);
        z[i] = p * slope_of(z[i], cap);
        sum += p;
    }
    return sum;
}

static void exp_scaled(pf_real *z, int64_t n, pf_real m, pf_real c, pf_real cap) {
    for (int64_t i = 0; i < n; i++) z[i] = c * pf_rexp(z[i] - m) * slope_of(z[i], cap);
}

const pf_head_isa pf_head_cpu = {.lowrank = &pf_lowrank_cpu,
                                 .max = max_of,
                                 .cap = cap_logits,
                                 .exp_sum = exp_sum,
                                 .exp_scaled = exp_scaled};

/* --- what both launchers share ------------------------------------------------------------- */

typedef struct state { /* of one entry, over the tiles so far */
    pf_real max, sum, target_logit, target_slope;
    int32_t best; /* the first largest logit */
} state;

typedef struct job {
    const pf_exec *exec;
    const pf_head_isa *isa;
    int64_t E, C, V, r;
    const pf_real *h; /* (E, C) */
    pf_weight w;
    pf_compute compute; /* of products with w */
    const pf_real *bias, *a, *b;
    pf_real scale, keep_scale; /* of the low-rank part; 1 / (1 - p) */
    pf_real cap;               /* 0: none */
    bool masked;
    pf_dropout drop;
    int64_t ldbits;
    /* room */
    void *gemm_room;
    pf_real *z; /* (chunk, tile) */
    state *states;
    pf_real *s, *ds;    /* (chunk, r): drop(h) Aᵀ; gradient of it */
    uint8_t *bits;      /* (chunk, ldbits) */
    pf_real *bias_room; /* (V) */
    /* the chunk and the tile at hand */
    int64_t e0, n_entries, v0, n_tile;
    pf_real *nll, *correct, *lse, *unit;
    const pf_real *dnll, *saved_lse;
    pf_real *dbias;
} job;

static int64_t align64(int64_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static int64_t chunk_of(int64_t entries) {
    return pf_min_i64(pf_max_i64(entries, 1), PF_HEAD_ENTRIES);
}

/* Of products: those with W may be narrow, those of the low-rank part are not. */
static int64_t product_room(const pf_node *n, pf_compute compute, int64_t chunk, int n_workers) {
    const int64_t bytes = pf_gemm_workspace(n_workers);
    const int64_t C = n->in[PF_HEAD_W]->cols, V = n->in[PF_HEAD_W]->rows;
#ifndef PF_DOUBLE
    if (compute != PF_COMPUTE_F32) {
        const int64_t terms = pf_max_i64(C, pf_min_i64(V, PF_HEAD_TILE));
        return pf_max_i64(bytes, pf_narrow_workspace(chunk, terms, n_workers));
    }
#endif
    (void)C;
    (void)V;
    (void)chunk;
    (void)compute;
    return bytes;
}

static int64_t room_for(const pf_node *n, const int64_t *capacity, int n_workers,
                        pf_compute compute) {
    const int64_t chunk = chunk_of(capacity[PF_SPACE_LABELS]), V = n->in[PF_HEAD_W]->rows;
    const int64_t r = n->in[PF_HEAD_A] != NULL ? n->in[PF_HEAD_A]->rows : 0;
    const int64_t real = (int64_t)sizeof(pf_real);
    return product_room(n, compute, chunk, n_workers) +
           align64(chunk * pf_min_i64(V, PF_HEAD_TILE) * real) +
           align64(chunk * (int64_t)sizeof(state)) + 2 * align64(chunk * r * real) +
           align64(chunk * pf_dropout_bytes(n->in[PF_HEAD_W]->cols)) +
           (n->in[PF_HEAD_BIAS] != NULL ? pf_op_vector_scratch(n->in[PF_HEAD_BIAS]) : 0);
}

int64_t pf_head_ce_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    return room_for(n, capacity, n_workers, ((const pf_head_ce_args *)n->args)->compute);
}

int64_t pf_head_ce_grad_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    return room_for(n, capacity, n_workers, ((const pf_head_ce_grad_args *)n->args)->compute);
}

static void job_init(job *j, pf_exec *x, const pf_node *n, const pf_head_isa *isa, double scale,
                     double dropout, uint64_t seed, uint32_t mask_key, double softcap,
                     pf_compute compute) {
    const int64_t real = (int64_t)sizeof(pf_real);
    *j = (job){.exec = x,
               .isa = isa,
               .E = pf_exec_rows(x, n->in[PF_HEAD_H]),
               .C = n->in[PF_HEAD_W]->cols,
               .V = n->in[PF_HEAD_W]->rows,
               .h = pf_exec_data(x, n->in[PF_HEAD_H]),
               .w = pf_linear_matrix(x, n->in[PF_HEAD_W]),
               .compute = compute,
               .a = pf_exec_data(x, n->in[PF_HEAD_A]),
               .b = pf_exec_data(x, n->in[PF_HEAD_B]),
               .scale = (pf_real)scale,
               .cap = (pf_real)softcap,
               .keep_scale = 1};
    j->r = j->a != NULL ? n->in[PF_HEAD_A]->rows : 0;
    j->masked = j->a != NULL && dropout > 0 && x->training;
    j->ldbits = pf_dropout_bytes(j->C);
    if (j->masked) {
        j->drop = pf_dropout_make(dropout, seed, x->batch->step, mask_key);
        j->keep_scale = (pf_real)j->drop.scale;
    }
    const int64_t chunk = chunk_of(j->E);
    unsigned char *room = x->workspace;
    j->gemm_room = room;
    room += product_room(n, compute, chunk, pf_pool_workers(pf_exec_pool(x)));
    j->z = (pf_real *)(void *)room;
    room += align64(chunk * pf_min_i64(j->V, PF_HEAD_TILE) * real);
    j->states = (state *)(void *)room;
    room += align64(chunk * (int64_t)sizeof(state));
    j->s = (pf_real *)(void *)room;
    room += align64(chunk * j->r * real);
    j->ds = (pf_real *)(void *)room;
    room += align64(chunk * j->r * real);
    j->bits = room;
    room += align64(chunk * j->ldbits);
    if (n->in[PF_HEAD_BIAS] != NULL)
        j->bias = pf_op_vector(x, n->in[PF_HEAD_BIAS], (pf_real *)(void *)room);
}

static peft_status check_targets(const job *j, peft_error *err) {
    const pf_batch *b = j->exec->batch;
    for (int64_t e = 0; e < j->E; e++) {
        if (b->label_target[e] >= 0 && b->label_target[e] < j->V) continue;
        return PF_FAIL(err, PEFT_E_SHAPE, "label entry %lld has target %d, the head %lld rows",
                       (long long)e, (int)b->label_target[e], (long long)j->V);
    }
    return PEFT_OK;
}

static void by_entries(const job *j, pf_task_fn fn) {
    pf_pool_run(pf_exec_pool(j->exec), (int)pf_ceil_div(j->n_entries, ROWS), fn,
                (void *)(uintptr_t)j);
}

static void product(const job *j, pf_gemm g) {
    pf_gemm_run(pf_exec_pool(j->exec), j->isa->lowrank->gemm, &g, j->gemm_room);
}

/* With a tile of the base weight. */
static void base_product(const job *j, pf_gemm g) {
#ifndef PF_DOUBLE
    if (j->compute != PF_COMPUTE_F32) {
        pf_narrow_run(pf_exec_pool(j->exec), pf_narrow_isa_for(j->compute), &g, j->gemm_room);
        return;
    }
#endif
    product(j, g);
}

/* dh (chunk, C) (+)= z (rows [v0, v0 + tile) of W) */
static void add_base(const job *j, const pf_weight *tile, bool accumulate, pf_real *dh) {
    base_product(j, (pf_gemm){.form = PF_GEMM_NN,
                              .m = j->n_entries,
                              .n = j->C,
                              .k = j->n_tile,
                              .a = j->z,
                              .lda = j->n_tile,
                              .b = tile,
                              .c = dh,
                              .ldc = j->C,
                              .alpha = 1,
                              .accumulate = accumulate});
}

/* Of these entries of the chunk: masks, and S = drop(h) Aᵀ. */
static void project_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_batch *b = j->exec->batch;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->n_entries, from + ROWS);
    for (int64_t e = from; j->masked && e < to; e++) {
        const int32_t row = b->label_row[j->e0 + e];
        j->isa->lowrank->mask(&j->drop, (uint32_t)b->sample[row], (uint32_t)b->pos[row], j->C,
                              j->bits + e * j->ldbits);
    }
    const pf_skinny k = {.M = to - from,
                         .R = j->r,
                         .C = j->C,
                         .x = j->h + (j->e0 + from) * j->C,
                         .ldx = j->C,
                         .mask = j->masked ? j->bits + from * j->ldbits : NULL,
                         .ldmask = j->ldbits,
                         .a = j->a,
                         .lda = j->C,
                         .s = j->s + from * j->r,
                         .lds = j->r,
                         .scale = j->keep_scale};
    j->isa->lowrank->dots(&k);
}

/* z = h Wᵀ (+ bias) (+ scale S Bᵀ) for the chunk and the tile at hand */
static void logits(const job *j) {
    const pf_weight tile = pf_weight_slice_rows(&j->w, j->v0, j->n_tile);
    base_product(j, (pf_gemm){.form = PF_GEMM_NT,
                              .m = j->n_entries,
                              .n = j->n_tile,
                              .k = j->C,
                              .a = j->h + j->e0 * j->C,
                              .lda = j->C,
                              .b = &tile,
                              .c = j->z,
                              .ldc = j->n_tile,
                              .alpha = 1,
                              .bias = j->bias != NULL ? j->bias + j->v0 : NULL});
    if (j->a == NULL) return;
    const pf_weight b = pf_gemm_dense(j->b + j->v0 * j->r, j->n_tile, j->r, j->r);
    product(j, (pf_gemm){.form = PF_GEMM_NT,
                         .m = j->n_entries,
                         .n = j->n_tile,
                         .k = j->r,
                         .a = j->s,
                         .lda = j->r,
                         .b = &b,
                         .c = j->z,
                         .ldc = j->n_tile,
                         .alpha = j->scale,
                         .accumulate = true});
}

/* --- head_ce ------------------------------------------------------------------------------- */

static void softmax_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->n_entries, from + ROWS);
    for (int64_t e = from; e < to; e++) {
        pf_real *z = j->z + e * j->n_tile;
        state *s = &j->states[e];
        const int64_t target = j->exec->batch->label_target[j->e0 + e] - j->v0;
        if (j->cap > 0) j->isa->cap(z, j->n_tile, j->cap);
        if (target >= 0 && target < j->n_tile) {
            s->target_logit = z[target];
            s->target_slope = slope_of(z[target], j->cap);
        }
        const pf_real tile_max = j->isa->max(z, j->n_tile);
        if (j->v0 == 0 || tile_max > s->max) {
            int64_t best = 0;
            while (best + 1 < j->n_tile && z[best] != tile_max) best++;
            s->best = (int32_t)(j->v0 + best);
            if (j->v0 > 0) {
                const pf_real shrink = pf_rexp(s->max - tile_max);
                s->sum *= shrink;
                pf_real *u = j->unit != NULL ? j->unit + (j->e0 + e) * j->C : NULL;
                for (int64_t c = 0; u != NULL && c < j->C; c++) u[c] *= shrink;
            }
            s->max = tile_max;
        }
        s->sum = (j->v0 == 0 ? 0 : s->sum) + j->isa->exp_sum(z, j->n_tile, s->max, j->cap);
    }
}

static void finish_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->n_entries, from + ROWS);
    for (int64_t e = from; e < to; e++) {
        const state *s = &j->states[e];
        const int32_t target = j->exec->batch->label_target[j->e0 + e];
        /* max - target_logit is exact or nearly so, log(sum) small: no cancellation */
        j->nll[j->e0 + e] = (s->max - s->target_logit) + pf_rlog(s->sum);
        j->lse[j->e0 + e] = s->max + pf_rlog(s->sum);
        j->correct[j->e0 + e] = s->best == target;
        if (j->unit == NULL) continue;
        pf_real *u = j->unit + (j->e0 + e) * j->C, *row = j->z + e * j->n_tile;
        for (int64_t c0 = 0; c0 < j->C; c0 += j->n_tile) { /* z's row is free now */
            const int64_t n = pf_min_i64(j->n_tile, j->C - c0);
            pf_weight_read_tile(&j->w, target, 1, c0, n, row, n);
            for (int64_t c = 0; c < n; c++)
                u[c0 + c] = u[c0 + c] / s->sum - s->target_slope * row[c];
        }
    }
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_head_isa *isa, peft_error *err) {
    const pf_head_ce_args *args = n->args;
    job j;
    job_init(&j, x, n, isa, args->scale, args->dropout, args->seed, args->mask_key, args->softcap,
             args->compute);
    PF_TRY(check_targets(&j, err));
    j.nll = pf_exec_data(x, n->out[PF_HEAD_NLL]);
    j.correct = pf_exec_data(x, n->out[PF_HEAD_CORRECT]);
    j.lse = pf_exec_data(x, n->out[PF_HEAD_LSE]);
    j.unit = n->n_out > PF_HEAD_UNIT ? pf_exec_data(x, n->out[PF_HEAD_UNIT]) : NULL;
    for (j.e0 = 0; j.e0 < j.E; j.e0 += j.n_entries) {
        j.n_entries = pf_min_i64(PF_HEAD_ENTRIES, j.E - j.e0);
        if (j.a != NULL) by_entries(&j, project_task);
        for (j.v0 = 0; j.v0 < j.V; j.v0 += j.n_tile) {
            j.n_tile = pf_min_i64(PF_HEAD_TILE, j.V - j.v0);
            logits(&j);
            by_entries(&j, softmax_task);
            if (j.unit == NULL) continue;
            const pf_weight tile = pf_weight_slice_rows(&j.w, j.v0, j.n_tile);
            add_base(&j, &tile, j.v0 > 0, j.unit + j.e0 * j.C); /* u += e^(z - m) W */
        }
        j.n_tile = pf_min_i64(PF_HEAD_TILE, j.V); /* length of z's rows as room */
        by_entries(&j, finish_task);
    }
    return PEFT_OK;
}

/* --- head_ce_grad -------------------------------------------------------------------------- */

/* z = dnll (softmax(z) - onehot(target)), times the slope of the cap */
static void gradient_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * ROWS, to = pf_min_i64(j->n_entries, from + ROWS);
    for (int64_t e = from; e < to; e++) {
        pf_real *z = j->z + e * j->n_tile;
        const pf_real c = j->dnll[j->e0 + e];
        const int64_t target = j->exec->batch->label_target[j->e0 + e] - j->v0;
        const bool here = target >= 0 && target < j->n_tile;
        if (j->cap > 0) j->isa->cap(z, j->n_tile, j->cap);
        const pf_real slope = here ? slope_of(z[target], j->cap) : 1;
        j->isa->exp_scaled(z, j->n_tile, j->saved_lse[j->e0 + e], c, j->cap);
        if (here) z[target] -= c * slope;
    }
}

enum { STRIP = 64 }; /* columns of a task of dbias */

static void bias_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t from = (int64_t)task * STRIP, to = pf_min_i64(j->n_tile, from + STRIP);
    pf_real sum[STRIP] = {0};
    for (int64_t e = 0; e < j->n_entries; e++) {
        for (int64_t v = from; v < to; v++) sum[v - from] += j->z[e * j->n_tile + v];
    }
    for (int64_t v = from; v < to; v++) j->dbias[j->v0 + v] += sum[v - from];
}

/* out (n, m) += alpha aᵀ b over the entries of the chunk */
static void add_over_entries(const job *j, const pf_real *a, int64_t m, const pf_real *b, int64_t n,
                             pf_real alpha, pf_real *out) {
    const pf_weight dense = pf_gemm_dense(b, j->n_entries, n, n);
    product(j, (pf_gemm){.form = PF_GEMM_TN,
                         .m = m,
                         .n = n,
                         .k = j->n_entries,
                         .a = a,
                         .lda = m,
                         .b = &dense,
                         .c = out,
                         .ldc = n,
                         .alpha = alpha,
                         .accumulate = true});
}

/* out (chunk, n) (+)= alpha z (rows [v0, v0 + tile) of b) */
static void add_over_tile(const job *j, const pf_weight *tile, pf_real alpha, bool accumulate,
                          pf_real *out) {
    product(j, (pf_gemm){.form = PF_GEMM_NN,
                         .m = j->n_entries,
                         .n = tile->cols,
                         .k = j->n_tile,
                         .a = j->z,
                         .lda = j->n_tile,
                         .b = tile,
                         .c = out,
                         .ldc = tile->cols,
                         .alpha = alpha,
                         .accumulate = accumulate});
}

/* dh (+)= drop(dS A), dA += dSᵀ drop(h): small next to the head, so in one task each. */
typedef struct lowrank_part {
    const job *j;
    pf_real *dh, *da;
    bool accumulate;
} lowrank_part;

static void lowrank_task(void *ctx, int task, int worker) {
    (void)worker;
    const lowrank_part *p = ctx;
    const job *j = p->j;
    pf_skinny k = {.R = j->r,
                   .C = j->C,
                   .x = j->h + j->e0 * j->C,
                   .ldx = j->C,
                   .mask = j->masked ? j->bits : NULL,
                   .ldmask = j->ldbits,
                   .a = j->a,
                   .lda = j->C,
                   .s = j->ds,
                   .lds = j->r,
                   .ldy = j->C,
                   .scale = 1,
                   .accumulate = true};
    const int64_t expand_tasks = p->dh != NULL ? pf_ceil_div(j->n_entries, ROWS) : 0;
    if (task < expand_tasks) {
        const int64_t from = (int64_t)task * ROWS;
        k.M = pf_min_i64(ROWS, j->n_entries - from);
        if (k.mask != NULL) k.mask += from * j->ldbits;
        k.s += from * j->r;
        k.y = p->dh + from * j->C;
        j->isa->lowrank->expand(&k);
    } else {
        const int64_t c0 = (int64_t)(task - expand_tasks) * STRIP;
        k.M = j->n_entries;
        k.C = pf_min_i64(STRIP, j->C - c0);
        k.x += c0;
        if (k.mask != NULL) k.mask += c0 / 8;
        k.y = p->da + c0;
        j->isa->lowrank->outer(&k);
    }
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_head_isa *isa, peft_error *err) {
    const pf_head_ce_grad_args *args = n->args;
    const pf_real *acc = pf_exec_data(x, n->in[PF_HEAD_GRAD_ACC]);
    pf_real *dh = args->want_dh ? pf_exec_data(x, n->out[0]) : NULL;
    pf_real *dw = pf_exec_data(x, n->in[PF_HEAD_GRAD_DW]);
    pf_real *da = pf_exec_data(x, n->in[PF_HEAD_GRAD_DA]);
    pf_real *db = pf_exec_data(x, n->in[PF_HEAD_GRAD_DB]);
    job j;
    job_init(&j, x, n, isa, args->scale, args->dropout, args->seed, args->mask_key, args->softcap,
             args->compute);
    PF_TRY(check_targets(&j, err));
    j.dnll = pf_exec_data(x, n->in[PF_HEAD_GRAD_DNLL]);
    j.saved_lse = pf_exec_data(x, n->in[PF_HEAD_GRAD_LSE]);
    j.dbias = pf_exec_data(x, n->in[PF_HEAD_GRAD_DBIAS]);
    if (dh != NULL && acc != NULL && dh != acc) memcpy(dh, acc, (size_t)(j.E * j.C) * sizeof *dh);
    for (j.e0 = 0; j.e0 < j.E; j.e0 += j.n_entries) {
        j.n_entries = pf_min_i64(PF_HEAD_ENTRIES, j.E - j.e0);
        pf_real *dh_here = dh != NULL ? dh + j.e0 * j.C : NULL;
        if (j.a != NULL) by_entries(&j, project_task);
        for (j.v0 = 0; j.v0 < j.V; j.v0 += j.n_tile) {
            j.n_tile = pf_min_i64(PF_HEAD_TILE, j.V - j.v0);
            logits(&j);
            by_entries(&j, gradient_task);
            const pf_weight tile = pf_weight_slice_rows(&j.w, j.v0, j.n_tile);
            if (dh != NULL) add_base(&j, &tile, acc != NULL || j.v0 > 0, dh_here);
            if (dw != NULL)
                add_over_entries(&j, j.z, j.n_tile, j.h + j.e0 * j.C, j.C, 1, dw + j.v0 * j.C);
            if (j.dbias != NULL)
                pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.n_tile, STRIP), bias_task, &j);
            if (j.a == NULL) continue;
            const pf_weight b = pf_gemm_dense(j.b + j.v0 * j.r, j.n_tile, j.r, j.r);
            add_over_tile(&j, &b, j.scale * j.keep_scale, j.v0 > 0, j.ds);
            if (db != NULL) add_over_entries(&j, j.z, j.n_tile, j.s, j.r, j.scale, db + j.v0 * j.r);
        }
        if (j.a == NULL) continue;
        lowrank_part p = {&j, dh_here, da, true};
        int64_t tasks = dh != NULL ? pf_ceil_div(j.n_entries, ROWS) : 0;
        if (da != NULL) tasks += pf_ceil_div(j.C, STRIP);
        pf_pool_run(pf_exec_pool(x), (int)tasks, lowrank_task, &p);
    }
    return PEFT_OK;
}

/* --- the lists of kernels, fastest first --------------------------------------------------- */

#define RUN(name)                                                                                  \
    static peft_status run_##name(pf_exec *x, const pf_node *n, peft_error *err) {                 \
        return run(x, n, &pf_head_##name, err);                                                    \
    }                                                                                              \
    static peft_status run_grad_##name(pf_exec *x, const pf_node *n, peft_error *err) {            \
        return run_grad(x, n, &pf_head_##name, err);                                               \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_head_ce_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
const pf_kernel_row pf_head_ce_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, NULL)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu},
    {0},
};
// clang-format on

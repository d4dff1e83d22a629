/* head_chunk.c - see head_chunk.h. Products are gemm.h's, rows of logits softmax_row.h's. */
#include "ops/loss/head_chunk.h"

#include "ops/matmul/dropout.h"

#include <string.h>

#define LOGITS_BUDGET ((int64_t)32 << 20) /* bytes of logits per chunk */
#define FEWEST        32  /* entries: below, packing the head would cost more than the product */
#define COLUMNS       256 /* of a bias gradient per task */

static int64_t chunk_size(const pf_head_chunk *c, int64_t capacity) {
    int64_t size = LOGITS_BUDGET / (c->w->rows * (int64_t)sizeof(pf_real));
    size = pf_max_i64(size / 16 * 16, FEWEST);
    return pf_max_i64(pf_min_i64(size, capacity), 1);
}

static int64_t rank_of(const pf_head_chunk *c) {
    return c->a != NULL ? c->a->rows : 0;
}

static int64_t aligned(int64_t reals) {
    return (reals * (int64_t)sizeof(pf_real) + 63) / 64 * 64;
}

int64_t pf_head_chunk_workspace(const pf_head_chunk *c, int64_t capacity, int n_workers) {
    int64_t size = chunk_size(c, capacity);
    int64_t masked = c->a != NULL && c->args->dropout > 0 ? aligned(size * c->w->cols) : 0;
    int64_t bias = c->bias != NULL ? (pf_op_vector_scratch(c->bias) + 63) / 64 * 64 : 0;
    return aligned(size * c->w->rows) + 2 * aligned(size * rank_of(c)) + masked + bias +
           pf_gemm_workspace(n_workers);
}

static pf_weight view_of(const pf_exec *x, const pf_value *v) {
    return v->kind == PF_VALUE_WEIGHT
               ? *v->weight
               : pf_gemm_dense(pf_exec_data(x, v), v->rows, v->cols, v->cols);
}

peft_status pf_head_chunk_begin(pf_head_chunk *c, void *workspace, peft_error *err) {
    const pf_batch *b = c->x->batch;
    c->V = c->w->rows;
    c->C = c->w->cols;
    c->R = rank_of(c);
    c->size = chunk_size(c, c->x->plan.capacity[PF_SPACE_LABELS]);
    c->gemm = pf_gemm_best();
    c->softmax = pf_softmax_best();
    c->w_view = view_of(c->x, c->w);
    unsigned char *at = workspace;
    c->logits = (pf_real *)(void *)at;
    at += aligned(c->size * c->V);
    c->low = (pf_real *)(void *)at;
    at += aligned(c->size * c->R);
    c->d_low = (pf_real *)(void *)at;
    at += aligned(c->size * c->R);
    if (c->a != NULL && c->args->dropout > 0) {
        c->masked = (pf_real *)(void *)at;
        at += aligned(c->size * c->C);
    }
    if (c->bias != NULL) {
        c->bias_data = pf_op_vector(c->x, c->bias, (pf_real *)(void *)at);
        at += (pf_op_vector_scratch(c->bias) + 63) / 64 * 64;
    }
    c->scratch = at;
    for (int32_t e = 0; e < b->n_labels; e++) {
        if (b->label_target[e] < 0 || b->label_target[e] >= c->V) {
            return PF_FAIL(err, PEFT_E_SHAPE,
                           "label entry %d has target %d, the head has %lld rows", (int)e,
                           (int)b->label_target[e], (long long)c->V);
        }
    }
    return PEFT_OK;
}

static void product(const pf_head_chunk *c, pf_gemm g) {
    pf_gemm_run(pf_exec_pool(c->x), c->gemm, &g, c->scratch);
}

/* y (+)= x masked as the adapter's input is; rows are the entries of the chunk. */
typedef struct mask_job {
    const pf_head_chunk *c;
    pf_dropout d;
    const pf_real *x;
    pf_real *y;
    bool accumulate;
} mask_job;

static void mask_task(void *ctx, int task, int worker) {
    (void)worker;
    const mask_job *j = ctx;
    const pf_batch *b = j->c->x->batch;
    const int64_t C = j->c->C, e = j->c->first + task;
    const uint32_t sample = (uint32_t)b->sample[b->label_row[e]],
                   pos = (uint32_t)b->pos[b->label_row[e]];
    const pf_real *x = j->x + task * C;
    pf_real *y = j->y + task * C;
    for (int64_t col = 0; col < C; col += 8) {
        pf_rng4 draws = pf_dropout_draw(&j->d, sample, pos, (uint32_t)(col / 8));
        for (int k = 0; k < 8 && col + k < C; k++) {
            pf_real v = pf_dropout_keeps(&j->d, draws, k) ? x[col + k] * (pf_real)j->d.scale : 0;
            y[col + k] = j->accumulate ? y[col + k] + v : v;
        }
    }
}

static bool masks(const pf_head_chunk *c) {
    return c->x->training && c->args->dropout > 0;
}

static void apply_mask(const pf_head_chunk *c, const pf_real *x, pf_real *y, bool accumulate) {
    mask_job j = {.c = c, .x = x, .y = y, .accumulate = accumulate};
    j.d = pf_dropout_make(c->args->dropout, c->args->seed, c->x->batch->step, c->args->mask_key);
    pf_pool_run(pf_exec_pool(c->x), (int)c->n, mask_task, &j);
}

void pf_head_chunk_logits(pf_head_chunk *c, int64_t first) {
    c->first = first;
    c->n = pf_min_i64(c->size, c->x->batch->n_labels - first);
    c->hidden = pf_exec_data(c->x, c->h) + first * c->C;
    product(c, (pf_gemm){.form = PF_GEMM_NT,
                         .m = c->n,
                         .n = c->V,
                         .k = c->C,
                         .a = c->hidden,
                         .lda = c->C,
                         .b = &c->w_view,
                         .c = c->logits,
                         .ldc = c->V,
                         .alpha = 1,
                         .bias = c->bias_data});
    if (c->a == NULL) return;
    c->input = c->hidden;
    if (masks(c)) {
        apply_mask(c, c->hidden, c->masked, false);
        c->input = c->masked;
    }
    const pf_weight a = view_of(c->x, c->a), b = view_of(c->x, c->b);
    product(c, (pf_gemm){.form = PF_GEMM_NT,
                         .m = c->n,
                         .n = c->R,
                         .k = c->C,
                         .a = c->input,
                         .lda = c->C,
                         .b = &a,
                         .c = c->low,
                         .ldc = c->R,
                         .alpha = 1});
    product(c, (pf_gemm){.form = PF_GEMM_NT,
                         .m = c->n,
                         .n = c->V,
                         .k = c->R,
                         .a = c->low,
                         .lda = c->R,
                         .b = &b,
                         .c = c->logits,
                         .ldc = c->V,
                         .alpha = (pf_real)c->args->scale,
                         .accumulate = true});
}

static void loss_task(void *ctx, int task, int worker) {
    (void)worker;
    const pf_head_chunk *c = ctx;
    pf_real *z = c->logits + task * c->V;
    const int32_t target = c->x->batch->label_target[c->first + task];
    const pf_softmax_row r = c->softmax->look(z, c->V);
    if (c->nll != NULL) {
        c->nll[task] = pf_rlog(r.sum) + r.max - z[target];
        c->correct[task] = r.top == target ? 1 : 0;
    }
    if (!c->want_gradient) return;
    c->softmax->finish(z, c->V, r.max, 1 / r.sum);
    z[target] -= 1;
}

void pf_head_chunk_losses(pf_head_chunk *c, pf_real *nll, pf_real *correct, bool gradient) {
    c->nll = nll;
    c->correct = correct;
    c->want_gradient = gradient;
    pf_pool_run(pf_exec_pool(c->x), (int)c->n, loss_task, c);
}

static void scale_task(void *ctx, int task, int worker) {
    (void)worker;
    const pf_head_chunk *c = ctx;
    pf_real *z = c->logits + task * c->V;
    for (int64_t i = 0; i < c->V; i++) z[i] *= c->coef[task];
}

void pf_head_chunk_scale(pf_head_chunk *c, const pf_real *coef) {
    c->coef = coef;
    pf_pool_run(pf_exec_pool(c->x), (int)c->n, scale_task, c);
}

void pf_head_chunk_dh(pf_head_chunk *c, pf_real *dh) {
    product(c, (pf_gemm){.form = PF_GEMM_NN,
                         .m = c->n,
                         .n = c->C,
                         .k = c->V,
                         .a = c->logits,
                         .lda = c->V,
                         .b = &c->w_view,
                         .c = dh,
                         .ldc = c->C,
                         .alpha = 1});
    if (c->a == NULL) return;
    const pf_weight a = view_of(c->x, c->a), b = view_of(c->x, c->b);
    product(c, (pf_gemm){.form = PF_GEMM_NN,
                         .m = c->n,
                         .n = c->R,
                         .k = c->V,
                         .a = c->logits,
                         .lda = c->V,
                         .b = &b,
                         .c = c->d_low,
                         .ldc = c->R,
                         .alpha = (pf_real)c->args->scale});
    if (!masks(c)) {
        product(c, (pf_gemm){.form = PF_GEMM_NN,
                             .m = c->n,
                             .n = c->C,
                             .k = c->R,
                             .a = c->d_low,
                             .lda = c->R,
                             .b = &a,
                             .c = dh,
                             .ldc = c->C,
                             .alpha = 1,
                             .accumulate = true});
    }
}

/* The way back through A's input comes last: with a mask it needs the room where the masked rows
 * stood. */
static void add_masked_dh(pf_head_chunk *c, pf_real *dh) {
    const pf_weight a = view_of(c->x, c->a);
    product(c, (pf_gemm){.form = PF_GEMM_NN,
                         .m = c->n,
                         .n = c->C,
                         .k = c->R,
                         .a = c->d_low,
                         .lda = c->R,
                         .b = &a,
                         .c = c->masked,
                         .ldc = c->C,
                         .alpha = 1});
    apply_mask(c, c->masked, dh, true);
}

typedef struct bias_job {
    const pf_head_chunk *c;
    pf_real *db;
} bias_job;

static void bias_task(void *ctx, int task, int worker) {
    (void)worker;
    const bias_job *j = ctx;
    const int64_t from = (int64_t)task * COLUMNS, to = pf_min_i64(from + COLUMNS, j->c->V);
    for (int64_t e = 0; e < j->c->n; e++) {
        const pf_real *dz = j->c->logits + e * j->c->V;
        for (int64_t i = from; i < to; i++) j->db[i] += dz[i];
    }
}

void pf_head_chunk_grads(pf_head_chunk *c, const pf_head_sinks *sinks, pf_real *dh) {
    pf_head_chunk_dh(c, dh);
    const pf_gemm sum = {.form = PF_GEMM_TN, .k = c->n, .accumulate = true, .alpha = 1};
    if (sinks->w != NULL) {
        const pf_weight h = pf_gemm_dense(c->hidden, c->n, c->C, c->C);
        pf_gemm g = sum;
        g.m = c->V, g.n = c->C, g.a = c->logits, g.lda = c->V, g.b = &h, g.c = sinks->w,
        g.ldc = c->C;
        product(c, g);
    }
    if (sinks->bias != NULL) {
        bias_job j = {c, sinks->bias};
        pf_pool_run(pf_exec_pool(c->x), (int)pf_ceil_div(c->V, COLUMNS), bias_task, &j);
    }
    if (sinks->b != NULL) {
        const pf_weight low = pf_gemm_dense(c->low, c->n, c->R, c->R);
        pf_gemm g = sum;
        g.m = c->V, g.n = c->R, g.a = c->logits, g.lda = c->V, g.b = &low, g.c = sinks->b,
        g.ldc = c->R;
        g.alpha = (pf_real)c->args->scale;
        product(c, g);
    }
    if (sinks->a != NULL) {
        const pf_weight input = pf_gemm_dense(c->input, c->n, c->C, c->C);
        pf_gemm g = sum;
        g.m = c->R, g.n = c->C, g.a = c->d_low, g.lda = c->R, g.b = &input, g.c = sinks->a,
        g.ldc = c->C;
        product(c, g);
    }
    if (c->a != NULL && masks(c)) add_masked_dh(c, dh);
}

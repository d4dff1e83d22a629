/* rope_cpu.c - rope and its table on the CPU: reference kernels and launchers. */
#include "ops/attention/rope.h"
#include "ops/attention/rope_kernels.h"
#include "ops/op_util.h"

#include <string.h>

/* --- rope ------------------------------------------------------------------------------------- */

void pf_rope_rows_cpu(const pf_rope_rows *k) {
    const int64_t half = k->D / 2;
    for (int64_t i = 0; i < k->R; i++) {
        const pf_real *cosine = k->table + i * k->D, *sine = cosine + half;
        for (int64_t h = 0; h < k->H; h++) {
            const pf_real *x = k->x + (i * k->H + h) * k->W;
            pf_real *y = k->y + (i * k->H + h) * k->W;
            for (int64_t j = 0; j < half; j++) {
                pf_real x1 = x[j], x2 = x[half + j], s = k->inverse ? -sine[j] : sine[j];
                y[j] = x1 * cosine[j] - x2 * s;
                y[half + j] = x2 * cosine[j] + x1 * s;
            }
            if (y != x) memcpy(y + k->D, x + k->D, (size_t)(k->W - k->D) * sizeof *y);
        }
    }
}

typedef struct job {
    pf_rope_rows k;
    void (*fn)(const pf_rope_rows *k);
    int64_t task_rows;
} job;

static void run_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    pf_rope_rows k = j->k;
    int64_t from = (int64_t)task * j->task_rows, cols = k.H * k.W;
    k.R = pf_min_i64(j->task_rows, k.R - from);
    k.x += from * cols;
    k.y += from * cols;
    k.table += from * k.D;
    j->fn(&k);
}

static peft_status launch(pf_exec *x, const pf_node *n, void (*fn)(const pf_rope_rows *k)) {
    const pf_rope_args *args = n->args;
    int64_t cols = n->in[0]->cols;
    job j = {.fn = fn, .task_rows = pf_op_rows_per_task(cols)};
    j.k = (pf_rope_rows){
        .x = pf_exec_data(x, n->in[0]),
        .table = pf_exec_data(x, n->in[1]),
        .y = pf_exec_data(x, n->out[0]),
        .R = pf_exec_rows(x, n->in[0]),
        .H = cols / args->head_dim,
        .W = args->head_dim,
        .D = n->in[1]->cols,
        .inverse = args->inverse,
    };
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.k.R, j.task_rows), run_task, &j);
    return PEFT_OK;
}

/* --- rope_table ------------------------------------------------------------------------------- */

enum { TABLE_TASK_ROWS = 64 };

typedef struct table_job {
    const pf_rope_table_args *args;
    const pf_batch *batch;
    pf_real *table;
} table_job;

/* The base of dynamic NTK scaling for a sample of that length (transformers,
 * _compute_dynamic_ntk_parameters). */
static double dynamic_base(const pf_rope_table_args *a, int64_t length) {
    double stretch =
        a->dynamic_factor * (double)length / (double)a->original - (a->dynamic_factor - 1);
    return a->base * pow(stretch, (double)a->dim / (double)(a->dim - 2));
}

/* As Hugging Face: frequencies are f32, the angle is their f32 product with the position. */
static void run_table_task(void *ctx, int task, int worker) {
    (void)worker;
    const table_job *j = ctx;
    const pf_rope_table_args *a = j->args;
    const pf_batch *b = j->batch;
    int64_t from = (int64_t)task * TABLE_TASK_ROWS,
            to = pf_min_i64(from + TABLE_TASK_ROWS, b->n_tokens);
    for (int64_t i = from; i < to; i++) {
        pf_real *cosine = j->table + i * a->dim, *sine = cosine + a->dim / 2;
        int64_t length = b->segments[b->seg[i]].rope_length;
        bool dynamic = a->dynamic_factor != 0 && length > a->original;
        const float *inv_freq =
            a->long_freq != NULL && length > a->original ? a->long_freq : a->inv_freq;
        float base = dynamic ? (float)dynamic_base(a, length) : 0;
        for (int64_t c = 0; c < a->dim / 2; c++) {
            float freq = dynamic ? 1.0f / powf(base, (float)(2 * c) / (float)a->dim) : inv_freq[c];
            pf_real angle = (pf_real)((float)b->pos[i] * freq);
            cosine[c] = pf_rcos(angle) * (pf_real)a->attention_factor;
            sine[c] = pf_rsin(angle) * (pf_real)a->attention_factor;
        }
    }
}

static peft_status run_table(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    table_job j = {.args = n->args, .batch = x->batch, .table = pf_exec_data(x, n->out[0])};
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(x->batch->n_tokens, TABLE_TASK_ROWS),
                run_table_task, &j);
    return PEFT_OK;
}

const pf_kernel_row pf_rope_table_kernel_rows[] = {
    {.backend = "cpu", .name = "reference", .run = run_table},
    {0},
};

/* --- the list of rope's kernels --------------------------------------------------------------- */

#define RUN(isa)                                                                                   \
    static peft_status run_##isa(pf_exec *x, const pf_node *n, peft_error *err) {                  \
        (void)err;                                                                                 \
        return launch(x, n, pf_rope_rows_##isa);                                                   \
    }

RUN(cpu)
#ifndef PF_DOUBLE
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_rope_kernel_rows[] = {
    PF_FAST_KERNELS(run, NULL)
    {.backend = "cpu", .name = "reference", .run = run_cpu},
    {0},
};
// clang-format on

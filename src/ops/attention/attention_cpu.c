/* attention_cpu.c - the reference kernels of attention, written to be read, and its lists of
 * kernels.
 *
 * Everything is said by `visible`: the keys of one row, in order. Forward, a task takes some rows
 * with all heads. Backward, dk and dv of a key are summed by one task over the rows that see it, in
 * row order; dq of a row by another. */
#include "ops/attention/attention_kernels.h"
#include "ops/attention/attention_tiles.h"
#include "ops/op_util.h"

#include <string.h>

enum { TASK_ROWS = 16 };

/* A key: a token row, or -1 - row for an external row. */
typedef struct key {
    int32_t row, pos;
} key;

static bool in_window(const pf_attention_call *c, int32_t row, int32_t key_pos) {
    return c->window == 0 || (int64_t)c->batch->pos[row] - key_pos < c->window;
}

/* The keys that `row` sees, in the order in which they are summed. */
static int64_t visible(const pf_attention_call *c, int32_t row, key *keys) {
    const pf_batch *b = c->batch;
    int64_t n = 0;
    for (int32_t r = 0; r < c->n_runs; r++) {
        const pf_ext_run *run = &c->runs[r];
        if (row < run->row_begin || row >= run->row_end) continue;
        for (int32_t x = 0; x < run->length; x++) {
            if (in_window(c, row, run->pos + x))
                keys[n++] = (key){-1 - (run->ext + x), run->pos + x};
        }
    }
    /* In pre-order the ancestors are exactly the earlier segments whose subtree holds the row. */
    for (int32_t s = 0; c->k != NULL && s <= b->seg[row]; s++) {
        const pf_segment *seg = &b->segments[s];
        if (seg->subtree_end <= row) continue;
        for (int32_t j = seg->start; j < seg->start + seg->length; j++) {
            if (j > row && !c->bidirectional) break;
            if (in_window(c, row, b->pos[j])) keys[n++] = (key){j, b->pos[j]};
        }
    }
    return n;
}

/* Head `kh` of a key's row in the token rows or the external rows. */
static const pf_real *head_of(const pf_attention_call *c, const pf_real *rows, const pf_real *ext,
                              key k, int64_t kh) {
    return k.row >= 0 ? rows + (k.row * c->KH + kh) * c->D
                      : ext + ((-1 - k.row) * c->KH + kh) * c->D;
}

static pf_real dot(const pf_real *a, const pf_real *b, int64_t n) {
    pf_real sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* score of a query and a key; *slope is what it changes with scale q·k */
static pf_real score_of(const pf_attention_call *c, const pf_real *q, const pf_real *k,
                        pf_real *slope) {
    const pf_real z = c->scale * dot(q, k, c->D);
    *slope = 1;
    if (c->softcap == 0) return z;
    const pf_real t = pf_rtanh(z / c->softcap);
    *slope = 1 - t * t;
    return c->softcap * t;
}

/* What dropout makes of the probability of a pair: 0 or 1 / (1 - p). */
static pf_real kept(const pf_attention_call *c, int64_t row, int64_t head, int32_t key_pos) {
    if (!c->dropped) return 1;
    const pf_rng4 draws =
        pf_philox(c->drop.key, (uint32_t)(key_pos >> 3), (uint32_t)c->batch->pos[row],
                  (uint32_t)c->batch->sample[row], c->drop.mask_key + (uint32_t)head);
    return pf_dropout_keeps(&c->drop, draws, key_pos & 7) ? (pf_real)c->drop.scale : 0;
}

static void add_scaled(pf_real *y, pf_real a, const pf_real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

/* --- forward ---------------------------------------------------------------------------------- */

typedef struct job {
    pf_attention_call c;
    unsigned char *scratch; /* per worker: keys and scores of a row */
    int64_t scratch_bytes;
    pf_real *delta; /* (T, H), backward */
} job;

static int64_t scratch_bytes(int64_t T, int64_t X) {
    return pf_ceil_div((T + X) * (int64_t)(sizeof(key) + sizeof(pf_real)), 64) * 64;
}

static void forward_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    key *keys = (key *)(void *)(j->scratch + worker * j->scratch_bytes);
    pf_real *p = (pf_real *)(void *)(keys + c->T + c->X);
    int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, c->T);
    for (int64_t i = from; i < to; i++) {
        int64_t n = visible(c, (int32_t)i, keys);
        for (int64_t h = 0; h < c->H; h++) {
            const pf_real *q = c->q + (i * c->H + h) * c->D;
            pf_real *o = c->o + (i * c->H + h) * c->D;
            pf_real most = -INFINITY, sum = 0, slope;
            for (int64_t t = 0; t < n; t++) {
                p[t] = score_of(c, q, head_of(c, c->k, c->ext_k, keys[t], h / c->G), &slope) +
                       pf_att_bias(c, h, keys[t].pos - c->batch->pos[i]);
                if (p[t] > most) most = p[t];
            }
            memset(o, 0, (size_t)c->D * sizeof *o);
            for (int64_t t = 0; t < n; t++) {
                pf_real w = pf_rexp(p[t] - most);
                sum += w;
                w *= kept(c, i, h, keys[t].pos);
                add_scaled(o, w, head_of(c, c->v, c->ext_v, keys[t], h / c->G), c->D);
            }
            for (int64_t d = 0; d < c->D; d++) o[d] /= sum;
            c->lse[i * c->H + h] = most + pf_rlog(sum);
        }
    }
}

static peft_status run_cpu(pf_exec *x, const pf_node *n, peft_error *err) {
    job j = {.scratch = x->workspace};
    PF_TRY(pf_attention_call_of(&j.c, x, n, err));
    j.scratch_bytes = scratch_bytes(j.c.T, j.c.X);
    PF_TRY(pf_att_bias_make(&j.c, x, n, n->in[5],
                            j.scratch + x->backend->n_workers * j.scratch_bytes, err));
    pf_pool_run(pf_exec_pool(x), (int)pf_ceil_div(j.c.T, TASK_ROWS), forward_task, &j);
    return PEFT_OK;
}

static int64_t workspace_cpu(const pf_node *n, const int64_t *capacity, int n_workers) {
    const int64_t T = capacity[n->in[0]->space], X = pf_attention_ext_rows(n, capacity);
    return n_workers * scratch_bytes(T, X) + pf_att_bias_bytes(n->args, T, X);
}

/* --- backward --------------------------------------------------------------------------------- */

/* p = exp(score - lse) and ds = scale slope p (drop(dP) - delta) of one query and one key; *p is
 * drop(p) */
static pf_real pair_grad(const pf_attention_call *c, const pf_real *delta, int64_t i, int64_t h,
                         int32_t key_pos, const pf_real *k, const pf_real *v, pf_real *p) {
    const int64_t at = i * c->H + h, distance = key_pos - c->batch->pos[i];
    const pf_real keep = kept(c, i, h, key_pos);
    pf_real slope;
    *p = pf_rexp(score_of(c, c->q + at * c->D, k, &slope) + pf_att_bias(c, h, distance) -
                 c->lse[at]);
    const pf_real ds =
        c->scale * slope * *p * (keep * dot(c->d_o + at * c->D, v, c->D) - delta[at]);
    *p *= keep;
    return ds;
}

/* Adds what rows [from, to) give to one key, all query heads of its head. */
static void key_grad(const job *j, key k, int64_t kh, int64_t from, int64_t to, pf_real *dk,
                     pf_real *dv) {
    const pf_attention_call *c = &j->c;
    const pf_real *kp = head_of(c, c->k, c->ext_k, k, kh), *vp = head_of(c, c->v, c->ext_v, k, kh);
    for (int64_t i = from; i < to; i++) {
        if (!in_window(c, (int32_t)i, k.pos)) continue;
        for (int64_t h = kh * c->G; h < (kh + 1) * c->G; h++) {
            int64_t at = (i * c->H + h) * c->D;
            pf_real p, ds = pair_grad(c, j->delta, i, h, k.pos, kp, vp, &p);
            add_scaled(dk, ds, c->q + at, c->D);
            add_scaled(dv, p, c->d_o + at, c->D);
        }
    }
}

/* Token key r is seen by the rows from here to end[r]. */
static int64_t first_row_that_sees(const pf_attention_call *c, int64_t r) {
    return c->bidirectional ? c->batch->segments[c->batch->seg[r]].start : r;
}

static void delta_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, c->T);
    for (int64_t at = from * c->H; at < to * c->H; at++) {
        j->delta[at] = dot(c->d_o + at * c->D, c->o + at * c->D, c->D);
    }
}

static void key_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, c->T);
    size_t row = (size_t)(c->KH * c->D) * sizeof(pf_real);
    for (int64_t r = from; r < to; r++) {
        key k = {(int32_t)r, c->batch->pos[r]};
        memset(c->dk + r * c->KH * c->D, 0, row);
        memset(c->dv + r * c->KH * c->D, 0, row);
        for (int64_t kh = 0; kh < c->KH; kh++) {
            int64_t at = (r * c->KH + kh) * c->D;
            key_grad(j, k, kh, first_row_that_sees(c, r), c->batch->end[r], c->dk + at, c->dv + at);
        }
    }
}

static void ext_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, c->X);
    for (int32_t t = 0; t < c->n_runs; t++) {
        const pf_ext_run *run = &c->runs[t];
        for (int64_t r = pf_max_i64(from, run->ext); r < pf_min_i64(to, run->ext + run->length);
             r++) {
            key k = {(int32_t)(-1 - r), run->pos + (int32_t)(r - run->ext)};
            for (int64_t kh = 0; kh < c->KH; kh++) {
                int64_t at = (r * c->KH + kh) * c->D;
                key_grad(j, k, kh, run->row_begin, run->row_end, c->d_ext_k + at, c->d_ext_v + at);
            }
        }
    }
}

/* A task owns a head: what its pairs give to the table, rows in order. */
static void bias_task(void *ctx, int head, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    key *keys = (key *)(void *)(j->scratch + worker * j->scratch_bytes);
    for (int64_t i = 0; i < c->T; i++) {
        int64_t n = visible(c, (int32_t)i, keys);
        for (int64_t t = 0; t < n; t++) {
            const int64_t distance = keys[t].pos - c->batch->pos[i];
            pf_real p, ds = pair_grad(c, j->delta, i, head, keys[t].pos,
                                      head_of(c, c->k, c->ext_k, keys[t], head / c->G),
                                      head_of(c, c->v, c->ext_v, keys[t], head / c->G), &p);
            c->d_bias[c->bias.bucket[distance + c->bias.reach] * c->H + head] += ds / c->scale;
        }
    }
}

static void query_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    key *keys = (key *)(void *)(j->scratch + worker * j->scratch_bytes);
    pf_real *ds = (pf_real *)(void *)(keys + c->T + c->X);
    int64_t from = (int64_t)task * TASK_ROWS, to = pf_min_i64(from + TASK_ROWS, c->T);
    for (int64_t i = from; i < to; i++) {
        int64_t n = visible(c, (int32_t)i, keys);
        for (int64_t h = 0; h < c->H; h++) {
            for (int64_t t = 0; t < n; t++) {
                pf_real p;
                ds[t] = pair_grad(c, j->delta, i, h, keys[t].pos,
                                  head_of(c, c->k, c->ext_k, keys[t], h / c->G),
                                  head_of(c, c->v, c->ext_v, keys[t], h / c->G), &p);
            }
            pf_real *dq =
                c->dq + (i * c->H + h) * c->D; /* from here on d_o of this row and head is gone */
            memset(dq, 0, (size_t)c->D * sizeof *dq);
            for (int64_t t = 0; t < n; t++) {
                add_scaled(dq, ds[t], head_of(c, c->k, c->ext_k, keys[t], h / c->G), c->D);
            }
        }
    }
}

static int64_t delta_bytes(int64_t T, int64_t H) {
    return pf_ceil_div(T * H * (int64_t)sizeof(pf_real), 64) * 64;
}

static peft_status run_grad_cpu(pf_exec *x, const pf_node *n, peft_error *err) {
    job j = {.scratch = x->workspace};
    PF_TRY(pf_attention_call_of(&j.c, x, n, err));
    j.scratch_bytes = scratch_bytes(j.c.T, j.c.X);
    unsigned char *delta = x->workspace + x->backend->n_workers * j.scratch_bytes;
    j.delta = (pf_real *)(void *)delta;
    PF_TRY(
        pf_att_bias_make(&j.c, x, n, n->in[PF_ATT_BIAS], delta + delta_bytes(j.c.T, j.c.H), err));
    pf_attention_clear(&j.c);
    pf_pool *pool = pf_exec_pool(x);
    int n_tasks = (int)pf_ceil_div(j.c.T, TASK_ROWS);
    pf_pool_run(pool, n_tasks, delta_task, &j);
    if (j.c.k != NULL) pf_pool_run(pool, n_tasks, key_task, &j);
    if (j.c.d_ext_k != NULL) pf_pool_run(pool, (int)pf_ceil_div(j.c.X, TASK_ROWS), ext_task, &j);
    if (j.c.d_bias != NULL) pf_pool_run(pool, (int)j.c.H, bias_task, &j);
    pf_pool_run(pool, n_tasks, query_task, &j);
    return PEFT_OK;
}

static int64_t workspace_grad_cpu(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_attention_args *a = n->args;
    const int64_t T = capacity[n->in[PF_ATT_Q]->space], X = pf_attention_ext_rows(n, capacity);
    return n_workers * scratch_bytes(T, X) + delta_bytes(T, a->n_heads) +
           pf_att_bias_bytes(a, T, X);
}

/* --- operands of a node ----------------------------------------------------------------------- */

/* In cross attention a row without a key would have no softmax. */
static peft_status check_cross(const pf_attention_call *c, bool cross, peft_error *err) {
    if (!cross) return PEFT_OK;
    int64_t seen = 0;
    for (int32_t r = 0; r < c->n_runs; r++) seen = pf_max_i64(seen, c->runs[r].row_end);
    if (c->n_runs > 0 && c->runs[0].row_begin == 0 && seen == c->T) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_STATE, "%lld token rows, and a source for %lld of them",
                   (long long)c->T, (long long)seen);
}

/* The workspace has room for every external row once. */
static peft_status check_runs(const pf_attention_call *c, peft_error *err) {
    for (int32_t i = 0; i < c->n_runs; i++) {
        const pf_ext_run *run = &c->runs[i];
        if (c->ext_k == NULL || run->ext < 0 || run->length < 0 || run->length > c->X - run->ext) {
            return PF_FAIL(err, PEFT_E_STATE, "external run %d has rows [%d, %d + %d) of %lld",
                           (int)i, (int)run->ext, (int)run->ext, (int)run->length, (long long)c->X);
        }
        int64_t seen = 0; /* by the first row of this run, which is where another one may begin to
                             be seen, too */
        for (int32_t k = 0; k < c->n_runs && c->runs[k].row_begin <= run->row_begin; k++) {
            if (c->runs[k].row_end > run->row_begin) seen += c->runs[k].length;
        }
        if (seen > c->X) {
            return PF_FAIL(err, PEFT_E_STATE, "row %d sees %lld external rows, there are %lld",
                           (int)run->row_begin, (long long)seen, (long long)c->X);
        }
    }
    return PEFT_OK;
}

int64_t pf_attention_ext_rows(const pf_node *n, const int64_t *capacity) {
    const pf_value *ext = n->in[n->n_in == PF_ATT_GRAD_INPUTS ? PF_ATT_XK : 3];
    return ext != NULL ? pf_value_rows(ext, capacity) : 0;
}

void pf_attention_clear(const pf_attention_call *c) {
    if (!c->clear_ext) return;
    memset(c->d_ext_k, 0, (size_t)(c->X * c->KH * c->D) * sizeof(pf_real));
    memset(c->d_ext_v, 0, (size_t)(c->X * c->KH * c->D) * sizeof(pf_real));
}

peft_status pf_attention_call_of(pf_attention_call *c, const pf_exec *x, const pf_node *n,
                                 peft_error *err) {
    const pf_attention_args *a = n->args;
    const bool back = n->n_in == PF_ATT_GRAD_INPUTS;
    pf_value *const *in = back ? n->in + PF_ATT_Q : n->in;
    pf_value *ext_k = back ? n->in[PF_ATT_XK] : n->in[3],
             *ext_v = back ? n->in[PF_ATT_XV] : n->in[4];
    const pf_batch *b = pf_batch_of_space(x->batch, in[0]->space);
    *c = (pf_attention_call){
        .batch = b,
        .runs = a->cross ? b->source_runs : b->ext_runs,
        .n_runs = a->cross ? b->n_source_runs : b->n_ext_runs,
        .T = b->n_tokens,
        .X = ext_k != NULL ? pf_exec_rows(x, ext_k) : 0,
        .H = a->n_heads,
        .KH = a->n_kv_heads,
        .G = a->n_heads / a->n_kv_heads,
        .D = a->head_dim,
        .window = a->window,
        .bidirectional = a->bidirectional,
        .scale = (pf_real)a->scale,
        .softcap = (pf_real)a->softcap,
        .dropped = a->dropout > 0 && x->training,
        .q = pf_exec_data(x, in[0]),
        .k = pf_exec_data(x, in[1]),
        .v = pf_exec_data(x, in[2]),
        .ext_k = pf_exec_data(x, ext_k),
        .ext_v = pf_exec_data(x, ext_v),
        .o = pf_exec_data(x, back ? n->in[PF_ATT_O] : n->out[0]),
        .lse = pf_exec_data(x, back ? n->in[PF_ATT_LSE] : n->out[1]),
    };
    if (c->dropped)
        c->drop = pf_dropout_make_attention(a->dropout, a->seed, x->batch->step, a->mask_key);
    if (back) {
        c->d_o = pf_exec_data(x, n->in[PF_ATT_DO]);
        c->dq = pf_exec_data(x, n->out[0]);
        c->clear_ext = a->cross;
        if (!a->cross) {
            c->dk = pf_exec_data(x, n->out[1]);
            c->dv = pf_exec_data(x, n->out[2]);
        }
        c->d_ext_k = pf_exec_data(x, a->cross ? n->out[1] : n->in[PF_ATT_DXK]);
        c->d_ext_v = pf_exec_data(x, a->cross ? n->out[2] : n->in[PF_ATT_DXV]);
        c->d_bias = pf_exec_data(x, n->in[PF_ATT_DBIAS]);
    }
    PF_TRY(check_cross(c, a->cross, err));
    return check_runs(c, err);
}

/* --- the lists of kernels --------------------------------------------------------------------- */

#ifndef PF_DOUBLE
#define RUN(isa)                                                                                   \
    static peft_status run_##isa(pf_exec *x, const pf_node *n, peft_error *err) {                  \
        return pf_attention_run_tiles(x, n, &pf_attention_isa_##isa, err);                         \
    }                                                                                              \
    static peft_status run_grad_##isa(pf_exec *x, const pf_node *n, peft_error *err) {             \
        return pf_attention_grad_run_tiles(x, n, &pf_attention_isa_##isa, err);                    \
    }
RUN(avx2)
RUN(avx512)
#endif

// clang-format off
const pf_kernel_row pf_attention_kernel_rows[] = {
    PF_FAST_KERNELS(run, pf_attention_tiles_workspace)
    {.backend = "cpu", .name = "reference", .run = run_cpu, .workspace = workspace_cpu},
    {0},
};
const pf_kernel_row pf_attention_grad_kernel_rows[] = {
    PF_FAST_KERNELS(run_grad, pf_attention_grad_tiles_workspace)
    {.backend = "cpu", .name = "reference", .run = run_grad_cpu, .workspace = workspace_grad_cpu},
    {0},
};
// clang-format on

/* attention_grad_tiles.c - the fast backward pass of attention; see attention_tiles.h. Four rounds
 * of tasks: delta = rowsum(dO ∘ O); tiles of keys for dk and dv; tiles of external keys, when a
 * learned prefix wants its gradient; tiles of queries for dq, last, for dq may stand in dO's room.
 * Scores are recomputed in both kinds of tiles. */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

#include <string.h>

#ifndef PF_DOUBLE

enum { DELTA_ROWS = 64 };

typedef struct job {
    pf_attention_call c;
    const pf_attention_isa *isa;
    const pf_att_tile *tiles;
    int64_t n_tiles;
    float *delta; /* (T, H) */
    unsigned char *scratch;
    int64_t scratch_bytes;
} job;

/* The room of one worker; two transposed operands, two sums, two chunks of scores. */
typedef struct room {
    int32_t *chain;
    float *a, *b, *da, *db; /* (D, L) */
    float *s, *dp;          /* (CHUNK, L) */
} room;

static int64_t align64(int64_t bytes) {
    return pf_ceil_div(bytes, 64) * 64;
}

static int64_t room_bytes(int64_t T, int64_t D) {
    return align64(T * (int64_t)sizeof(int32_t)) +
           (4 * D + 2 * PF_ATT_CHUNK) * PF_ATT_LANES * (int64_t)sizeof(float);
}

static room room_of(const job *j, int worker) {
    unsigned char *at = j->scratch + worker * j->scratch_bytes;
    const int64_t matrix = j->c.D * PF_ATT_LANES;
    room r = {.chain = (int32_t *)(void *)at};
    r.a = (float *)(void *)(at + align64(j->c.T * (int64_t)sizeof(int32_t)));
    r.b = r.a + matrix;
    r.da = r.b + matrix;
    r.db = r.da + matrix;
    r.s = r.db + matrix;
    r.dp = r.s + PF_ATT_CHUNK * PF_ATT_LANES;
    return r;
}

static void delta_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    int64_t from = (int64_t)task * DELTA_ROWS, to = pf_min_i64(from + DELTA_ROWS, c->T);
    for (int64_t at = from * c->H; at < to * c->H; at++) {
        j->delta[at] = j->isa->dot(c->d_o + at * c->D, c->o + at * c->D, c->D);
    }
}

/* --- dk and dv: lanes are keys ---------------------------------------------------------------- */

/* Keys of a tile: where they stand, and the numbers by which rows see them. */
typedef struct key_lanes {
    int n, L;
    int32_t number[PF_ATT_LANES], pos[PF_ATT_LANES]; /* row, and position */
    int32_t lo, hi; /* only numbers in [lo, hi) take part: the run's */
    bool causal;    /* a row sees numbers up to its own */
} key_lanes;

/* Adds what rows [from, to) give to the keys; the transposed keys and values are r->a and r->b. */
static void add_rows(const job *j, const room *r, const key_lanes *k, int64_t kh, int64_t from,
                     int64_t to) {
    const pf_attention_call *c = &j->c;
    const pf_attention_isa *isa = j->isa;
    const int32_t first_pos = k->pos[0], last_pos = k->pos[k->n - 1];
    const int64_t step = c->H * c->D;
    for (int64_t i = from; i < to; i += PF_ATT_CHUNK) {
        const int64_t m = pf_min_i64(PF_ATT_CHUNK, to - i);
        bool windowed = false, seen = c->window == 0;
        for (int64_t t = i; c->window > 0 && t < i + m; t++) {
            windowed |= (int64_t)c->batch->pos[t] - first_pos >= c->window;
            seen |= (int64_t)c->batch->pos[t] - last_pos < c->window;
        }
        if (!seen) continue;
        const bool partial = k->lo > k->number[0] || k->hi <= k->number[k->n - 1];
        for (int64_t h = kh * c->G; h < (kh + 1) * c->G; h++) {
            const int64_t at = (i * c->H + h) * c->D;
            const bool last_head = h + 1 == (kh + 1) * c->G;
            const int64_t next = last_head ? ((i + m) * c->H + kh * c->G) * c->D : at + c->D;
            const int64_t ahead = last_head ? pf_min_i64(PF_ATT_CHUNK, to - i - m) : m;
            pf_att_prefetch(c->q + next, ahead, step, c->D);
            pf_att_prefetch(c->d_o + next, ahead, step, c->D);
            isa->product(m, c->D, k->L, c->q + at, step, 1, r->a, r->s, false);
            isa->product(m, c->D, k->L, c->d_o + at, step, 1, r->b, r->dp, false);
            for (int64_t t = 0; t < m; t++) {
                float *s = r->s + t * k->L;
                if (k->causal && i + t < k->number[k->n - 1]) {
                    isa->keep(s, k->L, k->number, INT32_MIN, (int32_t)(i + t + 1));
                }
                if (partial) isa->keep(s, k->L, k->number, k->lo, k->hi);
                if (windowed) {
                    int64_t lo = c->batch->pos[i + t] - c->window + 1;
                    isa->keep(s, k->L, k->pos, lo > INT32_MIN ? (int32_t)lo : INT32_MIN, INT32_MAX);
                }
            }
            isa->grad_rows(r->s, r->dp, m, k->L, c->scale, c->lse + i * c->H + h,
                           j->delta + i * c->H + h, c->H);
            isa->product(c->D, m, k->L, c->d_o + at, 1, step, r->s, r->db, true);
            isa->product(c->D, m, k->L, c->q + at, 1, step, r->dp, r->da, true);
        }
    }
}

/* Rows [first, first + n) of k and v, one head, transposed; sums cleared. */
static void load_keys(const job *j, const room *r, key_lanes *k, const float *keys,
                      const float *values, int64_t first, int n, int64_t kh) {
    const pf_attention_call *c = &j->c;
    const float *k_rows[PF_ATT_LANES], *v_rows[PF_ATT_LANES];
    *k = (key_lanes){.n = n, .L = (n + 15) / 16 * 16, .lo = INT32_MIN, .hi = INT32_MAX};
    for (int lane = 0; lane < k->L; lane++) {
        int64_t row = first + (lane < n ? lane : n - 1);
        k->number[lane] = (int32_t)row;
        k_rows[lane] = keys + (row * c->KH + kh) * c->D;
        v_rows[lane] = values + (row * c->KH + kh) * c->D;
    }
    j->isa->pack(k_rows, k->L, c->D, r->a);
    j->isa->pack(v_rows, k->L, c->D, r->b);
    memset(r->da, 0, (size_t)(c->D * k->L) * sizeof *r->da);
    memset(r->db, 0, (size_t)(c->D * k->L) * sizeof *r->db);
}

static void store_keys(const job *j, const room *r, const key_lanes *k, float *dk, float *dv,
                       int64_t kh, bool add) {
    const pf_attention_call *c = &j->c;
    float *k_rows[PF_ATT_LANES], *v_rows[PF_ATT_LANES];
    for (int lane = 0; lane < k->n; lane++) {
        k_rows[lane] = dk + (k->number[lane] * c->KH + kh) * c->D;
        v_rows[lane] = dv + (k->number[lane] * c->KH + kh) * c->D;
    }
    j->isa->unpack(r->da, NULL, k->L, c->D, k_rows, k->n, add);
    j->isa->unpack(r->db, NULL, k->L, c->D, v_rows, k->n, add);
}

static void key_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    const pf_att_tile tile = j->tiles[task / c->KH];
    const int64_t kh = task % c->KH;
    room r = room_of(j, worker);
    key_lanes k;
    load_keys(j, &r, &k, c->k, c->v, tile.row, tile.n, kh);
    for (int lane = 0; lane < k.L; lane++) k.pos[lane] = c->batch->pos[k.number[lane]];
    k.causal = true;
    add_rows(j, &r, &k, kh, tile.row, c->batch->end[tile.row]);
    store_keys(j, &r, &k, c->dk, c->dv, kh, false);
}

static void ext_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    const int64_t first = task / c->KH * PF_ATT_LANES, kh = task % c->KH;
    room r = room_of(j, worker);
    key_lanes k;
    load_keys(j, &r, &k, c->ext_k, c->ext_v, first, (int)pf_min_i64(PF_ATT_LANES, c->X - first),
              kh);
    for (int32_t i = 0; i < c->batch->n_ext_runs; i++) {
        const pf_ext_run *run = &c->batch->ext_runs[i];
        if (run->ext >= first + k.n || run->ext + run->length <= first) continue;
        k.lo = run->ext;
        k.hi = run->ext + run->length;
        for (int lane = 0; lane < k.L; lane++) k.pos[lane] = run->pos + (k.number[lane] - run->ext);
        add_rows(j, &r, &k, kh, run->row_begin, run->row_end);
    }
    store_keys(j, &r, &k, c->d_ext_k, c->d_ext_v, kh, true);
}

/* --- dq: lanes are queries -------------------------------------------------------------------- */

static void query_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    const pf_attention_isa *isa = j->isa;
    const pf_att_tile tile = j->tiles[j->n_tiles - 1 - task / c->KH];
    const int64_t kh = task % c->KH, step = c->KH * c->D;
    const int L = (tile.n + 15) / 16 * 16;
    room r = room_of(j, worker);

    pf_att_lanes lanes;
    const float *q_rows[PF_ATT_LANES], *do_rows[PF_ATT_LANES];
    float *dq_rows[PF_ATT_LANES], lse[PF_ATT_LANES], delta[PF_ATT_LANES];
    pf_att_lanes_of(&lanes, c, tile, kh, L);
    for (int lane = 0; lane < L; lane++) {
        const int64_t at = lanes.query[lane];
        q_rows[lane] = c->q + at * c->D;
        do_rows[lane] = c->d_o + at * c->D;
        dq_rows[lane] = c->dq + at * c->D;
        lse[lane] = c->lse[at];
        delta[lane] = j->delta[at];
    }
    isa->pack(q_rows, L, c->D, r.a);
    isa->pack(do_rows, L, c->D, r.b);
    memset(r.da, 0, (size_t)(c->D * L) * sizeof *r.da);

    pf_att_walk walk;
    pf_att_span s;
    pf_att_walk_begin(&walk, c->batch, tile.row, pf_att_last_row(tile, c->G), c->window, r.chain);
    while (pf_att_walk_next(&walk, &s)) {
        const int64_t at = (s.first * c->KH + kh) * c->D;
        const float *k = (s.external ? c->ext_k : c->k) + at,
                    *v = (s.external ? c->ext_v : c->v) + at;
        for (int32_t i = 0; i < s.n; i += PF_ATT_CHUNK) {
            const int32_t m = (int32_t)pf_min_i64(PF_ATT_CHUNK, s.n - i);
            const int64_t next = (i + m) * step, ahead = pf_min_i64(PF_ATT_CHUNK, s.n - i - m);
            pf_att_prefetch(k + next, ahead, step, c->D);
            pf_att_prefetch(v + next, ahead, step, c->D);
            isa->product(m, c->D, L, k + i * step, step, 1, r.a, r.s, false);
            isa->product(m, c->D, L, v + i * step, step, 1, r.b, r.dp, false);
            pf_att_mask(isa, &s, i, m, c->window, &lanes, L, r.s);
            isa->grad_lanes(r.s, r.dp, m, L, c->scale, lse, delta);
            isa->product(c->D, m, L, k + i * step, 1, step, r.dp, r.da, true);
        }
    }
    isa->unpack(r.da, NULL, L, c->D, dq_rows, tile.n, false);
}

/* --- launcher --------------------------------------------------------------------------------- */

peft_status pf_attention_grad_run_tiles(pf_exec *x, const pf_node *n, const pf_attention_isa *isa,
                                        peft_error *err) {
    job j = {.isa = isa};
    PF_TRY(pf_attention_call_of(&j.c, x, n, err));
    const int64_t T = j.c.T;
    pf_pool *pool = pf_exec_pool(x);
    pf_att_tile *tiles = (pf_att_tile *)(void *)x->workspace;
    j.tiles = tiles;
    j.delta = (float *)(void *)(x->workspace + pf_att_cut_bytes(T, j.c.G));
    j.scratch = (unsigned char *)j.delta + align64(T * j.c.H * (int64_t)sizeof(float));
    j.scratch_bytes = room_bytes(T, j.c.D);

    pf_pool_run(pool, (int)pf_ceil_div(T, DELTA_ROWS), delta_task, &j);
    j.n_tiles = pf_att_cut(x->batch, 1, tiles);
    pf_pool_run(pool, (int)(j.n_tiles * j.c.KH), key_task, &j);
    if (j.c.d_ext_k != NULL) {
        pf_pool_run(pool, (int)(pf_ceil_div(j.c.X, PF_ATT_LANES) * j.c.KH), ext_task, &j);
    }
    j.n_tiles = pf_att_cut(x->batch, j.c.G, tiles);
    pf_pool_run(pool, (int)(j.n_tiles * j.c.KH), query_task, &j);
    return PEFT_OK;
}

int64_t pf_attention_grad_tiles_workspace(const pf_node *n, const int64_t *capacity,
                                          int n_workers) {
    const pf_attention_args *a = n->args;
    int64_t T = capacity[PF_SPACE_TOKENS];
    return pf_att_cut_bytes(T, a->n_heads / a->n_kv_heads) +
           align64(T * a->n_heads * (int64_t)sizeof(float)) +
           n_workers * room_bytes(T, a->head_dim);
}

#endif

/* attention_tiles.c - the fast forward pass of attention; see attention_tiles.h. A task is one tile
 * of queries of one key head. Per worker there is room for the scores of a tile against every key:
 * (T + X) x lanes. */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

#include <string.h>

#ifndef PF_DOUBLE

typedef struct job {
    pf_attention_call c;
    const pf_attention_isa *isa;
    const pf_att_tile *tiles;
    int64_t n_tiles;
    unsigned char *scratch;
    int64_t scratch_bytes;
} job;

/* The room of one worker. */
typedef struct room {
    int32_t *chain;
    float *q, *o;  /* (D, L) */
    float *scores; /* (T + X, L), or (few, T + X) */
} room;

static int64_t align64(int64_t bytes) {
    return pf_ceil_div(bytes, 64) * 64;
}

static int64_t room_bytes(int64_t T, int64_t X, int64_t D) {
    return align64(T * (int64_t)sizeof(int32_t)) +
           (2 * D + T + X) * PF_ATT_LANES * (int64_t)sizeof(float);
}

static room room_of(const job *j, int worker) {
    unsigned char *at = j->scratch + worker * j->scratch_bytes;
    room r = {.chain = (int32_t *)(void *)at};
    r.q = (float *)(void *)(at + align64(j->c.T * (int64_t)sizeof(int32_t)));
    r.o = r.q + j->c.D * PF_ATT_LANES;
    r.scores = r.o + j->c.D * PF_ATT_LANES;
    return r;
}

static const float *keys_of(const pf_attention_call *c, const pf_att_span *s, int64_t kh) {
    return (s->external ? c->ext_k : c->k) + (s->first * c->KH + kh) * c->D;
}

static const float *values_of(const pf_attention_call *c, const pf_att_span *s, int64_t kh) {
    return (s->external ? c->ext_v : c->v) + (s->first * c->KH + kh) * c->D;
}

/* One row, `n` query heads from h on. */
static void few_queries(const job *j, const room *r, int32_t row, int64_t kh, int64_t h, int n) {
    const pf_attention_call *c = &j->c;
    const int64_t at = (row * c->H + h) * c->D, ld = c->T + c->X, step = c->KH * c->D;
    pf_att_walk walk;
    pf_att_span s;
    int64_t seen = 0;
    pf_att_walk_begin(&walk, c, row, row, r->chain);
    while (pf_att_walk_next(&walk, &s)) {
        j->isa->few_scores(c->q + at, n, c->D, keys_of(c, &s, kh), step, s.n, r->scores + seen, ld);
        for (int i = 0; c->softcap > 0 && i < n; i++)
            j->isa->cap(r->scores + i * ld + seen, s.n, pf_att_cap_in(c), pf_att_cap_out(c));
        for (int i = 0; c->bias.reach > 0 && i < n; i++)
            j->isa->add(r->scores + i * ld + seen,
                        c->bias.by_key + (h + i) * c->bias.stride + s.pos - c->batch->pos[row],
                        s.n);
        seen += s.n;
    }
    enum { LANES = 16 };
    float sum[LANES], most[LANES] = {0}, inverse[LANES], lse[LANES];
    for (int i = 0; i < LANES; i++) sum[i] = 1;
    for (int i = 0; i < n; i++)
        most[i] = j->isa->few_exp(r->scores + i * ld, seen, c->scale, &sum[i]);
    j->isa->finish(most, sum, LANES, inverse, lse);
    for (int i = 0; i < n; i++) c->lse[row * c->H + h + i] = lse[i];
    memset(c->o + at, 0, (size_t)(n * c->D) * sizeof *c->o);
    seen = 0;
    pf_att_walk_begin(&walk, c, row, row, r->chain);
    while (pf_att_walk_next(&walk, &s)) {
        for (int i = 0; c->dropped && i < n; i++)
            pf_att_drop_row(j->isa, c, row, h + i, s.pos, s.n, r->scores + i * ld + seen);
        j->isa->few_values(r->scores + seen, ld, n, values_of(c, &s, kh), step, s.n, c->D,
                           c->o + at);
        seen += s.n;
    }
    for (int i = 0; i < n; i++) {
        for (int64_t d = 0; d < c->D; d++) c->o[at + i * c->D + d] *= inverse[i];
    }
}

static void many_queries(const job *j, const room *r, pf_att_tile tile, int64_t kh) {
    const pf_attention_call *c = &j->c;
    const pf_attention_isa *isa = j->isa;
    const int L = (tile.n + 15) / 16 * 16;
    const int64_t step = c->KH * c->D;
    pf_att_lanes lanes;
    const float *q_rows[PF_ATT_LANES];
    float *o_rows[PF_ATT_LANES], most[PF_ATT_LANES], sum[PF_ATT_LANES], inverse[PF_ATT_LANES],
        lse[PF_ATT_LANES];
    pf_att_lanes_of(&lanes, c, tile, kh, L);
    for (int lane = 0; lane < L; lane++) {
        q_rows[lane] = c->q + lanes.query[lane] * c->D;
        o_rows[lane] = c->o + lanes.query[lane] * c->D;
        most[lane] = -INFINITY;
        sum[lane] = 0;
    }
    isa->pack(q_rows, L, c->D, r->q);

    pf_att_walk walk;
    pf_att_span s;
    float *scores = r->scores;
    const int32_t last = pf_att_last_row(tile, c->G);
    pf_att_walk_begin(&walk, c, tile.row, last, r->chain);
    while (pf_att_walk_next(&walk, &s)) {
        const float *k = keys_of(c, &s, kh);
        for (int32_t i = 0; i < s.n; i += PF_ATT_CHUNK) {
            const int32_t m = (int32_t)pf_min_i64(PF_ATT_CHUNK, s.n - i);
            const int64_t ahead = pf_min_i64(PF_ATT_CHUNK, s.n - i - m);
            pf_att_prefetch(k + (i + m) * step, ahead, step, c->D);
            isa->product(m, c->D, L, k + i * step, step, 1, r->q, L, scores, L, false);
            if (c->softcap > 0)
                isa->cap(scores, (int64_t)m * L, pf_att_cap_in(c), pf_att_cap_out(c));
            pf_att_add_bias_lanes(isa, c, &s, i, m, &lanes, L, scores);
            pf_att_mask(isa, &s, i, m, c->window, &lanes, L, scores);
            isa->max_rows(scores, m, L, most);
            scores += (int64_t)m * L;
        }
    }
    for (int lane = 0; lane < L; lane++) most[lane] *= c->scale;

    memset(r->o, 0, (size_t)(c->D * L) * sizeof *r->o);
    scores = r->scores;
    pf_att_walk_begin(&walk, c, tile.row, last, r->chain);
    while (pf_att_walk_next(&walk, &s)) {
        const float *v = values_of(c, &s, kh);
        for (int32_t i = 0; i < s.n; i += PF_ATT_CHUNK) {
            const int64_t m = pf_min_i64(PF_ATT_CHUNK, s.n - i);
            pf_att_prefetch(v + i * step, m, step, c->D);
            isa->exp_sum(scores, m, L, c->scale, most, sum);
            if (c->dropped) pf_att_drop_lanes(isa, c, &lanes, L, s.pos + i, (int32_t)m, scores);
            isa->product(c->D, m, L, v + i * step, 1, step, scores, L, r->o, L, true);
            scores += m * L;
        }
    }
    isa->finish(most, sum, L, inverse, lse);
    isa->unpack(r->o, inverse, L, c->D, o_rows, tile.n, false);
    for (int lane = 0; lane < tile.n; lane++) c->lse[lanes.query[lane]] = lse[lane];
}

static void run_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    pf_att_tile tile = j->tiles[j->n_tiles - 1 -
                                task / c->KH]; /* the longest come last in a sample: begin there */
    const int64_t kh = task % c->KH;
    room r = room_of(j, worker);
    if (tile.n > PF_ATT_FEW) {
        many_queries(j, &r, tile, kh);
        return;
    }
    for (int32_t row = tile.row, head = tile.head, left = tile.n; left > 0; row++, head = 0) {
        int n = (int)pf_min_i64(c->G - head, left);
        few_queries(j, &r, row, kh, kh * c->G + head, n);
        left -= n;
    }
}

peft_status pf_attention_run_tiles(pf_exec *x, const pf_node *n, const pf_attention_isa *isa,
                                   peft_error *err) {
    job j = {.isa = isa};
    PF_TRY(pf_attention_call_of(&j.c, x, n, err));
    pf_att_tile *tiles = (pf_att_tile *)(void *)x->workspace;
    j.tiles = tiles;
    j.scratch = x->workspace + pf_att_cut_bytes(j.c.T, j.c.G);
    j.scratch_bytes = room_bytes(j.c.T, j.c.X, j.c.D);
    PF_TRY(pf_att_bias_make(&j.c, x, n, n->in[5],
                            j.scratch + x->backend->n_workers * j.scratch_bytes, err));
    j.n_tiles = pf_att_cut(&j.c, j.c.G, tiles);
    pf_pool_run(pf_exec_pool(x), (int)(j.n_tiles * j.c.KH), run_task, &j);
    return PEFT_OK;
}

int64_t pf_attention_tiles_workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    const pf_attention_args *a = n->args;
    int64_t T = capacity[n->in[0]->space], X = pf_attention_ext_rows(n, capacity);
    return pf_att_cut_bytes(T, a->n_heads / a->n_kv_heads) +
           n_workers * room_bytes(T, X, a->head_dim) + pf_att_bias_bytes(a, T, X);
}

#endif

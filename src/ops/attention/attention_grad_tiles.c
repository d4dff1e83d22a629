/* attention_grad_tiles.c - the fast backward pass of attention; see attention_tiles.h.
 *
 * In one round, as far as there are trees and key heads enough for the threads: a task owns one
 * tree of segments and one key head. It goes through the tiles of keys in row order; each tile
 * gives dk and dv of its keys and adds to dq of the rows that see them, which waits in the worker's
 * room: five products.
 *
 * In rounds otherwise (one long sample on many threads, external keys): delta = rowsum(dO ∘ O);
 * tiles of keys for dk and dv; tiles of external keys, when a learned prefix wants its gradient;
 * tiles of queries for dq, last, for dq may stand in dO's room. Scores and dP are computed in both
 * kinds of tiles: seven products, and as many tasks as anyone could want.
 *
 * Either way an element is the same chain of the same terms. */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

#include <string.h>

#ifndef PF_DOUBLE

enum {
    DELTA_ROWS = 64,
    DELTA_AHEAD = 8,     /* rows that are asked for before their turn */
    DIAGONAL = 16,       /* rows at a time where a tile of keys meets its own rows */
    TREE_ROOM = 8 << 20, /* bytes of dq that a worker may hold: larger trees go in rounds */
    ONE_ROUND = 5,
    ROUNDS = 7 /* products per pair of query and key */
};

/* A root segment with all below it, and its tiles of keys. */
typedef struct tree {
    int32_t from, to, first_tile, n_tiles;
} tree;

typedef struct job {
    pf_attention_call c;
    const pf_attention_isa *isa;
    const pf_att_tile *tiles;
    int64_t n_tiles;
    const tree *trees;
    int64_t tree_rows; /* most rows of a tree that a worker has room for */
    int64_t heads;     /* key heads [0, heads) go in one round, the others in rounds */
    float *delta;      /* (T, H) */
    unsigned char *scratch;
    int64_t scratch_bytes;
} job;

/* The room of one worker; two transposed operands, two sums, two chunks of scores. */
typedef struct room {
    int32_t *chain;
    float *a, *b, *da, *db; /* (D, L) */
    float *s, *dp;          /* (CHUNK, L) */
    float *keys;            /* (L, wide D) */
    float *dq;              /* (G, rows of a tree, wide D) */
} room;

/* Columns of dq in a worker's room: whole vectors. */
static int64_t wide(int64_t D) {
    return pf_ceil_div(D, 16) * 16;
}

static int64_t most_tree_rows(int64_t T, int64_t G, int64_t D) {
    return pf_min_i64(T, TREE_ROOM / (G * wide(D) * (int64_t)sizeof(float)));
}

static int64_t align64(int64_t bytes) {
    return pf_ceil_div(bytes, 64) * 64;
}

static int64_t room_bytes(int64_t T, int64_t G, int64_t D) {
    return align64(T * (int64_t)sizeof(int32_t)) +
           align64(((4 * D + 2 * PF_ATT_CHUNK + wide(D)) * PF_ATT_LANES +
                    G * most_tree_rows(T, G, D) * wide(D)) *
                   (int64_t)sizeof(float));
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
    r.keys = r.dp + PF_ATT_CHUNK * PF_ATT_LANES;
    r.dq = r.keys + wide(j->c.D) * PF_ATT_LANES;
    return r;
}

static void delta_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    int64_t from = (int64_t)task * DELTA_ROWS, to = pf_min_i64(from + DELTA_ROWS, c->T);
    for (int64_t i = from; i < to; i++) {
        for (int64_t at = i * c->H + j->heads * c->G; at < (i + 1) * c->H; at++)
            j->delta[at] = j->isa->dot(c->d_o + at * c->D, c->o + at * c->D, c->D);
    }
}

/* Tasks of rounds: key heads side by side. */
static int64_t tile_of(const job *j, int task) {
    return task / (j->c.KH - j->heads);
}

static int64_t head_of(const job *j, int task) {
    return j->heads + task % (j->c.KH - j->heads);
}

/* --- dk and dv: lanes are keys ---------------------------------------------------------------- */

/* Keys of a tile: where they stand, and the numbers by which rows see them. */
typedef struct key_lanes {
    int n, L;
    int32_t number[PF_ATT_LANES], pos[PF_ATT_LANES]; /* row, and position */
    int32_t lo, hi;   /* only numbers in [lo, hi) take part: the run's */
    bool causal;      /* a row sees numbers up to its own */
    const tree *tree; /* whose dq is wanted, too; NULL: none */
} key_lanes;

/* What rows [i, i + m) of head h give to the first `lanes` keys, and get from them. */
static void add_head(const job *j, const room *r, const key_lanes *k, int64_t h, int64_t i,
                     int64_t m, int lanes, bool windowed) {
    const pf_attention_call *c = &j->c;
    const pf_attention_isa *isa = j->isa;
    const int64_t step = c->H * c->D, at = (i * c->H + h) * c->D, L = k->L;
    isa->product(m, c->D, lanes, c->q + at, step, 1, r->a, L, r->s, L, false);
    isa->product(m, c->D, lanes, c->d_o + at, step, 1, r->b, L, r->dp, L, false);
    const bool partial = k->lo > k->number[0] || k->hi <= k->number[k->n - 1];
    for (int64_t t = 0; t < m; t++) {
        float *s = r->s + t * L;
        if (c->softcap > 0) isa->cap(s, lanes, pf_att_cap_in(c), pf_att_cap_out(c));
        if (c->bias.reach > 0)
            isa->add(s, c->bias.by_key + h * c->bias.stride + k->pos[0] - c->batch->pos[i + t],
                     lanes);
        if (k->causal && i + t < k->number[k->n - 1])
            isa->keep(s, lanes, k->number, INT32_MIN, (int32_t)(i + t + 1));
        if (partial) isa->keep(s, lanes, k->number, k->lo, k->hi);
        if (windowed) {
            int64_t lo = c->batch->pos[i + t] - c->window + 1;
            isa->keep(s, lanes, k->pos, lo > INT32_MIN ? (int32_t)lo : INT32_MIN, INT32_MAX);
        }
    }
    const float kept = (float)c->drop.scale;
    uint64_t keep[PF_ATT_CHUNK];
    if (c->dropped) pf_att_drop_keys(isa, c, i, m, h, k->pos[0], keep);
    for (int64_t t = 0; c->dropped && t < m; t++)
        isa->drop_bits(r->dp + t * L, lanes, keep[t], kept);
    isa->grad_rows(r->s, r->dp, m, lanes, k->L, c->scale, pf_att_cap_in(c), c->lse + i * c->H + h,
                   j->delta + i * c->H + h, c->H);
    for (int64_t t = 0; c->dropped && t < m; t++)
        isa->drop_bits(r->s + t * L, lanes, keep[t], kept);
    isa->product(c->D, m, lanes, c->d_o + at, 1, step, r->s, L, r->db, L, true);
    isa->product(c->D, m, lanes, c->q + at, 1, step, r->dp, L, r->da, L, true);
    if (k->tree == NULL) return;
    const int64_t rows = k->tree->to - k->tree->from, D = wide(c->D);
    float *dq = r->dq + (h % c->G * rows + i - k->tree->from) * D;
    isa->product(m, lanes < k->n ? lanes : k->n, D, r->dp, L, 1, r->keys, D, dq, D, true);
}

/* Adds what rows [from, to) give to the keys; the transposed keys and values are r->a and r->b. */
static void add_rows(const job *j, const room *r, const key_lanes *k, int64_t kh, int64_t from,
                     int64_t to) {
    const pf_attention_call *c = &j->c;
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
        for (int64_t h = kh * c->G; h < (kh + 1) * c->G; h++) {
            const int64_t at = (i * c->H + h) * c->D;
            const bool last_head = h + 1 == (kh + 1) * c->G;
            const int64_t next = last_head ? ((i + m) * c->H + kh * c->G) * c->D : at + c->D;
            const int64_t ahead = last_head ? pf_min_i64(PF_ATT_CHUNK, to - i - m) : m;
            pf_att_prefetch(c->q + next, ahead, step, c->D);
            pf_att_prefetch(c->d_o + next, ahead, step, c->D);
            for (int64_t t = 0; t < m;) {
                /* rows among the tile's own see the lanes up to themselves */
                const bool own = k->causal && i + t < k->number[k->n - 1];
                const int64_t some = own ? pf_min_i64(DIAGONAL, m - t) : m - t;
                const int64_t seen_lanes = pf_ceil_div(i + t + some - k->number[0], 16) * 16;
                add_head(j, r, k, h, i + t, some, own ? (int)pf_min_i64(k->L, seen_lanes) : k->L,
                         windowed);
                t += some;
            }
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

/* dk and dv of one tile of keys; of the tree's dq what these keys give. */
static void key_tile(const job *j, const room *r, pf_att_tile tile, int64_t kh, const tree *t) {
    const pf_attention_call *c = &j->c;
    key_lanes k;
    load_keys(j, r, &k, c->k, c->v, tile.row, tile.n, kh);
    for (int lane = 0; lane < k.L; lane++) k.pos[lane] = c->batch->pos[k.number[lane]];
    k.causal = !c->bidirectional;
    k.tree = t;
    for (int lane = 0; t != NULL && lane < k.n; lane++)
        memcpy(r->keys + lane * wide(c->D), c->k + (k.number[lane] * c->KH + kh) * c->D,
               (size_t)c->D * sizeof *r->keys);
    const pf_segment *seg = &c->batch->segments[c->batch->seg[tile.row]];
    add_rows(j, r, &k, kh, k.causal ? tile.row : seg->start, seg->subtree_end);
    store_keys(j, r, &k, c->dk, c->dv, kh, false);
}

static void key_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    room r = room_of(j, worker);
    key_tile(j, &r, j->tiles[tile_of(j, task)], head_of(j, task), NULL);
}

/* Everything of one tree and one key head. dO of these rows and heads is read by this task alone,
 * so dq may take its room in the end. */
static void tree_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    const tree *t = &j->trees[task / j->heads];
    const int64_t kh = task % j->heads, D = wide(c->D), rows = t->to - t->from;
    room r = room_of(j, worker);
    for (int64_t i = t->from; i < t->to; i++) {
        const int64_t ahead = (pf_min_i64(i + DELTA_AHEAD, t->to - 1) * c->H + kh * c->G) * c->D;
        pf_att_prefetch(c->d_o + ahead, 1, 0, c->G * c->D);
        pf_att_prefetch(c->o + ahead, 1, 0, c->G * c->D);
        for (int64_t h = kh * c->G; h < (kh + 1) * c->G; h++) {
            const int64_t at = i * c->H + h;
            j->delta[at] = j->isa->dot(c->d_o + at * c->D, c->o + at * c->D, c->D);
        }
    }
    memset(r.dq, 0, (size_t)(c->G * rows * D) * sizeof *r.dq);
    memset(r.keys, 0, (size_t)(PF_ATT_LANES * D) * sizeof *r.keys);
    for (int32_t k = 0; k < t->n_tiles; k++) {
        if (k + 1 < t->n_tiles) {
            const pf_att_tile next = j->tiles[t->first_tile + k + 1];
            pf_att_prefetch(c->k + (next.row * c->KH + kh) * c->D, next.n, c->KH * c->D, c->D);
            pf_att_prefetch(c->v + (next.row * c->KH + kh) * c->D, next.n, c->KH * c->D, c->D);
        }
        key_tile(j, &r, j->tiles[t->first_tile + k], kh, t);
    }
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t g = 0; g < c->G; g++)
            memcpy(c->dq + ((t->from + i) * c->H + kh * c->G + g) * c->D, r.dq + (g * rows + i) * D,
                   (size_t)c->D * sizeof *r.dq);
    }
}

static void ext_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_attention_call *c = &j->c;
    const int64_t first = tile_of(j, task) * PF_ATT_LANES, kh = head_of(j, task);
    room r = room_of(j, worker);
    key_lanes k;
    load_keys(j, &r, &k, c->ext_k, c->ext_v, first, (int)pf_min_i64(PF_ATT_LANES, c->X - first),
              kh);
    for (int32_t i = 0; i < c->n_runs; i++) {
        const pf_ext_run *run = &c->runs[i];
        if (run->ext >= first + k.n || run->ext + run->length <= first) continue;
        k.lo = run->ext;
        k.hi = run->ext + run->length;
        for (int lane = 0; lane < k.L; lane++) k.pos[lane] = run->pos + (k.number[lane] - run->ext);
        add_rows(j, &r, &k, kh, run->row_begin, run->row_end);
    }
    store_keys(j, &r, &k, c->d_ext_k, c->d_ext_v, kh, true);
}

/* --- dq: lanes are queries -------------------------------------------------------------------- */

/* What a tile's pairs with some keys give to the table of biases; hidden pairs have no ds. */
static void add_bias_grad(const pf_attention_call *c, const pf_att_span *s, int32_t from, int32_t m,
                          const pf_att_lanes *lanes, int n, int L, const float *ds) {
    for (int32_t i = 0; i < m; i++, ds += L) {
        const int32_t *bucket = c->bias.bucket + c->bias.reach + s->pos + from + i;
        for (int lane = 0; lane < n; lane++)
            c->d_bias[bucket[-lanes->pos[lane]] * c->H + lanes->query[lane] % c->H] +=
                ds[lane] / c->scale;
    }
}

static void query_tile(const job *j, pf_att_tile tile, int64_t kh, int worker) {
    const pf_attention_call *c = &j->c;
    const pf_attention_isa *isa = j->isa;
    const int64_t step = c->KH * c->D;
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
    pf_att_walk_begin(&walk, c, tile.row, pf_att_last_row(tile, c->G), r.chain);
    while (pf_att_walk_next(&walk, &s)) {
        const int64_t at = (s.first * c->KH + kh) * c->D;
        const float *k = (s.external ? c->ext_k : c->k) + at,
                    *v = (s.external ? c->ext_v : c->v) + at;
        for (int32_t i = 0; i < s.n; i += PF_ATT_CHUNK) {
            const int32_t m = (int32_t)pf_min_i64(PF_ATT_CHUNK, s.n - i);
            const int64_t next = (i + m) * step, ahead = pf_min_i64(PF_ATT_CHUNK, s.n - i - m);
            pf_att_prefetch(k + next, ahead, step, c->D);
            pf_att_prefetch(v + next, ahead, step, c->D);
            isa->product(m, c->D, L, k + i * step, step, 1, r.a, L, r.s, L, false);
            isa->product(m, c->D, L, v + i * step, step, 1, r.b, L, r.dp, L, false);
            if (c->softcap > 0) isa->cap(r.s, (int64_t)m * L, pf_att_cap_in(c), pf_att_cap_out(c));
            pf_att_add_bias_lanes(isa, c, &s, i, m, &lanes, L, r.s);
            pf_att_mask(isa, &s, i, m, c->window, &lanes, L, r.s);
            if (c->dropped) pf_att_drop_lanes(isa, c, &lanes, L, s.pos + i, m, r.dp);
            isa->grad_lanes(r.s, r.dp, m, L, c->scale, pf_att_cap_in(c), lse, delta);
            if (c->d_bias != NULL) add_bias_grad(c, &s, i, m, &lanes, tile.n, L, r.dp);
            isa->product(c->D, m, L, k + i * step, 1, step, r.dp, L, r.da, L, true);
        }
    }
    isa->unpack(r.da, NULL, L, c->D, dq_rows, tile.n, false);
}

static void query_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    query_tile(j, j->tiles[j->n_tiles - 1 - tile_of(j, task)], head_of(j, task), worker);
}

/* A trained table of biases: a task owns a head, and what is added to it goes in row order. */
static void query_head_task(void *ctx, int kh, int worker) {
    const job *j = ctx;
    for (int64_t t = 0; t < j->n_tiles; t++) query_tile(j, j->tiles[t], kh, worker);
}

/* --- launcher --------------------------------------------------------------------------------- */

/* Fills the trees from the tiles of keys; returns how many. */
static int64_t find_trees(const job *j, tree *trees) {
    const pf_batch *b = j->c.batch;
    int64_t n = 0, tile = 0;
    for (int32_t s = 0; s < b->n_segments; s++) {
        if (b->segments[s].parent >= 0) continue;
        tree *t = &trees[n++];
        *t = (tree){b->segments[s].start, b->segments[s].subtree_end, (int32_t)tile, 0};
        while (tile < j->n_tiles && j->tiles[tile].row < t->to) tile++, t->n_tiles++;
    }
    return n;
}

/* How many key heads to do in one round, with a task per tree and head, so that all is done
 * soonest. Work per tree is counted as the square of its rows. */
static int64_t heads_in_one_round(const job *j, int64_t n_trees, int64_t n_workers) {
    const int64_t KH = j->c.KH;
    if (j->c.X > 0 || j->c.d_bias != NULL) return 0;
    double all = 0, most = 0;
    for (int64_t i = 0; i < n_trees; i++) {
        const double rows = j->trees[i].to - j->trees[i].from;
        if (rows > (double)j->tree_rows) return 0;
        all += rows * rows * (double)KH;
        if (rows * rows > most) most = rows * rows;
    }
    const double n = (double)n_workers;
    if (n_trees == 1) { /* as many as keep all workers busy; the rest may be cheaper in rounds */
        const int64_t even = KH / n_workers * n_workers;
        const double rest = ROUNDS * (double)(KH - even) / n;
        return even < KH && rest < ONE_ROUND ? even : KH;
    }
    /* the longest task may begin last */
    return ONE_ROUND * (all / n + most * (n - 1) / n) <= ROUNDS * all / n ? KH : 0;
}

peft_status pf_attention_grad_run_tiles(pf_exec *x, const pf_node *n, const pf_attention_isa *isa,
                                        peft_error *err) {
    job j = {.isa = isa};
    PF_TRY(pf_attention_call_of(&j.c, x, n, err));
    const int64_t T = j.c.T, G = j.c.G;
    pf_pool *pool = pf_exec_pool(x);
    pf_att_tile *tiles = (pf_att_tile *)(void *)x->workspace;
    tree *trees = (tree *)(void *)(x->workspace + pf_att_cut_bytes(T, G));
    j.tiles = tiles;
    j.trees = trees;
    j.tree_rows = most_tree_rows(T, G, j.c.D);
    j.delta = (float *)(void *)((unsigned char *)trees + align64(T * (int64_t)sizeof(tree)));
    j.scratch = (unsigned char *)j.delta + align64(T * j.c.H * (int64_t)sizeof(float));
    j.scratch_bytes = room_bytes(T, G, j.c.D);

    PF_TRY(pf_att_bias_make(&j.c, x, n, n->in[PF_ATT_BIAS],
                            j.scratch + x->backend->n_workers * j.scratch_bytes, err));
    pf_attention_clear(&j.c);
    j.n_tiles = pf_att_cut(&j.c, 1, tiles);
    const int64_t n_trees = find_trees(&j, trees);
    j.heads = heads_in_one_round(&j, n_trees, pf_pool_workers(pool));
    const int64_t rest = j.c.KH - j.heads;
    if (j.heads > 0) pf_pool_run(pool, (int)(n_trees * j.heads), tree_task, &j);
    if (rest == 0) return PEFT_OK;
    pf_pool_run(pool, (int)pf_ceil_div(T, DELTA_ROWS), delta_task, &j);
    if (j.c.k != NULL) pf_pool_run(pool, (int)(j.n_tiles * rest), key_task, &j);
    if (j.c.d_ext_k != NULL)
        pf_pool_run(pool, (int)(pf_ceil_div(j.c.X, PF_ATT_LANES) * rest), ext_task, &j);
    j.n_tiles = pf_att_cut(&j.c, G, tiles);
    if (j.c.d_bias != NULL)
        pf_pool_run(pool, (int)j.c.KH, query_head_task, &j);
    else
        pf_pool_run(pool, (int)(j.n_tiles * rest), query_task, &j);
    return PEFT_OK;
}

int64_t pf_attention_grad_tiles_workspace(const pf_node *n, const int64_t *capacity,
                                          int n_workers) {
    const pf_attention_args *a = n->args;
    const int64_t T = capacity[n->in[PF_ATT_Q]->space], G = a->n_heads / a->n_kv_heads;
    return pf_att_cut_bytes(T, G) + align64(T * (int64_t)sizeof(tree)) +
           align64(T * a->n_heads * (int64_t)sizeof(float)) +
           n_workers * room_bytes(T, G, a->head_dim) +
           pf_att_bias_bytes(a, T, pf_attention_ext_rows(n, capacity));
}

#endif

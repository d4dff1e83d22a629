/* attention_tiles.h - fast attention: how the rows of a batch become tiles, and what an instruction
 * set has to bring.
 *
 * A tile is a matrix whose columns ("lanes") are up to PF_ATT_LANES queries of one key head - some
 * rows of one segment times the G query heads that share it - and whose rows are keys. Keys and
 * values are read where they stand, one number broadcast to all lanes; the queries are transposed
 * once per tile. So nothing is packed per block of keys, maxima and sums over keys are lane by
 * lane, and a lane's result cannot depend on its neighbours. When a tile has few queries
 * (generation, one-token segments) the roles change: lanes are keys, later columns of a head, with
 * every sum in the same order, so that both ways give the same bits.
 *
 * In the backward pass dk and dv are made by tiles whose lanes are keys and whose rows are queries.
 * dq is made either on the way, by a task that owns a whole tree of segments and one key head, or
 * by tiles of queries as above: both add the same terms in the same order, so the choice, which
 * depends on the number of threads, changes no bit. */
#ifndef PF_ATTENTION_TILES_H
#define PF_ATTENTION_TILES_H

#include "ops/attention/attention_kernels.h"

enum {
    PF_ATT_LANES = 48, /* of a full tile; lanes are padded to a multiple of 16 */
    PF_ATT_FEW = 8,    /* tiles of at most so many queries go the other way */
    PF_ATT_CHUNK = 64  /* rows of a tile that are worked on while in cache */
};

#ifndef PF_DOUBLE

/* The inside of a tile, in vectors. L is a multiple of 16; matrices with L columns are contiguous.
 */
typedef struct pf_attention_isa {
    /* c (m, n) = or += Σ_k a[i·row + k·step] b[k, n]: k ascending, one fused multiply-add each; n a
     * multiple of 16, rows of b and c ldb and ldc apart */
    void (*product)(int64_t m, int64_t k, int64_t n, const float *a, int64_t row, int64_t step,
                    const float *b, int64_t ldb, float *c, int64_t ldc, bool add);
    /* dst (D, L) = transposed rows; src (D, L) times lane_scale (NULL: 1) back to n rows, adding
     * when told */
    void (*pack)(const float *const *rows, int L, int64_t D, float *dst);
    void (*unpack)(const float *src, const float *lane_scale, int L, int64_t D, float *const *rows,
                   int n, bool add);
    /* s (L) becomes -inf in lanes whose number is not in [lo, hi) */
    void (*keep)(float *s, int L, const int32_t *number, int32_t lo, int32_t hi);
    /* s = out tanh(in s): with in = scale / softcap, out = softcap / scale, scale · s is capped */
    void (*cap)(float *s, int64_t n, float in, float out);
    void (*add)(float *s, const float *b, int64_t n); /* s += b */
    pf_dropout_lanes_fn mask;
    /* p (L) becomes scale p in lanes whose byte has this bit, 0 in the others */
    void (*drop_lanes)(float *p, int L, const uint8_t *bits, int bit, float scale);
    /* likewise the n <= 64 numbers whose bits are in `keep` */
    void (*drop_bits)(float *p, int64_t n, uint64_t keep, float scale);
    void (*max_rows)(const float *s, int64_t n, int L, float *most);
    /* s = exp(scale s - shift), sum += rows of s in order; shift and sum (L) */
    void (*exp_sum)(float *s, int64_t n, int L, float scale, const float *shift, float *sum);
    /* inverse = 1 / sum, lse = most + ln sum, for sums of at least 1 */
    void (*finish)(const float *most, const float *sum, int L, float *inverse, float *lse);
    /* lanes are queries: dp = scale p (dp - delta), p = exp(scale s - lse); for scores capped with
     * `in` (else 0) times the slope, 1 - (in s)² */
    void (*grad_lanes)(const float *s, float *dp, int64_t n, int L, float scale, float in,
                       const float *lse, const float *delta);
    /* rows are queries, lse and delta `step` apart, the first `lanes` of L: s = p, dp as above */
    void (*grad_rows)(float *s, float *dp, int64_t n, int lanes, int L, float scale, float in,
                      const float *lse, const float *delta, int64_t step);
    float (*dot)(const float *a, const float *b, int64_t n);
    /* Few queries. s[i·ld + j] = q_i · k_j of n keys */
    void (*few_scores)(const float *q, int n_q, int64_t D, const float *k, int64_t k_step,
                       int64_t n, float *s, int64_t ld);
    /* s[0..n) = exp(scale s - scale max); returns scale · max, and the sum in order in *sum */
    float (*few_exp)(float *s, int64_t n, float scale, float *sum);
    /* o (n_q, D) += Σ_j p[i·ld + j] v_j, j in order */
    void (*few_values)(const float *p, int64_t ld, int n_q, const float *v, int64_t v_step,
                       int64_t n, int64_t D, float *o);
} pf_attention_isa;

extern const pf_attention_isa pf_attention_isa_avx2, pf_attention_isa_avx512;

peft_status pf_attention_run_tiles(pf_exec *x, const pf_node *n, const pf_attention_isa *isa,
                                   peft_error *err);
peft_status pf_attention_grad_run_tiles(pf_exec *x, const pf_node *n, const pf_attention_isa *isa,
                                        peft_error *err);
int64_t pf_attention_tiles_workspace(const pf_node *n, const int64_t *capacity, int n_workers);
int64_t pf_attention_grad_tiles_workspace(const pf_node *n, const int64_t *capacity, int n_workers);

#endif

/* --- which rows, which keys ------------------------------------------------------------------- */

/* n queries of one key head: all G heads of a row, then those of the next, beginning with head
 * `head` of row `row`. All rows are of one segment and see the same external runs. Tiles of keys
 * are cut with G = 1. */
typedef struct pf_att_tile {
    int32_t row, head, n;
} pf_att_tile;

/* Asks for n rows of a head ahead of their use: where heads interleave, no hardware prefetcher
 * follows. */
static inline void pf_att_prefetch(const pf_real *head, int64_t n, int64_t step, int64_t D) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 0; d < D; d += 16) __builtin_prefetch(head + i * step + d, 0, 2);
    }
}

static inline int32_t pf_att_last_row(pf_att_tile t, int64_t G) {
    return t.row + (int32_t)((t.head + t.n - 1) / G);
}

/* Cuts all segments into tiles of at most PF_ATT_LANES queries, in order; returns how many. */
int64_t pf_att_cut(const pf_attention_call *c, int64_t G, pf_att_tile *tiles);
int64_t pf_att_cut_bytes(int64_t T, int64_t G); /* room for the tiles of T rows, a multiple of 64 */

/* Keys next to each other, seen by the rows of a tile: all of them by all rows, save that causality
 * and the window still have to be applied key by key where `causal` and `windowed` say so. */
typedef struct pf_att_span {
    bool external;
    int32_t first, n, pos; /* rows; position of the first, from which the others count up */
    bool causal, windowed;
} pf_att_span;

/* Yields the spans of a tile in the order in which keys are summed; keys outside the window of
 * every row are skipped. */
typedef struct pf_att_walk {
    const pf_attention_call *call;
    int32_t first, last; /* rows of the tile */
    int32_t run;         /* next external run */
    int32_t *chain;      /* own segment, its parent, ... the root; has room for every segment */
    int32_t depth;       /* how many of them are left */
} pf_att_walk;

void pf_att_walk_begin(pf_att_walk *w, const pf_attention_call *c, int32_t first, int32_t last,
                       int32_t *chain);
bool pf_att_walk_next(pf_att_walk *w, pf_att_span *s);

#ifndef PF_DOUBLE

/* The queries of a tile, lane by lane; lanes too many repeat the last one. */
typedef struct pf_att_lanes {
    int32_t row[PF_ATT_LANES], pos[PF_ATT_LANES];
    int64_t query[PF_ATT_LANES]; /* row · H + head */
} pf_att_lanes;

/* Dropout (attention_drop.c), where a call has it. The m <= CHUNK keys from position `key_pos` on,
 * p (m, L): lanes are queries. */
void pf_att_drop_lanes(const pf_attention_isa *isa, const pf_attention_call *c,
                       const pf_att_lanes *lanes, int L, int32_t key_pos, int32_t m, float *p);
/* One query: p (n), of keys from position `key_pos` on. */
void pf_att_drop_row(const pf_attention_isa *isa, const pf_attention_call *c, int64_t row,
                     int64_t head, int32_t key_pos, int64_t n, float *p);
/* Rows [row, row + m) are queries of a head, m <= CHUNK, and lanes are the keys from position
 * `key_pos` on: bit l of keep[t] says whether row + t keeps lane l. */
void pf_att_drop_keys(const pf_attention_isa *isa, const pf_attention_call *c, int64_t row,
                      int64_t m, int64_t head, int32_t key_pos, uint64_t *keep);

/* what `cap` takes; 0 where scores are not capped */
static inline float pf_att_cap_in(const pf_attention_call *c) {
    return c->softcap > 0 ? c->scale / c->softcap : 0;
}
static inline float pf_att_cap_out(const pf_attention_call *c) {
    return c->softcap / c->scale;
}

void pf_att_lanes_of(pf_att_lanes *lanes, const pf_attention_call *c, pf_att_tile tile, int64_t kh,
                     int L);
/* Adds the biases of keys [from, from + m) of a span, where there are any. */
void pf_att_add_bias_lanes(const pf_attention_isa *isa, const pf_attention_call *c,
                           const pf_att_span *s, int32_t from, int32_t m, const pf_att_lanes *lanes,
                           int L, float *scores);
/* Scores (m, L) of keys [from, from + m) of a span become -inf where causality or the window hide
 * the key. */
void pf_att_mask(const pf_attention_isa *isa, const pf_att_span *s, int32_t from, int32_t m,
                 int64_t window, const pf_att_lanes *lanes, int L, float *scores);

#endif

#endif

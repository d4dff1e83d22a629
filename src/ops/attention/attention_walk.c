/* attention_walk.c - tiles of queries and the spans of keys that they see; see attention_tiles.h.
 */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

int64_t pf_att_cut(const pf_attention_call *c, int64_t G, pf_att_tile *tiles) {
    const pf_batch *b = c->batch;
    int64_t count = 0;
    for (int32_t s = 0; s < b->n_segments; s++) {
        int32_t end = b->segments[s].start + b->segments[s].length;
        for (int32_t at = b->segments[s].start; at < end;) {
            int32_t to = end; /* of the rows that see the same runs as row `at` */
            for (int32_t r = 0; r < c->n_runs && c->runs[r].row_begin < to; r++) {
                const pf_ext_run *run = &c->runs[r];
                if (run->row_begin > at) to = run->row_begin;
                if (run->row_end > at && run->row_end < to) to = run->row_end;
            }
            int64_t queries = (to - at) * G;
            for (int64_t q = 0; q < queries; q += PF_ATT_LANES) {
                tiles[count++] = (pf_att_tile){.row = at + (int32_t)(q / G),
                                               .head = (int32_t)(q % G),
                                               .n = (int32_t)pf_min_i64(PF_ATT_LANES, queries - q)};
            }
            at = to;
        }
    }
    return count;
}

int64_t pf_att_cut_bytes(int64_t T, int64_t G) {
    int64_t most = T * pf_ceil_div(G, PF_ATT_LANES); /* reached when every row stands alone */
    return pf_ceil_div(most * (int64_t)sizeof(pf_att_tile), 64) * 64;
}

void pf_att_walk_begin(pf_att_walk *w, const pf_attention_call *c, int32_t first, int32_t last,
                       int32_t *chain) {
    const pf_batch *b = c->batch;
    *w = (pf_att_walk){.call = c, .first = first, .last = last, .chain = chain};
    if (c->k == NULL) return; /* cross attention: external keys alone */
    for (int32_t s = b->seg[first]; s >= 0; s = b->segments[s].parent) chain[w->depth++] = s;
}

/* Takes off the keys that no row of the tile can see any more; false when none is left. */
static bool apply_window(const pf_att_walk *w, pf_att_span *s) {
    const int64_t window = w->call->window;
    if (window == 0) return true;
    const int32_t *pos = w->call->batch->pos;
    int64_t first_pos = pos[w->first], last_pos = pos[w->last];
    int64_t skip = first_pos - window + 1 - s->pos;
    if (skip >= s->n) return false;
    if (skip > 0) {
        s->first += (int32_t)skip;
        s->pos += (int32_t)skip;
        s->n -= (int32_t)skip;
    }
    s->windowed = last_pos - s->pos >= window;
    return true;
}

bool pf_att_walk_next(pf_att_walk *w, pf_att_span *s) {
    const pf_attention_call *c = w->call;
    const pf_batch *b = c->batch;
    while (w->run < c->n_runs) {
        const pf_ext_run *run = &c->runs[w->run++];
        if (run->row_begin > w->first || run->row_end <= w->first) continue;
        *s = (pf_att_span){.external = true, .first = run->ext, .n = run->length, .pos = run->pos};
        if (apply_window(w, s)) return true;
    }
    while (w->depth > 0) {
        const pf_segment *seg = &b->segments[w->chain[--w->depth]];
        const bool own = w->depth == 0 && !c->bidirectional; /* only up to itself */
        *s = (pf_att_span){.first = seg->start,
                           .n = own ? w->last + 1 - seg->start : seg->length,
                           .pos = b->pos[seg->start],
                           .causal = own && w->last > w->first};
        if (apply_window(w, s)) return true;
    }
    return false;
}

#ifndef PF_DOUBLE

void pf_att_lanes_of(pf_att_lanes *lanes, const pf_attention_call *c, pf_att_tile tile, int64_t kh,
                     int L) {
    for (int lane = 0; lane < L; lane++) {
        int64_t at = tile.head + (lane < tile.n ? lane : tile.n - 1);
        lanes->row[lane] = tile.row + (int32_t)(at / c->G);
        lanes->pos[lane] = c->batch->pos[lanes->row[lane]];
        lanes->query[lane] = lanes->row[lane] * c->H + kh * c->G + at % c->G;
    }
}

void pf_att_mask(const pf_attention_isa *isa, const pf_att_span *s, int32_t from, int32_t m,
                 int64_t window, const pf_att_lanes *lanes, int L, float *scores) {
    if (!s->causal && !s->windowed) return;
    for (int32_t i = 0; i < m; i++, scores += L) {
        int32_t key = s->first + from + i;
        if (s->causal && key > lanes->row[0]) isa->keep(scores, L, lanes->row, key, INT32_MAX);
        if (!s->windowed) continue;
        int64_t hi = (int64_t)s->pos + from + i + window;
        if (hi < INT32_MAX) isa->keep(scores, L, lanes->pos, INT32_MIN, (int32_t)hi);
    }
}

#endif

/* attention_drop.c - masks of dropout as the tiles of attention read them; see attention_tiles.h.
 *
 * A call of Philox decides on eight keys of one query (ops/matmul/dropout.h), so that both kinds of
 * tiles, lanes as queries and lanes as keys, take them eight keys at a time and waste little where
 * a tile begins between two multiples of eight. Positions of lanes that take no part may be below
 * 0; what is drawn for them is never read. */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

#include <string.h>

#ifndef PF_DOUBLE

enum { COUNTERS = PF_ATT_CHUNK };

/* What the calls of a tile have in common, counter by counter. */
typedef struct counters {
    uint32_t octet[COUNTERS], pos[COUNTERS], sample[COUNTERS], key[COUNTERS];
} counters;

static void set_query(const pf_attention_call *c, counters *k, int64_t lane, int64_t row,
                      int64_t head) {
    k->pos[lane] = (uint32_t)c->batch->pos[row];
    k->sample[lane] = (uint32_t)c->batch->sample[row];
    k->key[lane] = c->drop.mask_key + (uint32_t)head;
}

/* Bytes of octet `octet` for n counters that stand for queries. */
static void draw(const pf_attention_isa *isa, const pf_attention_call *c, counters *k, int64_t n,
                 int32_t octet, uint8_t *bits) {
    for (int64_t l = 0; l < n; l++) k->octet[l] = (uint32_t)octet;
    isa->mask(&c->drop, k->octet, k->pos, k->sample, k->key, n, bits);
}

void pf_att_drop_lanes(const pf_attention_isa *isa, const pf_attention_call *c,
                       const pf_att_lanes *lanes, int L, int32_t key_pos, int32_t m, float *p) {
    const float scale = (float)c->drop.scale;
    uint8_t bits[PF_ATT_LANES];
    counters k;
    for (int lane = 0; lane < L; lane++)
        set_query(c, &k, lane, lanes->row[lane], lanes->query[lane] % c->H);
    for (int32_t i = 0; i < m; i++, p += L) {
        const int32_t at = key_pos + i;
        if (i == 0 || (at & 7) == 0) draw(isa, c, &k, L, at >> 3, bits);
        isa->drop_lanes(p, L, bits, at & 7, scale);
    }
}

void pf_att_drop_keys(const pf_attention_isa *isa, const pf_attention_call *c, int64_t row,
                      int64_t m, int64_t head, int32_t key_pos, uint64_t *keep) {
    enum { WIDE = PF_ATT_LANES / 8 + 1 }; /* of lanes that begin anywhere */
    const int64_t n = pf_ceil_div(m, 16) * 16;
    uint8_t bits[COUNTERS];
    counters k;
    for (int64_t t = 0; t < n; t++) set_query(c, &k, t, row + pf_min_i64(t, m - 1), head);
    memset(keep, 0, (size_t)m * sizeof *keep);
    for (int i = 0; i < WIDE; i++) {
        draw(isa, c, &k, n, (key_pos >> 3) + i, bits);
        for (int64_t t = 0; t < m; t++) keep[t] |= (uint64_t)bits[t] << 8 * i;
    }
    for (int64_t t = 0; t < m; t++) keep[t] >>= key_pos & 7;
}

void pf_att_drop_row(const pf_attention_isa *isa, const pf_attention_call *c, int64_t row,
                     int64_t head, int32_t key_pos, int64_t n, float *p) {
    enum { SOME = 16 };
    const int32_t end = key_pos + (int32_t)n;
    uint8_t bits[SOME];
    counters k;
    for (int l = 0; l < SOME; l++) set_query(c, &k, l, row, head);
    for (int32_t octet = key_pos >> 3; octet << 3 < end; octet += SOME) {
        for (int l = 0; l < SOME; l++) k.octet[l] = (uint32_t)(octet + l);
        isa->mask(&c->drop, k.octet, k.pos, k.sample, k.key, SOME, bits);
        for (int half = 0; half < SOME; half += 8) {
            const int32_t first = (octet + half) << 3, from = first > key_pos ? first : key_pos,
                          to = first + 64 < end ? first + 64 : end;
            uint64_t keep = 0;
            for (int i = 0; i < 8; i++) keep |= (uint64_t)bits[half + i] << 8 * i;
            if (from < to)
                isa->drop_bits(p + (from - key_pos), to - from, keep >> (from - first),
                               (float)c->drop.scale);
        }
    }
}

#endif

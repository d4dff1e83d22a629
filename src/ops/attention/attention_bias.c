/* attention_bias.c - biases of scores by head and distance (attention.h): the buckets of T5, and
 * the tables that the kernels read.
 *
 * Which distances a pass can meet is known from its positions, so a pass first writes the bias of
 * every distance and head. The tiles add whole vectors of it: for one query the keys of a run
 * follow each other, for one key the queries do; therefore each table stands in both directions,
 * with room at the ends for the lanes of a tile that stand for nothing. */
#include "ops/attention/attention_tiles.h"

#include "ops/op_util.h"

#include <math.h>
#include <string.h>

enum { PAD = PF_ATT_LANES };

/* As transformers counts in f32: near a bucket's border the rounding decides. */
int32_t pf_attention_bucket(const pf_attention_args *a, int64_t distance) {
    int64_t n = a->bias_buckets, first = 0;
    if (a->bidirectional) {
        n /= 2;
        if (distance > 0) first = n;
        if (distance < 0) distance = -distance;
    } else {
        distance = distance < 0 ? -distance : 0;
    }
    const int64_t single = n / 2;
    if (distance < single) return (int32_t)(first + distance);
    const float ratio = logf((float)distance / (float)single) /
                        (float)log((double)a->bias_max_distance / (double)single) *
                        (float)(n - single);
    const int64_t bucket = single + (int64_t)ratio;
    return (int32_t)(first + (bucket < n ? bucket : n - 1));
}

/* Positions differ by no more than this. */
static int64_t reach_of(const pf_attention_call *c) {
    int64_t reach = 0;
    for (int64_t i = 0; i < c->T; i++) reach = pf_max_i64(reach, c->batch->pos[i]);
    for (int32_t r = 0; r < c->n_runs; r++)
        reach = pf_max_i64(reach, (int64_t)c->runs[r].pos + c->runs[r].length);
    return reach + 1;
}

static int64_t align64(int64_t bytes) {
    return pf_ceil_div(bytes, 64) * 64;
}

static int64_t stride_of(int64_t reach) {
    return 2 * reach + 1 + 2 * PAD;
}

static int64_t bytes_of(const pf_attention_args *a, int64_t reach) {
    return align64((2 * reach + 1) * (int64_t)sizeof(int32_t)) +
           align64(a->bias_buckets * a->n_heads * (int64_t)sizeof(pf_real)) +
           2 * align64(a->n_heads * stride_of(reach) * (int64_t)sizeof(float));
}

int64_t pf_att_bias_bytes(const pf_attention_args *a, int64_t T, int64_t X) {
    return a->bias_buckets > 0 || a->slopes != NULL ? bytes_of(a, T + X + 1) : 0;
}

static pf_real bias_at(const pf_attention_bias *b, const pf_attention_call *c, int64_t h,
                       int64_t distance) {
    if (b->slopes != NULL) return (pf_real)b->slopes[h] * (pf_real)distance;
    return b->table[b->bucket[distance + b->reach] * c->H + h];
}

pf_real pf_att_bias(const pf_attention_call *c, int64_t h, int64_t distance) {
    return c->bias.reach == 0 ? 0 : bias_at(&c->bias, c, h, distance);
}

#ifndef PF_DOUBLE

/* The tiles add to scores before they are scaled. */
static void fill(pf_attention_bias *b, const pf_attention_call *c, float *by_key, float *by_query) {
    b->stride = stride_of(b->reach);
    memset(by_key, 0, (size_t)(c->H * b->stride) * sizeof *by_key);
    memset(by_query, 0, (size_t)(c->H * b->stride) * sizeof *by_query);
    for (int64_t h = 0; h < c->H; h++) {
        float *k = by_key + h * b->stride + PAD + b->reach;
        float *q = by_query + h * b->stride + PAD + b->reach;
        for (int64_t d = -b->reach; d <= b->reach; d++)
            k[d] = q[-d] = bias_at(b, c, h, d) / c->scale;
    }
    b->by_key = by_key + PAD + b->reach;
    b->by_query = by_query + PAD + b->reach;
}

void pf_att_add_bias_lanes(const pf_attention_isa *isa, const pf_attention_call *c,
                           const pf_att_span *s, int32_t from, int32_t m, const pf_att_lanes *lanes,
                           int L, float *scores) {
    const pf_attention_bias *b = &c->bias;
    if (b->reach == 0) return;
    for (int32_t i = 0; i < m; i++, scores += L) {
        const int64_t pos = s->pos + from + i;
        if (c->G == 1) { /* rows of one head follow each other */
            const int64_t h = lanes->query[0] % c->H;
            isa->add(scores, b->by_query + h * b->stride + lanes->pos[0] - pos, L);
            continue;
        }
        for (int lane = 0; lane < L; lane++) {
            const int64_t h = lanes->query[lane] % c->H;
            scores[lane] += b->by_query[h * b->stride + lanes->pos[lane] - pos];
        }
    }
}

#endif

peft_status pf_att_bias_make(pf_attention_call *c, const pf_exec *x, const pf_node *n,
                             const pf_value *table, unsigned char *room, peft_error *err) {
    const pf_attention_args *a = n->args;
    c->bias = (pf_attention_bias){0};
    if (a->bias_buckets == 0 && a->slopes == NULL) return PEFT_OK;
    pf_attention_bias *b = &c->bias;
    const pf_value *q = n->in[n->n_in == PF_ATT_GRAD_INPUTS ? PF_ATT_Q : 0];
    const int64_t most = x->plan.capacity[q->space] + c->X + 1;
    b->reach = reach_of(c);
    b->slopes = a->slopes;
    if (b->reach > most)
        return PF_FAIL(err, PEFT_E_STATE, "positions up to %lld in a pass of %lld rows",
                       (long long)b->reach - 1, (long long)most);
    int32_t *bucket = (int32_t *)(void *)room;
    room += align64((2 * b->reach + 1) * (int64_t)sizeof *bucket);
    pf_real *numbers = (pf_real *)(void *)room;
    room += align64(a->bias_buckets * a->n_heads * (int64_t)sizeof *numbers);
    for (int64_t i = 0; i < a->bias_buckets; i++)
        pf_op_read_row(x, table, i, numbers + i * a->n_heads);
    for (int64_t d = -b->reach; a->bias_buckets > 0 && d <= b->reach; d++)
        bucket[d + b->reach] = pf_attention_bucket(a, d);
    b->bucket = bucket;
    b->table = numbers;
    b->n_buckets = a->bias_buckets;
#ifndef PF_DOUBLE
    const int64_t side = align64(a->n_heads * stride_of(b->reach) * (int64_t)sizeof(float));
    fill(b, c, (float *)(void *)room, (float *)(void *)(room + side));
#endif
    return PEFT_OK;
}

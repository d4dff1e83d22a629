/* road.c - RoAd: y = R (W x + bias), R turns pairs of outputs by an angle and stretches them (Liao
 * and Monz 2024, arXiv 2409.00119, equation 4). Variants have one angle and one factor for a pair
 * (road_1), for each output (road_2), or for each number of R (road_4).
 *
 * Output c of a group stands with output c + group_size / 2. The outputs are turned (pair_turn.c),
 * W is not touched; merged, its rows are, two by two. road_theta, road_alpha (in one dimension) and
 * their first numbers are peft's. */
#include "base/mem.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>

typedef struct road_cfg {
    pf_delta_cfg d;
    const char *variant;
    int64_t group_size;
    bool init_weights;
} road_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_ENUM(road_cfg, variant, "road_1", "road_1 road_2 road_4", "an angle and a factor for each pair of outputs; for each output; for each number of the rotation"),
    PF_CFG_INT(road_cfg, group_size, 64, 2, 65536, "outputs of a group, whose first half stands with its second; even, and a divisor of the outputs"),
    PF_DELTA_NAME_ROWS(road_cfg),
    PF_CFG_BOOL(road_cfg, init_weights, true, "no rotation at first; false: random, for tests"),
    PF_CFG_END};
/* clang-format on */

enum { THETA, ALPHA };

typedef struct road_site {
    pf_delta_site s; /* theta, alpha (1, out kind / 2) */
    pf_pair_turn_args args;
} road_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    road_site *l = self;
    pf_value *p[PF_DELTA_PARAMS];
    PF_TRY(pf_delta_values(b, &l->s, p, err));
    return pf_rowmap_emit(b->graph, site->name, &pf_pair_turn, &l->args, *y, p, 2, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const road_cfg *cfg = ad->cfg.method_cfg;
    road_site *l = self;
    const int64_t out = l->s.site->out_dim;
    (void)t;
    if (cfg->group_size % 2 != 0 || out % cfg->group_size != 0)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.road.group_size is %lld; it should be even and divide the %lld "
                       "outputs",
                       l->s.site->name, (long long)cfg->group_size, (long long)out);
    l->args = (pf_pair_turn_args){.kind = cfg->variant[5] - '0', .group = cfg->group_size};
    for (int i = THETA; i <= ALPHA; i++) {
        pf_param *p;
        PF_TRY(pf_delta_param(ad, &l->s, i == THETA ? ".road_theta" : ".road_alpha", 1,
                              out * l->args.kind / 2, &p, err));
        p->is_vector = true;
    }
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const road_cfg *cfg = ad->cfg.method_cfg;
    const road_site *l = self;
    pf_param *alpha = l->s.p[ALPHA];
    pf_fill_constant(alpha, 1);
    if (cfg->init_weights) return;
    pf_fill_normal(l->s.p[THETA], seed, 0.5);
    pf_fill_normal(alpha, seed, 0.5);
    for (int64_t i = 0; i < alpha->cols; i++) alpha->data[i] += 1;
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.road",
                                   .what = "RoAd",
                                   .rows = rows,
                                   .cfg_size = sizeof(road_cfg),
                                   .site_size = sizeof(road_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status road_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

/* What column c of the output is made of. */
static void factors_of(const road_site *l, int64_t c, int64_t *partner, double *own,
                       double *other) {
    const pf_real *theta = l->s.p[THETA]->data, *alpha = l->s.p[ALPHA]->data;
    int64_t first, second;
    pf_pair_turn_places(&l->args, c, &first, &second, partner);
    *own = (double)alpha[first] * cos((double)theta[first]);
    *other = (double)alpha[second] * sin((double)theta[second]) * (*partner > c ? -1 : 1);
}

/* Rows of R W. The partner of a row may stand elsewhere: it is read from the base. */
static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const road_site *l = pf_delta_at(ad, site);
    const int64_t C = site->in_dim;
    pf_real *base = pf_calloc((size_t)C, sizeof *base);
    PF_CHECK_ALLOC(base, err);
    for (int64_t i = 0; i < n; i++) {
        int64_t partner;
        double own, other;
        float *row = out + i * C;
        factors_of(l, row0 + i, &partner, &own, &other);
        pf_weight_read_tile(site->weight, partner, 1, 0, C, base, C);
        for (int64_t c = 0; c < C; c++)
            row[c] = (float)(own * (double)row[c] + other * (double)base[c]);
    }
    pf_free(base);
    return PEFT_OK;
}

static void merge_bias(const pf_adapter *ad, const pf_site *site, float *bias) {
    const road_site *l = pf_delta_at(ad, site);
    for (int64_t c = 0; c < site->out_dim; c++) {
        int64_t partner, back;
        double own, other, own_p, other_p;
        factors_of(l, c, &partner, &own, &other);
        if (partner < c) continue; /* both of a pair at once */
        factors_of(l, partner, &back, &own_p, &other_p);
        const double a = (double)bias[c], b = (double)bias[partner];
        bias[c] = (float)(own * a + other * b);
        bias[partner] = (float)(own_p * b + other_p * a);
    }
}

const pf_method pf_method_road = {
    .name = "road",
    .help = "outputs turned two by two (RoAd, arXiv 2409.00119)",
    .paper = "3-in-1: 2D Rotary Adaptation for Efficient Finetuning, Efficient Batching and "
             "Composability, Liao and Monz 2024, arXiv 2409.00119",
    .cfg_rows = rows,
    .cfg_size = sizeof(road_cfg),
    .peft_type = "ROAD",
    .no_unmerge = "its rows are mixed two by two with those of the base",
    .attach = road_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .touches_bias = pf_delta_touches,
    .merge_bias = merge_bias,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};

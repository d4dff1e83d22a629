/* c3a.c - C3A: y = W x + D x / in, D a matrix of circulant blocks, each made of one trained row
 * (Chen et al. 2024, arXiv 2407.19342): a high rank for block_size times fewer numbers than W has.
 *
 * Block (m, n) of D is D[u, t] = w[m, n, (t - u) mod size]; peft makes the product by Fourier
 * transforms, here a row of blocks at a time goes through the dense products (circulant.c), so D
 * never exists. (peft 0.21 gives the input another gradient than that of its forward pass; here it
 * is the gradient.) c3a_kernel (out / size, in / size, size) and its first numbers are peft's. */
#include "base/mem.h"
#include "ops/activation/activation.h"
#include "peft/delta/delta.h"
#include "peft/delta/delta_maps.h"

#include <math.h>
#include <string.h>

typedef struct c3a_cfg {
    pf_delta_cfg d;
    int64_t block_size;
    pf_cfg_map block_size_pattern;
    const char *init_weights;
} c3a_cfg;

/* clang-format off */
static const pf_cfg_row rows[] = {
    PF_CFG_INT(c3a_cfg, block_size, 256, 1, 65536, "size of a circulant block; it should divide the inputs and outputs of every layer"),
    PF_DELTA_NAME_ROWS(c3a_cfg),
    PF_DELTA_LAYER_ROWS(c3a_cfg),
    PF_CFG_NUMMAP(c3a_cfg, block_size_pattern, 1, 65536, "other sizes for some modules: {name or regular expression: block_size}", .flags = PF_CFG_WHOLE),
    PF_CFG_ENUM(c3a_cfg, init_weights, "xavier_uniform", "xavier_uniform gaussian kaiming_uniform true=yes=on false=no=off", "first numbers; true: zeros, so that there is no update at first; false: as xavier_uniform"),
    PF_CFG_END};
/* clang-format on */

typedef struct c3a_site {
    pf_delta_site s; /* (out / size in / size, size) */
    pf_circulant_args args;
} c3a_site;

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)mask_key;
    c3a_site *l = self;
    pf_value *w, *delta;
    PF_TRY(pf_delta_values(b, &l->s, &w, err));
    PF_TRY(pf_rowmap_emit(b->graph, site->name, &pf_circulant, &l->args, x, &w, 1, &delta, err));
    return pf_add(b->graph, site->name, *y, delta, y, err);
}

static peft_status attach_site(pf_adapter *ad, void *self, const pf_target *t, peft_error *err) {
    const c3a_cfg *cfg = ad->cfg.method_cfg;
    c3a_site *l = self;
    const int64_t in = l->s.site->in_dim, out = l->s.site->out_dim;
    double size = (double)cfg->block_size;
    pf_param *p;
    (void)t;
    PF_TRY(pf_delta_pattern(ad, "peft.c3a.block_size_pattern", &cfg->block_size_pattern,
                            l->s.site->name, &size, err));
    const int64_t b = (int64_t)size;
    if (in % b != 0 || out % b != 0)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: peft.c3a.block_size is %lld, which does not divide %lld x %lld",
                       l->s.site->name, (long long)b, (long long)out, (long long)in);
    l->args = (pf_circulant_args){b, 1 / (double)in};
    PF_TRY(pf_delta_param(ad, &l->s, ".c3a_kernel", out / b * (in / b), b, &p, err));
    p->n_dims = 3;
    memcpy(p->dims, (const int64_t[]){out / b, in / b, b}, 3 * sizeof *p->dims);
    return PEFT_OK;
}

static void init_site(const pf_adapter *ad, void *self, uint64_t seed) {
    const char *how = ((const c3a_cfg *)ad->cfg.method_cfg)->init_weights;
    const c3a_site *l = self;
    const double in = (double)l->s.site->in_dim, out = (double)l->s.site->out_dim;
    if (pf_streq(how, "true")) return;
    if (pf_streq(how, "gaussian")) {
        pf_fill_normal(l->s.p[0], seed, 1);
    } else {
        pf_fill_uniform(l->s.p[0], seed,
                        pf_streq(how, "kaiming_uniform") ? sqrt(1 / in) : sqrt(6 / (in + out)));
    }
}

static const pf_site_hooks hooks = {.output = output};
static const pf_delta_kind kind = {.key = "peft.c3a",
                                   .what = "C3A",
                                   .rows = rows,
                                   .cfg_size = sizeof(c3a_cfg),
                                   .site_size = sizeof(c3a_site),
                                   .kinds = 1u << PF_SITE_LINEAR | 1u << PF_SITE_HEAD,
                                   .acts_on = "linear layers and the head",
                                   .hooks = &hooks,
                                   .attach = attach_site,
                                   .init = init_site,
                                   .refused = pf_delta_bias_keys};

static peft_status c3a_attach(pf_adapter *ad, peft_error *err) {
    return pf_delta_attach(ad, &kind, err);
}

static peft_status read_config(pf_arena *a, const struct json_t *c, const char *where,
                               const void **cfg, peft_error *err) {
    return pf_delta_read_config(&kind, a, c, where, cfg, err);
}

static peft_status merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                         float *out, peft_error *err) {
    const c3a_site *l = pf_delta_at(ad, site);
    const int64_t in = site->in_dim, b = l->args.size;
    (void)err;
    for (int64_t i = 0; i < n; i++) {
        const int64_t u = (row0 + i) % b;
        const pf_real *w = l->s.p[0]->data + (row0 + i) / b * in;
        float *row = out + i * in;
        for (int64_t c = 0; c < in; c += b)
            for (int64_t k = 0; k < b; k++)
                row[c + (u + k) % b] =
                    (float)((double)row[c + (u + k) % b] + l->args.scale * (double)w[c + k]);
    }
    return PEFT_OK;
}

const pf_method pf_method_c3a = {
    .name = "c3a",
    .help = "update of circulant blocks (C3A, arXiv 2407.19342)",
    .paper = "Parameter-Efficient Fine-Tuning via Circular Convolution, Chen et al. 2024, arXiv "
             "2407.19342",
    .cfg_rows = rows,
    .cfg_size = sizeof(c3a_cfg),
    .peft_type = "C3A",
    .attach = c3a_attach,
    .init = pf_delta_init,
    .touches = pf_delta_touches,
    .merge_weight = merge,
    .read_config = read_config,
    .write_config = pf_delta_write_config,
};

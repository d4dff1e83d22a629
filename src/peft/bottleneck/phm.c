/* phm.c - parametrized hypercomplex projections: W = sum over i of A_i ⊗ W_i, the A_i (d, d) a rule
 * that all layers may share, W_i = L_i R_i of rank phm_rank (Mahabadi et al. 2021, Compacter, arXiv
 * 2106.04647, section 3; Zhang et al. 2021, arXiv 2102.08597).
 *
 * Names, shapes and first distributions are AdapterHub's: whatever hypercomplex_nonlinearity says,
 * it draws W_i, L_i and R_i from glorot-normal distributions. A rule that is not learned is frozen.
 */
#include "ops/made/made.h"
#include "peft/bottleneck/bottleneck.h"
#include "peft/first_weights.h"

#include <math.h>

peft_status pf_phm_check(const pf_bottleneck_cfg *cfg, int64_t hidden, int64_t width,
                         peft_error *err) {
    if (hidden % cfg->phm_dim == 0 && width % cfg->phm_dim == 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "phm_dim %lld has to divide the hidden size %lld and the bottleneck of %lld; "
                   "choose another phm_dim, reduction_factor or bottleneck_size",
                   (long long)cfg->phm_dim, (long long)hidden, (long long)width);
}

/* n matrices (rows, cols), stacked; three dimensions in the file */
static peft_status add_stack(pf_adapter *ad, const char *prefix, const char *suffix, int64_t n,
                             int64_t rows, int64_t cols, pf_param **out, peft_error *err) {
    PF_TRY(pf_bottleneck_param(ad, prefix, suffix, n * rows, cols, out, err));
    (*out)->n_dims = 3;
    (*out)->dims[0] = n;
    (*out)->dims[1] = rows;
    (*out)->dims[2] = cols;
    return PEFT_OK;
}

/* "<name>", or "<name>_left" and "<name>_right" */
static peft_status add_factors(pf_adapter *ad, const char *prefix, const char *name,
                               bool factorized, int64_t n, int64_t rows, int64_t rank, int64_t cols,
                               pf_phm_factors *out, peft_error *err) {
    if (!factorized) return add_stack(ad, prefix, name, n, rows, cols, &out->whole, err);
    const char *left = pf_arena_printf(&ad->arena, "%s_left", name),
               *right = pf_arena_printf(&ad->arena, "%s_right", name);
    PF_CHECK_ALLOC(left, err);
    PF_CHECK_ALLOC(right, err);
    PF_TRY(add_stack(ad, prefix, left, n, rows, rank, &out->left, err));
    return add_stack(ad, prefix, right, n, rank, cols, &out->right, err);
}

static peft_status add_rule(pf_adapter *ad, const pf_bottleneck_cfg *cfg, const char *prefix,
                            pf_phm_factors *out, peft_error *err) {
    const int64_t d = cfg->phm_dim;
    PF_TRY(add_factors(ad, prefix, "phm_rule", cfg->factorized_phm_rule, d, d, 1, d, out, err));
    pf_param *const all[] = {out->left, out->right, out->whole};
    for (int i = 0; i < 3 && !cfg->learn_phm; i++) {
        if (all[i] != NULL) pf_params_fix(&ad->params, all[i]);
    }
    return PEFT_OK;
}

static peft_status add_w(pf_adapter *ad, const pf_bottleneck_cfg *cfg, const char *prefix,
                         const char *name, int64_t in, int64_t out, pf_phm_factors *w,
                         peft_error *err) {
    const int64_t d = cfg->phm_dim;
    return add_factors(ad, prefix, name, cfg->factorized_phm_W, d, in / d, cfg->phm_rank, out / d,
                       w, err);
}

peft_status pf_phm_add_shared(pf_adapter *ad, const pf_bottleneck_cfg *cfg, const char *prefix,
                              int64_t hidden, int64_t width, pf_bottleneck_shared *out,
                              peft_error *err) {
    if (cfg->shared_W_phm) {
        PF_TRY(add_w(ad, cfg, prefix, "W_down", hidden, width, &out->down, err));
        PF_TRY(add_w(ad, cfg, prefix, "W_up", width, hidden, &out->up, err));
    }
    return cfg->shared_phm_rule ? add_rule(ad, cfg, prefix, &out->rule, err) : PEFT_OK;
}

peft_status pf_phm_add(pf_adapter *ad, const pf_bottleneck_cfg *cfg,
                       const pf_bottleneck_shared *shared, const char *prefix, bool is_up,
                       pf_projection *p, peft_error *err) {
    p->rule = shared->rule;
    p->w = is_up ? shared->up : shared->down;
    if (!cfg->shared_phm_rule) PF_TRY(add_rule(ad, cfg, prefix, &p->rule, err));
    if (!cfg->shared_W_phm) PF_TRY(add_w(ad, cfg, prefix, "W", p->in, p->out, &p->w, err));
    if (!cfg->phm_bias) return PEFT_OK;
    PF_TRY(pf_bottleneck_vector(ad, prefix, "b", p->out, &p->bias, err));
    p->bias->decay = true; /* as transformers' Trainer, which goes by the name */
    return PEFT_OK;
}

/* ---- in a build ------------------------------------------------------------------------------ */

static peft_status build_factors(pf_build *b, const pf_phm_factors *f, int64_t n, const char *name,
                                 pf_value **out, peft_error *err) {
    *out = pf_graph_param(b->graph, f->whole != NULL ? f->whole : f->left);
    PF_CHECK_ALLOC(*out, err);
    if (f->whole != NULL) return PEFT_OK;
    pf_value *right = pf_graph_param(b->graph, f->right);
    PF_CHECK_ALLOC(right, err);
    return pf_batch_product(b->graph, name, *out, right, &(pf_batch_product_args){.n = n}, out,
                            err);
}

peft_status pf_phm_build(pf_build *b, const pf_bottleneck_cfg *cfg, const pf_projection *p,
                         const char *name, pf_value **w, peft_error *err) {
    pf_value *rule, *stack;
    PF_TRY(build_factors(b, &p->rule, cfg->phm_dim, name, &rule, err));
    PF_TRY(build_factors(b, &p->w, cfg->phm_dim, name, &stack, err));
    return pf_kron_sum(b->graph, name, rule, stack, w, err);
}

/* ---- first weights --------------------------------------------------------------------------- */

static void glorot(pf_param *p, uint64_t seed) {
    if (p != NULL) pf_fill_normal(p, seed, sqrt(2 / (double)(p->dims[1] + p->dims[2])));
}

static void init_rule(const pf_bottleneck_cfg *cfg, pf_param *p, uint64_t seed) {
    const bool shared = cfg->shared_phm_rule;
    if (p == NULL) return;
    if (pf_streq(cfg->phm_c_init, "uniform")) {
        pf_fill_uniform(p, seed, shared ? 1 : 0.01);
    } else {
        pf_fill_normal(p, seed, shared ? cfg->phm_init_range : 0.01);
    }
}

void pf_phm_init(const pf_bottleneck_cfg *cfg, const pf_projection *p, uint64_t seed) {
    glorot(p->w.left, seed);
    glorot(p->w.right, seed);
    glorot(p->w.whole, seed);
    init_rule(cfg, p->rule.left, seed);
    init_rule(cfg, p->rule.right, seed);
    init_rule(cfg, p->rule.whole, seed);
}

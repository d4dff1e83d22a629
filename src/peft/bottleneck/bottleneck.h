/* bottleneck.h - what the files of bottleneck/ share: the configuration, the two projections of an
 * adapter, and invertible adapters.
 *
 * All kinds (bottleneck_kinds.c) are one method with other defaults, as in AdapterHub: one set of
 * keys, one file format, one forward pass (bottleneck.c). */
#ifndef PF_BOTTLENECK_H
#define PF_BOTTLENECK_H

#include "peft/method.h"

typedef struct pf_bottleneck_cfg {
    const char *adapter_name;
    bool mh_adapter, output_adapter, cross_adapter;
    double reduction_factor;      /* 0: reduction_factors has one for every layer */
    pf_cfg_map reduction_factors; /* "3" or "default" -> factor, before reduction_factor */
    int64_t bottleneck_size;      /* 0: by the factor */
    const char *non_linearity;
    bool original_ln_before, original_ln_after, ln_before, ln_after;
    const char *init_weights; /* bert mam_adapter houlsby */
    bool is_parallel, use_gating;
    const char *scaling;            /* a number, learned, channel */
    const char *residual_before_ln; /* true false post_add */
    bool adapter_residual_before_ln;
    const char *inv_adapter; /* none nice */
    double inv_adapter_reduction_factor;
    pf_cfg_ints leave_out;
    double dropout, stochastic_depth;
    bool phm_layer, factorized_phm_W, shared_W_phm, shared_phm_rule, factorized_phm_rule, learn_phm,
        phm_bias;
    int64_t phm_dim, phm_rank;
    const char *phm_c_init; /* normal uniform */
    double phm_init_range;
    const char *hypercomplex_nonlinearity; /* stands in files; glorot normal is what is drawn */
} pf_bottleneck_cfg;

/* A matrix of PHM: W_i = left_i right_i, or w, and the rule the same; phm.c. */
typedef struct pf_phm_factors {
    pf_param *left, *right, *whole;
} pf_phm_factors;

typedef struct pf_projection { /* y = x Wᵀ + b */
    int64_t in, out;
    pf_param *weight, *bias;
    pf_phm_factors w, rule; /* when weight is NULL */
} pf_projection;

typedef struct pf_bottleneck_shared { /* of all PHM layers; empty where nothing is shared */
    pf_phm_factors down, up, rule;
} pf_bottleneck_shared;

/* --- parameters of an adapter, in the order of AdapterHub's file --- */
/* "prefix.suffix" */
peft_status pf_bottleneck_param(pf_adapter *ad, const char *prefix, const char *suffix,
                                int64_t rows, int64_t cols, pf_param **out, peft_error *err);
/* The same with one dimension; no decay. */
peft_status pf_bottleneck_vector(pf_adapter *ad, const char *prefix, const char *suffix, int64_t n,
                                 pf_param **out, peft_error *err);

/* --- bottleneck.c, for what is put over several adapters (fusion/) --- */
typedef struct pf_bottleneck_flow { /* what an adapter has before it at its place */
    pf_value *branch, *h;           /* h: what it reads */
    pf_value *residual;             /* AdapterHub's word: for parallel adapters the stream */
    pf_value *rest;                 /* what will be added to its output; NULL: nothing */
    bool is_parallel;
} pf_bottleneck_flow;
/* What stands in the place of one adapter's output: sets *y, and may change f->rest. */
typedef struct pf_bottleneck_mix {
    peft_status (*build)(pf_build *b, void *self, pf_site *site, pf_bottleneck_flow *f,
                         pf_value **y, peft_error *err);
    void *self;
} pf_bottleneck_mix;
/* The adapter's module at a site, "<block>.output_adapters.adapters.<name>"; NULL: it has none.
 * As all of these, of one that acts or is suspended. */
const char *pf_bottleneck_module(const pf_adapter *ad, const pf_site *site);
/* scaling · up(f(down(h))) of that module */
peft_status pf_bottleneck_up(pf_build *b, const pf_adapter *ad, const pf_site *site, pf_value *h,
                             pf_value **y, peft_error *err);
/* The join as this adapter's configuration has it, around the mix. */
peft_status pf_bottleneck_join_mixed(pf_build *b, const pf_adapter *ad,
                                     const pf_bottleneck_mix *mix, pf_site *site, pf_value *stream,
                                     pf_value *branch, pf_value **sum, peft_error *err);

/* --- projections, plain or PHM --- */
peft_status pf_projection_add(pf_adapter *ad, const pf_bottleneck_cfg *cfg,
                              const pf_bottleneck_shared *shared, const char *prefix, bool is_up,
                              int64_t in, int64_t out, pf_projection *p, peft_error *err);
peft_status pf_projection_build(pf_build *b, const pf_bottleneck_cfg *cfg, const pf_projection *p,
                                const char *name, pf_value *x, pf_value **y, peft_error *err);

/* --- phm.c --- */
/* Sizes that the dimension does not divide; `where` begins the message. */
peft_status pf_phm_check(const pf_bottleneck_cfg *cfg, int64_t hidden, int64_t width,
                         peft_error *err);
peft_status pf_phm_add_shared(pf_adapter *ad, const pf_bottleneck_cfg *cfg, const char *prefix,
                              int64_t hidden, int64_t width, pf_bottleneck_shared *out,
                              peft_error *err);
peft_status pf_phm_add(pf_adapter *ad, const pf_bottleneck_cfg *cfg,
                       const pf_bottleneck_shared *shared, const char *prefix, bool is_up,
                       pf_projection *p, peft_error *err);
peft_status pf_phm_build(pf_build *b, const pf_bottleneck_cfg *cfg, const pf_projection *p,
                         const char *name, pf_value **w, peft_error *err);
void pf_phm_init(const pf_bottleneck_cfg *cfg, const pf_projection *p, uint64_t seed);

/* --- invertible.c --- */
typedef struct pf_invertible pf_invertible;
/* Behind the embeddings of ad->model; NULL where the configuration has none. */
peft_status pf_invertible_attach(pf_adapter *ad, const pf_bottleneck_cfg *cfg, pf_invertible **out,
                                 peft_error *err);
void pf_invertible_init(const pf_invertible *inv, uint64_t seed);

/* --- bottleneck_config.c --- */
void pf_bottleneck_check_config(pf_cfg *c, const void *section);
/* learned, channel, or the number in *value (*word is NULL) */
bool pf_bottleneck_scaling(const pf_bottleneck_cfg *cfg, const char **word, double *value);
/* Python's x // y of floats, which makes a width of a factor */
double pf_bottleneck_floor_divide(double x, double y);
bool pf_bottleneck_is_config(const struct json_t *config);
peft_status pf_bottleneck_read_config(pf_arena *a, const struct json_t *file, const char *where,
                                      const void **method_cfg, peft_error *err);
peft_status pf_bottleneck_write_config(const pf_adapter *ad, struct json_t *file, peft_error *err);

/* --- bottleneck.c, for the descriptors --- */
peft_status pf_bottleneck_attach(pf_adapter *ad, peft_error *err);
peft_status pf_bottleneck_init(pf_adapter *ad, uint64_t seed, peft_error *err);
void pf_bottleneck_ready(pf_adapter *ad);
bool pf_bottleneck_has_dropout(const pf_adapter *ad);
bool pf_bottleneck_repeats(const pf_adapter *ad, const char *tensor);

#endif

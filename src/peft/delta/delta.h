/* delta.h - what the methods of this folder share: updates of linear layers that are not a product
 * of two factors (or not of two trained ones), each one file and one row in methods.def.
 *
 * A method here is a pf_delta_kind beside its pf_method: a section of the configuration that begins
 * with pf_delta_cfg, a struct per site that begins with pf_delta_site, and a few functions. Keys
 * are peft's, so one list of rows reads the configuration, reads adapter_config.json and writes it.
 */
#ifndef PF_DELTA_H
#define PF_DELTA_H

#include "ops/derive/derive.h"
#include "peft/first_weights.h"
#include "peft/targets.h"

typedef struct pf_delta_cfg {
    pf_cfg_strings target_modules, exclude_modules, layers_pattern, modules_to_save;
    pf_cfg_ints layers_to_transform;
    pf_cfg_map rank_pattern, alpha_pattern;
} pf_delta_cfg;

/* Rows of a section S whose first member is `pf_delta_cfg d`: all of them, or of classes of peft
 * that have fewer. */
// clang-format off
#define PF_DELTA_NAME_ROWS(S)                                                                                                          \
    PF_CFG_STRLIST_AS(S, d.target_modules, "target_modules", NULL, "a list of module names (suffixes), one regular expression for the full name, or all-linear; default: the family's"), \
    PF_CFG_STRLIST_AS(S, d.modules_to_save, "modules_to_save", NULL, "modules trained whole and saved with the adapter")
#define PF_DELTA_LAYER_ROWS(S)                                                                                                         \
    PF_CFG_INTLIST_AS(S, d.layers_to_transform, "layers_to_transform", 0, 100000, "only these layers, counted from 0; default: all"), \
    PF_CFG_STRLIST_AS(S, d.layers_pattern, "layers_pattern", NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform")
#define PF_DELTA_TARGET_ROWS(S)                                                                                                        \
    PF_CFG_STRLIST_AS(S, d.target_modules, "target_modules", NULL, "a list of module names (suffixes), one regular expression for the full name, or all-linear; default: the family's"), \
    PF_CFG_STRLIST_AS(S, d.exclude_modules, "exclude_modules", NULL, "names (suffixes) or one regular expression: modules left out of target_modules"), \
    PF_CFG_INTLIST_AS(S, d.layers_to_transform, "layers_to_transform", 0, 100000, "only these layers, counted from 0; default: all"), \
    PF_CFG_STRLIST_AS(S, d.layers_pattern, "layers_pattern", NULL, "name of the list of layers, where it is not layers, h or blocks; needs layers_to_transform"), \
    PF_CFG_STRLIST_AS(S, d.modules_to_save, "modules_to_save", NULL, "modules trained whole and saved with the adapter")
#define PF_DELTA_PATTERN_ROWS(S)                                                                                                       \
    PF_CFG_NUMMAP_AS(S, d.rank_pattern, "rank_pattern", 1, 65536, "other ranks for some modules: {name or regular expression: r}", .flags = PF_CFG_WHOLE), \
    PF_CFG_NUMMAP_AS(S, d.alpha_pattern, "alpha_pattern", 0, 1e6, "other alphas for some modules: {name or regular expression: alpha}")
// clang-format on

/* What is left out for a whole step of training (ops/activation/step_mask.h). peft draws anew in
 * every forward pass; here a step is one draw, however many micro-batches it has. A module that is
 * left out has a zero gradient in that step. */
typedef struct pf_delta_drop {
    double columns, module; /* rank_dropout: outputs of the update; module_dropout: all of it */
    bool scaled;
} pf_delta_drop;
// clang-format off
#define PF_DELTA_DROP_ROWS(S)                                                                                                          \
    PF_CFG_FLOAT_AS(S, drop.columns, "rank_dropout", 0, 0, 1, "share of the update's outputs left out in a step, in training only", .flags = PF_CFG_BELOW_MAX), \
    PF_CFG_FLOAT_AS(S, drop.module, "module_dropout", 0, 0, 1, "probability that a module's update is left out of a step, in training only", .flags = PF_CFG_BELOW_MAX)
// clang-format on

enum { PF_DELTA_PARAMS = 4 };

typedef struct pf_delta_site {
    const pf_adapter *ad;
    pf_site *site;
    pf_param *p[PF_DELTA_PARAMS]; /* of this site alone */
    int n_p;
} pf_delta_site;

typedef struct pf_delta_kind {
    const char *key, *what; /* "peft.loha", "LoHa" */
    const pf_cfg_row *rows;
    size_t cfg_size, site_size;
    unsigned kinds; /* 1 << PF_SITE_LINEAR and the like */
    const char *acts_on;
    const pf_site_hooks *hooks;
    const pf_site_hooks *embedding_hooks;                     /* of an embedding; NULL: hooks */
    void (*rank)(const void *cfg, int64_t *r, double *alpha); /* NULL: no ranks */
    /* Adds the parameters of a site; sizes that the method cannot have are refused by name. */
    peft_status (*attach)(pf_adapter *ad, void *self, const pf_target *t, peft_error *err);
    void (*init)(const pf_adapter *ad, void *self, uint64_t seed);
    /* Keys of adapter_config.json that are not ours: NULL at the end; refused unless they are off
     * (null, false, 0, "none", empty). */
    const char *const *refused;
} pf_delta_kind;

/* "bias", "fan_in_fan_out" and the like: what peft has beside these methods and is not done here */
extern const char *const pf_delta_bias_keys[];

/* --- of a pf_method --- */
peft_status pf_delta_attach(pf_adapter *ad, const pf_delta_kind *kind, peft_error *err);
peft_status pf_delta_init(pf_adapter *ad, uint64_t seed, peft_error *err);
/* A zero gradient is expected wherever another parameter of the site is zero throughout. */
void pf_delta_ready(pf_adapter *ad);
bool pf_delta_touches(const pf_adapter *ad, const pf_site *site);
peft_status pf_delta_read_config(const pf_delta_kind *kind, pf_arena *a, const struct json_t *c,
                                 const char *where, const void **method_cfg, peft_error *err);
peft_status pf_delta_write_config(const pf_adapter *ad, struct json_t *c, peft_error *err);

/* --- for a method's functions --- */
void *pf_delta_at(const pf_adapter *ad, const pf_site *site); /* its struct there, or NULL */
/* A parameter named after the site: suffix ".hada_w1_a". */
peft_status pf_delta_param(pf_adapter *ad, pf_delta_site *s, const char *suffix, int64_t rows,
                           int64_t cols, pf_param **out, peft_error *err);
/* *value becomes the number of the first key of a map that means this module (as rank_pattern);
 * key: "peft.c3a.block_size_pattern". */
peft_status pf_delta_pattern(pf_adapter *ad, const char *key, const pf_cfg_map *map,
                             const char *module, double *value, peft_error *err);
/* The site's parameters as values. */
peft_status pf_delta_values(pf_build *b, const pf_delta_site *s, pf_value **out, peft_error *err);
/* kaiming_uniform_(a = sqrt(5)), torch's usual: uniform in +-1/sqrt(columns) */
void pf_delta_fill_kaiming(pf_param *p, uint64_t seed);

/* While attaching: a step may leave all of it out. */
void pf_delta_may_drop(const pf_delta_site *s, const pf_delta_drop *drop);
/* *y += what is kept of delta (R, out). */
peft_status pf_delta_add(pf_build *b, const pf_delta_site *s, const pf_delta_drop *drop,
                         pf_value *delta, pf_value **y, peft_error *err);
/* *z: sets of square blocks, some of which become the identity. */
peft_status pf_delta_drop_blocks(pf_build *b, const pf_delta_site *s, double p, int64_t sets,
                                 int64_t blocks, pf_value **z, peft_error *err);

/* A derive function outside of a graph, for merging; the outputs' data is freed by the caller
 * (pf_free). */
peft_status pf_delta_derive(const pf_derive *fn, const void *args, const pf_mat *in, int n_in,
                            pf_mat *out, peft_error *err);
pf_mat pf_delta_mat(const pf_param *p);
/* Rows (n, cols) times the transposes of n_maps rotations by blocks of r (rotate.c), in this order;
 * in double. */
struct pf_rotate_args;
peft_status pf_delta_rotate_rows(const struct pf_rotate_args *a, const pf_mat *r, int n_maps,
                                 float *rows, int64_t n, int64_t cols, peft_error *err);
/* rows (n, cols) += scale left (n, k) right (k, cols), sums in double */
void pf_delta_add_product(float *rows, int64_t n, int64_t cols, double scale, int64_t k,
                          const pf_real *left, int64_t left_step, const pf_real *right);

#endif

/* lora.h - what the files of lora/ share. */
#ifndef PF_LORA_H
#define PF_LORA_H

#include "ops/matmul/dora.h"
#include "peft/first_look.h"
#include "peft/targets.h"
#include "peft/tokens/tokens.h"

typedef struct pf_lora_eva pf_lora_eva; /* lora_eva.c */

typedef struct pf_lora_eva_cfg { /* keys as in peft's EvaConfig, and max_rows */
    double rho, tau;
    bool use_label_mask, whiten, adjust_scaling_factors;
    int64_t label_mask_value, max_rows;
} pf_lora_eva_cfg;

typedef struct pf_lora_cfg {
    int64_t r;
    double alpha, dropout;
    pf_cfg_strings target_modules; /* single: one regular expression, or "all-linear" */
    pf_cfg_strings exclude_modules;
    pf_cfg_ints layers_to_transform;
    pf_cfg_strings layers_pattern;
    pf_cfg_map rank_pattern, alpha_pattern; /* name or regular expression -> number */
    bool use_rslora, use_dora, lora_bias, ensure_weight_tying;
    const char *bias; /* none all lora_only */
    pf_cfg_strings modules_to_save;
    pf_cfg_ints trainable_token_indices; /* of the embedding, as a configuration has them */
    pf_token_lists tokens;               /* as a file has them, which may name modules */
    double loraplus_lr_ratio, loraplus_lr_embedding; /* ratio 0: not LoRA+ */
    bool lora_fa;
    const char *init_lora_weights; /* see pf_lora_init_of */
    pf_lora_eva_cfg eva_config;
    const pf_lora_eva *eva; /* what was seen; NULL: nothing yet */
} pf_lora_cfg;

/* One module that LoRA acts on. Numbers of an embedding's factors: A (r, V), B (C, r). */
typedef struct pf_lora_site {
    const pf_adapter *ad;
    pf_site *site;
    pf_param *a, *b;   /* linear, head: (r,in), (out,r) */
    pf_param *a0, *b0; /* the first factors, where they are part of the base: they are taken off */
    pf_param *bias;    /* of B (1,out); NULL: none */
    int64_t r;
    double alpha, scale, dropout;
    /* DoRA */
    pf_param *magnitude; /* (1,out); NULL: plain LoRA */
    double *sums;        /* (out) of the squares of the base's rows (or columns) */
    float *square_values;
    pf_weight squares;   /* the same (1,out) as a graph takes them */
    pf_dora_kept kept;   /* of graphs */
    pf_dora_kept merged; /* of merging */
} pf_lora_site;

typedef struct pf_lora {
    pf_lora_site **at; /* by site->index; NULL where LoRA does not act */
    /* The first factors are part of the base: files have them beside the trained ones, as plain
     * LoRA of twice the rank */
    bool converted;
    pf_tokens *tokens; /* trainable_token_indices; NULL: none */
    bool squares_done;
    pf_lora_eva *eva; /* while the adapter is shown what its sites see */
} pf_lora;

/* ---- lora_config.c --------------------------------------------------------------------------- */
extern const pf_cfg_row pf_lora_cfg_rows[];
void pf_lora_check_config(pf_cfg *c, const void *section);
/* The token rows that are trained too; in room where a configuration has them. */
pf_token_lists pf_lora_token_lists(const pf_lora_cfg *cfg, pf_token_list room[1]);
/* What its section says about modules. */
pf_target_rules pf_lora_rules(const pf_lora_cfg *cfg);

peft_status pf_lora_read_config(pf_arena *a, const struct json_t *config, const char *where,
                                const void **method_cfg, peft_error *err);
peft_status pf_lora_write_config(const pf_adapter *ad, struct json_t *config, peft_error *err);

/* ---- lora_init.c: first weights -------------------------------------------------------------- */
typedef enum pf_lora_init_kind {
    PF_LORA_INIT_KAIMING, /* true */
    PF_LORA_INIT_RANDOM,  /* false */
    PF_LORA_INIT_GAUSSIAN,
    PF_LORA_INIT_ORTHOGONAL,
    PF_LORA_INIT_PISSA, /* pissa and pissa_niter_<n> */
    PF_LORA_INIT_OLORA,
    PF_LORA_INIT_EVA,
    PF_LORA_INIT_UNKNOWN
} pf_lora_init_kind;
extern const char *const pf_lora_init_names; /* "true, false, ..." for messages */
/* "true", "gaussian", ... as peft spells them. */
pf_lora_init_kind pf_lora_init_of(const char *text);
/* Are the first factors a part of the base's weight (which stays as it is: a0 and b0)? */
static inline bool pf_lora_init_on_base(pf_lora_init_kind k) {
    return k == PF_LORA_INIT_PISSA || k == PF_LORA_INIT_OLORA;
}
/* Can this module begin so? And room for its first factors. */
peft_status pf_lora_init_attach(pf_adapter *ad, pf_lora_site *l, pf_lora_init_kind kind,
                                peft_error *err);
peft_status pf_lora_init(pf_adapter *ad, uint64_t seed, peft_error *err);

/* ---- lora_eva.c: first weights from what the layers see ------------------------------------- */
extern const pf_first_look pf_lora_first_look;
/* A of a module that eva has a part in; false: of this one it has none, or nothing was seen yet. */
bool pf_lora_eva_init(const pf_lora_cfg *cfg, const pf_lora_site *l);

/* ---- lora_dora.c: DoRA (see ops/matmul/dora.h) ----------------------------------------------- */
/* The magnitude and its room, while attaching. */
peft_status pf_lora_dora_attach(pf_adapter *ad, pf_lora_site *l, peft_error *err);
/* v -> m / |W + s B A| * v */
peft_status pf_lora_dora_scale(pf_build *b, pf_lora_site *l, pf_value *va, pf_value *vb,
                               pf_value **v, peft_error *err);
/* Sums of squares of the base, once there are weights; later calls do nothing. */
void pf_lora_dora_prepare(pf_adapter *ad);
/* Magnitudes that leave every row as long as it is. */
peft_status pf_lora_dora_init(pf_lora_site *l, peft_error *err);
/* Rows [row0, row0 + n) of W + s BA become those of the merged matrix. */
peft_status pf_lora_dora_merge(pf_lora_site *l, int64_t row0, int64_t n, float *rows,
                               peft_error *err);

/* ---- lora_train.c: LoRA+ and LoRA-FA ----------------------------------------------------------
 */
peft_status pf_lora_train_as(pf_adapter *ad, const void *section, double learning_rate,
                             peft_error *err);

/* ---- lora_merge.c ---------------------------------------------------------------------------- */
bool pf_lora_touches(const pf_adapter *ad, const pf_site *site);
peft_status pf_lora_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                          float *rows, peft_error *err);
/* What files have of a parameter: it, or where st->converted both pairs side by side. */
void pf_lora_file_size(const pf_adapter *ad, const pf_param *p, int64_t *rows, int64_t *cols);
void pf_lora_file_row(const pf_adapter *ad, const pf_param *p, int64_t row, float *out);
/* rows (n, width of the site's matrix) += s (BA - B0 A0), without magnitudes */
void pf_lora_add_update(const pf_lora_site *l, int64_t row0, int64_t n, float *rows);

#endif

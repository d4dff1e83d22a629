/* model_config.h - keys of config.json that most families have, under one name or another, and the
 * naming of their sites. A family calls these while it opens. */
#ifndef PF_MODEL_CONFIG_H
#define PF_MODEL_CONFIG_H

#include "nn/model.h"

/* Names of the sizes in config.json; the first of a pair that is there counts. NULL: there is no
 * second name, or for positions none at all. */
typedef struct pf_size_keys {
    const char *hidden[2], *layers[2], *heads[2], *positions;
    int64_t usual_positions; /* where the key is missing; 0: 2048 */
} pf_size_keys;

extern const pf_size_keys pf_usual_size_keys; /* hidden_size, num_hidden_layers, ... */

/* Fills hidden, vocab, n_layers, n_heads, n_kv_heads (as many), head_dim (hidden / heads, which has
 * to be whole) and max_positions. */
peft_status pf_model_read_sizes(pf_model *m, const pf_size_keys *keys, peft_error *err);
/* num_key_value_heads, a divisor of the heads; missing or null: as many as heads */
peft_status pf_model_read_kv_heads(pf_model *m, const char *key, peft_error *err);
/* A width of some layer; `def` stands in for a missing or null key, 0: it has to be there. */
peft_status pf_model_read_width(const pf_model *m, const char *key, int64_t def, int64_t *out,
                                peft_error *err);
/* The activation function that `key` names (activation.h). */
peft_status pf_model_read_activation(const pf_model *m, const char *key, const char *def,
                                     const pf_op **out, peft_error *err);
peft_status pf_model_read_eps(const pf_model *m, const char *key, double *eps, peft_error *err);
/* Where the sites of one layer are added: their names are `path` and a part, ".mlp.fc1". */
typedef struct pf_place {
    pf_model *m;
    int layer;
    const char *path; /* "model.layers.3" */
} pf_place;

/* pf_model_add_site under that name. A norm is given with in_dim = out_dim. */
peft_status pf_place_add(pf_place p, pf_site_kind kind, const char *part, int64_t out_dim,
                         int64_t in_dim, bool bias, pf_site **site, peft_error *err);

#endif

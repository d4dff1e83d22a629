/* rope_types.h - frequencies of the RoPE types of Hugging Face's modeling_rope_utils: default,
 * linear, dynamic, llama3, yarn, longrope.
 *
 * config.json says it in two dialects: `rope_theta` and `rope_scaling` (transformers before 5), or
 * everything inside `rope_parameters` (transformers 5). Both are read; where both stand, Hugging
 * Face's order of precedence holds. */
#ifndef PF_ROPE_TYPES_H
#define PF_ROPE_TYPES_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

struct json_t; /* jansson */

typedef enum pf_rope_type {
    PF_ROPE_DEFAULT,
    PF_ROPE_LINEAR,
    PF_ROPE_DYNAMIC,
    PF_ROPE_LLAMA3,
    PF_ROPE_YARN,
    PF_ROPE_LONGROPE
} pf_rope_type;

typedef struct pf_rope_spec {
    pf_rope_type type;
    int64_t dim; /* rotated columns of a head: head_dim * partial_rotary_factor; even */
    double theta;
    double partial; /* partial_rotary_factor, 1 when the config has none */
    double factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    int64_t original_max_positions, max_positions;
    double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn */
    double attention_factor;                             /* 0: by the type's rule */
    const struct json_t *short_factor, *long_factor;     /* longrope: dim / 2 numbers each, borrowed
                                                            from the config */
    bool truncate; /* yarn: round the correction range; true in most configs */
} pf_rope_spec;

/* The name that config.json has for it. */
const char *pf_rope_type_name(pf_rope_type type);

/* Reads the RoPE of a parsed config.json; `where` names the file in messages. default_theta stands
 * in for a missing one. */
peft_status pf_rope_spec_read(pf_rope_spec *out, const struct json_t *config, const char *where,
                              int64_t head_dim, int64_t max_positions, double default_theta,
                              peft_error *err);

/* The same for a family that has other names and defaults. */
typedef struct pf_rope_defaults {
    double theta, partial;               /* for missing keys */
    const char *theta_key, *partial_key; /* beside rope_scaling: rope_theta, rotary_pct, ... */
} pf_rope_defaults;
peft_status pf_rope_spec_read_as(pf_rope_spec *out, const struct json_t *config, const char *where,
                                 int64_t head_dim, int64_t max_positions,
                                 const pf_rope_defaults *def, peft_error *err);

/* inv_freq (dim / 2) and the factor that cos and sin are multiplied by. For `dynamic` those of
 * samples up to the original length; pf_rope_dynamic_theta gives the base of a longer one. For
 * `longrope` likewise; pf_rope_long_frequencies gives those of longer ones. */
peft_status pf_rope_frequencies(const pf_rope_spec *spec, float *inv_freq, double *attention_factor,
                                peft_error *err);
peft_status pf_rope_long_frequencies(const pf_rope_spec *spec, float *inv_freq, peft_error *err);
/* The length up to which samples of any length are turned alike: batch_builder.h's rope_original.
 * 0: this type does not look at the length. */
int32_t pf_rope_original(const pf_rope_spec *spec);
/* theta * (factor * length / original - (factor - 1)) ^ (dim / (dim - 2)), lengths below the
 * original counted as it */
double pf_rope_dynamic_theta(const pf_rope_spec *spec, int64_t length);

#endif

/* rope_types.h - frequencies of the RoPE types of Hugging Face's modeling_rope_utils: default,
 * linear, dynamic, llama3, yarn. Read from config.json's rope_theta, rope_scaling or
 * rope_parameters. */
#ifndef PF_ROPE_TYPES_H
#define PF_ROPE_TYPES_H

#include "base/arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum pf_rope_type {
    PF_ROPE_DEFAULT,
    PF_ROPE_LINEAR,
    PF_ROPE_DYNAMIC,
    PF_ROPE_LLAMA3,
    PF_ROPE_YARN
} pf_rope_type;

typedef struct pf_rope_spec {
    pf_rope_type type;
    int64_t dim; /* rotated columns of a head: head_dim · partial_rotary_factor */
    double theta;
    double factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    int64_t original_max_positions, max_positions;
    double beta_fast, beta_slow, mscale, mscale_all_dim; /* yarn */
    double attention_factor;                             /* 0: by the type's rule */
    bool truncate; /* yarn: round the correction range; true in most configs */
} pf_rope_spec;

/* inv_freq (dim / 2) and the factor that cos and sin are multiplied by, for samples up to the
 * original length. */
peft_status pf_rope_frequencies(const pf_rope_spec *spec, float *inv_freq, double *attention_factor,
                                peft_error *err);

#endif

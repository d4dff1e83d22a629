/* rope_types.c - reading a RoPE specification, and its frequencies.
 *
 * The formulas follow transformers' modeling_rope_utils step by step, in its precision: exponents
 * and powers are floats there, so they are here. A frequency off by one unit in the last place
 * turns the thousandth position by 1e-4. */
#include "nn/rope_types.h"

#include "base/str.h"
#include "text/json.h"

#include <math.h>

static const struct {
    const char *name;
    pf_rope_type type;
} types[] = {
    {"default", PF_ROPE_DEFAULT}, {"linear", PF_ROPE_LINEAR}, {"dynamic", PF_ROPE_DYNAMIC},
    {"llama3", PF_ROPE_LLAMA3},   {"yarn", PF_ROPE_YARN},     {"longrope", PF_ROPE_LONGROPE},
    {"su", PF_ROPE_LONGROPE}, /* what the first Phi-3 called it */
};

#define TWO_PI 6.283185307179586476925

const char *pf_rope_type_name(pf_rope_type type) {
    for (size_t i = 0; i < PF_COUNT(types); i++) {
        if (types[i].type == type) return types[i].name;
    }
    return "?";
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A number that may be missing or null, and must be positive where it is not. */
static peft_status opt_positive(const json_t *obj, const char *where, const char *key, double def,
                                double *out, peft_error *err) {
    PF_TRY(pf_json_opt_real(obj, where, key, def, out, err));
    if (*out == def || (*out > 0 && isfinite(*out))) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s is %g; it should be a positive number", where, key,
                   *out);
}

static peft_status read_type(pf_rope_spec *s, const json_t *rope, const char *where,
                             peft_error *err) {
    const char *name, *old_name;
    /* "type" is what rope_scaling called it before transformers 4.43 */
    PF_TRY(pf_json_opt_str(rope, where, "type", "default", &old_name, err));
    PF_TRY(pf_json_opt_str(rope, where, "rope_type", old_name, &name, err));
    for (size_t i = 0; i < PF_COUNT(types); i++) {
        if (pf_streq(types[i].name, name)) {
            s->type = types[i].type;
            return PEFT_OK;
        }
    }
    return PF_FAIL(
        err, PEFT_E_UNSUPPORTED,
        "%s: rope type '%s' is not supported; default, linear, dynamic, llama3, yarn and longrope "
        "are",
        where, name);
}

/* One positive number for each pair of columns. */
static peft_status read_factors(const pf_rope_spec *s, const json_t *rope, const char *where,
                                const char *key, const json_t **out, peft_error *err) {
    PF_TRY(pf_json_get_array(rope, where, key, out, err));
    size_t n = json_array_size(*out), i = 0;
    while (i < n && json_number_value(json_array_get(*out, i)) > 0) i++;
    if (n == (size_t)s->dim / 2 && i == n) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s: %s should have %lld positive numbers, one for each pair of rotated columns",
                   where, key, (long long)s->dim / 2);
}

static peft_status read_scaling(pf_rope_spec *s, const json_t *config, const json_t *rope,
                                const char *where, peft_error *err) {
    PF_TRY(opt_positive(rope, where, "factor", 0, &s->factor, err));
    /* once more an early name for longrope */
    if (s->type == PF_ROPE_YARN && json_object_get(rope, "long_factor") != NULL)
        s->type = PF_ROPE_LONGROPE;
    if (s->type == PF_ROPE_LLAMA3 || s->type == PF_ROPE_YARN || s->type == PF_ROPE_LONGROPE) {
        /* a value beside rope_scaling wins over the one inside, as in Phi-3's configs */
        int64_t inside;
        PF_TRY(pf_json_opt_int(rope, where, "original_max_position_embeddings", s->max_positions, 1,
                               INT32_MAX, &inside, err));
        PF_TRY(pf_json_opt_int(config, where, "original_max_position_embeddings", inside, 1,
                               INT32_MAX, &s->original_max_positions, err));
    }
    if ((s->type == PF_ROPE_YARN || s->type == PF_ROPE_LONGROPE) && s->factor == 0) {
        s->factor = (double)s->max_positions / (double)s->original_max_positions;
    }
    if (s->type != PF_ROPE_DEFAULT && s->factor == 0) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: rope type '%s' needs a factor", where,
                       pf_rope_type_name(s->type));
    }
    if (s->type == PF_ROPE_LLAMA3) {
        PF_TRY(opt_positive(rope, where, "low_freq_factor", 0, &s->low_freq_factor, err));
        PF_TRY(opt_positive(rope, where, "high_freq_factor", 0, &s->high_freq_factor, err));
        if (s->low_freq_factor <= 0 || s->high_freq_factor <= s->low_freq_factor) {
            return PF_FAIL(
                err, PEFT_E_FORMAT,
                "%s: rope type 'llama3' needs low_freq_factor and a larger high_freq_factor",
                where);
        }
    }
    if (s->type == PF_ROPE_LONGROPE) {
        PF_TRY(opt_positive(rope, where, "attention_factor", 0, &s->attention_factor, err));
        PF_TRY(read_factors(s, rope, where, "short_factor", &s->short_factor, err));
        PF_TRY(read_factors(s, rope, where, "long_factor", &s->long_factor, err));
    }
    if (s->type == PF_ROPE_YARN) {
        PF_TRY(opt_positive(rope, where, "attention_factor", 0, &s->attention_factor, err));
        PF_TRY(opt_positive(rope, where, "beta_fast", 0, &s->beta_fast, err));
        PF_TRY(opt_positive(rope, where, "beta_slow", 0, &s->beta_slow, err));
        PF_TRY(opt_positive(rope, where, "mscale", 0, &s->mscale, err));
        PF_TRY(opt_positive(rope, where, "mscale_all_dim", 0, &s->mscale_all_dim, err));
        PF_TRY(pf_json_opt_bool(rope, where, "truncate", true, &s->truncate, err));
        if (s->beta_fast == 0) s->beta_fast = 32;
        if (s->beta_slow == 0) s->beta_slow = 1;
    }
    return PEFT_OK;
}

peft_status pf_rope_spec_read(pf_rope_spec *out, const struct json_t *config, const char *where,
                              int64_t head_dim, int64_t max_positions, double default_theta,
                              peft_error *err) {
    const pf_rope_defaults def = {default_theta, 1, "rope_theta", "partial_rotary_factor"};
    return pf_rope_spec_read_as(out, config, where, head_dim, max_positions, &def, err);
}

peft_status pf_rope_spec_read_as(pf_rope_spec *out, const struct json_t *config, const char *where,
                                 int64_t head_dim, int64_t max_positions,
                                 const pf_rope_defaults *def, peft_error *err) {
    pf_rope_spec s = {.max_positions = max_positions, .original_max_positions = max_positions};
    const json_t *scaling, *rope;
    PF_TRY(pf_json_opt_object(config, where, "rope_scaling", &scaling, err));
    PF_TRY(pf_json_opt_object(config, where, "rope_parameters", &rope, err));
    if (scaling != NULL && json_object_size(scaling) > 0) rope = scaling;

    const char *key;
    json_t *value;
    json_object_foreach((json_t *)rope, key, value) { /* a NULL object has no members */
        if (json_is_object(value)) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: rope_parameters differ by layer type ('%s'), which this "
                           "architecture does not have",
                           where, key);
        }
    }
    PF_TRY(read_type(&s, rope, where, err));

    double outer;
    PF_TRY(opt_positive(config, where, def->theta_key, def->theta, &outer, err));
    PF_TRY(opt_positive(rope, where, "rope_theta", outer, &s.theta, err));
    PF_TRY(opt_positive(config, where, def->partial_key, def->partial, &outer, err));
    PF_TRY(opt_positive(rope, where, "partial_rotary_factor", outer, &s.partial, err));
    if (s.theta <= 1) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: rope_theta is %g; it should be above 1", where,
                       s.theta);
    }
    s.dim = s.partial <= 1 ? (int64_t)((double)head_dim * s.partial) : 0;
    if (s.dim < 2 || s.dim % 2 != 0) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: RoPE turns pairs of columns, but head_dim %lld x partial_rotary_factor "
                       "%g gives %lld",
                       where, (long long)head_dim, s.partial, (long long)s.dim);
    }
    PF_TRY(read_scaling(&s, config, rope, where, err));
    if (s.type == PF_ROPE_DYNAMIC && s.dim < 4) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: rope type 'dynamic' needs a head_dim above 2",
                       where);
    }
    *out = s;
    return PEFT_OK;
}

/* ---- frequencies ----------------------------------------------------------------------------- */

static float plain_power(float theta, int64_t pair, int64_t dim) {
    return powf(theta, (float)(2 * pair) / (float)dim);
}

/* Wavelengths beyond the trained context are stretched, short ones stay, those between are mixed.
 */
static float llama3_frequency(const pf_rope_spec *s, float inv_freq) {
    float factor = (float)s->factor, low = (float)s->low_freq_factor,
          high = (float)s->high_freq_factor;
    float length = (float)s->original_max_positions;
    float wavelength = (float)TWO_PI / inv_freq;
    if (wavelength > length / low) return inv_freq / factor;
    if (wavelength < length / high) return inv_freq;
    float smooth = (length / wavelength - low) / (high - low);
    return (1 - smooth) * inv_freq / factor + smooth * inv_freq;
}

/* The column pair that turns `rotations` times over the original context (Peng et al. 2023, arXiv
 * 2309.00071, sec. 3.2). */
static double yarn_correction(const pf_rope_spec *s, double rotations) {
    return (double)s->dim * log((double)s->original_max_positions / (rotations * TWO_PI)) /
           (2 * log(s->theta));
}

static double yarn_mscale(double scale, double mscale) {
    return scale <= 1 ? 1 : 0.1 * mscale * log(scale) + 1;
}

static void yarn_frequencies(const pf_rope_spec *s, float *inv_freq, double *attention_factor) {
    double low = yarn_correction(s, s->beta_fast), high = yarn_correction(s, s->beta_slow);
    if (s->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(s->dim - 1));
    if (low == high) high += 0.001;
    for (int64_t i = 0; i < s->dim / 2; i++) {
        float power = plain_power((float)s->theta, i, s->dim);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1); /* share of the unstretched frequency */
        inv_freq[i] = 1 / ((float)s->factor * power) * (1 - keep) + 1 / power * keep;
    }
    if (s->attention_factor > 0) {
        *attention_factor = s->attention_factor;
    } else if (s->mscale > 0 && s->mscale_all_dim > 0) {
        *attention_factor =
            yarn_mscale(s->factor, s->mscale) / yarn_mscale(s->factor, s->mscale_all_dim);
    } else {
        *attention_factor = yarn_mscale(s->factor, 1);
    }
}

static peft_status check_finite(const pf_rope_spec *s, const float *inv_freq, peft_error *err) {
    for (int64_t i = 0; i < s->dim / 2; i++) {
        if (isfinite(inv_freq[i])) continue;
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "config.json: RoPE frequency %lld is not finite (rope_theta %g, factor %g)",
                       (long long)i, s->theta, s->factor);
    }
    return PEFT_OK;
}

/* (Ding et al. 2024, arXiv 2402.13753) */
static void longrope_frequencies(const pf_rope_spec *s, const json_t *factors, float *inv_freq) {
    for (int64_t i = 0; i < s->dim / 2; i++) {
        float factor = (float)json_number_value(json_array_get(factors, (size_t)i));
        inv_freq[i] = 1 / (factor * plain_power((float)s->theta, i, s->dim));
    }
}

static double longrope_attention_factor(const pf_rope_spec *s) {
    if (s->attention_factor > 0) return s->attention_factor;
    if (s->factor <= 1) return 1;
    return sqrt(1 + log(s->factor) / log((double)s->original_max_positions));
}

peft_status pf_rope_long_frequencies(const pf_rope_spec *s, float *inv_freq, peft_error *err) {
    longrope_frequencies(s, s->long_factor, inv_freq);
    return check_finite(s, inv_freq, err);
}

double pf_rope_dynamic_theta(const pf_rope_spec *s, int64_t length) {
    double original = (double)s->max_positions, l = fmax((double)length, original),
           d = (double)s->dim;
    return s->theta * pow(s->factor * l / original - (s->factor - 1), d / (d - 2));
}

peft_status pf_rope_frequencies(const pf_rope_spec *s, float *inv_freq, double *attention_factor,
                                peft_error *err) {
    *attention_factor = 1;
    if (s->type == PF_ROPE_YARN) {
        yarn_frequencies(s, inv_freq, attention_factor);
    } else if (s->type == PF_ROPE_LONGROPE) {
        longrope_frequencies(s, s->short_factor, inv_freq);
        *attention_factor = longrope_attention_factor(s);
    } else {
        for (int64_t i = 0; i < s->dim / 2; i++) {
            float f = 1 / plain_power((float)s->theta, i, s->dim);
            if (s->type == PF_ROPE_LINEAR) f /= (float)s->factor;
            if (s->type == PF_ROPE_LLAMA3) f = llama3_frequency(s, f);
            inv_freq[i] = f;
        }
    }
    return check_finite(s, inv_freq, err);
}

int32_t pf_rope_original(const pf_rope_spec *spec) {
    return spec->type == PF_ROPE_DYNAMIC || spec->type == PF_ROPE_LONGROPE
               ? (int32_t)spec->original_max_positions
               : 0;
}

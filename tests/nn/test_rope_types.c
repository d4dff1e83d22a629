/* RoPE frequencies equal those of transformers, from both dialects of config.json
 * (tools/make_rope_fixtures.py). */
#include "nn/rope_types.h"
#include "text/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_DIM 256

static double real(const json_t *obj, const char *key) {
    const json_t *v = json_object_get(obj, key);
    assert_true(json_is_number(v));
    return json_number_value(v);
}

/* Relative: a frequency may differ by the last bits of a float only. */
static void check_frequencies(const char *name, const json_t *expected, const float *got,
                              int64_t dim) {
    assert_int_equal(json_array_size(expected), dim / 2);
    for (int64_t i = 0; i < dim / 2; i++) {
        double want = json_number_value(json_array_get(expected, (size_t)i));
        double diff = fabs((double)got[i] - want) / want;
        if (diff > 3e-7) fail_msg("%s: frequency %d is %.9g, not %.9g", name, (int)i, got[i], want);
    }
}

static void check_case(const json_t *c) {
    const char *name = json_string_value(json_object_get(c, "name"));
    peft_error err = {0};
    pf_rope_spec spec;
    float freq[MAX_DIM];
    double factor;
    peft_status status =
        pf_rope_spec_read(&spec, json_object_get(c, "config"), name, (int64_t)real(c, "head_dim"),
                          (int64_t)real(c, "max_positions"), real(c, "default_theta"), &err);
    if (status != PEFT_OK) fail_msg("%s: %s", name, err.message);
    assert_string_equal(pf_rope_type_name(spec.type),
                        json_string_value(json_object_get(c, "type")));
    assert_true(spec.dim <= MAX_DIM);
    assert_int_equal(pf_rope_frequencies(&spec, freq, &factor, &err), PEFT_OK);
    check_frequencies(name, json_object_get(c, "inv_freq"), freq, spec.dim);
    assert_true(fabs(factor - real(c, "attention_factor")) < 1e-12);

    /* dynamic: the base that longer samples get */
    const json_t *lengths = json_object_get(c, "lengths"), *l;
    size_t i;
    json_array_foreach(lengths, i, l) {
        double theta = pf_rope_dynamic_theta(&spec, (int64_t)real(l, "length"));
        for (int64_t k = 0; k < spec.dim / 2; k++) {
            freq[k] = 1 / powf((float)theta, (float)(2 * k) / (float)spec.dim);
        }
        check_frequencies(name, json_object_get(l, "inv_freq"), freq, spec.dim);
    }
}

static void equals_transformers(void **state) {
    (void)state;
    json_t *cases, *c;
    size_t i;
    peft_error err = {0};
    assert_int_equal(
        pf_json_load(&cases, TEST_SOURCE_DIR "/tests/golden/rope/frequencies.json", 1 << 20, &err),
        PEFT_OK);
    assert_true(json_array_size(cases) >= 20);
    json_array_foreach(cases, i, c) check_case(c);
    json_decref(cases);
}

static void check_refused(const char *config, int head_dim, const char *message) {
    json_t *c;
    peft_error err = {0};
    pf_rope_spec spec;
    assert_int_equal(pf_json_parse(&c, config, strlen(config), "config.json", &err), PEFT_OK);
    assert_int_not_equal(pf_rope_spec_read(&spec, c, "config.json", head_dim, 2048, 10000, &err),
                         PEFT_OK);
    assert_string_equal(err.message, message);
    json_decref(c);
}

static void refuses(void **state) {
    (void)state;
    check_refused("{\"rope_scaling\": {\"type\": \"spiral\", \"factor\": 2}}", 64,
                  "config.json: rope type 'spiral' is not supported; default, linear, dynamic, "
                  "llama3, yarn and longrope are");
    check_refused("{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1]}}", 4,
                  "config.json: the key \"long_factor\" is missing");
    check_refused("{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1]}}", 4,
                  "config.json: short_factor should have 2 positive numbers, one for each pair of "
                  "rotated columns");
    check_refused("{\"rope_scaling\": {\"type\": \"linear\"}}", 64,
                  "config.json: rope type 'linear' needs a factor");
    check_refused("{\"rope_scaling\": {\"type\": \"linear\", \"factor\": -1}}", 64,
                  "config.json: factor is -1; it should be a positive number");
    check_refused("{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
                  "\"low_freq_factor\": 4, \"high_freq_factor\": 4}}",
                  64,
                  "config.json: rope type 'llama3' needs low_freq_factor and a larger "
                  "high_freq_factor");
    check_refused(
        "{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}}", 64,
        "config.json: rope_parameters differ by layer type ('full_attention'), which this "
        "architecture does not have");
    check_refused("{}", 7,
                  "config.json: RoPE turns pairs of columns, but head_dim 7 x "
                  "partial_rotary_factor 1 gives 7");
    check_refused("{\"rope_theta\": 0.5}", 64,
                  "config.json: rope_theta is 0.5; it should be above 1");
    check_refused("{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", 2,
                  "config.json: rope type 'dynamic' needs a head_dim above 2");
}

static void partial_rotation(void **state) {
    (void)state;
    static const char text[] = "{\"partial_rotary_factor\": 0.25, \"rope_theta\": 10000}";
    json_t *c;
    pf_rope_spec spec;
    assert_int_equal(pf_json_parse(&c, text, strlen(text), "config.json", NULL), PEFT_OK);
    assert_int_equal(pf_rope_spec_read(&spec, c, "config.json", 64, 2048, 10000, NULL), PEFT_OK);
    assert_int_equal(spec.dim, 16);
    json_decref(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(refuses),
        cmocka_unit_test(partial_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Adapters made by peft give here the logits that they give there; without them the base gives the
 * base's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_util.h"

#define TOL_LOGITS 1e-4

static pf_arena arena;
static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    pf_arena_release(&arena);
    return 0;
}

static pf_batch read_samples(const json_t *info) {
    const json_t *samples = json_object_get(info, "samples"), *s;
    const int32_t *ids[16];
    int32_t lengths[16];
    size_t i;
    assert_true(json_array_size(samples) <= 16);
    json_array_foreach(samples, i, s) {
        int32_t *t = PF_NEW_ARRAY(&arena, int32_t, json_array_size(s));
        for (size_t k = 0; k < json_array_size(s); k++) {
            t[k] = (int32_t)json_integer_value(json_array_get(s, k));
        }
        ids[i] = t;
        lengths[i] = (int32_t)json_array_size(s);
    }
    return whole_samples(&arena, ids, lengths, (int)json_array_size(samples));
}

static void same_logits_as_peft(void **state) {
    (void)state;
    peft_error err = {0};
    pf_safetensors expected;
    json_t *info = read_json(GOLDEN "/peft/case.json"), *c;
    size_t i;
    OK(pf_safetensors_open(&expected, GOLDEN "/peft/expected.safetensors", &err));
    pf_batch batch = read_samples(info);
    json_array_foreach(json_object_get(info, "cases"), i, c) {
        const char *name = text_of(c, "name"), *base = text_of(c, "base");
        pf_model *m;
        pf_adapter *ad;
        OK(pf_model_open(&m, pf_arena_printf(&arena, GOLDEN "/peft/base_%s", base), NULL, &err));
        OK(pf_adapter_open(&ad, m, pf_arena_printf(&arena, GOLDEN "/peft/%s", name), false, &err));
        const int64_t n = batch.n_labels * m->vocab;
        const float *with = tensor_of(&expected, name, n);
        const float *without = tensor_of(&expected, pf_arena_printf(&arena, "base.%s", base), n);
        double d = logits_differ(m, backend, &batch, true, true, with);
        double plain = logits_differ(m, backend, &batch, false, true, without);
        double off = logits_differ(m, backend, &batch, false, true, with);
        print_message("%-22s %.1e, base %.1e, without the adapter %.1e\n", name, d, plain, off);
        if (!(d <= TOL_LOGITS && plain <= TOL_LOGITS)) fail_msg("%s: %g, base %g", name, d, plain);
        assert_true(off > 100 * TOL_LOGITS);
        pf_adapter_close(ad);
        d = logits_differ(m, backend, &batch, true, true, without); /* nothing is left behind */
        assert_true(d <= TOL_LOGITS);
        pf_model_close(m);
    }
    pf_safetensors_close(&expected);
    json_decref(info);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_logits_as_peft)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Adapters combined here are those that peft's add_weighted_adapter makes; formats and ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/file.h"
#include "factors/adapter_diff.h"
#include "factors/combine.h"
#include "formats/safetensors.h"
#include "golden/parity_util.h"
#include "text/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDER GOLDEN "/combine/"

static pf_arena arena;
static pf_factors a, b;

static int setup(void **state) {
    (void)state;
    peft_error err = {0};
    pf_arena_init(&arena, "test");
    OK(pf_factors_open(&a, FOLDER "a", NULL, &err));
    OK(pf_factors_open(&b, FOLDER "b", NULL, &err));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_factors_release(&a);
    pf_factors_release(&b);
    pf_arena_release(&arena);
    return 0;
}

/* |x - y| / |y| of the updates of a module. */
static double differ(const pf_factor *x, const pf_safetensors *want, const char *name) {
    const pf_stored_tensor *t = pf_safetensors_find(want, name);
    if (t == NULL) fail_msg("%s: peft has no such module", name);
    assert_int_equal(t->shape[0], x->out);
    assert_int_equal(t->shape[1], x->in);
    double *got = PF_NEW_ARRAY(&arena, double, x->out * x->in), dd = 0, yy = 0;
    pf_factor_rows(x, 0, x->out, got);
    const float *y = t->data;
    for (int64_t i = 0; i < x->out * x->in; i++) {
        dd += (got[i] - (double)y[i]) * (got[i] - (double)y[i]);
        yy += (double)y[i] * (double)y[i];
    }
    return sqrt(dd / yy);
}

static void same_as_peft(void **state) {
    (void)state;
    peft_error err = {0};
    pf_safetensors want;
    pf_factors *sets[2] = {&a, &b};
    json_t *cases = read_json(FOLDER "cases.json"), *c;
    size_t i;
    int modules = 0;
    OK(pf_safetensors_open(&want, FOLDER "expected.safetensors", &err));
    json_array_foreach(cases, i, c) {
        const json_t *w = json_object_get(c, "weights");
        const double weights[2] = {json_number_value(json_array_get(w, 0)),
                                   json_number_value(json_array_get(w, 1))};
        const json_t *density = json_object_get(c, "density");
        const char *majority = json_string_value(json_object_get(c, "majority_sign_method"));
        const pf_combine_options opt = {
            .kind = text_of(c, "kind"),
            .density = density != NULL ? json_number_value(density) : 1,
            .frequency = majority != NULL && strcmp(majority, "frequency") == 0,
            .svd_rank = json_integer_value(json_object_get(c, "svd_rank"))};
        pf_factors out;
        double left;
        pf_factors_init(&out, "out");
        OK(pf_factors_combine(&out, sets, weights, 2, &opt, &left, &err));
        for (int k = 0; k < out.n; k++, modules++) {
            const char *name = pf_arena_printf(&arena, "%zu.%s", i, out.items[k].module);
            const double d = differ(&out.items[k], &want, name);
            if (!(d < 1e-5)) fail_msg("%s, %s: %g", opt.kind, name, d);
        }
        pf_factors_release(&out);
    }
    assert_int_equal(modules, want.n_tensors);
    pf_safetensors_close(&want);
    json_decref(cases);
}

/* DARE keeps the mean: over many draws the combination tends to the plain one. */
static void dare_keeps_the_mean(void **state) {
    (void)state;
    peft_error err = {0};
    pf_factors *sets[1] = {&a};
    const double weight = 1;
    double mean = 0, want = 0, left;
    const int draws = 400;
    const pf_factor *x = &a.items[0];
    for (int64_t i = 0; i < x->r * x->in; i++) want += (double)x->a[i] * (double)x->a[i];
    int dropped = 0;
    for (int s = 0; s < draws; s++) {
        const pf_combine_options opt = {.kind = "dare_linear", .density = 0.5, .seed = (uint64_t)s};
        pf_factors out;
        pf_factors_init(&out, "out");
        OK(pf_factors_combine(&out, sets, &weight, 1, &opt, &left, &err));
        const double root = sqrt(x->scale);
        for (int64_t i = 0; i < x->r * x->in; i++) {
            mean += (double)out.items[0].a[i] / root * (double)x->a[i] / draws;
            dropped += out.items[0].a[i] == 0;
        }
        pf_factors_release(&out);
    }
    assert_true(fabs(mean / want - 1) < 0.02);
    const double share = dropped / ((double)draws * (double)(x->r * x->in));
    assert_true(fabs(share - 0.5) < 0.01);
}

static void formats_keep_every_number(void **state) {
    (void)state;
    peft_error err = {0};
    char dir[] = "/tmp/factors-XXXXXX";
    assert_non_null(mkdtemp(dir));
    for (int i = 0; pf_factor_formats[i] != NULL; i++) {
        pf_factors from, back;
        const pf_factor_format *seen;
        const char *path = pf_path_join(&arena, dir, pf_factor_formats[i]->name);
        OK(pf_factors_open(&from, FOLDER "b", NULL, &err));
        from.model_type = "llama";
        from.model_class = "LlamaForCausalLM";
        from.hidden = 32;
        OK(pf_factors_write(&from, pf_factor_formats[i], path, &err));
        OK(pf_factors_open(&back, path, &seen, &err));
        assert_ptr_equal(seen, pf_factor_formats[i]);
        assert_int_equal(back.n, b.n);
        for (int k = 0; k < b.n; k++) {
            const pf_factor *x = &b.items[k], *y = pf_factors_find(&back, x->module);
            assert_non_null(y);
            double *p = PF_NEW_ARRAY(&arena, double, x->out * x->in);
            double *q = PF_NEW_ARRAY(&arena, double, x->out * x->in);
            pf_factor_rows(x, 0, x->out, p);
            pf_factor_rows(y, 0, y->out, q);
            for (int64_t n = 0; n < x->out * x->in; n++) assert_true(fabs(p[n] - q[n]) < 1e-6);
        }
        pf_factors_release(&from);
        pf_factors_release(&back);
    }
    OK(pf_remove_tree(dir, &err));
}

static void differences_are_told(void **state) {
    (void)state;
    peft_error err = {0};
    bool same = false;
    pf_buf text = {0};
    OK(pf_adapter_diff(FOLDER "a", FOLDER "a", false, &text, &same, &err));
    assert_true(same);
    pf_buf_clear(&text);
    OK(pf_adapter_diff(FOLDER "a", FOLDER "b", false, &text, &same, &err));
    assert_false(same);
    assert_non_null(strstr(pf_buf_str(&text), "key lora_alpha: 8 | 12"));
    assert_non_null(strstr(pf_buf_str(&text), "q_proj.lora_A.weight: [4,32] | not there"));
    assert_non_null(strstr(pf_buf_str(&text), "v_proj.lora_A.weight: max |a - b| "));
    pf_buf_clear(&text);
    OK(pf_adapter_diff(FOLDER "a", FOLDER "b", true, &text, &same, &err));
    json_t *list = json_loadb(text.data, text.len, 0, NULL);
    assert_true(json_is_array(list) && json_array_size(list) > 5);
    json_decref(list);
    pf_buf_free(&text);
}

static void wrong_use(void **state) {
    (void)state;
    peft_error err = {0};
    pf_factors out, *sets[2] = {&a, &b};
    const double weights[2] = {1, 1};
    double left;
    pf_factors_init(&out, "out");
    pf_combine_options opt = {.kind = "average", .density = 1};
    assert_int_equal(pf_factors_combine(&out, sets, weights, 2, &opt, &left, &err), PEFT_E_USAGE);
    assert_non_null(strstr(err.message, "magnitude_prune_svd"));
    opt = (pf_combine_options){.kind = "ties", .density = 1.5};
    assert_int_equal(pf_factors_combine(&out, sets, weights, 2, &opt, &left, &err), PEFT_E_USAGE);
    pf_factors_release(&out);
    assert_int_equal(pf_factors_open(&out, GOLDEN "/methods/ia3/start", NULL, &err),
                     PEFT_E_UNSUPPORTED);
    assert_int_equal(pf_factors_open(&out, GOLDEN "/methods/dora/start", NULL, &err),
                     PEFT_E_UNSUPPORTED);
    assert_int_equal(pf_factors_open(&out, GOLDEN "/combine", NULL, &err), PEFT_E_MISSING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_peft),
        cmocka_unit_test(dare_keeps_the_mean),
        cmocka_unit_test(formats_keep_every_number),
        cmocka_unit_test(differences_are_told),
        cmocka_unit_test(wrong_use),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Bottleneck adapters and ReFT beside what tests/golden/test_methods.c compares with AdapterHub:
 * first weights, widths, what may have a zero gradient, generation with a cache, and files that are
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_util.h"

#include "base/file.h"
#include "formats/file_util.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "infer/generator.h"
#include "peft/bottleneck/bottleneck.h"
#include "peft/reft/reft.h"

#include <math.h>

#define METHODS TEST_SOURCE_DIR "/tests/golden/methods/"

static pf_arena arena;
static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    return pf_backend_open_cpu(&backend, 1, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    pf_arena_release(&arena);
    return 0;
}

static pf_model *open_base(const char *dir) {
    peft_error err = {0};
    pf_model *m;
    OK(pf_model_open(&m, dir, NULL, &err));
    return m;
}

/* The method with these keys in its section, or the message. */
static peft_status attach(pf_adapter **ad, pf_model *m, const char *method, const char *keys,
                          peft_error *err) {
    pf_cfg_ext ext[PF_MAX_METHODS];
    pf_run_cfg run;
    pf_cfg cfg;
    const int n = pf_method_sections(ext);
    const char *text = pf_arena_printf(
        &arena,
        "model: {name_or_path: m}\ndata: {train: t, text: \"{x}\"}\npeft: {method: %s, "
        "%s: {%s}}\n",
        method, method, keys);
    const pf_cfg_source source = {.text = text, .text_len = strlen(text), .text_name = "test"};
    if (pf_run_cfg_open(&run, &cfg, &arena, &source, ext, n, PF_RUN_TRAIN, err) != PEFT_OK)
        fail_msg("%s", err->message);
    return pf_adapter_attach(ad, m, &run.peft, 7, true, err);
}

static pf_adapter *attached(pf_model *m, const char *method, const char *keys) {
    peft_error err = {0};
    pf_adapter *ad;
    OK(attach(&ad, m, method, keys, &err));
    return ad;
}

static pf_param *param(const pf_adapter *ad, const char *name) {
    pf_param *p = pf_params_find(&ad->params, pf_arena_printf(&arena, "model.layers.1.%s", name));
    if (p == NULL) fail_msg("no %s", name);
    return p;
}

static void look(const pf_param *p, double *std, double *most) {
    const int64_t n = p->rows * p->cols;
    *std = *most = 0;
    for (int64_t i = 0; i < n; i++) {
        *std += (double)p->data[i] * (double)p->data[i] / (double)n;
        *most = fmax(*most, fabs((double)p->data[i]));
    }
    *std = sqrt(*std);
}

#define OUT "output_adapters.adapters.default."

static void first_weights(void **state) {
    (void)state;
    pf_model *m = open_base(METHODS "base_llama");
    double std, most;
    pf_adapter *ad = attached(m, "seq_bn", "bottleneck_size: 64");
    look(param(ad, OUT "adapter_down.0.weight"), &std, &most);
    assert_true(fabs(std - 0.02) < 0.001 && most > 0.05);
    look(param(ad, OUT "adapter_up.bias"), &std, &most);
    assert_true(most == 0);
    assert_false(param(ad, OUT "adapter_down.0.weight")->zero_grad_ok);
    assert_true(param(ad, OUT "adapter_up.weight")->decay);
    assert_false(param(ad, OUT "adapter_up.bias")->decay);
    pf_adapter_close(ad);

    ad = attached(m, "par_bn", "");
    look(param(ad, OUT "adapter_down.0.weight"), &std, &most);
    assert_true(most <= 1 / sqrt(32) && most > 0.95 / sqrt(32));
    look(param(ad, OUT "adapter_up.weight"), &std, &most);
    assert_true(most == 0);
    assert_true(param(ad, OUT "adapter_down.0.weight")->zero_grad_ok);
    assert_false(param(ad, OUT "adapter_up.weight")->zero_grad_ok);
    pf_adapter_close(ad);

    ad = attached(m, "adapter_plus", "bottleneck_size: 64");
    look(param(ad, OUT "adapter_up.weight"), &std, &most);
    assert_true(most <= 0.02 && most > 0.019 && std > 0.008 && std < 0.0095);
    look(param(ad, OUT "scaling"), &std, &most);
    assert_true(most == 1 && fabs(std - 1) < 1e-12);
    assert_true(pf_adapter_has_dropout(ad)); /* stochastic depth */
    pf_adapter_close(ad);

    ad = attached(m, "compacter", "reduction_factor: 4");
    look(param(ad, OUT "adapter_down.0.W_left"), &std, &most);
    assert_true(std > 0.3 && std < 0.65); /* sqrt(2 / (8 + 1)) */
    assert_non_null(pf_params_find(&ad->params, "model.shared_parameters.default.phm_rule"));
    assert_false(pf_adapter_has_dropout(ad));
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* The projection of a new LoReFT has orthonormal rows, for its base is orthogonal. */
static void first_interventions(void **state) {
    (void)state;
    pf_model *m = open_base(METHODS "base_llama");
    pf_adapter *ad = attached(m, "loreft", "r: 3");
    const pf_param *base =
        param(ad, "reft_layer.refts.default.units.0.projection.parametrizations.weight.0.base");
    const int64_t n = base->cols;
    double off_identity = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < n; k++) {
            double sum = i == k ? -1 : 0;
            for (int64_t l = 0; l < n; l++)
                sum += (double)base->data[l * n + i] * (double)base->data[l * n + k];
            assert_true(fabs(sum) < 1e-6);
            off_identity = fmax(off_identity, i != k ? fabs((double)base->data[i * n + k]) : 0);
        }
    }
    assert_true(off_identity > 0.1);
    assert_true(base->frozen);
    assert_true(param(ad, "reft_layer.refts.default.units.1.learned_source.weight")->may_idle);
    assert_true(pf_adapter_has_dropout(ad));
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* Widths are AdapterHub's: hidden // factor, at least 1; and of a bottleneck_size that a file has
 * to say as a factor. */
static void widths(void **state) {
    (void)state;
    static const struct {
        const char *keys;
        int64_t width;
    } cases[] = {
        {"reduction_factor: 3", 10},
        {"reduction_factor: 96", 1},
        {"reduction_factor: 0.5", 64},
        {"reduction_factor: 10.7", 2},
        {"bottleneck_size: 7", 7},
        {"bottleneck_size: 31", 31},
        {"bottleneck_size: 33", 33},
        {"bottleneck_size: 49", 49},
        {"bottleneck_size: 1", 1},
        {"reduction_factors: {1: 4}", 8},
        {"reduction_factors: {0: 4, default: 2}", 16},
    };
    pf_model *m = open_base(METHODS "base_llama");
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        peft_error err = {0};
        pf_adapter *ad = attached(m, "seq_bn", cases[i].keys);
        assert_int_equal(param(ad, OUT "adapter_down.0.weight")->rows, cases[i].width);
        const char *dir = fresh_dir(&arena, "width");
        OK(pf_adapter_save(ad, dir, &err));
        pf_adapter_close(ad);
        OK(pf_adapter_open(&ad, m, dir, false, &err));
        assert_int_equal(param(ad, OUT "adapter_down.0.weight")->rows, cases[i].width);
        pf_adapter_close(ad);
    }
    pf_model_close(m);
}

/* Tokens that a cache gives are those of the whole text computed anew. */
static void generation(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"seq_bn", "base_llama"},
        {"par_bn", "base_llama"},
        {"double_seq_bn_inv", "base_llama"},
        {"compacter_shared", "base_llama"},
        {"loreft", "base_llama"},
        {"loreft_tied", "base_llama"},
        {"double_seq_bn_phi", "base_phi"},
        {"loreft_gpt2", "base_gpt2"},
        {"double_seq_bn_t5", "base_t5"},
        {"loreft_t5", "base_t5"},
        {"fusion", "base_llama"},
        {"hub_lora_gpt2", "base_gpt2"},
        {"hub_prefix", "base_llama"},
        {"hub_prefix_gpt2", "base_gpt2"},
    };
    enum { PROMPT = 2, NEW = 8 };
    static const int32_t source[] = {5, 17, 40, 9, 1}, *const sources[] = {source},
                         n_source = PF_COUNT(source);
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        peft_error err = {0};
        pf_adapter *ad;
        pf_generator *gen;
        int32_t text[PROMPT + NEW] = {5, 17}, ids[NEW], n_prompt = PROMPT;
        pf_model *m = open_base(pf_arena_printf(&arena, METHODS "%s", cases[i][1]));
        OK(pf_adapter_open(&ad, m, pf_arena_printf(&arena, METHODS "%s/end", cases[i][0]), false,
                           &err));
        float *z = PF_NEW_ARRAY(&arena, float, (PROMPT + NEW) * m->vocab);
        pf_generation g = {.prompt = text, .n_prompt = PROMPT, .ids = ids};
        pf_generator_options opt = {
            .max_sequences = 1, .max_length = 32, .adapters = true, .fuse = true};
        if (m->encoder_decoder) {
            g.prompt = source;
            g.n_prompt = n_source;
            opt.max_source = n_source;
            text[0] = m->decoder_start;
            n_prompt = 1;
        }
        const pf_generate_options go = {.sampling = pf_sampling_greedy(), .max_new_tokens = NEW};
        OK(pf_generator_new(&gen, m, backend, &opt, &err));
        OK(pf_generator_run(gen, &go, &g, 1, &err));
        for (int32_t n = n_prompt; n < n_prompt + g.n_ids; n++) {
            const int32_t *whole = text;
            pf_batch b = whole_samples(&arena, &whole, &n, 1);
            if (m->encoder_decoder) add_sources(&arena, &b, sources, &n_source, 1);
            compute_logits(m, backend, &b, true, true, z);
            const float *last = z + (n - 1) * m->vocab;
            int32_t best = 0;
            for (int32_t v = 1; v < m->vocab; v++) best = last[v] > last[best] ? v : best;
            if (ids[n - n_prompt] != best) fail_msg("%s: token %d", cases[i][0], (int)n);
            text[n] = best;
        }
        assert_true(g.n_ids > 0);
        pf_generator_free(gen);
        pf_adapter_close(ad);
        pf_model_close(m);
    }
}

/* ---- folders of earlier versions ------------------------------------------------------------- */

static const char *old_name(const char *name) {
    static const char now[] = "output_adapters.adapters.",
                      old[] = "output_adapters.layer_text_task_adapters.";
    const char *at = strstr(name, now);
    name += strlen("model."); /* of a model without a head */
    if (at == NULL) return name;
    return pf_arena_printf(&arena, "%.*s%s%s", (int)(at - name), name, old, at + strlen(now));
}

static peft_status put_tensor(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                              peft_error *err) {
    const pf_safetensors *from = ctx;
    (void)t;
    return pf_tensor_sink_add_f32(sink, from->tensors[index].data,
                                  (size_t)pf_stored_tensor_count(&from->tensors[index]), err);
}

/* dir/adapter.safetensors of the file's tensors, under their old names. */
static void put_old_tensors(const char *dir, const char *path) {
    peft_error err = {0};
    pf_safetensors from;
    OK(pf_safetensors_open(&from, path, &err));
    pf_stored_tensor *list = PF_NEW_ARRAY(&arena, pf_stored_tensor, from.n_tensors);
    for (int i = 0; i < from.n_tensors; i++)
        OK(pf_stored_tensor_set(&list[i], old_name(from.tensors[i].name), PF_DTYPE_F32,
                                from.tensors[i].n_dims, from.tensors[i].shape, NULL, &err));
    OK(pf_safetensors_write(pf_path_join(&arena, dir, "adapter.safetensors"), list, from.n_tensors,
                            &pf_safetensors_pt, 1, put_tensor, &from, &err));
    pf_safetensors_close(&from);
}

/* What adapter-transformers 1 and 2 wrote is the adapter that is known by other words today. */
static void legacy_folders(void **state) {
    (void)state;
    static const struct {
        const char *method, *keys, *config, *function, *inverse;
    } cases[] = {
        {"seq_bn", "", "\"pfeiffer\"", "relu", "none"},
        {"seq_bn", "", "null", "relu", "none"},
        {"double_seq_bn", "", "\"houlsby+inv\"", "swish", "none"}, /* a task adapter without one */
        {"double_seq_bn_inv", "", "\"houlsby+inv\"", "swish", "nice"},
        {"scaled_par_bn", "", "\"scaled_parallel\"", "relu", "none"},
        {"seq_bn_inv", "",
         "{\"mh_adapter\": false, \"output_adapter\": true, \"original_ln_before\": true, "
         "\"reduction_factor\": 16, \"non_linearity\": \"gelu\", \"attention_type\": "
         "\"sent-lvl-dynamic\", "
         "\"new_attention_norm\": false, \"invertible_adapter\": {\"block_type\": \"nice\", "
         "\"non_linearity\": \"relu\", \"reduction_factor\": 2}}",
         "gelu_new", "nice"},
        {"seq_bn", "",
         "{\"output_adapter\": true, \"mh_adapter\": false, \"reduction_factor\": 16, "
         "\"non_linearity\": \"gelu_orig\"}",
         "gelu", "none"},
    };
    pf_model *m = open_base(METHODS "base_llama");
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        peft_error err = {0};
        pf_adapter *made = attached(m, cases[i].method, cases[i].keys), *ad;
        const char *dir = fresh_dir(&arena, "legacy"), *new = fresh_dir(&arena, "new");
        OK(pf_adapter_save(made, new, &err));
        put_old_tensors(dir, pf_path_join(&arena, new, "adapter.safetensors"));
        put_text(&arena, dir, "adapter_config.json",
                 pf_arena_printf(
                     &arena,
                     "{\"config\": %s, \"config_id\": \"9076f36a74755ac4\", \"hidden_size\": "
                     "32, \"name\": \"default\", \"type\": \"text_task\"}",
                     cases[i].config));
        pf_adapter_suspend(made);
        OK(pf_adapter_open(&ad, m, dir, false, &err));
        const pf_bottleneck_cfg *cfg = ad->cfg.method_cfg;
        assert_string_equal(cfg->non_linearity, cases[i].function);
        assert_string_equal(cfg->inv_adapter, cases[i].inverse);
        assert_int_equal(ad->params.n, made->params.n);
        for (int k = 0; k < ad->params.n; k++) {
            const pf_param *p = ad->params.items[k], *q = pf_params_find(&made->params, p->name);
            assert_non_null(q);
            assert_memory_equal(p->data, q->data, (size_t)(p->rows * p->cols) * sizeof *p->data);
        }
        pf_adapter_close(ad);
        pf_adapter_close(made);
    }
    pf_model_close(m);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void refuses_files(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"{\"inv_adapter\": \"glow\"}", "inv_adapter 'glow' is not supported; nice is"},
        {"{\"residual_before_ln\": \"post_add\"}", "residual_before_ln is post_add"},
        {"{\"residual_before_ln\": \"some\"}", "is 'some'; it should be true, false or post_add"},
        {"{\"reduction_factor\": 0}", "reduction_factor should be a number above 0"},
        {"{\"reduction_factor\": {\"0\": \"8\"}}", "reduction_factor should be a number above 0"},
        {"{\"reduction_factor\": {\"0\": 8}}", "reduction_factor has no number for layer 1"},
        {"{\"reduction_factor\": 1e-300}", "makes adapters wider than 64 times the model"},
        {"{\"scaling\": \"some\"}", "scaling is 'some'; it should be a number, learned or channel"},
        {"{\"scaling\": true}", "scaling"},
        {"{\"leave_out\": [true]}", "leave_out should be a list of layers"},
        {"{\"leave_out\": [0, 1]}", "there is nothing to train"},
        {"{\"dropout\": 1}", "should be at least 0 and below 1"},
        {"{\"non_linearity\": \"prelu\"}", "non_linearity 'prelu' is not known"},
        {"{\"phm_layer\": true, \"phm_dim\": 5}", "phm_dim 5 has to divide the hidden size 32"},
        {"{\"inv_adapter\": \"nice\", \"inv_adapter_reduction_factor\": 1e-300}",
         "makes an inner width of"},
        {"{\"architecture\": \"reft\", \"suffix_positions\": 2}", "only 0 is supported"},
        {"{\"architecture\": \"reft\", \"layers\": []}", "layers is empty"},
        {"{\"architecture\": \"reft\", \"r\": 32}", "an intervention has to be of lower rank"},
        {"\"pfeifer\"",
         "config is the name 'pfeifer', which is not known; known are pfeiffer seq_bn"},
        {"{\"architecture\": \"lora\", \"vera_d\": 0.1}", "vera_d is given: this is VeRA"},
        {"{\"architecture\": \"lora\", \"use_dora\": true}", "use_dora is true: this is DoRA"},
        {"{\"architecture\": \"lora\", \"attn_matrices\": [\"q\", \"o\"]}",
         "attn_matrices has 'o'; q, k and v are supported"},
        {"{\"architecture\": \"lora\", \"composition_mode\": \"scale\"}",
         "composition_mode scale is for r 1 and dropout 0; r is 8"},
        {"{\"architecture\": \"lora\", \"leave_out\": [0, 1]}", "there is nothing to train"},
        {"{\"architecture\": \"union\", \"configs\": [{\"architecture\": \"prompt_tuning\"}]}",
         "an adapter of AdapterHub of architecture prompt_tuning is not read"},
        {"{\"architecture\": \"union\", \"configs\": [{\"architecture\": \"union\"}]}",
         "configs[0] should describe one method"},
        {"{\"architecture\": \"union\", \"configs\": []}", "configs should be a list of 1 to"},
        {"{\"architecture\": \"union\", \"configs\": [{\"architecture\": \"prefix_tuning\", "
         "\"use_gating\": true}, {}]}",
         "use_gating is true: gates of prefixes (unipelt)"},
        {"{\"architecture\": \"union\", \"configs\": [{}, {}]}", ""},
        {"{\"architecture\": \"prompt_tuning\"}",
         "an adapter of AdapterHub of architecture prompt_tuning is not read"},
        {"{\"architecture\": \"prefix_tuning\", \"flat\": true}", "flat is true: prefixes without"},
        {"{\"architecture\": \"prefix_tuning\", \"use_gating\": true}",
         "use_gating is true: gates of prefixes (unipelt)"},
        {"{\"architecture\": \"prefix_tuning\", \"leave_out\": [1]}",
         "layers without a prefix are not supported"},
    };
    pf_model *m = open_base(METHODS "base_llama");
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        peft_error err = {0};
        pf_adapter *ad;
        const char *dir = fresh_dir(&arena, "refused");
        put_text(&arena, dir, "adapter_config.json",
                 pf_arena_printf(&arena, "{\"config\": %s, \"name\": \"x\"}", cases[i].config));
        put_text(&arena, dir, "adapter.safetensors", "");
        assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK);
        if (strstr(err.message, cases[i].message) == NULL) fail_msg("%s", err.message);
        assert_null(ad);
    }
    peft_error err = {0};
    pf_adapter *ad;
    const char *dir = fresh_dir(&arena, "width");
    put_text(&arena, dir, "adapter_config.json", "{\"config\": {}, \"hidden_size\": 64}");
    assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK);
    assert_non_null(strstr(err.message, "made for a base of hidden size 64"));
    pf_model_close(m);
}

/* Stacks that are not there, and a parallel adapter where there is no stream to read. */
static void refuses_models(void **state) {
    (void)state;
    static const struct {
        const char *base, *method, *keys, *message;
    } cases[] = {
        {"parity/t5_small", "seq_bn", "leave_out: [4]",
         "are 0 to 3, those of the decoder after those of the encoder"},
        {"parity/t5_small", "loreft", "layers: [4]", "are 0 to 3, those of the decoder after"},
        {"methods/base_llama", "seq_bn", "cross_adapter: true",
         "LlamaForCausalLM has no cross attention"},
        {"methods/base_bert", "seq_bn", "leave_out: [2]", "base_bert' are 0 to 1"},
        {"methods/base_phi", "par_bn", "", "a parallel adapter there has no input of its own"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        peft_error err = {0};
        pf_adapter *ad;
        pf_model *m =
            open_base(pf_arena_printf(&arena, TEST_SOURCE_DIR "/tests/golden/%s", cases[i].base));
        assert_int_not_equal(attach(&ad, m, cases[i].method, cases[i].keys, &err), PEFT_OK);
        if (strstr(err.message, cases[i].message) == NULL) fail_msg("%s", err.message);
        pf_model_close(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_weights),  cmocka_unit_test(first_interventions),
        cmocka_unit_test(widths),         cmocka_unit_test(generation),
        cmocka_unit_test(legacy_folders), cmocka_unit_test(refuses_files),
        cmocka_unit_test(refuses_models),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Which modules a configuration means: PEFT's rules as a table, and the sentences for what means
 * nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "peft/peft_test.h"

static pf_arena arena;
static pf_model *model; /* two layers, qkv and o biases */

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    model = open_shapes(&arena, "LlamaForCausalLM", "\"attention_bias\": true");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_model_close(model);
    pf_arena_release(&arena);
    return 0;
}

/* "0.q_proj:8 1.q_proj:8 lm_head:8 ..." - each module that LoRA acts on, with its rank; whole ones
 * as "+name". */
static const char *acts_on(const pf_lora_cfg *cfg) {
    pf_adapter *ad = attach_lora(model, cfg, false);
    pf_buf text = {0};
    for (int i = 0; i < ad->params.n; i++) {
        const pf_param *p = ad->params.items[i];
        const char *name = p->name + strlen("base_model.model.");
        char module[128];
        int layer;
        const char *last = name;
        snprintf(module, sizeof module, "%s", name);
        char *a = strstr(module, ".lora_A"), *e = strstr(module, ".lora_embedding_A");
        if (strstr(module, ".lora_B") != NULL || strstr(module, ".lora_embedding_B") != NULL)
            continue;
        if (a != NULL) *a = 0;
        if (e != NULL) *e = 0;
        bool whole = a == NULL && e == NULL;
        if (whole) *strrchr(module, '.') = 0;
        last = strrchr(module, '.') == NULL ? module : strrchr(module, '.') + 1;
        pf_buf_addf(&text, "%s%s", text.len == 0 ? "" : " ", whole ? "+" : "");
        if (sscanf(module, "model.layers.%d.", &layer) == 1) pf_buf_addf(&text, "%d.", layer);
        pf_buf_adds(&text, last);
        if (!whole) pf_buf_addf(&text, ":%d", (int)p->rows);
    }
    const char *out = pf_arena_strdup(&arena, pf_buf_str(&text));
    pf_buf_free(&text);
    pf_adapter_close(ad);
    return out;
}

static void lists(void **state) {
    (void)state;
    static const struct {
        const char *targets, *acts;
    } rows[] = {
        {"q_proj", "0.q_proj:8 1.q_proj:8"},
        {"q_proj v_proj", "0.q_proj:8 0.v_proj:8 1.q_proj:8 1.v_proj:8"},
        {"layers.1.self_attn.q_proj", "1.q_proj:8"},
        {"model.layers.0.mlp.up_proj", "0.up_proj:8"},
        {"mlp.down_proj", "0.down_proj:8 1.down_proj:8"},
        {"lm_head", "lm_head:8"},
        {"embed_tokens", "embed_tokens:8"},
        {"1.mlp.gate_proj o_proj", "0.o_proj:8 1.o_proj:8 1.gate_proj:8"},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_lora_cfg cfg = lora_cfg_of(&arena, rows[i].targets);
        assert_string_equal(acts_on(&cfg), rows[i].acts);
    }
    /* no list: the family's */
    pf_lora_cfg cfg = lora_cfg_of(&arena, "");
    assert_string_equal(acts_on(&cfg), "0.q_proj:8 0.v_proj:8 1.q_proj:8 1.v_proj:8");
}

static void expressions(void **state) {
    (void)state;
    static const struct {
        const char *expression, *acts;
    } rows[] = {
        {".*\\.q_proj", "0.q_proj:8 1.q_proj:8"},
        {"model\\.layers\\.1\\.(self_attn|mlp)\\.(v|up)_proj", "1.v_proj:8 1.up_proj:8"},
        {"lm_head|.*o_proj", "lm_head:8 0.o_proj:8 1.o_proj:8"},
        {"ALL-Linear",
         "0.q_proj:8 0.k_proj:8 0.v_proj:8 0.o_proj:8 0.gate_proj:8 0.up_proj:8 0.down_proj:8 "
         "1.q_proj:8 1.k_proj:8 1.v_proj:8 1.o_proj:8 1.gate_proj:8 1.up_proj:8 1.down_proj:8"},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_lora_cfg cfg = lora_cfg_of(&arena, "");
        cfg.target_modules = names_of(&arena, rows[i].expression, true);
        assert_string_equal(acts_on(&cfg), rows[i].acts);
    }
}

static void exclusions_and_layers(void **state) {
    (void)state;
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj v_proj up_proj");
    cfg.exclude_modules = names_of(&arena, "layers.0.self_attn.q_proj up_proj", false);
    assert_string_equal(acts_on(&cfg), "0.v_proj:8 1.q_proj:8 1.v_proj:8");
    cfg.exclude_modules = names_of(&arena, "model\\.layers\\.1\\..*", true);
    assert_string_equal(acts_on(&cfg), "0.q_proj:8 0.v_proj:8 0.up_proj:8");

    /* what has no number is in no layer; a whole path means its module all the same */
    cfg = lora_cfg_of(&arena, "q_proj embed_tokens lm_head");
    cfg.layers_to_transform = ints_of(&arena, 1, (int64_t[]){1});
    assert_string_equal(acts_on(&cfg), "lm_head:8 1.q_proj:8");
    cfg.layers_pattern = names_of(&arena, "h layers", false);
    assert_string_equal(acts_on(&cfg), "lm_head:8 1.q_proj:8");
    cfg.target_modules = names_of(&arena, "all-linear", true);
    cfg.exclude_modules = names_of(&arena, "mlp\\.\\w+|.*\\.mlp\\..*", true);
    assert_string_equal(acts_on(&cfg), "1.q_proj:8 1.k_proj:8 1.v_proj:8 1.o_proj:8");
}

static void patterns(void **state) {
    (void)state;
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj v_proj down_proj");
    pf_cfg_pair ranks[] = {
        {.key = "v_proj", .number = 4, .is_number = true},
        {.key = "^model.layers.1.self_attn.q_proj", .number = 2, .is_number = true},
        {.key = "layers.\\d.mlp.(up|down)_proj", .number = 16, .is_number = true},
        {.key = "q_proj", .number = 3, .is_number = true}};
    cfg.rank_pattern = (pf_cfg_map){ranks, 4};
    /* the first key that matches wins; a key is an expression for the end of the path, from a dot
     * on */
    assert_string_equal(acts_on(&cfg), "0.q_proj:3 0.v_proj:4 0.down_proj:16 "
                                       "1.q_proj:2 1.v_proj:4 1.down_proj:16");
}

static void whole_modules(void **state) {
    (void)state;
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj k_proj");
    cfg.modules_to_save = names_of(&arena, "lm_head layers.1.self_attn.k_proj", false);
    assert_string_equal(acts_on(&cfg), "+lm_head 0.q_proj:8 0.k_proj:8 1.q_proj:8 "
                                       "+1.k_proj +1.k_proj"); /* weight and bias */
    cfg.modules_to_save = names_of(&arena, "norm", false); /* as peft: every path that ends so */
    assert_string_equal(acts_on(&cfg), "+0.input_layernorm 0.q_proj:8 0.k_proj:8 "
                                       "+0.post_attention_layernorm +1.input_layernorm 1.q_proj:8 "
                                       "1.k_proj:8 +1.post_attention_layernorm +norm");
    cfg.modules_to_save = names_of(&arena, "1.mlp", false); /* all that is inside */
    assert_string_equal(acts_on(&cfg), "0.q_proj:8 0.k_proj:8 1.q_proj:8 1.k_proj:8 +1.gate_proj "
                                       "+1.up_proj +1.down_proj");
    cfg.modules_to_save = names_of(&arena, "", false);
    cfg.bias = "lora_only";
    assert_string_equal(acts_on(&cfg), "0.q_proj:8 +0.base_layer 0.k_proj:8 +0.base_layer "
                                       "1.q_proj:8 +1.base_layer 1.k_proj:8 +1.base_layer");
}

/* ---- what means nothing ---------------------------------------------------------------------- */

static void assert_refused(const pf_lora_cfg *cfg, const char *message) {
    peft_error err = {0};
    pf_adapter *ad;
    const pf_peft_cfg peft = {.method = "lora", .method_cfg = cfg, .given = true};
    assert_int_not_equal(pf_adapter_attach(&ad, model, &peft, 1, false, &err), PEFT_OK);
    assert_null(ad);
    const char *want = pf_arena_printf(&arena, message, model->name);
    assert_string_equal(err.message, want);
    for (int i = 0; i < model->n_sites; i++) { /* nothing is left behind */
        assert_null(model->sites[i]->attached);
        assert_null(model->sites[i]->trained_weight);
    }
}

static void refuses(void **state) {
    (void)state;
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj v_porj");
    assert_refused(&cfg, "peft.lora.target_modules: 'v_porj' matches no module of %s "
                         "(LlamaForCausalLM); did you mean 'v_proj'?");
    cfg = lora_cfg_of(&arena, "self_atn.v_proj");
    assert_refused(&cfg, "peft.lora.target_modules: 'self_atn.v_proj' matches no module of %s "
                         "(LlamaForCausalLM); did you mean 'self_attn.v_proj'?");
    cfg = lora_cfg_of(&arena, "query_key_value_zzz");
    assert_refused(&cfg,
                   "peft.lora.target_modules: 'query_key_value_zzz' matches no module of %s "
                   "(LlamaForCausalLM); it has embed_tokens, lm_head, input_layernorm, q_proj, "
                   "k_proj, v_proj, o_proj, post_attention_layernorm, gate_proj, up_proj, "
                   "down_proj, norm");
    cfg = lora_cfg_of(&arena, "norm");
    assert_refused(&cfg,
                   "peft.lora.target_modules: model.norm is a norm; LoRA acts on linear layers, "
                   "embeddings and the head (modules_to_save trains it whole)");
    cfg = lora_cfg_of(&arena, "self_attn");
    assert_refused(&cfg,
                   "peft.lora.target_modules: model.layers.0.self_attn is an attention layer; "
                   "LoRA acts on linear layers, embeddings and the head");
    cfg = lora_cfg_of(&arena, "");
    cfg.target_modules = names_of(&arena, "q_[", true);
    assert_refused(&cfg, "peft.lora.target_modules: 'q_[' is not a regular expression: missing "
                         "terminating ] for character class, at character 3");
    cfg.target_modules = names_of(&arena, "q_proj", true); /* an expression means the whole path */
    assert_refused(&cfg,
                   "peft.lora.target_modules: 'q_proj' is one text, so a regular expression for "
                   "whole paths, and q_proj is no whole path; write [q_proj] for every module of "
                   "that name");
    cfg.target_modules = names_of(&arena, ".*\\.qproj", true);
    assert_refused(&cfg,
                   "peft.lora.target_modules: the expression '.*\\.qproj' matches no whole path of "
                   "%s (LlamaForCausalLM), such as model.layers.1.mlp.down_proj");
    cfg.target_modules = names_of(&arena, "(((a+)+)+)+$|(.*)*q", true);
    peft_error err = {0};
    pf_adapter *ad;
    const pf_peft_cfg peft = {.method = "lora", .method_cfg = &cfg, .given = true};
    assert_int_not_equal(pf_adapter_attach(&ad, model, &peft, 1, false, &err), PEFT_OK);

    cfg = lora_cfg_of(&arena, "q_proj");
    cfg.exclude_modules = names_of(&arena, "k_proj x_proj", false);
    assert_refused(&cfg, "peft.lora.exclude_modules: 'x_proj' matches no module of %s "
                         "(LlamaForCausalLM); did you mean 'q_proj'?");
    cfg.exclude_modules = names_of(&arena, "q_proj", false);
    assert_refused(&cfg, "peft.lora: every module that target_modules names is taken away by "
                         "exclude_modules or modules_to_save");
    cfg = lora_cfg_of(&arena, "q_proj");
    cfg.modules_to_save = names_of(&arena, "lm_heads", false);
    assert_refused(&cfg, "peft.lora.modules_to_save: 'lm_heads' matches no module of %s "
                         "(LlamaForCausalLM); did you mean 'lm_head'?");
    cfg.modules_to_save = names_of(&arena, "_proj", false);
    assert_refused(&cfg, "peft.lora: model.layers.0.self_attn.q_proj is in target_modules and, by "
                         "modules_to_save, trained whole; it can be one of them");
    cfg = lora_cfg_of(&arena, "q_proj");
    cfg.layers_to_transform = ints_of(&arena, 2, (int64_t[]){0, 2});
    assert_refused(&cfg, "peft.lora.layers_to_transform: there is no layer 2; %s has 0 to 1");
    cfg = lora_cfg_of(&arena, "q_proj");
    cfg.layers_pattern = names_of(&arena, "layers", false);
    assert_refused(&cfg, "peft.lora.layers_pattern needs layers_to_transform beside it");
    cfg = lora_cfg_of(&arena, "q_proj");
    pf_cfg_pair rank = {.key = "v_proj", .number = 4, .is_number = true};
    cfg.rank_pattern = (pf_cfg_map){&rank, 1};
    assert_refused(&cfg, "peft.lora.rank_pattern: 'v_proj' matches none of the modules that LoRA "
                         "acts on");
    cfg.rank_pattern.n = 0;
    cfg.alpha_pattern = (pf_cfg_map){&rank, 1};
    assert_refused(&cfg, "peft.lora.alpha_pattern: 'v_proj' matches none of the modules that LoRA "
                         "acts on");
}

static void refuses_unknown_methods(void **state) {
    (void)state;
    peft_error err = {0};
    pf_adapter *ad;
    const pf_peft_cfg cfg = {.method = "lorra"};
    assert_int_not_equal(pf_adapter_attach(&ad, model, &cfg, 1, false, &err), PEFT_OK);
    assert_non_null(strstr(err.message, "peft.method 'lorra' is not known; lora, "));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),
        cmocka_unit_test(expressions),
        cmocka_unit_test(patterns),
        cmocka_unit_test(exclusions_and_layers),
        cmocka_unit_test(whole_modules),
        cmocka_unit_test(refuses),
        cmocka_unit_test(refuses_unknown_methods),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

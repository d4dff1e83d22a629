/* From a folder to an open model: what is found, counted, tied and converted, and what is said when
 * it is not right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "models/model_test.h"

static pf_arena arena;

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_arena_release(&arena);
    return 0;
}

static pf_model *open_ok(const char *dir, const pf_model_options *opt) {
    pf_model *m;
    peft_error err = {0};
    if (pf_model_open(&m, dir, opt, &err) != PEFT_OK) fail_msg("%s", err.message);
    return m;
}

/* The message, with the folder's path cut out. */
static void assert_refused(const char *dir, const pf_model_options *opt, const char *message) {
    pf_model *m;
    peft_error err = {0};
    char text[PEFT_ERROR_MAX];
    assert_int_not_equal(pf_model_open(&m, dir, opt, &err), PEFT_OK);
    assert_null(m);
    size_t n = 0;
    for (const char *p = err.message; *p != 0 && n + 1 < sizeof text;) {
        if (strncmp(p, dir, strlen(dir)) == 0) {
            text[n++] = 'M';
            p += strlen(dir);
        } else {
            text[n++] = *p++;
        }
    }
    text[n] = 0;
    char *list = strstr(text, "; these are: LlamaForCausalLM, "); /* grows with every family */
    if (list != NULL) strcpy(list, "; these are: ...");
    assert_string_equal(text, message);
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static int64_t count_params(const char *name, const char *config) {
    const pf_model_options plan = {.shapes_only = true};
    const char *dir = make_folder(&arena, name, config, NULL, NULL, 0);
    pf_model *m = open_ok(dir, &plan);
    int64_t n = m->n_params;
    assert_null(m->embedding->weight->data);
    pf_model_close(m);
    return n;
}

/* Parameter counts of published models, from their config.json alone. */
static void counts_published_models(void **state) {
    (void)state;
    assert_int_equal(
        count_params("llama2_7b",
                     "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4096, "
                     "\"intermediate_size\": 11008, \"num_attention_heads\": 32, "
                     "\"num_hidden_layers\": 32, \"vocab_size\": 32000}"),
        6738415616);
    assert_int_equal(
        count_params("llama3_70b",
                     "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 8192, "
                     "\"intermediate_size\": 28672, \"num_attention_heads\": 64, "
                     "\"num_key_value_heads\": 8, \"num_hidden_layers\": 80, "
                     "\"vocab_size\": 128256}"),
        70553706496);
    assert_int_equal(count_params("mistral_7b",
                                  "{\"model_type\": \"mistral\", \"hidden_size\": 4096, "
                                  "\"intermediate_size\": 14336, \"num_attention_heads\": 32, "
                                  "\"num_hidden_layers\": 32, \"vocab_size\": 32000}"),
                     7241732096);
    assert_int_equal(
        count_params("qwen25_05b",
                     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"hidden_size\": 896, "
                     "\"intermediate_size\": 4864, \"num_attention_heads\": 14, "
                     "\"num_key_value_heads\": 2, \"num_hidden_layers\": 24, "
                     "\"tie_word_embeddings\": true, \"vocab_size\": 151936}"),
        494032768);
    assert_int_equal(
        count_params("qwen3_06b",
                     "{\"architectures\": [\"Qwen3ForCausalLM\"], \"hidden_size\": 1024, "
                     "\"intermediate_size\": 3072, \"num_attention_heads\": 16, "
                     "\"num_key_value_heads\": 8, \"num_hidden_layers\": 28, "
                     "\"tie_word_embeddings\": true, \"vocab_size\": 151936}"),
        596049920);
    assert_int_equal(
        count_params("smollm3_3b",
                     "{\"architectures\": [\"SmolLM3ForCausalLM\"], \"hidden_size\": 2048, "
                     "\"intermediate_size\": 11008, \"num_attention_heads\": 16, "
                     "\"num_hidden_layers\": 36, \"vocab_size\": 128256}"),
        3075098624);
}

/* The same for families with LayerNorm; the numbers are transformers'. */
static void counts_models_with_layer_norm(void **state) {
    (void)state;
    static const struct {
        const char *name, *config;
        int64_t n;
    } models[] = {
        {"pythia_160m",
         "{\"architectures\": [\"GPTNeoXForCausalLM\"], \"hidden_size\": 768, "
         "\"intermediate_size\": 3072, \"num_attention_heads\": 12, \"num_hidden_layers\": 12, "
         "\"vocab_size\": 50304}",
         162322944},
        {"phi_2",
         "{\"architectures\": [\"PhiForCausalLM\"], \"hidden_size\": 2560, \"intermediate_size\": "
         "10240, \"num_attention_heads\": 32, \"num_hidden_layers\": 32, \"vocab_size\": 51200}",
         2779683840},
        {"gpt2",
         "{\"architectures\": [\"GPT2LMHeadModel\"], \"n_embd\": 768, \"n_head\": 12, \"n_layer\": "
         "12, \"n_positions\": 1024, \"vocab_size\": 50257}",
         124439808},
        {"bloom_560m",
         "{\"architectures\": [\"BloomForCausalLM\"], \"hidden_size\": 1024, \"n_head\": 16, "
         "\"n_layer\": 24, \"vocab_size\": 250880}",
         559214592},
        {"opt_125m",
         "{\"architectures\": [\"OPTForCausalLM\"], \"hidden_size\": 768, \"ffn_dim\": 3072, "
         "\"num_attention_heads\": 12, \"num_hidden_layers\": 12, \"max_position_embeddings\": "
         "2048, \"vocab_size\": 50272}",
         125239296},
        {"opt_350m",
         "{\"architectures\": [\"OPTForCausalLM\"], \"hidden_size\": 1024, \"ffn_dim\": 4096, "
         "\"num_attention_heads\": 16, \"num_hidden_layers\": 24, \"max_position_embeddings\": "
         "2048, \"vocab_size\": 50272, \"word_embed_proj_dim\": 512, \"do_layer_norm_before\": "
         "false}",
         331196416},
        {"falcon_7b",
         "{\"architectures\": [\"FalconForCausalLM\"], \"hidden_size\": 4544, "
         "\"num_attention_heads\": 71, \"num_hidden_layers\": 32, \"vocab_size\": 65024}",
         6921720704},
        {"falcon_40b",
         "{\"architectures\": [\"FalconForCausalLM\"], \"hidden_size\": 8192, "
         "\"num_attention_heads\": 128, \"num_hidden_layers\": 60, \"num_kv_heads\": 8, "
         "\"new_decoder_architecture\": true, \"vocab_size\": 65024, \"tie_word_embeddings\": "
         "false}",
         41835970560},
        {"stablelm_2_1_6b",
         "{\"architectures\": [\"StableLmForCausalLM\"], \"hidden_size\": 2048, "
         "\"intermediate_size\": 5632, \"num_attention_heads\": 32, \"num_key_value_heads\": 32, "
         "\"num_hidden_layers\": 24, \"use_qkv_bias\": true, \"vocab_size\": 100352}",
         1644515328},
        {"stablelm_2_12b",
         "{\"architectures\": [\"StableLmForCausalLM\"], \"hidden_size\": 5120, "
         "\"intermediate_size\": 13824, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, "
         "\"num_hidden_layers\": 40, \"qk_layernorm\": true, \"use_parallel_residual\": true, "
         "\"vocab_size\": 100352}",
         12143185920},
    };
    for (size_t i = 0; i < PF_COUNT(models); i++) {
        const int64_t n = count_params(models[i].name, models[i].config);
        if (n != models[i].n) fail_msg("%s has %lld parameters", models[i].name, (long long)n);
    }
}

/* GPT-2 stores (in, out): sites are (out, in) all the same, and the numbers those of the file. */
static void turns_conv1d(void **state) {
    (void)state;
    pf_model *m = open_ok(TEST_SOURCE_DIR "/tests/golden/parity/gpt2", NULL);
    const pf_site *up = pf_model_find_site(m, "transformer.h.1.mlp.c_fc");
    const pf_site *positions = pf_model_find_site(m, "transformer.wpe");
    assert_int_equal(up->out_dim, 128);
    assert_int_equal(up->in_dim, 32);
    assert_int_equal(up->weight->rows, 128);
    assert_int_equal(up->weight->cols, 32);
    const float *stored = up->weight->data;
    pf_real row[32];
    pf_weight_read_tile(up->weight, 5, 1, 0, 32, row, 32);
    for (int i = 0; i < 32; i++) assert_true(row[i] == stored[i * 128 + 5]);
    assert_int_equal(positions->kind, PF_SITE_POSITIONS);
    assert_int_equal(positions->out_dim, 64);
    assert_true(m->head->tied_to == m->embedding);
    pf_model_close(m);
}

static void lists_sites(void **state) {
    (void)state;
    pf_model *m = open_ok(TEST_SOURCE_DIR "/tests/golden/parity/qwen3", NULL);
    assert_string_equal(m->architecture, "Qwen3ForCausalLM");
    assert_int_equal(m->head_dim, 16);
    assert_int_equal(m->n_layers, 2);
    pf_site *q = pf_model_find_site(m, "model.layers.1.self_attn.q_proj");
    assert_non_null(q);
    assert_int_equal(q->kind, PF_SITE_LINEAR);
    assert_int_equal(q->layer, 1);
    assert_int_equal(q->in_dim, 32);
    assert_int_equal(q->out_dim, 64);
    assert_null(q->bias);
    assert_true(q == m->sites[q->index]);
    assert_int_equal(pf_model_find_site(m, "model.layers.0.self_attn.q_norm")->kind, PF_SITE_NORM);
    assert_int_equal(pf_model_find_site(m, "model.layers.0")->kind, PF_SITE_BLOCK_OUTPUT);
    assert_int_equal(pf_model_find_site(m, "model.embed_tokens.output")->kind,
                     PF_SITE_EMBEDDING_OUTPUT);
    assert_int_equal(pf_model_find_site(m, "model.layers.0.attention_output")->kind,
                     PF_SITE_ATTENTION_OUTPUT);
    assert_int_equal(pf_model_find_site(m, "model.layers.0.mlp_output")->kind, PF_SITE_MLP_OUTPUT);
    assert_int_equal(pf_model_find_site(m, "model.layers.0.self_attn")->kind,
                     PF_SITE_ATTENTION_PREFIX);
    assert_int_equal(m->head->kind, PF_SITE_HEAD);
    assert_int_equal(m->head->out_dim, 64);
    assert_null(pf_model_find_site(m, "model.layers.2.mlp.up_proj"));
    pf_model_close(m);
}

/* ---- storage --------------------------------------------------------------------------------- */

static void maps_in_place_and_converts(void **state) {
    (void)state;
    const char *dir = TEST_SOURCE_DIR "/tests/golden/parity/bf16";
    pf_model *m = open_ok(dir, NULL);
    assert_int_equal(m->dtype, PF_DTYPE_BF16);
    assert_int_equal(m->converted_bytes, 0);
    float kept[8], wide[8];
    pf_weight_read_tile(m->embedding->weight, 3, 1, 0, 8, kept, 8);
    log_begin();
    pf_model *w = open_ok(dir, &(pf_model_options){.dtype = PF_DTYPE_F32});
    log_end();
    assert_int_equal(w->dtype, PF_DTYPE_F32);
    assert_int_equal(w->converted_bytes, 4 * w->n_params);
    assert_non_null(strstr(logged, "weights converted to float32 while loading: "));
    pf_weight_read_tile(w->embedding->weight, 3, 1, 0, 8, wide, 8);
    assert_memory_equal(kept, wide, sizeof kept);
    pf_model_close(w);
    pf_model_close(m);
}

/* ---- ties ------------------------------------------------------------------------------------ */

static pf_model *open_tied(const char *name, bool tie, float embedding, float head,
                           const pf_metadata *meta, int n_meta) {
    tensor_list l = {.n = 0};
    add_layers(&l, &arena);
    if (embedding != 0) add_tensor(&l, &arena, "model.embed_tokens.weight", 10, 8, embedding);
    if (head != 0) add_tensor(&l, &arena, "lm_head.weight", 10, 8, head);
    const char *config =
        tiny_config(&arena, "LlamaForCausalLM", tie ? "\"tie_word_embeddings\": true" : "");
    return open_ok(make_folder(&arena, name, config, &l, meta, n_meta), NULL);
}

static float first_number(const pf_weight *w) {
    float v;
    pf_weight_read_tile(w, 0, 1, 0, 1, &v, 1);
    return v;
}

static void ties(void **state) {
    (void)state;
    const int64_t rest = 2 * (2 * 8 + 4 * 64 + 3 * 96) + 8;
    pf_model *m = open_tied("tied_embedding", true, 2, 0, NULL, 0);
    assert_true(m->head->tied_to == m->embedding && m->head->weight == m->embedding->weight);
    assert_int_equal(m->n_params, rest + 80);
    pf_model_close(m);

    m = open_tied("tied_head", true, 0, 3, NULL, 0);
    assert_true(m->head->tied_to == m->embedding && first_number(m->embedding->weight) == 3);
    pf_model_close(m);

    log_begin();
    m = open_tied("tied_both", true, 2, 2, NULL, 0);
    assert_true(m->head->tied_to == m->embedding);
    assert_int_equal(m->n_params, rest + 80);
    pf_model_close(m);
    assert_string_equal(logged, "");
    m = open_tied("tied_differ", true, 2, 3, NULL, 0);
    log_end();
    assert_null(m->head->tied_to);
    assert_true(first_number(m->head->weight) == 3);
    assert_int_equal(m->n_params, rest + 160);
    assert_non_null(strstr(logged, "are both stored and differ: they are kept apart"));
    pf_model_close(m);

    m = open_tied("untied", false, 2, 3, NULL, 0);
    assert_null(m->head->tied_to);
    pf_model_close(m);

    /* safetensors' save_model drops a shared tensor and leaves its name in the metadata */
    const pf_metadata hint = {"lm_head.weight", "model.embed_tokens.weight"};
    m = open_tied("tied_by_metadata", false, 2, 0, &hint, 1);
    assert_true(first_number(m->head->weight) == 2);
    pf_model_close(m);
}

/* ---- what is not right ----------------------------------------------------------------------- */

static void refuses_configs(void **state) {
    (void)state;
    const pf_model_options plan = {.shapes_only = true};
    static const struct {
        const char *name, *config, *message;
    } cases[] = {
        {"no_arch", "{}",
         "M/config.json: it names no architecture, so this is no model's config.json"},
        {"no_such", "{\"architectures\": [\"NoSuchForCausalLM\"]}",
         "M/config.json: architecture 'NoSuchForCausalLM' is not supported; these are: ..."},
        {"list", "[]", NULL},
        {"gpt2_cross",
         "{\"model_type\": \"gpt2\", \"n_embd\": 8, \"n_head\": 2, \"n_layer\": 1, "
         "\"vocab_size\": 8, \"add_cross_attention\": true}",
         "M/config.json: add_cross_attention is true: a GPT-2 that reads an encoder is not "
         "supported"},
        {"neox_heads",
         "{\"model_type\": \"gpt_neox\", \"hidden_size\": 10, \"num_attention_heads\": 4, "
         "\"num_hidden_layers\": 1, \"vocab_size\": 8}",
         "M/config.json: hidden_size 10 is no multiple of 4 heads"},
        {"phi_act",
         "{\"model_type\": \"phi\", \"hidden_size\": 8, \"num_attention_heads\": 2, "
         "\"num_hidden_layers\": 1, \"vocab_size\": 8, \"intermediate_size\": 8, "
         "\"hidden_act\": \"laplace\"}",
         "M/config.json: hidden_act 'laplace' is not supported for PhiForCausalLM; gelu, gelu_new, "
         "gelu_pytorch_tanh, relu and silu are"},
        {"stablelm_heads",
         "{\"model_type\": \"stablelm\", \"hidden_size\": 1048576, "
         "\"num_attention_heads\": 65536, \"num_hidden_layers\": 10000, \"vocab_size\": 8, "
         "\"intermediate_size\": 8, \"qk_layernorm\": true}",
         "M/config.json: 10000 layers with a norm for each of 65536 heads are more than this "
         "program can hold"},
        {"quantized",
         "{\"architectures\": [\"LlamaForCausalLM\"], \"quantization_config\": {\"quant_method\": "
         "\"gptq\"}}",
         "M/config.json: the weights are quantized (gptq), which is not supported yet; use the "
         "folder "
         "of the model before quantization"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        const char *dir = make_folder(&arena, cases[i].name, cases[i].config, NULL, NULL, 0);
        pf_model *m;
        if (cases[i].message == NULL) {
            assert_int_not_equal(pf_model_open(&m, dir, NULL, NULL), PEFT_OK);
        } else {
            assert_refused(dir, &plan, cases[i].message);
        }
    }
}

static void refuses_values(void **state) {
    (void)state;
    static const struct {
        const char *architecture, *extra, *message;
    } cases[] = {
        {"LlamaForCausalLM", "\"hidden_act\": \"gelu\"",
         "M/config.json: hidden_act 'gelu' is not supported for LlamaForCausalLM; silu is"},
        {"LlamaForCausalLM", "\"num_key_value_heads\": 3",
         "M/config.json: num_attention_heads 4 is no multiple of num_key_value_heads 3"},
        {"LlamaForCausalLM", "\"partial_rotary_factor\": 0.5, \"head_dim\": 8",
         "M/config.json: partial_rotary_factor 0.5 is not a thing of LlamaForCausalLM"},
        {"LlamaForCausalLM", "\"rms_norm_eps\": -1",
         "M/config.json: rms_norm_eps is -1; it should be a small positive number"},
        {"Qwen3ForCausalLM",
         "\"num_key_value_heads\": null, \"use_sliding_window\": true, \"layer_types\": "
         "[\"full_attention\", \"linear_attention\"]",
         "M/config.json: layer_types should have full_attention or sliding_attention for each of 2 "
         "layers, layer 1 has 'linear_attention'"},
        {"SmolLM3ForCausalLM", "\"no_rope_layers\": [1]",
         "M/config.json: no_rope_layers should have a number (0 or 1) for each of 2 layers"},
        {"LlamaForCausalLM", "\"rope_scaling\": {\"rope_type\": \"spiral\"}",
         "M/config.json: rope type 'spiral' is not supported; default, linear, dynamic, llama3, "
         "yarn and longrope are"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        const char *config = tiny_config(&arena, cases[i].architecture, cases[i].extra);
        const char *dir = make_folder(&arena, "value", config, NULL, NULL, 0);
        assert_refused(dir, &(pf_model_options){.shapes_only = true}, cases[i].message);
    }
}

static void refuses_weights(void **state) {
    (void)state;
    tensor_list l = {.n = 0};
    add_layers(&l, &arena);
    add_tensor(&l, &arena, "model.embed_token.weight", 10, 8, 1);
    const char *config = tiny_config(&arena, "LlamaForCausalLM", "\"tie_word_embeddings\": true");
    assert_refused(make_folder(&arena, "misspelt", config, &l, NULL, 0), NULL,
                   "M: LlamaForCausalLM needs 1 tensor that no weight file has: "
                   "model.embed_tokens.weight (nearest: 'model.embed_token.weight')");

    l.n = 0;
    add_layers(&l, &arena);
    add_tensor(&l, &arena, "model.embed_tokens.weight", 10, 8, 1);
    config = tiny_config(&arena, "LlamaForCausalLM", "");
    assert_refused(make_folder(&arena, "no_head", config, &l, NULL, 0), NULL,
                   "M: LlamaForCausalLM needs 1 tensor that no weight file has: lm_head.weight. If "
                   "the head shares the embedding's matrix, set tie_word_embeddings to true in "
                   "config.json");

    l.n = 0;
    add_layers(&l, &arena);
    add_tensor(&l, &arena, "model.embed_tokens.weight", 11, 8, 1);
    config = tiny_config(&arena, "LlamaForCausalLM", "\"tie_word_embeddings\": true");
    assert_refused(
        make_folder(&arena, "vocabulary", config, &l, NULL, 0), NULL,
        "M/model.safetensors: tensor model.embed_tokens.weight is [11,8], but "
        "LlamaForCausalLM of this config.json expects [10,8]. Weights and config.json come "
        "from different models");
}

static void tells_of_unused_tensors(void **state) {
    (void)state;
    tensor_list l = {.n = 0};
    add_layers(&l, &arena);
    add_tensor(&l, &arena, "model.embed_tokens.weight", 10, 8, 1);
    add_tensor(&l, &arena, "model.layers.0.self_attn.rotary_emb.inv_freq", 0, 1, 1);
    add_tensor(&l, &arena, "model.layers.2.mlp.up_proj.weight", 12, 8, 1);
    const char *config = tiny_config(&arena, "LlamaForCausalLM", "\"tie_word_embeddings\": true");
    const char *folder = make_folder(&arena, "unused", config, &l, NULL, 0);
    log_begin();
    pf_model *m = open_ok(folder, &(pf_model_options){.ignore_left_over_weights = true});
    log_end();
    assert_non_null(strstr(logged, "1 tensor of the weight files belongs to no part of "
                                   "LlamaForCausalLM and will not be used: "
                                   "'model.layers.2.mlp.up_proj.weight'\n"));
    pf_model_close(m);
    peft_error err = {0};
    assert_int_equal(pf_model_open(&m, folder, NULL, &err), PEFT_E_FORMAT);
    assert_null(m);
    assert_non_null(strstr(err.message,
                           "'model.layers.2.mlp.up_proj.weight'. If they may stay "
                           "unread, say --ignore-left-over-weights, or in a configuration "
                           "model.ignore_left_over_weights=true"));
}

/* No allocation that fails leaves memory behind. */
static void survives_failing_allocations(void **state) {
    (void)state;
    bool opened = false;
    for (int64_t n = 1; n < 2000 && !opened; n++) {
        pf_model *m;
        pf_alloc_fail_at(n);
        opened = pf_model_open(&m, TEST_SOURCE_DIR "/tests/golden/parity/qwen3",
                               &(pf_model_options){.dtype = PF_DTYPE_BF16}, NULL) == PEFT_OK;
        pf_alloc_fail_at(0);
        if (!opened) assert_null(m);
        pf_model_close(m);
    }
    assert_true(opened);
}

static void opens_every_fixture(void **state) {
    (void)state;
    pf_strlist names = {0};
    int n = 0;
    const char *root = TEST_SOURCE_DIR "/tests/golden/parity";
    assert_int_equal(pf_list_dir(&names, &arena, root, NULL), PEFT_OK);
    log_begin();
    for (int i = 0; i < names.n; i++) {
        const char *dir = pf_path_join(&arena, root, names.items[i]);
        if (pf_starts_with(names.items[i], "real_") || !pf_is_dir(dir)) continue;
        if (pf_ends_with(names.items[i], "_multimodal")) continue; /* says what it leaves alone */
        pf_model_close(open_ok(dir, NULL));
        n++;
    }
    log_end();
    assert_string_equal(logged, "");
    assert_true(n >= 25);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_published_models),
        cmocka_unit_test(counts_models_with_layer_norm),
        cmocka_unit_test(turns_conv1d),
        cmocka_unit_test(lists_sites),
        cmocka_unit_test(maps_in_place_and_converts),
        cmocka_unit_test(ties),
        cmocka_unit_test(refuses_configs),
        cmocka_unit_test(refuses_values),
        cmocka_unit_test(refuses_weights),
        cmocka_unit_test(tells_of_unused_tensors),
        cmocka_unit_test(survives_failing_allocations),
        cmocka_unit_test(opens_every_fixture),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

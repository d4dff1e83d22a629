/* Adapters as folders: what peft made opens, what we save opens again with the same numbers, and
 * every way in which a folder can be wrong is said in one sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/mem.h"
#include "formats/safetensors.h"
#include "peft/peft_test.h"

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

static json_t *load_json(const char *path) {
    json_t *v;
    peft_error err = {0};
    if (pf_json_load(&v, path, 1 << 20, &err) != PEFT_OK) fail_msg("%s", err.message);
    return v;
}

static const char *text_of(const json_t *v, const char *key) {
    return json_string_value(json_object_get(v, key));
}

/* ---- what peft made -------------------------------------------------------------------------- */

/* Counted as peft counts, and every number of the file at its place. */
static void opens_what_peft_made(void **state) {
    (void)state;
    json_t *info = load_json(GOLDEN "/peft/case.json"), *c;
    size_t i;
    json_array_foreach(json_object_get(info, "cases"), i, c) {
        const char *name = text_of(c, "name");
        char line[160];
        pf_model *m =
            open_base(pf_arena_printf(&arena, "%s/peft/base_%s", GOLDEN, text_of(c, "base")));
        const char *dir = pf_arena_printf(&arena, "%s/peft/%s", GOLDEN, name);
        pf_adapter *ad = open_adapter(m, dir);
        pf_adapter_describe(ad, line, sizeof line);
        if (!pf_streq(line, text_of(c, "trainable"))) {
            fail_msg("%s: %s, not %s", name, line, text_of(c, "trainable"));
        }
        pf_safetensors file;
        assert_int_equal(pf_safetensors_open(
                             &file, pf_path_join(&arena, dir, "adapter_model.safetensors"), NULL),
                         PEFT_OK);
        int landed = 0;
        for (int k = 0; k < file.n_tensors; k++) {
            const pf_param *p = pf_params_find(&ad->params, file.tensors[k].name);
            if (p == NULL) {
                assert_true(pf_ends_with(file.tensors[k].name, ".base_layer.weight"));
                continue;
            }
            float *wide = PF_NEW_ARRAY(&arena, float, p->rows * p->cols);
            pf_dtype_to_f32(file.tensors[k].dtype, file.tensors[k].data,
                            (size_t)(p->rows * p->cols), wide);
            assert_memory_equal(wide, p->data, (size_t)(p->rows * p->cols) * sizeof(float));
            landed++;
        }
        assert_int_equal(landed, ad->params.n);
        pf_safetensors_close(&file);
        pf_adapter_close(ad);
        pf_model_close(m);
    }
    assert_true(json_array_size(json_object_get(info, "cases")) >= 15);
    json_decref(info);
}

/* ---- round trip ------------------------------------------------------------------------------ */

static void assert_same_params(const pf_adapter *a, const pf_adapter *b) {
    assert_int_equal(a->params.n, b->params.n);
    for (int i = 0; i < a->params.n; i++) {
        const pf_param *p = a->params.items[i], *q = pf_params_find(&b->params, p->name);
        if (q == NULL) fail_msg("%s is gone", p->name);
        assert_int_equal(p->rows, q->rows);
        assert_int_equal(p->cols, q->cols);
        assert_memory_equal(p->data, q->data, (size_t)(p->rows * p->cols) * sizeof(pf_real));
    }
}

/* Saving what was opened gives the same tensors, and a configuration that means the same. */
static void saves_what_it_opened(void **state) {
    (void)state;
    json_t *info = load_json(GOLDEN "/peft/case.json"), *c;
    size_t i;
    json_array_foreach(json_object_get(info, "cases"), i, c) {
        const char *name = text_of(c, "name");
        pf_model *m =
            open_base(pf_arena_printf(&arena, "%s/peft/base_%s", GOLDEN, text_of(c, "base")));
        pf_adapter *ad = open_adapter(m, pf_arena_printf(&arena, "%s/peft/%s", GOLDEN, name));
        const char *dir = fresh_dir(&arena, "adapter_again");
        peft_error err = {0};
        if (pf_adapter_save(ad, dir, &err) != PEFT_OK) fail_msg("%s", err.message);
        pf_model *m2 =
            open_base(pf_arena_printf(&arena, "%s/peft/base_%s", GOLDEN, text_of(c, "base")));
        pf_adapter *again = open_adapter(m2, dir);
        assert_same_params(ad, again);
        assert_int_equal(ad->total_params, again->total_params);
        assert_string_equal(again->base_name, ad->base_name);
        pf_adapter_close(again);
        pf_model_close(m2);
        pf_adapter_close(ad);
        pf_model_close(m);
    }
    json_decref(info);
}

/* The bytes of the configuration: keys that differ from peft's defaults, and those that every
 * reader wants. */
static void writes_the_config_in_peft_s_words(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj v_proj");
    pf_cfg_pair rank = {.key = "v_proj", .number = 4, .is_number = true},
                alpha = {.key = "1.self_attn.q_proj", .number = 2.5, .is_number = true};
    cfg.dropout = 0.05;
    cfg.use_rslora = true;
    cfg.bias = "lora_only";
    cfg.modules_to_save = names_of(&arena, "lm_head", false);
    cfg.rank_pattern = (pf_cfg_map){&rank, 1};
    cfg.alpha_pattern = (pf_cfg_map){&alpha, 1};
    cfg.init_lora_weights = "gaussian";
    pf_adapter *ad = attach_lora(m, &cfg, true);
    ad->base_name = "someone/base";
    const char *dir = fresh_dir(&arena, "adapter_config");
    assert_int_equal(pf_adapter_save(ad, dir, NULL), PEFT_OK);
    pf_buf text = {0};
    assert_int_equal(
        pf_read_file(&text, pf_path_join(&arena, dir, "adapter_config.json"), 1 << 20, NULL),
        PEFT_OK);
    assert_string_equal(pf_buf_str(&text), "{\n"
                                           "  \"alpha_pattern\": {\n"
                                           "    \"1.self_attn.q_proj\": 2.5\n"
                                           "  },\n"
                                           "  \"base_model_name_or_path\": \"someone/base\",\n"
                                           "  \"bias\": \"lora_only\",\n"
                                           "  \"inference_mode\": true,\n"
                                           "  \"init_lora_weights\": \"gaussian\",\n"
                                           "  \"lora_alpha\": 16,\n"
                                           "  \"lora_dropout\": 0.05,\n"
                                           "  \"modules_to_save\": [\n"
                                           "    \"lm_head\"\n"
                                           "  ],\n"
                                           "  \"peft_type\": \"LORA\",\n"
                                           "  \"r\": 8,\n"
                                           "  \"rank_pattern\": {\n"
                                           "    \"v_proj\": 4\n"
                                           "  },\n"
                                           "  \"target_modules\": [\n"
                                           "    \"q_proj\",\n"
                                           "    \"v_proj\"\n"
                                           "  ],\n"
                                           "  \"task_type\": \"CAUSAL_LM\",\n"
                                           "  \"use_rslora\": true\n"
                                           "}");
    pf_buf_clear(&text);
    assert_int_equal(pf_read_file(&text, pf_path_join(&arena, dir, "README.md"), 1 << 20, NULL),
                     PEFT_OK);
    assert_true(pf_starts_with(pf_buf_str(&text),
                               "---\nbase_model: \"someone/base\"\nlibrary_name: "
                               "peft\npipeline_tag: text-generation\n"));
    pf_buf_free(&text);
    const char *base;
    assert_int_equal(pf_adapter_base_of(&base, &arena, dir, NULL), PEFT_OK);
    assert_string_equal(base, "someone/base");
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* all-linear is written as the names it meant: peft's own word would mean the head of another model
 * too. */
static void writes_all_linear_as_names(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    pf_lora_cfg cfg = lora_cfg_of(&arena, "");
    cfg.target_modules = names_of(&arena, "all-linear", true);
    pf_adapter *ad = attach_lora(m, &cfg, false);
    const char *dir = fresh_dir(&arena, "adapter_all_linear");
    assert_int_equal(pf_adapter_save(ad, dir, NULL), PEFT_OK);
    json_t *c = load_json(pf_path_join(&arena, dir, "adapter_config.json"));
    char *names = json_dumps(json_object_get(c, "target_modules"), JSON_COMPACT);
    assert_string_equal(names, "[\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"gate_proj\","
                               "\"up_proj\",\"down_proj\"]");
    free(names);
    json_decref(c);
    pf_model *m2 = open_base(GOLDEN "/peft/base_untied");
    pf_adapter *again = open_adapter(m2, dir);
    assert_same_params(ad, again);
    pf_adapter_close(again);
    pf_model_close(m2);
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

/* A folder with this adapter_config.json and the tensors of a list. */
static const char *adapter_folder(const char *name, const char *config, const tensor_list *l) {
    const char *dir = fresh_dir(&arena, name);
    if (config != NULL) put_text(&arena, dir, "adapter_config.json", config);
    if (l != NULL) {
        assert_int_equal(
            pf_safetensors_write(pf_path_join(&arena, dir, "adapter_model.safetensors"), l->t, l->n,
                                 &pf_safetensors_pt, 1, NULL, NULL, NULL),
            PEFT_OK);
    }
    return dir;
}

/* %a in the message: the folder; %m: the model's. */
static void assert_refused(pf_model *m, const char *dir, const char *message) {
    peft_error err = {0};
    pf_adapter *ad;
    pf_buf want = {0};
    assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK);
    assert_null(ad);
    for (const char *p = message; *p != 0; p++) {
        if (p[0] == '%' && p[1] == 'a') {
            pf_buf_adds(&want, dir);
            p++;
        } else if (p[0] == '%' && p[1] == 'm') {
            pf_buf_adds(&want, m->name);
            p++;
        } else {
            pf_buf_addc(&want, *p);
        }
    }
    assert_string_equal(err.message, pf_buf_str(&want));
    pf_buf_free(&want);
    assert_null(m->params);
    for (int i = 0; i < m->n_sites; i++) assert_null(m->sites[i]->attached);
}

#define LORA_Q                                                                                     \
    "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": [\"q_proj\"], "                       \
    "\"base_model_name_or_path\": \"big/model\"}"

#define BASES                                                                                      \
    "The adapter was trained on 'big/model'; the base here is '%m' (LlamaForCausalLM: hidden "     \
    "size 32, 2 layers, vocabulary 64)"

static const char q[] = "base_model.model.model.layers.%d.self_attn.q_proj.lora_%c.weight";

static void add_q(tensor_list *l, int layer, int64_t in, int64_t out, int64_t r) {
    add_tensor(l, &arena, pf_arena_printf(&arena, q, layer, 'A'), r, in, 1);
    add_tensor(l, &arena, pf_arena_printf(&arena, q, layer, 'B'), out, r, 1);
}

static void refuses_tensors(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    tensor_list l = {.n = 0};
    add_q(&l, 0, 64, 64, 2);
    assert_refused(
        m, adapter_folder("size", LORA_Q, &l),
        "%a/adapter_model.safetensors: size mismatch between adapter and base: "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight is [2,64] in the "
        "file, but its place is [2,32]. " BASES
        ". Use the base that the adapter was trained on (model.name_or_path)");
    l.n = 0;
    add_q(&l, 0, 32, 32, 4);
    assert_refused(m, adapter_folder("rank", LORA_Q, &l),
                   "%a/adapter_model.safetensors: "
                   "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight is [4,32], but "
                   "adapter_config.json gives this module rank 2");
    l.n = 0;
    for (int i = 0; i < 3; i++) add_q(&l, i, 32, 32, 2);
    assert_refused(
        m, adapter_folder("layers", LORA_Q, &l),
        "%a/adapter_model.safetensors: tensor "
        "'base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight' has no place in "
        "this model (nearest: "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight). " BASES
        ". Use the base that the adapter was trained on (model.name_or_path)");
    l.n = 0;
    add_q(&l, 0, 32, 32, 2);
    assert_refused(m, adapter_folder("missing", LORA_Q, &l),
                   "%a/adapter_model.safetensors: 2 tensors of the adapter are missing: "
                   "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight, "
                   "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight. " BASES);
    pf_model_close(m);
}

/* Names as other writers have them: without the prefix, or with the adapter's own name. */
static void accepts_other_spellings(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    tensor_list l = {.n = 0};
    add_q(&l, 0, 32, 32, 2);
    add_tensor(&l, &arena, "model.layers.1.self_attn.q_proj.lora_A.weight", 2, 32, 3);
    add_tensor(&l, &arena, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.default.weight",
               32, 2, 4);
    pf_adapter *ad = open_adapter(m, adapter_folder("spellings", LORA_Q, &l));
    const pf_param *a = pf_params_find(
        &ad->params, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight");
    const pf_param *b = pf_params_find(
        &ad->params, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight");
    assert_true(a->data[5] == 3 && b->data[5] == 4);
    pf_adapter_close(ad);
    add_tensor(&l, &arena, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 2, 32,
               3);
    peft_error err = {0};
    assert_int_not_equal(pf_adapter_open(&ad, m, adapter_folder("twice", LORA_Q, &l), false, &err),
                         PEFT_OK);
    assert_non_null(strstr(err.message, "is there twice, under two spellings of its name"));
    pf_model_close(m);
}

/* peft stores the frozen embedding beside its update; another one than the base's is another model.
 */
static void compares_stored_embeddings(void **state) {
    (void)state;
    static const char config[] =
        "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": [\"embed_tokens\"]}";
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    tensor_list l = {.n = 0};
    const char *e = "base_model.model.model.embed_tokens";
    add_tensor(&l, &arena, pf_arena_printf(&arena, "%s.lora_embedding_A", e), 2, 64, 1);
    add_tensor(&l, &arena, pf_arena_printf(&arena, "%s.lora_embedding_B", e), 32, 2, 1);
    pf_adapter *ad = open_adapter(m, adapter_folder("embedding", config, &l));
    pf_adapter_close(ad);
    add_tensor(&l, &arena, pf_arena_printf(&arena, "%s.base_layer.weight", e), 64, 32, 9);
    assert_refused(
        m, adapter_folder("embedding_other", config, &l),
        "%a/adapter_model.safetensors: base_model.model.model.embed_tokens.base_layer."
        "weight holds another matrix than the base '%m' (row 0 differs): the adapter was "
        "made on a base with changed embeddings. Merge it with peft on that base first");
    l.n--;
    add_tensor(&l, &arena, pf_arena_printf(&arena, "%s.base_layer.weight", e), 66, 32, 9);
    peft_error err = {0};
    assert_int_not_equal(
        pf_adapter_open(&ad, m, adapter_folder("embedding_size", config, &l), false, &err),
        PEFT_OK);
    assert_non_null(strstr(err.message, "is [66,32] in the file, but its place is [64,32]"));
    pf_model_close(m);
}

static void refuses_configs(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        {"[]", "%a/adapter_config.json: it should hold an object"},
        {"{\"r\": 8}", "%a/adapter_config.json: the key \"peft_type\" is missing"},
        {"{\"peft_type\": \"CPT\"}",
         "%a/adapter_config.json: adapters of PEFT type CPT are not supported yet; "
         "peft-toolkit train --explain peft.method lists the methods that are"},
        {"{\"peft_type\": \"LORRA\"}",
         "%a/adapter_config.json: peft_type 'LORRA' is not one of PEFT's; peft-toolkit train "
         "--explain peft.method lists the methods that are supported"},
        {"{\"config\": {\"architecture\": \"mtl_lora\"}, \"version\": \"adapters.1.0.0\"}",
         "%a/adapter_config.json: an adapter of AdapterHub of architecture mtl_lora is not read; "
         "bottleneck adapters, lora, prefix_tuning, reft and AdapterFusion are"},
        {"{\"fine_tune_type\": \"lora\", \"num_layers\": 8}",
         "%a/adapter_config.json: this is an adapter of MLX (fine_tune_type); peft-toolkit "
         "adapter convert makes one of PEFT of it"},
        {"{\"peft_type\": \"LORA\", \"task_type\": \"SEQ_CLS\"}",
         "%a/adapter_config.json: task_type is SEQ_CLS, but the base is open for CAUSAL_LM; give "
         "peft.task_type=SEQ_CLS, or leave it away"},
        {"{\"peft_type\": \"LORA\", \"task_type\": \"QUESTION_ANS\"}",
         "%a/adapter_config.json: task_type is QUESTION_ANS; adapters for CAUSAL_LM, "
         "SEQ_2_SEQ_LM, SEQ_CLS and TOKEN_CLS are supported"},
        {"{\"peft_type\": \"LORA\", \"use_qalora\": true}",
         "%a/adapter_config.json: use_qalora is set: QALoRA is not supported yet; plain LoRA is"},
        {"{\"peft_type\": \"LORA\", \"trainable_token_indices\": [99999]}",
         "%a/adapter_config.json: peft.lora.trainable_token_indices: there is no token 99999; "
         "model.embed_tokens has 0 to 63"},
        {"{\"peft_type\": \"LORA\", \"init_lora_weights\": \"pissa_niter_4\"}",
         "%a/adapter_config.json: init_lora_weights is 'pissa_niter_4', which changes the base "
         "weights when peft loads it. Save the adapter from peft with "
         "path_initial_model_for_weight_conversion, which makes it plain LoRA"},
        {"{\"peft_type\": \"LORA\", \"bias\": \"some\"}",
         "%a/adapter_config.json: bias is 'some'; it should be none, all or lora_only"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": 7}",
         "%a/adapter_config.json: target_modules is a whole number; it should be a list of names "
         "or "
         "one text"},
        {"{\"peft_type\": \"LORA\", \"rank_pattern\": {\"q_proj\": \"four\"}}",
         "%a/adapter_config.json: rank_pattern is text; it should be names with a number each"},
        {"{\"peft_type\": \"LORA\", \"target_modules\": [\"c_attn\"]}",
         "%a/adapter_config.json: peft.lora.target_modules matches no module of %m "
         "(LlamaForCausalLM)"},
    };
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    tensor_list l = {.n = 0};
    add_q(&l, 0, 32, 32, 2);
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        assert_refused(m, adapter_folder("config", cases[i].config, &l), cases[i].message);
    }
    pf_model_close(m);
}

/* All of peft 0.21's types: read, or refused by name. */
static void names_every_type(void **state) {
    (void)state;
    static const char *const types[] = {"PROMPT_TUNING",
                                        "MULTITASK_PROMPT_TUNING",
                                        "P_TUNING",
                                        "PREFIX_TUNING",
                                        "LORA",
                                        "ADALORA",
                                        "ADAMSS",
                                        "BOFT",
                                        "ADAPTION_PROMPT",
                                        "IA3",
                                        "BEFT",
                                        "LILY",
                                        "LOHA",
                                        "LOKR",
                                        "OFT",
                                        "POLY",
                                        "LN_TUNING",
                                        "VERA",
                                        "FROD",
                                        "PVERA",
                                        "FOURIERFT",
                                        "GLORA",
                                        "XLORA",
                                        "HRA",
                                        "VBLORA",
                                        "UNILORA",
                                        "CPT",
                                        "MISS",
                                        "RANDLORA",
                                        "ROAD",
                                        "TRAINABLE_TOKENS",
                                        "HIRA",
                                        "SHIRA",
                                        "C3A",
                                        "WAVEFT",
                                        "OSF",
                                        "DELORA",
                                        "GRALORA",
                                        "CARTRIDGE",
                                        "TINYLORA",
                                        "PSOFT",
                                        "PEANUT",
                                        "SHADOW",
                                        "SUPERTUNING",
                                        "DEFT"};
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    int n_read = 0;
    for (size_t i = 0; i < PF_COUNT(types); i++) {
        bool is_ours = false;
        for (int k = 0; pf_method_table[k] != NULL; k++)
            is_ours = is_ours || pf_streq(pf_method_table[k]->peft_type, types[i]);
        const char *config = pf_arena_printf(&arena, "{\"peft_type\": \"%s\"}", types[i]);
        const char *dir = adapter_folder("type", config, NULL);
        peft_error err = {0};
        pf_adapter *ad;
        n_read += is_ours;
        assert_int_not_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_OK); /* no tensors */
        const char *refusal =
            pf_arena_printf(&arena, "PEFT type %s are not supported yet", types[i]);
        if ((strstr(err.message, refusal) != NULL) == is_ours ||
            strstr(err.message, "is not one of PEFT's") != NULL)
            fail_msg("%s: %s", types[i], err.message);
    }
    assert_int_equal(n_read, 23);
    pf_model_close(m);
}

/* Places of SHiRA's numbers that lie outside of the weight, or in another order. */
static void refuses_places(void **state) {
    (void)state;
    static const int32_t wrong[] = {-1, 32, 7};
    pf_model *m = open_base(GOLDEN "/methods/base_llama");
    pf_safetensors file;
    pf_buf config = {0};
    peft_error err = {0};
    const char *from = GOLDEN "/methods/shira/start";
    assert_int_equal(
        pf_safetensors_open(&file, pf_path_join(&arena, from, "adapter_model.safetensors"), NULL),
        PEFT_OK);
    assert_int_equal(
        pf_read_file(&config, pf_path_join(&arena, from, "adapter_config.json"), 1 << 20, NULL),
        PEFT_OK);
    for (size_t i = 0; i < PF_COUNT(wrong); i++) {
        pf_adapter *ad;
        tensor_list l = {.n = 0};
        for (int k = 0; k < file.n_tensors; k++) {
            pf_stored_tensor *t = &l.t[l.n++];
            *t = file.tensors[k];
            if (!pf_ends_with(t->name, "layers.1.self_attn.q_proj.shira_indices")) continue;
            const size_t n = (size_t)pf_stored_tensor_count(t);
            int32_t *places = PF_NEW_ARRAY(&arena, int32_t, n);
            memcpy(places, t->data, n * sizeof *places);
            places[wrong[i] == 7 ? 0 : n / 2 + 3] = wrong[i];
            t->data = places;
        }
        const char *dir = adapter_folder("places", pf_buf_str(&config), &l);
        assert_int_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_E_FORMAT);
        assert_non_null(strstr(err.message, "shira_indices: number "));
        assert_null(ad);
    }
    pf_buf_free(&config);
    pf_safetensors_close(&file);
    pf_model_close(m);
}

static void refuses_folders(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    assert_refused(m, adapter_folder("empty", NULL, NULL),
                   "%a: there is no adapter_config.json, so this is no adapter folder");
    assert_refused(
        m, adapter_folder("no_weights", LORA_Q, NULL),
        "%a/adapter_model.safetensors: there is no such file, but an adapter_config.json "
        "beside it");
    const char *dir = adapter_folder("pickle", LORA_Q, NULL);
    put_text(&arena, dir, "adapter_model.bin", "PK");
    peft_error err = {0};
    pf_adapter *ad;
    assert_int_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(err.message,
                           "adapter_model.bin is a pickle, which can run code and is "
                           "not read here. Convert it once where torch is: python -c"));
    assert_int_not_equal(pf_adapter_open(&ad, m, "/nowhere/at/all", false, NULL), PEFT_OK);
    dir = adapter_folder("truncated", LORA_Q, NULL);
    put_text(&arena, dir, "adapter_model.safetensors", "short");
    assert_int_equal(pf_adapter_open(&ad, m, dir, false, &err), PEFT_E_FORMAT);
    pf_model_close(m);
}

/* A rank that asks for more memory than any machine has is found wrong before memory is asked for.
 */
static void checks_sizes_before_making_room(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    tensor_list l = {.n = 0};
    for (int i = 0; i < 2; i++) add_q(&l, i, 32, 32, 2);
    assert_refused(
        m,
        adapter_folder("huge",
                       "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": "
                       "[\"q_proj\"], \"rank_pattern\": {\"1.self_attn.q_proj\": 65536}}",
                       &l),
        "%a/adapter_model.safetensors: "
        "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight is [2,32], but "
        "adapter_config.json gives this module rank 65536");
    pf_model_close(m);
}

/* No allocation that fails leaves a model half attached or memory behind. */
static void survives_failing_allocations(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    bool opened = false;
    for (int64_t n = 1; n < 2000 && !opened; n++) {
        pf_adapter *ad;
        pf_alloc_fail_at(n);
        opened = pf_adapter_open(&ad, m, GOLDEN "/peft/patterns", true, NULL) == PEFT_OK;
        pf_alloc_fail_at(0);
        if (opened) {
            pf_adapter_close(ad);
        } else {
            assert_null(ad);
        }
        assert_null(m->params);
        for (int i = 0; i < m->n_sites; i++) assert_null(m->sites[i]->attached);
    }
    assert_true(opened);
    pf_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_what_peft_made),
        cmocka_unit_test(saves_what_it_opened),
        cmocka_unit_test(writes_the_config_in_peft_s_words),
        cmocka_unit_test(writes_all_linear_as_names),
        cmocka_unit_test(refuses_tensors),
        cmocka_unit_test(accepts_other_spellings),
        cmocka_unit_test(compares_stored_embeddings),
        cmocka_unit_test(refuses_configs),
        cmocka_unit_test(names_every_type),
        cmocka_unit_test(refuses_places),
        cmocka_unit_test(refuses_folders),
        cmocka_unit_test(checks_sizes_before_making_room),
        cmocka_unit_test(survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* Between the minimal set and whole blocks: kinds have prices, giving them up one by one never
 * needs more room, the two ends are the two named policies, and a choice survives as text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "models/model_open.h"
#include "peft/lora/lora.h"
#include "peft/lora/lora.h"
#include "peft/method.h"
#include "text/json.h"
#include "train/loss_graph.h"

#include <string.h>

enum { LAYERS = 4, TOKENS = 64 };

static pf_model *model;
static pf_adapter *adapter;
static pf_backend *null_backend;

static int setup(void **state) {
    (void)state;
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 32, \"num_hidden_layers\": 4,"
        " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 96,"
        " \"vocab_size\": 64, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5,"
        " \"tie_word_embeddings\": true}";
    static const char *targets[] = {"q_proj", "down_proj"};
    static pf_lora_cfg lora = {.r = 4, .alpha = 8, .init_lora_weights = "true", .bias = "none"};
    lora.target_modules = (pf_cfg_strings){.list = {.items = targets, .n = 2}};
    static pf_peft_cfg cfg = {.method = "lora", .method_cfg = &lora, .given = true};
    peft_error err = {0};
    json_t *json = json_loads(config, 0, NULL);
    if (pf_model_open_config(&model, json, "test", &err) != PEFT_OK ||
        pf_adapter_attach(&adapter, model, &cfg, 1, true, &err) != PEFT_OK ||
        pf_backend_open_null(&null_backend, 1, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_adapter_close(adapter);
    pf_model_close(model);
    pf_backend_close(null_backend);
    return 0;
}

/* The arena, and the kinds where `find` is not NULL. */
static pf_plan plan_with(pf_save_policy policy, const pf_saved_set *saved, pf_saved_set *find) {
    const pf_loss_graph_options opt = {.training = true,
                                       .adapters = true,
                                       .policy = policy,
                                       .saved = saved,
                                       .fuse = true,
                                       .max_tokens = TOKENS,
                                       .max_labels = TOKENS};
    pf_loss_graph lg;
    peft_error err = {0};
    if (pf_loss_graph_init(&lg, model, null_backend, &opt, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    pf_plan plan = lg.exec->plan;
    if (find != NULL) pf_saved_set_find(find, lg.graph, &lg.exec->plan);
    pf_loss_graph_release(&lg);
    return plan;
}

static void ends_are_the_named_policies(void **state) {
    (void)state;
    pf_saved_set s;
    const pf_plan minimal = plan_with(PF_SAVE_MINIMAL, NULL, &s);
    const pf_plan blocks = plan_with(PF_SAVE_CHECKPOINT, NULL, NULL);
    assert_int_equal(s.n_blocks, LAYERS);
    assert_true(s.n >= 5);
    int64_t bytes = 0;
    for (int i = 0; i < s.n; i++) {
        assert_true(s.kinds[i].bytes > 0 && s.kinds[i].flops > 0);
        bytes += s.kinds[i].bytes;
        if (i == 0) continue; /* prices rise */
        assert_true(s.kinds[i - 1].flops / (double)s.kinds[i - 1].bytes <=
                    s.kinds[i].flops / (double)s.kinds[i].bytes);
    }
    assert_true(bytes <= minimal.at_peak[PF_MEM_SAVED]);
    pf_saved_set_narrow(&s, 0);
    const pf_plan none = plan_with(PF_SAVE_SELECTED, &s, NULL);
    assert_int_equal(none.arena_bytes, minimal.arena_bytes);
    assert_true(none.recompute_flops == minimal.recompute_flops);
    pf_saved_set_narrow(&s, pf_saved_set_steps(&s));
    const pf_plan all = plan_with(PF_SAVE_SELECTED, &s, NULL);
    assert_int_equal(all.arena_bytes, blocks.arena_bytes);
    assert_true(all.recompute_flops == blocks.recompute_flops);
    assert_true(blocks.arena_bytes < minimal.arena_bytes);
}

static void each_step_gives_up_more(void **state) {
    (void)state;
    pf_saved_set s;
    pf_plan before = plan_with(PF_SAVE_MINIMAL, NULL, &s);
    for (int i = 1; i <= pf_saved_set_steps(&s); i++) {
        pf_saved_set_narrow(&s, i);
        const pf_plan now = plan_with(PF_SAVE_SELECTED, &s, NULL);
        assert_true(now.sum[PF_MEM_SAVED] < before.sum[PF_MEM_SAVED]);
        assert_true(now.recompute_flops >= before.recompute_flops);
        before = now;
    }
}

static void survives_as_text(void **state) {
    (void)state;
    pf_saved_set s, back;
    plan_with(PF_SAVE_MINIMAL, NULL, &s);
    pf_saved_set_narrow(&s, LAYERS + 1);
    char text[PF_SAVED_TEXT], again[PF_SAVED_TEXT];
    pf_saved_set_write(&s, text, sizeof text);
    assert_true(pf_saved_set_read(&back, text));
    pf_saved_set_write(&back, again, sizeof again);
    assert_string_equal(text, again);
    assert_int_equal(plan_with(PF_SAVE_SELECTED, &s, NULL).arena_bytes,
                     plan_with(PF_SAVE_SELECTED, &back, NULL).arena_bytes);
    assert_false(pf_saved_set_read(&back, "mlp.up_proj/linear"));
    assert_false(pf_saved_set_read(&back, "mlp.up_proj/linear:1"));
    assert_false(pf_saved_set_read(&back, "mlp.up_proj/linear:1:x"));
    assert_false(pf_saved_set_read(&back, "mlp.up_proj/linear:1:-1"));
    assert_false(pf_saved_set_read(&back, "mlp.up_proj/linear:99999999999:1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_are_the_named_policies),
        cmocka_unit_test(each_step_gives_up_more),
        cmocka_unit_test(survives_as_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

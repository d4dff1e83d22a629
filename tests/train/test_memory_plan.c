/* A plan without weights and data, its limits, and the speed that is predicted from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "data/data_assume.h"
#include "models/model_open.h"
#include "peft/lora/lora.h"
#include "peft/method.h"
#include "text/json.h"
#include "train/speed.h"

#include <string.h>

enum { ROWS = 4, LENGTH = 33 };

static pf_model *model;
static pf_adapter *adapter;
static pf_data data;
static pf_step_plan *steps;

static int setup(void **state) {
    (void)state;
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"num_hidden_layers\": 3,"
        " \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 192,"
        " \"vocab_size\": 96, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5,"
        " \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\"}";
    static const char *targets[] = {"q_proj", "down_proj"};
    static pf_lora_cfg lora = {.r = 4, .alpha = 8, .init_lora_weights = "true", .bias = "none"};
    lora.target_modules = (pf_cfg_strings){.list = {.items = targets, .n = 2}};
    static pf_peft_cfg cfg = {.method = "lora", .method_cfg = &lora, .given = true};
    const pf_assumed_rows rows = {.train = ROWS, .length = LENGTH};
    const pf_step_plan_options order = {.batch_size = ROWS, .accumulation = 1};
    peft_error err = {0};
    if (pf_model_open_config(&model, json_loads(config, 0, NULL), "test", &err) != PEFT_OK ||
        pf_adapter_attach(&adapter, model, &cfg, 1, true, &err) != PEFT_OK ||
        pf_data_assume(&data, &rows, &err) != PEFT_OK ||
        pf_step_plan_new(&steps, &data.train, &order, &err) != PEFT_OK)
        fail_msg("%s", err.message);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_step_plan_free(steps);
    pf_data_release(&data);
    pf_adapter_close(adapter);
    pf_model_close(model);
    return 0;
}

static pf_memory_request request(void) {
    return (pf_memory_request){.model = model,
                               .n_workers = 1,
                               .fuse = true,
                               .steps = steps,
                               .set = &data.train_set,
                               .builder = {.max_samples = ROWS, .share = PF_SHARE_NEVER},
                               .total_steps = 1,
                               .longest = LENGTH - 1,
                               .most_labels = LENGTH - 1,
                               .step_tokens = ROWS * LENGTH,
                               .assumed = true,
                               .trained = adapter->params.block_len};
}

static pf_memory_plan plan_of(const pf_memory_request *rq) {
    pf_memory_plan p;
    peft_error err = {0};
    if (pf_memory_plan_make(&p, rq, &err) != PEFT_OK) fail_msg("%s", err.message);
    return p;
}

static void counts_what_is_there(void **state) {
    (void)state;
    const pf_memory_request rq = request();
    const pf_memory_plan p = plan_of(&rq);
    assert_true(p.cut.exact);
    assert_int_equal(p.max_tokens,
                     ROWS * (LENGTH - 1)); /* the last token of a row predicts nothing */
    assert_int_equal(p.max_labels, ROWS * (LENGTH - 1));
    assert_int_equal(p.mapped_bytes, 2 * model->n_params); /* bf16, the tied matrix once */
    assert_int_equal(p.converted_bytes, 0);
    assert_true(p.total > p.graph.arena_bytes + 16 * rq.trained);
    assert_true(p.step_flops > 0 && p.note[0] == '\0');
}

static void a_limit_narrows_then_shrinks(void **state) {
    (void)state;
    pf_memory_request rq = request();
    const pf_memory_plan usual = plan_of(&rq);
    rq.checkpointing = true;
    const pf_memory_plan blocks = plan_of(&rq);
    rq.checkpointing = false;
    rq.limit = (usual.total + blocks.total) / 2;
    const pf_memory_plan narrow = plan_of(&rq);
    assert_int_equal(narrow.policy, PF_SAVE_SELECTED);
    assert_int_equal(narrow.max_tokens, usual.max_tokens);
    assert_true(narrow.total <= rq.limit && narrow.total > blocks.total);
    assert_true(narrow.graph.recompute_flops > usual.graph.recompute_flops);
    assert_non_null(strstr(narrow.note, "the backward pass recomputes"));
    rq.limit = blocks.total - 1;
    const pf_memory_plan fewer = plan_of(&rq);
    assert_int_equal(fewer.policy, PF_SAVE_CHECKPOINT);
    assert_true(fewer.max_tokens < usual.max_tokens && fewer.max_tokens >= rq.longest);
    assert_true(fewer.total <= rq.limit);
    rq.limit = 1000;
    pf_memory_plan none;
    peft_error err = {0};
    assert_int_equal(pf_memory_plan_make(&none, &rq, &err), PEFT_E_NOMEM);
    assert_non_null(
        strstr(err.message, "training.memory_limit is 1000 B and the smallest plan needs"));
}

static void speed_of_the_plan(void **state) {
    (void)state;
    for (int type = PF_COMPUTE_F32; type <= PF_COMPUTE_INT8; type++) {
        pf_memory_request rq = request();
        rq.compute = (pf_compute)type;
        const pf_memory_plan p = plan_of(&rq);
        pf_backend *cpu;
        pf_speed s;
        peft_error err = {0};
        assert_int_equal(pf_backend_open_cpu(&cpu, 1, &err), PEFT_OK);
        if (pf_speed_predict(&s, &rq, &p, cpu, 1, &err) != PEFT_OK) fail_msg("%s", err.message);
        pf_backend_close(cpu);
        assert_int_equal(s.rows, p.max_tokens);
        assert_true(s.kinds >= 15 && s.guessed <= 1);
        assert_true(s.forward > 0 && s.backward > 0 && s.optimizer > 0);
        assert_true(s.tokens_per_second > 0);
        const double tokens = s.tokens_per_second * s.step;
        assert_true(tokens > ROWS * LENGTH - 0.5 && tokens < ROWS * LENGTH + 0.5);
        for (int i = 0; i < adapter->params.n; i++) /* nothing of the model was touched */
            assert_null(adapter->params.items[i]->data);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_what_is_there),
        cmocka_unit_test(a_limit_narrows_then_shrinks),
        cmocka_unit_test(speed_of_the_plan),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

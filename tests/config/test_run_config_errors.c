/* test_run_config_errors.c - what a user reads when the configuration is wrong. Every text is
 * golden: a change here is a change of what users see. */
#include "config/run_config.h"
#include "peft/lora/lora.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pf_cfg_ext method_sections[PF_MAX_METHODS];

/* The messages below name the methods: with these two, they stay as they are when one is added. */
static int n_method_sections(void) {
    const int n = pf_method_sections(method_sections);
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (strcmp(method_sections[i].name, "lora") == 0 ||
            strcmp(method_sections[i].name, "full") == 0)
            method_sections[kept++] = method_sections[i];
    }
    return kept;
}

#define BASE "model: {name_or_path: m}\n"
#define QA   BASE "data: {train: t.csv, prompt: \"{q}\", target: \"{a}\", test_size: 0.1}\n"

typedef struct golden {
    const char *text, *message;
} golden;

static const golden cases[] = {
    /* nothing there */
    {"",
     "run.yaml: model.name_or_path is missing; it should name a folder with config.json, a "
     "tokenizer and *.safetensors, or a hub name in the local cache\n"
     "run.yaml: data has neither prompt and target nor text; they say what is learned from a row, "
     "for example prompt: \"Q: {question}\\nA:\" and target: \" {answer}\"\n"
     "run.yaml: data.train is missing; it should name a CSV, TSV, JSON or JSONL file"},
    {"- a\n- b\n",
     "run.yaml:1:1: is a list; a configuration is a mapping with sections such as model: and "
     "training:\n"
     "run.yaml: model.name_or_path is missing; it should name a folder with config.json, a "
     "tokenizer "
     "and *.safetensors, or a hub name in the local cache\n"
     "run.yaml: data has neither prompt and target nor text; they say what is learned from a row, "
     "for "
     "example prompt: \"Q: {question}\\nA:\" and target: \" {answer}\"\n"
     "run.yaml: data.train is missing; it should name a CSV, TSV, JSON or JSONL file"},
    /* unknown keys */
    {QA "trainning:\n  learning_rate: 1\n",
     "run.yaml:3:1: trainning is not a known key; did you mean training?"},
    {QA "training:\n  learning_rat: 1\n", "run.yaml:4:3: training.learning_rat is not a known key; "
                                          "did you mean training.learning_rate?"},
    {QA "learning_rate: 1e-4\n",
     "run.yaml:3:1: learning_rate is not a known key; did you mean training.learning_rate?"},
    {QA "training:\n  r: 8\n",
     "run.yaml:4:3: training.r is not a known key; did you mean peft.lora.r?"},
    {QA "peft:\n  lora:\n    target_module: [q_proj]\n",
     "run.yaml:5:5: peft.lora.target_module is not a known key; did you mean "
     "peft.lora.target_modules?"},
    {QA "callbacks:\n  - early_stop: {patience: 2}\n",
     "run.yaml:4:5: callbacks.early_stop is not a known key; did you mean "
     "callbacks.early_stopping?"},
    {QA "model_type: llama\nzzz: 1\n",
     "run.yaml:3:1: model_type is not a known key; did you mean model?\n"
     "run.yaml:4:1: zzz is not a known key; known sections: model, peft, data, training, "
     "evaluation, "
     "generation, logging, callbacks, distributed, seed"},
    {QA "\"a key\\twith\\e[2J\": 1\n",
     "run.yaml:3:1: \"a key?with?[2J\" is not a known key; known sections: model, peft, data, "
     "training, evaluation, generation, logging, callbacks, distributed, seed"},
    /* types */
    {QA "training: {learning_rate: fast}\n",
     "run.yaml:3:27: training.learning_rate is \"fast\"; it should be a number between 0 and 100 "
     "(5e-05 is usual)"},
    {QA "training: {num_train_epochs: three}\nseed: 4.5\n",
     "run.yaml:3:30: training.num_train_epochs is \"three\"; it should be a number above 0 and at "
     "most 1000000 (3 is usual)\n"
     "run.yaml:4:7: seed is 4.5; it should be a whole number at least 0 (42 is usual)"},
    {QA "training: {fp16: 1}\n", "run.yaml:3:18: training.fp16 is 1; it should be true or false"},
    {QA "training:\n  learning_rate: {max: 1e-4}\n",
     "run.yaml:4:18: training.learning_rate is a mapping; it should be a number between 0 and 100 "
     "(5e-05 is usual)"},
    {QA "training: 3\n", "run.yaml:3:11: training is 3; it should be a section with keys such as "
                         "output_dir, run_name, per_device_train_batch_size, "
                         "per_device_eval_batch_size"},
    {QA
     "peft:\n  lora:\n    target_modules: [q_proj, [v_proj]]\n    layers_to_transform: [1, two]\n",
     "run.yaml:5:30: peft.lora.target_modules holds a list; its items should be words\n"
     "run.yaml:6:30: peft.lora.layers_to_transform is \"two\"; it should be a list of whole "
     "numbers "
     "between 0 and 100000"},
    {QA "callbacks: [[early_stopping]]\n",
     "run.yaml:3:13: callbacks holds a list; its items should be names or name: {key: value}"},
    {QA "callbacks:\n  - early_stopping\n  - early_stopping: {patience: 2}\n",
     "run.yaml:5:5: callbacks.early_stopping is given twice (early_stopping, first at "
     "run.yaml:4:5)"},
    {QA "peft: {lora: {alpha: 8, lora_alpha: 16}}\n",
     "run.yaml:3:25: peft.lora.alpha is given twice (lora_alpha, first at run.yaml:3:22)"},
    {QA "training: {memory_limit: lots}\n", "run.yaml:3:26: training.memory_limit is \"lots\"; it "
                                            "should be a size such as 7G or 512MiB, or a share of "
                                            "this machine's memory such as 60%"},
    {QA "training: {memory_limit: 130%}\n",
     "run.yaml:3:26: training.memory_limit is \"130%\"; it should be a size such as 7G or 512MiB, "
     "or a share of this machine's memory such as 60%"},
    /* bounds and choices */
    {QA "peft: {lora: {r: 0, dropout: 1}}\n",
     "run.yaml:3:18: peft.lora.r is 0; it should be between 1 and 65536 (8 is usual)\n"
     "run.yaml:3:30: peft.lora.dropout is 1; it should be at least 0 and below 1 (0 is usual)"},
    {QA "peft: {lora: {rank_pattern: {q_proj: 2.5, v_proj: high}}}\n",
     "run.yaml:3:38: peft.lora.rank_pattern.q_proj is 2.5; it should be a whole number between 1 "
     "and "
     "65536"},
    {QA "training: {optim: adam}\n",
     "run.yaml:3:19: training.optim is \"adam\"; it should be one of adamw_torch; did "
     "you mean adamw_torch?"},
    {QA "training: {lr_scheduler_type: cosin}\n",
     "run.yaml:3:31: training.lr_scheduler_type is \"cosin\"; it should be one of linear, cosine, "
     "cosine_with_restarts, polynomial, constant, constant_with_warmup, inverse_sqrt, "
     "reduce_lr_on_plateau, cosine_with_min_lr, cosine_warmup_with_min_lr, warmup_stable_decay; "
     "did "
     "you mean cosine?"},
    {"model: {name_or_path: m, torch_dtype: int3, device_map: gpu}\n"
     "data: {train: t, text: \"{x}\"}\npeft: {method: Lora2}\n",
     "run.yaml:1:39: model.torch_dtype is \"int3\"; it should be one of auto, float32, bfloat16, "
     "float16\n"
     "run.yaml:1:57: model.device_map is \"gpu\"; it should be auto, cpu, cuda or cuda:N\n"
     "run.yaml:3:16: peft.method is \"Lora2\"; it should be one of METHODS; did you mean lora?"},
    /* between keys */
    {QA "training: {bf16: true, fp16: true}\n",
     "run.yaml:3:18: training.bf16 is true and so is fp16; one of them"},
    {QA "training: {warmup_ratio: 0.1, warmup_steps: 10}\n",
     "run.yaml:3:45: training.warmup_steps is given and so is warmup_ratio; one of them says how "
     "long "
     "the warm-up is"},
    {QA "training: {max_steps: 0, logging_steps: 1.5}\n",
     "run.yaml:3:23: training.max_steps is 0; it should be at least 1, or -1 to go by "
     "num_train_epochs\n"
     "run.yaml:3:41: training.logging_steps is 1.5; it should be a whole number of steps, or a "
     "share "
     "below 1"},
    {QA "training: {lr_scheduler_type: cosine, lr_scheduler_kwargs: {min_lr: 1e-6}}\n",
     "run.yaml:3:60: training.lr_scheduler_kwargs has \"min_lr\", which the schedule cosine does "
     "not "
     "take; it takes num_cycles"},
    {BASE "data:\n  train: t.csv\n  test: e.csv\n  test_size: 0.1\n  prompt: \"{q}\"\n  target: "
          "\"{a}\"\n",
     "run.yaml:5:14: data.test_size is given and so is data.test; the test rows come from one of "
     "them"},
    {BASE "data: {train: t.csv}\n",
     "run.yaml:2:1: data has neither prompt and target nor text; they say what is learned from a "
     "row, "
     "for example prompt: \"Q: {question}\\nA:\" and target: \" {answer}\""},
    {BASE "data: {train: t.csv, prompt: \"{q}\"}\n",
     "run.yaml:2:30: data.prompt is given without data.target"},
    {"model: {name_or_path: m}\ndata: {train: t.csv, text: \"{q}\", input_ids: ids}\n",
     "run.yaml:2:46: data.input_ids is given and so is data.text; rows are either text or tokens"},
    {"model: {name_or_path: m}\ndata: {train: t.csv, text: \"{q}\", labels: x}\n",
     "run.yaml:2:43: data.labels is given without data.input_ids; labels belong to rows of token "
     "ids"},
    {"model: {name_or_path: m}\ndata: {train: t.csv, test: t.csv, input_ids: x}\nevaluation: "
     "{generate: "
     "true}\n",
     "run.yaml:3:24: evaluation.generate is true, but rows of data.input_ids have no text to "
     "compare with"},
    {BASE "data: {train: t.csv, prompt: \"{q}\", target: \"{a}\", text: \"{b}\"}\n",
     "run.yaml:2:58: data.text is given and so is data.prompt; plain text has no prompt and "
     "target"},
    {BASE "data: {train: t.csv, prompt: \"{q}\", target: answer}\n",
     "run.yaml:2:45: data.target has no column in it, so all rows would be the same; write "
     "{column}"},
    {QA "data2: 1\n", "run.yaml:3:1: data2 is not a known key; did you mean data?"},
    {BASE "data: {train: t.csv, text: \"{x}\", delimiter: ab, test_size: 2.5}\n",
     "run.yaml:2:46: data.delimiter should be one ASCII character, such as \",\" or \"\\t\"\n"
     "run.yaml:2:61: data.test_size is 2.5; it should be a share below 1 or a whole number of "
     "rows"},
    {BASE "data: {train: t.csv, text: \"{x}\"}\ntraining: {eval_steps: 100}\n",
     "run.yaml:3:24: training.eval_steps asks for evaluations, but there are no test rows; give "
     "data.test or data.test_size"},
    {BASE "data: {train: t.csv, text: \"{x}\"}\ncallbacks:\n  - early_stopping: {metric: f1}\n",
     "run.yaml:4:5: callbacks.early_stopping counts evaluations, and there are none; give "
     "data.test "
     "or data.test_size, and training.eval_steps\n"
     "run.yaml:4:30: callbacks.early_stopping.metric is \"f1\", which needs continuations, and "
     "data.prompt is not given"},
    {QA "callbacks:\n  - early_stopping: {metric: eval_exct_match}\n",
     "run.yaml:4:30: callbacks.early_stopping.metric is \"eval_exct_match\"; it should be one of "
     "eval_loss, eval_perplexity, eval_token_accuracy, eval_exact_match, eval_f1, eval_bleu; did "
     "you "
     "mean eval_exact_match?"},
    {QA "evaluation: {do_sample: false, temperature: 0.7}\n",
     "run.yaml:3:45: evaluation.temperature has no effect while do_sample is false"},
    {QA "seed: 1\ntraining: {seed: 2}\n",
     "run.yaml:4:18: training.seed is 2 and seed is 1; one of them"},
    {QA "training: {report_to: [wandbb]}\n",
     "run.yaml:3:23: training.report_to names \"wandbb\"; it should be none, or a list of mlflow, "
     "wandb, tensorboard, csv"},
    {QA "training: {compute: f32, bf16: true}\n",
     "run.yaml:3:21: training.compute is f32 and training.bf16 is true; one of them"},
    /* several at once, in the order of the file */
    {"model: {name_or_path: m, dtyp: x}\n"
     "peft: {lora: {r: -1}}\n"
     "data: {train: t.csv, prompt: \"{q}\", target: \"{a}\", test_size: lots}\n"
     "training: {learning_rate: x, eval_step: 3}\n",
     "run.yaml:1:26: model.dtyp is not a known key; did you mean model.torch_dtype?\n"
     "run.yaml:2:18: peft.lora.r is -1; it should be between 1 and 65536 (8 is usual)\n"
     "run.yaml:3:63: data.test_size is \"lots\"; it should be a number at least 0\n"
     "run.yaml:4:27: training.learning_rate is \"x\"; it should be a number between 0 and 100 "
     "(5e-05 "
     "is usual)\n"
     "run.yaml:4:30: training.eval_step is not a known key; did you mean training.eval_steps?"},
    /* not YAML */
    {"model:\n  name_or_path: m\n training: {}\n",
     "run.yaml:3:2: while parsing a block mapping, did not find expected key"},
    {"model: &m {name_or_path: m}\n", "run.yaml:1:8: anchors (&name) are not taken; write the "
                                      "value out where it is used, or put it in "
                                      "quotes if the & is text"},
    {"seed: 1\nseed: 2\n",
     "run.yaml:2:1: the key \"seed\" stands here twice; the first is in line 1"},
};

/* The methods that there are stand in methods.def, not here. */
static void hide_methods(char *message) {
    static const char from[] = "one of lora, ", to[] = "one of METHODS";
    char *at = strstr(message, from);
    char *end = at != NULL ? strchr(at, ';') : NULL;
    if (end == NULL) return;
    memcpy(at, to, sizeof to - 1);
    memmove(at + sizeof to - 1, end, strlen(end) + 1);
}

static void test_golden(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_arena a;
        pf_run_cfg run;
        pf_cfg cfg;
        peft_error err = {0};
        pf_arena_init(&a, "test");
        const pf_cfg_source source = {
            .text = cases[i].text, .text_len = strlen(cases[i].text), .text_name = "run.yaml"};
        peft_status status = pf_run_cfg_open(&run, &cfg, &a, &source, method_sections,
                                             n_method_sections(), PF_RUN_TRAIN, &err);
        hide_methods(err.message);
        if (strcmp(err.message, cases[i].message) != 0) {
            print_error("case %d is\n%s\n", (int)i, err.message);
            wrong++;
        }
        assert_true(status == PEFT_E_CONFIG || status == PEFT_E_FORMAT);
        pf_arena_release(&a);
    }
    assert_int_equal(wrong, 0);
}

/* The right configuration behind each of those is accepted: the checks do not refuse everything. */
static void test_right_ones(void **state) {
    (void)state;
    static const char *const right[] = {
        QA,
        BASE "data: {train: t.csv, text: \"{x}\"}\n",
        "model: {adapter_name_or_path: a}\ndata: {train: t.csv, text: \"{x}\"}\n",
        QA "training: {bf16: true, compute: bf16}\n",
        QA
        "training: {lr_scheduler_type: warmup_stable_decay, lr_scheduler_kwargs: {num_decay_steps: "
        "3, decay_type: linear}}\n",
        QA "callbacks: {early_stopping: {metric: bleu}}\n",
        QA "training: {seed: 3, eval_steps: 0.5, warmup_steps: 0, warmup_ratio: 0.1}\nseed: 3\n",
        QA "evaluation: {do_sample: true, temperature: 0.7}\n",
    };
    for (size_t i = 0; i < PF_COUNT(right); i++) {
        pf_arena a;
        pf_run_cfg run;
        pf_cfg cfg;
        peft_error err = {0};
        pf_arena_init(&a, "test");
        const pf_cfg_source source = {
            .text = right[i], .text_len = strlen(right[i]), .text_name = "run.yaml"};
        assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, method_sections,
                                         n_method_sections(), PF_RUN_TRAIN, &err),
                         PEFT_OK);
        assert_string_equal(err.message, "");
        pf_arena_release(&a);
    }
}

static void test_missing_file(void **state) {
    (void)state;
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    peft_error err = {0};
    pf_arena_init(&a, "test");
    const pf_cfg_source source = {.path = "no/such/run.yaml"};
    assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, method_sections, n_method_sections(),
                                     PF_RUN_TRAIN, &err),
                     PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "no/such/run.yaml"));
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_right_ones),
        cmocka_unit_test(test_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

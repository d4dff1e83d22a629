/* test_run_config.c - the canonical configuration loads, every key reaches its field, and what
 * follows from what. */
#include "base/file.h"
#include "base/mem.h"
#include "config/run_config.h"
#include "peft/lora/lora.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pf_cfg_ext method_sections[PF_MAX_METHODS];

static int n_method_sections(void) {
    return pf_method_sections(method_sections);
}

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/config/"

typedef struct fixture {
    pf_arena arena;
    pf_run_cfg run;
    pf_cfg cfg;
    peft_error err;
    peft_status status;
    pf_strlist notes;
} fixture;

static void load(fixture *f, const char *path, const char *text, const char *const *args, int n) {
    *f = (fixture){0};
    pf_arena_init(&f->arena, "test");
    const pf_cfg_source source = {.path = path,
                                  .text = text,
                                  .text_len = text != NULL ? strlen(text) : 0,
                                  .text_name = "t.yaml",
                                  .overrides = args,
                                  .n_overrides = n};
    f->status = pf_run_cfg_open(&f->run, &f->cfg, &f->arena, &source, method_sections,
                                n_method_sections(), PF_RUN_TRAIN, &f->err);
    if (f->status != PEFT_OK) return;
    assert_int_equal(pf_run_cfg_notes(&f->run, &f->cfg, NULL, 0, &f->arena, &f->notes, &f->err),
                     PEFT_OK);
}

static void drop(fixture *f) {
    pf_arena_release(&f->arena);
}

static const char *where(const fixture *f, const char *path) {
    return pf_cfg_find(&f->cfg, path)->where;
}

static void check_canonical(const fixture *f) {
    const pf_run_cfg *r = &f->run;
    assert_string_equal(f->err.message, "");
    assert_string_equal(r->model.torch_dtype, "float16");
    assert_string_equal(r->model.device_map, "auto");
    assert_string_equal(r->model.tokenizer_name_or_path, r->model.name_or_path);
    assert_string_equal(r->peft.method, "lora");
    const pf_lora_cfg *lora = r->peft.method_cfg;
    assert_true(lora->r == 8 && lora->alpha == 16 && lora->dropout == 0.05);
    assert_int_equal(lora->target_modules.list.n, 2);
    assert_string_equal(lora->target_modules.list.items[1], "v_proj");
    assert_string_equal(lora->bias, "none");
    assert_string_equal(lora->init_lora_weights, "true");
    assert_string_equal(r->data.prompt, "Q: {question}\nA:");
    assert_string_equal(r->data.target, "{answer}");
    assert_true(r->data.test_size == 0.1 && r->data.shuffle);
    const pf_training_cfg *t = &r->training;
    assert_int_equal(t->per_device_train_batch_size, 4);
    assert_int_equal(t->per_device_eval_batch_size, 4);
    assert_int_equal(t->gradient_accumulation_steps, 8);
    assert_true(t->learning_rate == 2e-4 && t->num_train_epochs == 3 && t->max_steps == -1);
    assert_true(t->fp16 && !t->bf16 && t->gradient_checkpointing);
    assert_true(t->logging_steps == 20 && t->eval_steps == 200 && t->save_steps == 500);
    assert_true(t->warmup_ratio == 0.1 && t->warmup == 0 && t->weight_decay == 0.01);
    assert_string_equal(t->lr_scheduler_type, "linear");
    assert_string_equal(t->optim, "adamw_torch");
    assert_int_equal(t->dataloader_num_workers, 4);
    /* what follows */
    assert_string_equal(t->eval_strategy, "steps");
    assert_string_equal(t->save_strategy, "steps");
    assert_string_equal(where(f, "training.eval_strategy"), "eval_steps is given");
    assert_string_equal(t->metric_for_best_model, "eval_loss");
    assert_string_equal(t->greater_is_better, "false");
    assert_string_equal(r->evaluation.generate, "true");
    assert_int_equal(r->evaluation.gen.max_new_tokens, 64);
    assert_false(r->evaluation.gen.do_sample);
    assert_true(r->callbacks.early_stopping.given);
    assert_int_equal(r->callbacks.early_stopping.patience, 2);
    assert_string_equal(r->callbacks.early_stopping.metric, "eval_exact_match");
    assert_string_equal(r->callbacks.early_stopping.greater_is_better, "true");
    assert_true(r->seed == 42 && t->seed == 42 && t->data_seed == 42);
    assert_true(r->logging.mlflow.given && r->logging.wandb.given && !r->logging.tensorboard.given);
    assert_string_equal(r->logging.mlflow.tracking_uri, "http://localhost:5000");
    assert_int_equal(r->distributed.world_size, 2);
    /* what is said */
    assert_int_equal(f->notes.n, 3);
    assert_string_equal(
        f->notes.items[0],
        "logging.mlflow is not active yet: nothing is sent to MLflow; every metric is "
        "in ./outputs/metrics.jsonl");
    assert_string_equal(
        f->notes.items[2],
        "distributed is not active yet: this run has one rank, so an optimizer step "
        "sees 4 x 8 = 32 samples, not 64 as with 2 ranks");
    char line[256];
    assert_string_equal(pf_run_cfg_compute(r, line, sizeof line), "f32");
    assert_string_equal(line,
                        "training.fp16: this run computes in f32; on a CPU half precision would "
                        "be slower and lose range");
}

static void test_canonical(void **state) {
    (void)state;
    fixture f;
    load(&f, GOLDEN "qa-lora.yaml", NULL, NULL, 0);
    check_canonical(&f);
    assert_string_equal(where(&f, "training.learning_rate"), GOLDEN "qa-lora.yaml:27:18");
    drop(&f);
}

static void test_canonical_as_given(void **state) {
    (void)state;
    const char *path = TEST_SHARED_DIR "/reference/configs/qa-lora.yaml";
    if (!pf_path_exists(path)) {
        print_message("skipped: no %s\n", path);
        skip();
    }
    fixture f;
    load(&f, path, NULL, NULL, 0);
    check_canonical(&f);
    assert_string_equal(f.run.model.name_or_path, "meta-llama/Llama-2-7b-hf");
    drop(&f);
}

/* peft.<method>.<key>: methods come and go; test_every_method_key looks at all of them. */
static bool of_a_method(const pf_cfg *c, const pf_cfg_item *item) {
    const int section = item->parent;
    return section >= 0 && c->items[section].parent >= 0 &&
           strcmp(c->items[c->items[section].parent].path, "peft") == 0;
}

/* Some value that is not the default, as YAML. */
static void another(const pf_cfg_item *item, char *out, size_t n) {
    const pf_cfg_row *row = item->row;
    char word[64] = "word";
    switch (row->type) {
    case PF_CFG_T_INT:
        snprintf(out, n, "%.0f", row->number != row->min ? row->min : row->min + 1);
        break;
    case PF_CFG_T_FLOAT:
        snprintf(out, n, "%g",
                 row->number + 0.25 < row->max ? row->number + 0.25 : row->number / 2);
        break;
    case PF_CFG_T_BOOL:
        snprintf(out, n, "%s", row->number != 0 ? "false" : "true");
        break;
    case PF_CFG_T_ENUM: /* the first or the second choice */
        for (const char *p = item->choices; *p != '\0'; p += strspn(p, " ")) {
            snprintf(word, sizeof word, "%.*s", (int)strcspn(p, " ="), p);
            if (row->text == NULL || strcmp(word, row->text) != 0) break;
            p += strcspn(p, " ");
        }
        snprintf(out, n, "\"%s\"", word);
        break;
    case PF_CFG_T_STRLIST:
    case PF_CFG_T_STR:
        snprintf(out, n, "a.word");
        break;
    case PF_CFG_T_INTLIST:
        snprintf(out, n, "[%.0f]", row->min);
        break;
    case PF_CFG_T_NUMMAP:
    case PF_CFG_T_MAP:
        snprintf(out, n, "{word: %.0f}", row->min > 1 ? row->min : 1);
        break;
    default:
        fail_msg("%s: a type that this test does not know", item->path);
    }
}

/* An enumeration of one word, as PEFT has some for what it may offer later. */
static bool has_one_value(const pf_cfg_item *item) {
    return item->row->type == PF_CFG_T_ENUM && strchr(item->choices, ' ') == NULL;
}

/* Every key of every method is read, alone: rules between keys may complain, but not of its type.
 */
static void test_every_method_key(void **state) {
    (void)state;
    fixture all, f;
    load(&all, NULL, "model: {name_or_path: m}\ndata: {train: t, text: \"{x}\"}\n", NULL, 0);
    int n = 0;
    for (int i = 0; i < all.cfg.n; i++) {
        const pf_cfg_item *item = &all.cfg.items[i];
        if (pf_cfg_is_section(item->row) || !of_a_method(&all.cfg, item)) continue;
        const char *method = all.cfg.items[item->parent].row->name;
        char value[128], text[512];
        if (has_one_value(item)) continue;
        another(item, value, sizeof value);
        snprintf(text, sizeof text,
                 "model: {name_or_path: m}\ndata: {train: t, text: \"{x}\"}\n"
                 "peft: {method: %s, %s: {%s: %s}}\n",
                 method, method, item->row->name, value);
        load(&f, NULL, text, NULL, 0);
        pf_buf a = {0}, b = {0};
        pf_cfg_dump_value(item, &a);
        pf_cfg_dump_value(&f.cfg.items[i], &b);
        if (f.cfg.items[i].from != PF_CFG_FROM_FILE || strcmp(pf_buf_str(&a), pf_buf_str(&b)) == 0)
            fail_msg("%s: %s left the default %s (%s)", item->path, value, pf_buf_str(&a),
                     f.err.message);
        pf_buf_free(&a);
        pf_buf_free(&b);
        drop(&f);
        n++;
    }
    assert_true(n > 20);
    drop(&all);
}

/* every-key.yaml gives every key a value that is not its default; then no key may have its default.
 */
static void test_every_key(void **state) {
    (void)state;
    fixture f, none;
    load(&f, GOLDEN "every-key.yaml", NULL, NULL, 0);
    assert_string_equal(f.err.message, "");
    load(&none, NULL, "model: {name_or_path: m}\ndata: {train: t, text: \"{x}\"}\n", NULL, 0);
    assert_string_equal(none.err.message, "");
    int n = 0;
    for (int i = 0; i < f.cfg.n; i++) {
        const pf_cfg_item *item = &f.cfg.items[i];
        if (pf_cfg_is_section(item->row)) continue;
        /* exclude each other in one file, or are fixed by others; each has a test of its own */
        static const char *const elsewhere[] = {"data.text",
                                                "data.input_ids",
                                                "data.labels",
                                                "data.test_size",
                                                "data.label",
                                                "data.words",
                                                "data.text_pair",
                                                "data.label_all_tokens",
                                                "data.label_columns",
                                                "data.label_delimiter",
                                                "training.label_smoothing_factor",
                                                "training.class_weights",
                                                "peft.task_type",
                                                "training.fp16",
                                                "training.warmup_ratio",
                                                "training.optim",
                                                "evaluation.do_sample",
                                                "peft.method",
                                                "seed"};
        bool skipped = false;
        for (size_t k = 0; k < PF_COUNT(elsewhere); k++)
            skipped = skipped || strcmp(elsewhere[k], item->path) == 0;
        if (skipped || (item->from != PF_CFG_FROM_FILE && of_a_method(&f.cfg, item))) continue;
        pf_buf a = {0}, b = {0};
        pf_cfg_dump_value(item, &a);
        pf_cfg_dump_value(&none.cfg.items[i], &b);
        if (item->from != PF_CFG_FROM_FILE) fail_msg("%s is not in every-key.yaml", item->path);
        if (strcmp(pf_buf_str(&a), pf_buf_str(&b)) == 0)
            fail_msg("%s has its default %s", item->path, pf_buf_str(&a));
        pf_buf_free(&a);
        pf_buf_free(&b);
        n++;
    }
    assert_true(n > 100);
    const pf_run_cfg *r = &f.run;
    const pf_lora_cfg *lora = r->peft.method_cfg;
    assert_string_equal(r->model.torch_dtype, "bfloat16");
    assert_true(lora->target_modules.single && lora->layers_to_transform.items[2] == 10);
    assert_true(lora->rank_pattern.n == 2 && lora->alpha_pattern.items[0].number == 32.5);
    assert_string_equal(r->data.delimiter, "\t");
    assert_string_equal(r->data.add_bos, "false");
    assert_int_equal(r->data.max_samples, 1000);
    assert_int_equal(r->training.warmup, 12);
    assert_true(r->training.memory_limit == 1610612736u);
    assert_string_equal(r->training.metric_for_best_model, "eval_f1");
    assert_string_equal(r->callbacks.early_stopping.metric, "eval_perplexity");
    assert_string_equal(r->callbacks.early_stopping.greater_is_better, "false");
    assert_true(r->seed == 3 && r->training.data_seed == 5 && r->evaluation.gen.seed == 6);
    assert_true(r->generation.stop.single && r->logging.csv);
    drop(&none);
    drop(&f);
}

/* A command line over the canonical file: the stronger source settles what would be a contradiction
 * in one file. */
static void test_overrides(void **state) {
    (void)state;
    const char *const args[] = {"training.max_steps=20",
                                "training.warmup_steps=3",
                                "training.bf16=true",
                                "data.test=held_out.csv",
                                "training.seed=7",
                                "callbacks.early_stopping.patience=5",
                                "training.report_to=none",
                                "~distributed",
                                "evaluation.temperature=0.7",
                                "peft.lora.r=16"};
    fixture f;
    load(&f, GOLDEN "qa-lora.yaml", NULL, args, (int)PF_COUNT(args));
    assert_string_equal(f.err.message, "");
    const pf_training_cfg *t = &f.run.training;
    assert_int_equal(t->max_steps, 20);
    assert_true(t->warmup == 3 && t->warmup_ratio == 0);
    assert_true(t->bf16 && !t->fp16);
    assert_true(f.run.data.test_size == 0);
    assert_true(f.run.seed == 7 && t->data_seed == 7);
    assert_int_equal(f.run.callbacks.early_stopping.patience, 5);
    assert_string_equal(f.run.callbacks.early_stopping.metric, "eval_exact_match");
    assert_true(f.run.evaluation.gen.do_sample && !f.run.generation.do_sample);
    assert_int_equal(((const pf_lora_cfg *)f.run.peft.method_cfg)->r, 16);
    assert_false(f.run.logging.mlflow.given || f.run.logging.wandb.given);
    static const char *const notes[] = {
        "data.test (command line) takes the place of data.test_size (" GOLDEN "qa-lora.yaml:20:14)",
        "training.max_steps (command line) takes the place of training.num_train_epochs (" GOLDEN
        "qa-lora.yaml:28:21)",
        "training.warmup_steps (command line) takes the place of training.warmup_ratio (" GOLDEN
        "qa-lora.yaml:34:17)",
        "training.bf16 (command line) takes the place of training.fp16 (" GOLDEN
        "qa-lora.yaml:29:9)",
        "training.seed (command line) takes the place of seed (" GOLDEN "qa-lora.yaml:57:7)",
        "logging.mlflow is switched off by training.report_to: none",
        "logging.wandb is switched off by training.report_to: none",
    };
    assert_int_equal(f.notes.n, PF_COUNT(notes));
    for (size_t i = 0; i < PF_COUNT(notes); i++) assert_string_equal(f.notes.items[i], notes[i]);
    assert_string_equal(where(&f, "training.warmup_ratio"), "training.warmup_steps is given");
    char line[256];
    assert_string_equal(pf_run_cfg_compute(&f.run, line, sizeof line), "f32 bf16");
    assert_string_equal(line, "");
    drop(&f);

    /* all of the canonical file's services taken away: nothing is left to say */
    const char *const quiet[] = {"~logging", "~callbacks", "~distributed", "peft.method=full"};
    load(&f, GOLDEN "qa-lora.yaml", NULL, quiet, 4);
    assert_int_equal(f.status, PEFT_OK);
    assert_false(f.run.callbacks.early_stopping.given);
    assert_string_equal(f.run.peft.method, "full");
    assert_int_equal(f.notes.n, 1);
    assert_string_equal(f.notes.items[0], "peft.lora is not read: peft.method is full");
    drop(&f);
}

#define BASE "model: {name_or_path: m}\ndata: {train: t.csv, text: \"{x}\"}\n"
#define QA                                                                                         \
    "model: {name_or_path: m}\ndata: {train: t.csv, prompt: \"{x}\", target: \"{y}\", test_size: " \
    "5}\n"

static void test_derived(void **state) {
    (void)state;
    fixture f;
    load(&f, NULL, BASE, NULL, 0);
    assert_int_equal(f.status, PEFT_OK);
    assert_string_equal(f.run.training.eval_strategy, "no");
    assert_string_equal(f.run.training.save_strategy, "steps");
    assert_true(f.run.training.save_steps == 500);
    assert_string_equal(f.run.evaluation.generate, "false");
    assert_string_equal(f.run.peft.method, "lora");
    assert_false(f.run.peft.given || f.run.distributed.given);
    assert_int_equal(f.notes.n, 0);
    char line[64];
    assert_string_equal(pf_run_cfg_compute(&f.run, line, sizeof line), "f32");
    drop(&f);

    load(&f, NULL, QA, NULL, 0);
    assert_string_equal(f.run.training.eval_strategy, "epoch");
    drop(&f);

    load(&f, NULL, QA "training: {eval_strategy: steps, logging_steps: 7}\n", NULL, 0);
    assert_true(f.run.training.eval_steps == 7);
    assert_string_equal(where(&f, "training.eval_steps"), "logging_steps");
    drop(&f);

    load(&f, NULL, QA "training: {eval_steps: 0.25, load_best_model_at_end: true}\n", NULL, 0);
    assert_string_equal(f.run.training.save_strategy, "steps");
    assert_true(f.run.training.save_steps == 0.25);
    drop(&f);

    load(&f, NULL, QA "training: {warmup_steps: 0.1, save_strategy: no}\n", NULL, 0);
    assert_true(f.run.training.warmup == 0 && f.run.training.warmup_ratio == 0.1);
    assert_string_equal(f.run.training.save_strategy, "no");
    drop(&f);

    /* in one file Hugging Face's rule holds: max_steps ends the run */
    load(&f, NULL, QA "training: {max_steps: 9, num_train_epochs: 2}\n", NULL, 0);
    assert_int_equal(f.status, PEFT_OK);
    assert_string_equal(f.notes.items[0],
                        "training.max_steps is 9 and ends the run; num_train_epochs is not read");
    drop(&f);

    load(&f, NULL,
         QA "training: {report_to: [csv, mlflow]}\ngeneration: {temperature: 0, top_k: 3}\n", NULL,
         0);
    assert_int_equal(f.status, PEFT_OK);
    assert_true(f.run.logging.csv && f.run.logging.mlflow.given && !f.run.logging.wandb.given);
    assert_false(f.run.generation.do_sample);
    drop(&f);

    load(&f, NULL, QA "callbacks: [early_stopping]\ndistributed:\n", NULL, 0);
    assert_int_equal(f.status, PEFT_OK);
    assert_string_equal(f.run.callbacks.early_stopping.metric, "eval_loss");
    assert_string_equal(f.run.callbacks.early_stopping.greater_is_better, "false");
    assert_string_equal(f.notes.items[0],
                        "distributed is not active yet: this run has one rank, and an "
                        "optimizer step sees 8 x 1 = 8 samples");
    const char *const active[] = {"distributed"};
    pf_strlist notes = {0};
    assert_int_equal(pf_run_cfg_notes(&f.run, &f.cfg, active, 1, &f.arena, &notes, &f.err),
                     PEFT_OK);
    assert_int_equal(notes.n, 0);
    drop(&f);
}

static void test_changes_nothing(void **state) {
    (void)state;
    fixture f;
    load(&f, NULL,
         "model: {name_or_path: m, pad_token: x, padding_side: left, trust_remote_code: false}\n"
         "data: {train: t.csv, text: \"{x}\"}\n",
         NULL, 0);
    assert_int_equal(f.status, PEFT_OK);
    assert_int_equal(f.notes.n, 3);
    assert_string_equal(f.notes.items[0],
                        "model.pad_token: changes nothing here: samples stand in one "
                        "row without padding, and labels go by position");
    assert_string_equal(
        f.notes.items[1],
        "model.padding_side: changes nothing here: there is no padding on either side");
    assert_string_equal(
        f.notes.items[2],
        "model.trust_remote_code: changes nothing here: code that comes with a model is never run");
    drop(&f);
}

static void test_spellings(void **state) {
    (void)state;
    static const struct {
        const char *given, *meant;
    } dtypes[] = {{"fp32", "float32"}, {"f32", "float32"},     {"bf16", "bfloat16"},
                  {"fp16", "float16"}, {"half", "float16"},    {"f16", "float16"},
                  {"auto", "auto"},    {"Float32", "float32"}, {"bfloat16", "bfloat16"}};
    for (size_t i = 0; i < PF_COUNT(dtypes); i++) {
        char arg[64];
        snprintf(arg, sizeof arg, "model.dtype=%s", dtypes[i].given);
        const char *const args[] = {arg, "training.optim=paged_adamw_32bit"};
        fixture f;
        load(&f, NULL, BASE, args, 2);
        assert_string_equal(f.err.message, "");
        assert_string_equal(f.run.model.torch_dtype, dtypes[i].meant);
        assert_string_equal(f.run.training.optim, "adamw_torch");
        drop(&f);
    }
}

/* A method that another folder brings: rows, struct, choice of peft.method. */
typedef struct toy_cfg {
    int depth;
} toy_cfg;

static void test_method_of_another_folder(void **state) {
    (void)state;
    static const pf_cfg_row toy_rows[] = {PF_CFG_INT(toy_cfg, depth, 2, 1, 9, "depth"), PF_CFG_END};
    static const pf_cfg_ext methods[] = {{"peft", "toy", "a toy", toy_rows, sizeof(toy_cfg), NULL}};
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    peft_error err = {0};
    pf_arena_init(&a, "test");
    const char *text = "peft: {method: toy, toy: {depth: 5}}\n";
    pf_cfg_source source = {.text = text, .text_len = strlen(text), .text_name = "t.yaml"};
    assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, methods, 1, PF_RUN_ANY, &err),
                     PEFT_OK);
    assert_int_equal(((const toy_cfg *)run.peft.method_cfg)->depth, 5);
    text = "peft: {method: lora}\n";
    source = (pf_cfg_source){.text = text, .text_len = strlen(text), .text_name = "t.yaml"};
    assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, methods, 1, PF_RUN_ANY, &err),
                     PEFT_E_CONFIG);
    assert_string_equal(err.message,
                        "t.yaml:1:16: peft.method is \"lora\"; it should be one of toy");
    pf_arena_release(&a);
}

/* What is asked for is what has to be there: generation needs no data, looking needs nothing. */
static void test_purposes(void **state) {
    (void)state;
    static const struct {
        pf_run_purpose purpose;
        const char *text;
        peft_status status;
    } cases[] = {
        {PF_RUN_ANY, "", PEFT_OK},
        {PF_RUN_MODEL, "", PEFT_E_CONFIG},
        {PF_RUN_MODEL, "model: {name_or_path: m}\ntraining: {eval_steps: 3}\n", PEFT_OK},
        {PF_RUN_EVAL, "model: {name_or_path: m}\n", PEFT_E_CONFIG},
        {PF_RUN_EVAL, "model: {name_or_path: m}\ndata: {test: t.csv, text: \"{x}\"}\n", PEFT_OK},
        {PF_RUN_TRAIN, "model: {name_or_path: m}\ndata: {test: t.csv, text: \"{x}\"}\n",
         PEFT_E_CONFIG},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++) {
        pf_arena a;
        pf_run_cfg run;
        pf_cfg cfg;
        peft_error err = {0};
        pf_arena_init(&a, "test");
        const pf_cfg_source source = {.text = cases[i].text, .text_len = strlen(cases[i].text)};
        assert_int_equal(pf_run_cfg_open(&run, &cfg, &a, &source, method_sections,
                                         n_method_sections(), cases[i].purpose, &err),
                         cases[i].status);
        pf_arena_release(&a);
    }
}

/* Memory runs out at the first, second, ... request: a status, never a crash, never half a
 * configuration. */
static void test_out_of_memory(void **state) {
    (void)state;
    const char *const args[] = {"peft.lora.rank_pattern={a: 1}", "~callbacks", "training.zzz=1"};
    int failed = 0;
    for (int64_t n = 1; n < 10000; n++) {
        pf_arena a;
        pf_run_cfg run;
        pf_cfg cfg;
        peft_error err = {0};
        pf_arena_init(&a, "test");
        const pf_cfg_source source = {
            .path = GOLDEN "every-key.yaml", .overrides = args, .n_overrides = 3};
        pf_alloc_fail_at(n);
        peft_status status = pf_run_cfg_open(&run, &cfg, &a, &source, method_sections,
                                             n_method_sections(), PF_RUN_TRAIN, &err);
        pf_alloc_fail_at(0);
        pf_arena_release(&a);
        assert_true(status == PEFT_E_NOMEM || status == PEFT_E_CONFIG);
        if (status == PEFT_E_CONFIG) break;
        failed++;
    }
    assert_true(failed > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_canonical_as_given),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_every_method_key),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_derived),
        cmocka_unit_test(test_changes_nothing),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_method_of_another_folder),
        cmocka_unit_test(test_purposes),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

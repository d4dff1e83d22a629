/* run_config_check.c - rules between keys: what contradicts what, and what follows from what.
 *
 * Where two keys exclude each other and come from different sources, the stronger source wins and
 * the other key goes back to its default (an override on the command line must not need a second
 * one that takes a key of the file away). From the same source they are a mistake. */
#include "config/run_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

/* What evaluations tell of texts, and of classes. */
static const char *const text_metrics[] = {
    "eval_loss",        "eval_perplexity", "eval_token_accuracy",
    "eval_exact_match", "eval_f1",         "eval_bleu"};
static const char *const class_metrics[] = {"eval_loss",      "eval_accuracy",    "eval_f1",
                                            "eval_precision", "eval_recall",      "eval_f1_macro",
                                            "eval_f1_micro",  "eval_f1_weighted", "eval_mcc"};
static const char *const multi_metrics[] = {
    "eval_loss",     "eval_accuracy", "eval_f1",          "eval_precision",    "eval_recall",
    "eval_f1_macro", "eval_f1_micro", "eval_f1_weighted", "eval_hamming_loss", "eval_roc_auc"};
static const char *const regression_metrics[] = {
    "eval_loss",    "eval_mse",       "eval_rmse",          "eval_mae",
    "eval_pearson", "eval_spearmanr", "eval_combined_score"};
enum { FIRST_GENERATED = 3 };

bool pf_metric_greater_is_better(const char *metric) {
    static const char *const costs[] = {"loss", "perplexity", "mse", "mae"};
    for (size_t i = 0; i < PF_COUNT(costs); i++)
        if (pf_ends_with(metric, costs[i])) return false;
    return true;
}

static pf_cfg_from from(const pf_cfg *cfg, const char *path) {
    return pf_cfg_find(cfg, path)->from;
}

/* Both a and b are set and exclude each other. Returns true when that could be settled by their
 * sources. */
static bool settle(pf_cfg *cfg, const char *a, const char *b) {
    if (from(cfg, a) == from(cfg, b)) return false;
    const char *loser = from(cfg, a) < from(cfg, b) ? a : b, *winner = loser == a ? b : a;
    pf_cfg_note(cfg, "%s (%s) takes the place of %s (%s)", winner, pf_cfg_find(cfg, winner)->where,
                loser, pf_cfg_find(cfg, loser)->where);
    pf_cfg_unset(cfg, loser, "%s is given", winner);
    return true;
}

static bool is(const char *value, const char *word) {
    return value != NULL && strcmp(value, word) == 0;
}

double pf_run_cfg_dropout(const char *words) {
    static const char *const off[] = {"off", "no", "false", "none"};
    char *end;
    if (is(words, "config")) return PF_BASE_DROPOUT_CONFIG;
    for (size_t i = 0; i < PF_COUNT(off); i++)
        if (is(words, off[i])) return 0;
    const double p = strtod(words, &end);
    return end != words && *end == '\0' && p >= 0 && p < 1 ? p : -1;
}

static bool is_empty(const char *s) {
    return s == NULL || s[0] == 0;
}

/* ---- sections
 * ---------------------------------------------------------------------------------------------------------
 */

static void check_model(pf_run_cfg *run, pf_cfg *cfg, pf_run_purpose purpose) {
    pf_model_cfg *m = &run->model;
    if (m->create_new_adapter && is_empty(m->adapter_name_or_path))
        pf_cfg_complain(cfg, "model.create_new_adapter",
                        "is true, but model.adapter_name_or_path names no adapter to train on top "
                        "of");
    if (purpose != PF_RUN_ANY && is_empty(m->name_or_path) && is_empty(m->adapter_name_or_path))
        pf_cfg_complain(cfg, "model.name_or_path",
                        "is missing; it should name a folder with config.json, a tokenizer and "
                        "*.safetensors, or a hub name in the local cache");
    if (m->tokenizer_name_or_path == NULL && m->name_or_path != NULL) {
        m->tokenizer_name_or_path = m->name_or_path;
        pf_cfg_derive(cfg, "model.tokenizer_name_or_path", "model.name_or_path");
    }
    const char *d = m->device_map;
    int64_t n = 0;
    if (!is(d, "auto") && !is(d, "cpu") && !is(d, "cuda") &&
        !(pf_starts_with(d, "cuda:") && pf_parse_int(d + 5, &n) && n >= 0 && n < 1024))
        pf_cfg_complain(cfg, "model.device_map",
                        "is \"%.40s\"; it should be auto, cpu, cuda or cuda:N", d);
}

static const void *check_method(pf_cfg *cfg, const char *method, const pf_cfg_ext *methods,
                                int n_methods) {
    char path[128];
    snprintf(path, sizeof path, "peft.%.100s", method);
    const void *section = pf_cfg_section(cfg, path);
    for (int i = 0; i < n_methods; i++) {
        if (is(method, methods[i].name) && methods[i].check != NULL && section != NULL)
            methods[i].check(cfg, section);
    }
    return section;
}

/* The methods beside the first: known ones, each once. */
static void check_also(pf_run_cfg *run, pf_cfg *cfg, const pf_cfg_ext *methods, int n_methods) {
    pf_peft_cfg *p = &run->peft;
    const pf_strlist *names = &p->also.list;
    if (names->n > PF_PEFT_ALSO) {
        pf_cfg_complain(cfg, "peft.also", "has %d methods; at most %d go beside the first",
                        names->n, PF_PEFT_ALSO);
        return;
    }
    for (int i = 0; i < names->n; i++) {
        const char *name = names->items[i], *near[64];
        int n = 0, best;
        bool known = false, before = is(name, p->method);
        for (int k = 0; k < n_methods && n < 64; k++) {
            near[n++] = methods[k].name;
            known = known || is(methods[k].name, name);
        }
        for (int k = 0; k < i; k++) before = before || is(names->items[k], name);
        if (!known) {
            best = pf_nearest(name, near, n);
            pf_cfg_complain(cfg, "peft.also", "has \"%.60s\", which is no method%s%s%s", name,
                            best >= 0 ? "; did you mean " : "", best >= 0 ? near[best] : "",
                            best >= 0 ? "?" : "");
        } else if (before) {
            pf_cfg_complain(cfg, "peft.also",
                            "has %s a second time; one method reaches all its modules at once "
                            "(LoRA: rank_pattern and alpha_pattern give them their own ranks)",
                            name);
        } else {
            p->also_cfg[i] = check_method(cfg, name, methods, n_methods);
        }
    }
}

static void check_peft(pf_run_cfg *run, pf_cfg *cfg, const pf_cfg_ext *methods, int n_methods) {
    run->peft.method_cfg = check_method(cfg, run->peft.method, methods, n_methods);
    check_also(run, cfg, methods, n_methods);
    const pf_cfg_item *peft = pf_cfg_find(cfg, "peft");
    for (int i = (int)(peft - cfg->items) + 1; i < peft->end; i = cfg->items[i].end) {
        const pf_cfg_item *item = &cfg->items[i];
        if (pf_cfg_is_section(item->row) && !is(item->row->name, run->peft.method) &&
            !pf_strlist_has(&run->peft.also.list, item->row->name) && pf_cfg_given(cfg, item->path))
            pf_cfg_note(cfg, "%s is not read: peft.method is %s", item->path, run->peft.method);
    }
}

/* Keys that say more about the classes of data.label. */
static void check_label_keys(const pf_run_cfg *run, pf_cfg *cfg) {
    const pf_data_cfg *d = &run->data;
    const char *problem = run->model.problem_type;
    const bool many = d->label_columns.list.n > 0;
    if (many && d->label != NULL)
        pf_cfg_complain(cfg, "data.label_columns",
                        "is given and so is data.label; the target stands in one of them");
    if (many && d->label_delimiter != NULL)
        pf_cfg_complain(cfg, "data.label_delimiter",
                        "is given and so is data.label_columns, where each class has a column");
    if (d->label_delimiter != NULL && d->label_delimiter[0] == '\0')
        pf_cfg_complain(cfg, "data.label_delimiter", "is empty; it should be such as \",\"");
    if (d->words != NULL && (many || d->label_delimiter != NULL))
        pf_cfg_complain(cfg, many ? "data.label_columns" : "data.label_delimiter",
                        "is given and so is data.words: words have one class each, a list of them "
                        "in data.label");
    if (d->words != NULL && problem != NULL && !is(problem, "single_label_classification"))
        pf_cfg_complain(cfg, "model.problem_type",
                        "is %s, which is for whole texts (data.text); words have one class each",
                        problem);
    if (many && problem != NULL && is(problem, "single_label_classification"))
        pf_cfg_complain(cfg, "data.label_columns",
                        "is given, and model.problem_type is %s: one column, data.label, has the "
                        "class",
                        problem);
    if (d->label_delimiter != NULL && problem != NULL && !is(problem, "multi_label_classification"))
        pf_cfg_complain(cfg, "data.label_delimiter",
                        "is given, and model.problem_type is %s; several classes in a row are "
                        "multi_label_classification",
                        problem);
    if (run->training.class_weights.list.n > 0 && run->training.label_smoothing_factor > 0)
        pf_cfg_complain(cfg, "training.class_weights",
                        "is given and so is training.label_smoothing_factor; one of them");
    if (run->training.class_weights.list.n > 0 && problem != NULL &&
        !is(problem, "single_label_classification"))
        pf_cfg_complain(cfg, "training.class_weights",
                        "is given, and model.problem_type is %s; only single classes are weighed",
                        problem);
    if (run->training.label_smoothing_factor > 0 && problem != NULL &&
        !is(problem, "single_label_classification"))
        pf_cfg_complain(cfg, "training.label_smoothing_factor",
                        "is %g, and model.problem_type is %s; only single classes are smoothed",
                        run->training.label_smoothing_factor, problem);
}

/* The keys of classes: what goes with what, and the task that they are for. */
static void check_classes(pf_run_cfg *run, pf_cfg *cfg, pf_run_purpose purpose) {
    pf_data_cfg *d = &run->data;
    const char *task = run->peft.task_type;
    const bool classes = is(task, "SEQ_CLS") || is(task, "TOKEN_CLS");
    const char *label =
        d->label == NULL && pf_data_has_label(d) ? "data.label_columns" : "data.label";
    static const char *const others[] = {"data.prompt", "data.target", "data.input_ids"};
    for (int i = 0; i < 3 && pf_data_has_label(d); i++)
        if (pf_cfg_given(cfg, others[i]))
            pf_cfg_complain(cfg, others[i],
                            "is given and so is %s; a row is classified by its data.text, "
                            "or word by word by its data.words",
                            label);
    if (!pf_data_has_label(d)) {
        static const char *const without[] = {"data.words", "data.text_pair",
                                              "data.label_delimiter"};
        for (size_t i = 0; i < PF_COUNT(without); i++)
            if (pf_cfg_given(cfg, without[i]))
                pf_cfg_complain(cfg, without[i],
                                "is given without data.label, the column with the classes");
        if (run->training.class_weights.list.n > 0 && purpose == PF_RUN_TRAIN)
            pf_cfg_complain(cfg, "training.class_weights",
                            "is given without data.label; only classes are weighed");
        if (run->training.label_smoothing_factor > 0 && purpose == PF_RUN_TRAIN)
            pf_cfg_complain(cfg, "training.label_smoothing_factor",
                            "is %g, and the targets are tokens; only classes are smoothed "
                            "(data.label)",
                            run->training.label_smoothing_factor);
        if (classes && (purpose == PF_RUN_TRAIN || purpose == PF_RUN_EVAL))
            pf_cfg_complain(cfg, "peft.task_type",
                            "is %s, which needs data.label: the column with the class of a row",
                            task);
        return;
    }
    check_label_keys(run, cfg);
    if ((d->text == NULL) == (d->words == NULL))
        pf_cfg_complain(cfg, d->text != NULL ? "data.words" : label,
                        d->text != NULL
                            ? "is given and so is data.text; one of them is classified"
                            : "is given, but neither data.text (what is classified as a whole, "
                              "such as \"{sentence}\") nor data.words (a column of words)");
    if (d->text_pair != NULL && d->words != NULL)
        pf_cfg_complain(cfg, "data.text_pair", "is given and so is data.words");
    const char *follows = d->words != NULL ? "TOKEN_CLS" : "SEQ_CLS";
    if (task == NULL) {
        run->peft.task_type = follows;
        pf_cfg_derive(cfg, "peft.task_type", "%s is given with data.%s", label,
                      d->words != NULL ? "words" : "text");
    } else if (!is(task, follows) && (d->text == NULL) != (d->words == NULL)) {
        pf_cfg_complain(cfg, "peft.task_type", "is %s, but %s with data.%s is for %s", task, label,
                        d->words != NULL ? "words" : "text", follows);
    }
    for (int i = 0; i < 2; i++) {
        const char *path = i == 0 ? "data.add_bos" : "data.add_eos";
        if (pf_cfg_given(cfg, path))
            pf_cfg_note(cfg,
                        "%s changes nothing: texts with a class stand as the tokenizer has them",
                        path);
    }
}

/* Text in a template that looks like a column: at least one {name}. */
static bool has_column(const char *text) {
    const char *open = strchr(text, '{');
    return open != NULL && strchr(open, '}') != NULL;
}

static void check_data(pf_run_cfg *run, pf_cfg *cfg, pf_run_purpose purpose) {
    pf_data_cfg *d = &run->data;
    if (d->test != NULL && d->test_size > 0 && !settle(cfg, "data.test", "data.test_size"))
        pf_cfg_complain(cfg, "data.test_size",
                        "is given and so is data.test; the test rows come from one of them");
    if (d->test_size > 1 && d->test_size != floor(d->test_size))
        pf_cfg_complain(cfg, "data.test_size",
                        "is %.10g; it should be a share below 1 or a whole number of rows",
                        d->test_size);
    if (d->delimiter != NULL) {
        if (is(d->delimiter, "\\t") || is(d->delimiter, "tab")) d->delimiter = "\t";
        if (strlen(d->delimiter) != 1 || strchr("\"\r\n", d->delimiter[0]) != NULL ||
            (unsigned char)d->delimiter[0] >= 0x80)
            pf_cfg_complain(cfg, "data.delimiter",
                            "should be one ASCII character, such as \",\" or \"\\t\"");
    }
    if (d->text != NULL && (d->prompt != NULL || d->target != NULL))
        pf_cfg_complain(cfg, "data.text",
                        "is given and so is data.%s; plain text has no prompt and target",
                        d->prompt != NULL ? "prompt" : "target");
    if ((d->prompt == NULL) != (d->target == NULL) && d->text == NULL)
        pf_cfg_complain(cfg, d->prompt != NULL ? "data.prompt" : "data.target",
                        "is given without data.%s", d->prompt != NULL ? "target" : "prompt");
    if (d->input_ids != NULL && (d->prompt != NULL || d->target != NULL || d->text != NULL))
        pf_cfg_complain(cfg, "data.input_ids",
                        "is given and so is data.%s; rows are either text or tokens",
                        d->prompt != NULL   ? "prompt"
                        : d->target != NULL ? "target"
                                            : "text");
    if (d->labels != NULL && d->input_ids == NULL)
        pf_cfg_complain(cfg, "data.labels",
                        "is given without data.input_ids; labels belong to rows of token ids");
    if (d->input_ids != NULL)
        for (int i = 0; i < 2; i++) {
            const char *path = i == 0 ? "data.add_bos" : "data.add_eos";
            if (pf_cfg_given(cfg, path))
                pf_cfg_note(cfg, "%s changes nothing: data.input_ids says every token", path);
        }
    static const char *const templates[3] = {"data.prompt", "data.target", "data.text"};
    const char *const texts[3] = {d->prompt, d->target, d->text};
    for (int i = 1; i < 3; i++)
        if (texts[i] != NULL && !has_column(texts[i]))
            pf_cfg_complain(cfg, templates[i],
                            "has no column in it, so all rows would be the same; write {column}");
    if (purpose != PF_RUN_TRAIN && purpose != PF_RUN_EVAL) return;
    if (d->prompt == NULL && d->target == NULL && d->text == NULL && d->input_ids == NULL &&
        !pf_data_has_label(d) && d->words == NULL)
        pf_cfg_complain(
            cfg, "data",
            "has neither prompt and target nor text; they say what is learned from a row, "
            "for example prompt: \"Q: {question}\\nA:\" and target: \" {answer}\"");
    if (purpose == PF_RUN_TRAIN && is_empty(d->train))
        pf_cfg_complain(cfg, "data.train",
                        "is missing; it should name a CSV, TSV, JSON or JSONL file");
    if (purpose == PF_RUN_EVAL && is_empty(d->train) && is_empty(d->test))
        pf_cfg_complain(cfg, "data.test",
                        "is missing; it should name a CSV, TSV, JSON or JSONL file");
}

static void check_steps(pf_cfg *cfg, const char *path, double steps) {
    if (steps > 1 && steps != floor(steps))
        pf_cfg_complain(
            cfg, path, "is %.10g; it should be a whole number of steps, or a share below 1", steps);
}

static void check_length(pf_run_cfg *run, pf_cfg *cfg) {
    pf_training_cfg *t = &run->training;
    if (t->max_steps == 0)
        pf_cfg_complain(cfg, "training.max_steps",
                        "is 0; it should be at least 1, or -1 to go by num_train_epochs");
    if (t->max_steps > 0 && pf_cfg_given(cfg, "training.num_train_epochs") &&
        !settle(cfg, "training.max_steps", "training.num_train_epochs"))
        pf_cfg_note(cfg,
                    "training.max_steps is %lld and ends the run; num_train_epochs is not read",
                    (long long)t->max_steps);
    if (t->warmup_steps > 0 && t->warmup_ratio > 0 &&
        !settle(cfg, "training.warmup_steps", "training.warmup_ratio"))
        pf_cfg_complain(
            cfg, "training.warmup_steps",
            "is given and so is warmup_ratio; one of them says how long the warm-up is");
    check_steps(cfg, "training.warmup_steps", t->warmup_steps);
    if (t->warmup_steps >= 1) {
        t->warmup = (int64_t)t->warmup_steps;
    } else if (t->warmup_steps > 0) {
        t->warmup_ratio = t->warmup_steps;
        pf_cfg_derive(cfg, "training.warmup_ratio", "training.warmup_steps below 1 is a share");
    }
}

/* Which settings each schedule takes, as Hugging Face's get_scheduler. */
static void check_schedule(const pf_run_cfg *run, pf_cfg *cfg) {
    static const char *const known[][2] = {
        {"cosine", "num_cycles"},
        {"cosine_with_restarts", "num_cycles"},
        {"polynomial", "lr_end power"},
        {"inverse_sqrt", "timescale"},
        {"reduce_lr_on_plateau",
         "mode factor patience threshold threshold_mode cooldown min_lr eps"},
        {"cosine_with_min_lr", "num_cycles min_lr min_lr_rate"},
        {"cosine_warmup_with_min_lr", "num_cycles min_lr min_lr_rate warmup_lr_rate"},
        {"warmup_stable_decay",
         "num_decay_steps num_stable_steps warmup_type decay_type min_lr_ratio num_cycles"},
    };
    static const char *const words = "mode threshold_mode warmup_type decay_type";
    const char *type = run->training.lr_scheduler_type, *takes = "";
    for (size_t i = 0; i < PF_COUNT(known); i++)
        if (strcmp(known[i][0], type) == 0) takes = known[i][1];
    const pf_cfg_map *map = &run->training.lr_scheduler_kwargs;
    for (int i = 0; i < map->n; i++) {
        const pf_cfg_pair *p = &map->items[i];
        if (pf_cfg_choice(takes, p->key, cfg->arena) == NULL)
            pf_cfg_complain(cfg, "training.lr_scheduler_kwargs",
                            "has \"%.60s\", which the schedule %s does not take%s%s", p->key, type,
                            takes[0] != 0 ? "; it takes " : "; it takes nothing", takes);
        else if (!p->is_number && pf_cfg_choice(words, p->key, cfg->arena) == NULL)
            pf_cfg_complain(cfg, "training.lr_scheduler_kwargs",
                            "has %s: \"%.40s\"; it should be a number", p->key, p->text);
    }
}

static void check_precision(pf_run_cfg *run, pf_cfg *cfg) {
    pf_training_cfg *t = &run->training;
    if (t->fp16 && t->bf16 && !settle(cfg, "training.fp16", "training.bf16"))
        pf_cfg_complain(cfg, "training.bf16", "is true and so is fp16; one of them");
    const char *low = t->fp16 ? "training.fp16" : "training.bf16";
    if ((t->fp16 || t->bf16) && pf_cfg_given(cfg, "training.compute") && !is(t->compute, "auto") &&
        !is(t->compute, t->bf16 ? "bf16" : "f32") && !settle(cfg, "training.compute", low))
        pf_cfg_complain(cfg, "training.compute", "is %s and %s is true; one of them", t->compute,
                        low);
}

typedef struct metric_list {
    const char *names[24];
    int n;
} metric_list;

static void add_metrics(metric_list *l, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool there = false;
        for (int k = 0; k < l->n; k++) there |= strcmp(l->names[k], names[i]) == 0;
        if (!there) l->names[l->n++] = names[i];
    }
}

/* What evaluations of this run may tell; where only the data will say what the targets are, all of
 * it (the evaluator asks again). */
static metric_list metrics_of(const pf_run_cfg *run) {
    metric_list l = {.n = 0};
    const char *problem =
        run->data.words != NULL ? "single_label_classification" : run->model.problem_type;
    if (!pf_data_has_label(&run->data)) {
        add_metrics(&l, text_metrics, PF_COUNT(text_metrics));
        return l;
    }
    if (problem == NULL || is(problem, "single_label_classification"))
        add_metrics(&l, class_metrics, PF_COUNT(class_metrics));
    if (problem == NULL || is(problem, "multi_label_classification"))
        add_metrics(&l, multi_metrics, PF_COUNT(multi_metrics));
    if (problem == NULL || is(problem, "regression"))
        add_metrics(&l, regression_metrics, PF_COUNT(regression_metrics));
    return l;
}

/* A metric by its name with or without "eval_"; NULL after a complaint. */
static const char *metric_name(const pf_run_cfg *run, pf_cfg *cfg, const char *path,
                               const char *name) {
    const bool classes = pf_data_has_label(&run->data);
    const metric_list l = metrics_of(run);
    for (int i = 0; i < l.n; i++) {
        if (strcmp(l.names[i], name) != 0 && strcmp(l.names[i] + strlen("eval_"), name) != 0)
            continue;
        if (!classes && i >= FIRST_GENERATED && is(run->evaluation.generate, "false"))
            pf_cfg_complain(cfg, path, "is \"%s\", which needs continuations, and %s", name,
                            from(cfg, "evaluation.generate") >= PF_CFG_FROM_FILE
                                ? "evaluation.generate is false"
                                : "data.prompt is not given");
        return l.names[i];
    }
    int near = pf_nearest(name, l.names, l.n);
    char all[512] = "";
    for (int i = 0; i < l.n; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i == 0 ? "" : ", ",
                 l.names[i]);
    pf_cfg_complain(cfg, path, "is \"%.40s\"; it should be one of %s%s%s%s", name, all,
                    near >= 0 ? "; did you mean " : "", near >= 0 ? l.names[near] : "",
                    near >= 0 ? "?" : "");
    return NULL;
}

static const char *bigger(pf_cfg *cfg, const char *path, const char *given, const char *metric) {
    if (!is(given, "auto")) return given;
    pf_cfg_derive(cfg, path, "the metric is %s", metric);
    return pf_metric_greater_is_better(metric) ? "true" : "false";
}

static void check_evaluation(pf_run_cfg *run, pf_cfg *cfg, pf_run_purpose purpose) {
    pf_training_cfg *t = &run->training;
    pf_eval_cfg *e = &run->evaluation;
    pf_early_stopping_cfg *s = &run->callbacks.early_stopping;
    const bool prompts = run->data.prompt != NULL && !pf_data_has_label(&run->data);
    const bool test_rows = run->data.test != NULL || run->data.test_size > 0;
    if (is(e->generate, "auto")) {
        e->generate = prompts ? "true" : "false";
        pf_cfg_derive(cfg, "evaluation.generate",
                      prompts ? "data.prompt is given" : "data.prompt is not given");
    } else if (is(e->generate, "true") && !prompts &&
               (run->data.text != NULL || run->data.input_ids != NULL ||
                pf_data_has_label(&run->data))) {
        pf_cfg_complain(cfg, "evaluation.generate",
                        pf_data_has_label(&run->data) ? "is true, but the targets are classes: "
                                                        "accuracy and F1 are always told"
                        : run->data.text != NULL
                            ? "is true, but data.text has no prompt that could be continued"
                            : "is true, but rows of data.input_ids have no text to compare with");
    }

    if (t->eval_strategy == NULL) {
        const bool steps = pf_cfg_given(cfg, "training.eval_steps");
        t->eval_strategy = steps ? "steps" : test_rows ? "epoch" : "no";
        pf_cfg_derive(cfg, "training.eval_strategy",
                      steps       ? "eval_steps is given"
                      : test_rows ? "there are test rows and eval_steps is not given"
                                  : "there are no test rows");
    }
    if (is(t->eval_strategy, "steps") && !(t->eval_steps > 0)) {
        t->eval_steps = t->logging_steps;
        pf_cfg_derive(cfg, "training.eval_steps", "logging_steps");
    }
    check_steps(cfg, "training.eval_steps", t->eval_steps);
    const bool evaluates = !is(t->eval_strategy, "no") || t->eval_on_start;
    if (purpose == PF_RUN_TRAIN && evaluates && !test_rows) {
        const char *who = from(cfg, "training.eval_strategy") >= PF_CFG_FROM_FILE
                              ? "training.eval_strategy"
                          : t->eval_on_start ? "training.eval_on_start"
                                             : "training.eval_steps";
        pf_cfg_complain(cfg, who,
                        "asks for evaluations, but there are no test rows; give data.test "
                        "or data.test_size");
    }

    const char *best =
        metric_name(run, cfg, "training.metric_for_best_model",
                    t->metric_for_best_model != NULL ? t->metric_for_best_model : "eval_loss");
    if (best != NULL) {
        t->metric_for_best_model = best;
        t->greater_is_better =
            bigger(cfg, "training.greater_is_better", t->greater_is_better, best);
    }
    if (s->given) {
        if (s->metric == NULL) {
            s->metric = t->metric_for_best_model;
            pf_cfg_derive(cfg, "callbacks.early_stopping.metric", "training.metric_for_best_model");
        }
        const char *watched = metric_name(run, cfg, "callbacks.early_stopping.metric", s->metric);
        if (watched != NULL) {
            s->metric = watched;
            s->greater_is_better = bigger(cfg, "callbacks.early_stopping.greater_is_better",
                                          s->greater_is_better, watched);
        }
        if (purpose == PF_RUN_TRAIN && is(t->eval_strategy, "no"))
            pf_cfg_complain(cfg, "callbacks.early_stopping",
                            "counts evaluations, and there are none; give data.test or "
                            "data.test_size, and training.eval_steps");
    }
    if (t->load_best_model_at_end && purpose == PF_RUN_TRAIN && is(t->eval_strategy, "no"))
        pf_cfg_complain(cfg, "training.load_best_model_at_end",
                        "needs evaluations to tell which one is the best; give data.test or "
                        "data.test_size");
}

static void check_saving(pf_run_cfg *run, pf_cfg *cfg) {
    pf_training_cfg *t = &run->training;
    if (t->save_strategy == NULL) {
        if (!pf_cfg_given(cfg, "training.save_steps") && t->load_best_model_at_end &&
            !is(t->eval_strategy, "no")) {
            t->save_strategy = t->eval_strategy;
            t->save_steps = t->eval_steps;
            pf_cfg_derive(cfg, "training.save_strategy", "eval_strategy, for the best model");
            if (t->save_steps > 0)
                pf_cfg_derive(cfg, "training.save_steps", "eval_steps, for the best model");
        } else {
            t->save_strategy = "steps";
            pf_cfg_derive(cfg, "training.save_strategy",
                          pf_cfg_given(cfg, "training.save_steps") ? "save_steps is given"
                                                                   : "save_strategy is not given");
        }
    }
    if (is(t->save_strategy, "steps") && !(t->save_steps > 0)) {
        t->save_steps = 500;
        pf_cfg_derive(cfg, "training.save_steps", "the usual number");
    }
    check_steps(cfg, "training.save_steps", t->save_steps);
    check_steps(cfg, "training.logging_steps", t->logging_steps);
}

static void check_generation(pf_generation_cfg *g, pf_cfg *cfg, const char *section) {
    static const char *const drawing[4] = {"temperature", "top_k", "top_p", "min_p"};
    char sample[64], path[64];
    snprintf(sample, sizeof sample, "%s.do_sample", section);
    const bool told = from(cfg, sample) >= PF_CFG_FROM_FILE;
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s.%s", section, drawing[i]);
        if (!pf_cfg_given(cfg, path)) continue;
        const bool greedy = i == 0 && !(g->temperature > 0);
        if (!told && !greedy && !g->do_sample) {
            g->do_sample = true;
            pf_cfg_derive(cfg, sample, "%s is given", drawing[i]);
        } else if (told && !g->do_sample && !greedy) {
            pf_cfg_complain(cfg, path, "has no effect while do_sample is false");
        }
    }
    if (!(g->temperature > 0)) { /* the likeliest token, as temperature goes to 0 */
        if (told && g->do_sample)
            pf_cfg_note(cfg, "%s.temperature is 0: the likeliest token is taken, none is drawn",
                        section);
        else if (g->do_sample)
            pf_cfg_derive(cfg, sample, "temperature is 0");
        g->do_sample = false;
        g->temperature = 1;
    }
}

static void check_seeds(pf_run_cfg *run, pf_cfg *cfg) {
    pf_training_cfg *t = &run->training;
    if (t->seed >= 0 && pf_cfg_given(cfg, "seed") && t->seed != run->seed &&
        !settle(cfg, "training.seed", "seed"))
        pf_cfg_complain(cfg, "training.seed", "is %lld and seed is %lld; one of them",
                        (long long)t->seed, (long long)run->seed);
    if (t->seed >= 0) {
        run->seed = t->seed;
        pf_cfg_derive(cfg, "seed", "training.seed");
    } else {
        t->seed = run->seed;
        pf_cfg_derive(cfg, "training.seed", "seed");
    }
    int64_t *const others[3] = {&t->data_seed, &run->evaluation.gen.seed, &run->generation.seed};
    static const char *const paths[3] = {"training.data_seed", "evaluation.seed",
                                         "generation.seed"};
    for (int i = 0; i < 3; i++) {
        if (*others[i] >= 0) continue;
        *others[i] = run->seed;
        pf_cfg_derive(cfg, paths[i], "seed");
    }
}

/* report_to and the sections of logging say the same thing twice. */
static void check_report_to(pf_run_cfg *run, pf_cfg *cfg) {
    static const char *const names[] = {"none", "mlflow", "wandb", "tensorboard", "csv"};
    pf_logging_cfg *l = &run->logging;
    bool *const given[4] = {&l->mlflow.given, &l->wandb.given, &l->tensorboard.given, &l->csv};
    const pf_strlist *list = &run->training.report_to.list;
    for (int i = 0; i < list->n; i++) {
        int which = -1;
        for (int k = 0; k < 5; k++)
            if (strcmp(list->items[i], names[k]) == 0) which = k;
        if (which < 0) {
            pf_cfg_complain(cfg, "training.report_to",
                            "names \"%.40s\"; it should be none, or a list of mlflow, wandb, "
                            "tensorboard, csv",
                            list->items[i]);
        } else if (which == 0 && list->n > 1) {
            pf_cfg_complain(cfg, "training.report_to", "names none beside others");
        } else if (which > 0) {
            *given[which - 1] = true;
        } else {
            for (int k = 0; k < 4; k++) {
                if (*given[k])
                    pf_cfg_note(cfg, "logging.%s is switched off by training.report_to: none",
                                names[k + 1]);
                *given[k] = false;
            }
        }
    }
}

void pf_run_cfg_check(pf_run_cfg *run, pf_cfg *cfg, const pf_cfg_ext *methods, int n_methods,
                      pf_run_purpose purpose) {
    if (purpose == PF_RUN_PLAN) purpose = is_empty(run->data.train) ? PF_RUN_MODEL : PF_RUN_TRAIN;
    check_model(run, cfg, purpose);
    check_peft(run, cfg, methods, n_methods);
    check_data(run, cfg, purpose);
    check_classes(run, cfg, purpose);
    check_length(run, cfg);
    check_schedule(run, cfg);
    check_precision(run, cfg);
    check_evaluation(run, cfg, purpose);
    check_saving(run, cfg);
    check_generation(&run->evaluation.gen, cfg, "evaluation");
    check_generation(&run->generation, cfg, "generation");
    if (pf_run_cfg_dropout(run->model.dropout) < 0)
        pf_cfg_complain(cfg, "model.dropout",
                        "is %s; it should be config, off, or a number of at least 0 and below 1",
                        run->model.dropout);
    check_seeds(run, cfg);
    check_report_to(run, cfg);
}

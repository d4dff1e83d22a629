/* cmd_init.c - init: a configuration to start from, on stdout. */
#include "cli/args.h"

#include <stdio.h>

static int run(int argc, char **argv);

const cli_command cmd_init = {
    .name = "init",
    .usage = "init [--model DIR] [--train FILE] > config.yaml",
    .what = "print a configuration to start from",
    .examples = "  peft-toolkit init --model models/smollm2 --train qa.csv > config.yaml\n",
    .run = run,
};

/* A double-quoted YAML scalar. */
static void put_quoted(const char *s) {
    putchar('"');
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\') putchar('\\');
        if (*s == '\n')
            fputs("\\n", stdout);
        else
            putchar(*s);
    }
    putchar('"');
}

static int run(int argc, char **argv) {
    const char *model = "path/to/model", *train = "qa_pairs.csv";
    const cli_flag flags[] = {
        {"model", 'm', CLI_STR, &model, "DIR",
         "base model: folder, or hub name in the local cache"},
        {"train", 0, CLI_STR, &train, "FILE", "training data: .csv .tsv .json .jsonl"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_init, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    fputs("# peft-toolkit train --config config.yaml; every key: peft-toolkit config "
          "explain\nmodel:\n  name_or_path: ",
          stdout);
    put_quoted(model);
    fputs("\n  torch_dtype: auto          # as the file has it\n\n"
          "peft:\n  method: lora\n  lora:\n    r: 8\n    alpha: 16\n    dropout: 0.05\n    "
          "target_modules: all-linear\n\n"
          "data:\n  train: ",
          stdout);
    put_quoted(train);
    fputs("\n  prompt: \"Q: {question}\\nA:\" # columns of the file in braces\n  target: \" "
          "{answer}\"\n  test_size: 0.1\n\n"
          "training:\n  output_dir: ./outputs\n  per_device_train_batch_size: 4\n  "
          "gradient_accumulation_steps: 8\n"
          "  learning_rate: 2e-4\n  num_train_epochs: 3\n  warmup_ratio: 0.1\n  logging_steps: 20\n"
          "  eval_strategy: epoch\n  save_strategy: epoch\n  save_total_limit: 2\n  "
          "load_best_model_at_end: true\n\n"
          "seed: 42\n",
          stdout);
    return cli_done();
}

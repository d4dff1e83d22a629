/* cmd_generate.c - generate: continue a prompt, or one prompt per line of stdin. */
#include "cli/generate_flags.h"
#include "cli/lines.h"

#include "base/status.h"
#include "peft/run.h"

#include <stdio.h>

static int run(int argc, char **argv);

const cli_command cmd_generate = {
    .name = "generate",
    .usage = "generate --model DIR [--adapter DIR] [--prompt TEXT | < lines of JSON strings]",
    .what = "continue a prompt",
    .examples = "  peft-toolkit generate --model merged/ --prompt \"Once upon a time\" "
                "--max-new-tokens 50\n"
                "  peft-toolkit generate --adapter outputs/ --prompt \"Q: Why?\" --temperature 0.7 "
                "--seed 1\n"
                "  peft-toolkit generate --model merged/ < prompts.jsonl > answers.jsonl\n",
    .run = run,
};

static void print_piece(void *ctx, int prompt, const char *piece) {
    (void)ctx;
    (void)prompt;
    fputs(piece, stdout);
    fflush(stdout);
}

static int run(int argc, char **argv) {
    cli_generate g = {0};
    const char *prompt = NULL;
    bool raw = false;
    const cli_flag flags[] = {
        CLI_GENERATE_FLAGS(g),
        {"prompt", 'p', CLI_STR, &prompt, "TEXT",
         "what to continue; without it one JSON string per line of stdin"},
        {"no-special", 0, CLI_BOOL, &raw, NULL, "no special tokens before the prompt"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(&cmd_generate, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    peft_model *m;
    if (cli_generate_check(&cmd_generate, &g, &err) != PEFT_OK ||
        cli_generate_open(&m, &g, &err) != PEFT_OK) {
        return cli_fail(&err);
    }
    peft_generate_options opt = cli_generate_options(&g);
    opt.raw = raw;
    int code;
    if (prompt == NULL) {
        const peft_lines_options lines = {.no_special = raw, .generate = &opt};
        code = cli_answer_lines(m, "generate", &lines);
    } else {
        char *text;
        opt.on_text = print_piece;
        code = peft_generate(m, &prompt, 1, &opt, &text, &err) == PEFT_OK
                   ? (peft_free(text), putchar('\n'), cli_done())
                   : cli_fail(&err);
    }
    peft_model_close(m);
    return code;
}

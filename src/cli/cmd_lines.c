/* cmd_lines.c - tokenize, detokenize, score and classify: looking into a model from scripts. */
#include "cli/args.h"
#include "cli/lines.h"

#include "base/status.h"

#include <string.h>

static int run_tokenize(int argc, char **argv);
static int run_detokenize(int argc, char **argv);
static int run_score(int argc, char **argv);
static int run_classify(int argc, char **argv);

const cli_command cmd_tokenize = {
    .name = "tokenize",
    .usage = "tokenize --model DIR|tokenizer.json [--no-special] < lines of JSON strings",
    .what = "text to token ids, one JSON value per line",
    .examples = "  echo '\"Hello world\"' | peft-toolkit tokenize --model model/\n",
    .run = run_tokenize,
};

const cli_command cmd_detokenize = {
    .name = "detokenize",
    .usage = "detokenize --model DIR|tokenizer.json < lines of JSON lists",
    .what = "token ids to text, one JSON value per line",
    .examples = "  echo '[15496, 995]' | peft-toolkit detokenize --model model/\n",
    .run = run_detokenize,
};

const cli_command cmd_score = {
    .name = "score",
    .usage = "score --model DIR [--adapter DIR] < lines of JSON strings or lists of ids",
    .what = "negative log likelihood of each predicted token, one JSON value per line",
    .examples =
        "  echo '\"Once upon a time\"' | peft-toolkit score --model model/ --adapter outputs/\n"
        "  echo '{\"prompt\": \"1 + 1\", \"target\": \"2\"}' | peft-toolkit score --model t5/\n",
    .run = run_score,
};

const cli_command cmd_classify = {
    .name = "classify",
    .usage =
        "classify --model DIR [--adapter DIR] [--threshold P] < lines of JSON strings, or lists "
        "of words",
    .what = "the class of a text or of each of its words, or its number, one JSON value per line",
    .examples =
        "  echo '\"a stirring film\"' | peft-toolkit classify --adapter outputs/\n"
        "  echo '[\"Ada\", \"lives\", \"in\", \"Paris\"]' | peft-toolkit classify --model ner/\n",
    .run = run_classify,
};

static int run_lines(const cli_command *cmd, bool needs_weights, int argc, char **argv) {
    const char *model = NULL, *adapter = NULL;
    bool no_special = false, left_over = false;
    int64_t threads = 0;
    double threshold = 0.5;
    const cli_flag flags[] = {
        {"model", 'm', CLI_STR, &model, "DIR",
         "model folder, hub name in the local cache, or tokenizer file"},
        {"adapter", 0, CLI_STR, &adapter, "DIR", "adapter or checkpoint on top of the model"},
        {"ckpt", 0, CLI_STR, &adapter, "DIR", "the same"},
        {"threads", 0, CLI_INT, &threads, "N", "threads; default: all cores"},
        CLI_LEFT_OVER_FLAG(left_over),
        {"no-special", 0, CLI_BOOL, &no_special, NULL, "without the tokenizer's special tokens"},
        {"threshold", 0, CLI_FLOAT, &threshold, "P",
         "classify: several classes; each that is likelier is told; default: 0.5"},
    };
    peft_error err = {0};
    cli_words words;
    if (cli_parse(cmd, flags, CLI_COUNT(flags), argc, argv, &words, &err) != PEFT_OK)
        return cli_fail(&err);
    if (words.help) return cli_done();
    if (model == NULL && adapter == NULL) {
        pf_fail(&err, PEFT_E_USAGE, "%s: --model is missing", cmd->name);
        return cli_fail(&err);
    }
    if (!(threshold > 0 && threshold < 1)) {
        pf_fail(&err, PEFT_E_USAGE, "%s: --threshold is %g; it should be between 0 and 1",
                cmd->name, threshold);
        return cli_fail(&err);
    }
    const peft_model_options opt = {.path = model,
                                    .adapter = adapter,
                                    .tokenizer_only = !needs_weights,
                                    .threads = (int)threads,
                                    .ignore_left_over_weights = left_over};
    peft_model *m;
    if (peft_model_open(&m, &opt, &err) != PEFT_OK) return cli_fail(&err);
    const peft_lines_options lines = {.no_special = no_special, .threshold = threshold};
    int code = cli_answer_lines(m, cmd->name, &lines);
    peft_model_close(m);
    return code;
}

static int run_tokenize(int argc, char **argv) {
    return run_lines(&cmd_tokenize, false, argc, argv);
}
static int run_detokenize(int argc, char **argv) {
    return run_lines(&cmd_detokenize, false, argc, argv);
}
static int run_score(int argc, char **argv) {
    return run_lines(&cmd_score, true, argc, argv);
}
static int run_classify(int argc, char **argv) {
    return run_lines(&cmd_classify, true, argc, argv);
}

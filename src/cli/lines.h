/* lines.h - commands that read one JSON value per line and answer one per line. */
#ifndef CLI_LINES_H
#define CLI_LINES_H

#include "peft/model.h"

/* Answers stdin on stdout. A line that cannot be answered gets {"error": ...} in its place; the
 * exit code is then that of malformed data. */
int cli_answer_lines(peft_model *m, const char *command, const peft_lines_options *opt);

#endif

/* lines.c - see lines.h. */
#include "cli/lines.h"

#include "base/status.h"
#include "cli/args.h"
#include "peft/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

int cli_answer_lines(peft_model *m, const char *command, const peft_lines_options *opt) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int64_t bad = 0, count = 0;
    while ((n = getline(&line, &room, stdin)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n == 0) continue;
        peft_error err = {0};
        char *answer;
        bool answered;
        count++;
        if (peft_answer_line(m, command, line, opt, &answer, &answered, &err) != PEFT_OK) {
            free(line);
            return cli_fail(&err);
        }
        bad += !answered;
        puts(answer);
        peft_free(answer);
        fflush(stdout);
    }
    free(line); /* getline's own */
    if (ferror(stdin)) {
        peft_error err = {0};
        pf_fail_errno(&err, PEFT_E_IO, errno, "cannot read stdin");
        return cli_fail(&err);
    }
    int done = cli_done();
    if (bad > 0 && done == 0) {
        peft_error err = {0};
        pf_fail(&err, PEFT_E_FORMAT,
                "%lld of %lld lines could not be answered; their errors stand in the output",
                (long long)bad, (long long)count);
        return cli_fail(&err);
    }
    return done;
}

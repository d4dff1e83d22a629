/* train_api.c - fine-tuning through libpeft: open a run, step it, watch its loss, finish.
 *
 *   build/release/example_train_api config.yaml [key.path=value ...]
 *
 * The same configuration as the command line's; the same bytes come out. */
#include "peft/run.h"

#include <stdio.h>

static int failed(const peft_error *err) {
    fprintf(stderr, "error: %s\n", err->message);
    return peft_status_exit_code(err->status);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s CONFIG.yaml [key.path=value ...]\n", argv[0]);
        return 2;
    }
    peft_error err = {PEFT_OK, ""};
    peft_run_options options = {0};
    options.config_path = argv[1];
    options.overrides = (const char *const *)argv + 2;
    options.n_overrides = argc - 2;
    options.overwrite = true;

    peft_run *run;
    if (peft_run_open(&run, &options, &err) != PEFT_OK) return failed(&err);
    peft_step_report report;
    peft_status status;
    do {
        status = peft_run_step(run, &report, &err);
        if (status == PEFT_OK)
            printf("step %lld: loss %.6f\n", (long long)report.step, report.loss);
    } while (status == PEFT_OK && !report.done);
    if (status == PEFT_OK) status = peft_run_finish(run, &err);
    peft_run_close(run);
    return status == PEFT_OK ? 0 : failed(&err);
}

/* logit_lines.c - the logits of a model from outside, for tools/check_interop.py: a JSON list of
 * ids a line in, f32 little-endian out, one row of the vocabulary's length per id and nothing
 * between them.
 *
 *   bench_logit_lines MODEL [ADAPTER] < lines > logits
 *
 * The graph is the one that `merge` verifies with. How many rows of how many numbers were written
 * goes to stderr as JSON. */
#include "export/logits.h"
#include "recipes/loaded.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_IDS 1024

/* The ids of a line, or -1: not a list of ids of this model. */
static int32_t read_ids(const char *line, size_t n, int64_t vocab, int32_t *ids) {
    json_t *list = json_loadb(line, n, 0, NULL), *id;
    size_t i;
    int32_t count = 0;
    bool good =
        json_is_array(list) && json_array_size(list) >= 1 && json_array_size(list) <= MAX_IDS;
    json_array_foreach(list, i, id) {
        const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        good = good && value >= 0 && value < vocab;
        if (!good) break;
        ids[count++] = (int32_t)value;
    }
    json_decref(list);
    return good ? count : -1;
}

static peft_status answer(pf_loaded *l, int64_t *rows, peft_error *err) {
    static int32_t ids[MAX_IDS];
    static float row[1 << 20];
    const int64_t vocab = l->model->vocab;
    if (vocab > (int64_t)PF_COUNT(row))
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "a vocabulary of %lld", (long long)vocab);
    pf_logits lg;
    PF_TRY(pf_logits_init(&lg, l->model, l->backend, true, MAX_IDS, err));
    peft_status status = PEFT_OK;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    for (int at = 1; status == PEFT_OK && (n = getline(&line, &room, stdin)) > 0; at++) {
        const int32_t count = read_ids(line, (size_t)n, vocab, ids);
        const pf_real *z;
        status = count < 0 ? PF_FAIL(err, PEFT_E_FORMAT, "line %d is not a list of 1 to %d ids", at,
                                     MAX_IDS)
                           : pf_logits_run(&lg, ids, count, &z, err);
        for (int32_t i = 0; status == PEFT_OK && i < count; i++, z += vocab) {
            for (int64_t k = 0; k < vocab; k++) row[k] = (float)z[k];
            if (fwrite(row, sizeof *row, (size_t)vocab, stdout) != (size_t)vocab)
                status = PF_FAIL(err, PEFT_E_IO, "cannot write");
        }
        *rows += count;
    }
    free(line); /* getline's own */
    pf_logits_release(&lg);
    return status;
}

int main(int argc, char **argv) {
    static peft_error err;
    static pf_loaded l;
    int64_t rows = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL [ADAPTER] < lines > logits\n", argv[0]);
        return 2;
    }
    const pf_load_options load = {.model = argv[1], .adapter = argc > 2 ? argv[2] : NULL};
    peft_status status = pf_load(&l, &load, &err);
    if (status == PEFT_OK) status = answer(&l, &rows, &err);
    if (status == PEFT_OK && fflush(stdout) != 0) status = PF_FAIL(&err, PEFT_E_IO, "cannot write");
    if (status == PEFT_OK)
        fprintf(stderr, "{\"rows\": %lld, \"vocab\": %lld}\n", (long long)rows,
                (long long)l.model->vocab);
    else
        fprintf(stderr, "%s\n", err.message);
    pf_unload(&l);
    return status == PEFT_OK ? 0 : 1;
}

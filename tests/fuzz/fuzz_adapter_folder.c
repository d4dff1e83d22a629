/* fuzz_adapter_folder.c - any bytes as the files of an adapter's folder: PEFT's, AdapterHub's,
 * MLX's, a list's (adapters.json). The input is an archive: a line "=== name" begins a file, and
 * what follows up to the next such line is in it.
 *
 * The folder is opened on a small model and, apart from any model, as factors. What opens can be
 * described, and factors that were read can be written in every format and read again. */
#include "base/file.h"
#include "base/log.h"
#include "factors/factors.h"
#include "formats/safetensors_write.h"
#include "models/model_open.h"
#include "peft/method.h"
#include "text/json.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_FILES = 8, MOST_NAME = 48 };

static const char small[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 8, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 2, \"intermediate_size\": 12, \"vocab_size\": 10}";

static char root[64], folder[80], made[80];

static void remove_root(void) {
    pf_remove_tree(root, NULL);
}

/* Without the syncs of base/file. */
static void put_file(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb"); /* fails where a folder has the name */
    if (f == NULL) return;
    if ((n > 0 && fwrite(data, 1, n, f) != n) || fclose(f) != 0) abort();
}

static void make_root(void) {
    const char *where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(root, sizeof root, "%s/fuzz_folder_XXXXXX", where);
    if (mkdtemp(root) == NULL) abort();
    atexit(remove_root);
    snprintf(folder, sizeof folder, "%s/in", root);
    snprintf(made, sizeof made, "%s/out", root);
}

/* A model with weights, all zero, so that an adapter's tensors are read. */
static pf_model *open_small(void) {
    static const float zeros[128];
    pf_stored_tensor t[32];
    char dir[80], path[112], names[32][80];
    json_t *config;
    pf_model *shapes, *m;
    int n = 0;
    if (pf_json_parse(&config, small, strlen(small), "small", NULL) != PEFT_OK) abort();
    if (pf_model_open_config(&shapes, config, "small", NULL) != PEFT_OK) abort();
    for (int i = 0; i < shapes->n_sites; i++) {
        const pf_weight *w = shapes->sites[i]->weight;
        if (w == NULL || shapes->sites[i]->tied_to != NULL) continue;
        const int64_t shape[] = {w->rows, w->cols};
        if (w->rows * w->cols > (int64_t)PF_COUNT(zeros) || n == (int)PF_COUNT(t)) abort();
        snprintf(names[n], sizeof *names, "%s.weight", shapes->sites[i]->name);
        const bool vector = w->rows == 1;
        if (pf_stored_tensor_set(&t[n], names[n], PF_DTYPE_F32, vector ? 1 : 2,
                                 vector ? shape + 1 : shape, zeros, NULL) != PEFT_OK)
            abort();
        n++;
    }
    snprintf(dir, sizeof dir, "%s/model", root);
    if (mkdir(dir, 0700) != 0) abort();
    snprintf(path, sizeof path, "%s/config.json", dir);
    put_file(path, small, strlen(small));
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    if (pf_safetensors_write(path, t, n, &pf_safetensors_pt, 1, NULL, NULL, NULL) != PEFT_OK)
        abort();
    pf_model_close(shapes);
    if (pf_model_open(&m, dir, NULL, NULL) != PEFT_OK) abort();
    return m;
}

/* Letters, digits, '_' and '.' of at most one folder deep; nothing that begins with a dot. */
static bool name_ok(const char *name) {
    int slashes = 0;
    for (size_t i = 0; name[i] != '\0'; i++) {
        const bool first = i == 0 || name[i - 1] == '/';
        if (name[i] == '/' ? first || ++slashes > 1
                           : !(isalnum((unsigned char)name[i]) || name[i] == '_' ||
                               (name[i] == '.' && !first)))
            return false;
    }
    return name[0] != '\0' && name[strlen(name) - 1] != '/';
}

static void put(const char *name, const uint8_t *data, size_t n) {
    char path[160];
    if (!name_ok(name)) return;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    char *slash = strchr(path + strlen(folder) + 1, '/');
    if (slash != NULL) {
        *slash = '\0';
        (void)mkdir(path, 0700);
        *slash = '/';
    }
    put_file(path, data, n);
}

/* The next line that begins a file, and its end; NULL: none. */
static const uint8_t *next_name(const uint8_t *at, const uint8_t *end, const uint8_t **line_end) {
    for (; at + 4 < end; at++) {
        const uint8_t *stop;
        if (memcmp(at, "=== ", 4) != 0) continue;
        stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) return NULL;
        *line_end = stop;
        return at;
    }
    return NULL;
}

static void unpack(const uint8_t *data, size_t size) {
    const uint8_t *end = data + size, *stop = data, *at = next_name(data, end, &stop);
    pf_remove_tree(folder, NULL);
    if (mkdir(folder, 0700) != 0) abort();
    for (int n = 0; at != NULL && n < MOST_FILES; n++) {
        char name[MOST_NAME + 1] = "";
        const uint8_t *body = stop + 1, *from = at + 4;
        const size_t len = (size_t)(stop - from);
        at = next_name(body, end, &stop);
        if (len > MOST_NAME) continue;
        memcpy(name, from, len);
        put(name, body, (size_t)((at != NULL ? at : end) - body));
    }
}

static void open_on_model(void) {
    static pf_model *m;
    pf_adapter *ad = NULL;
    peft_error err = {0};
    char line[160];
    if (m == NULL) m = open_small();
    if (pf_adapter_open(&ad, m, folder, true, &err) == PEFT_OK)
        pf_adapter_describe(ad, line, sizeof line);
    else if (err.message[0] == '\0')
        abort();
    pf_adapter_close(ad);
    for (int i = 0; i < m->n_sites; i++) {
        if (m->sites[i]->attached != NULL || m->sites[i]->trained_weight != NULL) abort();
    }
}

static void open_as_factors(void) {
    pf_factors f, again;
    peft_error err = {0};
    pf_factors_init(&f, folder);
    if (pf_factors_open(&f, folder, NULL, &err) == PEFT_OK) {
        for (int i = 0; pf_factor_formats[i] != NULL; i++) {
            pf_remove_tree(made, NULL);
            if (pf_factors_write(&f, pf_factor_formats[i], made, &err) != PEFT_OK) continue;
            pf_factors_init(&again, made);
            const peft_status status = pf_factors_open(&again, made, NULL, &err);
            if (status == PEFT_OK && again.n != f.n) abort();
            pf_factors_release(&again);
        }
    } else if (err.message[0] == '\0') {
        abort();
    }
    pf_factors_release(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (root[0] == '\0') make_root();
    pf_log_set_level(PF_LOG_ERROR);
    unpack(data, size);
    open_on_model();
    open_as_factors();
    return 0;
}

/* fuzz_checkpoint.c - any bytes in a checkpoint's folder. The first byte says as what:
 *
 *   m  manifest.json as it stands
 *   p  manifest.json without its last member: the proof is added, so that what it says is read
 *   s  state.safetensors, in a folder whose manifest is right: sections load it
 *
 * A checkpoint that loads can be gone on with: its counters count, a schedule takes metrics. */
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/checkpoint_manifest.h"
#include "train/early_stopping.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_SECTIONS = 4 };

/* An empty file of tensors: manifests of the corpus can say its size and sha256. */
static const char no_tensors[] = "\x02\0\0\0\0\0\0\0{}";

static char dir[64], manifest_path[96], state_path[96];

static void remove_dir(void) {
    pf_remove_tree(dir, NULL);
}

static void make_dir(void) {
    const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(dir, sizeof dir, "%s/fuzz_checkpoint_XXXXXX", root);
    if (mkdtemp(dir) == NULL) abort();
    atexit(remove_dir);
    snprintf(manifest_path, sizeof manifest_path, "%s/" PF_MANIFEST_NAME, dir);
    snprintf(state_path, sizeof state_path, "%s/" PF_STATE_NAME, dir);
}

/* Without the syncs of base/file. */
static void put(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    if (f == NULL || (n > 0 && fwrite(data, 1, n, f) != n) || fclose(f) != 0) abort();
}

static void put_proved(const uint8_t *data, size_t size) {
    static const char begin[] = "  \"manifest_sha256\": \"", end[] = "\"\n}\n";
    char hex[PF_SHA256_HEX];
    pf_buf text = {0};
    pf_buf_add(&text, data, size);
    pf_buf_adds(&text, begin);
    pf_sha256_of(text.data, text.len, hex);
    pf_buf_adds(&text, hex);
    pf_buf_adds(&text, end);
    put(manifest_path, text.data, text.len);
    pf_buf_free(&text);
}

static void put_right_manifest(const uint8_t *state, size_t size) {
    static const char *names[] = {"optimizer", "schedule", "best", "early_stopping"};
    pf_manifest_file file = {.name = PF_STATE_NAME, .size = size};
    const pf_manifest m = {.step = 7,
                           .program = "fuzz",
                           .sections = {names, N_SECTIONS},
                           .files = &file,
                           .n_files = 1};
    pf_buf text = {0};
    pf_sha256_of(state, size, file.sha256);
    if (pf_manifest_text(&text, &m, NULL) != PEFT_OK) abort();
    put(manifest_path, text.data, text.len);
    pf_buf_free(&text);
}

/* What a manifest says, written again, is a manifest that says the same. */
static void check_manifest(pf_arena *a) {
    pf_manifest m, again;
    peft_error err = {0};
    pf_buf text = {0};
    if (pf_manifest_read(&m, a, manifest_path, &err) != PEFT_OK) {
        if (err.message[0] == '\0') abort();
        return;
    }
    if (m.step < 0) abort();
    for (int i = 0; i < m.n_files; i++) {
        if (!pf_manifest_name_ok(m.files[i].name)) abort();
        if (strlen(m.files[i].sha256) != PF_SHA256_HEX - 1) abort();
    }
    if (pf_manifest_text(&text, &m, NULL) != PEFT_OK) return; /* a sha256 that is none */
    put(manifest_path, text.data, text.len);
    if (pf_manifest_read(&again, a, manifest_path, &err) == PEFT_OK) {
        if (again.step != m.step || again.n_files != m.n_files) abort();
        if (again.sections.n != m.sections.n || strcmp(again.program, m.program) != 0) abort();
    }
    pf_buf_free(&text);
}

/* ---- a run that could have written it -------------------------------------------------------- */

typedef struct run {
    pf_params params;
    pf_optimizer optimizer;
    pf_schedule schedule;
    pf_best best;
    pf_early_stopping stopping;
} run;

static void begin(run *r, pf_arena *a) {
    const pf_optimizer_cfg opt = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const pf_cfg_pair pairs[] = {{.key = "smooth", .text = "true"},
                                 {.key = "window_size", .number = 4, .is_number = true}};
    const pf_cfg_map args = {(pf_cfg_pair *)(uintptr_t)pairs, 2};
    const pf_schedule_cfg sched = {.type = "greedy", .lr = 1, .total_steps = 9, .args = &args};
    pf_param *p;
    pf_params_init(&r->params);
    if (pf_params_add(&r->params, "w", 1, 2, &p, NULL) != PEFT_OK) abort();
    if (pf_params_seal(&r->params, true, NULL) != PEFT_OK) abort();
    if (pf_optimizer_init(&r->optimizer, a, &r->params, &opt, NULL) != PEFT_OK) abort();
    if (pf_schedule_init(&r->schedule, a, &sched, NULL) != PEFT_OK) abort();
    pf_best_init(&r->best, "eval_loss", false);
    pf_early_stopping_init(&r->stopping, "eval_loss", false, 3, 0);
}

static void go_on(run *r) {
    if (r->optimizer.t < 0 || r->stopping.waited < 0 || r->best.step < 0) abort();
    for (int i = 0; i < 9; i++) {
        pf_schedule_metric(&r->schedule, i % 3 == 0 ? NAN : 0.5 * i);
        (void)pf_schedule_lr(&r->schedule, i);
        (void)pf_best_update(&r->best, 0.5 * i, i);
        (void)pf_early_stopping_update(&r->stopping, 0.5 * i, i);
    }
}

static void load(pf_arena *a) {
    run r = {0};
    peft_error err = {0};
    pf_checkpoint_info info;
    begin(&r, a);
    const pf_section sections[N_SECTIONS] = {
        pf_optimizer_section(&r.optimizer), pf_schedule_section(&r.schedule),
        pf_best_section(&r.best), pf_early_stopping_section(&r.stopping)};
    const peft_status seen = pf_checkpoint_verify(dir, a, &info, &err);
    if (seen != PEFT_OK && err.message[0] == '\0') abort();
    err.message[0] = '\0';
    const peft_status status = pf_checkpoint_load(dir, sections, N_SECTIONS, &err);
    if (status == PEFT_OK) {
        if (seen != PEFT_OK) abort();
        go_on(&r);
    } else if (err.message[0] == '\0') {
        abort();
    }
    pf_params_release(&r.params);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pf_arena a;
    if (size < 1) return 0;
    if (dir[0] == '\0') make_dir();
    pf_log_set_level(PF_LOG_ERROR);
    pf_arena_init(&a, "fuzz");
    if (data[0] == 's') {
        put(state_path, data + 1, size - 1);
        put_right_manifest(data + 1, size - 1);
    } else {
        put(state_path, no_tensors, sizeof no_tensors - 1);
        if (data[0] == 'p')
            put_proved(data + 1, size - 1);
        else
            put(manifest_path, data + 1, size - 1);
    }
    load(&a);
    check_manifest(&a);
    pf_arena_release(&a);
    return 0;
}

/* test_no_alloc.c - after the first steps the training loop allocates nothing, libraries included.
 *
 * malloc and its family are defined here around glibc's own, so every allocation of the process is
 * seen, whoever makes it. A run through the C API then trains with dropout, accumulation, logging
 * on every step and two threads; between step 5 and step 15 the count must not move. */
#include "base/rng.h"
#include "base/status.h"
#include "peft/run.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
int main(void) {
    printf("skipped: the sanitizer has an allocator of its own\n");
    return 77;
}
#else

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static _Atomic long long allocations, frees;

void *malloc(size_t n) {
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(p, n);
}
void *memalign(size_t align, size_t n);
void *memalign(size_t align, size_t n) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(align, n);
}
void *aligned_alloc(size_t align, size_t n) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(align, n);
}
int posix_memalign(void **out, size_t align, size_t n) {
    atomic_fetch_add(&allocations, 1);
    void *p = __libc_memalign(align, n);
    if (p == NULL) return ENOMEM;
    *out = p;
    return 0;
}
void free(void *p) {
    if (p != NULL) atomic_fetch_add(&frees, 1);
    __libc_free(p);
}

static char folder[] = "/tmp/peft-no-alloc-XXXXXX";

static int clean_up(int code) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? code : 1;
}

static int write_inputs(void) {
    char text[512];
    snprintf(text, sizeof text, "%s/qa.csv", folder);
    FILE *f = fopen(text, "w");
    if (f == NULL) return 1;
    fputs("question,answer\n", f);
    for (int i = 0; i < 200; i++) fprintf(f, "%d+%d,%d\n", i % 17, i % 13, i % 17 + i % 13);
    fclose(f);
    /* the path of the helper is that of this program, under another name */
    char own[256];
    ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    if (n < 0) return 1;
    own[n] = '\0';
    *strrchr(own, '/') = '\0';
    snprintf(text, sizeof text, "%s/../make_model %s/tiny", own, folder);
    return system(text);
}

int main(void) {
    if (mkdtemp(folder) == NULL || write_inputs() != 0) {
        fprintf(stderr, "cannot prepare %s\n", folder);
        return clean_up(1);
    }
    char model[128], data[128], out[128];
    snprintf(model, sizeof model, "model.name_or_path=%s/tiny", folder);
    snprintf(data, sizeof data, "data.train=%s/qa.csv", folder);
    snprintf(out, sizeof out, "training.output_dir=%s/out", folder);
    const char *overrides[] = {model,
                               data,
                               out,
                               "data.prompt=Q: {question}\nA:",
                               "data.target= {answer}",
                               "data.shuffle=true",
                               "peft.method=lora",
                               "peft.lora.dropout=0.1",
                               "peft.lora.target_modules=all-linear",
                               "training.per_device_train_batch_size=4",
                               "training.gradient_accumulation_steps=2",
                               "training.tokens_per_batch=32",
                               "training.logging_steps=1",
                               "training.max_steps=60",
                               "training.num_threads=2",
                               "training.save_strategy=no"};
    const peft_run_options opt = {.overrides = overrides, .n_overrides = (int)PF_COUNT(overrides)};
    peft_error err = {0};
    peft_run *run;
    peft_set_verbosity(1);
    if (peft_run_open(&run, &opt, &err) != PEFT_OK) {
        fprintf(stderr, "%s\n", err.message);
        return clean_up(1);
    }
    long long at5 = 0, frees5 = 0, at15 = 0, frees15 = 0;
    const long long before = atomic_load(&allocations);
    for (int i = 1; i <= 15; i++) {
        peft_step_report r;
        if (peft_run_step(run, &r, &err) != PEFT_OK || r.step != i) {
            fprintf(stderr, "step %d: %s\n", i, err.message);
            peft_run_close(run);
            return clean_up(1);
        }
        if (i == 5) {
            at5 = atomic_load(&allocations);
            frees5 = atomic_load(&frees);
        }
        at15 = atomic_load(&allocations);
        frees15 = atomic_load(&frees);
    }
    peft_run_close(run);
    printf("allocations: %lld to open the run, %lld in steps 1 to 5, %lld in steps 6 to 15; frees "
           "there: %lld\n",
           before, at5 - before, at15 - at5, frees15 - frees5);
    if (before < 100) {
        fprintf(stderr, "the counter does not count\n");
        return clean_up(1);
    }
    return clean_up(at15 == at5 && frees15 == frees5 ? 0 : 1);
}
#endif

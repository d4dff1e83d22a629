/* tensor_source.c - a list of tensors over several open files. */
#include "formats/tensor_source.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#include "base/banned.h"

void pf_tensor_source_init(pf_tensor_source *src) {
    *src = (pf_tensor_source){0};
    pf_arena_init(&src->arena, "tensor source");
}

void pf_tensor_source_close(pf_tensor_source *src) {
    if (src == NULL) return;
    for (int i = src->n_files - 1; i >= 0; i--) {
        if (src->files[i].close != NULL) src->files[i].close(src->files[i].owner);
    }
    pf_free(src->tensors);
    pf_free(src->files);
    pf_free(src->copies);
    pf_arena_release(&src->arena);
    *src = (pf_tensor_source){0};
}

static peft_status reserve(pf_tensor_source *src, int n, peft_error *err) {
    if (src->n_files == src->cap_files) {
        int cap = src->cap_files > 0 ? 2 * src->cap_files : 4;
        pf_tensor_file *grown = pf_realloc(src->files, (size_t)cap * sizeof *grown);
        PF_CHECK_ALLOC(grown, err);
        src->files = grown;
        src->cap_files = cap;
    }
    if (n > INT32_MAX / 2 - src->n_tensors) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "more than %d tensors", INT32_MAX / 2);
    }
    if (src->n_tensors + n > src->cap_tensors) {
        int cap =
            src->n_tensors + n > 2 * src->cap_tensors ? src->n_tensors + n : 2 * src->cap_tensors;
        pf_stored_tensor *grown = pf_realloc(src->tensors, (size_t)cap * sizeof *grown);
        PF_CHECK_ALLOC(grown, err);
        src->tensors = grown;
        src->cap_tensors = cap;
    }
    return PEFT_OK;
}

peft_status pf_tensor_source_add_file(pf_tensor_source *src, const pf_tensor_file *file,
                                      const pf_stored_tensor *tensors, int n, peft_error *err) {
    peft_status status = reserve(src, n, err);
    if (status != PEFT_OK) {
        if (file->close != NULL) file->close(file->owner);
        return status;
    }
    for (int i = 0; i < n; i++) {
        pf_stored_tensor *t = &src->tensors[src->n_tensors++];
        *t = tensors[i];
        t->file = src->n_files;
    }
    src->files[src->n_files++] = *file;
    return PEFT_OK;
}

peft_status pf_tensor_source_finish(pf_tensor_source *src, peft_error *err) {
    char name[PF_NAME_TEXT];
    src->by_name = PF_NEW_ARRAY(&src->arena, int, src->n_tensors);
    PF_CHECK_ALLOC(src->by_name, err);
    PF_TRY(pf_stored_tensor_sort(src->tensors, src->n_tensors, src->by_name, err));
    for (int i = 1; i < src->n_tensors; i++) {
        const pf_stored_tensor *a = &src->tensors[src->by_name[i - 1]],
                               *b = &src->tensors[src->by_name[i]];
        if (!pf_streq(a->name, b->name)) continue;
        return PF_FAIL(err, PEFT_E_FORMAT, "tensor %s is in two files: %s and %s",
                       pf_name_text(a->name, name, sizeof name), pf_tensor_source_path(src, a),
                       pf_tensor_source_path(src, b));
    }
    return PEFT_OK;
}

static bool aligned(const pf_stored_tensor *t) {
    return (uintptr_t)t->data % pf_dtype_info(t->dtype)->align == 0;
}

peft_status pf_tensor_source_align(pf_tensor_source *src, size_t *bytes, peft_error *err) {
    enum { LINE = 64 };
    size_t total = 0, at = 0;
    for (int i = 0; i < src->n_tensors; i++) {
        const pf_stored_tensor *t = &src->tensors[i];
        /* sums of sizes of mapped data: far from overflow */
        if (!aligned(t)) total += (t->bytes + LINE - 1) / LINE * LINE;
    }
    if (bytes != NULL) *bytes = total;
    if (total == 0) return PEFT_OK;
    PF_ASSERT(src->copies == NULL);
    unsigned char *copies = pf_aligned_malloc(total, LINE);
    if (copies == NULL) {
        return PF_FAIL(err, PEFT_E_NOMEM,
                       "out of memory: %zu bytes for tensors that are not aligned in %s; saving "
                       "the model anew with a "
                       "current safetensors library aligns them",
                       total, src->files[0].path);
    }
    src->copies = copies;
    src->copied = total;
    for (int i = 0; i < src->n_tensors; i++) {
        pf_stored_tensor *t = &src->tensors[i];
        if (aligned(t)) continue;
        if (t->bytes > 0) memcpy(copies + at, t->data, t->bytes);
        t->data = copies + at;
        at += (t->bytes + LINE - 1) / LINE * LINE;
    }
    return PEFT_OK;
}

int pf_tensor_source_find(const pf_tensor_source *src, const char *name) {
    return pf_stored_tensor_find(src->tensors, src->n_tensors, src->by_name, name);
}

peft_status pf_tensor_source_get(const pf_tensor_source *src, const char *name,
                                 const pf_stored_tensor **out, peft_error *err) {
    char near[PF_NAME_TEXT];
    int i = pf_tensor_source_find(src, name);
    *out = i >= 0 ? &src->tensors[i] : NULL;
    if (i >= 0) return PEFT_OK;
    int nearest = -1;
    const char **names = pf_calloc((size_t)src->n_tensors + 1, sizeof *names);
    if (names != NULL) {
        for (int k = 0; k < src->n_tensors; k++) names[k] = src->tensors[k].name;
        nearest = pf_nearest(name, names, src->n_tensors);
        pf_free(names);
    }
    return PF_FAIL(err, PEFT_E_MISSING, "%s%s: no tensor '%s'%s%s",
                   src->n_files > 0 ? src->files[0].path : "no file",
                   src->n_files > 1 ? " and the other files of the model" : "", name,
                   nearest >= 0 ? "; the nearest is " : "",
                   nearest >= 0 ? pf_name_text(src->tensors[nearest].name, near, sizeof near) : "");
}

const char *pf_tensor_source_path(const pf_tensor_source *src, const pf_stored_tensor *t) {
    PF_ASSERT(t->file >= 0 && t->file < src->n_files);
    return src->files[t->file].path;
}

uint64_t pf_tensor_source_bytes(const pf_tensor_source *src) {
    uint64_t total = 0;
    for (int i = 0; i < src->n_tensors; i++) total += src->tensors[i].bytes;
    return total;
}

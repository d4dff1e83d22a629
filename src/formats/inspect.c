/* inspect.c - describes a file or folder as JSON; inspect_text.c lays it out for people. */
#include "formats/inspect.h"

#include "base/file.h"
#include "formats/hf_folder.h"
#include "formats/safetensors_index.h"
#include "formats/zip_pt.h"

#include <string.h>

#include "base/banned.h"

#define MAX_STATE_BYTES ((size_t)256 << 20) /* trainer_state.json keeps the whole log */

/* Paths and names of files are bytes; the writer replaces what is not UTF-8. */
static json_t *text(const char *s) {
    return json_stringn_nocheck(s, strlen(s));
}

/* Every set goes through here, so that memory running out anywhere is noticed once, at the end. */
static void set(json_t *object, const char *key, json_t *value, bool *ok) {
    if (json_object_set_new_nocheck(object, key, value) != 0) *ok = false;
}

static void append(json_t *list, json_t *value, bool *ok) {
    if (json_array_append_new(list, value) != 0) *ok = false;
}

static json_t *metadata_of(const pf_tensor_file *f, bool *ok) {
    json_t *m = json_object();
    for (int i = 0; i < f->n_metadata; i++)
        set(m, f->metadata[i].key, text(f->metadata[i].value), ok);
    return m;
}

/* tensors and total, from a source. */
static void add_tensors(json_t *root, const pf_tensor_source *src, bool *ok) {
    int64_t parameters = 0, counts[PF_DTYPE_COUNT] = {0};
    json_t *list = json_array(), *total = json_object(), *dtypes = json_object();
    for (int i = 0; i < src->n_tensors; i++) {
        const pf_stored_tensor *t = &src->tensors[i];
        json_t *row = json_object(), *shape = json_array();
        for (int k = 0; k < t->n_dims; k++) append(shape, json_integer(t->shape[k]), ok);
        set(row, "name", text(t->name), ok);
        set(row, "dtype", text(pf_dtype_info(t->dtype)->name), ok);
        set(row, "shape", shape, ok);
        set(row, "bytes", json_integer((json_int_t)t->bytes), ok);
        set(row, "file", text(pf_path_base(pf_tensor_source_path(src, t))), ok);
        append(list, row, ok);
        parameters += pf_stored_tensor_count(t);
        counts[t->dtype]++;
    }
    for (int d = 0; d < PF_DTYPE_COUNT; d++) {
        if (counts[d] > 0)
            set(dtypes, pf_dtype_info((pf_dtype)d)->name, json_integer(counts[d]), ok);
    }
    set(total, "tensors", json_integer(src->n_tensors), ok);
    set(total, "parameters", json_integer(parameters), ok);
    set(total, "bytes", json_integer((json_int_t)pf_tensor_source_bytes(src)), ok);
    set(total, "dtypes", dtypes, ok);
    set(root, "total", total, ok);
    set(root, "tensors", list, ok);
}

/* The files of the source, with their metadata. */
static void add_source_files(json_t *list, const pf_tensor_source *src, bool *ok) {
    for (int i = 0; i < src->n_files; i++) {
        const pf_tensor_file *f = &src->files[i];
        json_t *row = json_object();
        set(row, "name", text(pf_path_base(f->path)), ok);
        set(row, "bytes", json_integer((json_int_t)f->size), ok);
        set(row, "metadata", metadata_of(f, ok), ok);
        append(list, row, ok);
    }
}

/* ---- folders ------------------------------------------------------------------------------- */

static bool in_source(const pf_tensor_source *src, const char *name) {
    for (int i = 0; i < src->n_files; i++) {
        if (pf_streq(pf_path_base(src->files[i].path), name)) return true;
    }
    return false;
}

/* All files of the folder, the source's first. */
static peft_status add_folder_files(json_t *root, pf_arena *a, const char *dir,
                                    const pf_tensor_source *src, bool *ok, peft_error *err) {
    pf_strlist names;
    PF_TRY(pf_list_dir(&names, a, dir, err));
    json_t *list = json_array();
    add_source_files(list, src, ok);
    for (int i = 0; i < names.n; i++) {
        uint64_t size = 0;
        const char *path = pf_path_join(a, dir, names.items[i]);
        if (path == NULL || in_source(src, names.items[i]) || pf_is_dir(path) ||
            pf_file_size(path, &size, NULL) != PEFT_OK) {
            continue;
        }
        json_t *row = json_object();
        set(row, "name", text(names.items[i]), ok);
        set(row, "bytes", json_integer((json_int_t)size), ok);
        append(list, row, ok);
    }
    set(root, "files", list, ok);
    return PEFT_OK;
}

static peft_status add_config(json_t *root, const char *key, const char *path, bool *ok,
                              peft_error *err) {
    json_t *value = NULL;
    if (path == NULL) return PEFT_OK;
    PF_TRY(pf_json_load(&value, path, MAX_STATE_BYTES, err));
    set(root, key, value, ok);
    return PEFT_OK;
}

/* Single values of trainer_state.json: where the run stands, not its log. */
static peft_status add_trainer_state(json_t *root, const char *path, bool *ok, peft_error *err) {
    json_t *state = NULL, *kept = json_object();
    const char *key;
    json_t *value;
    peft_status status = pf_json_load(&state, path, MAX_STATE_BYTES, err);
    if (status == PEFT_OK && !json_is_object(state)) {
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: %s, where an object should be", path,
                         pf_json_kind(state));
    }
    if (status == PEFT_OK) {
        json_object_foreach(state, key, value) {
            if (!json_is_object(value) && !json_is_array(value))
                set(kept, key, json_incref(value), ok);
        }
        set(root, "trainer_state", kept, ok);
    } else {
        json_decref(kept);
    }
    json_decref(state);
    return status;
}

/* A folder's safetensors files, whatever they are called, as one source. */
static peft_status open_loose(pf_tensor_source *src, pf_arena *a, const char *dir,
                              peft_error *err) {
    pf_strlist names;
    const char *pickle = NULL;
    pf_tensor_source_init(src);
    PF_TRY(pf_list_dir(&names, a, dir, err));
    for (int i = 0; i < names.n; i++) {
        const char *path = pf_path_join(a, dir, names.items[i]);
        PF_CHECK_ALLOC(path, err);
        if (pf_is_pickle_name(path)) pickle = path;
        if (pf_ends_with(path, ".safetensors")) PF_TRY(pf_safetensors_add_file(src, path, err));
    }
    if (src->n_files == 0 && pickle != NULL) return pf_refuse_pickle(pickle, err);
    if (src->n_files == 0) {
        return PF_FAIL(err, PEFT_E_MISSING, "%s holds no tensors that can be read (.safetensors)",
                       dir);
    }
    return pf_tensor_source_finish(src, err);
}

static peft_status describe_folder(json_t *root, const char *name, peft_error *err) {
    pf_hf_folder f;
    pf_tensor_source src = {0};
    bool ok = true;
    peft_status status = PEFT_OK;
    PF_TRY(pf_hf_folder_open(&f, name, NULL, err));
    const char *state = pf_path_join(&f.arena, f.path, "trainer_state.json"), *kind = "folder";
    if (state == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", f.path);
        goto out;
    }
    bool checkpoint = pf_path_exists(state);
    if (f.adapter_config != NULL)
        kind = "adapter";
    else if (f.config != NULL)
        kind = "model";
    if (checkpoint) kind = "checkpoint";
    if (f.adapter_weights != NULL)
        PF_TRY_OUT(pf_safetensors_open_source(&src, f.adapter_weights, err));
    else if (f.weights != NULL)
        PF_TRY_OUT(pf_safetensors_open_source(&src, f.weights, err));
    else if (f.weights_index != NULL)
        PF_TRY_OUT(pf_safetensors_open_sharded(&src, f.weights_index, err));
    else
        PF_TRY_OUT(open_loose(&src, &f.arena, f.path, err));
    set(root, "kind", text(kind), &ok);
    set(root, "path", text(f.path), &ok);
    if (f.commit != NULL) set(root, "commit", text(f.commit), &ok);
    PF_TRY_OUT(add_config(root, "config", f.config, &ok, err));
    PF_TRY_OUT(add_config(root, "generation_config", f.generation_config, &ok, err));
    PF_TRY_OUT(add_config(root, "adapter_config", f.adapter_config, &ok, err));
    if (checkpoint) PF_TRY_OUT(add_trainer_state(root, state, &ok, err));
    add_tensors(root, &src, &ok);
    if (pf_streq(kind,
                 "folder")) { /* whatever else lies there has nothing to do with the tensors */
        json_t *list = json_array();
        add_source_files(list, &src, &ok);
        set(root, "files", list, &ok);
    } else {
        PF_TRY_OUT(add_folder_files(root, &f.arena, f.path, &src, &ok, err));
    }
    if (!ok) status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", f.path);
out:
    pf_tensor_source_close(&src);
    pf_hf_folder_close(&f);
    return status;
}

/* ---- one file ------------------------------------------------------------------------------ */

static peft_status describe_file(json_t *root, const char *path, peft_error *err) {
    pf_tensor_source src = {0};
    bool ok = true, sharded = pf_ends_with(path, ".safetensors.index.json");
    if (pf_is_pickle_name(path)) return pf_refuse_pickle(path, err);
    if (pf_ends_with(path, ".gguf")) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: this version does not read GGUF", path);
    }
    PF_TRY(sharded ? pf_safetensors_open_sharded(&src, path, err)
                   : pf_safetensors_open_source(&src, path, err));
    set(root, "kind", text(sharded ? "sharded" : "safetensors"), &ok);
    set(root, "path", text(path), &ok);
    add_tensors(root, &src, &ok);
    json_t *files = json_array();
    add_source_files(files, &src, &ok);
    set(root, "files", files, &ok);
    pf_tensor_source_close(&src);
    return ok ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
}

peft_status pf_inspect(json_t **out, const char *path, peft_error *err) {
    static const char *const endings[] = {".safetensors", ".json", ".gguf", ".pt", ".bin"};
    *out = NULL;
    for (size_t i = 0; i < PF_COUNT(endings) && !pf_path_exists(path); i++) {
        if (pf_ends_with(path, endings[i])) /* not the name of a model on the hub */
            return PF_FAIL(err, PEFT_E_MISSING, "there is no file %s", path);
    }
    json_t *root = json_object();
    PF_CHECK_ALLOC(root, err);
    bool file = pf_path_exists(path) && !pf_is_dir(path);
    peft_status status = file ? describe_file(root, path, err) : describe_folder(root, path, err);
    if (status == PEFT_OK)
        *out = root;
    else
        json_decref(root);
    return status;
}

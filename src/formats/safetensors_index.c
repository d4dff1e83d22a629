/* safetensors_index.c - shards and the index that ties them together, read. See safetensors_index.h
 * for what is checked. */
#include "formats/safetensors_index.h"

#include "base/file.h"
#include "base/mem.h"
#include "formats/safetensors.h"
#include "text/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define MAX_INDEX_BYTES PF_SAFETENSORS_MAX_HEADER /* it lists what the headers list */

/* ---- the index --------------------------------------------------------------------- */

/* A path below the folder: no way up, no way out. */
static bool stays_inside(const char *file) {
    if (file[0] == '\0' || file[0] == '/' || strchr(file, '\\') != NULL) return false;
    for (const char *part = file; part != NULL;) {
        const char *slash = strchr(part, '/');
        size_t n = slash != NULL ? (size_t)(slash - part) : strlen(part);
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part = slash != NULL ? slash + 1 : NULL;
    }
    return true;
}

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const pf_shard_entry *)a)->tensor, ((const pf_shard_entry *)b)->tensor);
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Each file once, in order; `given` holds the file of each entry. */
static void number_files(pf_shard_index *ix, const char **given) {
    if (ix->n_entries > 1)
        qsort(ix->files, (size_t)ix->n_entries, sizeof *ix->files, compare_texts);
    ix->n_files = 0;
    for (int i = 0; i < ix->n_entries; i++) {
        if (ix->n_files == 0 || strcmp(ix->files[ix->n_files - 1], ix->files[i]) != 0) {
            ix->files[ix->n_files++] = ix->files[i];
        }
    }
    for (int i = 0; i < ix->n_entries; i++) {
        const char **at =
            bsearch(&given[i], ix->files, (size_t)ix->n_files, sizeof *ix->files, compare_texts);
        PF_ASSERT(at != NULL);
        ix->entries[i].file = (int)(at - ix->files);
    }
}

static peft_status take_weight_map(pf_shard_index *ix, const json_t *map, peft_error *err) {
    char name[PF_NAME_TEXT], shown[PF_NAME_TEXT];
    size_t n = json_object_size(map);
    if (n == 0) return PF_FAIL(err, PEFT_E_FORMAT, "%s: weight_map is empty", ix->path);
    ix->entries = PF_NEW_ARRAY(&ix->arena, pf_shard_entry, n);
    ix->files = PF_NEW_ARRAY(&ix->arena, const char *, n);
    const char **given = PF_NEW_ARRAY(&ix->arena, const char *, n);
    PF_CHECK_ALLOC(ix->entries, err);
    PF_CHECK_ALLOC(ix->files, err);
    PF_CHECK_ALLOC(given, err);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, key, value) {
        if (!json_is_string(value)) {
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s: weight_map: the file of tensor %s is %s, not text", ix->path,
                           pf_name_text(key, name, sizeof name), pf_json_kind(value));
        }
        const char *file = json_string_value(value);
        if (strlen(file) != json_string_length(value) || !stays_inside(file)) {
            return PF_FAIL(
                err, PEFT_E_FORMAT,
                "%s: weight_map: tensor %s is placed in %s, which is not inside the folder",
                ix->path, pf_name_text(key, name, sizeof name),
                pf_name_text(file, shown, sizeof shown));
        }
        int i = ix->n_entries++;
        ix->entries[i].tensor = pf_arena_strdup(&ix->arena, key);
        /* neighbours are mostly in the same shard: one copy of its name for all of them */
        given[i] = i > 0 && strcmp(given[i - 1], file) == 0 ? given[i - 1]
                                                            : pf_arena_strdup(&ix->arena, file);
        ix->files[i] = given[i];
        PF_CHECK_ALLOC(ix->entries[i].tensor, err);
        PF_CHECK_ALLOC(given[i], err);
    }
    number_files(ix, given);
    qsort(ix->entries, n, sizeof *ix->entries, compare_entries);
    return PEFT_OK;
}

peft_status pf_shard_index_parse(pf_shard_index *ix, const char *text, size_t n, const char *path,
                                 peft_error *err) {
    json_t *root = NULL;
    const json_t *map;
    peft_status status;
    *ix = (pf_shard_index){0};
    pf_arena_init(&ix->arena, "shard index");
    ix->path = pf_arena_strdup(&ix->arena, path);
    if (ix->path == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    PF_TRY_OUT(pf_json_parse(&root, text, n, path, err)); /* refuses a key that is there twice */
    if (!json_is_object(root)) {
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: %s, where an object with a weight_map should be",
                         path, pf_json_kind(root));
        goto out;
    }
    PF_TRY_OUT(pf_json_get_object(root, path, "weight_map", &map, err));
    PF_TRY_OUT(take_weight_map(ix, map, err));
out:
    json_decref(root);
    if (status != PEFT_OK) pf_shard_index_close(ix);
    return status;
}

peft_status pf_shard_index_open(pf_shard_index *ix, const char *path, peft_error *err) {
    pf_buf text;
    pf_buf_init(&text);
    *ix = (pf_shard_index){0};
    peft_status status = pf_read_file(&text, path, MAX_INDEX_BYTES, err);
    if (status == PEFT_OK)
        status = pf_shard_index_parse(ix, pf_buf_str(&text), text.len, path, err);
    pf_buf_free(&text);
    return status;
}

void pf_shard_index_close(pf_shard_index *ix) {
    if (ix == NULL) return;
    pf_arena_release(&ix->arena);
    *ix = (pf_shard_index){0};
}

int pf_shard_index_find(const pf_shard_index *ix, const char *tensor) {
    pf_shard_entry key = {.tensor = tensor};
    const pf_shard_entry *e =
        bsearch(&key, ix->entries, (size_t)ix->n_entries, sizeof *ix->entries, compare_entries);
    return e != NULL ? e->file : -1;
}

/* ---- reading ----------------------------------------------------------------------- */

static void close_owner(void *owner) {
    pf_safetensors_close(owner);
    pf_free(owner);
}

static peft_status add_file(pf_tensor_source *src, const char *path, const pf_safetensors **opened,
                            peft_error *err) {
    pf_safetensors *st = pf_calloc(1, sizeof *st);
    PF_CHECK_ALLOC(st, err);
    peft_status status = pf_safetensors_open(st, path, err);
    if (status != PEFT_OK) {
        pf_free(st);
        return status;
    }
    if (opened != NULL) *opened = st;
    pf_tensor_file file = {.path = st->path,
                           .size = st->size,
                           .metadata = st->metadata,
                           .n_metadata = st->n_metadata,
                           .owner = st,
                           .close = close_owner};
    return pf_tensor_source_add_file(src, &file, st->tensors, st->n_tensors, err);
}

peft_status pf_safetensors_add_file(pf_tensor_source *src, const char *path, peft_error *err) {
    return add_file(src, path, NULL, err);
}

peft_status pf_safetensors_open_source(pf_tensor_source *src, const char *path, peft_error *err) {
    pf_tensor_source_init(src);
    peft_status status = add_file(src, path, NULL, err);
    if (status == PEFT_OK) status = pf_tensor_source_finish(src, err);
    if (status != PEFT_OK) pf_tensor_source_close(src);
    return status;
}

/* What is in the shard and should not be. What should be and is not is found from the other side,
 * in all_found. */
static peft_status check_shard(const pf_shard_index *ix, int file, const pf_safetensors *st,
                               peft_error *err) {
    char name[PF_NAME_TEXT];
    for (int i = 0; i < st->n_tensors; i++) {
        int placed = pf_shard_index_find(ix, st->tensors[i].name);
        if (placed == file) continue;
        pf_name_text(st->tensors[i].name, name, sizeof name);
        if (placed < 0) {
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: tensor %s is not in the index %s", st->path,
                           name, ix->path);
        }
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: tensor %s is here, but the index %s places it in %s", st->path, name,
                       ix->path, ix->files[placed]);
    }
    return PEFT_OK;
}

static peft_status all_found(const pf_shard_index *ix, const pf_tensor_source *src,
                             peft_error *err) {
    char name[PF_NAME_TEXT];
    for (int i = 0; i < ix->n_entries; i++) {
        const pf_shard_entry *e = &ix->entries[i];
        if (pf_tensor_source_find(src, e->tensor) >= 0)
            continue; /* and in its shard: check_shard */
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: tensor %s should be in %s and is not", ix->path,
                       pf_name_text(e->tensor, name, sizeof name), ix->files[e->file]);
    }
    return PEFT_OK;
}

static peft_status all_there(const pf_shard_index *ix, const char *dir, pf_arena *a,
                             peft_error *err) {
    int missing = 0;
    const char *first = NULL;
    for (int i = 0; i < ix->n_files; i++) {
        const char *path = pf_path_join(a, dir, ix->files[i]);
        PF_CHECK_ALLOC(path, err);
        if (!pf_path_exists(path) && missing++ == 0) first = ix->files[i];
    }
    if (missing == 0) return PEFT_OK;
    char name[PF_NAME_TEXT];
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s: %d of %d shards are missing from the folder, the first is %s (is the "
                   "download complete?)",
                   ix->path, missing, ix->n_files, pf_name_text(first, name, sizeof name));
}

static peft_status open_shards(pf_tensor_source *src, const pf_shard_index *ix, peft_error *err) {
    const char *dir = pf_path_dir(&src->arena, ix->path);
    PF_CHECK_ALLOC(dir, err);
    PF_TRY(all_there(ix, dir, &src->arena, err));
    for (int i = 0; i < ix->n_files; i++) {
        const pf_safetensors *st = NULL;
        const char *path = pf_path_join(&src->arena, dir, ix->files[i]);
        PF_CHECK_ALLOC(path, err);
        PF_TRY(add_file(src, path, &st, err));
        PF_TRY(check_shard(ix, i, st, err));
    }
    PF_TRY(pf_tensor_source_finish(src, err));
    return all_found(ix, src, err);
}

peft_status pf_safetensors_open_sharded(pf_tensor_source *src, const char *index_path,
                                        peft_error *err) {
    pf_shard_index ix;
    pf_tensor_source_init(src);
    peft_status status = pf_shard_index_open(&ix, index_path, err);
    if (status == PEFT_OK) status = open_shards(src, &ix, err);
    pf_shard_index_close(&ix);
    if (status != PEFT_OK) pf_tensor_source_close(src);
    return status;
}

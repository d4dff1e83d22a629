/* safetensors_shards.c - a model in files of limited size: dealing out, names, and the index. */
#include "formats/safetensors_shards.h"

#include "base/file.h"
#include "formats/safetensors_write.h"
#include "text/json.h"

#include "base/banned.h"

/* The shard of each tensor, numbered from 0, as huggingface_hub's
 * split_torch_state_dict_into_shards deals them out: in order; a tensor above the limit gets a
 * shard at once and does not end the one being filled. */
static int deal_out(const pf_stored_tensor *tensors, int n, uint64_t limit, int *shard) {
    int n_shards = 0,
        open =
            -1; /* open: tensors in the shard being filled have shard[i] == n + 1 until it ends */
    uint64_t fill = 0;
    for (int i = 0; i < n; i++) {
        if (tensors[i].bytes > limit) {
            shard[i] = n_shards++;
            continue;
        }
        if (open >= 0 && fill + tensors[i].bytes > limit) {
            for (int k = open; k < i; k++) {
                if (shard[k] == -1) shard[k] = n_shards;
            }
            n_shards++;
            open = -1;
        }
        if (open < 0) {
            open = i;
            fill = 0;
        }
        shard[i] = -1;
        fill += tensors[i].bytes;
    }
    for (int k = open; k >= 0 && k < n; k++) {
        if (shard[k] == -1) shard[k] = n_shards;
    }
    return n_shards + (open >= 0 ? 1 : 0);
}

typedef struct subset {
    const int *index; /* of each tensor of the shard, in the whole list */
    pf_tensor_fill fill;
    void *ctx;
} subset;

static peft_status fill_subset(void *ctx, int index, const pf_stored_tensor *t,
                               pf_tensor_sink *sink, peft_error *err) {
    const subset *s = ctx;
    return s->fill(s->ctx, s->index[index], t, sink, err);
}

static const char *shard_name(pf_arena *a, const char *stem, int k, int n_shards) {
    if (n_shards <= 1) return pf_arena_printf(a, "%s.safetensors", stem);
    return pf_arena_printf(a, "%s-%05d-of-%05d.safetensors", stem, k + 1, n_shards);
}

static peft_status make_index(pf_buf *out, pf_arena *a, const char *stem,
                              const pf_stored_tensor *tensors, int n, const int *shard,
                              int n_shards, peft_error *err) {
    uint64_t total = 0, numbers = 0;
    json_t *root = json_object(), *metadata = json_object(), *map = json_object();
    bool made = true;
    for (int i = 0; i < n; i++) {
        const char *file = shard_name(a, stem, shard[i], n_shards);
        total += tensors[i].bytes;
        numbers += (uint64_t)pf_stored_tensor_count(&tensors[i]);
        made = made && file != NULL &&
               json_object_set_new(map, tensors[i].name, json_string(file)) == 0;
    }
    made = made && json_object_set_new(metadata, "total_parameters",
                                       json_integer((json_int_t)numbers)) == 0;
    made =
        made && json_object_set_new(metadata, "total_size", json_integer((json_int_t)total)) == 0;
    made = json_object_set_new(root, "metadata", metadata) == 0 && made;
    made = json_object_set_new(root, "weight_map", map) == 0 && made;
    peft_status status =
        made ? pf_json_dump(out, root, 2, PF_JSON_HF, err)
             : PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the index of %d tensors", n);
    json_decref(root);
    pf_buf_addc(out, '\n');
    if (status == PEFT_OK && !pf_buf_ok(out)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the index of %d tensors", n);
    }
    return status;
}

static peft_status refuse_occupied(pf_arena *a, const char *dir, const char *stem,
                                   peft_error *err) {
    static const char *const endings[] = {".safetensors", ".safetensors.index.json"};
    for (size_t i = 0; i < PF_COUNT(endings); i++) {
        const char *name = pf_arena_printf(a, "%s%s", stem, endings[i]);
        PF_CHECK_ALLOC(name, err);
        const char *path = pf_path_join(a, dir, name);
        PF_CHECK_ALLOC(path, err);
        if (pf_path_exists(path)) {
            return PF_FAIL(err, PEFT_E_CREATE,
                           "%s is there already; choose another folder, or remove it", path);
        }
    }
    return PEFT_OK;
}

peft_status pf_safetensors_write_sharded(const char *dir, const char *stem,
                                         const pf_stored_tensor *tensors, int n_tensors,
                                         uint64_t max_shard_bytes, const pf_metadata *metadata,
                                         int n_metadata, pf_tensor_fill fill, void *fill_ctx,
                                         int *n_files, peft_error *err) {
    pf_arena a;
    pf_buf text;
    peft_status status = PEFT_OK;
    pf_arena_init(&a, "shards");
    pf_buf_init(&text);
    int *shard = PF_NEW_ARRAY(&a, int, n_tensors), *index = PF_NEW_ARRAY(&a, int, n_tensors);
    pf_stored_tensor *part = PF_NEW_ARRAY(&a, pf_stored_tensor, n_tensors);
    if (shard == NULL || index == NULL || part == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", dir);
        goto out;
    }
    PF_TRY_OUT(refuse_occupied(&a, dir, stem, err));
    int n_shards =
        deal_out(tensors, n_tensors, max_shard_bytes > 0 ? max_shard_bytes : UINT64_MAX, shard);
    for (int k = 0; k < n_shards || k == 0; k++) {
        int n = 0;
        for (int i = 0; i < n_tensors; i++) {
            if (shard[i] != k) continue;
            part[n] = tensors[i];
            index[n++] = i;
        }
        subset s = {index, fill, fill_ctx};
        const char *name = shard_name(&a, stem, k, n_shards);
        const char *path = name != NULL ? pf_path_join(&a, dir, name) : NULL;
        if (path == NULL) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", dir);
            goto out;
        }
        PF_TRY_OUT(pf_safetensors_write(path, part, n, metadata, n_metadata,
                                        fill != NULL ? fill_subset : NULL, &s, err));
    }
    if (n_shards > 1) {
        const char *name = pf_arena_printf(&a, "%s/%s.safetensors.index.json", dir, stem);
        PF_TRY_OUT(make_index(&text, &a, stem, tensors, n_tensors, shard, n_shards, err));
        status = name != NULL ? pf_write_file(name, text.data, text.len, err)
                              : PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", dir);
    }
    if (n_files != NULL) *n_files = n_shards > 1 ? n_shards : 1;
out:
    pf_buf_free(&text);
    pf_arena_release(&a);
    return status;
}

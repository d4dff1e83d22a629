/* adapter_file.c - an adapter's folder: adapter_config.json, adapter_model.safetensors, README.md.
 *
 * The folder is PEFT's, both ways; AdapterHub's is in adapterhub_file.c. What looks like an adapter
 * of another kind is named: other PEFT types, MLX folders, pickled weights. Method full has no
 * adapter: its folder is a model (config.json, model.safetensors). */
#include "peft/adapter_file.h"
#include "peft/peft_json.h"
#include "peft/several.h"

#include "base/file.h"
#include "formats/hf_folder.h"
#include "formats/safetensors.h"
#include "nn/class_head.h"
#include "text/json.h"

#include <string.h>

#define MAX_CONFIG (16u << 20)

/* ---- what kind of folder --------------------------------------------------------------------- */

static const char *const peft_types[] = {
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "LORA",
    "ADALORA",
    "ADAMSS",
    "BOFT",
    "ADAPTION_PROMPT",
    "IA3",
    "BEFT",
    "LILY",
    "LOHA",
    "LOKR",
    "OFT",
    "POLY",
    "LN_TUNING",
    "VERA",
    "FROD",
    "PVERA",
    "FOURIERFT",
    "GLORA",
    "XLORA",
    "HRA",
    "VBLORA",
    "UNILORA",
    "CPT",
    "MISS",
    "RANDLORA",
    "ROAD",
    "TRAINABLE_TOKENS",
    "HIRA",
    "SHIRA",
    "C3A",
    "WAVEFT",
    "OSF",
    "DELORA",
    "GRALORA",
    "CARTRIDGE",
    "TINYLORA",
    "PSOFT",
    "PEANUT",
    "SHADOW",
    "SUPERTUNING",
    "DEFT",
};

static peft_status find_peft_type(const json_t *c, const char *where, const pf_method **out,
                                  peft_error *err) {
    const char *type;
    *out = NULL;
    if (json_object_get(c, "peft_type") == NULL) {
        if (json_object_get(c, "fine_tune_type") != NULL ||
            json_object_get(c, "lora_parameters") != NULL) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: this is an adapter of MLX (fine_tune_type); peft-toolkit adapter "
                           "convert makes "
                           "one of PEFT of it",
                           where);
        }
    }
    PF_TRY(pf_json_get_str(c, where, "peft_type", &type, err));
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        if (pf_method_table[i]->peft_type != NULL &&
            pf_streq(pf_method_table[i]->peft_type, type)) {
            *out = pf_method_table[i];
            return PEFT_OK;
        }
    }
    for (size_t i = 0; i < PF_COUNT(peft_types); i++) {
        if (pf_streq(peft_types[i], type)) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: adapters of PEFT type %s are not supported yet; "
                           "peft-toolkit train --explain peft.method lists the methods that are",
                           where, type);
        }
    }
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s: peft_type '%s' is not one of PEFT's; peft-toolkit train --explain "
                   "peft.method lists the methods that are supported",
                   where, type);
}

static peft_status read_task(const json_t *c, const char *where, pf_task *out, peft_error *err) {
    const char *task;
    PF_TRY(pf_json_opt_str(c, where, "task_type", NULL, &task, err));
    *out = pf_task_find(task);
    if (task == NULL || *out != PF_TASK_AUTO) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: task_type is %s; adapters for CAUSAL_LM, SEQ_2_SEQ_LM, SEQ_CLS and "
                   "TOKEN_CLS are supported",
                   where, task);
}

/* An adapter that tells classes apart has a head which other models lack, and the other way. */
static peft_status check_task(const json_t *c, const char *where, const pf_model *m,
                              peft_error *err) {
    pf_task task;
    PF_TRY(read_task(c, where, &task, err));
    if (task == PF_TASK_AUTO || task == m->task) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                   "%s: task_type is %s, but the base is open for %s; give peft.task_type=%s, or "
                   "leave it away",
                   where, pf_task_name(task), pf_task_name(m->task), pf_task_name(task));
}

static peft_status check_weight_file(pf_arena *a, const char *dir, const char *name,
                                     peft_error *err) {
    const char *path = pf_path_join(a, dir, name),
               *pickle = pf_path_join(a, dir, "adapter_model.bin");
    PF_CHECK_ALLOC(path, err);
    PF_CHECK_ALLOC(pickle, err);
    if (pf_path_exists(path)) return PEFT_OK;
    if (pf_path_exists(pickle)) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is a pickle, which can run code and is not read here. Convert it once "
                       "where torch is: "
                       "python -c \"import torch, safetensors.torch as s; "
                       "s.save_file({k: v.contiguous() for k, v in torch.load('adapter_model.bin', "
                       "weights_only=True).items()}, 'adapter_model.safetensors')\"",
                       pickle);
    }
    return PF_FAIL(err, PEFT_E_MISSING,
                   "%s: there is no such file, but an adapter_config.json beside it", path);
}

/* ---- opening --------------------------------------------------------------------------------- */

static peft_status copy_base_name(pf_adapter *ad, const json_t *c, const char *where,
                                  peft_error *err) {
    const char *name;
    PF_TRY(pf_json_opt_str(c, where, "base_model_name_or_path", NULL, &name, err));
    if (name == NULL) return PEFT_OK;
    ad->base_name = pf_arena_strdup(&ad->arena, name);
    PF_CHECK_ALLOC(ad->base_name, err);
    return PEFT_OK;
}

/* cfg and everything in it live in `a`, which becomes the adapter's business once it is attached.
 */
static peft_status open_peft(pf_adapter **out, pf_model *model, const char *dir, const json_t *c,
                             const char *where, pf_arena *a, peft_error *err) {
    const pf_method *method;
    pf_peft_cfg cfg = {.given = true};
    PF_TRY(find_peft_type(c, where, &method, err));
    PF_TRY(check_task(c, where, model, err));
    PF_TRY(check_weight_file(a, dir, "adapter_model.safetensors", err));
    pf_peft_warn_unknown(c, where);
    PF_TRY(method->read_config(a, c, where, &cfg.method_cfg, err));
    cfg.method = method->name;
    peft_status status = pf_adapter_attach_loaded(out, model, &cfg, err);
    if (status != PEFT_OK) return pf_fail_prefix(err, status, "%s", where);
    PF_TRY(copy_base_name(*out, c, where, err));
    return PEFT_OK;
}

peft_status pf_adapter_load_weights(pf_adapter *ad, pf_arena *a, const char *dir,
                                    bool with_training, peft_error *err) {
    const char *path = pf_path_join(a, dir, pf_method_weight_file(ad->method)), *head = NULL;
    PF_CHECK_ALLOC(path, err);
    if (ad->model->shapes_only) return pf_adapter_seal(ad, with_training, err);
    if (pf_adapter_has_head_file(ad)) PF_TRY(pf_adapterhub_find_head(ad, a, dir, &head, err));
    PF_TRY(pf_adapter_load_tensors(ad, path, head, with_training, err));
    if (ad->method->check_loaded != NULL) PF_TRY(ad->method->check_loaded(ad, err));
    if (ad->method->ready != NULL) ad->method->ready(ad);
    return PEFT_OK;
}

/* The file that says what a folder's adapter is: its own name for a fusion of adapters. */
static const char *config_path(pf_arena *a, const char *dir) {
    const char *usual = pf_path_join(a, dir, "adapter_config.json"),
               *fusion = pf_path_join(a, dir, PF_FUSION_CONFIG);
    if (usual == NULL || fusion == NULL) return NULL;
    return !pf_path_exists(usual) && pf_path_exists(fusion) ? fusion : usual;
}

peft_status pf_adapter_attach_folder(pf_adapter **out, pf_model *model, const char *dir,
                                     pf_arena *a, peft_error *err) {
    const char *where = config_path(a, dir);
    const char *whole = pf_path_join(a, dir, "model.safetensors");
    json_t *c = NULL;
    PF_CHECK_ALLOC(where, err);
    PF_CHECK_ALLOC(whole, err);
    if (!pf_path_exists(where)) {
        if (!pf_path_exists(whole)) {
            return PF_FAIL(err, PEFT_E_MISSING,
                           "%s: there is no adapter_config.json, so this is no adapter folder",
                           dir);
        }
        const pf_peft_cfg full = {.method = "full", .given = true};
        return pf_adapter_attach_loaded(out, model, &full, err);
    }
    PF_TRY(pf_json_load(&c, where, MAX_CONFIG, err));
    peft_status status = PEFT_OK;
    if (!json_is_object(c))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    if (status == PEFT_OK) {
        status = pf_adapterhub_is(c) ? pf_adapterhub_open(out, model, dir, c, where, a, err)
                                     : open_peft(out, model, dir, c, where, a, err);
    }
    json_decref(c);
    return status;
}

/* One adapter, or the parts of one. */
static peft_status open_folder(pf_adapter **out, pf_model *model, const char *dir,
                               const pf_several_list *list, pf_arena *a, bool with_training,
                               peft_error *err) {
    if (list->n_parts > 0)
        return pf_several_open_parts(out, model, list, dir, a, with_training, err);
    PF_TRY(pf_adapter_attach_folder(out, model, dir, a, err));
    return pf_adapter_load_weights(*out, a, dir, with_training, err);
}

/* A path, or a hub name that is in the local cache; of AdapterHub's setup folders (several adapters
 * and what is put over them) the one of the fusion. */
static peft_status find_folder(const char **dir, pf_arena *a, const char *path, peft_error *err) {
    pf_hf_folder folder = {0};
    PF_TRY(pf_hf_folder_open(&folder, path, NULL, err));
    *dir = pf_arena_strdup(a, folder.path);
    pf_hf_folder_close(&folder);
    PF_CHECK_ALLOC(*dir, err);
    return pf_adapterhub_setup(dir, a, err);
}

/* What it stands on acts first. */
static peft_status open_at(pf_adapter **out, pf_adapter **below, pf_model *model, const char *path,
                           pf_arena *a, bool with_training, int depth, peft_error *err) {
    const char *dir;
    pf_several_list list;
    PF_TRY(find_folder(&dir, a, path, err));
    PF_TRY(pf_several_read(&list, a, dir, err));
    PF_TRY(pf_several_open_below(below, model, &list, dir, a, depth, err));
    PF_TRY(open_folder(out, model, dir, &list, a, with_training, err));
    (*out)->path = dir;
    return PEFT_OK;
}

peft_status pf_adapter_open_at(pf_adapter **out, pf_model *model, const char *path,
                               bool with_training, int depth, peft_error *err) {
    pf_arena a;
    pf_adapter *below = NULL;
    *out = NULL;
    pf_arena_init(&a, "adapter config");
    peft_status status = open_at(out, &below, model, path, &a, with_training, depth, err);
    if (status != PEFT_OK) {
        pf_adapter_close(*out);
        pf_adapter_close_chain(below);
        *out = NULL;
        pf_arena_release(&a);
        return status;
    }
    pf_adapter_put_below(*out, below);
    (*out)->cfg_arena = a; /* the configuration lives as long as the adapter */
    return PEFT_OK;
}

peft_status pf_adapter_open(pf_adapter **out, pf_model *model, const char *path, bool with_training,
                            peft_error *err) {
    return pf_adapter_open_at(out, model, path, with_training, 0, err);
}

peft_status pf_adapter_base_of(const char **out, pf_arena *a, const char *path, peft_error *err) {
    const char *dir, *where, *name = NULL;
    json_t *c;
    pf_several_list list;
    *out = NULL;
    PF_TRY(find_folder(&dir, a, path, err));
    PF_TRY(pf_several_read(&list, a, dir, err));
    if (list.n_parts > 0) dir = pf_path_join(a, dir, list.parts[0]);
    PF_CHECK_ALLOC(dir, err);
    where = config_path(a, dir);
    PF_CHECK_ALLOC(where, err);
    PF_TRY(pf_json_load(&c, where, MAX_CONFIG, err));
    peft_status status = PEFT_OK;
    if (!json_is_object(c))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    if (status == PEFT_OK) {
        const char *key = pf_adapterhub_is(c) ? "model_name" : "base_model_name_or_path";
        status = pf_json_opt_str(c, where, key, NULL, &name, err);
    }
    if (status == PEFT_OK && name != NULL) {
        *out = pf_arena_strdup(a, name);
        if (*out == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    json_decref(c);
    return status;
}

/* The rows of the head that the adapter brings. */
static peft_status count_head(pf_adapter_task *out, const char *path, peft_error *err) {
    static const char *const heads[] = {".score.weight", ".classifier.weight",
                                        ".classifier.out_proj.weight"};
    pf_safetensors file = {0};
    if (!pf_path_exists(path)) return PEFT_OK;
    PF_TRY(pf_safetensors_open(&file, path, err));
    for (int i = 0; i < file.n_tensors; i++)
        for (size_t k = 0; k < PF_COUNT(heads); k++)
            if (file.tensors[i].n_dims == 2 && pf_ends_with(file.tensors[i].name, heads[k]))
                out->n_labels = file.tensors[i].shape[0];
    pf_safetensors_close(&file);
    return PEFT_OK;
}

static peft_status task_of_config(pf_adapter_task *out, pf_arena *a, const json_t *c,
                                  const char *where, peft_error *err) {
    const json_t *list;
    PF_TRY(read_task(c, where, &out->task, err));
    PF_TRY(pf_json_opt_array(c, where, "architectures", &list, err));
    const char *architecture = json_string_value(json_array_get(list, 0));
    if (architecture != NULL) pf_task_split(architecture, &out->task);
    PF_TRY(pf_labels_read(c, where, a, &out->labels, err));
    out->n_labels = out->labels.n;
    const char *problem;
    PF_TRY(pf_json_opt_str(c, where, "problem_type", NULL, &problem, err));
    out->problem = pf_problem_find(problem);
    return PEFT_OK;
}

peft_status pf_adapter_task_of(pf_adapter_task *out, pf_arena *a, const char *path,
                               peft_error *err) {
    const char *dir;
    json_t *c;
    memset(out, 0, sizeof *out);
    PF_TRY(find_folder(&dir, a, path, err));
    const char *where = config_path(a, dir);
    PF_CHECK_ALLOC(where, err);
    if (!pf_path_exists(where)) where = pf_path_join(a, dir, "config.json"); /* method full */
    const char *tensors = pf_path_join(a, dir, "adapter_model.safetensors");
    PF_CHECK_ALLOC(where, err);
    PF_CHECK_ALLOC(tensors, err);
    if (!pf_path_exists(where)) return PEFT_OK; /* opening it will say so */
    PF_TRY(pf_json_load(&c, where, MAX_CONFIG, err));
    peft_status status = PEFT_OK;
    if (!json_is_object(c))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    if (status == PEFT_OK) {
        status = pf_adapterhub_is(c) ? pf_adapterhub_task_of(out, a, dir, err)
                                     : task_of_config(out, a, c, where, err);
    }
    json_decref(c);
    if (status == PEFT_OK && pf_task_is_classes(out->task) && out->n_labels == 0)
        status = count_head(out, tensors, err);
    return status;
}

/* ---- saving ---------------------------------------------------------------------------------- */

static int add_name(json_t *list, const char *name) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (pf_streq(json_string_value(json_array_get(list, i)), name)) return 0;
    return json_array_append_new(list, json_string(name));
}

/* modules_to_save as peft has it for classes: both usual names, and what else was trained whole. */
static peft_status add_heads(const pf_adapter *ad, json_t *c, peft_error *err) {
    json_t *list = json_object_get(c, "modules_to_save");
    int bad = 0;
    if (!json_is_array(list)) {
        list = json_array();
        bad |= json_object_set_new(c, "modules_to_save", list);
    }
    bad |= add_name(list, "classifier");
    bad |= add_name(list, "score");
    for (int i = 0; i < ad->model->n_sites && !bad; i++) {
        const char *name = ad->model->sites[i]->name;
        if (!ad->model->sites[i]->always_trained || pf_ends_with(name, "score") ||
            pf_ends_with(name, "classifier") || pf_starts_with(name, "classifier."))
            continue;
        bad |= add_name(list, name);
    }
    return bad == 0 ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

static peft_status write_config(const pf_adapter *ad, const char *path, peft_error *err) {
    json_t *c = json_object();
    if (c == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    int bad = json_object_set_new(c, "peft_type", json_string(ad->method->peft_type));
    bad |= json_object_set_new(c, "task_type", json_string(pf_task_name(ad->model->task)));
    bad |= json_object_set_new(c, "inference_mode", json_true());
    bad |= json_object_set_new(c, "base_model_name_or_path",
                               ad->base_name == NULL ? json_null() : json_string(ad->base_name));
    peft_status status =
        bad == 0 ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing %s", path);
    if (status == PEFT_OK) status = ad->method->write_config(ad, c, err);
    if (status == PEFT_OK && pf_task_is_classes(ad->model->task)) {
        status = add_heads(ad, c, err);
        if (status == PEFT_OK) status = pf_labels_write(&ad->model->labels, c, err);
        if (status == PEFT_OK && pf_problem_has_values(ad->model->problem) &&
            json_object_set_new(c, "problem_type",
                                json_string(pf_problem_name(ad->model->problem))) != 0)
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing %s", path);
    }
    if (status == PEFT_OK) status = pf_json_write(path, c, PF_JSON_HF, err);
    json_decref(c);
    return status;
}

/* The base's config.json, but for the type of the numbers: trained weights are f32. */
static peft_status write_model_config(const pf_adapter *ad, const char *path, peft_error *err) {
    json_t *c = json_copy(ad->model->config);
    if (c == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    const char *key = json_object_get(c, "dtype") != NULL ? "dtype" : "torch_dtype";
    peft_status status = PEFT_OK;
    if (json_object_set_new(c, key, json_string("float32")) != 0)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_model_write_task(ad->model, c, err);
    if (status == PEFT_OK) status = pf_json_write(path, c, PF_JSON_HF, err);
    json_decref(c);
    return status;
}

static peft_status write_any_config(const pf_adapter *ad, const char *path, peft_error *err) {
    if (pf_method_saves_model(ad->method)) return write_model_config(ad, path, err);
    if (ad->method->is_adapterhub == NULL && ad->n_parts == 0) return write_config(ad, path, err);
    json_t *c = json_object();
    PF_CHECK_ALLOC(c, err);
    peft_status status = pf_adapterhub_write_config(ad, c, err);
    if (status == PEFT_OK) status = pf_json_write(path, c, PF_JSON_HF, err);
    json_decref(c);
    return status;
}

static peft_status save_head(const pf_adapter *ad, const char *dir, peft_error *err) {
    pf_arena scratch;
    pf_arena_init(&scratch, "scratch");
    const char *config = pf_path_join(&scratch, dir, PF_HEAD_CONFIG),
               *tensors = pf_path_join(&scratch, dir, PF_HEAD_FILE);
    peft_status status = config != NULL && tensors != NULL
                             ? pf_adapter_write_tensors(ad, tensors, true, err)
                             : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_adapterhub_write_head_config(ad, config, err);
    pf_arena_release(&scratch);
    return status;
}

static peft_status save_one(const pf_adapter *ad, const char *dir, peft_error *err) {
    pf_arena scratch;
    pf_arena_init(&scratch, "scratch");
    const char *config = pf_path_join(&scratch, dir, pf_method_config_file(ad->method));
    const char *tensors = pf_path_join(&scratch, dir, pf_method_weight_file(ad->method));
    const char *card = pf_path_join(&scratch, dir, "README.md");
    peft_status status = PEFT_OK;
    if (config == NULL || tensors == NULL || card == NULL)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_adapter_write_tensors(ad, tensors, false, err);
    if (status == PEFT_OK) status = write_any_config(ad, config, err);
    if (status == PEFT_OK && pf_adapter_has_head_file(ad)) status = save_head(ad, dir, err);
    if (status == PEFT_OK) status = pf_adapter_write_card(ad, card, err);
    for (const pf_adapter *h = ad->held; h != NULL && status == PEFT_OK; h = h->next) {
        const char *folder = pf_path_join(&scratch, dir, h->held_as);
        status = folder != NULL ? pf_make_dirs(folder, err)
                                : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (status == PEFT_OK) status = save_one(h, folder, err);
    }
    pf_arena_release(&scratch);
    return status;
}

peft_status pf_adapter_save(const pf_adapter *ad, const char *dir, peft_error *err) {
    PF_TRY(pf_several_write(ad, dir, err));
    if (ad->n_parts == 0 || pf_adapterhub_is_union(ad)) return save_one(ad, dir, err);
    peft_status status = PEFT_OK;
    pf_arena a;
    pf_arena_init(&a, "parts");
    for (int i = 0; i < ad->n_parts && status == PEFT_OK; i++) {
        pf_adapter *part = ad->parts[i];
        const char *folder = pf_path_join(&a, dir, part->method->name);
        part->base_name = ad->base_name;
        status = folder != NULL ? pf_make_dirs(folder, err)
                                : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (status == PEFT_OK) status = save_one(part, folder, err);
    }
    pf_arena_release(&a);
    return status;
}

static int add_files(const pf_adapter *ad, pf_arena *a, const char *folder, const char **names) {
    int n = 3;
    names[0] = pf_arena_printf(a, "%s%s", folder, pf_method_weight_file(ad->method));
    names[1] = pf_arena_printf(a, "%s%s", folder, pf_method_config_file(ad->method));
    names[2] = pf_arena_printf(a, "%sREADME.md", folder);
    if (names[0] == NULL || names[1] == NULL || names[2] == NULL) return -1;
    if (pf_adapter_has_head_file(ad)) {
        names[n++] = pf_arena_printf(a, "%s" PF_HEAD_FILE, folder);
        names[n++] = pf_arena_printf(a, "%s" PF_HEAD_CONFIG, folder);
        if (names[n - 2] == NULL || names[n - 1] == NULL) return -1;
    }
    for (const pf_adapter *h = ad->held; h != NULL; h = h->next) {
        const char *inside = pf_arena_printf(a, "%s%s/", folder, h->held_as);
        const int added = inside != NULL ? add_files(h, a, inside, names + n) : -1;
        if (added < 0) return -1;
        n += added;
    }
    return n;
}

int pf_adapter_files(const pf_adapter *ad, pf_arena *a, const char *names[PF_ADAPTER_FILES]) {
    const int n_parts = pf_adapterhub_is_union(ad) ? 0 : ad->n_parts;
    int n = 0;
    if (n_parts > 0 || ad->below != NULL) names[n++] = PF_SEVERAL_FILE;
    for (int i = 0; i < n_parts; i++) {
        const char *folder = pf_arena_printf(a, "%s/", ad->parts[i]->method->name);
        const int added = folder != NULL ? add_files(ad->parts[i], a, folder, names + n) : -1;
        if (added < 0) return -1;
        n += added;
    }
    if (n_parts > 0) return n;
    const int added = add_files(ad, a, "", names + n);
    return added < 0 ? -1 : n + added;
}

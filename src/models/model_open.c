/* model_open.c - from a folder to an open model; see model_open.h. */
#include "models/model_open.h"

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/hf_folder.h"
#include "nn/base_dropout.h"
#include "nn/class_head.h"
#include "text/json.h"

/* ---- which family ---------------------------------------------------------------------------- */

/* Also by another head of the same model: *known is then the name that the family has for it. */
static const pf_model_family *by_architecture(const char *name, const char **known) {
    for (int same_name = 1; name != NULL && same_name >= 0; same_name--) {
        for (int f = 0; pf_model_families[f] != NULL; f++) {
            for (int i = 0; pf_model_families[f]->architectures[i] != NULL; i++) {
                *known = pf_model_families[f]->architectures[i];
                if (same_name ? pf_streq(*known, name) : pf_task_same_stem(*known, name))
                    return pf_model_families[f];
            }
        }
    }
    return NULL;
}

static bool can_do(const pf_model_family *f, pf_task task) {
    const unsigned decoder =
        1u << PF_TASK_CAUSAL_LM | 1u << PF_TASK_SEQ_CLS | 1u << PF_TASK_TOKEN_CLS;
    return ((f->tasks != 0 ? f->tasks : decoder) >> task & 1) != 0;
}

/* The task that is asked for, else that of the files. A bare model is one for what it is usually
 * used for. */
static peft_status settle_task(pf_model *m, const char *architecture, pf_task wanted,
                               peft_error *err) {
    pf_task own;
    pf_task_split(architecture, &own);
    /* pictures in, text out is called so, too: the text part is a decoder (Gemma 3) */
    if (own == PF_TASK_SEQ_2_SEQ_LM && !can_do(m->family, own)) own = PF_TASK_CAUSAL_LM;
    m->task = wanted != PF_TASK_AUTO ? wanted : own;
    if (m->task == PF_TASK_AUTO && can_do(m->family, PF_TASK_CAUSAL_LM))
        m->task = PF_TASK_CAUSAL_LM;
    m->other_task = own != m->task;
    if (m->task == PF_TASK_AUTO)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: %s has no head; say what it is trained for with peft.task_type, "
                       "SEQ_CLS or TOKEN_CLS",
                       m->config_path, architecture);
    if (can_do(m->family, m->task)) return PEFT_OK;
    pf_buf tasks = {0};
    for (int t = PF_TASK_CAUSAL_LM; t <= PF_TASK_TOKEN_CLS; t++)
        if (can_do(m->family, (pf_task)t))
            pf_buf_addf(&tasks, "%s%s", tasks.len == 0 ? "" : ", ", pf_task_name((pf_task)t));
    const peft_status status =
        PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: the task is %s, and %s cannot do that; it can do %s",
                m->config_path, pf_task_name(m->task), architecture, pf_buf_str(&tasks));
    pf_buf_free(&tasks);
    return status;
}

/* The architecture of a model_type: what AutoModelForCausalLM would make of a config without
 * architectures. */
static const char *architecture_of_type(const char *model_type) {
    for (int f = 0; pf_model_families[f] != NULL; f++) {
        for (int i = 0; pf_model_families[f]->model_types[i] != NULL; i++) {
            if (pf_streq(pf_model_families[f]->model_types[i], model_type)) {
                return pf_model_families[f]->architectures[i];
            }
        }
    }
    return NULL;
}

static peft_status fail_unknown(const pf_model *m, const char *what, peft_error *err) {
    pf_buf known = {0};
    for (int f = 0; pf_model_families[f] != NULL; f++) {
        for (int i = 0; pf_model_families[f]->architectures[i] != NULL; i++) {
            pf_buf_addf(&known, "%s%s", f + i == 0 ? "" : ", ",
                        pf_model_families[f]->architectures[i]);
        }
    }
    peft_status status =
        PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: architecture '%s' is not supported; these are: %s",
                m->config_path, what, pf_buf_str(&known));
    pf_buf_free(&known);
    return status;
}

static peft_status find_family(pf_model *m, pf_task task, peft_error *err) {
    const json_t *list;
    const char *type, *name, *known;
    PF_TRY(pf_json_opt_array(m->config, m->config_path, "architectures", &list, err));
    PF_TRY(pf_json_opt_str(m->config, m->config_path, "model_type", NULL, &type, err));
    name = json_string_value(json_array_get(list, 0));
    if (name == NULL) name = architecture_of_type(type);
    if (name == NULL && type == NULL) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: it names no architecture, so this is no model's config.json",
                       m->config_path);
    }
    m->family = by_architecture(name, &known);
    if (m->family == NULL) return fail_unknown(m, name != NULL ? name : type, err);
    m->architecture = known;
    PF_TRY(settle_task(m, name, task, err));
    return pf_model_settle_labels(m, err);
}

/* ---- config.json ----------------------------------------------------------------------------- */

/* The type that the config says the weights have; for plans, where there are no weights to ask. */
static peft_status read_dtype(pf_model *m, peft_error *err) {
    const char *old_name, *name;
    PF_TRY(pf_json_opt_str(m->config, m->config_path, "torch_dtype", "float32", &old_name, err));
    PF_TRY(pf_json_opt_str(m->config, m->config_path, "dtype", old_name, &name, err));
    m->dtype = pf_dtype_by_torch_name(name);
    if (m->dtype == PF_DTYPE_NONE) m->dtype = PF_DTYPE_F32;
    return PEFT_OK;
}

/* What config.json says before a family looks at it. */
static peft_status read_config(pf_model *m, pf_task task, peft_error *err) {
    const json_t *quantized = json_object_get(m->config, "quantization_config");
    if (json_is_object(quantized)) {
        const char *how = json_string_value(json_object_get(quantized, "quant_method"));
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: the weights are quantized (%s), which is not supported yet; use the "
                       "folder of the model before quantization",
                       m->config_path, how == NULL ? "quantization_config" : how);
    }
    PF_TRY(find_family(m, task, err));
    m->usual = m->family->usual;
    return read_dtype(m, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static peft_status open_files(pf_model *m, peft_error *err) {
    pf_tensor_source *files = PF_NEW(&m->arena, pf_tensor_source);
    PF_CHECK_ALLOC(files, err);
    peft_status status = pf_hf_folder_open_weights(m->folder, files, err);
    if (status != PEFT_OK && m->shapes_only) { /* a plan can do without */
        PF_INFO("%s: no weights to look at: shapes and type are those of config.json", m->path);
        return PEFT_OK;
    }
    PF_TRY(status);
    m->files = files;
    m->tensor_used = PF_NEW_ARRAY(&m->arena, bool, m->files->n_tensors);
    PF_CHECK_ALLOC(m->tensor_used, err);
    return PEFT_OK;
}

static void tell_conversion(const pf_model *m) {
    char size[32];
    if (m->convert_to == PF_DTYPE_NONE || m->converted_bytes == 0 || m->shapes_only) return;
    PF_INFO("weights converted to %s while loading: %s in memory, not mapped (torch_dtype: auto "
            "keeps the file's type)",
            pf_dtype_info(m->convert_to)->torch_name,
            pf_format_bytes((double)m->converted_bytes, size, sizeof size));
}

static peft_status open_family(pf_model *m, peft_error *err) {
    m->head_dropout = -1;
    PF_TRY(m->family->open(m, err));
    return pf_model_settle_head_dropout(m, err);
}

static peft_status open_model(pf_model *m, const char *path, const char *revision, pf_task task,
                              peft_error *err) {
    m->folder = PF_NEW(&m->arena, pf_hf_folder);
    PF_CHECK_ALLOC(m->folder, err);
    PF_TRY(pf_hf_folder_open(m->folder, path, revision, err));
    m->name = m->folder->name;
    m->path = m->folder->path;
    PF_TRY(pf_hf_folder_read_config(m->folder, &m->config, err));
    m->config_path = m->folder->config;
    PF_TRY(read_config(m, task, err));
    PF_TRY(open_files(m, err));
    PF_TRY(open_family(m, err));
    pf_model_plain_class_head(m);
    PF_TRY(pf_model_check_weights(m, err));
    tell_conversion(m);
    if (m->files != NULL) { /* not in the file's pages after all */
        m->mapped_bytes -= (int64_t)m->files->copied;
        m->converted_bytes += (int64_t)m->files->copied;
    }
    if (m->convert_to != PF_DTYPE_NONE) m->dtype = m->convert_to;
    return PEFT_OK;
}

static peft_status open_config(pf_model *m, const char *name, peft_error *err) {
    m->name = m->path = pf_arena_strdup(&m->arena, name);
    PF_CHECK_ALLOC(m->name, err);
    m->config_path = m->name;
    if (!json_is_object(m->config)) {
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", name);
    }
    PF_TRY(read_config(m, PF_TASK_AUTO, err));
    return open_family(m, err);
}

static pf_model *new_model(void) {
    pf_model *m = pf_calloc(1, sizeof *m);
    if (m != NULL) pf_arena_init(&m->arena, "model");
    return m;
}

/* The model if all went well, else nothing. */
static peft_status give(pf_model **out, pf_model *m, peft_status status) {
    if (status != PEFT_OK) {
        pf_model_close(m);
    } else {
        *out = m;
    }
    return status;
}

peft_status pf_model_open(pf_model **out, const char *path, const pf_model_options *opt,
                          peft_error *err) {
    *out = NULL;
    pf_model *m = new_model();
    PF_CHECK_ALLOC(m, err);
    m->shapes_only = opt != NULL && opt->shapes_only;
    m->ignore_left_over_weights = opt != NULL && opt->ignore_left_over_weights;
    m->convert_to = opt != NULL ? opt->dtype : PF_DTYPE_NONE;
    if (opt != NULL) m->classes = opt->classes;
    if (opt != NULL) m->dropout = opt->dropout;
    const peft_status status = open_model(m, path, opt != NULL ? opt->revision : NULL,
                                          opt != NULL ? opt->task : PF_TASK_AUTO, err);
    m->classes = (pf_class_options){.seed = m->classes.seed}; /* lists were the caller's */
    return give(out, m, status);
}

peft_status pf_model_open_config(pf_model **out, struct json_t *config, const char *name,
                                 peft_error *err) {
    *out = NULL;
    pf_model *m = new_model();
    if (m == NULL) json_decref(config);
    PF_CHECK_ALLOC(m, err);
    m->shapes_only = true;
    m->config = config;
    return give(out, m, open_config(m, name, err));
}

void pf_model_close(pf_model *m) {
    if (m == NULL) return;
    pf_tensor_source_close(m->files);
    json_decref(m->config);
    pf_hf_folder_close(m->folder);
    pf_arena_release(&m->arena);
    pf_free(m);
}

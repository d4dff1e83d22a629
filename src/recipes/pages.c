/* pages.c - see pages.h. Numbers of parameters are counted by attaching each method, as its section
 * is without a key, to the shapes of Llama-2-7B; nothing is computed. */
#include "recipes/pages.h"

#include "config/run_config.h"
#include "models/model_open.h"
#include "peft/method.h"
#include "text/json.h"

#include <string.h>

static const char llama_7b[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 4096,"
    " \"intermediate_size\": 11008, \"num_hidden_layers\": 32, \"num_attention_heads\": 32,"
    " \"num_key_value_heads\": 32, \"vocab_size\": 32000, \"max_position_embeddings\": 4096,"
    " \"rms_norm_eps\": 1e-5, \"tie_word_embeddings\": false}";

/* ---- methods --------------------------------------------------------------------------------- */

/* Trained numbers of the method on that model; -1 with the reason in *err. */
static int64_t count(const pf_method *m, peft_error *err) {
    pf_arena a;
    pf_run_cfg run;
    pf_cfg cfg;
    pf_cfg_ext methods[PF_MAX_METHODS];
    const int n_methods = pf_method_sections(methods);
    pf_model *model = NULL;
    pf_adapter *ad = NULL;
    int64_t n = -1;
    pf_arena_init(&a, "page");
    char method[96];
    snprintf(method, sizeof method, "peft.method=%s", m->name);
    const char *overrides[] = {method};
    const pf_cfg_source source = {.overrides = overrides, .n_overrides = 1};
    peft_status status =
        pf_run_cfg_open(&run, &cfg, &a, &source, methods, n_methods, PF_RUN_ANY, err);
    if (status == PEFT_OK) {
        json_t *config = json_loads(llama_7b, 0, NULL);
        status = config != NULL ? pf_model_open_config(&model, config, "Llama-2-7B", err)
                                : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    if (status == PEFT_OK) status = pf_adapter_attach(&ad, model, &run.peft, 0, true, err);
    if (status == PEFT_OK) n = ad->params.count;
    pf_adapter_close(ad);
    pf_model_close(model);
    pf_arena_release(&a);
    return n;
}

static void add_number(pf_buf *out, int64_t n) {
    char digits[32];
    const int len = snprintf(digits, sizeof digits, "%lld", (long long)n);
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) pf_buf_addc(out, ',');
        pf_buf_addc(out, digits[i]);
    }
}

static const char *folder_of(const pf_method *m) {
    if (m->peft_type != NULL) return m->peft_type;
    if (m->is_adapterhub != NULL) return "AdapterHub";
    return m->state_dict ? "state dict" : "model";
}

static void add_method(pf_buf *out, const pf_method *m) {
    peft_error err = {0};
    const int64_t n = count(m, &err);
    pf_buf_addf(out, "| `%s` | %s | ", m->name, m->help);
    if (n >= 0)
        add_number(out, n);
    else
        pf_buf_adds(out, "none"); /* it has nothing that the method trains */
    pf_buf_addf(out, " | %s | %s | %s |\n", m->no_merge == NULL ? "yes" : "no", folder_of(m),
                m->paper != NULL ? m->paper : "");
}

peft_status pf_methods_page(pf_buf *out, peft_error *err) {
    pf_buf_adds(
        out,
        "# Methods\n\n"
        "This page is made from the methods' own rows (`peft-toolkit config methods`).\n\n"
        "`peft.method` names one of these, the section `peft.<method>` says how "
        "([config.md](config.md)); several train side by side when `peft` is a list. Trained "
        "numbers are those of Llama-2-7B with the section as it is without a key. *merges*: "
        "`peft-toolkit merge` folds it into the base. *folder*: the `peft_type` of PEFT's "
        "adapter_config.json, AdapterHub's folder, or the trained tensors under the model's own "
        "names (a part of its state dict, or a whole model).\n\n"
        "| method | what is trained | on a 7B | merges | folder | paper |\n"
        "| --- | --- | ---: | --- | --- | --- |\n");
    for (int i = 0; pf_method_table[i] != NULL; i++) add_method(out, pf_method_table[i]);
    pf_buf_adds(out, "\n## Why some cannot be merged\n\n");
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        const pf_method *m = pf_method_table[i];
        if (m->no_merge != NULL) pf_buf_addf(out, "- `%s`: %s\n", m->name, m->no_merge);
    }
    pf_buf_adds(out, "\n## What differs between models\n\n");
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        const pf_method *m = pf_method_table[i];
        if (m->note != NULL) pf_buf_addf(out, "- `%s`: %s\n", m->name, m->note);
    }
    pf_buf_adds(out,
                "\nWhat merges can also become a plain LoRA of any rank "
                "(`peft-toolkit adapter convert DIR --to lora --rank R`), with the part that is "
                "left out said; a LoRA goes to AdapterHub's and MLX's folders and back "
                "(`--to adapterhub`, `--to mlx`, `--to peft`).\n");
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        const char *notes = pf_method_table[i]->notes;
        bool told = false;
        for (int k = 0; k < i; k++) told |= pf_method_table[k]->notes == notes;
        if (notes != NULL && !told) pf_buf_addf(out, "\n## %s\n", notes);
    }
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

/* ---- models ---------------------------------------------------------------------------------- */

static void add_list(pf_buf *out, const char *const *names) {
    for (int i = 0; names != NULL && names[i] != NULL; i++)
        pf_buf_addf(out, "%s`%s`", i > 0 ? ", " : "", names[i]);
}

peft_status pf_models_page(pf_buf *out, peft_error *err) {
    pf_buf_adds(out,
                "# Models\n\n"
                "This page is made from the families' own rows (`peft-toolkit config models`).\n\n"
                "A model folder is opened by the `architectures` of its config.json, or by "
                "`model_type` where those are missing. LoRA's modules are those that "
                "`target_modules` means when it is not given, as PEFT has them.\n\n"
                "| family | architectures | model_type | LoRA's modules |\n"
                "| --- | --- | --- | --- |\n");
    for (int i = 0; pf_model_families[i] != NULL; i++) {
        const pf_model_family *f = pf_model_families[i];
        pf_buf_addf(out, "| `%s` | ", f->name);
        add_list(out, f->architectures);
        pf_buf_adds(out, " | ");
        add_list(out, f->model_types);
        pf_buf_adds(out, " | ");
        if (f->default_targets != NULL)
            add_list(out, f->default_targets);
        else
            pf_buf_adds(out, "to be given");
        pf_buf_adds(out, " |\n");
    }
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

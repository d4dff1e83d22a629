/* adapter_card.c - README.md of an adapter: the model card that hubs and people read. */
#include "peft/adapter_file.h"

#include "base/buf.h"
#include "base/file.h"

/* A YAML scalar in quotes: names are paths and may hold anything. */
static void add_quoted(pf_buf *b, const char *s) {
    pf_buf_addc(b, '"');
    for (; *s != 0; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c == 0x7f) {
            pf_buf_addf(b, "\\x%02X", c);
        } else {
            if (c == '"' || c == '\\') pf_buf_addc(b, '\\');
            pf_buf_addc(b, *s);
        }
    }
    pf_buf_addc(b, '"');
}

/* What opens the base for its task with transformers, and what hubs call that. */
static const char *auto_class(pf_task task) {
    switch (task) {
    case PF_TASK_SEQ_2_SEQ_LM:
        return "AutoModelForSeq2SeqLM";
    case PF_TASK_SEQ_CLS:
        return "AutoModelForSequenceClassification";
    case PF_TASK_TOKEN_CLS:
        return "AutoModelForTokenClassification";
    default:
        return "AutoModelForCausalLM";
    }
}

static const char *pipeline_of(pf_task task) {
    switch (task) {
    case PF_TASK_SEQ_2_SEQ_LM:
        return "text2text-generation";
    case PF_TASK_SEQ_CLS:
        return "text-classification";
    case PF_TASK_TOKEN_CLS:
        return "token-classification";
    default:
        return "text-generation";
    }
}

/* "from_pretrained("base", num_labels=3)": a head of another size would not fit */
static void add_from_pretrained(pf_buf *b, const pf_adapter *ad, const char *base) {
    const pf_model *m = ad->model;
    pf_buf_addf(b, "model = %s.from_pretrained(\"%s\"", auto_class(m->task), base);
    if (pf_task_is_classes(m->task)) pf_buf_addf(b, ", num_labels=%d", m->labels.n);
    pf_buf_adds(b, ")\n");
}

peft_status pf_adapter_write_card(const pf_adapter *ad, const char *path, peft_error *err) {
    const bool is_adapter = !pf_method_saves_model(ad->method), is_part = ad->method->state_dict;
    const bool hub = ad->method->is_adapterhub != NULL || ad->n_parts > 0;
    const char *base = ad->base_name == NULL ? "" : ad->base_name;
    char line[160];
    pf_buf b = {0};
    pf_buf_adds(&b, "---\nbase_model: ");
    add_quoted(&b, base);
    pf_buf_addf(&b, "\n%spipeline_tag: %s\ntags:\n- peft-toolkit\n- %s\n---\n\n",
                hub                      ? "library_name: adapter-transformers\n"
                : is_adapter && !is_part ? "library_name: peft\n"
                                         : "",
                pipeline_of(ad->model->task), ad->method->name);
    pf_adapter_describe(ad, line, sizeof line);
    if (is_adapter) {
        pf_buf_addf(&b, "# An adapter for %s\n\nMethod: %s (%s).\n\n`%s`\n\n", base,
                    ad->method->name, ad->method->paper, line);
        pf_buf_adds(&b, pf_task_is_classes(ad->model->task)
                            ? "With peft-toolkit:\n\n```\npeft-toolkit eval config.yaml "
                              "--adapter .\n```\n\n"
                            : "With peft-toolkit:\n\n```\npeft-toolkit generate --adapter . "
                              "--prompt \"...\"\n```\n\n");
    }
    if (is_part) {
        pf_buf_adds(&b, "The file is a part of the model's state dict, not a type of PEFT's. With "
                        "transformers:\n\n```python\nfrom safetensors.torch import load_file\n"
                        "from transformers import ");
        pf_buf_addf(&b, "%s\n\n", auto_class(ad->model->task));
        add_from_pretrained(&b, ad, base);
        pf_buf_adds(&b, "model.load_state_dict(load_file(\"adapter_model.safetensors\"), "
                        "strict=False)\n```\n");
    } else if (hub) {
        pf_buf_adds(&b, "With AdapterHub's `adapters`:\n\n```python\nimport adapters\n"
                        "from transformers import ");
        pf_buf_addf(&b, "%s\n\n", auto_class(ad->model->task));
        add_from_pretrained(&b, ad, base);
        pf_buf_adds(&b, "adapters.init(model)\n");
        for (const pf_adapter *h = ad->held; h != NULL; h = h->next)
            pf_buf_addf(&b, "model.load_adapter(\"%s\", use_safetensors=True)\n", h->held_as);
        pf_buf_addf(&b, "model.%s(\".\", use_safetensors=True, set_active=True)\n```\n",
                    ad->held != NULL ? "load_adapter_fusion" : "load_adapter");
    } else if (is_adapter) {
        pf_buf_adds(&b, "With PEFT:\n\n```python\nfrom transformers import ");
        pf_buf_addf(&b, "%s\nfrom peft import PeftModel\n\n", auto_class(ad->model->task));
        add_from_pretrained(&b, ad, base);
        pf_buf_adds(&b, "model = PeftModel.from_pretrained(model, \".\")\n```\n");
    } else {
        pf_buf_addf(&b, "# Fine-tuned from %s\n\n`%s`\n", base, line);
    }
    peft_status status = PEFT_OK;
    if (!pf_buf_ok(&b)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    if (status == PEFT_OK) status = pf_write_file(path, b.data, b.len, err);
    pf_buf_free(&b);
    return status;
}

/* method_table.c - the one place that enumerates methods; the list is methods.def. */
#include "base/str.h"
#include "peft/method.h"

#define PF_METHOD(name) extern const pf_method pf_method_##name;
#include "peft/methods.def"
#undef PF_METHOD

const pf_method *const pf_method_table[] = {
#define PF_METHOD(name) &pf_method_##name,
#include "peft/methods.def"
#undef PF_METHOD
    NULL,
};

int pf_method_sections(pf_cfg_ext out[PF_MAX_METHODS]) {
    int n = 0;
    for (; pf_method_table[n] != NULL; n++) {
        const pf_method *m = pf_method_table[n];
        PF_ASSERT(n < PF_MAX_METHODS);
        out[n] = (pf_cfg_ext){"peft", m->name, m->help, m->cfg_rows, m->cfg_size, m->check_cfg};
    }
    return n;
}

const char *pf_method_weight_file(const pf_method *m) {
    if (m->weight_file != NULL) return m->weight_file;
    if (m->is_adapterhub != NULL) return "adapter.safetensors";
    return m->peft_type != NULL ? "adapter_model.safetensors" : "model.safetensors";
}

const char *pf_method_config_file(const pf_method *m) {
    if (m->config_file != NULL) return m->config_file;
    return pf_method_saves_model(m) ? "config.json" : "adapter_config.json";
}

const pf_method *pf_method_find(const char *name) {
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        if (pf_streq(pf_method_table[i]->name, name)) return pf_method_table[i];
    }
    return NULL;
}

/* hf_carry.c - see hf_carry.h. */
#include "formats/hf_carry.h"

#include "base/file.h"

static bool is_carried(const char *name) {
    static const char *const names[] = {
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "tokenizer.model",
        "spiece.model",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
    };
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_streq(name, names[i])) return true;
    }
    return pf_ends_with(name, ".tiktoken");
}

static peft_status copy_file(const char *from, const char *to, peft_error *err) {
    pf_mapping m;
    PF_TRY(pf_map_file(&m, from, err));
    peft_status status = pf_write_file(to, m.data != NULL ? m.data : (const void *)"", m.size, err);
    pf_unmap_file(&m);
    return status;
}

static peft_status carry(pf_arena *a, const char *from, const char *to, peft_error *err) {
    pf_strlist names;
    PF_TRY(pf_list_dir(&names, a, from, err));
    for (int i = 0; i < names.n; i++) {
        const char *source = pf_path_join(a, from, names.items[i]);
        const char *target = pf_path_join(a, to, names.items[i]);
        if (source == NULL || target == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        if (is_carried(names.items[i]) && !pf_is_dir(source))
            PF_TRY(copy_file(source, target, err));
    }
    return PEFT_OK;
}

peft_status pf_hf_carry(const char *from, const char *to, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "carry");
    peft_status status = carry(&a, from, to, err);
    pf_arena_release(&a);
    return status;
}

/* fuzz_template.c - a template of any bytes compiles or is refused; what compiles renders, and a
 * template without braces renders itself. */
#include "data/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const pf_field fields[] = {{{"a", 1}, {"value", 5}}, {{"two words", 9}, {"{}", 2}}};
    const pf_record record = {.path = "f", .row = 1, .line = 1, .fields = fields, .n = 2};
    pf_arena a;
    pf_arena_init(&a, "fuzz");
    char *source = pf_arena_strndup(&a, (const char *)data, size);
    pf_template t;
    peft_error err;
    if (source != NULL && pf_template_compile(&t, &a, "data.prompt", source, &err) == PEFT_OK) {
        pf_buf out = {0};
        if (pf_template_render(&t, &record, &out, &err) == PEFT_OK &&
            strpbrk(source, "{}") == NULL && strcmp(pf_buf_str(&out), source) != 0)
            abort();
        pf_buf_free(&out);
    }
    pf_arena_release(&a);
    return 0;
}

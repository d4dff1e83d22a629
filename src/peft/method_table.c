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

const pf_method *pf_method_find(const char *name) {
    for (int i = 0; pf_method_table[i] != NULL; i++) {
        if (pf_streq(pf_method_table[i]->name, name)) return pf_method_table[i];
    }
    return NULL;
}

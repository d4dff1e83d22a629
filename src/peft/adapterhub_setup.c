/* adapterhub_setup.c - AdapterHub's folder of several adapters and how they are put together:
 * adapter_setup.json, each adapter in a folder of its name, a fusion in one of its names joined.
 *
 *   {"adapter_setup": {"type": "Fuse", "children": [{"type": "single", "children": ["a"]}, ...],
 *                      "kwargs": {"name": ...}}, "head_setup": ..., "version": ...}
 *
 * A fusion of single adapters is opened; Stack, Parallel, Split, BatchSplit and Average are named.
 */
#include "peft/adapter_file.h"

#include "base/buf.h"
#include "base/file.h"
#include "text/json.h"

#include <string.h>

/* The folder of the fusion: its name, or those of its adapters. */
static peft_status fusion_folder(const json_t *setup, const char *where, pf_buf *out,
                                 peft_error *err) {
    const json_t *children, *child, *kwargs;
    const char *type, *name = NULL;
    size_t i;
    PF_TRY(pf_json_get_str(setup, where, "type", &type, err));
    if (!pf_streq(type, "Fuse")) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: a setup of type %s is not read; Fuse is. Open one of the adapters in the "
            "folders beside it",
            where, type);
    }
    PF_TRY(pf_json_opt_object(setup, where, "kwargs", &kwargs, err));
    if (kwargs != NULL) PF_TRY(pf_json_opt_str(kwargs, where, "name", NULL, &name, err));
    PF_TRY(pf_json_get_array(setup, where, "children", &children, err));
    json_array_foreach(children, i, child) {
        const char *one = json_string_value(json_array_get(json_object_get(child, "children"), 0));
        if (!pf_streq(json_string_value(json_object_get(child, "type")), "single") || one == NULL) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: a fusion over other setups is not read; one over adapters is",
                           where);
        }
        if (name == NULL) pf_buf_addf(out, "%s%s", i == 0 ? "" : ",", one);
    }
    if (name != NULL) pf_buf_adds(out, name);
    return PEFT_OK;
}

peft_status pf_adapterhub_setup(const char **dir, pf_arena *a, peft_error *err) {
    const char *where = pf_path_join(a, *dir, "adapter_setup.json");
    json_t *c;
    const json_t *setup;
    pf_buf folder = {0};
    PF_CHECK_ALLOC(where, err);
    if (!pf_path_exists(where)) return PEFT_OK;
    PF_TRY(pf_json_load(&c, where, (size_t)1 << 20, err));
    peft_status status = PEFT_OK;
    if (!json_is_object(c))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold an object", where);
    if (status == PEFT_OK) status = pf_json_get_object(c, where, "adapter_setup", &setup, err);
    if (status == PEFT_OK) status = fusion_folder(setup, where, &folder, err);
    if (status == PEFT_OK && (strchr(pf_buf_str(&folder), '/') != NULL || folder.len == 0))
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: the fusion's name is no name of a folder", where);
    if (status == PEFT_OK) {
        *dir = pf_path_join(a, *dir, pf_buf_str(&folder));
        if (*dir == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_buf_free(&folder);
    json_decref(c);
    return status;
}

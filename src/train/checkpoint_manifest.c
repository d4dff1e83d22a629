/* checkpoint_manifest.c - see checkpoint_manifest.h. */
#include "train/checkpoint_manifest.h"

#include "base/file.h"
#include "text/json.h"

#include <string.h>

#define MAX_MANIFEST (16u << 20)
#define HEX          (PF_SHA256_HEX - 1)
static const char tail_begin[] = "  \"manifest_sha256\": \"", tail_end[] = "\"\n}\n";

static bool plain(const char *name, size_t n) {
    return n > 0 && name[0] != '.' && memchr(name, '/', n) == NULL;
}

bool pf_manifest_name_ok(const char *name) {
    const char *slash = strchr(name, '/'), *file = slash != NULL ? slash + 1 : name;
    if (slash != NULL && !plain(name, (size_t)(slash - name))) return false;
    return plain(file, strlen(file)) && !pf_streq(name, PF_MANIFEST_NAME);
}

peft_status pf_manifest_text(pf_buf *out, const pf_manifest *m, peft_error *err) {
    pf_buf_adds(out, "{\n  \"files\": {");
    for (int i = 0; i < m->n_files; i++) {
        pf_buf_adds(out, i > 0 ? ",\n    " : "\n    ");
        pf_json_add_cstr(out, m->files[i].name);
        pf_buf_addf(out, ": {\"sha256\": \"%s\", \"size\": %llu}", m->files[i].sha256,
                    (unsigned long long)m->files[i].size);
    }
    pf_buf_addf(out, "\n  },\n  \"format\": %d,\n  \"program\": ", PF_MANIFEST_FORMAT);
    pf_json_add_cstr(out, m->program);
    pf_buf_adds(out, ",\n  \"sections\": [");
    for (int i = 0; i < m->sections.n; i++) {
        if (i > 0) pf_buf_adds(out, ", ");
        pf_json_add_cstr(out, m->sections.items[i]);
    }
    pf_buf_addf(out, "],\n  \"step\": %lld,\n%s", (long long)m->step, tail_begin);
    char hex[PF_SHA256_HEX];
    if (!pf_buf_ok(out)) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_sha256_of(out->data, out->len, hex);
    pf_buf_adds(out, hex);
    pf_buf_adds(out, tail_end);
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

static bool proves_itself(const pf_buf *text) {
    size_t end = sizeof tail_end - 1, begin = sizeof tail_begin - 1;
    if (text->len < begin + HEX + end) return false;
    size_t hex_at = text->len - end - HEX;
    char hex[PF_SHA256_HEX];
    pf_sha256_of(text->data, hex_at, hex);
    return memcmp(text->data + hex_at - begin, tail_begin, begin) == 0 &&
           memcmp(text->data + hex_at, hex, HEX) == 0 &&
           memcmp(text->data + hex_at + HEX, tail_end, end) == 0;
}

static peft_status read_files(pf_manifest *m, pf_arena *a, const json_t *files, const char *path,
                              peft_error *err) {
    m->files = PF_NEW_ARRAY(a, pf_manifest_file, json_object_size(files));
    PF_CHECK_ALLOC(m->files, err);
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)files, name, v) {
        pf_manifest_file *f = &m->files[m->n_files++];
        const char *hex;
        int64_t size;
        if (!pf_manifest_name_ok(name) || !json_is_object(v))
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: a file cannot be named %s", path, name);
        PF_TRY(pf_json_get_str(v, path, "sha256", &hex, err));
        PF_TRY(pf_json_get_int(v, path, "size", 0, INT64_MAX, &size, err));
        if (strlen(hex) != HEX)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s has no sha256", path, name);
        f->name = pf_arena_strdup(a, name);
        PF_CHECK_ALLOC(f->name, err);
        f->size = (uint64_t)size;
        memcpy(f->sha256, hex, PF_SHA256_HEX);
    }
    return PEFT_OK;
}

static peft_status read_fields(pf_manifest *m, pf_arena *a, const json_t *top, const char *path,
                               peft_error *err) {
    int64_t format;
    const char *program;
    const json_t *files, *sections;
    PF_TRY(pf_json_get_str(top, path, "program", &program, err));
    PF_TRY(pf_json_get_int(top, path, "format", 0, INT64_MAX, &format, err));
    if (format != PF_MANIFEST_FORMAT) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: has format %lld, this program reads %d; it was written by %s", path,
                       (long long)format, PF_MANIFEST_FORMAT, program);
    }
    m->program = pf_arena_strdup(a, program);
    PF_CHECK_ALLOC(m->program, err);
    PF_TRY(pf_json_get_int(top, path, "step", 0, INT64_MAX, &m->step, err));
    PF_TRY(pf_json_get_array(top, path, "sections", &sections, err));
    for (size_t i = 0; i < json_array_size(sections); i++) {
        const char *name = json_string_value(json_array_get(sections, i));
        if (name == NULL) return PF_FAIL(err, PEFT_E_FORMAT, "%s: a section has no name", path);
        PF_TRY(pf_strlist_add(&m->sections, a, name, err));
    }
    PF_TRY(pf_json_get_object(top, path, "files", &files, err));
    return read_files(m, a, files, path, err);
}

peft_status pf_manifest_read(pf_manifest *m, pf_arena *a, const char *path, peft_error *err) {
    *m = (pf_manifest){0};
    pf_buf text = {0};
    json_t *top = NULL;
    peft_status status;
    PF_TRY_OUT(pf_read_file(&text, path, MAX_MANIFEST, err));
    if (!proves_itself(&text)) {
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s is damaged: it is not what was written", path);
        goto out;
    }
    PF_TRY_OUT(pf_json_parse(&top, text.data, text.len, path, err));
    if (!json_is_object(top)) {
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s is not an object", path);
        goto out;
    }
    PF_TRY_OUT(read_fields(m, a, top, path, err));
out:
    json_decref(top);
    pf_buf_free(&text);
    return status;
}

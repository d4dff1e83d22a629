/* inspect_text.c - the description of inspect.c as a page: what it is, its files, then one line per
 * tensor. Names come from files, so control characters are escaped and columns stay in place. */
#include "formats/inspect.h"

#include "base/str.h"
#include "formats/stored_tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

enum { WIDEST_NAME = 100 };

/* Columns that a text takes: code points, near enough. */
static int width(const char *s) {
    int n = 0;
    for (; *s != '\0'; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void pad(pf_buf *out, const char *s, int columns) {
    pf_buf_adds(out, s);
    for (int n = width(s); n < columns; n++) pf_buf_addc(out, ' ');
}

/* Without the quotes that pf_name_text puts around it. */
static const char *plain_name(const char *name, char *buf, size_t n) {
    size_t len = strlen(pf_name_text(name, buf, n));
    buf[len - 1] = '\0';
    return buf + 1;
}

static const char *get(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static void add_line(pf_buf *out, const char *key, int key_width, const char *value) {
    pf_buf_adds(out, "  ");
    pad(out, key, key_width + 2);
    pf_buf_addf(out, "%s\n", value);
}

/* One line per value; what is null, empty or long is left to --json. */
static void add_values(pf_buf *out, const char *title, const json_t *object, peft_error *err) {
    json_t *o = (json_t *)(uintptr_t)object, *value;
    char name[PF_NAME_TEXT], shown[4 * PF_NAME_TEXT];
    const char *key;
    int key_width = 0;
    if (!json_is_object(object) || json_object_size(object) == 0) return;
    pf_buf_addf(out, "\n%s\n", title);
    json_object_foreach(o, key, value) {
        int w = width(plain_name(key, name, sizeof name));
        if (w > key_width) key_width = w;
    }
    json_object_foreach(o, key, value) {
        pf_buf text;
        pf_buf_init(&text);
        if (json_is_string(value)) {
            pf_buf_adds(&text, plain_name(json_string_value(value), shown, sizeof shown));
        } else if (!json_is_null(value) &&
                   !(json_is_object(value) && json_object_size(value) == 0)) {
            if (pf_json_dump(&text, value, 0, 0, err) != PEFT_OK) text.failed = true;
        }
        if (text.failed) out->failed = true;
        if (text.len > 0 && text.len < sizeof shown) {
            add_line(out, plain_name(key, name, sizeof name), key_width, pf_buf_str(&text));
        }
        pf_buf_free(&text);
    }
}

static void add_shape(pf_buf *out, const json_t *shape, int columns) {
    size_t start = out->len, i;
    const json_t *d;
    if (json_array_size(shape) == 0) pf_buf_adds(out, "scalar");
    json_array_foreach(shape, i, d)
        pf_buf_addf(out, "%s%lld", i > 0 ? " x " : "", (long long)json_integer_value(d));
    for (size_t n = out->len - start; n < (size_t)columns; n++) pf_buf_addc(out, ' ');
}

static void add_total(pf_buf *out, const json_t *total) {
    char bytes[16];
    const char *dtype;
    json_t *count;
    bool first = true;
    pf_buf_addf(out, "  tensors  %lld, %lld numbers, %s (",
                (long long)json_integer_value(json_object_get(total, "tensors")),
                (long long)json_integer_value(json_object_get(total, "parameters")),
                pf_format_bytes((double)json_integer_value(json_object_get(total, "bytes")), bytes,
                                sizeof bytes));
    json_object_foreach(json_object_get(total, "dtypes"), dtype, count) {
        pf_buf_addf(out, "%s%lld %s", first ? "" : ", ", (long long)json_integer_value(count),
                    dtype);
        first = false;
    }
    pf_buf_adds(out, ")\n");
}

static void add_files(pf_buf *out, const json_t *files) {
    char name[PF_NAME_TEXT], value[4 * PF_NAME_TEXT], bytes[16];
    size_t i;
    const json_t *f;
    const char *key;
    json_t *text;
    pf_buf_adds(out, "\nfiles\n");
    json_array_foreach(files, i, f) {
        double size = (double)json_integer_value(json_object_get(f, "bytes"));
        pf_buf_addf(out, "  %10s  %s\n", pf_format_bytes(size, bytes, sizeof bytes),
                    plain_name(get(f, "name"), name, sizeof name));
        json_object_foreach(json_object_get(f, "metadata"), key, text) {
            pf_buf_addf(out, "  %10s    %s = ", "", plain_name(key, name, sizeof name));
            pf_buf_addf(out, "%s\n", plain_name(json_string_value(text), value, sizeof value));
        }
    }
}

static void add_tensors(pf_buf *out, const json_t *tensors) {
    char name[4 * PF_NAME_TEXT], bytes[16];
    size_t i, k;
    const json_t *t, *d;
    int name_width = 4, type_width = 4, shape_width = 6;
    json_array_foreach(tensors, i, t) {
        int w = width(plain_name(get(t, "name"), name, sizeof name)), s = 0;
        json_array_foreach(json_object_get(t, "shape"), k, d) {
            s += snprintf(NULL, 0, "%s%lld", k > 0 ? " x " : "", (long long)json_integer_value(d));
        }
        if (w > name_width) name_width = w < WIDEST_NAME ? w : WIDEST_NAME;
        if (s > shape_width) shape_width = s;
        if (width(get(t, "dtype")) > type_width) type_width = width(get(t, "dtype"));
    }
    pf_buf_addc(out, '\n');
    pad(out, "name", name_width + 2);
    pad(out, "type", type_width + 2);
    pad(out, "shape", shape_width + 2);
    pf_buf_adds(out, "     size\n");
    json_array_foreach(tensors, i, t) {
        double size = (double)json_integer_value(json_object_get(t, "bytes"));
        pad(out, plain_name(get(t, "name"), name, sizeof name), name_width + 2);
        pad(out, get(t, "dtype"), type_width + 2);
        add_shape(out, json_object_get(t, "shape"), shape_width + 2);
        pf_buf_addf(out, "%9s\n", pf_format_bytes(size, bytes, sizeof bytes));
    }
}

peft_status pf_inspect_text(pf_buf *out, const json_t *d, peft_error *err) {
    char path[4 * PF_NAME_TEXT];
    pf_buf_addf(out, "%s: %s\n", plain_name(get(d, "path"), path, sizeof path), get(d, "kind"));
    if (json_object_get(d, "commit") != NULL) add_line(out, "commit", 7, get(d, "commit"));
    add_total(out, json_object_get(d, "total"));
    add_values(out, "adapter_config.json", json_object_get(d, "adapter_config"), err);
    add_values(out, "config.json", json_object_get(d, "config"), err);
    add_values(out, "generation_config.json", json_object_get(d, "generation_config"), err);
    add_values(out, "trainer_state.json", json_object_get(d, "trainer_state"), err);
    add_files(out, json_object_get(d, "files"));
    add_tensors(out, json_object_get(d, "tensors"));
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
}

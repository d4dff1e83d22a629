/* token_json.c - typed access to JSON values, and base64. */
#include "token/token_json.h"

#include <string.h>

#include "base/banned.h"

pf_tj pf_tj_root(const json_t *v, const char *file, pf_arena *arena) {
    return (pf_tj){v == NULL || json_is_null(v) ? NULL : v, file, arena};
}

static pf_tj child(pf_tj parent, const json_t *v, const char *path) {
    return (pf_tj){v == NULL || json_is_null(v) ? NULL : v, path == NULL ? parent.path : path,
                   parent.arena};
}

pf_tj pf_tj_get(pf_tj object, const char *key) {
    bool root = strchr(object.path, ':') == NULL;
    return child(object, object.v == NULL ? NULL : json_object_get(object.v, key),
                 pf_arena_printf(object.arena, root ? "%s: %s" : "%s.%s", object.path, key));
}

pf_tj pf_tj_at(pf_tj array, size_t i) {
    return child(array, array.v == NULL ? NULL : json_array_get(array.v, i),
                 pf_arena_printf(array.arena, "%s[%zu]", array.path, i));
}

size_t pf_tj_count(pf_tj array) {
    return array.v == NULL ? 0 : json_array_size(array.v);
}

peft_status pf_tj_fail(pf_tj at, peft_status status, const char *what, peft_error *err) {
    return PF_FAIL(err, status, "%s: %s", at.path, what);
}

peft_status pf_tj_string(pf_tj t, pf_str *out, peft_error *err) {
    if (t.v == NULL) return pf_tj_fail(t, PEFT_E_FORMAT, "a string is missing", err);
    if (!json_is_string(t.v)) return pf_tj_fail(t, PEFT_E_FORMAT, "this should be a string", err);
    out->p = json_string_value(t.v);
    out->n = json_string_length(t.v);
    return PEFT_OK;
}

peft_status pf_tj_member(pf_tj object, const char *key, pf_str *out, peft_error *err) {
    return pf_tj_string(pf_tj_get(object, key), out, err);
}

peft_status pf_tj_maybe(pf_tj object, const char *key, pf_str *out, peft_error *err) {
    pf_tj t = pf_tj_get(object, key);
    return t.v == NULL ? PEFT_OK : pf_tj_string(t, out, err);
}

peft_status pf_tj_bool(pf_tj object, const char *key, bool *out, peft_error *err) {
    pf_tj t = pf_tj_get(object, key);
    if (t.v == NULL) return PEFT_OK;
    if (!json_is_boolean(t.v))
        return pf_tj_fail(t, PEFT_E_FORMAT, "this should be true or false", err);
    *out = json_is_true(t.v);
    return PEFT_OK;
}

peft_status pf_tj_int(pf_tj object, const char *key, int64_t low, int64_t high, int64_t *out,
                      peft_error *err) {
    pf_tj t = pf_tj_get(object, key);
    if (t.v == NULL) return PEFT_OK;
    double real =
        json_is_real(t.v) ? json_real_value(t.v) : 0; /* files read with all numbers as reals */
    bool whole = json_is_real(t.v) && real > -9e15 && real < 9e15 && real == (double)(int64_t)real;
    int64_t v = json_is_integer(t.v) ? json_integer_value(t.v) : whole ? (int64_t)real : 0;
    if ((!json_is_integer(t.v) && !whole) || v < low || v > high)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: this should be an integer between %lld and %lld",
                       t.path, (long long)low, (long long)high);
    *out = v;
    return PEFT_OK;
}

static int digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

peft_status pf_base64_decode(const char *text, size_t n, pf_arena *a, unsigned char **out,
                             size_t *out_n, peft_error *err) {
    while (n > 0 && text[n - 1] == '=') n--;
    unsigned char *p = pf_arena_alloc(a, n / 4 * 3 + 3);
    PF_CHECK_ALLOC(p, err);
    size_t len = 0;
    uint32_t bits = 0;
    int have = 0;
    for (size_t i = 0; i < n; i++) {
        int d = digit(text[i]);
        if (d < 0)
            return PF_FAIL(err, PEFT_E_FORMAT, "byte 0x%02x is not base64", (unsigned char)text[i]);
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            p[len++] = (unsigned char)(bits >> have);
        }
    }
    if (n % 4 == 1) return PF_FAIL(err, PEFT_E_FORMAT, "base64 text is cut off");
    *out = p;
    *out_n = len;
    return PEFT_OK;
}

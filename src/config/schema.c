/* schema.c - what can be said about a row without a value: spellings, choices, the words for what
 * is expected. */
#include "config/schema.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/banned.h"

bool pf_cfg_is_section(const pf_cfg_row *row) {
    return row->type == PF_CFG_T_SECTION || row->type == PF_CFG_T_KINDS;
}

/* Is `name` one of the words of `list`, which are separated by `sep` or `sep2`? */
static bool has_word(const char *list, const char *name, const char *separators) {
    size_t n = strlen(name);
    while (list != NULL && *list != 0) {
        size_t len = strcspn(list, separators);
        if (len == n && memcmp(list, name, n) == 0) return true;
        list += len;
        list += strspn(list, separators);
    }
    return false;
}

bool pf_cfg_row_is(const pf_cfg_row *row, const char *name) {
    return strcmp(row->name, name) == 0 || has_word(row->aliases, name, " ");
}

const char *pf_cfg_choice(const char *choices, const char *value, pf_arena *a) {
    size_t n = strlen(value);
    for (const char *p = choices; p != NULL && *p != 0;) {
        size_t group = strcspn(p, " "), first = strcspn(p, " =");
        for (const char *w = p; w < p + group;) {
            size_t len = strcspn(w, " =");
            if (len == n && strncasecmp(w, value, n) == 0) return pf_arena_strndup(a, p, first);
            w += len + 1;
        }
        p += group;
        p += strspn(p, " ");
    }
    return NULL;
}

peft_status pf_cfg_choice_names(const char *choices, pf_strlist *out, pf_arena *a,
                                peft_error *err) {
    for (const char *p = choices; p != NULL && *p != 0;) {
        char *word = pf_arena_strndup(a, p, strcspn(p, " ="));
        PF_CHECK_ALLOC(word, err);
        PF_TRY(pf_strlist_add(out, a, word, err));
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    return PEFT_OK;
}

/* "between 1 and 1024", "above 0 and at most 10", "at least 0" or "". A bound that only keeps the
 * number representable is not worth a word. */
static void bounds_text(const pf_cfg_row *row, char *out, size_t n) {
    const bool open_low = row->flags & PF_CFG_ABOVE_MIN, open_high = row->flags & PF_CFG_BELOW_MAX;
    const bool low = isfinite(row->min), high = row->max <= 1e9;
    if (low && high && !open_low && !open_high)
        snprintf(out, n, "between %.15g and %.15g", row->min, row->max);
    else if (low && high)
        snprintf(out, n, "%s %.15g and %s %.15g", open_low ? "above" : "at least", row->min,
                 open_high ? "below" : "at most", row->max);
    else if (low)
        snprintf(out, n, "%s %.15g", open_low ? "above" : "at least", row->min);
    else if (high)
        snprintf(out, n, "%s %.15g", open_high ? "below" : "at most", row->max);
    else
        out[0] = 0;
}

static void choices_text(const char *choices, char *out, size_t n) {
    size_t at = 0;
    out[0] = 0;
    for (const char *p = choices; p != NULL && *p != 0 && at + 1 < n;) {
        int w = snprintf(out + at, n - at, "%s%.*s", at > 0 ? ", " : "", (int)strcspn(p, " ="), p);
        if (w < 0) return;
        at += (size_t)w;
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
}

void pf_cfg_expected(const pf_cfg_row *row, const char *choices, bool without_type, char *out,
                     size_t n) {
    char bounds[128] = "", words[512];
    const char *type = "";
    switch (row->type) {
    case PF_CFG_T_INT:
        type = "a whole number";
        break;
    case PF_CFG_T_FLOAT:
        type = "a number";
        break;
    case PF_CFG_T_BOOL:
        type = "true or false";
        break;
    case PF_CFG_T_STR:
        type = "text";
        break;
    case PF_CFG_T_SIZE:
        type = row->flags & PF_CFG_MEMORY
                   ? "a size such as 7G or 512MiB, or a share of this machine's memory such as 60%"
                   : "a size such as 7G or 512MiB";
        break;
    case PF_CFG_T_STRLIST:
        type = "a list of words, or one word";
        break;
    case PF_CFG_T_INTLIST:
        type = "a list of whole numbers";
        break;
    case PF_CFG_T_MAP:
        type = "a mapping such as {name: value}";
        break;
    case PF_CFG_T_NUMMAP:
        type = row->flags & PF_CFG_WHOLE ? "a mapping such as {name: 16}, whole numbers"
                                         : "a mapping such as {name: 16}, numbers";
        break;
    case PF_CFG_T_SECTION:
        type = "a section with keys of its own";
        break;
    case PF_CFG_T_KINDS:
        type = "a list such as [- name: {key: value}]";
        break;
    case PF_CFG_T_ENUM:
        choices_text(choices, words, sizeof words);
        snprintf(out, n, "one of %s", words);
        return;
    case PF_CFG_T_END:
        break;
    }
    const bool numeric = row->type == PF_CFG_T_INT || row->type == PF_CFG_T_FLOAT;
    if (numeric || row->type == PF_CFG_T_INTLIST || row->type == PF_CFG_T_NUMMAP)
        bounds_text(row, bounds, sizeof bounds);
    if (without_type && bounds[0] != 0) type = "";
    int at = snprintf(out, n, "%s%s%s", type, type[0] != 0 && bounds[0] != 0 ? " " : "", bounds);
    if (at < 0 || (size_t)at >= n) return;
    if (numeric && !(row->flags & PF_CFG_UNSET) && bounds[0] != 0)
        snprintf(out + at, n - (size_t)at, " (%.6g is usual)", row->number);
}

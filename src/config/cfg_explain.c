/* cfg_explain.c - rows as text for people: --explain KEY and docs/config.md. */
#include "config/cfg.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/banned.h"

/* The default as it would be written in YAML; "" when there is none. */
static void default_text(const pf_cfg_item *item, char *out, size_t n) {
    const pf_cfg_row *row = item->row;
    out[0] = 0;
    switch (row->type) {
    case PF_CFG_T_INT:
    case PF_CFG_T_FLOAT:
        /* a default that could not be written itself stands for "not given" */
        if (row->flags & PF_CFG_ABOVE_MIN ? row->number > row->min : row->number >= row->min)
            snprintf(out, n, "%.10g", row->number);
        break;
    case PF_CFG_T_BOOL:
        snprintf(out, n, "%s", row->number != 0 ? "true" : "false");
        break;
    case PF_CFG_T_STR:
        if (row->text != NULL) snprintf(out, n, "\"%s\"", row->text);
        break;
    case PF_CFG_T_STRLIST:
        snprintf(out, n, "[%s]", row->text != NULL ? row->text : "");
        break;
    case PF_CFG_T_INTLIST:
        snprintf(out, n, "[]");
        break;
    case PF_CFG_T_MAP:
    case PF_CFG_T_NUMMAP:
        snprintf(out, n, "{}");
        break;
    case PF_CFG_T_ENUM:
    case PF_CFG_T_SIZE:
        snprintf(out, n, "%s", row->text != NULL ? row->text : "");
        break;
    case PF_CFG_T_SECTION:
    case PF_CFG_T_KINDS:
    case PF_CFG_T_END:
        break;
    }
}

/* "auto, float32 (fp32, f32), ..." */
static void spellings(const char *choices, char *out, size_t n) {
    size_t at = (size_t)snprintf(out, n, "one of ");
    for (const char *p = choices; p != NULL && *p != 0 && at + 1 < n;) {
        size_t group = strcspn(p, " "), first = strcspn(p, " =");
        at += (size_t)snprintf(out + at, n - at, "%s%.*s", p > choices ? ", " : "", (int)first, p);
        for (const char *w = p + first; w < p + group && at + 1 < n; w += strcspn(w + 1, " =") + 1)
            at += (size_t)snprintf(out + at, n - at, "%s%.*s%s", w == p + first ? " (" : ", ",
                                   (int)strcspn(w + 1, " ="), w + 1,
                                   w + 1 + strcspn(w + 1, " =") == p + group ? ")" : "");
        p += group;
        p += strspn(p, " ");
    }
}

static void what_text(const pf_cfg_item *item, char *out, size_t n) {
    if (item->row->type == PF_CFG_T_ENUM) {
        spellings(item->choices, out, n);
        return;
    }
    pf_cfg_row row = *item->row;
    row.flags |= PF_CFG_UNSET; /* the default is told apart */
    pf_cfg_expected(&row, item->choices, false, out, n);
}

static void env_name(const char *path, char *out, size_t n) {
    size_t at = (size_t)snprintf(out, n, "PEFT_");
    for (const char *p = path; *p != 0 && at + 3 < n; p++) {
        if (*p == '.') {
            out[at++] = '_';
            out[at++] = '_';
        } else {
            out[at++] = (char)toupper((unsigned char)*p);
        }
    }
    out[at] = 0;
}

/* ---- --explain
 * -------------------------------------------------------------------------------------------------------
 */

static void explain_key(const pf_cfg_item *item, pf_buf *out) {
    char what[640], def[256], env[160];
    what_text(item, what, sizeof what);
    default_text(item, def, sizeof def);
    env_name(item->path, env, sizeof env);
    pf_buf_addf(out, "%s: %s\n", item->path, item->row->help);
    pf_buf_addf(out, "  takes        %s\n", what);
    if (def[0] != 0) pf_buf_addf(out, "  default      %s\n", def);
    if (item->row->aliases != NULL) pf_buf_addf(out, "  also written %s\n", item->row->aliases);
    if (item->from != PF_CFG_FROM_DEFAULT) {
        pf_buf_adds(out, "  now          ");
        pf_cfg_dump_value(item, out);
        pf_buf_addf(out, " (%s%s)\n", item->from == PF_CFG_FROM_DERIVED ? "derived: " : "",
                    item->where);
    }
    if (item->row->note != NULL) pf_buf_addf(out, "  note         %s\n", item->row->note);
    pf_buf_addf(out, "  set it with  %s=... on the command line, or %s in the environment\n",
                item->path, env);
}

static void explain_line(const pf_cfg_item *item, pf_buf *out) {
    char def[256];
    default_text(item, def, sizeof def);
    size_t start = out->len;
    pf_buf_addf(out, "  %s%s%s", item->row->name, def[0] != 0 ? " = " : "", def);
    if (pf_cfg_is_section(item->row)) pf_buf_adds(out, ": ...");
    int used = (int)(out->len - start);
    pf_buf_addf(out, "%*s %s\n", used < 42 ? 42 - used : 1, "", item->row->help);
}

peft_status pf_cfg_explain(const pf_cfg *c, const char *path, pf_buf *out, peft_error *err) {
    int section = -1;
    if (path != NULL && path[0] != 0) {
        const pf_cfg_item *item = pf_cfg_find(c, path);
        if (item == NULL) {
            char hint[512];
            pf_cfg_suggest(c, -1, path, hint, sizeof hint);
            return PF_FAIL(err, PEFT_E_CONFIG, "\"%.80s\" is not a known key%s", path, hint);
        }
        if (!pf_cfg_is_section(item->row)) {
            explain_key(item, out);
            return PEFT_OK;
        }
        section = (int)(item - c->items);
        pf_buf_addf(out, "%s: %s\n", item->path, item->row->help);
    } else {
        pf_buf_adds(out,
                    "The sections of a configuration (--explain SECTION or --explain SECTION.KEY "
                    "for more):\n");
    }
    int i = section < 0 ? 0 : section + 1, end = section < 0 ? c->n : c->items[section].end;
    for (; i < end; i = c->items[i].end) explain_line(&c->items[i], out);
    return PEFT_OK;
}

/* ---- docs/config.md
 * --------------------------------------------------------------------------------------------------
 */

/* A cell of a table: | would end it, line ends would too. */
static void add_cell(pf_buf *out, const char *s) {
    for (; *s != 0; s++) {
        if (*s == '|') pf_buf_addc(out, '\\');
        if (*s == '\n')
            pf_buf_adds(out, "\\n");
        else
            pf_buf_addc(out, *s);
    }
}

static void markdown_row(const pf_cfg_item *item, pf_buf *out) {
    char what[640], def[256];
    what_text(item, what, sizeof what);
    default_text(item, def, sizeof def);
    pf_buf_adds(out, "| `");
    pf_buf_adds(out, item->row->name);
    pf_buf_adds(out, "` | ");
    add_cell(out, what);
    pf_buf_adds(out, " | ");
    if (def[0] != 0) {
        pf_buf_addc(out, '`');
        add_cell(out, def);
        pf_buf_addc(out, '`');
    }
    pf_buf_adds(out, " | ");
    add_cell(out, item->row->help);
    if (item->row->note != NULL) {
        pf_buf_adds(out, "; ");
        add_cell(out, item->row->note);
    }
    if (item->row->aliases != NULL) {
        pf_buf_adds(out, "; also written `");
        add_cell(out, item->row->aliases);
        pf_buf_addc(out, '`');
    }
    pf_buf_adds(out, " |\n");
}

void pf_cfg_markdown(const pf_cfg *c, pf_buf *out) {
    pf_buf_adds(out, "| key | takes | default | what it does |\n| --- | --- | --- | --- |\n");
    for (int i = 0; i < c->n; i = c->items[i].end)
        if (!pf_cfg_is_section(c->items[i].row)) markdown_row(&c->items[i], out);
    for (int i = 0; i < c->n; i++) {
        const pf_cfg_item *item = &c->items[i];
        if (!pf_cfg_is_section(item->row)) continue;
        int level = 2;
        for (const char *p = item->path; *p != 0; p++) level += *p == '.';
        pf_buf_addf(out, "\n%.*s `%s`\n\n%c%s.\n", level, "######", item->path,
                    toupper((unsigned char)item->row->help[0]), item->row->help + 1);
        bool keys = false;
        for (int k = i + 1; k < item->end; k = c->items[k].end) {
            if (pf_cfg_is_section(c->items[k].row)) continue;
            if (!keys)
                pf_buf_adds(out, "\n| key | takes | default | what it does |\n"
                                 "| --- | --- | --- | --- |\n");
            keys = true;
            markdown_row(&c->items[k], out);
        }
    }
}

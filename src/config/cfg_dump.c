/* cfg_dump.c - the configuration as understood: nested JSON, every key with its value and where it
 * comes from. */
#include "config/cfg.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

static void add_text(pf_buf *out, const char *s) {
    if (s == NULL)
        pf_buf_adds(out, "null");
    else
        pf_json_add_cstr(out, s);
}

/* Numbers as the reader took them: 3 stays 3, not 3.0. */
static void add_number(pf_buf *out, double v, bool single) {
    if (v == floor(v) && fabs(v) < 1e15)
        pf_buf_addf(out, "%.0f", v);
    else if (single)
        pf_json_add_float(out, (float)v);
    else
        pf_json_add_real(out, v);
}

static void add_map(pf_buf *out, const pf_cfg_map *map) {
    pf_buf_addc(out, '{');
    for (int i = 0; i < map->n; i++) {
        if (i > 0) pf_buf_adds(out, ", ");
        pf_json_add_cstr(out, map->items[i].key);
        pf_buf_adds(out, ": ");
        if (map->items[i].is_number)
            add_number(out, map->items[i].number, false);
        else
            pf_json_add_cstr(out, map->items[i].text);
    }
    pf_buf_addc(out, '}');
}

void pf_cfg_dump_value(const pf_cfg_item *item, pf_buf *out) {
    const void *at = item->at;
    switch (item->row->type) {
    case PF_CFG_T_INT:
        if (item->row->size == sizeof(int64_t))
            pf_buf_addf(out, "%lld", (long long)*(const int64_t *)at);
        else
            pf_buf_addf(out, "%d", *(const int *)at);
        break;
    case PF_CFG_T_FLOAT:
        if (item->row->size == sizeof(double))
            add_number(out, *(const double *)at, false);
        else
            add_number(out, (double)*(const float *)at, true);
        break;
    case PF_CFG_T_BOOL:
        pf_buf_adds(out, *(const bool *)at ? "true" : "false");
        break;
    case PF_CFG_T_STR:
    case PF_CFG_T_ENUM:
        add_text(out, *(const char *const *)at);
        break;
    case PF_CFG_T_SIZE:
        pf_buf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case PF_CFG_T_STRLIST: {
        const pf_cfg_strings *list = at;
        if (list->single) {
            add_text(out, list->list.items[0]);
            break;
        }
        pf_buf_addc(out, '[');
        for (int i = 0; i < list->list.n; i++) {
            if (i > 0) pf_buf_adds(out, ", ");
            add_text(out, list->list.items[i]);
        }
        pf_buf_addc(out, ']');
        break;
    }
    case PF_CFG_T_INTLIST: {
        const pf_cfg_ints *list = at;
        pf_buf_addc(out, '[');
        for (int i = 0; i < list->n; i++)
            pf_buf_addf(out, "%s%lld", i > 0 ? ", " : "", (long long)list->items[i]);
        pf_buf_addc(out, ']');
        break;
    }
    case PF_CFG_T_MAP:
    case PF_CFG_T_NUMMAP:
        add_map(out, at);
        break;
    case PF_CFG_T_SECTION:
    case PF_CFG_T_KINDS:
    case PF_CFG_T_END:
        break;
    }
}

static void add_origin(pf_buf *out, const pf_cfg_item *item) {
    if (item->from == PF_CFG_FROM_DEFAULT) {
        pf_buf_adds(out, "\"default\"");
        return;
    }
    pf_buf text = {0};
    pf_buf_addf(&text, "%s%s", item->from == PF_CFG_FROM_DERIVED ? "derived: " : "", item->where);
    pf_json_add_cstr(out, pf_buf_str(&text));
    out->failed |= !pf_buf_ok(&text);
    pf_buf_free(&text);
}

void pf_cfg_dump(const pf_cfg *c, pf_buf *out) {
    int depth = 1;
    int ends[PF_YAML_MAX_DEPTH]; /* where the sections that are open end */
    pf_buf_addc(out, '{');
    bool first = true;
    for (int i = 0; i < c->n; i++) {
        while (depth > 1 && i >= ends[depth - 1]) {
            depth--;
            pf_buf_addf(out, "\n%*s}", depth * 2, "");
            first = false;
        }
        const pf_cfg_item *item = &c->items[i];
        pf_buf_addf(out, "%s\n%*s", first ? "" : ",", depth * 2, "");
        pf_json_add_cstr(out, item->row->name);
        pf_buf_adds(out, ": {");
        first = false;
        if (pf_cfg_is_section(item->row)) {
            PF_ASSERT(depth < PF_YAML_MAX_DEPTH);
            ends[depth++] = item->end;
            first = true;
            continue;
        }
        pf_buf_adds(out, "\"value\": ");
        pf_cfg_dump_value(item, out);
        pf_buf_adds(out, ", \"origin\": ");
        add_origin(out, item);
        pf_buf_addc(out, '}');
    }
    while (depth > 1) {
        depth--;
        pf_buf_addf(out, "\n%*s}", depth * 2, "");
    }
    pf_buf_adds(out, "\n}\n");
}

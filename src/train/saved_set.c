/* saved_set.c - see saved_set.h. */
#include "train/saved_set.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- kinds ----------------------------------------------------------------------------------- */

/* Which output of its node it is; -1: of none, fusion has taken it out of the graph. */
static int out_index(const pf_value *v) {
    for (int k = 0; k < v->producer->n_out; k++) {
        if (v->producer->out[k] == v) return k;
    }
    return -1;
}

/* The name behind the block's number: "model.layers.12.mlp.up_proj" -> "mlp.up_proj". */
static const char *inside(const char *name, int block) {
    char number[16];
    int n = snprintf(number, sizeof number, ".%d", block);
    for (const char *p = strstr(name, number); p != NULL; p = strstr(p + 1, number)) {
        if (p[n] == '.') return p + n + 1;
        if (p[n] == '\0') return "block";
    }
    return name;
}

static void kind_name(const pf_node *p, char *out, size_t n) {
    snprintf(out, n, "%s/%s", inside(p->name, p->block), p->op->name);
}

static pf_saved_kind *find_kind(const pf_saved_set *s, const char *name) {
    for (int i = 0; i < s->n; i++) {
        if (pf_streq(s->kinds[i].name, name)) return (pf_saved_kind *)&s->kinds[i];
    }
    return NULL;
}

/* A value inside of a block that policy and ops leave open. */
static bool is_open(const pf_value *v) {
    return v->kind == PF_VALUE_ACT && !v->keep && v->producer != NULL && v->producer->block >= 0 &&
           v->producer->phase == PF_PHASE_FORWARD &&
           (v->producer->op->flags & PF_OP_ALWAYS_SAVED) == 0 && out_index(v) >= 0;
}

/* Marks what the backward pass reads. Not by lifetimes: a value whose room was taken over lives as
 * long as the one that took it. */
static void mark_read(pf_graph *g, const pf_plan *plan) {
    for (int i = 0; i < g->n_values; i++) g->values[i]->selected = false;
    for (int i = plan->first_backward; i < g->n_nodes; i++) {
        const pf_node *n = g->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] != NULL) n->in[k]->selected = true;
        }
    }
    for (int i = 0; i < g->n_values; i++) { /* a rounded one stands for the value itself */
        pf_value *v = g->values[i];
        if (v->packed != NULL && v->packed->selected) v->selected = true;
    }
}

/* The bytes that saving it takes. */
static int64_t saved_bytes(const pf_value *v, const pf_plan *plan) {
    const pf_value *kept = v->packed != NULL ? v->packed : v;
    return pf_value_rows(kept, plan->capacity) * kept->cols * (int64_t)sizeof(pf_real);
}

/* Operations that make the outputs of a node again from what else is saved. Depth is that of one
 * block. */
static double price(const pf_node *n, const pf_plan *plan) {
    double flops = n->op->cost != NULL ? n->op->cost(n, plan->capacity).flops : 0;
    for (int i = 0; i < n->n_in; i++) {
        const pf_value *v = n->in[i];
        if (v == NULL || v->kind != PF_VALUE_ACT || v->keep || v->selected) continue;
        if (v->producer->block >= 0) flops += price(v->producer, plan);
    }
    return flops;
}

static int cheapest_first(const void *a, const void *b) {
    const pf_saved_kind *x = a, *y = b;
    const double left = x->flops * (double)y->bytes, right = y->flops * (double)x->bytes;
    if (left != right) return left < right ? -1 : 1;
    return strcmp(x->name, y->name);
}

void pf_saved_set_find(pf_saved_set *s, pf_graph *g, const pf_plan *plan) {
    memset(s, 0, sizeof *s);
    mark_read(g, plan);
    for (int i = 0; i < plan->first_backward; i++) {
        const pf_node *n = g->nodes[i];
        char name[sizeof s->kinds[0].name];
        pf_saved_kind *kind = NULL;
        for (int k = 0; k < n->n_out && k < 32; k++) {
            const pf_value *v = n->out[k];
            if (!is_open(v) || !v->selected) continue;
            if (kind == NULL) {
                kind_name(n, name, sizeof name);
                kind = find_kind(s, name);
                if (kind == NULL && s->n == PF_SAVED_KINDS) break; /* stays saved */
                if (kind == NULL) {
                    kind = &s->kinds[s->n++];
                    memcpy(kind->name, name, sizeof name);
                }
                kind->flops += price(n, plan);
                kind->n_blocks++;
                if (n->block >= s->n_blocks) s->n_blocks = n->block + 1;
            }
            kind->outs |= 1u << k;
            kind->bytes += saved_bytes(v, plan);
        }
    }
    qsort(s->kinds, (size_t)s->n, sizeof *s->kinds, cheapest_first);
}

/* ---- choices --------------------------------------------------------------------------------- */

int pf_saved_set_steps(const pf_saved_set *s) {
    return s->n * s->n_blocks;
}

void pf_saved_set_narrow(pf_saved_set *s, int n) {
    for (int i = 0; i < s->n; i++) {
        const int before = i * s->n_blocks;
        s->kinds[i].from = n <= before ? 0 : n - before < s->n_blocks ? n - before : s->n_blocks;
    }
}

void pf_saved_set_mark(const pf_saved_set *s, pf_graph *g) {
    for (int i = 0; i < g->n_values; i++) {
        pf_value *v = g->values[i];
        v->selected = false;
        if (!is_open(v)) continue;
        char name[sizeof s->kinds[0].name];
        kind_name(v->producer, name, sizeof name);
        const pf_saved_kind *k = find_kind(s, name);
        v->selected = k != NULL && v->producer->block >= k->from && out_index(v) < 32 &&
                      (k->outs >> out_index(v) & 1u) != 0;
    }
}

/* ---- as text --------------------------------------------------------------------------------- */

void pf_saved_set_write(const pf_saved_set *s, char *out, size_t n) {
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; i < s->n && at < n; i++) {
        at += (size_t)snprintf(out + at, n - at, "%s%s:%u:%d", i > 0 ? " " : "", s->kinds[i].name,
                               s->kinds[i].outs, s->kinds[i].from);
    }
}

/* The number that begins at `text` and ends at `stop`; behind it, or NULL. */
static const char *read_number(const char *text, const char *stop, int64_t most, int64_t *out) {
    char number[16];
    const size_t n = strcspn(text, stop);
    if (n == 0 || n >= sizeof number) return NULL;
    memcpy(number, text, n);
    number[n] = '\0';
    return pf_parse_int(number, out) && *out >= 0 && *out <= most ? text + n : NULL;
}

bool pf_saved_set_read(pf_saved_set *s, const char *text) {
    memset(s, 0, sizeof *s);
    while (*text != '\0') {
        const size_t n = strcspn(text, ": ");
        if (text[n] != ':' || s->n == PF_SAVED_KINDS || n >= sizeof s->kinds[0].name) return false;
        pf_saved_kind *k = &s->kinds[s->n++];
        int64_t outs, from;
        memcpy(k->name, text, n);
        text = read_number(text + n + 1, ": ", UINT32_MAX, &outs);
        if (text == NULL || *text != ':') return false;
        text = read_number(text + 1, " ", INT32_MAX, &from);
        if (text == NULL) return false;
        k->outs = (unsigned)outs;
        k->from = (int)from;
        if (k->from > s->n_blocks) s->n_blocks = k->from;
        text += *text == ' ';
    }
    return true;
}

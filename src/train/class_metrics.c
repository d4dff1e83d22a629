/* class_metrics.c - see class_metrics.h. */
#include "train/class_metrics.h"

#include <math.h>
#include <string.h>

peft_status pf_class_metrics_init(pf_class_metrics *m, pf_arena *a, int n, const pf_strlist *tags,
                                  peft_error *err) {
    *m = (pf_class_metrics){.n = n, .tags = tags};
    m->counts = PF_NEW_ARRAY(a, int64_t, (int64_t)n * n);
    PF_CHECK_ALLOC(m->counts, err);
    return PEFT_OK;
}

void pf_class_metrics_clear(pf_class_metrics *m) {
    memset(m->counts, 0, (size_t)m->n * (size_t)m->n * sizeof *m->counts);
    m->true_entities = m->predicted_entities = m->agreed = 0;
}

/* ---- entities -------------------------------------------------------------------------------- */

typedef struct tag {
    char kind; /* B I E S O, or the first character of something else */
    pf_str type;
} tag;

/* "B-PER" is a B of type PER; "O" and "B" have the type "_". */
static tag tag_of(const pf_strlist *names, int32_t id) {
    const char *s = id < 0 ? "O" : names->items[id];
    tag t = {.kind = s[0]};
    uint32_t unused;
    const size_t n = strlen(s);
    const int first = n > 0 ? pf_utf8_decode(s, n, &unused) : 0;
    const char *rest = s + (first > 0 ? first : n > 0), *dash = strchr(rest, '-');
    t.type = pf_str_of(dash != NULL ? dash + 1 : rest);
    if (t.type.n == 0) t.type = (pf_str){"_", 1};
    return t;
}

static bool outside(char kind) {
    return kind == 'O' || kind == '.';
}

static bool ends(tag before, tag t) {
    if (before.kind == 'E' || before.kind == 'S') return true;
    if ((before.kind == 'B' || before.kind == 'I') &&
        (t.kind == 'B' || t.kind == 'S' || t.kind == 'O'))
        return true;
    return !outside(before.kind) && !pf_str_eq(before.type, t.type);
}

static bool begins(tag before, tag t) {
    if (t.kind == 'B' || t.kind == 'S') return true;
    if ((before.kind == 'E' || before.kind == 'S' || before.kind == 'O') &&
        (t.kind == 'E' || t.kind == 'I'))
        return true;
    return !outside(t.kind) && !pf_str_eq(before.type, t.type);
}

typedef struct walker { /* entities of one sequence, in order */
    const pf_strlist *names;
    const int32_t *tags;
    int n, at, begin;
    tag before;
    pf_str type; /* of the entity found: [first, end) */
    int first, end;
} walker;

static walker walk(const pf_strlist *names, const int32_t *tags, int n) {
    return (walker){.names = names, .tags = tags, .n = n, .before = {'O', {"", 0}}};
}

static bool next_entity(walker *w) {
    while (w->at <= w->n) {
        const tag t = tag_of(w->names, w->at < w->n ? w->tags[w->at] : -1);
        const bool ended = ends(w->before, t);
        w->type = w->before.type;
        w->first = w->begin;
        w->end = w->at;
        if (begins(w->before, t)) w->begin = w->at;
        w->before = t;
        w->at++;
        if (ended) return true;
    }
    return false;
}

/* Both walks go from left to right, and no two entities of one begin at the same place. */
static void add_entities(pf_class_metrics *m, const int32_t *truth, const int32_t *prediction,
                         int n) {
    walker a = walk(m->tags, truth, n), b = walk(m->tags, prediction, n);
    bool more_a = next_entity(&a), more_b = next_entity(&b);
    m->true_entities += more_a;
    m->predicted_entities += more_b;
    while (more_a && more_b) {
        const int by = a.end - b.end;
        m->agreed += by == 0 && a.first == b.first && pf_str_eq(a.type, b.type);
        if (by <= 0) m->true_entities += more_a = next_entity(&a);
        if (by >= 0) m->predicted_entities += more_b = next_entity(&b);
    }
    while (more_a) m->true_entities += more_a = next_entity(&a);
    while (more_b) m->predicted_entities += more_b = next_entity(&b);
}

void pf_class_metrics_add(pf_class_metrics *m, const int32_t *truth, const int32_t *prediction,
                          int n) {
    for (int i = 0; i < n; i++) m->counts[(int64_t)truth[i] * m->n + prediction[i]]++;
    if (m->tags != NULL) add_entities(m, truth, prediction, n);
}

/* ---- scores ---------------------------------------------------------------------------------- */

static double share(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

typedef struct per_class {
    double hit, truth, predicted;
} per_class;

static per_class class_of(const pf_class_metrics *m, int k) {
    per_class c = {.hit = (double)m->counts[(int64_t)k * m->n + k]};
    for (int i = 0; i < m->n; i++) {
        c.truth += (double)m->counts[(int64_t)k * m->n + i];
        c.predicted += (double)m->counts[(int64_t)i * m->n + k];
    }
    return c;
}

pf_class_scores pf_class_metrics_result(const pf_class_metrics *m) {
    pf_class_scores s = {.entities = m->tags != NULL};
    double all = 0, hits = 0, precision = 0, recall = 0, both = 0, tt = 0, pp = 0;
    int occur = 0;
    for (int k = 0; k < m->n; k++) {
        const per_class c = class_of(m, k);
        const double f1 = share(2 * c.hit, c.truth + c.predicted);
        all += c.truth;
        hits += c.hit;
        both += c.truth * c.predicted;
        tt += c.truth * c.truth;
        pp += c.predicted * c.predicted;
        s.f1_weighted += f1 * c.truth;
        if (c.truth + c.predicted == 0) continue;
        occur++;
        s.f1_macro += f1;
        precision += share(c.hit, c.predicted);
        recall += share(c.hit, c.truth);
    }
    s.accuracy = s.f1_micro = share(hits, all);
    s.f1_weighted = share(s.f1_weighted, all);
    s.f1 = s.f1_macro = share(s.f1_macro, occur);
    s.precision = share(precision, occur);
    s.recall = share(recall, occur);
    s.mcc = share(hits * all - both, sqrt((all * all - tt) * (all * all - pp)));
    if (m->n == 2) {
        const per_class c = class_of(m, 1);
        s.precision = share(c.hit, c.predicted);
        s.recall = share(c.hit, c.truth);
        s.f1 = share(2 * c.hit, c.truth + c.predicted);
    }
    if (m->tags != NULL) {
        s.precision = share((double)m->agreed, (double)m->predicted_entities);
        s.recall = share((double)m->agreed, (double)m->true_entities);
        s.f1 = share(2 * (double)m->agreed, (double)(m->true_entities + m->predicted_entities));
    }
    return s;
}

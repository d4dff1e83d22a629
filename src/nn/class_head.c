/* class_head.c - see class_head.h. */
#include "nn/class_head.h"

#include "base/buf.h"
#include "nn/base_dropout.h"
#include "base/log.h"
#include "data/class_labels.h"
#include "ops/loss/head_ce.h"
#include "text/json.h"

#include <stdio.h>
#include <string.h>

#define MAX_LABELS 100000

/* ---- names ----------------------------------------------------------------------------------- */

bool pf_labels_are_default(const pf_strlist *labels) {
    char name[32];
    for (int i = 0; i < labels->n; i++) {
        snprintf(name, sizeof name, "LABEL_%d", i);
        if (!pf_streq(labels->items[i], name)) return false;
    }
    return true;
}

static peft_status copy_labels(const pf_strlist *from, pf_arena *a, pf_strlist *out,
                               peft_error *err) {
    *out = (pf_strlist){0};
    for (int i = 0; i < from->n; i++) PF_TRY(pf_strlist_add(out, a, from->items[i], err));
    return PEFT_OK;
}

peft_status pf_labels_read(const struct json_t *config, const char *where, pf_arena *a,
                           pf_strlist *out, peft_error *err) {
    const json_t *names;
    *out = (pf_strlist){0};
    PF_TRY(pf_json_opt_object(config, where, "id2label", &names, err));
    const size_t n = names == NULL ? 0 : json_object_size(names);
    if (n > MAX_LABELS)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: id2label has %zu classes, at most %d fit", where, n,
                       MAX_LABELS);
    for (size_t i = 0; i < n; i++) {
        char id[24];
        snprintf(id, sizeof id, "%zu", i);
        const char *name = json_string_value(json_object_get(names, id));
        if (name == NULL)
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s: id2label has %zu classes and no name for \"%s\"; ids count from 0",
                           where, n, id);
        PF_TRY(pf_strlist_add(out, a, name, err));
    }
    return PEFT_OK;
}

peft_status pf_labels_write(const pf_strlist *labels, struct json_t *config, peft_error *err) {
    json_t *names = json_object(), *ids = json_object();
    int bad = names == NULL || ids == NULL;
    for (int i = 0; i < labels->n && !bad; i++) {
        char id[24];
        snprintf(id, sizeof id, "%d", i);
        bad |= json_object_set_new(names, id, json_string(labels->items[i]));
        bad |= json_object_set_new(ids, labels->items[i], json_integer(i));
    }
    bad |= json_object_set_new(config, "id2label", names);
    bad |= json_object_set_new(config, "label2id", ids);
    return bad == 0 ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status pf_model_write_task(const pf_model *m, struct json_t *config, peft_error *err) {
    char name[160];
    pf_task unused;
    if (!pf_task_is_classes(m->task)) return PEFT_OK;
    const int n = (int)pf_task_split(m->architecture, &unused);
    snprintf(name, sizeof name, "%.*s%s", n, m->architecture, pf_task_suffix(m->task));
    json_t *list = json_array();
    int bad = json_array_append_new(list, json_string(name));
    bad |= json_object_set_new(config, "architectures", list);
    if (m->task == PF_TASK_SEQ_CLS)
        bad |=
            json_object_set_new(config, "problem_type", json_string(pf_problem_name(m->problem)));
    json_object_del(config, "num_labels"); /* old: it would contradict */
    PF_TRY(pf_labels_write(&m->labels, config, err));
    return bad == 0 ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

/* ---- which, while a model opens -------------------------------------------------------------- */

static peft_status default_labels(pf_arena *a, int64_t n, pf_strlist *out, peft_error *err) {
    *out = (pf_strlist){0};
    for (int64_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "LABEL_%lld", (long long)i);
        PF_TRY(pf_strlist_add(out, a, name, err));
    }
    return PEFT_OK;
}

/* How many outputs are asked for; 0: nobody says it. */
static int64_t count_wanted(const pf_model *m) {
    const pf_class_options *o = &m->classes;
    if (o->labels != NULL && o->labels->n > 0) return o->labels->n;
    return o->n_labels > 0 ? o->n_labels : m->labels.n;
}

static void say_problem(const pf_model *m, const char *why) {
    PF_INFO("%s: problem type %s: %s (model.problem_type says otherwise)", m->name,
            pf_problem_name(m->problem), why);
}

/* The first that says it: the configuration, or the adapter; the base's config.json; one output;
 * the data. As transformers has it, whose models look at num_labels and at the type of the labels.
 */
static peft_status settle_problem(pf_model *m, peft_error *err) {
    const pf_class_options *o = &m->classes;
    const char *name;
    m->problem = PF_PROBLEM_SINGLE;
    if (m->task != PF_TASK_SEQ_CLS) return PEFT_OK;
    PF_TRY(pf_json_opt_str(m->config, m->config_path, "problem_type", NULL, &name, err));
    const pf_problem own = pf_problem_find(name);
    if (name != NULL && own == PF_PROBLEM_AUTO)
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: problem_type is \"%.40s\"; it should be regression, "
                       "single_label_classification or multi_label_classification",
                       m->config_path, name);
    const int64_t n = count_wanted(m);
    if (o->problem != PF_PROBLEM_AUTO) {
        m->problem = o->problem;
    } else if (own != PF_PROBLEM_AUTO) {
        m->problem = own;
    } else if (n == 1) {
        m->problem = PF_PROBLEM_REGRESSION;
        say_problem(m, "there is one label");
    } else if (pf_problem_has_values(o->seen_problem) &&
               (n == 0 || (o->seen != NULL && o->seen->n == n) ||
                o->seen_problem == PF_PROBLEM_MULTI)) {
        m->problem = o->seen_problem;
        say_problem(m, o->seen_why);
    }
    return PEFT_OK;
}

static const char *outputs(const pf_model *m) {
    const bool one = m->labels.n == 1;
    if (m->problem == PF_PROBLEM_REGRESSION) return one ? "number" : "numbers";
    return one ? "class" : "classes";
}

static peft_status check_count(const pf_model *m, int64_t wanted, const char *who,
                               peft_error *err) {
    char names[200];
    if (m->other_task || wanted == m->labels.n) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_CONFIG,
                   "%s has a head for %d %s (%s), but %s %lld; leave that away to go on with "
                   "this head, or begin from a base without one",
                   m->name, m->labels.n, outputs(m),
                   pf_labels_text(&m->labels, names, sizeof names), who, (long long)wanted);
}

peft_status pf_model_settle_labels(pf_model *m, peft_error *err) {
    const pf_class_options *o = &m->classes;
    const pf_strlist none = {0}, *given = o->labels != NULL ? o->labels : &none, *seen;
    if (!pf_task_is_classes(m->task)) return PEFT_OK;
    if (!m->other_task) { /* the base's own head */
        PF_TRY(pf_labels_read(m->config, m->config_path, &m->arena, &m->labels, err));
        if (m->labels.n == 0) PF_TRY(default_labels(&m->arena, 2, &m->labels, err));
    }
    PF_TRY(settle_problem(m, err));
    /* names of something else are of no use */
    seen = o->seen != NULL && o->seen_problem == m->problem ? o->seen : &none;
    if (given->n > 0 && o->n_labels > 0 && given->n != o->n_labels)
        return PF_FAIL(err, PEFT_E_CONFIG, "model.num_labels is %lld, but model.labels has %d",
                       (long long)o->n_labels, given->n);
    if (given->n > 0) {
        PF_TRY(check_count(m, given->n, "model.labels has", err));
        PF_TRY(copy_labels(given, &m->arena, &m->labels, err));
    } else if (o->n_labels > 0) {
        PF_TRY(check_count(m, o->n_labels, "model.num_labels is", err));
        if (seen->n == o->n_labels && (m->other_task || pf_labels_are_default(&m->labels)))
            PF_TRY(copy_labels(seen, &m->arena, &m->labels, err));
        else if (m->other_task)
            PF_TRY(default_labels(&m->arena, o->n_labels, &m->labels, err));
    } else if (seen->n > 0 &&
               (m->other_task || (pf_labels_are_default(&m->labels) && seen->n == m->labels.n))) {
        PF_TRY(copy_labels(seen, &m->arena, &m->labels, err));
    } else if (m->other_task) {
        PF_TRY(default_labels(&m->arena, m->problem == PF_PROBLEM_REGRESSION ? 1 : 2, &m->labels,
                              err));
    }
    if (m->labels.n < 2 && m->problem == PF_PROBLEM_SINGLE)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s: %d class; a class can be told from another where there are two or more "
                       "(one number is model.problem_type=regression)",
                       m->name, m->labels.n);
    return PEFT_OK;
}

peft_status pf_model_add_class_head(pf_model *m, peft_error *err) {
    const pf_model_family *f = m->family;
    const bool tokens = m->task == PF_TASK_TOKEN_CLS;
    if (!tokens && f->open_pooled != NULL) return f->open_pooled(m, err);
    const char *name = tokens && f->token_head != NULL ? f->token_head : "score";
    return pf_model_add_trained_site(m, PF_SITE_HEAD, name, m->labels.n, m->hidden, tokens,
                                     &m->head, err);
}

void pf_model_plain_class_head(pf_model *m) {
    if (pf_task_is_classes(m->task)) m->head->softcap = m->head->scale = 0;
}

void pf_model_say_made(const pf_model *m) {
    pf_buf names = {0};
    char labels[160];
    for (int i = 0; i < m->made.n; i++)
        pf_buf_addf(&names, "%s%s", i == 0 ? "" : ", ", m->made.items[i]);
    if (m->made.n > 0 && !m->classes.brought)
        PF_INFO("%s has no head for %s: %s made new, for %d %s (%s)", m->name,
                pf_task_name(m->task), pf_buf_str(&names), m->labels.n, outputs(m),
                pf_labels_text(&m->labels, labels, sizeof labels));
    pf_buf_free(&names);
}

/* ---- in a build ------------------------------------------------------------------------------ */

peft_status pf_model_pool(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err) {
    const bool pools = m->task == PF_TASK_SEQ_CLS && m->family->pool != NULL;
    const double p = b->mode == PF_BUILD_TRAIN ? m->head_dropout : 0;
    if (!pools && p == 0) return PEFT_OK;
    PF_TRY(pf_gather_labels(b->graph, m->head->name, *hidden, hidden, err));
    if (pools) PF_TRY(m->family->pool(m, b, hidden, err));
    return pf_model_drop(m, b, PF_DROP_HEAD, -1, p, m->head->name, hidden, err);
}

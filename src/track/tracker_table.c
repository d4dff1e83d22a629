/* tracker_table.c - the one place that enumerates trackers, and the set of them that a run has
 * open. */
#include "track/tracker.h"

#include "base/log.h"
#include "base/str.h"

#define PF_TRACKER(name) extern const pf_tracker pf_tracker_##name;
#include "track/trackers.def"
#undef PF_TRACKER

const pf_tracker *const pf_tracker_table[] = {
#define PF_TRACKER(name) &pf_tracker_##name,
#include "track/trackers.def"
#undef PF_TRACKER
    NULL,
};

const pf_tracker *pf_tracker_find(const char *name) {
    for (int i = 0; pf_tracker_table[i] != NULL; i++) {
        if (pf_streq(pf_tracker_table[i]->name, name)) return pf_tracker_table[i];
    }
    return NULL;
}

static peft_status unknown(const char *name, peft_error *err) {
    const char *known[PF_COUNT(pf_tracker_table)];
    int n = 0;
    for (; pf_tracker_table[n] != NULL; n++) known[n] = pf_tracker_table[n]->name;
    int near = pf_nearest(name, known, n);
    return PF_FAIL(err, PEFT_E_CONFIG, "there is no tracker %s%s%s%s", name,
                   near < 0 ? "" : "; did you mean ", near < 0 ? "" : known[near],
                   near < 0 ? "" : "?");
}

peft_status pf_trackers_open(pf_trackers *t, pf_arena *a, const pf_track_run *run,
                             const char *const *names, int n, peft_error *err) {
    *t = (pf_trackers){.items = PF_NEW_ARRAY(a, pf_tracker_open, n)};
    PF_CHECK_ALLOC(t->items, err);
    peft_status status = PEFT_OK;
    for (int i = 0; i < n && status == PEFT_OK; i++) {
        pf_tracker_open *o = &t->items[t->n];
        o->kind = pf_tracker_find(names[i]);
        status = o->kind == NULL ? unknown(names[i], err) : o->kind->open(&o->self, a, run, err);
        if (status == PEFT_OK) t->n++;
    }
    if (status != PEFT_OK) pf_trackers_close(t);
    return status;
}

/* One line when a tracker begins to fail and one when it is well again. */
static void report(pf_tracker_open *o, peft_status status, const peft_error *err) {
    if (status != PEFT_OK && !o->failing)
        PF_WARN("%s (the run goes on; what is missing is written when that works again)",
                err->message);
    if (status == PEFT_OK && o->failing) PF_INFO("the tracker %s works again", o->kind->name);
    o->failing = status != PEFT_OK;
}

void pf_trackers_params(pf_trackers *t, const pf_track_param *items, int n) {
    for (int i = 0; i < t->n; i++) {
        pf_tracker_open *o = &t->items[i];
        peft_error err;
        if (o->kind->params != NULL) report(o, o->kind->params(o->self, items, n, &err), &err);
    }
}

void pf_trackers_scalars(pf_trackers *t, const pf_metric_row *row) {
    for (int i = 0; i < t->n; i++) {
        pf_tracker_open *o = &t->items[i];
        peft_error err;
        report(o, o->kind->scalars(o->self, row, &err), &err);
    }
}

void pf_trackers_artifact(pf_trackers *t, const char *path) {
    for (int i = 0; i < t->n; i++) {
        pf_tracker_open *o = &t->items[i];
        peft_error err;
        if (o->kind->artifact != NULL) report(o, o->kind->artifact(o->self, path, &err), &err);
    }
}

peft_status pf_trackers_sync(pf_trackers *t, peft_error *err) {
    peft_status lost = PEFT_OK;
    for (int i = 0; i < t->n; i++) {
        pf_tracker_open *o = &t->items[i];
        peft_error why;
        if (o->kind->sync == NULL) continue;
        const peft_status status = o->kind->sync(o->self, &why);
        if (status == PEFT_OK || !o->kind->record) {
            report(o, status, &why);
        } else if (lost == PEFT_OK) {
            o->failing = true;
            lost = PF_FAIL(err, status, "%s", why.message);
        }
    }
    return lost;
}

void pf_trackers_close(pf_trackers *t) {
    for (int i = 0; i < t->n; i++) {
        peft_error err;
        if (t->items[i].kind->close(t->items[i].self, &err) != PEFT_OK)
            PF_WARN("%s (rows are missing there)", err.message);
    }
    *t = (pf_trackers){0};
}

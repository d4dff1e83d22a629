/* classify.h - texts and words, one after the other, to classes: the verb classify. */
#ifndef PF_CLASSIFY_H
#define PF_CLASSIFY_H

#include "base/buf.h"
#include "data/class_row.h"
#include "recipes/loaded.h"

struct json_t;

/* How rows with classes are read for an open model; columns are left empty. */
pf_class_rules pf_class_rules_of(const pf_model *m);

typedef struct pf_classifier pf_classifier;

/* Fails where the model is open for another task. `l` is borrowed. */
peft_status pf_classifier_new(pf_classifier **out, const pf_loaded *l, peft_error *err);
void pf_classifier_free(pf_classifier *c);
/* A text or a list of two (SEQ_CLS): {"label": ..., "scores": {name: probability, ...}}; a list of
 * words (TOKEN_CLS): [{"word": ..., "label": ..., "score": ...}, ...]. Several classes at once:
 * {"labels": [...], "scores": {...}}, told is what is likelier than the threshold (0: 0.5);
 * regression: {"value": ...}, or {"values": {name: ...}} of several outputs. */
peft_status pf_classifier_answer(pf_classifier *c, const struct json_t *v, double threshold,
                                 pf_buf *out, peft_error *err);

#endif

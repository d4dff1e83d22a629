/* class_head.h - heads that tell classes apart: SEQ_CLS and TOKEN_CLS on any family.
 *
 * A label entry stands on the row that is classified, and its target is a class. The head is that
 * of transformers: "score" on the last row of a text without a bias (SEQ_CLS of decoders), or on
 * every labelled row with one (TOKEN_CLS), or what the family has. A base of another task has no
 * such head: it is made new, trained whole whatever the method, and saved with the adapter.
 *
 * What is told of a text is one class, several, or numbers (graph/problem.h).
 *
 * Names of classes, the first that is there: as configured, as the base's config.json has them
 * (id2label), as seen in the data, LABEL_0, LABEL_1, ... */
#ifndef PF_CLASS_HEAD_H
#define PF_CLASS_HEAD_H

#include "nn/model.h"

/* --- while a model opens (models/model_open.c, nn/model.c) */
peft_status pf_model_settle_labels(pf_model *m, peft_error *err);
peft_status pf_model_add_class_head(pf_model *m, peft_error *err);
/* What a family does to the logits of tokens (a cap, a scale) is not done to those of classes. */
void pf_model_plain_class_head(pf_model *m);
/* One line on what was made new. */
void pf_model_say_made(const pf_model *m);

/* --- in a build: the rows that the head reads, from the hidden rows of all tokens */
peft_status pf_model_pool(pf_model *m, pf_build *b, pf_value **hidden, peft_error *err);

/* --- for everyone */
/* Are they transformers' LABEL_0, LABEL_1, ...? */
bool pf_labels_are_default(const pf_strlist *labels);
/* Names out of a parsed {"0": "negative", ...}; false: there are none. */
peft_status pf_labels_read(const struct json_t *config, const char *where, pf_arena *a,
                           pf_strlist *out, peft_error *err);
/* id2label and label2id into a config. */
peft_status pf_labels_write(const pf_strlist *labels, struct json_t *config, peft_error *err);
/* What a model's config.json says of its task, where the base's does not: architectures, classes.
 */
peft_status pf_model_write_task(const pf_model *m, struct json_t *config, peft_error *err);

#endif

/* task.h - what a model is for: PEFT's task types, and the class names of transformers that say so.
 *
 * "LlamaForSequenceClassification" is the stem "Llama" and a task. Families know stems; a task adds
 * a head on top of the hidden rows (nn/class_head.h) or takes the family's own. */
#ifndef PF_TASK_H
#define PF_TASK_H

#include <stdbool.h>
#include <stddef.h>

typedef enum pf_task {
    PF_TASK_AUTO, /* not said: as the architecture of config.json has it */
    PF_TASK_CAUSAL_LM,
    PF_TASK_SEQ_2_SEQ_LM,
    PF_TASK_SEQ_CLS,
    PF_TASK_TOKEN_CLS
} pf_task;

const char *pf_task_name(pf_task task);   /* "SEQ_CLS"; NULL for AUTO */
pf_task pf_task_find(const char *name);   /* AUTO when there is no such task, or NULL */
bool pf_task_is_classes(pf_task task);    /* the targets are classes, not tokens */
const char *pf_task_suffix(pf_task task); /* "ForSequenceClassification", of class names */

/* Length of the stem of an architecture's name ("Llama" of "LlamaForCausalLM", "Bert" of
 * "BertModel"); *task: what the rest says, AUTO where it is a bare model or a pretraining head. */
size_t pf_task_split(const char *architecture, pf_task *task);
/* Is it the same model, whatever its head? */
bool pf_task_same_stem(const char *a, const char *b);

#endif

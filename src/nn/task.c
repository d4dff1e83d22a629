/* task.c - see task.h. */
#include "nn/task.h"

#include "base/str.h"

#include <string.h>

static const struct {
    pf_task task;
    const char *name, *suffix;
} tasks[] = {
    {PF_TASK_CAUSAL_LM, "CAUSAL_LM", "ForCausalLM"},
    {PF_TASK_SEQ_2_SEQ_LM, "SEQ_2_SEQ_LM", "ForConditionalGeneration"},
    {PF_TASK_SEQ_CLS, "SEQ_CLS", "ForSequenceClassification"},
    {PF_TASK_TOKEN_CLS, "TOKEN_CLS", "ForTokenClassification"},
};

/* Other endings; what masks or predicts sentences is a base for us, its head is not read. */
static const struct {
    const char *suffix;
    pf_task task;
} endings[] = {
    {"LMHeadModel", PF_TASK_CAUSAL_LM},
    {"ForMaskedLM", PF_TASK_AUTO},
    {"ForPreTraining", PF_TASK_AUTO},
    {"ForNextSentencePrediction", PF_TASK_AUTO},
    {"ForQuestionAnswering", PF_TASK_AUTO},
    {"ForMultipleChoice", PF_TASK_AUTO},
    {"PreTrainedModel", PF_TASK_AUTO},
    {"EncoderModel", PF_TASK_AUTO},
    {"Model", PF_TASK_AUTO},
};

const char *pf_task_name(pf_task task) {
    for (size_t i = 0; i < PF_COUNT(tasks); i++)
        if (tasks[i].task == task) return tasks[i].name;
    return NULL;
}

const char *pf_task_suffix(pf_task task) {
    for (size_t i = 0; i < PF_COUNT(tasks); i++)
        if (tasks[i].task == task) return tasks[i].suffix;
    return "Model";
}

pf_task pf_task_find(const char *name) {
    for (size_t i = 0; name != NULL && i < PF_COUNT(tasks); i++)
        if (strcmp(tasks[i].name, name) == 0) return tasks[i].task;
    return PF_TASK_AUTO;
}

bool pf_task_is_classes(pf_task task) {
    return task == PF_TASK_SEQ_CLS || task == PF_TASK_TOKEN_CLS;
}

size_t pf_task_split(const char *architecture, pf_task *task) {
    *task = PF_TASK_AUTO;
    for (size_t i = 0; i < PF_COUNT(tasks); i++)
        if (pf_ends_with(architecture, tasks[i].suffix)) {
            *task = tasks[i].task;
            return strlen(architecture) - strlen(tasks[i].suffix);
        }
    for (size_t i = 0; i < PF_COUNT(endings); i++)
        if (pf_ends_with(architecture, endings[i].suffix)) {
            *task = endings[i].task;
            return strlen(architecture) - strlen(endings[i].suffix);
        }
    return strlen(architecture);
}

bool pf_task_same_stem(const char *a, const char *b) {
    pf_task unused;
    const size_t n = pf_task_split(a, &unused);
    return n > 0 && n == pf_task_split(b, &unused) && memcmp(a, b, n) == 0;
}

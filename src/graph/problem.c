/* problem.c - see problem.h. */
#include "graph/problem.h"

#include <stddef.h>
#include <string.h>

static const char *const names[] = {NULL, "single_label_classification",
                                    "multi_label_classification", "regression"};

const char *pf_problem_name(pf_problem p) {
    return names[p];
}

pf_problem pf_problem_find(const char *name) {
    for (int i = PF_PROBLEM_SINGLE; name != NULL && i <= PF_PROBLEM_REGRESSION; i++)
        if (strcmp(names[i], name) == 0) return (pf_problem)i;
    return PF_PROBLEM_AUTO;
}

/* model_table.c - the one place that enumerates model families; the list is models.def. */
#include "models/model_open.h"

#define PF_MODEL(name) extern const pf_model_family pf_model_family_##name;
#include "models/models.def"
#undef PF_MODEL

const pf_model_family *const pf_model_families[] = {
#define PF_MODEL(name) &pf_model_family_##name,
#include "models/models.def"
#undef PF_MODEL
    NULL,
};

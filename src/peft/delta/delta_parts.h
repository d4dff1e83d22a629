/* delta_parts.h - between delta.c and delta_config.c. */
#ifndef PF_DELTA_PARTS_H
#define PF_DELTA_PARTS_H

#include "peft/delta/delta.h"

typedef struct pf_delta_state {
    const pf_delta_kind *kind;
    pf_delta_site **at; /* by site->index; NULL where the method does not act */
} pf_delta_state;

pf_target_rules pf_delta_rules(const pf_delta_kind *k, const void *cfg);

#endif

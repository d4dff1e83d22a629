/* placement.h - rooms in an arena for buffers that live for a while; of the memory plan (plan.h).
 */
#ifndef PF_PLACEMENT_H
#define PF_PLACEMENT_H

#include "graph/plan.h"

typedef struct pf_room {
    pf_value *value; /* NULL: scratch of node `first` */
    int64_t bytes;
    int first, last; /* nodes between which it lives, both included */
    int64_t offset;
    pf_mem_class class;
} pf_room;

/* Gives every room an offset: one after the other, each as low as those allow that live at the same
 * time. Of one node, at most one room lives at that node alone. *top: the size of the arena. */
peft_status pf_placement_make(pf_room *rooms, int n, int64_t *top, peft_error *err);

#endif

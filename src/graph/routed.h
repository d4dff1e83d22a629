/* routed.h - row spaces whose rows a router chooses while the graph runs: those of the experts of a
 * layer.
 *
 * A group of n spaces shares the rows of the batch's tokens: every token is in per_row of them. So
 * a value has at most T rows in one space, but all spaces of a group together have per_row · T. The
 * plan counts on that: values that stand at the same place of the experts' chains share one buffer
 * of per_row · T rows, in which an expert's rows begin where those of the one before it end. */
#ifndef PF_ROUTED_H
#define PF_ROUTED_H

#include "graph/batch.h"

typedef struct pf_routed_group {
    int first, n; /* spaces [first, first + n) */
    int64_t per_row;
} pf_routed_group;

/* The rows of one group, as the router has chosen them last. "Packed" rows are those of all spaces
 * in order. */
typedef struct pf_routing {
    int64_t *offset;       /* (n + 1) first packed row of each space */
    int32_t *token;        /* (per_row · T) token row of a packed row, ascending in each space */
    int32_t *at;           /* (T · per_row) packed row of a token's j-th choice */
    int32_t *sample, *pos; /* (per_row · T) of the token row: for random masks */
} pf_routing;

static inline bool pf_space_is_routed(int space) {
    return space >= PF_SPACE_COUNT;
}

#endif

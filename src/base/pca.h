/* pca.h - the leading principal directions of rows that come batch by batch, in double and on one
 * thread: the same bits each time.
 *
 * Ross, Lim, Lin & Yang 2008 (Incremental learning for robust visual tracking, section 3.1), as
 * scikit-learn's and peft's IncrementalPCA have it: the rows of a batch around their mean, the k
 * directions so far times their singular values, and one row for the way that the mean has moved
 * are decomposed together, and the k largest are kept. With one batch that is the PCA itself; with
 * more it is off by what was cut away in between. The variance that shares are taken of is exact.
 *
 * A direction's largest component in size is positive, so that signs mean something from batch to
 * batch. */
#ifndef PF_PCA_H
#define PF_PCA_H

#include "base/arena.h"

typedef struct pf_pca {
    int64_t k, cols;
    int64_t rows, batches; /* seen */
    double *v, *s;         /* (k, cols) unit rows, (k) singular values, descending */
    double *mean;          /* (cols) */
    double spread;         /* sum of the squares of all rows around it */
    double *turned; /* (k) cosine with the direction before the last batch; 0: there is none */
} pf_pca;

/* k <= cols; the room is the arena's. */
peft_status pf_pca_init(pf_pca *p, pf_arena *a, int64_t k, int64_t cols, peft_error *err);
/* At least k rows. */
peft_status pf_pca_add(pf_pca *p, const float *x, int64_t rows, uint64_t seed, peft_error *err);
int64_t pf_pca_room(int64_t k, int64_t cols);               /* bytes of the arena */
int64_t pf_pca_work(int64_t k, int64_t cols, int64_t rows); /* bytes while rows are added, about */

#endif

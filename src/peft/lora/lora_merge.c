/* lora_merge.c - W + s BA row by row, in double; with DoRA times m / |W + s BA|. And files of
 * adapters whose first factors are part of the base:
 *
 *   W + s (BA - B0 A0) = W + s [B | -B0] [A; A0]
 *
 * which is plain LoRA of rank 2r with the same scale (peft's subtract_mutated_init). */
#include "peft/lora/lora.h"

#include <string.h>

bool pf_lora_touches(const pf_adapter *ad, const pf_site *site) {
    const pf_lora *st = ad->state;
    return st->at[site->index] != NULL || pf_tokens_touch(st->tokens, site);
}

/* A factor as a matrix for the merge: element (i, k) is data[i * row_step + k * col_step]. */
typedef struct factor {
    const pf_real *data;
    int64_t row_step, col_step;
} factor;

/* rows (n,cols) += scale * left (n,r) right (r,cols), in double */
static void add_product(float *rows, int64_t n, int64_t cols, double scale, int64_t r, factor left,
                        factor right) {
    enum { CHUNK = 512 };
    double sum[CHUNK];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j0 = 0; j0 < cols; j0 += CHUNK) {
            const int64_t width = cols - j0 < CHUNK ? cols - j0 : CHUNK;
            float *row = rows + i * cols + j0;
            memset(sum, 0, sizeof sum);
            for (int64_t k = 0; k < r; k++) {
                const double a = (double)left.data[i * left.row_step + k * left.col_step];
                const pf_real *b = right.data + k * right.row_step + j0 * right.col_step;
                for (int64_t j = 0; j < width; j++) sum[j] += a * (double)b[j * right.col_step];
            }
            for (int64_t j = 0; j < width; j++) row[j] = (float)((double)row[j] + scale * sum[j]);
        }
    }
}

static void add_pair(const pf_lora_site *l, const pf_param *a, const pf_param *b, double scale,
                     int64_t row0, int64_t n, float *rows) {
    const int64_t r = b->cols;
    factor left = {b->data + row0 * r, r, 1}, right = {a->data, a->cols, 1};
    if (l->site->kind == PF_SITE_EMBEDDING) { /* row t of the table: (B A[:, t])^T */
        left = (factor){a->data + row0, 1, a->cols};
        right = (factor){b->data, 1, r};
    }
    add_product(rows, n, l->site->in_dim, scale, r, left, right);
}

void pf_lora_add_update(const pf_lora_site *l, int64_t row0, int64_t n, float *rows) {
    add_pair(l, l->a, l->b, l->scale, row0, n, rows);
    if (l->a0 != NULL) add_pair(l, l->a0, l->b0, -l->scale, row0, n, rows);
}

peft_status pf_lora_merge(const pf_adapter *ad, const pf_site *site, int64_t row0, int64_t n,
                          float *rows, peft_error *err) {
    const pf_lora *st = ad->state;
    pf_lora_site *l = st->at[site->index];
    if (l == NULL) {
        pf_tokens_merge(st->tokens, site, row0, n, rows);
        return PEFT_OK;
    }
    if (l->bias != NULL && site->bias == NULL) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: with lora_bias the update has a bias and the base has none there, so "
                       "it cannot be merged into it; keep the adapter apart",
                       site->name);
    }
    pf_lora_add_update(l, row0, n, rows);
    return l->magnitude != NULL ? pf_lora_dora_merge(l, row0, n, rows, err) : PEFT_OK;
}

/* ---- files ----------------------------------------------------------------------------------- */

static const pf_lora_site *site_of(const pf_adapter *ad, const pf_param *p) {
    const pf_lora *st = ad->state;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_lora_site *l = st->at[i];
        if (l != NULL && (l->a == p || l->b == p)) return l;
    }
    return NULL;
}

void pf_lora_file_size(const pf_adapter *ad, const pf_param *p, int64_t *rows, int64_t *cols) {
    const pf_lora *st = ad->state;
    const pf_lora_site *l = st->converted ? site_of(ad, p) : NULL;
    *rows = p->rows * (l != NULL && l->a == p ? 2 : 1);
    *cols = p->cols * (l != NULL && l->b == p ? 2 : 1);
}

/* Modules that began otherwise (embeddings) get zeros, for the rank and so the scale of a file are
 * the same everywhere. */
void pf_lora_file_row(const pf_adapter *ad, const pf_param *p, int64_t row, float *out) {
    const pf_lora *st = ad->state;
    const pf_lora_site *l = st->converted ? site_of(ad, p) : NULL;
    const bool first = row >= p->rows; /* of A0, below A */
    const pf_param *from = first ? l->a0 : p;
    const int64_t n = p->cols, at = (first ? row - p->rows : row) * n;
    for (int64_t j = 0; j < n; j++) out[j] = from != NULL ? (float)from->data[at + j] : 0;
    if (l == NULL || l->b != p) return;
    for (int64_t j = 0; j < n; j++)
        out[n + j] = l->b0 != NULL ? -(float)l->b0->data[row * n + j] : 0;
}

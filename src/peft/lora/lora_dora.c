/* lora_dora.c - DoRA on top of LoRA: y = m / |W + s BA| * (W x + s BA x) (+ bias)
 * (DoRA: Weight-Decomposed Low-Rank Adaptation, Liu et al. 2024, arXiv 2402.09353), as peft has it:
 * one magnitude per output, the bias added after, the norm a constant to the backward pass; of an
 * embedding one magnitude per column of the table. The norm is made by an op (ops/matmul/dora.h)
 * that never forms W + s BA.
 *
 * Dropout is before A, as in LoRA. peft (0.21) in training drops the input of the base product's
 * share (m / |..| - 1) W x as well, which costs a second product of W and has the same expectation;
 * this is left out here. Of the head the logits of all label entries are made (nn/site.h). */
#include "peft/lora/lora.h"

#include "base/mem.h"
#include "ops/matmul/lowrank.h"

#include <math.h>
#include <string.h>

static bool by_column(const pf_lora_site *l) {
    return l->site->kind == PF_SITE_EMBEDDING;
}

static int64_t rank_of(const pf_lora_site *l) {
    return l->r + (l->a0 != NULL ? l->a0->rows : 0);
}

static peft_status make_room(pf_adapter *ad, const pf_lora_site *l, pf_dora_kept *k,
                             peft_error *err) {
    const int64_t in = l->a->cols, out = l->b->rows;
    k->factors = PF_NEW_ARRAY(&ad->arena, pf_real, pf_dora_factor_count(rank_of(l), in, out));
    k->inverse = PF_NEW_ARRAY(&ad->arena, pf_real, out);
    PF_CHECK_ALLOC(k->factors, err);
    PF_CHECK_ALLOC(k->inverse, err);
    return PEFT_OK;
}

peft_status pf_lora_dora_attach(pf_adapter *ad, pf_lora_site *l, peft_error *err) {
    const pf_site *site = l->site;
    const int64_t out = l->b->rows;
    const char *name =
        pf_arena_printf(&ad->arena, PF_ADAPTER_PREFIX "%s.lora_magnitude_vector", site->name);
    PF_CHECK_ALLOC(name, err);
    PF_TRY(pf_adapter_add_param(ad, name, 1, out, &l->magnitude, err));
    l->magnitude->is_vector = true;
    l->squares = pf_weight_of(site->name, PF_DTYPE_F32, NULL, 1, out);
    if (ad->model->shapes_only) return PEFT_OK;
    l->sums = PF_NEW_ARRAY(&ad->arena, double, out);
    l->squares.data = l->square_values = PF_NEW_ARRAY(&ad->arena, float, out);
    PF_CHECK_ALLOC(l->sums, err);
    PF_CHECK_ALLOC(l->square_values, err);
    return make_room(ad, l, &l->kept, err);
}

/* ---- in a build ------------------------------------------------------------------------------ */

peft_status pf_lora_dora_scale(pf_build *b, pf_lora_site *l, pf_value *va, pf_value *vb,
                               pf_value **v, peft_error *err) {
    const char *name = l->site->name;
    const pf_dora_norm_args args = {.scale = l->scale, .by_column = by_column(l), .kept = &l->kept};
    pf_value *w, *inverse, *a0 = NULL, *b0 = NULL;
    pf_value *squares = pf_graph_weight(b->graph, &l->squares);
    pf_value *m = pf_graph_param(b->graph, l->magnitude);
    PF_CHECK_ALLOC(squares, err);
    PF_CHECK_ALLOC(m, err);
    if (l->a0 != NULL) {
        a0 = pf_graph_param(b->graph, l->a0);
        b0 = pf_graph_param(b->graph, l->b0);
        PF_CHECK_ALLOC(a0, err);
        PF_CHECK_ALLOC(b0, err);
    }
    PF_TRY(pf_site_weight(b, l->site, &w, err));
    PF_TRY(pf_dora_norm(b->graph, name, w, squares, va, vb, a0, b0, &args, &inverse, err));
    return pf_dora_scale(b->graph, name, *v, m, inverse, v, err);
}

/* ---- norms ----------------------------------------------------------------------------------- */

enum { ROW_PART = 1024 };

/* sums (out) += squares of the numbers of one row of the matrix: of a linear layer into sums[row],
 * of a table into the sums of their columns */
static void add_squares(const pf_lora_site *l, int64_t row, int64_t col0, int64_t n,
                        const double *values, double *sums) {
    if (by_column(l)) {
        for (int64_t j = 0; j < n; j++) sums[col0 + j] += values[j] * values[j];
        return;
    }
    double sum = 0;
    for (int64_t j = 0; j < n; j++) sum += values[j] * values[j];
    sums[row] += sum;
}

static void base_squares(const pf_lora_site *l, double *sums) {
    const pf_weight *w = l->site->weight;
    pf_real wide[ROW_PART];
    double values[ROW_PART];
    for (int64_t i = 0; i < w->rows; i++) {
        for (int64_t j = 0; j < w->cols; j += ROW_PART) {
            const int64_t n = w->cols - j < ROW_PART ? w->cols - j : ROW_PART;
            pf_weight_read_tile(w, i, 1, j, n, wide, n);
            for (int64_t k = 0; k < n; k++) values[k] = (double)wide[k];
            add_squares(l, i, j, n, values, sums);
        }
    }
}

void pf_lora_dora_prepare(pf_adapter *ad) {
    pf_lora *st = ad->state;
    if (st->squares_done) return;
    st->squares_done = true;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_lora_site *l = st->at[i];
        if (l == NULL || l->magnitude == NULL) continue;
        base_squares(l, l->sums);
        for (int64_t o = 0; o < l->b->rows; o++) l->square_values[o] = (float)l->sums[o];
    }
}

/* sums (out): squares of W + s BA, formed row by row */
static peft_status whole_squares(const pf_lora_site *l, double *sums, peft_error *err) {
    const pf_weight *w = l->site->weight;
    float *row = pf_calloc((size_t)w->cols, sizeof *row);
    double *values = pf_calloc((size_t)w->cols, sizeof *values);
    pf_real *wide = pf_calloc((size_t)w->cols, sizeof *wide);
    peft_status status = PEFT_OK;
    if (row == NULL || values == NULL || wide == NULL)
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t i = 0; i < w->rows && status == PEFT_OK; i++) {
        pf_weight_read_tile(w, i, 1, 0, w->cols, wide, w->cols);
        for (int64_t j = 0; j < w->cols; j++) row[j] = (float)wide[j];
        pf_lora_add_update(l, i, 1, row);
        for (int64_t j = 0; j < w->cols; j++) values[j] = (double)row[j];
        add_squares(l, i, 0, w->cols, values, sums);
    }
    pf_free(row);
    pf_free(values);
    pf_free(wide);
    return status;
}

static bool all_zero(const pf_param *p) {
    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        if (p->data[i] != 0) return false;
    }
    return true;
}

peft_status pf_lora_dora_init(pf_lora_site *l, peft_error *err) {
    const int64_t out = l->b->rows;
    const bool update = !all_zero(l->a) && !all_zero(l->b) && l->a0 == NULL;
    double *sums = pf_calloc((size_t)out, sizeof *sums);
    PF_CHECK_ALLOC(sums, err);
    peft_status status = update ? whole_squares(l, sums, err) : PEFT_OK;
    for (int64_t o = 0; o < out; o++)
        l->magnitude->data[o] = (pf_real)sqrt(update ? sums[o] : l->sums[o]);
    pf_free(sums);
    return status;
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Column norms of a table need all of it: made once for the numbers that the factors have. */
static peft_status column_inverses(pf_lora_site *l, peft_error *err) {
    pf_dora_kept *k = &l->merged;
    const size_t a = (size_t)(l->a->rows * l->a->cols), b = (size_t)(l->b->rows * l->b->cols);
    if (k->factors == NULL) PF_TRY(make_room((pf_adapter *)(uintptr_t)l->ad, l, k, err));
    if (k->valid && memcmp(k->factors, l->a->data, a * sizeof *k->factors) == 0 &&
        memcmp(k->factors + a, l->b->data, b * sizeof *k->factors) == 0)
        return PEFT_OK;
    const int64_t out = l->b->rows;
    double *sums = pf_calloc((size_t)out, sizeof *sums);
    PF_CHECK_ALLOC(sums, err);
    peft_status status = whole_squares(l, sums, err);
    for (int64_t o = 0; o < out; o++)
        k->inverse[o] = sums[o] > 0 ? (pf_real)(1 / sqrt(sums[o])) : 0;
    memcpy(k->factors, l->a->data, a * sizeof *k->factors);
    memcpy(k->factors + a, l->b->data, b * sizeof *k->factors);
    k->valid = status == PEFT_OK;
    pf_free(sums);
    return status;
}

peft_status pf_lora_dora_merge(pf_lora_site *l, int64_t row0, int64_t n, float *rows,
                               peft_error *err) {
    const int64_t cols = l->site->weight->cols;
    const pf_real *m = l->magnitude->data;
    if (by_column(l)) PF_TRY(column_inverses(l, err));
    for (int64_t i = 0; i < n; i++) {
        float *row = rows + i * cols;
        if (by_column(l)) {
            for (int64_t j = 0; j < cols; j++)
                row[j] = (float)((double)row[j] * (double)m[j] * (double)l->merged.inverse[j]);
            continue;
        }
        double sum = 0;
        for (int64_t j = 0; j < cols; j++) sum += (double)row[j] * (double)row[j];
        const double g = sum > 0 ? (double)m[row0 + i] / sqrt(sum) : 0;
        for (int64_t j = 0; j < cols; j++) row[j] = (float)((double)row[j] * g);
    }
    return PEFT_OK;
}

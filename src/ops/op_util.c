/* op_util.c - see op_util.h. */
#include "ops/op_util.h"

#include "base/cpu.h"

#include <string.h>

#define TASK_REALS 16384

peft_status pf_op_emit(pf_graph *g, const char *op, const char *name, const void *args,
                       pf_value *const *in, int n_in, pf_value **y, peft_error *err) {
    pf_node *n;
    *y = NULL;
    PF_TRY(pf_graph_emit(g, op, name, args, in, n_in, &n, err));
    *y = n->out[0];
    return PEFT_OK;
}

bool pf_value_same_shape(const pf_value *a, const pf_value *b) {
    return a->space == b->space && a->cols == b->cols &&
           (a->space != PF_SPACE_NONE || a->rows == b->rows);
}

peft_status pf_op_check_same(const pf_value *a, const char *a_name, const pf_value *b,
                             const char *b_name, peft_error *err) {
    if (pf_value_same_shape(a, b)) return PEFT_OK;
    if (a->cols != b->cols) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%s has %lld columns, %s has %lld", a_name,
                       (long long)a->cols, b_name, (long long)b->cols);
    }
    return PF_FAIL(err, PEFT_E_SHAPE, "the rows of %s and %s are not the same", a_name, b_name);
}

pf_value *pf_op_out_like(pf_graph *g, pf_node *n, const pf_value *v) {
    return pf_graph_out(g, n, v->space, v->rows, v->cols);
}

peft_status pf_op_need(pf_autodiff *ad, pf_value *v, pf_value **out, peft_error *err) {
    *out = NULL;
    if (v == NULL) return PEFT_OK;
    peft_error why = {0};
    *out = pf_grad_need(ad, v, &why);
    return *out != NULL ? PEFT_OK : PF_FAIL(err, why.status, "%s", why.message);
}

peft_status pf_op_pair_vjp(pf_autodiff *ad, pf_node *n, const char *op, peft_error *err) {
    pf_value *in[3] = {pf_grad_of(ad, n->out[0])};
    for (int i = 0; i < 2; i++) PF_TRY(pf_op_need(ad, n->in[i], &in[1 + i], err));
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), op, n->name, NULL, in, 3, &grad, err));
    for (int i = 0; i < 2; i++) PF_TRY(pf_grad_give(ad, n->in[i], grad->out[i], err));
    return PEFT_OK;
}

double pf_op_elements(const pf_node *n, const int64_t *rows) {
    double sum = 0;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] != NULL) sum += (double)pf_value_rows(n->in[i], rows) * (double)n->in[i]->cols;
    }
    for (int i = 0; i < n->n_out; i++) {
        sum += (double)pf_value_rows(n->out[i], rows) * (double)n->out[i]->cols;
    }
    return sum;
}

pf_cost pf_op_elementwise_cost(const pf_node *n, const int64_t *rows, double flops_per_element) {
    double y = (double)pf_value_rows(n->out[0], rows) * (double)n->out[0]->cols;
    return (pf_cost){.flops = y * flops_per_element,
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

const pf_real *pf_op_vector(const pf_exec *x, const pf_value *v, pf_real *scratch) {
    if (v->kind != PF_VALUE_WEIGHT) return pf_exec_data(x, v);
#ifndef PF_DOUBLE
    const float *plain;
    if (pf_weight_is_plain_f32(v->weight, &plain)) return plain;
#endif
    pf_weight_read_tile(v->weight, 0, 1, 0, v->cols, scratch, v->cols);
    return scratch;
}

int64_t pf_op_vector_scratch(const pf_value *v) {
    return v->kind == PF_VALUE_WEIGHT ? v->cols * (int64_t)sizeof(pf_real) : 0;
}

void pf_op_read_row(const pf_exec *x, const pf_value *v, int64_t row, pf_real *dst) {
    if (v->kind == PF_VALUE_WEIGHT) {
        pf_weight_read_tile(v->weight, row, 1, 0, v->cols, dst, v->cols);
    } else {
        memcpy(dst, pf_exec_data(x, v) + row * v->cols, (size_t)v->cols * sizeof *dst);
    }
}

bool pf_can_avx2(const pf_node *n) {
    (void)n;
    return pf_cpu_level() >= PF_ISA_AVX2;
}

bool pf_can_avx512(const pf_node *n) {
    (void)n;
    return pf_cpu_level() >= PF_ISA_AVX512;
}

int64_t pf_op_rows_per_task(int64_t reals_per_row) {
    int64_t rows = TASK_REALS / pf_max_i64(reals_per_row, 1);
    return pf_max_i64(rows, 1);
}

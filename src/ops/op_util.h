/* op_util.h - what most ops need: emitting a node with one result, comparing shapes, reading frozen
 * and trained weights alike, splitting rows into tasks. */
#ifndef PF_OP_UTIL_H
#define PF_OP_UTIL_H

#include "base/pool.h"
#include "graph/autodiff.h"
#include "graph/exec.h"

/* Emits a node and returns its first output. */
peft_status pf_op_emit(pf_graph *g, const char *op, const char *name, const void *args,
                       pf_value *const *in, int n_in, pf_value **y, peft_error *err);

bool pf_value_same_shape(const pf_value *a, const pf_value *b);
/* Fails with both sizes in the message unless `a` and `b` have the same shape. */
peft_status pf_op_check_same(const pf_value *a, const char *a_name, const pf_value *b,
                             const char *b_name, peft_error *err);
/* The next output of n, shaped like v. */
pf_value *pf_op_out_like(pf_graph *g, pf_node *n, const pf_value *v);

/* pf_grad_need with a status; NULL stays NULL. */
peft_status pf_op_need(pf_autodiff *ad, pf_value *v, pf_value **out, peft_error *err);
/* The gradient of an op of two inputs, by an op that takes dy and both of them and gives theirs. */
peft_status pf_op_pair_vjp(pf_autodiff *ad, pf_node *n, const char *op, peft_error *err);

/* Numbers read or written by this node: every input and output once. */
double pf_op_elements(const pf_node *n, const int64_t *rows);
/* The cost of an elementwise op with that many operations per output element. */
pf_cost pf_op_elementwise_cost(const pf_node *n, const int64_t *rows, double flops_per_element);

/* A row vector (1 x n) as contiguous pf_real, whether it is a PARAM, an ACT or a WEIGHT of any
 * storage type. `scratch` is used only when the stored numbers cannot be read as they stand;
 * pf_op_vector_scratch says how many bytes. */
const pf_real *pf_op_vector(const pf_exec *x, const pf_value *v, pf_real *scratch);
int64_t pf_op_vector_scratch(const pf_value *v);
/* Row `row` of a matrix, copied to dst; any thread. */
void pf_op_read_row(const pf_exec *x, const pf_value *v, int64_t row, pf_real *dst);

/* Predicates of kernel rows: what the processor, PEFT_ISA and pf_cpu_force allow. */
bool pf_can_avx2(const pf_node *n);
bool pf_can_avx512(const pf_node *n);

/* The first rows of a list of kernels whose launchers are fn##_avx512 and fn##_avx2; none in the
 * double build. `room` is their workspace; NULL: the op's. */
// clang-format off
#ifdef PF_DOUBLE
#define PF_FAST_KERNELS(fn, room)
#else
#define PF_FAST_KERNELS(fn, room)                                                                  \
    {.backend = "cpu", .name = "avx512", .can = pf_can_avx512, .run = fn##_avx512, .workspace = (room)}, \
    {.backend = "cpu", .name = "avx2", .can = pf_can_avx2, .run = fn##_avx2, .workspace = (room)},
#endif
// clang-format on

/* Numbers of a fixed split: the same on any machine, so that the same bits come out. */
static inline int64_t pf_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t pf_min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t pf_max_i64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
/* Rows per task so that a task touches about 64 KiB: small enough to balance, large enough to pay
 * for its start. */
int64_t pf_op_rows_per_task(int64_t reals_per_row);

#endif

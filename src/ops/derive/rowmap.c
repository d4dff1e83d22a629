/* rowmap.c - the ops rowmap and rowmap_grad; see derive.h. */
#include "ops/derive/derive.h"

#include "ops/derive/derive_parts.h"
#include "ops/op_util.h"

typedef struct args_of {
    const pf_rowmap *fn;
    const void *args;
    int64_t in_cols;
    int n_p;
    bool want_dx;    /* rowmap_grad: the first output */
    unsigned values; /* likewise: of which parameters the gradient is an output */
} args_of;

/* Inputs of rowmap: x, parameters. Of rowmap_grad: x or NULL, parameters, dy, sinks. */
enum { GRAD_DY = 1 + PF_DERIVE_MAX, GRAD_D_P, GRAD_N = GRAD_D_P + PF_DERIVE_MAX };

peft_status pf_rowmap_emit(pf_graph *g, const char *name, const pf_rowmap *fn, const void *args,
                           pf_value *x, pf_value *const *p, int n_p, pf_value **y,
                           peft_error *err) {
    const args_of all = {fn, args, x->cols, n_p, false, 0};
    pf_value *in[1 + PF_DERIVE_MAX] = {x};
    PF_ASSERT(n_p <= PF_DERIVE_MAX);
    for (int i = 0; i < n_p; i++) in[1 + i] = p[i];
    return pf_op_emit(g, "rowmap", name, &all, in, 1 + n_p, y, err);
}

static void sizes_of(const pf_node *n, pf_mat *p) {
    const args_of *a = n->args;
    for (int i = 0; i < PF_DERIVE_MAX; i++) {
        p[i] = i < a->n_p ? pf_mat_sizes(n->in[1 + i]) : (pf_mat){0};
    }
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const args_of *a = n->args;
    pf_mat p[PF_DERIVE_MAX];
    sizes_of(n, p);
    const int64_t cols = a->fn->columns(a->args, a->in_cols, p);
    if (cols <= 0)
        return PF_FAIL(err, PEFT_E_SHAPE, "%s: sizes do not fit (x has %lld columns)", a->fn->name,
                       (long long)a->in_cols);
    PF_CHECK_ALLOC(pf_graph_out(g, n, n->in[0]->space, n->in[0]->rows, cols), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    args_of a = *(const args_of *)n->args;
    pf_value *in[GRAD_N] = {NULL};
    bool wanted = false;
    for (int i = 0; i < a.n_p; i++) {
        PF_TRY(pf_op_need(ad, n->in[1 + i], &in[1 + i], err));
        pf_derive_place(ad, n->in[1 + i], i, &in[GRAD_D_P + i], &a.values);
        wanted |= pf_grad_wanted(n->in[1 + i]);
    }
    a.want_dx = pf_grad_wanted(n->in[0]);
    if (wanted) PF_TRY(pf_op_need(ad, n->in[0], &in[0], err));
    in[GRAD_DY] = pf_grad_of(ad, n->out[0]);
    if (!wanted && !a.want_dx) return PEFT_OK;
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "rowmap_grad", n->name, &a, in, GRAD_N, &grad, err));
    if (a.want_dx) PF_TRY(pf_grad_give(ad, n->in[0], grad->out[0], err));
    return pf_derive_give(ad, n->in + 1, a.n_p, a.values, grad->out + a.want_dx, err);
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const args_of *a = n->args;
    const pf_value *dy = n->in[GRAD_DY];
    if (a->want_dx) PF_CHECK_ALLOC(pf_graph_out(g, n, dy->space, dy->rows, a->in_cols), err);
    return pf_derive_grad_outs(g, n, n->in + 1, a->n_p, a->values, err);
}

/* ---- running --------------------------------------------------------------------------------- */

static const pf_value *rows_value(const pf_node *n) {
    return n->n_in == GRAD_N ? n->in[GRAD_DY] : n->in[0];
}

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    const args_of *a = n->args;
    pf_mat p[PF_DERIVE_MAX];
    sizes_of(n, p);
    const int64_t R = pf_value_rows(rows_value(n), capacity);
    const int64_t own =
        a->fn->scratch == NULL ? 0 : a->fn->scratch(a->args, R, a->in_cols, p, n_workers);
    return pf_gemm_workspace(n_workers) + own * (int64_t)sizeof(pf_real);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    const args_of *a = n->args;
    pf_mat p[PF_DERIVE_MAX];
    sizes_of(n, p);
    const double R = (double)pf_value_rows(rows_value(n), rows);
    const double times = n->n_in == GRAD_N ? 2 : 1;
    return (pf_cost){.flops = times * R * a->fn->flops(a->args, a->in_cols, p),
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static pf_rowmap_run run_of(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const args_of *a = n->args;
    pf_rowmap_run r = {.args = a->args,
                       .pool = pf_exec_pool(x),
                       .isa = isa,
                       .gemm_room = x->workspace,
                       .scratch = (pf_real *)(void *)(x->workspace + pf_derive_gemm_room(x)),
                       .R = pf_exec_rows(x, rows_value(n)),
                       .in_cols = a->in_cols,
                       .x = pf_exec_data(x, n->in[0])};
    for (int i = 0; i < a->n_p; i++) r.p[i] = pf_mat_of(x, n->in[1 + i]);
    r.out_cols = a->fn->columns(a->args, a->in_cols, r.p);
    return r;
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    pf_rowmap_run r = run_of(x, n, isa);
    r.y = pf_exec_data(x, n->out[0]);
    ((const args_of *)n->args)->fn->forward(&r);
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const args_of *a = n->args;
    pf_rowmap_run r = run_of(x, n, isa);
    r.dy = pf_exec_data(x, n->in[GRAD_DY]);
    r.dx = a->want_dx ? pf_exec_data(x, n->out[0]) : NULL;
    pf_derive_grads(x, n->in + GRAD_D_P, a->values, n->out + a->want_dx, r.d_p);
    a->fn->backward(&r);
    return PEFT_OK;
}

PF_DERIVE_LAUNCHERS(run)
PF_DERIVE_LAUNCHERS(run_grad)

static const pf_kernel_row kernels[] = {
    PF_FAST_KERNELS(run, NULL){.backend = "cpu", .name = "reference", .run = run_plain},
    {0},
};
static const pf_kernel_row grad_kernels[] = {
    PF_FAST_KERNELS(run_grad, NULL){.backend = "cpu", .name = "reference", .run = run_grad_plain},
    {0},
};

const pf_op pf_op_rowmap = {
    .name = "rowmap",
    .what = "y = f(x; parameters), linear in x, row by row: a method's function",
    .args_size = sizeof(args_of),
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .cost = cost,
    .kernels = kernels,
};

const pf_op pf_op_rowmap_grad = {
    .name = "rowmap_grad",
    .what = "dx, and the gradients of the parameters, added to theirs",
    .args_size = sizeof(args_of),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = workspace,
    .cost = cost,
    .kernels = grad_kernels,
};

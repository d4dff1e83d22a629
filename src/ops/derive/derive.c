/* derive.c - the ops derive and derive_grad; see derive.h. */
#include "ops/derive/derive.h"

#include "ops/derive/derive_parts.h"
#include "ops/op_util.h"

#include <string.h>

typedef struct args_of {
    const pf_derive *fn;
    const void *args;
    int n_in;
    unsigned values; /* derive_grad: of which inputs the gradient is an output, not a sink */
} args_of;

/* Inputs of derive_grad: the inputs, the outputs (or NULL), their gradients, the sinks. */
enum { GRAD_OUT = PF_DERIVE_MAX, GRAD_D_OUT = GRAD_OUT + 2, GRAD_D_IN = GRAD_D_OUT + 2 };
enum { GRAD_N = GRAD_D_IN + PF_DERIVE_MAX };

peft_status pf_derive_emit(pf_graph *g, const char *name, const pf_derive *fn, const void *args,
                           pf_value *const *in, int n_in, pf_value **out, peft_error *err) {
    const args_of all = {fn, args, n_in, 0};
    pf_node *n;
    PF_ASSERT(n_in <= PF_DERIVE_MAX && fn->n_out <= 2);
    PF_TRY(pf_graph_emit(g, "derive", name, &all, in, n_in, &n, err));
    for (int i = 0; i < fn->n_out; i++) out[i] = n->out[i];
    return PEFT_OK;
}

pf_mat pf_mat_sizes(const pf_value *v) {
    if (v == NULL) return (pf_mat){0};
    return (pf_mat){
        .rows = v->rows, .cols = v->cols, .weight = v->kind == PF_VALUE_WEIGHT ? v->weight : NULL};
}

pf_mat pf_mat_of(const pf_exec *x, const pf_value *v) {
    pf_mat m = pf_mat_sizes(v);
    m.data = pf_exec_data(x, v);
    return m;
}

void pf_derive_place(pf_autodiff *ad, const pf_value *v, int i, pf_value **sink, unsigned *values) {
    *sink = NULL;
    if (!pf_grad_wanted(v)) return;
    if (v->kind == PF_VALUE_PARAM) {
        *sink = pf_grad_sink(ad, v);
    } else {
        *values |= 1u << i;
    }
}

peft_status pf_derive_grad_outs(pf_graph *g, pf_node *n, pf_value *const *in, int n_in,
                                unsigned values, peft_error *err) {
    for (int i = 0; i < n_in; i++) {
        if ((values >> i & 1u) == 0) continue;
        PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, in[i]->rows, in[i]->cols), err);
    }
    return PEFT_OK;
}

peft_status pf_derive_give(pf_autodiff *ad, pf_value *const *in, int n_in, unsigned values,
                           pf_value *const *out, peft_error *err) {
    for (int i = 0; i < n_in; i++) {
        if ((values >> i & 1u) != 0) PF_TRY(pf_grad_give(ad, in[i], *out++, err));
    }
    return PEFT_OK;
}

void pf_derive_grads(const pf_exec *x, pf_value *const *sinks, unsigned values,
                     pf_value *const *out, pf_mat *d) {
    for (int i = 0; i < PF_DERIVE_MAX; i++) {
        if ((values >> i & 1u) == 0) {
            d[i] = pf_mat_of(x, sinks[i]);
            continue;
        }
        d[i] = pf_mat_of(x, *out++);
        memset(d[i].data, 0, (size_t)(d[i].rows * d[i].cols) * sizeof(pf_real));
    }
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const args_of *a = n->args;
    pf_mat in[PF_DERIVE_MAX] = {0}, out[2] = {0};
    bool fits = true;
    for (int i = 0; i < n->n_in; i++) {
        in[i] = pf_mat_sizes(n->in[i]);
        fits = fits && n->in[i]->space == PF_SPACE_NONE;
    }
    if (!fits || !a->fn->shape(a->args, in, out))
        return PF_FAIL(err, PEFT_E_SHAPE, "%s: sizes do not fit (the first is %lld x %lld)",
                       a->fn->name, (long long)in[0].rows, (long long)in[0].cols);
    for (int i = 0; i < a->fn->n_out; i++)
        PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, out[i].rows, out[i].cols), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    args_of a = *(const args_of *)n->args;
    pf_value *in[GRAD_N] = {NULL};
    bool wanted = false;
    for (int i = 0; i < n->n_in; i++) {
        PF_TRY(pf_op_need(ad, n->in[i], &in[i], err));
        pf_derive_place(ad, n->in[i], i, &in[GRAD_D_IN + i], &a.values);
        wanted |= pf_grad_wanted(n->in[i]);
    }
    for (int i = 0; i < n->n_out; i++) {
        if (a.fn->reads_out) PF_TRY(pf_op_need(ad, n->out[i], &in[GRAD_OUT + i], err));
        in[GRAD_D_OUT + i] = pf_grad_of(ad, n->out[i]);
    }
    if (!wanted) return PEFT_OK;
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "derive_grad", n->name, &a, in, GRAD_N, &grad, err));
    return pf_derive_give(ad, n->in, n->n_in, a.values, grad->out, err);
}

static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const args_of *a = n->args;
    return pf_derive_grad_outs(g, n, n->in, a->n_in, a->values, err);
}

/* ---- running --------------------------------------------------------------------------------- */

static int64_t workspace(const pf_node *n, const int64_t *capacity, int n_workers) {
    (void)capacity;
    const args_of *a = n->args;
    pf_mat in[PF_DERIVE_MAX] = {0};
    for (int i = 0; i < a->n_in; i++) in[i] = pf_mat_sizes(n->in[i]);
    const int64_t own = a->fn->scratch == NULL ? 0 : a->fn->scratch(a->args, in, n_workers);
    return pf_gemm_workspace(n_workers) + own * (int64_t)sizeof(pf_real);
}

static pf_derive_run run_of(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const args_of *a = n->args;
    pf_derive_run r = {.args = a->args,
                       .pool = pf_exec_pool(x),
                       .isa = isa,
                       .gemm_room = x->workspace,
                       .scratch = (pf_real *)(void *)(x->workspace + pf_derive_gemm_room(x))};
    for (int i = 0; i < a->n_in; i++) r.in[i] = pf_mat_of(x, n->in[i]);
    return r;
}

static peft_status run(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const args_of *a = n->args;
    pf_derive_run r = run_of(x, n, isa);
    for (int i = 0; i < n->n_out; i++) r.out[i] = pf_mat_of(x, n->out[i]);
    a->fn->forward(&r);
    return PEFT_OK;
}

static peft_status run_grad(pf_exec *x, const pf_node *n, const pf_gemm_isa *isa) {
    const args_of *a = n->args;
    pf_derive_run r = run_of(x, n, isa);
    for (int i = 0; i < 2; i++) {
        r.out[i] = pf_mat_of(x, n->in[GRAD_OUT + i]);
        r.d_out[i] = pf_mat_of(x, n->in[GRAD_D_OUT + i]);
    }
    pf_derive_grads(x, n->in + GRAD_D_IN, a->values, n->out, r.d_in);
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

const pf_op pf_op_derive = {
    .name = "derive",
    .what = "matrices made of parameters by a method's function",
    .args_size = sizeof(args_of),
    .shape = shape,
    .vjp = vjp,
    .workspace = workspace,
    .kernels = kernels,
};

const pf_op pf_op_derive_grad = {
    .name = "derive_grad",
    .what = "its gradient, added to those of the parameters",
    .args_size = sizeof(args_of),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = grad_shape,
    .workspace = workspace,
    .kernels = grad_kernels,
};

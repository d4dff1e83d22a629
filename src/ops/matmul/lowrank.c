/* lowrank.c - the ops lowrank_down and lowrank_up with their gradients: shapes, vjps, costs, and
 * the fusion of those that share an input; see lowrank.h. */
#include "ops/matmul/lowrank.h"

#include "graph/fusion.h"
#include "ops/matmul/lowrank_kernels.h"
#include "ops/op_util.h"

peft_status pf_lowrank(pf_graph *g, const char *name, pf_value *base, pf_value *x, pf_value *a,
                       pf_value *b, const pf_lowrank_args *args, pf_value **y, peft_error *err) {
    const pf_lowrank_down_args down = {args->dropout, args->seed, args->mask_key, args->adapter,
                                       args->adapter_id};
    const pf_lowrank_up_args up = {args->scale, args->adapter, args->adapter_id};
    pf_value *s, *down_in[2] = {x, a};
    *y = NULL;
    PF_TRY(pf_op_emit(g, "lowrank_down", name, &down, down_in, 2, &s, err));
    pf_value *up_in[3] = {base, s, b};
    return pf_op_emit(g, "lowrank_up", name, &up, up_in, 3, y, err);
}

/* --- shapes ---------------------------------------------------------------------------------- */

static peft_status down_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_lowrank_down_args *args = n->args;
    const pf_value *x = n->in[0];
    for (int i = 1; i < n->n_in; i++) {
        if (n->in[i]->cols != x->cols)
            return PF_FAIL(err, PEFT_E_SHAPE, "A is %lld x %lld, but x has %lld columns",
                           (long long)n->in[i]->rows, (long long)n->in[i]->cols,
                           (long long)x->cols);
    }
    if (!(args->dropout >= 0 && args->dropout < 1))
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout is %g; it has to be in [0, 1)", args->dropout);
    if (args->dropout > 0 && x->space == PF_SPACE_NONE)
        return PF_FAIL(err, PEFT_E_SHAPE, "dropout needs rows of a batch");
    for (int i = 1; i < n->n_in; i++) pf_graph_out(g, n, x->space, x->rows, n->in[i]->rows);
    return PEFT_OK;
}

static peft_status up_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *base = n->in[0], *s = n->in[1], *b = n->in[2];
    if (b->rows != base->cols || s->cols != b->cols)
        return PF_FAIL(
            err, PEFT_E_SHAPE, "B is %lld x %lld, but y has %lld columns and A %lld rows",
            (long long)b->rows, (long long)b->cols, (long long)base->cols, (long long)s->cols);
    if (s->space != base->space || s->rows != base->rows)
        return PF_FAIL(err, PEFT_E_SHAPE, "x and the base's result have different rows");
    pf_op_out_like(g, n, base);
    return PEFT_OK;
}

static peft_status down_grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    (void)err;
    const pf_lowrank_down_grad_args *args = n->args;
    if (args->want_dx) pf_op_out_like(g, n, n->in[PF_DOWN_GRAD_X]);
    return PEFT_OK;
}

static peft_status up_grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_value *dy = n->in[0], *b = n->in[2];
    if (b->rows != dy->cols)
        return PF_FAIL(err, PEFT_E_SHAPE, "B is %lld x %lld, dy has %lld columns",
                       (long long)b->rows, (long long)b->cols, (long long)dy->cols);
    pf_graph_out(g, n, dy->space, dy->rows, b->cols);
    return PEFT_OK;
}

/* --- gradients ------------------------------------------------------------------------------- */

static peft_status down_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *x = n->in[0];
    const pf_lowrank_down_grad_args args = {*(const pf_lowrank_down_args *)n->args,
                                            pf_grad_wanted(x)};
    pf_value *in[PF_DOWN_GRAD_PAIRS + 3 * PF_LOWRANK_GROUP] = {0};
    int n_in = PF_DOWN_GRAD_PAIRS;
    bool wanted = args.want_dx;
    for (int i = 1; i < n->n_in; i++) {
        pf_value *ds = pf_grad_of(ad, n->out[i - 1]);
        if (ds == NULL) continue;
        in[n_in++] = n->in[i];
        in[n_in++] = ds;
        in[n_in++] = pf_grad_wanted(n->in[i]) ? pf_grad_sink(ad, n->in[i]) : NULL;
        wanted |= pf_grad_wanted(n->in[i]);
    }
    if (!wanted) return PEFT_OK;
    PF_TRY(pf_op_need(ad, x, &in[PF_DOWN_GRAD_X], err));
    if (args.want_dx) in[PF_DOWN_GRAD_ACC] = pf_grad_take(ad, x);
    pf_node *grad;
    PF_TRY(pf_graph_emit(pf_grad_graph(ad), "lowrank_down_grad", n->name, &args, in, n_in, &grad,
                         err));
    return args.want_dx ? pf_grad_give(ad, x, grad->out[0], err) : PEFT_OK;
}

static peft_status up_vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    pf_value *base = n->in[0], *s = n->in[1], *b = n->in[2], *dy = pf_grad_of(ad, n->out[0]);
    if (pf_grad_wanted(s) || pf_grad_wanted(b)) {
        pf_value *in[4] = {dy, NULL, b, NULL};
        if (pf_grad_wanted(b)) {
            PF_TRY(pf_op_need(ad, s, &in[1], err));
            in[3] = pf_grad_sink(ad, b);
        }
        pf_node *grad;
        PF_TRY(pf_graph_emit(pf_grad_graph(ad), "lowrank_up_grad", n->name, n->args, in, 4, &grad,
                             err));
        if (pf_grad_wanted(s)) PF_TRY(pf_grad_give(ad, s, grad->out[0], err));
    }
    return pf_grad_give(ad, base, dy, err);
}

/* --- costs ----------------------------------------------------------------------------------- */

static pf_cost cost_of(const pf_node *n, const int64_t *rows, double multiply_adds_per_row) {
    return (pf_cost){.flops = 2 * (double)pf_value_rows(n->in[0], rows) * multiply_adds_per_row,
                     .bytes = pf_op_elements(n, rows) * sizeof(pf_real)};
}

static pf_cost down_cost(const pf_node *n, const int64_t *rows) {
    double r = 0;
    for (int i = 1; i < n->n_in; i++) r += (double)n->in[i]->rows;
    return cost_of(n, rows, r * (double)n->in[0]->cols);
}

static pf_cost up_cost(const pf_node *n, const int64_t *rows) {
    return cost_of(n, rows, (double)n->in[2]->cols * (double)n->in[2]->rows);
}

static pf_cost down_grad_cost(const pf_node *n, const int64_t *rows) {
    const pf_lowrank_down_grad_args *args = n->args;
    double r = 0; /* dA, dx */
    for (int i = PF_DOWN_GRAD_PAIRS; i < n->n_in; i += 3)
        r += (double)n->in[i]->rows * ((n->in[i + 2] != NULL) + args->want_dx);
    return cost_of(n, rows, r * (double)n->in[PF_DOWN_GRAD_X]->cols);
}

static pf_cost up_grad_cost(const pf_node *n, const int64_t *rows) {
    const double products = n->in[3] != NULL ? 2 : 1; /* dS, dB */
    return cost_of(n, rows, products * (double)n->in[2]->cols * (double)n->in[2]->rows);
}

/* --- descriptors ----------------------------------------------------------------------------- */

const pf_op pf_op_lowrank_down = {
    .name = "lowrank_down",
    .what = "S = drop(x) Aᵀ for every A that shares x (Hu et al. 2021, arXiv 2106.09685, section "
            "4.1)",
    .args_size = sizeof(pf_lowrank_down_args),
    .shape = down_shape,
    .vjp = down_vjp,
    .cost = down_cost,
    .kernels = pf_lowrank_down_kernel_rows,
};

const pf_op pf_op_lowrank_down_grad = {
    .name = "lowrank_down_grad",
    .what = "dA += dSᵀ drop(x), dx = drop(sum of dS A) (+ acc)",
    .args_size = sizeof(pf_lowrank_down_grad_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = down_grad_shape,
    .cost = down_grad_cost,
    .in_place = PF_DOWN_GRAD_ACC + 1,
    .kernels = pf_lowrank_down_grad_kernel_rows,
};

const pf_op pf_op_lowrank_up = {
    .name = "lowrank_up",
    .what = "y = base + scale S Bᵀ",
    .args_size = sizeof(pf_lowrank_up_args),
    .shape = up_shape,
    .vjp = up_vjp,
    .cost = up_cost,
    .in_place = 1,
    .kernels = pf_lowrank_up_kernel_rows,
};

const pf_op pf_op_lowrank_up_grad = {
    .name = "lowrank_up_grad",
    .what = "dS = scale dy B, dB += scale dyᵀ S",
    .args_size = sizeof(pf_lowrank_up_args),
    .flags = PF_OP_SIDE_EFFECT,
    .shape = up_grad_shape,
    .cost = up_grad_cost,
    .kernels = pf_lowrank_up_grad_kernel_rows,
};

/* --- fusion ---------------------------------------------------------------------------------- */

/* Do two nodes draw the same mask for the same rows? */
static bool alike(const pf_lowrank_down_args *a, const pf_lowrank_down_args *b) {
    if (a->adapter != b->adapter || a->adapter_id != b->adapter_id || a->dropout != b->dropout)
        return false;
    return a->dropout == 0 || (a->seed == b->seed && a->mask_key == b->mask_key);
}

/* All lowrank_down of one x become one, where the first of them stands. */
static peft_status group(pf_graph *g, int i, bool *done, peft_error *err) {
    pf_node *first = g->nodes[i], *old[PF_LOWRANK_GROUP];
    if (first->op != &pf_op_lowrank_down || first->n_out > 1) return PEFT_OK;
    pf_value *in[1 + PF_LOWRANK_GROUP] = {first->in[0]}, *out[PF_LOWRANK_GROUP];
    int count = 0;
    for (pf_node *n = first; n != NULL && count < PF_LOWRANK_GROUP;
         n = pf_fusion_next_use(first->in[0], n)) {
        if (n->op != first->op || n->n_out > 1 || n->in[0] != first->in[0] ||
            n->block != first->block || !alike(n->args, first->args) ||
            (n != first && n->in[1]->kind == PF_VALUE_ACT))
            continue;
        in[1 + count] = n->in[1];
        out[count] = n->out[0];
        old[count++] = n;
    }
    if (count < 2) return PEFT_OK;
    *done = true;
    return pf_fusion_replace(g, "lowrank_down", first->args, in, 1 + count, out, count, old, count,
                             first, err);
}

const pf_fusion_rule pf_fusion_lowrank_group = {.name = "lowrank_group", .apply = group};

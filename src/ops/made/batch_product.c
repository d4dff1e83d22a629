/* batch_product.c - the op batch_product; see made.h. Its gradients are batch products too. */
#include "ops/made/made.h"
#include "ops/op_util.h"

typedef struct sizes { /* of one pair: a x b times b x c */
    int64_t a, b, c;
} sizes;

peft_status pf_batch_product(pf_graph *g, const char *name, pf_value *x, pf_value *y,
                             const pf_batch_product_args *args, pf_value **z, peft_error *err) {
    pf_value *in[2] = {x, y};
    return pf_op_emit(g, "batch_product", name, args, in, 2, z, err);
}

static sizes sizes_of(const pf_node *n) {
    const pf_batch_product_args *p = n->args;
    const pf_value *x = n->in[0], *y = n->in[1];
    const int64_t xr = x->rows / p->n, yr = y->rows / p->n;
    return (sizes){p->turn_x ? x->cols : xr, p->turn_x ? xr : x->cols, p->turn_y ? yr : y->cols};
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    const pf_batch_product_args *p = n->args;
    const pf_value *x = n->in[0], *y = n->in[1];
    if (x->space != PF_SPACE_NONE || y->space != PF_SPACE_NONE || x->rows % p->n != 0 ||
        y->rows % p->n != 0 || sizes_of(n).b != (p->turn_y ? y->cols : y->rows / p->n)) {
        return PF_FAIL(err, PEFT_E_SHAPE, "%lld pairs of %lld x %lld and %lld x %lld do not fit",
                       (long long)p->n, (long long)x->rows, (long long)x->cols, (long long)y->rows,
                       (long long)y->cols);
    }
    PF_CHECK_ALLOC(pf_graph_out(g, n, PF_SPACE_NONE, p->n * sizes_of(n).a, sizes_of(n).c), err);
    return PEFT_OK;
}

/* op(x_i) op(y_i) = z_i, so d op(x_i) = dz_i op(y_i)ᵀ and d op(y_i) = op(x_i)ᵀ dz_i */
static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    const pf_batch_product_args *p = n->args;
    pf_graph *g = pf_grad_graph(ad);
    pf_value *dz = pf_grad_of(ad, n->out[0]), *x, *y, *d;
    PF_TRY(pf_op_need(ad, n->in[0], &x, err));
    PF_TRY(pf_op_need(ad, n->in[1], &y, err));
    if (pf_grad_wanted(n->in[0])) {
        const pf_batch_product_args plain = {p->n, false, !p->turn_y},
                                    turned = {p->n, p->turn_y, true};
        PF_TRY(p->turn_x ? pf_batch_product(g, n->name, y, dz, &turned, &d, err)
                         : pf_batch_product(g, n->name, dz, y, &plain, &d, err));
        PF_TRY(pf_grad_give(ad, n->in[0], d, err));
    }
    if (pf_grad_wanted(n->in[1])) {
        const pf_batch_product_args plain = {p->n, !p->turn_x, false},
                                    turned = {p->n, true, p->turn_x};
        PF_TRY(p->turn_y ? pf_batch_product(g, n->name, dz, x, &turned, &d, err)
                         : pf_batch_product(g, n->name, x, dz, &plain, &d, err));
        PF_TRY(pf_grad_give(ad, n->in[1], d, err));
    }
    return PEFT_OK;
}

typedef struct job {
    sizes s;
    const pf_real *x, *y;
    pf_real *z;
    int64_t x_row, x_col, y_row, y_col; /* steps to the next row and column as read */
} job;

/* A task is a row of z. */
static void row_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const int64_t i = task / j->s.a, row = task % j->s.a;
    const pf_real *x = j->x + i * j->s.a * j->s.b + row * j->x_row, *y = j->y + i * j->s.b * j->s.c;
    pf_real *z = j->z + (int64_t)task * j->s.c;
    for (int64_t c = 0; c < j->s.c; c++) {
        double sum = 0;
        for (int64_t b = 0; b < j->s.b; b++)
            sum += (double)x[b * j->x_col] * (double)y[b * j->y_row + c * j->y_col];
        z[c] = (pf_real)sum;
    }
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    (void)err;
    const pf_batch_product_args *p = n->args;
    const sizes s = sizes_of(n);
    job j = {.s = s,
             .x = pf_exec_data(x, n->in[0]),
             .y = pf_exec_data(x, n->in[1]),
             .z = pf_exec_data(x, n->out[0]),
             .x_row = p->turn_x ? 1 : s.b,
             .x_col = p->turn_x ? s.a : 1,
             .y_row = p->turn_y ? 1 : s.c,
             .y_col = p->turn_y ? s.b : 1};
    pf_pool_run(pf_exec_pool(x), (int)(p->n * s.a), row_task, &j);
    return PEFT_OK;
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 2 * (double)sizes_of(n).b);
}

static const pf_kernel_row kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run},
    {0},
};

extern const pf_op pf_op_batch_product;

const pf_op pf_op_batch_product = {
    .name = "batch_product",
    .what = "z_i = x_i y_i",
    .args_size = sizeof(pf_batch_product_args),
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .kernels = kernels,
};

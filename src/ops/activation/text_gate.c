/* text_gate.c - the ops text_gate and text_gate_grad; see text_gate.h. A task owns a text, whose
 * sums go in the order of its rows. */
#include "ops/activation/text_gate.h"

#include "ops/op_util.h"

peft_status pf_text_gate(pf_graph *g, const char *name, pf_value *x, pf_value *z, pf_value **y,
                         peft_error *err) {
    pf_value *in[2] = {x, z};
    return pf_op_emit(g, "text_gate", name, NULL, in, 2, y, err);
}

static peft_status check(const pf_value *x, const pf_value *z, peft_error *err) {
    if (x->space != z->space || (x->space != PF_SPACE_TOKENS && x->space != PF_SPACE_SOURCE))
        return PF_FAIL(err, PEFT_E_SHAPE, "x and z have to be rows of the same texts");
    if (z->cols >= 1 && z->cols <= PF_TEXT_GATES && x->cols % z->cols == 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_SHAPE, "%lld gates for %lld columns", (long long)z->cols,
                   (long long)x->cols);
}

static peft_status shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(check(n->in[0], n->in[1], err));
    PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[0]), err);
    return PEFT_OK;
}

static peft_status vjp(pf_autodiff *ad, pf_node *n, peft_error *err) {
    return pf_op_pair_vjp(ad, n, "text_gate_grad", err);
}

/* dy, x, z -> dx, dz */
static peft_status grad_shape(pf_graph *g, pf_node *n, peft_error *err) {
    PF_TRY(pf_op_check_same(n->in[0], "dy", n->in[1], "x", err));
    PF_TRY(check(n->in[1], n->in[2], err));
    for (int i = 0; i < 2; i++) PF_CHECK_ALLOC(pf_op_out_like(g, n, n->in[1 + i]), err);
    return PEFT_OK;
}

/* ---- kernels --------------------------------------------------------------------------------- */

typedef struct job {
    const pf_batch *b;
    int64_t C, H;
    const pf_real *x, *z, *dy;
    pf_real *y, *dz;
} job;

static pf_real sigmoid(pf_real z) {
    return 1 / (1 + pf_rexp(-z));
}

/* Row i times the gates, from `from` to y. */
static void gate_row(const job *j, const pf_real *from, const pf_real *gate, int64_t i) {
    const int64_t width = j->C / j->H;
    for (int64_t h = 0; h < j->H; h++) {
        for (int64_t c = i * j->C + h * width; c < i * j->C + (h + 1) * width; c++)
            j->y[c] = from[c] * gate[h];
    }
}

/* d loss / d gate */
static void gate_grad(const job *j, int64_t first, int64_t end, pf_real *dg) {
    const int64_t width = j->C / j->H;
    for (int64_t i = first; i < end; i++) {
        for (int64_t h = 0; h < j->H; h++) {
            pf_real dot = 0;
            for (int64_t c = i * j->C + h * width; c < i * j->C + (h + 1) * width; c++)
                dot += j->dy[c] * j->x[c];
            dg[h] += dot;
        }
    }
}

static void text_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_segment *s = &j->b->segments[task];
    const int64_t first = s->start, end = first + s->length, H = j->H;
    const pf_real share = 1 / (pf_real)s->length;
    pf_real gate[PF_TEXT_GATES] = {0}, dg[PF_TEXT_GATES] = {0};
    for (int64_t k = first * H; k < end * H; k++) gate[k % H] += sigmoid(j->z[k]);
    for (int64_t h = 0; h < H; h++) gate[h] *= share;
    if (j->dy != NULL) gate_grad(j, first, end, dg); /* before y, which may be dy's room */
    for (int64_t i = first; i < end; i++) gate_row(j, j->dy != NULL ? j->dy : j->x, gate, i);
    for (int64_t k = first * H; j->dz != NULL && k < end * H; k++) {
        const pf_real one = sigmoid(j->z[k]);
        j->dz[k] = dg[k % H] * share * one * (1 - one);
    }
}

static peft_status launch(pf_exec *x, const pf_node *n, int first, bool back, peft_error *err) {
    const job j = {.b = pf_batch_of_space(x->batch, n->in[first]->space),
                   .C = n->in[first]->cols,
                   .H = n->in[first + 1]->cols,
                   .x = pf_exec_data(x, n->in[first]),
                   .z = pf_exec_data(x, n->in[first + 1]),
                   .dy = back ? pf_exec_data(x, n->in[0]) : NULL,
                   .y = pf_exec_data(x, n->out[0]),
                   .dz = back ? pf_exec_data(x, n->out[1]) : NULL};
    for (int s = 0; j.b != NULL && s < j.b->n_segments; s++) {
        if (j.b->segments[s].parent < 0) continue;
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: a gate (use_gating) is an average over a whole text, and here several "
                       "texts share their first rows; set data.share_prefixes=never, and train no "
                       "prompt beside it",
                       n->name);
    }
    if (j.b != NULL) pf_pool_run(pf_exec_pool(x), j.b->n_segments, text_task, (void *)&j);
    return PEFT_OK;
}

static peft_status run(pf_exec *x, const pf_node *n, peft_error *err) {
    return launch(x, n, 0, false, err);
}

static peft_status run_grad(pf_exec *x, const pf_node *n, peft_error *err) {
    return launch(x, n, 1, true, err);
}

static pf_cost cost(const pf_node *n, const int64_t *rows) {
    return pf_op_elementwise_cost(n, rows, 3);
}

static const pf_kernel_row kernels[] = {{.backend = "cpu", .name = "reference", .run = run}, {0}};
static const pf_kernel_row grad_kernels[] = {
    {.backend = "cpu", .name = "reference", .run = run_grad}, {0}};

extern const pf_op pf_op_text_gate, pf_op_text_gate_grad;

const pf_op pf_op_text_gate = {
    .name = "text_gate",
    .what = "y[i] = x[i] times the mean of sigmoid(z) over the rows of i's text",
    .flags = PF_OP_CHEAP,
    .shape = shape,
    .vjp = vjp,
    .cost = cost,
    .in_place = 1,
    .kernels = kernels,
};

const pf_op pf_op_text_gate_grad = {
    .name = "text_gate_grad",
    .what = "dx[i] = dy[i] times the mean, dz[j] = (sum of dy . x) s (1 - s) / rows",
    .shape = grad_shape,
    .cost = cost,
    .kernels = grad_kernels,
};

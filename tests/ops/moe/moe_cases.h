/* moe_cases.h - cases of route, dispatch, combine and gate_rows, for test_moe_ops.c and its double
 * twin: whole mixtures of linear experts, so that every path of the gradient is in. */
#include "op_harness.h"

#include "ops/matmul/linear.h"
#include "ops/loss/head_ce.h"
#include "ops/moe/router_aux.h"

static const char *const expert_names[] = {"w0", "w1", "w2", "w3", "w4",  "w5",
                                           "w6", "w7", "w8", "w9", "w10", "w11"};

typedef struct moe_case {
    int64_t C;
    int n, top_k;
    bool normalize;
    bool lonely; /* logits that leave some experts without rows */
} moe_case;

static peft_status build_moe(op_fixture *f, pf_value **root, peft_error *err) {
    const moe_case *a = op_args(f);
    pf_graph *g = op_graph(f);
    pf_value *x = op_rows(f, "x", a->C, 0, 1), *logits, *in[16], *out[16];
    pf_routes r;
    PF_TRY(pf_linear(g, "router", x, op_param(f, "router", a->n, a->C, 0, a->lonely ? 0.01 : 0.6),
                     NULL, &logits, err));
    if (a->lonely) {
        pf_value *bias = op_param(f, "bias", 1, a->n, 0, 4);
        PF_TRY(pf_add_bias(g, "router", logits, bias, &logits, err));
    }
    const pf_route_args args = {.n = a->n, .top_k = a->top_k, .normalize = a->normalize};
    PF_TRY(pf_route(g, "route", logits, &args, &r, err));
    PF_TRY(pf_dispatch(g, "dispatch", &r, x, in, err));
    for (int e = 0; e < a->n; e++) {
        const char *name = expert_names[e];
        /* an expert without rows has no gradient, which the harness would take for a mistake */
        pf_value *w = a->lonely ? op_weight(f, name, a->C, a->C, PF_DTYPE_F32, 0, 0.5)
                                : op_param(f, name, a->C, a->C, 0, 0.5);
        PF_TRY(pf_linear(g, name, in[e], w, NULL, &out[e], err));
    }
    return pf_combine(g, "combine", &r, out, root, err);
}

/* Every expert on every row, weighted by what a sort of the probabilities leaves. */
static void moe_oracle(const op_fixture *f, pf_real *root) {
    const moe_case *a = op_args(f);
    const pf_real *x = op_numbers(f, "x"), *w = op_numbers(f, "router"),
                  *bias = op_numbers(f, "bias");
    for (int32_t t = 0; t < op_batch(f)->n_tokens; t++) {
        double p[16], sum = 0, chosen = 0, most = -1e300;
        bool taken[16] = {false};
        for (int e = 0; e < a->n; e++) {
            p[e] = bias != NULL ? (double)bias[e] : 0;
            for (int64_t c = 0; c < a->C; c++)
                p[e] += (double)x[t * a->C + c] * (double)w[e * a->C + c];
            most = fmax(most, p[e]);
        }
        for (int e = 0; e < a->n; e++) sum += p[e] = exp(p[e] - most);
        for (int k = 0; k < a->top_k; k++) {
            int best = -1;
            for (int e = 0; e < a->n; e++)
                if (!taken[e] && (best < 0 || p[e] > p[best])) best = e;
            taken[best] = true;
            chosen += p[best];
        }
        for (int64_t c = 0; c < a->C; c++) {
            double y = 0;
            for (int e = 0; e < a->n; e++) {
                const pf_real *we = op_numbers(f, expert_names[e]) + c * a->C;
                double o = 0;
                for (int64_t i = 0; i < a->C; i++) o += (double)we[i] * (double)x[t * a->C + i];
                if (taken[e]) y += p[e] / (a->normalize ? chosen : sum) * o;
            }
            root[t * a->C + c] = (pf_real)y;
        }
    }
}

/* A loss per label and the routers of two layers. */
static peft_status build_aux(op_fixture *f, pf_value **root, peft_error *err) {
    pf_graph *g = op_graph(f);
    const pf_route_args args = {.n = 5, .top_k = 2, .normalize = true};
    pf_value *x = op_rows(f, "x", 8, 0, 1), *nll, *logits;
    pf_routes r[2];
    PF_TRY(pf_gather_labels(g, "nll", op_rows(f, "nll", 1, 2, 1), &nll, err));
    for (int l = 0; l < 2; l++) {
        pf_value *w = op_param(f, l == 0 ? "w0" : "w1", 5, 8, 0, 0.6);
        PF_TRY(pf_linear(g, "router", x, w, NULL, &logits, err));
        PF_TRY(pf_route(g, "route", logits, &args, &r[l], err));
    }
    return pf_router_aux(g, "aux", nll, r, 2, 0.5, root, err);
}

static void aux_oracle(const op_fixture *f, pf_real *root) {
    const pf_batch *b = op_batch(f);
    const pf_real *x = op_numbers(f, "x"), *nll = op_numbers(f, "nll");
    const double rows = 2 * (double)b->n_tokens;
    double share[5] = {0}, mean[5] = {0}, aux = 0;
    for (int l = 0; l < 2; l++) {
        const pf_real *w = op_numbers(f, expert_names[l]);
        for (int32_t t = 0; t < b->n_tokens; t++) {
            double p[5], sum = 0;
            int first = 0, second = -1;
            for (int e = 0; e < 5; e++) {
                p[e] = 0;
                for (int c = 0; c < 8; c++) p[e] += (double)x[t * 8 + c] * (double)w[e * 8 + c];
                sum += p[e] = exp(p[e]);
            }
            for (int e = 1; e < 5; e++) first = p[e] > p[first] ? e : first;
            for (int e = 0; e < 5; e++)
                if (e != first && (second < 0 || p[e] > p[second])) second = e;
            share[first] += 1 / rows;
            share[second] += 1 / rows;
            for (int e = 0; e < 5; e++) mean[e] += p[e] / sum / rows;
        }
    }
    for (int e = 0; e < 5; e++) aux += 5 * share[e] * mean[e];
    for (int32_t e = 0; e < b->n_labels; e++)
        root[e] = (pf_real)((double)nll[b->label_row[e]] + 0.5 * aux);
}

static peft_status build_gate(op_fixture *f, pf_value **root, peft_error *err) {
    return pf_gate_rows(op_graph(f), "gate", op_rows(f, "x", 37, 0, 1), op_rows(f, "z", 1, 0, 2),
                        root, err);
}

static void gate_oracle(const op_fixture *f, pf_real *root) {
    const pf_real *x = op_numbers(f, "x"), *z = op_numbers(f, "z");
    for (int64_t i = 0; i < op_batch(f)->n_tokens * 37; i++)
        root[i] = (pf_real)((double)x[i] / (1 + exp(-(double)z[i / 37])));
}

static const moe_case moe_4x2 = {12, 4, 2, true, false}, moe_5x1 = {8, 5, 1, false, false},
                      moe_8x3 = {10, 8, 3, false, false}, moe_all = {6, 3, 3, true, false},
                      moe_lonely = {7, 12, 2, true, true};

static const op_case moe_cases[] = {
    {OP_CASE("moe/two_of_four", &op_batch_plain, build_moe, &moe_4x2), .oracle = moe_oracle},
    {OP_CASE("moe/tree", &op_batch_tree, build_moe, &moe_4x2), .oracle = moe_oracle},
    {OP_CASE("moe/one_of_five", &op_batch_plain, build_moe, &moe_5x1), .oracle = moe_oracle},
    {OP_CASE("moe/three_of_eight", &op_batch_plain, build_moe, &moe_8x3), .oracle = moe_oracle},
    {OP_CASE("moe/all", &op_batch_plain, build_moe, &moe_all), .oracle = moe_oracle},
    {OP_CASE("moe/experts_without_rows", &op_batch_plain, build_moe, &moe_lonely),
     .oracle = moe_oracle, .n_fused = 1},
    {OP_CASE("router_aux", &op_batch_plain, build_aux, NULL), .oracle = aux_oracle},
    {OP_CASE("gate_rows", &op_batch_plain, build_gate, NULL), .oracle = gate_oracle},
};

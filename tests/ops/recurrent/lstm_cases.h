/* lstm_cases.h - cases of lstm, for test_lstm_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/recurrent/lstm.h"

typedef struct lstm_case {
    int64_t H;
    pf_lstm_args args;
} lstm_case;

static peft_status build_lstm(op_fixture *f, pf_value **root, peft_error *err) {
    const lstm_case *a = op_args(f);
    pf_value *gates = op_rows(f, "gates", 4 * a->H, 0, 1);
    pf_value *w = op_param(f, "w", 4 * a->H, a->H, 0, 0.4);
    return pf_lstm(op_graph(f), "lstm", gates, w, &a->args, root, err);
}

/* Written from torch's formula, gate by gate. */
static void lstm_oracle(const op_fixture *f, pf_real *root) {
    const lstm_case *a = op_args(f);
    const pf_real *x = op_numbers(f, "gates"), *w = op_numbers(f, "w");
    const int64_t H = a->H, T = op_batch(f)->n_tokens;
    double h[64] = {0}, c[64] = {0}, next[64];
    for (int64_t t = 0; t < T; t++) {
        const int64_t row = a->args.reverse ? T - 1 - t : t;
        for (int64_t i = 0; i < H; i++) {
            double z[4];
            for (int k = 0; k < 4; k++) {
                z[k] = (double)x[row * 4 * H + k * H + i];
                for (int64_t j = 0; j < H; j++) z[k] += (double)w[(k * H + i) * H + j] * h[j];
            }
            c[i] = c[i] / (1 + exp(-z[1])) + tanh(z[2]) / (1 + exp(-z[0]));
            next[i] = tanh(c[i]) / (1 + exp(-z[3]));
        }
        for (int64_t i = 0; i < H; i++) {
            h[i] = next[i];
            root[row * H + i] = (pf_real)h[i];
        }
    }
}

static const lstm_case forward_8 = {8, {false}}, reverse_5 = {5, {true}};

/* one root: the order of the rows is what the op is about */
static const op_case lstm_cases[] = {
    {OP_CASE("lstm/forward", &op_batch_prompt, build_lstm, &forward_8), .oracle = lstm_oracle},
    {OP_CASE("lstm/reverse", &op_batch_prompt, build_lstm, &reverse_5), .oracle = lstm_oracle},
};

/* text_gate_cases.h - cases of text_gate, for test_text_gate_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/activation/text_gate.h"

typedef struct gate_case {
    int64_t cols, gates;
} gate_case;

static peft_status build_gate(op_fixture *f, pf_value **root, peft_error *err) {
    const gate_case *c = op_args(f);
    return pf_text_gate(op_graph(f), "gate", op_rows(f, "x", c->cols, 0, 1),
                        op_rows(f, "z", c->gates, 0.3, 2), root, err);
}

static void gate_oracle(const op_fixture *f, pf_real *root) {
    const gate_case *c = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *x = op_numbers(f, "x"), *z = op_numbers(f, "z");
    for (int32_t i = 0; i < b->n_tokens; i++) {
        const pf_segment *s = &b->segments[b->seg[i]];
        for (int64_t k = 0; k < c->cols; k++) {
            double sum = 0;
            for (int32_t j = s->start; j < s->start + s->length; j++)
                sum += 1 / (1 + exp(-(double)z[j * c->gates + k / (c->cols / c->gates)]));
            root[i * c->cols + k] = (pf_real)((double)x[i * c->cols + k] * sum / s->length);
        }
    }
}

static const gate_case gate_one = {37, 1}, gate_wide = {576, 1}, gate_three = {48, 3};

static const op_case text_gate_cases[] = {
    {OP_CASE("text_gate", &op_batch_plain, build_gate, &gate_wide), .oracle = gate_oracle},
    {OP_CASE("text_gate/odd", &op_batch_plain, build_gate, &gate_one), .oracle = gate_oracle},
    {OP_CASE("text_gate/three", &op_batch_plain, build_gate, &gate_three), .oracle = gate_oracle},
};

/* op_fixture.h - one case built and ready to run; internal to the harness. */
#ifndef OP_FIXTURE_H
#define OP_FIXTURE_H

#include "op_harness.h"

#include "base/cpu.h"

/* The arrays of a batch. `row_key` and `label_key` name rows and entries independently of the order
 * of the samples. */
typedef struct op_batch_data {
    pf_batch b;
    int32_t *row_key, *label_key;
} op_batch_data;

/* Roots in reverse order when asked for. Labels: every token but the last predicts the next one,
 * and the last row of a prefix the first token of every child. */
op_batch_data *op_batch_make(pf_arena *a, const op_batch_spec *spec, bool reversed);

typedef struct op_input {
    const char *name;
    pf_param *param;
    pf_real *data; /* states, and weights before they are narrowed */
    int64_t rows, cols;
    double mean, scale;
} op_input;

enum { OP_MOST_INPUTS = 24 };

struct op_fixture {
    const op_case *c;
    pf_arena arena;
    op_batch_data *batch;
    pf_graph *g;
    pf_params params;
    op_input inputs[OP_MOST_INPUTS];
    int n_inputs;
    pf_value *root, *seed;
    pf_backend *backend;
    pf_exec *exec;
    int n_fused;
};

typedef struct op_way {
    pf_isa isa;
    int threads;
    bool fuse, reversed, forward_only;
    pf_save_policy policy;
} op_way;

/* Builds the case, fills inputs and seed; fails the running test on any error. */
op_fixture *op_fixture_new(const op_case *c, op_way way);
void op_fixture_free(op_fixture *f);
/* Runs the forward pass, and the backward pass from zeroed gradients unless the way is
 * forward_only. */
void op_fixture_run(op_fixture *f);
/* sum of seed · root after a forward pass */
double op_fixture_loss(op_fixture *f);
const pf_real *op_fixture_root(const op_fixture *f, int64_t *rows, int64_t *cols);

#endif

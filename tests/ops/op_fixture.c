/* op_fixture.c - builds a case: graph, inputs, seed, plan; see op_fixture.h. */
#include "op_fixture.h"

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/str.h"
#include "ops/embed/embed.h"
#include "ops/matmul/linear.h"
#include "ops/op_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static pf_rng_key key_of(const char *name) {
    uint64_t h = 1469598103934665603u;
    for (; *name != 0; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return pf_rng_make_key(h, PF_RNG_DATA, 0);
}

static void fill_numbers(const op_input *in, pf_real *data) {
    pf_rng_key key = key_of(in->name);
    /* rounded to float, so that both precisions work on the same numbers */
    for (int64_t i = 0; i < in->rows * in->cols; i++) {
        data[i] = (float)(in->mean + in->scale * pf_rng_normal_at(key, (uint64_t)i));
    }
}

static op_input *new_input(op_fixture *f, const char *name, int64_t rows, int64_t cols, double mean,
                           double scale) {
    assert_true(f->n_inputs < OP_MOST_INPUTS);
    op_input *in = &f->inputs[f->n_inputs++];
    *in = (op_input){.name = name, .rows = rows, .cols = cols, .mean = mean, .scale = scale};
    return in;
}

static void must(peft_status status, const peft_error *err) {
    if (status != PEFT_OK) fail_msg("%s", err->message);
}

pf_graph *op_graph(op_fixture *f) {
    return f->g;
}
const void *op_args(const op_fixture *f) {
    return f->c->args;
}
const pf_batch *op_batch(const op_fixture *f) {
    return &f->batch->b;
}

pf_value *op_param(op_fixture *f, const char *name, int64_t rows, int64_t cols, double mean,
                   double scale) {
    peft_error err = {0};
    op_input *in = new_input(f, name, rows, cols, mean, scale);
    must(pf_params_add(&f->params, name, rows, cols, &in->param, &err), &err);
    return pf_graph_param(f->g, in->param);
}

pf_value *op_rows(op_fixture *f, const char *name, int64_t cols, double mean, double scale) {
    peft_error err = {0};
    pf_value *y, *table = op_param(f, name, f->batch->b.n_tokens, cols, mean, scale);
    must(pf_embed(f->g, name, table, &y, &err), &err);
    return y;
}

pf_value *op_source_rows(op_fixture *f, const char *name, int64_t cols, double mean, double scale) {
    peft_error err = {0};
    pf_value *y, *table = op_param(f, name, f->batch->b.source->n_tokens, cols, mean, scale);
    must(pf_embed_rows(f->g, name, table, PF_SPACE_SOURCE, &y, &err), &err);
    return y;
}

pf_value *op_weight(op_fixture *f, const char *name, int64_t rows, int64_t cols, pf_dtype type,
                    double mean, double scale) {
    op_input *in = new_input(f, name, rows, cols, mean, scale);
    size_t n = (size_t)(rows * cols), bytes;
    assert_true(pf_dtype_bytes(type, n, &bytes));
    in->data = PF_NEW_ARRAY(&f->arena, pf_real, n);
    float *wide = PF_NEW_ARRAY(&f->arena, float, n);
    void *stored = pf_arena_aligned(&f->arena, bytes, 64);
    pf_weight *w = PF_NEW(&f->arena, pf_weight);
    assert_true(in->data != NULL && wide != NULL && stored != NULL && w != NULL);
    fill_numbers(in, in->data);
    for (size_t i = 0; i < n; i++) wide[i] = (float)in->data[i];
    pf_dtype_from_f32(type, wide, n, stored);
    pf_dtype_to_f32(type, stored, n, wide);
    for (size_t i = 0; i < n; i++) in->data[i] = wide[i];
    *w = pf_weight_of(name, type, stored, rows, cols);
    return pf_graph_weight(f->g, w);
}

pf_value *op_state(op_fixture *f, const char *name, int64_t rows, int64_t cols, double mean,
                   double scale) {
    op_input *in = new_input(f, name, rows, cols, mean, scale);
    in->data = pf_arena_aligned(&f->arena, (size_t)(rows * cols) * sizeof(pf_real), 64);
    assert_non_null(in->data);
    fill_numbers(in, in->data);
    return pf_graph_state(f->g, name, rows, cols, in->data);
}

const pf_real *op_numbers(const op_fixture *f, const char *name) {
    for (int i = 0; i < f->n_inputs; i++) {
        const op_input *in = &f->inputs[i];
        if (pf_streq(in->name, name)) return in->param != NULL ? in->param->data : in->data;
    }
    return NULL;
}

static void fill_seed(op_fixture *f, int64_t rows, int64_t cols) {
    pf_rng_key key = key_of("seed");
    for (int64_t i = 0; i < rows; i++) {
        int32_t name =
            f->root->space == PF_SPACE_TOKENS ? f->batch->row_key[i] : f->batch->label_key[i];
        for (int64_t c = 0; c < cols; c++) {
            f->seed->external[i * cols + c] =
                (float)pf_rng_normal_at(key, (uint64_t)(name * cols + c));
        }
    }
}

op_fixture *op_fixture_new(const op_case *c, op_way way) {
    peft_error err = {0};
    pf_cpu_force(way.isa);
    op_fixture *f = pf_calloc(1, sizeof *f);
    assert_non_null(f);
    f->c = c;
    pf_arena_init(&f->arena, "fixture");
    pf_params_init(&f->params);
    f->batch = op_batch_make(&f->arena, c->batch, way.reversed);
    const pf_batch *b = &f->batch->b;

    must(pf_graph_new(&f->g, pf_op_table, &err), &err);
    f->g->params = way.forward_only ? NULL : &f->params;
    f->g->compute = c->compute;
    f->g->block = 0; /* so that PF_SAVE_CHECKPOINT recomputes */
    must(c->build(f, &f->root, &err), &err);
    f->root->result = true;
    must(pf_params_seal(&f->params, true, &err), &err);
    for (int i = 0; i < f->n_inputs; i++) {
        if (f->inputs[i].param != NULL) fill_numbers(&f->inputs[i], f->inputs[i].param->data);
    }
    if (way.fuse) must(pf_fusion_run(f->g, pf_fusion_table, &f->n_fused, &err), &err);

    int64_t rows = f->root->space == PF_SPACE_TOKENS ? b->n_tokens : b->n_labels,
            cols = f->root->cols;
    assert_true(f->root->space != PF_SPACE_NONE);
    pf_real *seed = pf_arena_aligned(&f->arena, (size_t)(rows * cols) * sizeof *seed, 64);
    assert_non_null(seed);
    f->seed = pf_graph_input(f->g, "seed", f->root->space, cols, seed);
    if (!way.forward_only) must(pf_autodiff_run(f->g, f->root, f->seed, way.policy, &err), &err);
    fill_seed(f, rows, cols);

    must(pf_backend_open_cpu(&f->backend, way.threads, &err), &err);
    int64_t capacity[PF_SPACE_COUNT] = {[PF_SPACE_TOKENS] = b->n_tokens,
                                        [PF_SPACE_LABELS] = b->n_labels,
                                        [PF_SPACE_SOURCE] =
                                            b->source != NULL ? b->source->n_tokens : 0};
    must(pf_exec_new(&f->exec, f->g, f->backend, capacity, &err), &err);
#ifndef PF_DOUBLE
    must(pf_linear_prepare(f->g, f->backend->pool, &err), &err);
#endif
    must(pf_exec_bind(f->exec, b, &err), &err);
    f->exec->check_finite = !c->only_bench;
    f->exec->training = true;
    return f;
}

void op_fixture_free(op_fixture *f) {
    if (f == NULL) return;
    pf_exec_free(f->exec);
    pf_backend_close(f->backend);
    pf_graph_free(f->g);
    pf_params_release(&f->params);
    pf_arena_release(&f->arena);
    pf_free(f);
}

void op_fixture_run(op_fixture *f) {
    peft_error err = {0};
    must(pf_exec_forward(f->exec, &err), &err);
    if (f->g->params == NULL) return;
    pf_params_zero_grad(&f->params);
    must(pf_exec_backward(f->exec, &err), &err);
}

const pf_real *op_fixture_root(const op_fixture *f, int64_t *rows, int64_t *cols) {
    *rows = pf_exec_rows(f->exec, f->root);
    *cols = f->root->cols;
    return pf_exec_data(f->exec, f->root);
}

double op_fixture_loss(op_fixture *f) {
    peft_error err = {0};
    must(pf_exec_forward(f->exec, &err), &err);
    int64_t rows, cols;
    const pf_real *root = op_fixture_root(f, &rows, &cols);
    double sum = 0;
    for (int64_t i = 0; i < rows * cols; i++) sum += (double)root[i] * (double)f->seed->external[i];
    return sum;
}

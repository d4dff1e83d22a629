/* op_harness.h - one harness for all ops (the idea of ggml's test-backend-ops).
 *
 * A test file is a list of cases. A case builds a small graph around an op from random inputs; the
 * harness does the rest:
 *
 *   test_*_ops.c      (float)   reference kernels against the fast ones of every instruction set
 * that this processor has, forward and backward; the same bits on 1, 2 and 3 threads, under every
 * saving policy, and for every row when the samples of the batch change places; fused against plain
 * graphs test_*_ops_f64.c  (double)  gradients against central differences; the forward pass
 * against the case's oracle
 *   --bench           (float)   time per op: test_attention_ops --bench [part of a case's name]
 * [--threads N]
 *
 * The twin files include one header with the cases and call op_harness_main. Inputs that need a
 * gradient are parameters; rows of the token space are made from one by `embed` with the row's own
 * number as its id, so that gradients of activations can be looked at as gradients of a parameter.
 */
#ifndef OP_HARNESS_H
#define OP_HARNESS_H

#include "graph/autodiff.h"
#include "graph/exec.h"

/* The segments of a batch in pre-order. parent is an index into the list; `pos` is where a root's
 * positions begin. */
typedef struct op_seg {
    int32_t length, parent, pos;
} op_seg;

/* External rows [ext, ext + length) from position pos on, seen by the subtree of segment `seg`. */
typedef struct op_ext {
    int32_t ext, length, pos, seg;
} op_ext;

typedef struct op_batch_spec {
    const char *name;
    const op_seg *segs;
    int n_segs;
    const op_ext *ext;
    int n_ext;
    int32_t ext_rows;
    const op_seg *source; /* segments of the source's rows */
    int n_source;
    const op_ext *cross; /* which of these rows the subtree of `seg` sees */
    int n_cross;
    int32_t n_prompt;    /* rows of the first segment, when it is a learned prompt */
    int32_t prompt_each; /* first rows of every root (of the source's, where there is one) */
} op_batch_spec;

extern const op_batch_spec op_batch_plain; /* three samples, one of them a single token */
extern const op_batch_spec op_batch_tree;  /* trees three deep, one-token children, a long prefix */
extern const op_batch_spec op_batch_prompt;      /* the first segment is a learned prompt */
extern const op_batch_spec op_batch_each;        /* every sample begins with a learned prompt */
extern const op_batch_spec op_batch_each_source; /* every source does */
extern const op_batch_spec op_batch_one;         /* one tree: fewer tasks than threads */
extern const op_batch_spec op_batch_ext;    /* a learned prefix and caches before plain samples */
extern const op_batch_spec op_batch_source; /* decoder samples of two sources, one seen by two */
extern const op_batch_spec op_batch_512;    /* one sample, for timing */
extern const op_batch_spec op_batch_2048;
extern const op_batch_spec op_batch_8192;
extern const op_batch_spec op_batch_short;   /* 32 samples of 32 */
extern const op_batch_spec op_batch_answers; /* 8 prompts of 48 with 7 answers of 12 each */

typedef struct op_fixture op_fixture;
typedef struct op_case op_case;

struct op_case {
    const char *name;
    const op_batch_spec *batch;
    /* Emits the op under test; the value that it returns in *root is what the loss is made of. */
    peft_status (*build)(op_fixture *f, pf_value **root, peft_error *err);
    const void *args;   /* for build, see op_args */
    double tol;         /* fast against reference: largest difference by largest number; 0: 1e-5 */
    double grad_tol;    /* central differences, likewise; 0: 1e-6 */
    int n_fused;        /* how often fusion rules should fire */
    bool only_bench;    /* too big for a test */
    pf_compute compute; /* of products with frozen weights; with a tol that fits it */
    /* Writes what the root should be; NULL: none. Rows as in the fixture's batch. */
    void (*oracle)(const op_fixture *f, pf_real *root);
};

/* {OP_CASE("name", &batch, build, &args), .n_fused = 1} */
#define OP_CASE(name_, batch_, build_, args_)                                                      \
    .name = (name_), .batch = (batch_), .build = (build_), .args = (args_)

/* --- for build and oracle --------------------------------------------------------------------- */
pf_graph *op_graph(op_fixture *f);
const void *op_args(const op_fixture *f);
const pf_batch *op_batch(const op_fixture *f);
/* Normal numbers around `mean`, a function of the name: the same in every run of the case. */
pf_value *op_rows(op_fixture *f, const char *name, int64_t cols, double mean,
                  double scale); /* token rows */
pf_value *op_source_rows(op_fixture *f, const char *name, int64_t cols, double mean,
                         double scale); /* rows of the source */
pf_value *op_param(op_fixture *f, const char *name, int64_t rows, int64_t cols, double mean,
                   double scale);
pf_value *op_weight(op_fixture *f, const char *name, int64_t rows, int64_t cols, pf_dtype type,
                    double mean, double scale);
pf_value *op_state(op_fixture *f, const char *name, int64_t rows, int64_t cols, double mean,
                   double scale);
/* The numbers of op_rows (in the order of the batch's ids), op_param, op_state; NULL for an unknown
 * name. */
const pf_real *op_numbers(const op_fixture *f, const char *name);

int op_harness_main(int argc, char **argv, const op_case *cases, int n_cases);

#endif

/* graph.h - the computation as data: values, nodes, and what an op is.
 *
 * A model emits coarse, plain ops into a builder. Passes then work on the list of nodes: fusion
 * (fusion.h), gradients (autodiff.h), the memory plan (plan.h); the executor (exec.h) runs the
 * planned list. The graph knows no op: whatever depends on the kind of a node goes through
 * node->op.
 *
 * A value is a matrix of pf_real: rows x cols. Its rows are a row space (tokens, labels, ...:
 * capacity planned, count known at run time) or a fixed number. A value is written by one node
 * (single assignment) or comes from outside:
 *
 *   ACT     made by a node, lives in the arena of the plan
 *   WEIGHT  frozen base weight, mapped, any storage type
 *   PARAM   trainable, lives in a pf_params block; has a gradient unless it is frozen
 *   GRAD    the gradient block of a PARAM; ops that feed it add to it (+=), in a fixed order
 *   STATE   a buffer that outlives a run: rows of a KV cache or of a learned prefix. Written by
 * kv_store only INPUT   filled by the caller between runs: the coefficients of the label entries
 *
 * Lifetime: everything lives in the graph's arena, until pf_graph_free. Pointers are stable. */
#ifndef PF_GRAPH_H
#define PF_GRAPH_H

#include "base/arena.h"
#include "graph/batch.h"
#include "graph/param.h"
#include "graph/routed.h"
#include "tensor/compute.h"
#include "tensor/weight.h"

#include <stdbool.h>

typedef struct pf_graph pf_graph;
typedef struct pf_node pf_node;
typedef struct pf_value pf_value;
typedef struct pf_op pf_op;
typedef struct pf_exec pf_exec;
typedef struct pf_autodiff pf_autodiff;

typedef enum pf_value_kind {
    PF_VALUE_ACT,
    PF_VALUE_WEIGHT,
    PF_VALUE_PARAM,
    PF_VALUE_GRAD,
    PF_VALUE_STATE,
    PF_VALUE_INPUT
} pf_value_kind;

struct pf_value {
    int id;
    pf_value_kind kind;
    const char *name; /* "layers.3.self_attn.q_proj", for messages and the profile */
    int space;        /* row space, or PF_SPACE_NONE */
    int64_t rows;     /* when space is NONE */
    int64_t cols;
    pf_node *producer;       /* ACT only */
    const pf_weight *weight; /* WEIGHT */
    const float *row_scale;  /* WEIGHT: pf_weight_row_scales, for products in int8; else NULL */
    pf_param *param;         /* PARAM, GRAD */
    pf_real *external;       /* STATE, INPUT: where the numbers are; may be set after building */
    bool needs_grad;         /* something trainable lies above it */
    bool keep;               /* checkpoint boundary: saved even when all else is recomputed */
    bool selected;           /* saved under PF_SAVE_SELECTED (autodiff.h) */
    pf_value *packed;        /* what the backward pass keeps of it in bf16; NULL: itself */
    bool result;             /* read by the caller after a run: its room is not reused */
    struct pf_use *uses;     /* nodes of the forward pass that read it, the latest first */
    /* filled in by the plan */
    int64_t offset;  /* bytes into the arena, -1 when it needs no room */
    int first, last; /* nodes at which it is written first and used last */
    pf_value *home;  /* the value whose room it takes over (in-place ops), or itself */
};

typedef enum pf_phase { PF_PHASE_FORWARD, PF_PHASE_BACKWARD } pf_phase;

struct pf_node {
    int id; /* place in the list once planned */
    const pf_op *op;
    const void *args; /* the op's typed struct, copied into the arena */
    pf_value **in;
    int n_in;
    pf_value **out;
    int n_out;
    const char *name; /* site or layer it belongs to; never NULL */
    int block;        /* layer for gradient checkpointing; -1 outside of blocks */
    pf_phase phase;
    bool is_recompute;
    bool removed;    /* by a fusion: no node of the list any more */
    bool again;      /* the backward pass recomputes it */
    bool of_weights; /* reads weights and parameters only, however indirectly (plan.h) */
    const struct pf_kernel_row *kernel;  /* chosen by the plan */
    int64_t workspace, workspace_offset; /* bytes, by the plan */
};

typedef struct pf_use { /* once per input that is the value */
    pf_node *node;      /* may be removed */
    struct pf_use *next;
} pf_use;

/* What a node costs for given row counts; recompute and plans are chosen by it, the profile is
 * measured against it. */
typedef struct pf_cost {
    double flops; /* multiply and add are two */
    double bytes; /* read and written once */
} pf_cost;

typedef peft_status (*pf_kernel_fn)(pf_exec *x, const pf_node *n, peft_error *err);

/* One implementation of an op. Rows are tried in order; the last is the reference for "cpu". */
typedef struct pf_kernel_row {
    const char *backend; /* "cpu", "cuda" */
    const char *name;    /* "avx512", "reference": for the profile and the record of choices */
    bool (*can)(const pf_node *n); /* NULL: always. Asked once, when the graph is planned */
    pf_kernel_fn run;
    /* bytes of scratch for these capacities and workers; NULL: the op's own */
    int64_t (*workspace)(const pf_node *n, const int64_t *capacity, int n_workers);
} pf_kernel_row;

enum {
    PF_OP_CHEAP = 1,        /* outputs are recomputed in the backward pass rather than saved */
    PF_OP_ALWAYS_SAVED = 2, /* a discrete choice (routing): never recomputed */
    PF_OP_SIDE_EFFECT = 4   /* runs even when nobody reads its outputs */
};

/* The descriptor of an op, one row in ops/ops.def. Its file holds the shape rule and the gradient,
 * <op>_cpu.c the reference kernel, <op>_avx2.c ... faster ones. */
struct pf_op {
    const char *name;
    const char *what; /* formula and source, one line, for the docs */
    size_t args_size;
    unsigned flags;
    /* Checks inputs and creates outputs with pf_graph_out. The message names sizes; the graph adds
     * the node's name. */
    peft_status (*shape)(pf_graph *g, pf_node *n, peft_error *err);
    /* Emits backward nodes: reads pf_grad_of(ad, out), asks pf_grad_need(ad, v) for forward values,
     * gives pf_grad_give(ad, in, contribution). NULL: no input can have a gradient. See autodiff.h.
     */
    peft_status (*vjp)(pf_autodiff *ad, pf_node *n, peft_error *err);
    int64_t (*workspace)(const pf_node *n, const int64_t *capacity, int n_workers); /* NULL: none */
    pf_cost (*cost)(const pf_node *n, const int64_t *rows); /* NULL: bytes of in and out */
    /* Of the operations in `cost`, what these segments need (attention); NULL: all. Profile only.
     */
    double (*share_of_cost)(const pf_node *n, const pf_batch *b);
    /* For CHEAP ops with several outputs: bit k set means output k is saved all the same. */
    unsigned saved_outs;
    /* Recomputes output k in another way than by cloning the node (a fused norm, from the saved
     * sum). NULL: clone. */
    peft_status (*recompute)(pf_autodiff *ad, pf_node *n, int k, pf_value **out, peft_error *err);
    unsigned exact_outs; /* bit k: output k is kept in f32 even where the graph saves in bf16 */
    int in_place;        /* output 0 may take over the room of input `in_place - 1`; 0: never */
    const pf_kernel_row *kernels; /* ends with an all-NULL row */
};

struct pf_graph {
    pf_arena arena;
    const pf_op *const *ops; /* the table of all kinds, NULL at the end; set by ops/ */
    pf_node **nodes;
    int n_nodes, cap_nodes;
    pf_value **values;
    int n_values, cap_values;
    pf_value **outside; /* those of a WEIGHT, PARAM or GRAD, by what they stand for: a hash table */
    int n_outside, n_slots;
    const pf_op *recent_ops[64]; /* by address of the name they were asked for with */
    const char *scope;           /* prefix of names given from now on */
    int block;                   /* block of nodes emitted from now on */
    pf_phase phase;
    pf_compute compute;      /* of products with frozen weights that are emitted from now on */
    bool save_bf16;          /* what blocks save for the backward pass is rounded to bf16 */
    pf_routed_group *groups; /* row spaces of experts */
    int n_groups, cap_groups;
    int n_routed;      /* spaces of all groups */
    pf_params *params; /* whose gradients are wanted; NULL: inference */
};

peft_status pf_graph_new(pf_graph **out, const pf_op *const *ops, peft_error *err);
void pf_graph_free(pf_graph *g);
const pf_op *pf_graph_find_op(const pf_graph *g, const char *name);

/* Values from outside */
pf_value *pf_graph_weight(pf_graph *g, const pf_weight *w); /* the same value for the same view */
pf_value *pf_graph_param(pf_graph *g, pf_param *p);         /* the same value for the same param */
pf_value *pf_graph_grad(pf_graph *g, pf_param *p);
pf_value *pf_graph_state(pf_graph *g, const char *name, int64_t rows, int64_t cols, pf_real *data);
pf_value *pf_graph_input(pf_graph *g, const char *name, int space, int64_t cols, pf_real *data);

/* Appends a node: copies args, runs the op's shape rule. `in` may hold NULL for optional inputs.
 * The node's name is scope + name. On success *out (may be NULL) is the node; its outputs are
 * node->out[]. */
peft_status pf_graph_emit(pf_graph *g, const char *op, const char *name, const void *args,
                          pf_value *const *in, int n_in, pf_node **out, peft_error *err);
/* Called by shape rules: the next output of the node. */
pf_value *pf_graph_out(pf_graph *g, pf_node *n, int space, int64_t rows, int64_t cols);

/* n new row spaces that share the token rows, each row in per_row of them (routed.h). The first, or
 * -1 when memory is out. */
int pf_graph_add_routed(pf_graph *g, int n, int64_t per_row);

/* Blocks for gradient checkpointing: nodes between begin and end form block `index`; `x` is kept as
 * its input. */
void pf_graph_block_begin(pf_graph *g, int index, pf_value *x);
void pf_graph_block_end(pf_graph *g);

/* rows or the space's number; of a routed space the most that it can have */
int64_t pf_value_rows(const pf_value *v, const int64_t *rows_of_space);

#endif

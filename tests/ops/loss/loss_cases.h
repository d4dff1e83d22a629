/* loss_cases.h - cases of gather_labels, head_ce, target_loss and what goes back through them, for
 * test_loss_ops.c and its double twin. */
#include "op_harness.h"

#include "ops/embed/embed.h"
#include "ops/loss/head_ce.h"
#include "ops/loss/logits_ce.h"
#include "ops/loss/target_loss.h"
#include "ops/matmul/dropout.h"
#include "ops/matmul/linear.h"

typedef struct head_case {
    int64_t C, V, r;
    pf_dtype frozen; /* type of a frozen head; NONE: a trained one */
    pf_dtype bias;   /* BOOL: a trained bias; NONE: none; else a frozen one of that type */
    double dropout;
    double softcap;
    bool only_gather;
    bool whole; /* the logits stand there */
} head_case;

static peft_status build_head(op_fixture *f, pf_value **root, peft_error *err) {
    const head_case *c = op_args(f);
    pf_value *x = op_rows(f, "x", c->C, 0, 1), *h, *w, *bias = NULL, *a = NULL, *b = NULL;
    pf_value *correct;
    PF_TRY(pf_gather_labels(op_graph(f), "gather", x, &h, err));
    *root = h;
    if (c->only_gather) return PEFT_OK;
    w = c->frozen == PF_DTYPE_NONE ? op_param(f, "w", c->V, c->C, 0, 0.3)
                                   : op_weight(f, "w", c->V, c->C, c->frozen, 0, 0.3);
    if (c->bias == PF_DTYPE_BOOL) bias = op_param(f, "bias", 1, c->V, 0, 1);
    if (c->bias == PF_DTYPE_BF16) bias = op_weight(f, "bias", 1, c->V, c->bias, 0, 1);
    if (c->r > 0) {
        a = op_param(f, "a", c->r, c->C, 0, 0.3);
        b = op_param(f, "b", c->V, c->r, 0, 0.3);
    }
    if (c->whole) {
        PF_TRY(pf_linear(op_graph(f), "head", h, w, bias, &h, err));
        return pf_logits_ce(op_graph(f), "loss", h, root, &correct, err);
    }
    const pf_head_ce_args args = {
        .scale = 0.7, .dropout = c->dropout, .seed = 5, .mask_key = 9, .softcap = c->softcap};
    return pf_head_ce(op_graph(f), "head", h, w, bias, a, b, &args, root, &correct, err);
}

static void head_oracle(const op_fixture *f, pf_real *root) {
    const head_case *c = op_args(f);
    const pf_batch *batch = op_batch(f);
    const pf_real *x = op_numbers(f, "x"), *w = op_numbers(f, "w"), *bias = op_numbers(f, "bias");
    const pf_real *a = op_numbers(f, "a"), *b = op_numbers(f, "b");
    const pf_dropout d = pf_dropout_make(c->dropout, 5, batch->step, 9);
    static uint8_t bits[1024];
    static double z[8192];
    for (int32_t e = 0; e < batch->n_labels; e++) {
        const int32_t row = batch->label_row[e];
        const pf_real *h = x + row * c->C;
        pf_dropout_bits_cpu(&d, (uint32_t)batch->sample[row], (uint32_t)batch->pos[row], c->C,
                            bits);
        double max = -1e300, sum = 0;
        for (int64_t v = 0; v < c->V; v++) {
            z[v] = bias != NULL ? (double)bias[v] : 0;
            for (int64_t k = 0; k < c->C; k++) z[v] += (double)h[k] * (double)w[v * c->C + k];
            for (int64_t r = 0; r < c->r; r++) {
                double s = 0;
                for (int64_t k = 0; k < c->C; k++) {
                    if (bits[k / 8] >> k % 8 & 1)
                        s += d.scale * (double)h[k] * (double)a[r * c->C + k];
                }
                z[v] += 0.7 * s * (double)b[v * c->r + r];
            }
            if (c->softcap > 0) z[v] = c->softcap * tanh(z[v] / c->softcap);
            max = fmax(max, z[v]);
        }
        for (int64_t v = 0; v < c->V; v++) sum += exp(z[v] - max);
        root[e] = (pf_real)(max + log(sum) - z[batch->label_target[e]]);
    }
}

/* targets of the batches go up to 180 */
static const head_case
    head_gather = {.C = 12, .only_gather = true},
    head_f32 = {.C = 24, .V = 200, .frozen = PF_DTYPE_F32},
    head_bf16 = {.C = 40, .V = 230, .frozen = PF_DTYPE_BF16, .bias = PF_DTYPE_BF16},
    head_tiles = {.C = 17, .V = 2100, .frozen = PF_DTYPE_BF16}, head_trained = {.C = 20, .V = 190},
    head_trained_tiles = {.C = 9, .V = 1100, .bias = PF_DTYPE_BOOL},
    head_bias = {.C = 10, .V = 200, .frozen = PF_DTYPE_F32, .bias = PF_DTYPE_BOOL},
    head_low = {.C = 24, .V = 200, .r = 4, .frozen = PF_DTYPE_BF16},
    head_drop = {.C = 30, .V = 1200, .r = 3, .frozen = PF_DTYPE_BF16, .dropout = 0.3},
    head_all = {.C = 30, .V = 210, .r = 5, .bias = PF_DTYPE_BOOL, .dropout = 0.3},
    head_cap = {.C = 24, .V = 200, .frozen = PF_DTYPE_F32, .softcap = 1.5},
    head_cap_tiles = {.C = 17, .V = 2100, .frozen = PF_DTYPE_BF16, .softcap = 30},
    head_cap_all =
        {.C = 30, .V = 1210, .r = 5, .bias = PF_DTYPE_BOOL, .dropout = 0.3, .softcap = 2},
    whole = {.C = 20, .V = 190, .whole = true},
    whole_tiles = {.C = 17, .V = 2100, .frozen = PF_DTYPE_BF16, .whole = true},
    head_smollm = {.C = 576, .V = 49152, .frozen = PF_DTYPE_BF16},
    head_qwen = {.C = 896, .V = 151936, .frozen = PF_DTYPE_BF16},
    head_full = {.C = 576, .V = 49152};

typedef struct target_case {
    pf_problem problem;
    int64_t K;
    double scale; /* of the logits */
} target_case;

/* Targets are any numbers: the formulas hold for all. They are a frozen table, so nothing asks for
 * their gradient. */
static peft_status build_target(op_fixture *f, pf_value **root, peft_error *err) {
    const target_case *c = op_args(f);
    pf_value *z = op_rows(f, "z", c->K, 0, c->scale), *y, *correct;
    pf_value *table = op_weight(f, "y", op_batch(f)->n_tokens, c->K, PF_DTYPE_F32, 0.3, 0.5);
    PF_TRY(pf_embed(op_graph(f), "y", table, &y, err));
    PF_TRY(pf_gather_labels(op_graph(f), "z", z, &z, err));
    PF_TRY(pf_gather_labels(op_graph(f), "y", y, &y, err));
    return pf_target_loss(op_graph(f), "loss", c->problem, z, y, root, &correct, err);
}

static void target_oracle(const op_fixture *f, pf_real *root) {
    const target_case *c = op_args(f);
    const pf_batch *b = op_batch(f);
    const pf_real *zs = op_numbers(f, "z"), *ys = op_numbers(f, "y");
    for (int32_t e = 0; e < b->n_labels; e++) {
        const int64_t row = b->ids[b->label_row[e]];
        double sum = 0, loss = 0;
        for (int64_t k = 0; k < c->K; k++) sum += exp((double)zs[row * c->K + k]);
        for (int64_t k = 0; k < c->K; k++) {
            const double z = (double)zs[row * c->K + k], y = (double)ys[row * c->K + k];
            const double p = 1 / (1 + exp(-z));
            loss += c->problem == PF_PROBLEM_SINGLE  ? y * (log(sum) - z)
                    : c->problem == PF_PROBLEM_MULTI ? -(y * log(p) + (1 - y) * log(1 - p)) / c->K
                                                     : (z - y) * (z - y) / c->K;
        }
        root[e] = (pf_real)loss;
    }
}

static const target_case target_single = {PF_PROBLEM_SINGLE, 5, 2},
                         target_multi = {PF_PROBLEM_MULTI, 4, 3},
                         target_one = {PF_PROBLEM_MULTI, 1, 1},
                         target_number = {PF_PROBLEM_REGRESSION, 1, 1},
                         target_numbers = {PF_PROBLEM_REGRESSION, 7, 2};

static const op_case loss_cases[] = {
    {OP_CASE("target_loss/single", &op_batch_plain, build_target, &target_single),
     .oracle = target_oracle},
    {OP_CASE("target_loss/multi", &op_batch_tree, build_target, &target_multi),
     .oracle = target_oracle},
    {OP_CASE("target_loss/multi_of_one", &op_batch_plain, build_target, &target_one),
     .oracle = target_oracle},
    {OP_CASE("target_loss/number", &op_batch_plain, build_target, &target_number),
     .oracle = target_oracle},
    {OP_CASE("target_loss/numbers", &op_batch_tree, build_target, &target_numbers),
     .oracle = target_oracle},
    {OP_CASE("gather_labels/plain", &op_batch_plain, build_head, &head_gather)},
    {OP_CASE("gather_labels/tree", &op_batch_tree, build_head, &head_gather)},
    {OP_CASE("head_ce/f32", &op_batch_plain, build_head, &head_f32), .oracle = head_oracle},
    {OP_CASE("head_ce/bf16_and_bias", &op_batch_tree, build_head, &head_bf16),
     .oracle = head_oracle},
    {OP_CASE("head_ce/three_tiles", &op_batch_plain, build_head, &head_tiles),
     .oracle = head_oracle},
    {OP_CASE("head_ce/trained", &op_batch_plain, build_head, &head_trained), .oracle = head_oracle},
    {OP_CASE("head_ce/trained_tiles", &op_batch_tree, build_head, &head_trained_tiles),
     .oracle = head_oracle},
    {OP_CASE("head_ce/trained_bias", &op_batch_plain, build_head, &head_bias),
     .oracle = head_oracle},
    {OP_CASE("head_ce/lowrank", &op_batch_tree, build_head, &head_low), .oracle = head_oracle},
    {OP_CASE("head_ce/lowrank_dropout", &op_batch_plain, build_head, &head_drop),
     .oracle = head_oracle},
    {OP_CASE("head_ce/everything", &op_batch_plain, build_head, &head_all), .oracle = head_oracle},
    {OP_CASE("head_ce/softcap", &op_batch_tree, build_head, &head_cap), .oracle = head_oracle},
    {OP_CASE("head_ce/softcap_tiles", &op_batch_plain, build_head, &head_cap_tiles),
     .oracle = head_oracle},
    {OP_CASE("head_ce/softcap_everything", &op_batch_plain, build_head, &head_cap_all),
     .oracle = head_oracle},
    {OP_CASE("head_ce/in_bf16", &op_batch_tree, build_head, &head_tiles), .oracle = head_oracle,
     .tol = 1e-2, .compute = PF_COMPUTE_BF16},
    {OP_CASE("head_ce/in_int8", &op_batch_plain, build_head, &head_tiles), .oracle = head_oracle,
     .tol = 3e-2, .compute = PF_COMPUTE_INT8},
    {OP_CASE("head_ce/in_int8_lowrank", &op_batch_tree, build_head, &head_low),
     .oracle = head_oracle, .tol = 3e-2, .compute = PF_COMPUTE_INT8},
    {OP_CASE("logits_ce", &op_batch_tree, build_head, &whole), .oracle = head_oracle},
    {OP_CASE("logits_ce/three_tiles", &op_batch_plain, build_head, &whole_tiles),
     .oracle = head_oracle},
    {OP_CASE("head_ce/bench_512x576x49152", &op_batch_512, build_head, &head_smollm),
     .only_bench = true},
    {OP_CASE("head_ce/bench_512x896x151936", &op_batch_512, build_head, &head_qwen),
     .only_bench = true},
    {OP_CASE("head_ce/bench_512x576x49152_trained", &op_batch_512, build_head, &head_full),
     .only_bench = true},
};

/* LoRA: first weights, what may have a zero gradient, and merging. What it computes in a model is
 * in tests/golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "peft/peft_test.h"

#include <math.h>

static pf_arena arena;

static int setup(void **state) {
    (void)state;
    pf_arena_init(&arena, "test");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    pf_arena_release(&arena);
    return 0;
}

static pf_param *param(const pf_adapter *ad, const char *part) {
    pf_param *p =
        pf_params_find(&ad->params, pf_arena_printf(&arena, "base_model.model.model.%s", part));
    assert_non_null(p);
    return p;
}

static void moments(const pf_param *p, double *mean, double *std, double *most) {
    const int64_t n = p->rows * p->cols;
    double sum = 0, squares = 0;
    *most = 0;
    for (int64_t i = 0; i < n; i++) {
        double v = (double)p->data[i];
        sum += v;
        squares += v * v;
        if (fabs(v) > *most) *most = fabs(v);
    }
    *mean = sum / (double)n;
    *std = sqrt(squares / (double)n - *mean * *mean);
}

#define Q_A "layers.0.self_attn.q_proj.lora_A.weight"
#define Q_B "layers.0.self_attn.q_proj.lora_B.weight"
#define E_A "embed_tokens.lora_embedding_A"
#define E_B "embed_tokens.lora_embedding_B"

/* peft's distributions: U(+-1/sqrt(in)) or N(0, 1/r) for A, zero for B; embeddings A zero, B N(0,
 * 1). */
static void first_weights(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj embed_tokens");
    double mean, std, most;
    cfg.r = 64;
    pf_adapter *ad = attach_lora(m, &cfg, true);
    moments(param(ad, Q_A), &mean, &std, &most);
    assert_true(fabs(mean) < 0.01 && most <= 1 / sqrt(32.0) && most > 0.95 / sqrt(32.0));
    assert_true(fabs(std - 1 / sqrt(3 * 32.0)) < 0.005);
    moments(param(ad, Q_B), &mean, &std, &most);
    assert_true(most == 0);
    moments(param(ad, E_A), &mean, &std, &most);
    assert_true(most == 0);
    moments(param(ad, E_B), &mean, &std, &most);
    assert_true(fabs(mean) < 0.08 && fabs(std - 1) < 0.08);
    assert_true(param(ad, Q_A)->zero_grad_ok && !param(ad, Q_B)->zero_grad_ok);
    assert_true(!param(ad, E_A)->zero_grad_ok && param(ad, E_B)->zero_grad_ok);
    assert_true(param(ad, Q_A)->decay && param(ad, E_B)->decay);
    assert_int_equal(ad->params.seed, 1);
    assert_ptr_equal(m->params, &ad->params);
    pf_adapter_close(ad);
    assert_null(m->params);

    cfg.init_lora_weights = "gaussian";
    ad = attach_lora(m, &cfg, false);
    moments(param(ad, Q_A), &mean, &std, &most);
    assert_true(fabs(std - 1.0 / 64) < 0.002);
    moments(param(ad, Q_B), &mean, &std, &most);
    assert_true(most == 0);
    assert_null(m->params); /* not for training */
    pf_adapter_close(ad);

    cfg.init_lora_weights = "false";
    ad = attach_lora(m, &cfg, false);
    moments(param(ad, Q_B), &mean, &std, &most);
    assert_true(most > 0.1 && most <= 1 / sqrt(64.0));
    moments(param(ad, E_A), &mean, &std, &most);
    assert_true(most > 1);
    assert_false(param(ad, Q_A)->zero_grad_ok);
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* A parameter's first numbers follow from the seed and its name: not from what else is trained. */
static void first_weights_follow_from_seed_and_name(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    pf_lora_cfg one = lora_cfg_of(&arena, "q_proj"), more = lora_cfg_of(&arena, "v_proj q_proj");
    float a[64], b[64], c[64], other[64];
    pf_adapter *ad = attach_lora(m, &one, false);
    memcpy(a, param(ad, Q_A)->data, sizeof a);
    memcpy(other, param(ad, "layers.1.self_attn.q_proj.lora_A.weight")->data, sizeof other);
    pf_adapter_close(ad);
    ad = attach_lora(m, &more, false);
    memcpy(b, param(ad, Q_A)->data, sizeof b);
    pf_adapter_close(ad);
    const pf_peft_cfg cfg = {.method = "lora", .method_cfg = &one};
    assert_int_equal(pf_adapter_attach(&ad, m, &cfg, 2, false, NULL), PEFT_OK);
    memcpy(c, param(ad, Q_A)->data, sizeof c);
    pf_adapter_close(ad);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    assert_memory_not_equal(a, other, sizeof a);
    pf_model_close(m);
}

/* ---- merging --------------------------------------------------------------------------------- */

static void assert_near(const float *got, const double *want, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (fabs((double)got[i] - want[i]) > 1e-6 * (1 + fabs(want[i]))) {
            fail_msg("[%d] is %g, not %g", (int)i, (double)got[i], want[i]);
        }
    }
}

/* W + scale B A, any run of rows; the embedding's update transposed; what is trained whole as it
 * is. */
static void merges(void **state) {
    (void)state;
    pf_model *m = open_base(GOLDEN "/peft/base_untied");
    pf_adapter *ad = open_adapter(m, GOLDEN "/peft/embedding");
    const double scale = 8.0 / 3; /* peft's default alpha, r 3 */
    pf_site *v = pf_model_find_site(m, "model.layers.1.self_attn.v_proj");
    const pf_param *a = param(ad, "layers.1.self_attn.v_proj.lora_A.weight"),
                   *b = param(ad, "layers.1.self_attn.v_proj.lora_B.weight");
    float got[5 * 32], base[32];
    double want[5 * 32];
    assert_true(pf_adapter_touches(ad, v, false) && !pf_adapter_touches(ad, v, true));
    assert_int_equal(pf_adapter_merged_rows(ad, v, false, 7, 5, got, NULL), PEFT_OK);
    for (int i = 0; i < 5; i++) {
        pf_weight_read_tile(v->weight, 7 + i, 1, 0, 32, base, 32);
        for (int j = 0; j < 32; j++) {
            double sum = 0;
            for (int k = 0; k < 3; k++) {
                sum += (double)b->data[(7 + i) * 3 + k] * (double)a->data[k * 32 + j];
            }
            want[i * 32 + j] = (double)base[j] + scale * sum;
        }
    }
    assert_near(got, want, 5 * 32);

    a = param(ad, E_A), b = param(ad, E_B);
    assert_int_equal(pf_adapter_merged_rows(ad, m->embedding, false, 60, 4, got, NULL), PEFT_OK);
    for (int i = 0; i < 4; i++) {
        pf_weight_read_tile(m->embedding->weight, 60 + i, 1, 0, 32, base, 32);
        for (int j = 0; j < 32; j++) {
            double sum = 0;
            for (int k = 0; k < 3; k++) {
                sum += (double)a->data[k * 64 + 60 + i] * (double)b->data[j * 3 + k];
            }
            want[i * 32 + j] = (double)base[j] + scale * sum;
        }
    }
    assert_near(got, want, 4 * 32);
    assert_false(pf_adapter_touches(ad, m->head, false));
    pf_adapter_close(ad);

    ad = open_adapter(m, GOLDEN "/peft/bias_all");
    pf_site *k = pf_model_find_site(m, "model.layers.0.self_attn.k_proj");
    assert_true(pf_adapter_touches(ad, k, true) && !pf_adapter_touches(ad, k, false));
    assert_int_equal(pf_adapter_merged_rows(ad, k, true, 0, 1, got, NULL), PEFT_OK);
    assert_memory_equal(got, k->trained_bias->data, 16 * sizeof *got);
    pf_adapter_close(ad);

    ad = open_adapter(m, GOLDEN "/peft/modules_to_save");
    assert_true(pf_adapter_touches(ad, m->head, false));
    assert_int_equal(pf_adapter_merged_rows(ad, m->head, false, 3, 2, got, NULL), PEFT_OK);
    assert_memory_equal(got, m->head->trained_weight->data + 3 * 32, 64 * sizeof *got);
    pf_adapter_close(ad);
    pf_model_close(m);
}

/* A plan needs no weights: a 70B model with an adapter is counted on any machine. */
static void counts_without_weights(void **state) {
    (void)state;
    const char *dir =
        make_folder(&arena, "llama2_7b_lora",
                    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 4096, "
                    "\"intermediate_size\": 11008, \"num_attention_heads\": 32, "
                    "\"num_hidden_layers\": 32, \"vocab_size\": 32000}",
                    NULL, NULL, 0);
    pf_model *m;
    assert_int_equal(pf_model_open(&m, dir, &(pf_model_options){.shapes_only = true}, NULL),
                     PEFT_OK);
    pf_lora_cfg cfg = lora_cfg_of(&arena, "q_proj v_proj");
    pf_adapter *ad = attach_lora(m, &cfg, true);
    char line[160];
    pf_adapter_describe(ad, line, sizeof line);
    assert_string_equal(line, "trainable params: 4,194,304 || all params: 6,742,609,920 || "
                              "trainable%: 0.0622");
    assert_null(ad->params.data);
    pf_adapter_close(ad);
    pf_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_weights),
        cmocka_unit_test(first_weights_follow_from_seed_and_name),
        cmocka_unit_test(merges),
        cmocka_unit_test(counts_without_weights),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

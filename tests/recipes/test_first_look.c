/* test_first_look.c - EVA against an exact PCA made by torch (tools/make_eva_fixtures.py): the same
 * ranks and alphas, the same directions, on any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_util.h"

#include "peft/lora/lora.h"
#include "recipes/prepared.h"

#include <unistd.h>

#define TOL 2e-4 /* of unit vectors, from f32 inputs */

static const char config_text[] =
    "model:\n  name_or_path: " GOLDEN "/methods/base_llama\n  tokenizer_name_or_path: " GOLDEN
    "/tokenizers/byte_level\n"
    "peft:\n  method: lora\n"
    "  lora: {init_lora_weights: eva, target_modules: all-linear}\n"
    "data:\n  train: " GOLDEN "/eva/rows.jsonl\n"
    "  input_ids: input_ids\n"
    "training:\n  output_dir: out\n  max_steps: 2\n"
    "  per_device_train_batch_size: 3\n";
static char config_path[64];

typedef struct eva_case {
    json_t *info;
    pf_safetensors want;
    pf_arena arena;
    pf_prepared p;
} eva_case;

static void open_case(eva_case *c, const char *name, int threads) {
    peft_error err = {0};
    memset(c, 0, sizeof *c);
    pf_arena_init(&c->arena, "case");
    c->info = read_json(pf_arena_printf(&c->arena, GOLDEN "/eva/%s.json", name));
    OK(pf_safetensors_open(&c->want, pf_arena_printf(&c->arena, GOLDEN "/eva/%s.safetensors", name),
                           &err));
    const char *set[] = {
        pf_arena_printf(&c->arena, "peft.lora.r=%d", (int)number_of(c->info, "r")),
        pf_arena_printf(&c->arena, "peft.lora.alpha=%g", number_of(c->info, "alpha")),
        pf_arena_printf(&c->arena, "peft.lora.eva_rho=%g", number_of(c->info, "rho")),
        json_is_true(json_object_get(c->info, "mask")) ? "peft.lora.eva_use_label_mask=true"
                                                       : "peft.lora.eva_use_label_mask=false",
        json_is_true(json_object_get(c->info, "whiten")) ? "peft.lora.eva_whiten=true"
                                                         : "peft.lora.eva_whiten=false",
        json_is_true(json_object_get(c->info, "adjust"))
            ? "peft.lora.eva_adjust_scaling_factors=true"
            : "peft.lora.eva_adjust_scaling_factors=false",
        pf_arena_printf(&c->arena, "training.num_threads=%d", threads),
    };
    const pf_prepare_options o = {.config_path = config_path,
                                  .overrides = set,
                                  .n_overrides = (int)PF_COUNT(set),
                                  .purpose = PF_RUN_TRAIN,
                                  .with_data = true,
                                  .with_training = true};
    OK(pf_prepare(&c->p, &o, &err));
}

static void close_case(eva_case *c) {
    pf_prepared_release(&c->p);
    pf_safetensors_close(&c->want);
    json_decref(c->info);
    pf_arena_release(&c->arena);
}

/* Rows are the same but for their signs. */
static void same_rows(const pf_lora_site *l, const float *want, const char *name) {
    for (int64_t k = 0; k < l->r; k++) {
        const pf_real *a = l->a->data + k * l->a->cols;
        const float *b = want + k * l->a->cols;
        double ab = 0, bb = 0, off = 0;
        for (int64_t j = 0; j < l->a->cols; j++) {
            ab += (double)a[j] * (double)b[j];
            bb += (double)b[j] * (double)b[j];
        }
        const double sign = ab < 0 ? -1 : 1;
        for (int64_t j = 0; j < l->a->cols; j++) {
            const double d = (double)a[j] - sign * (double)b[j];
            off += d * d;
        }
        if (!(sqrt(off) <= TOL * sqrt(bb)))
            fail_msg("%s: row %d of A is off by %g", name, (int)k, sqrt(off / bb));
    }
}

static void check_case(const char *name) {
    eva_case c;
    open_case(&c, name, 1);
    const pf_adapter *ad = c.p.loaded.adapter;
    const pf_lora *st = ad->state;
    const json_t *ranks = json_object_get(c.info, "ranks"),
                 *alphas = json_object_get(c.info, "alphas");
    int seen = 0;
    for (int i = 0; i < ad->model->n_sites; i++) {
        const pf_site *site = ad->model->sites[i];
        const json_t *rank = json_object_get(ranks, site->name);
        const pf_lora_site *l = st->at[i];
        if (rank == NULL) {
            assert_null(l);
            continue;
        }
        seen++;
        const int64_t r = (int64_t)json_integer_value(rank), have = l != NULL ? l->r : 0;
        if (have != r) fail_msg("%s: %s has rank %d, not %d", name, site->name, (int)have, (int)r);
        if (l == NULL) continue;
        assert_float_equal(l->alpha, number_of(alphas, site->name), 1e-6);
        same_rows(l, tensor_of(&c.want, site->name, r * site->in_dim), site->name);
        for (int64_t j = 0; j < l->b->rows * l->b->cols; j++) assert_true(l->b->data[j] == 0);
    }
    assert_int_equal(seen, json_object_size(ranks));
    close_case(&c);
}

static void plain(void **state) {
    (void)state;
    check_case("plain");
}
static void even(void **state) {
    (void)state;
    check_case("even");
}
static void dropped(void **state) {
    (void)state;
    check_case("dropped");
}
static void fixed_alpha(void **state) {
    (void)state;
    check_case("fixed_alpha");
}

static void same_bits_on_three_threads(void **state) {
    (void)state;
    eva_case one, three;
    open_case(&one, "plain", 1);
    open_case(&three, "plain", 3);
    const pf_params *a = &one.p.loaded.adapter->params, *b = &three.p.loaded.adapter->params;
    assert_int_equal(a->block_len, b->block_len);
    assert_memory_equal(a->data, b->data, (size_t)a->block_len * sizeof *a->data);
    close_case(&one);
    close_case(&three);
}

static int write_config(void **state) {
    (void)state;
    snprintf(config_path, sizeof config_path, "/tmp/first-look-XXXXXX");
    const int fd = mkstemp(config_path);
    if (fd < 0) return -1;
    const bool ok = write(fd, config_text, sizeof config_text - 1) == (long)sizeof config_text - 1;
    close(fd);
    return ok ? 0 : -1;
}

static int remove_config(void **state) {
    (void)state;
    return unlink(config_path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain),
        cmocka_unit_test(even),
        cmocka_unit_test(dropped),
        cmocka_unit_test(fixed_alpha),
        cmocka_unit_test(same_bits_on_three_threads),
    };
    return cmocka_run_group_tests(tests, write_config, remove_config);
}

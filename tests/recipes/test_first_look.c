/* test_first_look.c - EVA against peft's own on the same batches (tools/make_eva_fixtures.py): as
 * many batches until all have settled, the same ranks and alphas, the same directions and signs, on
 * any number of threads, for one stack, an encoder and a decoder, rows that see both ways, and on
 * top of frozen adapters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_util.h"

#include "peft/lora/lora.h"
#include "recipes/prepared.h"

#include <unistd.h>

#define TOL 2e-4 /* of unit vectors, from f32 inputs */

static const char config_text[] = "peft:\n  method: lora\n  lora: {init_lora_weights: eva}\n"
                                  "data: {shuffle: false}\n"
                                  "training: {output_dir: out, max_steps: 2}\n";
static char config_path[64];

typedef struct eva_case {
    json_t *info;
    pf_safetensors want;
    pf_arena arena;
    pf_prepared p;
} eva_case;

static const char *value_text(pf_arena *a, const json_t *v) {
    if (json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
    return pf_arena_printf(a, "%.17g", json_number_value(v));
}

/* The configuration of a case. */
static int overrides(eva_case *c, const char **set, int threads) {
    static const char *const data_of[3][4] = {
        {"rows", "/tokenizers/byte_level", "data.input_ids=input_ids", "data.labels=labels"},
        {"pairs", "/eva/word_ids", "data.prompt={source}", "data.target={target}"},
        {"words", "/eva/word_ids", "data.words=words", "data.label=tags"}};
    pf_arena *a = &c->arena;
    const char *data = text_of(c->info, "data");
    int n = 0, d = 0;
    while (!pf_streq(data_of[d][0], data)) d++;
    set[n++] = pf_arena_printf(a, "model.name_or_path=" GOLDEN "/%s", text_of(c->info, "model"));
    set[n++] = pf_arena_printf(a, "model.tokenizer_name_or_path=" GOLDEN "%s", data_of[d][1]);
    set[n++] = pf_arena_printf(a, "data.train=" GOLDEN "/eva/%s.jsonl", data);
    set[n++] = data_of[d][2];
    set[n++] = data_of[d][3];
    set[n++] = pf_arena_printf(a, "peft.task_type=%s", text_of(c->info, "task"));
    set[n++] = pf_arena_printf(a, "peft.lora.r=%d", (int)number_of(c->info, "r"));
    set[n++] = pf_arena_printf(a, "peft.lora.alpha=%g", number_of(c->info, "alpha"));
    set[n++] = pf_arena_printf(a, "training.per_device_train_batch_size=%d",
                               (int)number_of(c->info, "batch"));
    set[n++] = pf_arena_printf(a, "training.num_threads=%d", threads);
    const char *key;
    json_t *v;
    const char *list = "";
    size_t i;
    json_array_foreach(json_object_get(c->info, "targets"), i, v) list =
        pf_arena_printf(a, "%s%s%s", list, i > 0 ? "," : "", json_string_value(v));
    set[n++] = pf_arena_printf(a, "peft.lora.target_modules=[%s]", list);
    json_object_foreach(json_object_get(c->info, "eva"), key, v) set[n++] =
        pf_arena_printf(a, "peft.lora.eva_config.%s=%s", key, value_text(a, v));
    list = "";
    json_object_foreach(json_object_get(c->info, "rank_pattern"), key, v) list = pf_arena_printf(
        a, "%s%s\"%s\": %s", list, list[0] != '\0' ? ", " : "", key, value_text(a, v));
    if (list[0] != '\0') set[n++] = pf_arena_printf(a, "peft.lora.rank_pattern={%s}", list);
    const char *below = text_of(c->info, "below");
    if (below != NULL) {
        set[n++] = pf_arena_printf(a, "model.adapter_name_or_path=" GOLDEN "/%s", below);
        set[n++] = "model.create_new_adapter=true";
    }
    return n;
}

static void open_case(eva_case *c, const char *name, int threads) {
    peft_error err = {0};
    memset(c, 0, sizeof *c);
    pf_arena_init(&c->arena, "case");
    c->info = read_json(pf_arena_printf(&c->arena, GOLDEN "/eva/%s.json", name));
    OK(pf_safetensors_open(&c->want, pf_arena_printf(&c->arena, GOLDEN "/eva/%s.safetensors", name),
                           &err));
    const char *set[40];
    const int n = overrides(c, set, threads);
    const pf_prepare_options o = {.config_path = config_path,
                                  .overrides = set,
                                  .n_overrides = n,
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

static void same_rows(const pf_lora_site *l, const float *want, const char *name) {
    for (int64_t k = 0; k < l->r; k++) {
        const pf_real *a = l->a->data + k * l->a->cols;
        const float *b = want + k * l->a->cols;
        double bb = 0, off = 0;
        for (int64_t j = 0; j < l->a->cols; j++) {
            const double d = (double)a[j] - (double)b[j];
            bb += (double)b[j] * (double)b[j];
            off += d * d;
        }
        if (!(sqrt(off) <= TOL * sqrt(bb)))
            fail_msg("%s: row %d of A is off by %g", name, (int)k, sqrt(off / bb));
    }
}

static void check_case(const char *name) {
    eva_case c;
    open_case(&c, name, 1);
    assert_int_equal(c.p.looked.batches, (int)number_of(c.info, "batches"));
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

static void all_cases(void **state) {
    (void)state;
    static const char *const names[] = {"plain", "even",    "dropped",   "fixed_alpha",
                                        "early", "without", "patterns",  "t5",
                                        "bert",  "on_lora", "on_prompt", "on_prompt_t5"};
    for (size_t i = 0; i < PF_COUNT(names); i++) check_case(names[i]);
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
        cmocka_unit_test(all_cases),
        cmocka_unit_test(same_bits_on_three_threads),
    };
    return cmocka_run_group_tests(tests, write_config, remove_config);
}

/* LoRA with first weights from the base and with other ways to be trained, against peft
 * (tools/make_lora_kin_fixtures.py): ten steps have the same losses; what is saved is plain LoRA
 * that fits the unchanged base and gives the logits that peft's adapter gives there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "base/file.h"
#include "peft/lora/lora.h"
#include "train/optimizer.h"

#include <unistd.h>

#define TOL_END 2e-3 /* logits after ten steps of our own */

static pf_backend *backend;
static pf_arena names_arena;
static const char *tmp_dir;

typedef struct kin_case {
    fixture f;
    const char *base;
    pf_batch batch;
    pf_lora_cfg cfg;
    double lr;
    bool own_start; /* no start folder: it begins by itself */
} kin_case;

static void open_case(kin_case *c, const char *name) {
    peft_error err = {0};
    const int32_t *ids[16];
    int32_t lengths[16];
    const void *cfg;
    memset(c, 0, sizeof *c);
    fixture *f = &c->f;
    f->topic = "lora_kin";
    f->name = name;
    f->backend = backend;
    pf_arena_init(&f->arena, "case");
    f->info = read_json(fixture_path(f, "case.json"));
    OK(pf_safetensors_open(&f->expected, fixture_path(f, "expected.safetensors"), &err));
    read_batches(f);
    c->base = pf_arena_printf(&f->arena, GOLDEN "/methods/%s", text_of(f->info, "base"));
    for (int i = 0; i < f->n_samples[0]; i++) {
        ids[i] = f->steps[0][i].tokens;
        lengths[i] = f->steps[0][i].n_tokens;
    }
    c->batch = whole_samples(&f->arena, ids, lengths, f->n_samples[0]);
    const json_t *section = json_object_get(f->info, "section"), *v;
    OK(pf_lora_read_config(&f->arena, json_object_get(f->info, "config"), name, &cfg, &err));
    c->cfg = *(const pf_lora_cfg *)cfg;
    if (text_of(section, "init_lora_weights") != NULL) {
        c->cfg.init_lora_weights = text_of(section, "init_lora_weights");
        c->own_start = true;
    }
    v = json_object_get(section, "loraplus_lr_ratio");
    if (v != NULL) {
        c->cfg.loraplus_lr_ratio = json_number_value(v);
        c->cfg.loraplus_lr_embedding = number_of(section, "loraplus_lr_embedding");
    }
    c->cfg.lora_fa = json_is_true(json_object_get(section, "lora_fa"));
    c->lr = number_of(json_object_get(f->info, "optim"), "lr");
}

static void close_case(kin_case *c) {
    pf_safetensors_close(&c->f.expected);
    json_decref(c->f.info);
    pf_arena_release(&c->f.arena);
}

static void open_start(kin_case *c) {
    peft_error err = {0};
    OK(pf_model_open(&c->f.model, c->base, NULL, &err));
    if (c->own_start) {
        const pf_peft_cfg cfg = {.method = "lora", .method_cfg = &c->cfg, .given = true};
        OK(pf_adapter_attach(&c->f.adapter, c->f.model, &cfg, 1, true, &err));
    } else {
        OK(pf_adapter_open(&c->f.adapter, c->f.model, fixture_path(&c->f, "start"), true, &err));
    }
    OK(pf_lora_train_as(c->f.adapter, &c->cfg, c->lr, &err));
}

static void open_folder(kin_case *c, const char *dir) {
    peft_error err = {0};
    OK(pf_model_open(&c->f.model, c->base, NULL, &err));
    OK(pf_adapter_open(&c->f.adapter, c->f.model, dir, false, &err));
}

static void close_adapter(kin_case *c) {
    pf_adapter_close(c->f.adapter);
    pf_model_close(c->f.model);
}

static const float *expected_logits(const kin_case *c, const char *which) {
    return tensor_of(&c->f.expected, which, c->batch.n_labels * c->f.model->vocab);
}

static double train(kin_case *c, const how *h) {
    peft_error err = {0};
    const json_t *steps = json_object_get(c->f.info, "steps"),
                 *o = json_object_get(c->f.info, "optim"), *betas = json_object_get(o, "betas");
    const pf_optimizer_cfg cfg = {.beta1 = json_number_value(json_array_get(betas, 0)),
                                  .beta2 = json_number_value(json_array_get(betas, 1)),
                                  .eps = number_of(o, "eps"),
                                  .weight_decay = number_of(o, "weight_decay"),
                                  .max_grad_norm = number_of(o, "max_grad_norm")};
    pf_optimizer opt;
    double worst = 0;
    runner r;
    OK(pf_optimizer_init(&opt, &c->f.arena, &c->f.adapter->params, &cfg, &err));
    open_runner(&r, &c->f, h, true);
    for (int i = 0; i < c->f.n_steps; i++) {
        const json_t *want = json_array_get(steps, (size_t)i);
        pf_optimizer_report report;
        const double loss = run_step(&r, &c->f, i, true, NULL), expected = number_of(want, "loss");
        const double d = fabs(loss - expected) / fabs(expected),
                     norm = number_of(want, "grad_norm");
        if (!(d <= TOL_LOSS))
            fail_msg("%s: loss of step %d is %.8g, not %.8g", c->f.name, i + 1, loss, expected);
        if (d > worst) worst = d;
        OK(pf_optimizer_step(&opt, NULL, c->lr, &report, &err));
        if (!(fabs(report.grad_norm - norm) <= TOL_GRAD * norm))
            fail_msg("%s: gradient norm of step %d is %g, not %g", c->f.name, i + 1,
                     report.grad_norm, norm);
    }
    close_runner(&r);
    return worst;
}

static void same_member(const kin_case *c, const char *dir, const char *key) {
    json_t *got = read_json(pf_path_join(&names_arena, dir, "adapter_config.json")),
           *want = read_json(pf_path_join(&names_arena, fixture_path((fixture *)&c->f, "end"),
                                          "adapter_config.json"));
    const json_t *a = json_object_get(got, key), *b = json_object_get(want, key);
    const bool none = a == NULL && (json_is_null(b) || json_object_size(b) == 0);
    bool same = none || (json_is_number(a) && json_number_value(a) == json_number_value(b));
    if (json_is_object(a)) {
        const char *name;
        json_t *v;
        same = json_object_size(a) == json_object_size(b);
        json_object_foreach((json_t *)a, name, v) {
            same &= json_number_value(v) == json_number_value(json_object_get(b, name));
        }
    }
    if (!same) fail_msg("%s: %s is not as peft writes it", c->f.name, key);
    json_decref(got);
    json_decref(want);
}

/* Every matrix of the adapter at hand, base and update together. */
static float *merged(kin_case *c, int64_t *count) {
    peft_error err = {0};
    float *all = NULL;
    for (int pass = 0; pass < 2; pass++) {
        *count = 0;
        for (int i = 0; i < c->f.model->n_sites; i++) {
            const pf_site *site = c->f.model->sites[i];
            if (site->weight == NULL || !pf_adapter_touches(c->f.adapter, site, false)) continue;
            const int64_t rows = site->weight->rows, cols = site->weight->cols;
            if (pass == 1)
                OK(pf_adapter_merged_rows(c->f.adapter, site, false, 0, rows, all + *count, &err));
            *count += rows * cols;
        }
        if (pass == 0) all = PF_NEW_ARRAY(&c->f.arena, float, *count);
    }
    return all;
}

static void check_case(const char *name) {
    static const how ways[] = {{"unfused", false, PF_SAVE_ALL, 0, PF_SHARE_NEVER},
                               {"usual", true, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER}};
    peft_error err = {0};
    kin_case c;
    double loss = 0;
    int64_t n_live, n_saved;
    open_case(&c, name);
    const char *dir = pf_arena_printf(&c.f.arena, "%s/%s", tmp_dir, name);
    OK(pf_make_dirs(dir, &err));
    open_folder(&c, fixture_path(&c.f, "end"));
    const double theirs =
        logits_differ(c.f.model, backend, &c.batch, true, true, expected_logits(&c, "logits.end"));
    if (!(theirs <= TOL_LOGITS)) fail_msg("%s: logits of peft's adapter: %g", name, theirs);
    close_adapter(&c);
    for (size_t i = 0; i < 2; i++) {
        open_start(&c);
        if (c.own_start) { /* nothing is changed at first */
            const double d = logits_differ(c.f.model, backend, &c.batch, true, true,
                                           expected_logits(&c, "logits.base"));
            if (!(d <= TOL_LOGITS)) fail_msg("%s: logits at first differ by %g", name, d);
        }
        loss = fmax(loss, train(&c, &ways[i]));
        if (i == 0) close_adapter(&c);
    }
    OK(pf_adapter_save(c.f.adapter, dir, &err));
    const float *end = expected_logits(&c, "logits.end");
    const double ours = logits_differ(c.f.model, backend, &c.batch, true, true, end);
    const float *live = merged(&c, &n_live);
    close_adapter(&c);
    open_folder(&c, dir);
    const double saved = logits_differ(c.f.model, backend, &c.batch, true, true, end);
    const float *again = merged(&c, &n_saved);
    double worst = 0;
    assert_true(n_live > 0 && n_live == n_saved);
    for (int64_t i = 0; i < n_live; i++)
        worst = fmax(worst, fabs((double)live[i] - (double)again[i]));
    if (!(ours <= TOL_END && saved <= TOL_END && worst <= 1e-5))
        fail_msg("%s: logits %g, of the saved one %g, merged rows differ by %g", name, ours, saved,
                 worst);
    close_adapter(&c);
    static const char *const keys[] = {"r", "lora_alpha", "rank_pattern", "alpha_pattern"};
    for (size_t i = 0; i < PF_COUNT(keys); i++) same_member(&c, dir, keys[i]);
    print_message("%-16s logits of peft's %.1e, of ours %.1e, saved %.1e  loss %.1e\n", name,
                  theirs, ours, saved, loss);
    close_case(&c);
}

static void equals_peft(void **state) {
    (void)state;
    pf_strlist names = {0};
    assert_int_equal(pf_list_dir(&names, &names_arena, GOLDEN "/lora_kin", NULL), PEFT_OK);
    assert_true(names.n > 0);
    for (int i = 0; i < names.n; i++) {
        if (!pf_streq(names.items[i], "README.md")) check_case(names.items[i]);
    }
}

static int setup(void **state) {
    (void)state;
    pf_arena_init(&names_arena, "names");
    tmp_dir = pf_arena_printf(&names_arena, TEST_BINARY_DIR "/tests/lora-kin-%ld", (long)getpid());
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    pf_remove_tree(tmp_dir, NULL);
    pf_arena_release(&names_arena);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_peft)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

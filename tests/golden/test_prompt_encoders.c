/* Networks that write virtual tokens (P-tuning's MLP and LSTM, the projection of a prefix) against
 * peft, from the network itself: what it writes, ten optimizer steps, the network afterwards. Then
 * that a step cut into micro-batches has the same gradients, that what is saved is a flat adapter
 * with the same logits, and that five steps, all parameters copied, and five more are ten.
 * Fixtures: tools/make_prompt_encoder_fixtures.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "train/optimizer.h"

#include <unistd.h>

static pf_backend *backend;
static pf_cfg_ext sections[PF_MAX_METHODS];
static int n_sections;

static const how usual = {"usual", true, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER};

typedef struct run_case {
    fixture f;
    pf_run_cfg run;
    pf_cfg cfg;
    pf_optimizer_cfg optimizer;
} run_case;

static void open_case(run_case *c, const char *name) {
    peft_error err = {0};
    const char *keys[16];
    memset(c, 0, sizeof *c);
    fixture *f = &c->f;
    f->topic = "prompt_encoders";
    f->name = name;
    f->backend = backend;
    pf_arena_init(&f->arena, "case");
    f->info = read_json(fixture_path(f, "case.json"));
    read_batches(f);
    const json_t *list = json_object_get(f->info, "keys"), *o = json_object_get(f->info, "optim");
    const int n = (int)json_array_size(list);
    keys[0] = pf_arena_printf(&f->arena, "peft.method=%s", text_of(f->info, "method"));
    for (int i = 0; i < n; i++) keys[i + 1] = json_string_value(json_array_get(list, (size_t)i));
    const pf_cfg_source source = {.overrides = keys, .n_overrides = n + 1};
    OK(pf_run_cfg_open(&c->run, &c->cfg, &f->arena, &source, sections, n_sections, PF_RUN_ANY,
                       &err));
    c->optimizer = (pf_optimizer_cfg){.beta1 = 0.9,
                                      .beta2 = 0.999,
                                      .eps = number_of(o, "eps"),
                                      .weight_decay = number_of(o, "weight_decay"),
                                      .max_grad_norm = number_of(o, "max_grad_norm")};
}

static void close_case(run_case *c) {
    json_decref(c->f.info);
    pf_arena_release(&c->f.arena);
}

/* |got - want| / |want| */
static double relative(const pf_real *got, const float *want, int64_t n) {
    double diff = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    return sqrt(diff / size);
}

/* A fresh model with the network as the fixture has it at the start. */
static void open_adapter(run_case *c) {
    peft_error err = {0};
    pf_safetensors start;
    const char *base =
        pf_arena_printf(&c->f.arena, GOLDEN "/methods/%s", text_of(c->f.info, "base"));
    OK(pf_model_open(&c->f.model, base, NULL, &err));
    OK(pf_adapter_attach(&c->f.adapter, c->f.model, &c->run.peft, 5, true, &err));
    OK(pf_safetensors_open(&start, fixture_path(&c->f, "start.safetensors"), &err));
    pf_params *ps = &c->f.adapter->params;
    assert_int_equal(start.n_tensors, ps->n);
    for (int i = 0; i < ps->n; i++) {
        const int64_t n = ps->items[i]->rows * ps->items[i]->cols;
        const float *from = tensor_of(&start, ps->items[i]->name, n);
        for (int64_t k = 0; k < n && !ps->items[i]->frozen; k++) ps->items[i]->data[k] = from[k];
    }
    OK(pf_params_make(ps, -1, &err));
    const pf_param *flat = pf_params_find(ps, "prompt_embeddings");
    const float *want = tensor_of(&start, flat->name, flat->rows * flat->cols);
    const double d = relative(flat->data, want, flat->rows * flat->cols);
    if (!(d <= 1e-6)) fail_msg("%s: what the network writes differs by %g", c->f.name, d);
    pf_safetensors_close(&start);
}

static void close_adapter(run_case *c) {
    pf_adapter_close(c->f.adapter);
    pf_model_close(c->f.model);
}

static double train(run_case *c, pf_optimizer *o, int first, int end) {
    peft_error err = {0};
    const json_t *steps = json_object_get(c->f.info, "steps");
    double worst = 0;
    runner r;
    open_runner(&r, &c->f, &usual, true);
    for (int i = first; i < end; i++) {
        const json_t *want = json_array_get(steps, (size_t)i);
        const double loss = run_step(&r, &c->f, i, true, NULL);
        const double d = check_loss(&c->f, i, loss, number_of(want, "loss"));
        pf_optimizer_report report;
        OK(pf_optimizer_step(o, NULL, number_of(want, "lr"), &report, &err));
        const double norm = number_of(want, "grad_norm");
        if (!(fabs(report.grad_norm - norm) <= 1e-4 * norm))
            fail_msg("%s: gradient norm of step %d is %g, not %g", c->f.name, i + 1,
                     report.grad_norm, norm);
        if (d > worst) worst = d;
    }
    close_runner(&r);
    return worst;
}

static double check_end(run_case *c) {
    peft_error err = {0};
    pf_safetensors start, end;
    double worst = 0;
    OK(pf_safetensors_open(&start, fixture_path(&c->f, "start.safetensors"), &err));
    OK(pf_safetensors_open(&end, fixture_path(&c->f, "end.safetensors"), &err));
    const pf_params *ps = &c->f.adapter->params;
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        const int64_t n = p->rows * p->cols;
        const float *s = tensor_of(&start, p->name, n), *e = tensor_of(&end, p->name, n);
        double diff = 0, moved = 0;
        for (int64_t k = 0; k < n; k++) {
            diff += pow((double)p->data[k] - (double)e[k], 2);
            moved += pow((double)e[k] - (double)s[k], 2);
        }
        const double d = sqrt(diff / moved);
        if (!(d <= 1e-3)) fail_msg("%s: update of %s differs by %g", c->f.name, p->name, d);
        if (d > worst) worst = d;
    }
    pf_safetensors_close(&start);
    pf_safetensors_close(&end);
    return worst;
}

/* Gradients of the first step from one micro-batch, and from one for each sample. */
static void check_cuts(run_case *c) {
    peft_error err = {0};
    how small = {"small", true, PF_SAVE_ALL, 0, PF_SHARE_NEVER};
    pf_params *ps = &c->f.adapter->params;
    pf_real *whole = PF_NEW_ARRAY(&c->f.arena, pf_real, ps->block_len);
    for (int i = 0; i < c->f.n_samples[0]; i++) { /* no room for two */
        const pf_sample *s = &c->f.steps[0][i];
        const int32_t rows = s->n_tokens + s->n_source + pf_model_lead(c->f.model, true).each;
        if (rows > small.max_tokens) small.max_tokens = rows;
    }
    const how *const ways[] = {&usual, &small};
    for (int i = 0; i < 2; i++) {
        runner r;
        int n_micro;
        open_runner(&r, &c->f, ways[i], true);
        run_step(&r, &c->f, 0, true, &n_micro);
        OK(ps->made.hand_on(ps->made.ctx, &err));
        assert_int_equal(n_micro > 1, i == 1);
        if (i == 0) memcpy(whole, ps->grad, (size_t)ps->block_len * sizeof *whole);
        close_runner(&r);
    }
    double diff = 0, size = 0;
    for (int64_t k = 0; k < ps->block_len; k++) {
        diff = fmax(diff, fabs((double)ps->grad[k] - (double)whole[k]));
        size = fmax(size, fabs((double)whole[k]));
    }
    if (!(diff <= 1e-5 * size && size > 0))
        fail_msg("%s: gradients of a cut step differ by %g of %g", c->f.name, diff, size);
}

/* Of the first step, to the last bit. */
static double loss_of(run_case *c) {
    runner r;
    open_runner(&r, &c->f, &usual, false);
    const double loss = run_step(&r, &c->f, 0, false, NULL);
    close_runner(&r);
    return loss;
}

/* What is saved is rows without a network, with the same loss. */
static void check_flat(run_case *c) {
    peft_error err = {0};
    const char *dir = pf_arena_printf(&c->f.arena, TEST_BINARY_DIR "/tests/encoder-%ld-%s",
                                      (long)getpid(), c->f.name);
    const double want = loss_of(c);
    int n = 0;
    for (int i = 0; i < c->f.adapter->params.n; i++) n += !c->f.adapter->params.items[i]->unsaved;
    OK(pf_make_dirs(dir, &err));
    OK(pf_adapter_save(c->f.adapter, dir, &err));
    close_adapter(c);
    const char *base =
        pf_arena_printf(&c->f.arena, GOLDEN "/methods/%s", text_of(c->f.info, "base"));
    OK(pf_model_open(&c->f.model, base, NULL, &err));
    OK(pf_adapter_open(&c->f.adapter, c->f.model, dir, true, &err));
    assert_int_equal(c->f.adapter->params.n, n);
    assert_true(loss_of(c) == want);
    pf_remove_tree(dir, NULL);
}

/* Parameters and moments after five steps go over to a fresh adapter. */
static void check_resume(run_case *c, const pf_real *ten) {
    peft_error err = {0};
    pf_optimizer o, again;
    open_adapter(c);
    OK(pf_optimizer_init(&o, &c->f.arena, &c->f.adapter->params, &c->optimizer, &err));
    train(c, &o, 0, 5);
    const pf_params *ps = &c->f.adapter->params;
    const pf_real *const blocks[] = {ps->data, ps->m, ps->v};
    pf_real *copy[3];
    for (int k = 0; k < 3; k++) {
        copy[k] = PF_NEW_ARRAY(&c->f.arena, pf_real, ps->block_len);
        memcpy(copy[k], blocks[k], (size_t)ps->block_len * sizeof *copy[k]);
    }
    close_adapter(c);
    open_adapter(c);
    ps = &c->f.adapter->params;
    pf_real *const to[] = {ps->data, ps->m, ps->v};
    for (int k = 0; k < 3; k++) memcpy(to[k], copy[k], (size_t)ps->block_len * sizeof *copy[k]);
    OK(pf_params_make(ps, -1, &err));
    OK(pf_optimizer_init(&again, &c->f.arena, &c->f.adapter->params, &c->optimizer, &err));
    again.t = o.t;
    train(c, &again, 5, c->f.n_steps);
    assert_memory_equal(ps->data, ten, (size_t)ps->block_len * sizeof *ten);
    close_adapter(c);
}

static void check_case(const char *name) {
    peft_error err = {0};
    run_case c;
    pf_optimizer o;
    open_case(&c, name);
    open_adapter(&c);
    check_cuts(&c);
    OK(pf_optimizer_init(&o, &c.f.arena, &c.f.adapter->params, &c.optimizer, &err));
    const double loss = train(&c, &o, 0, c.f.n_steps), update = check_end(&c);
    const pf_params *ps = &c.f.adapter->params;
    pf_real *ten = PF_NEW_ARRAY(&c.f.arena, pf_real, ps->block_len);
    memcpy(ten, ps->data, (size_t)ps->block_len * sizeof *ten);
    check_flat(&c);
    close_adapter(&c);
    check_resume(&c, ten);
    print_message("%-20s loss %.1e  update %.1e\n", name, loss, update);
    close_case(&c);
}

static void equals_peft(void **state) {
    (void)state;
    static const char *const cases[] = {
        "p_tuning_mlp",      "p_tuning_lstm",        "p_tuning_mlp_mt5",
        "p_tuning_lstm_t5",  "p_tuning_mlp_bert",    "p_tuning_lstm_roberta",
        "prefix_projection", "prefix_projection_t5", "prefix_projection_xlmr"};
    for (size_t i = 0; i < PF_COUNT(cases); i++) check_case(cases[i]);
}

static int setup(void **state) {
    (void)state;
    n_sections = pf_method_sections(sections);
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_peft)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

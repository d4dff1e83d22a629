/* Heads of AdapterHub's flexible models (tools/make_hub_head_fixtures.py): the folder says for what
 * task it is, its adapter and head give the logits that they give there, and what is saved from
 * here, as a head of the model's own, gives them again. A head that no model has is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "base/file.h"

#include <unistd.h>

static pf_backend *backend;
static const char *const names[] = {"bert_two_layers", "bert_pooled", "roberta_two_layers",
                                    "xlmr_tagging"};

/* Largest difference from the fixture's logits. */
static double differ(fixture *f) {
    peft_error err = {0};
    pf_loss_graph g;
    pf_batch_builder *bb;
    pf_batch batch;
    pf_loss_sums unused = {0};
    int32_t n_micro;
    double worst = 0;
    const json_t *logits = json_object_get(f->info, "logits");
    const int64_t C = f->model->head->out_dim;
    const int32_t rows = rows_of(f);
    const pf_loss_graph_options go = {
        .adapters = true, .fuse = true, .logits = true, .max_tokens = rows, .max_labels = rows};
    const pf_batch_builder_options bo = {
        .max_tokens = rows, .max_samples = 16, .share = PF_SHARE_NEVER};
    OK(pf_loss_graph_init(&g, f->model, backend, &go, &err));
    OK(pf_batch_builder_new(&bb, &bo, &err));
    OK(pf_batch_builder_begin(bb, f->steps[0], f->n_samples[0], 0, &n_micro, &err));
    pf_batch_builder_get(bb, 0, &batch);
    assert_int_equal(batch.n_labels, json_array_size(logits));
    OK(pf_loss_graph_forward(&g, &batch, &unused, &err));
    const pf_real *got = pf_exec_data(g.exec, g.logits);
    for (int64_t i = 0; i < batch.n_labels * C; i++) {
        const json_t *row = json_array_get(logits, (size_t)(i / C));
        const double d =
            fabs((double)got[i] - json_number_value(json_array_get(row, (size_t)(i % C))));
        if (!(d <= worst)) worst = d;
    }
    pf_batch_builder_free(bb);
    pf_loss_graph_release(&g);
    return worst;
}

static peft_status open_folder(fixture *f, const char *dir, peft_error *out) {
    peft_error err = {0};
    pf_adapter_task task;
    OK(pf_adapter_task_of(&task, &f->arena, dir, &err));
    assert_string_equal(pf_task_name(task.task), text_of(f->info, "task"));
    assert_int_equal(task.n_labels, 3);
    const pf_model_options mo = {.task = task.task,
                                 .classes = {.n_labels = task.n_labels, .labels = &task.labels}};
    OK(pf_model_open(&f->model,
                     pf_arena_printf(&f->arena, GOLDEN "/methods/%s", text_of(f->info, "base")),
                     &mo, &err));
    const peft_status status = pf_adapter_open(&f->adapter, f->model, dir, true, &err);
    *out = err;
    return status;
}

static void open_case(fixture *f, const char *name) {
    memset(f, 0, sizeof *f);
    f->topic = "hub_heads";
    f->name = name;
    f->backend = backend;
    pf_arena_init(&f->arena, "case");
    f->info = read_json(fixture_path(f, "case.json"));
    read_batches(f);
}

static void close_case(fixture *f) {
    pf_adapter_close(f->adapter);
    pf_model_close(f->model);
    json_decref(f->info);
    pf_arena_release(&f->arena);
}

static void flexible_heads(void **state) {
    (void)state;
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        peft_error err = {0};
        fixture f;
        open_case(&f, names[i]);
        const char *dir = pf_arena_printf(&f.arena, TEST_BINARY_DIR "/tests/hub-heads-%ld/%s",
                                          (long)getpid(), names[i]);
        OK(pf_make_dirs(dir, &err));
        if (open_folder(&f, fixture_path(&f, ""), &err) != PEFT_OK) fail_msg("%s", err.message);
        const double there = differ(&f);
        OK(pf_adapter_save(f.adapter, dir, &err));
        pf_adapter_close(f.adapter);
        pf_model_close(f.model);
        if (open_folder(&f, dir, &err) != PEFT_OK) fail_msg("%s", err.message);
        const double again = differ(&f);
        print_message("%-20s logits %.1e, saved %.1e\n", names[i], there, again);
        if (!(there <= TOL_LOGITS && again <= TOL_LOGITS)) fail_msg("%s: logits", names[i]);
        pf_remove_tree(dir, NULL);
        close_case(&f);
    }
}

static void other_heads(void **state) {
    (void)state;
    peft_error err = {0};
    fixture f;
    open_case(&f, "bert_three_layers");
    assert_int_equal(open_folder(&f, fixture_path(&f, ""), &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(err.message,
                           "a classification head of 3 layers with tanh, which "
                           "BertForSequenceClassification for SEQ_CLS has no equal of"));
    close_case(&f);
}

static int setup(void **state) {
    (void)state;
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(flexible_heads),
                                       cmocka_unit_test(other_heads)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

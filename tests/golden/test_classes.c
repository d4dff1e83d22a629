/* Heads that tell classes apart, against transformers and peft: for every folder of classes/, the
 * logits of the first step's texts or words, the loss of each of 10 optimizer steps, raw gradients
 * of the first and the adapter after the last, head included. The script that made the fixtures has
 * checked that each misses its tolerance by a factor of 100 with its features switched off. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

static pf_backend *backend;

static int setup(void **state) {
    (void)state;
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    return 0;
}

static double check_class_logits(fixture *f, bool fuse) {
    peft_error err = {0};
    pf_loss_graph g;
    pf_batch_builder *bb;
    const int32_t rows = rows_of(f);
    const pf_loss_graph_options go = {
        .adapters = true, .fuse = fuse, .logits = true, .max_tokens = rows, .max_labels = rows};
    const pf_batch_builder_options bo = {
        .max_tokens = rows, .max_samples = 16, .share = PF_SHARE_NEVER};
    int32_t n_micro;
    pf_batch batch;
    pf_loss_sums unused = {0};
    OK(pf_loss_graph_init(&g, f->model, backend, &go, &err));
    OK(pf_batch_builder_new(&bb, &bo, &err));
    OK(pf_batch_builder_begin(bb, f->steps[0], f->n_samples[0], 0, &n_micro, &err));
    assert_int_equal(n_micro, 1);
    pf_batch_builder_get(bb, 0, &batch);
    OK(pf_loss_graph_forward(&g, &batch, &unused, &err));
    const int64_t n = batch.n_labels * f->model->head->out_dim;
    const float *want = tensor_of(&f->expected, "logits", n);
    const pf_real *got = pf_exec_data(g.exec, g.logits);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    pf_batch_builder_free(bb);
    pf_loss_graph_release(&g);
    if (!(worst <= TOL_LOGITS)) fail_msg("%s: a logit differs by %g", f->name, worst);
    return worst;
}

static void every_case(void **state) {
    (void)state;
    static const how ways[] = {
        {"usual", true, PF_SAVE_MINIMAL, SMALL_CUT, PF_SHARE_NEVER},
        {"checkpoint", false, PF_SAVE_CHECKPOINT, 0, PF_SHARE_NEVER},
        {"shared", true, PF_SAVE_MINIMAL, 0, PF_SHARE_ALWAYS},
    };
    pf_arena a;
    pf_strlist names = {0};
    int n = 0;
    pf_arena_init(&a, "names");
    assert_int_equal(pf_list_dir(&names, &a, GOLDEN "/classes", NULL), PEFT_OK);
    for (int i = 0; i < names.n; i++) {
        if (!pf_is_dir(pf_path_join(&a, GOLDEN "/classes", names.items[i]))) continue;
        for (size_t k = 0; k < PF_COUNT(ways); k++) {
            fixture f;
            char line[160];
            open_fixture_of(&f, "classes", names.items[i], backend);
            pf_adapter_describe(f.adapter, line, sizeof line);
            assert_string_equal(line, text_of(f.info, "trainable"));
            assert_string_equal(pf_task_name(f.model->task), text_of(f.info, "task"));
            if (k == 0)
                print_message("%-18s logits %.1e, fused %.1e\n", f.name,
                              check_class_logits(&f, false), check_class_logits(&f, true));
            if (ways[k].share == PF_SHARE_NEVER || !f.model->family->bidirectional)
                check_training(&f, &ways[k]);
            close_fixture(&f);
        }
        n++;
    }
    assert_true(n >= 22);
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

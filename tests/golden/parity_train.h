/* parity_train.h - a fixture of tests/golden/parity (or of a folder beside it that is made alike),
 * and 20 optimizer steps compared with it. */
#ifndef PARITY_TRAIN_H
#define PARITY_TRAIN_H

#include "golden/parity_util.h"

#include "data/batch_builder.h"
#include "ops/optim/adamw.h"

#define TOL_LOGITS 1e-4 /* largest absolute difference */
#define TOL_LOSS   1e-4 /* relative, each step */
#define TOL_GRAD   1e-3 /* relative, norm of the difference, each tensor */
#define TOL_UPDATE 1e-3 /* the same of after - before */

#define NOISE 1e-4 /* of the norm of all tensors: what is smaller is compared with this */

/* Rows of a micro-batch: a step of four samples is cut into several. */
#define SMALL_CUT 40

typedef struct fixture {
    const char *topic, *name; /* tests/golden/<topic>/<name> */
    pf_backend *backend;
    pf_arena arena;
    json_t *info;
    pf_safetensors expected;
    pf_model *model;
    pf_adapter *adapter;
    pf_real *before; /* copy of the parameters */
    int n_steps;
    pf_sample **steps; /* [step][sample] */
    int *n_samples;
} fixture;

typedef struct how { /* ways to run one step that must not change what it computes */
    const char *name;
    bool fuse;
    pf_save_policy policy;
    int32_t max_tokens;
    pf_share share;
} how;

/* ---- fixtures -------------------------------------------------------------------------------- */

static inline const char *fixture_path(fixture *f, const char *file) {
    return pf_arena_printf(&f->arena, GOLDEN "/%s/%s/%s", f->topic, f->name, file);
}

/* Weights elsewhere, losses only. */
static inline bool is_real(const fixture *f) {
    return json_object_get(f->info, "model") != NULL;
}

/* One for each token; NULL: the targets are tokens. */
static inline const float *read_values(fixture *f, const json_t *list) {
    if (!json_is_array(list)) return NULL;
    float *values = PF_NEW_ARRAY(&f->arena, float, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++)
        values[i] = (float)json_number_value(json_array_get(list, i));
    return values;
}

static inline const int32_t *read_classes(fixture *f, const json_t *list) {
    if (list == NULL) return NULL;
    int32_t *classes = PF_NEW_ARRAY(&f->arena, int32_t, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++)
        classes[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return classes;
}

/* Token ids stand in case.json, or for the real rows one after the other in ids.safetensors. */
static inline void read_batches(fixture *f) {
    const json_t *steps = json_object_get(f->info, "batches"), *step, *s;
    pf_safetensors file = {0};
    const int16_t *stored = NULL;
    size_t i, k, at = 0;
    if (is_real(f)) {
        peft_error err = {0};
        OK(pf_safetensors_open(&file, fixture_path(f, "ids.safetensors"), &err));
        stored = pf_safetensors_find(&file, "ids")->data;
    }
    f->n_steps = (int)json_array_size(steps);
    f->steps = PF_NEW_ARRAY(&f->arena, pf_sample *, f->n_steps);
    f->n_samples = PF_NEW_ARRAY(&f->arena, int, f->n_steps);
    json_array_foreach(steps, i, step) {
        f->n_samples[i] = (int)json_array_size(step);
        f->steps[i] = PF_NEW_ARRAY(&f->arena, pf_sample, f->n_samples[i]);
        json_array_foreach(step, k, s) {
            const json_t *ids = json_object_get(s, "ids");
            int n = ids != NULL ? (int)json_array_size(ids) : (int)number_of(s, "n");
            int32_t *tokens = PF_NEW_ARRAY(&f->arena, int32_t, n);
            for (int t = 0; t < n; t++) {
                tokens[t] = ids == NULL
                                ? stored[at++]
                                : (int32_t)json_integer_value(json_array_get(ids, (size_t)t));
            }
            const int32_t *classes = read_classes(f, json_object_get(s, "classes"));
            const json_t *source = json_object_get(s, "source");
            const int n_source = (int)json_array_size(source);
            int32_t *rows = n_source > 0 ? PF_NEW_ARRAY(&f->arena, int32_t, n_source) : NULL;
            for (int t = 0; t < n_source; t++)
                rows[t] = (int32_t)json_integer_value(json_array_get(source, (size_t)t));
            f->steps[i][k] = (pf_sample){
                .source = rows,
                .n_source = n_source,
                .tokens = tokens,
                .n_tokens = n,
                .first_label = classes != NULL ? 0 : (int32_t)number_of(s, "prompt"),
                .classes = classes,
                .class_weights = read_values(f, json_object_get(f->info, "class_weights")),
                .values = read_values(f, json_object_get(s, "values")),
                .second_from = (int32_t)json_integer_value(json_object_get(s, "second_from")),
                .index = (int32_t)k};
        }
    }
    if (stored != NULL)
        assert_int_equal(pf_stored_tensor_count(pf_safetensors_find(&file, "ids")), at);
    pf_safetensors_close(&file);
}

static inline void open_model(fixture *f) {
    peft_error err = {0};
    const char *dir = is_real(f) ? pf_arena_printf(&f->arena, TEST_SHARED_DIR "/data/models/%s",
                                                   text_of(f->info, "model"))
                                 : fixture_path(f, "");
    pf_model_options mo = {0};
    pf_adapter_task task = {0};
    if (text_of(f->info, "task") != NULL) /* the adapter says how many classes there are */
        OK(pf_adapter_task_of(&task, &f->arena, fixture_path(f, "adapter"), &err));
    mo.task = task.task;
    mo.classes.n_labels = task.n_labels;
    mo.classes.problem = pf_problem_find(text_of(f->info, "problem"));
    const char *seed = text_of(f->info, "dropout_seed");
    if (seed != NULL)
        mo.dropout =
            (pf_dropout_choice){.use = PF_DROPOUT_CONFIG, .seed = strtoull(seed, NULL, 10)};
    OK(pf_model_open(&f->model, dir, &mo, &err));
    if (pf_streq(text_of(f->info, "method"), "full")) {
        const pf_peft_cfg cfg = {.method = "full", .given = true};
        OK(pf_adapter_attach(&f->adapter, f->model, &cfg, 1, true, &err));
    } else {
        OK(pf_adapter_open(&f->adapter, f->model, fixture_path(f, "adapter"), true, &err));
    }
    const size_t bytes = (size_t)f->adapter->params.block_len * sizeof(pf_real);
    f->before = pf_arena_alloc(&f->arena, bytes);
    memcpy(f->before, f->adapter->params.data, bytes);
}

static inline void open_fixture_of(fixture *f, const char *topic, const char *name,
                                   pf_backend *backend) {
    peft_error err = {0};
    memset(f, 0, sizeof *f);
    f->topic = topic;
    f->name = name;
    f->backend = backend;
    pf_arena_init(&f->arena, "fixture");
    f->info = read_json(fixture_path(f, "case.json"));
    if (!is_real(f))
        OK(pf_safetensors_open(&f->expected, fixture_path(f, "expected.safetensors"), &err));
    read_batches(f);
    open_model(f);
}

static inline void open_fixture(fixture *f, const char *name, pf_backend *backend) {
    open_fixture_of(f, "parity", name, backend);
}

static inline void close_fixture(fixture *f) {
    pf_adapter_close(f->adapter);
    pf_model_close(f->model);
    pf_safetensors_close(&f->expected);
    json_decref(f->info);
    pf_arena_release(&f->arena);
}

/* ---- one step -------------------------------------------------------------------------------- */

static inline int32_t rows_of(const fixture *f) {
    const int32_t each = pf_model_lead(f->model, true).each;
    int32_t most = 0;
    for (int i = 0; i < f->n_steps; i++) {
        int32_t rows = 0;
        for (int k = 0; k < f->n_samples[i]; k++)
            rows += f->steps[i][k].n_tokens + f->steps[i][k].n_source + each;
        if (rows > most) most = rows;
    }
    return most;
}

typedef struct runner {
    pf_loss_graph graph;
    pf_batch_builder *builder;
} runner;

static inline void open_runner(runner *r, const fixture *f, const how *h, bool training) {
    peft_error err = {0};
    const pf_lead lead = pf_model_lead(f->model, true);
    const int32_t rows = (h->max_tokens > 0 ? h->max_tokens : rows_of(f)) + lead.prompt;
    const pf_rope_spec *rope = &f->model->rope;
    const pf_batch_builder_options bo = {.max_tokens = rows,
                                         .max_samples = 16,
                                         .prompt_rows = lead.prompt,
                                         .prefix_rows = lead.prefix,
                                         .prefix_apart = lead.apart,
                                         .each_rows = lead.each,
                                         .share = h->share,
                                         .keep_tail =
                                             f->model->router_loss || f->model->whole_texts,
                                         .rope_original = pf_rope_original(rope)};
    const pf_loss_graph_options go = {.training = training,
                                      .adapters = true,
                                      .policy = h->policy,
                                      .fuse = h->fuse,
                                      .smoothing =
                                          json_number_value(json_object_get(f->info, "smoothing")),
                                      .max_tokens = rows,
                                      .max_labels = rows,
                                      .max_source = f->model->encoder_decoder ? rows : 0};
    OK(pf_batch_builder_new(&r->builder, &bo, &err));
    OK(pf_loss_graph_init(&r->graph, f->model, f->backend, &go, &err));
}

static inline void close_runner(runner *r) {
    pf_loss_graph_release(&r->graph);
    pf_batch_builder_free(r->builder);
}

/* Loss of one step; with training its gradients are in the parameters' block. */
static inline double run_step(runner *r, const fixture *f, int step, bool training,
                              int *n_micro_out) {
    peft_error err = {0};
    int32_t n_micro;
    pf_loss_sums sums = {0};
    if (training) pf_params_zero_grad(&f->adapter->params);
    OK(pf_batch_builder_begin(r->builder, f->steps[step], f->n_samples[step], (uint64_t)step,
                              &n_micro, &err));
    const double denominator = pf_batch_builder_figures(r->builder).label_weight;
    pf_exec_weights_stay(r->graph.exec, true);
    for (int32_t i = 0; i < n_micro; i++) {
        pf_batch batch;
        pf_batch_builder_get(r->builder, i, &batch);
        OK(pf_batch_check(&batch, f->model->vocab, pf_model_lead(f->model, true).prefix, &err));
        OK(pf_loss_graph_forward(&r->graph, &batch, &sums, &err));
        if (training) OK(pf_loss_graph_backward(&r->graph, denominator, &err));
    }
    if (n_micro_out != NULL) *n_micro_out = n_micro;
    return sums.nll / sums.weight;
}

/* clip, then AdamW, tensor by tensor: decay differs */
static inline double update(const fixture *f, const json_t *optim, double lr, int t) {
    pf_params *ps = &f->adapter->params;
    const json_t *betas = json_object_get(optim, "betas");
    double norm = sqrt(pf_sum_squares(NULL, ps->block_len, ps->grad));
    double scale = fmin(1, number_of(optim, "max_grad_norm") / (norm + 1e-6));
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        const pf_adamw o = {.lr = lr,
                            .beta1 = json_number_value(json_array_get(betas, 0)),
                            .beta2 = json_number_value(json_array_get(betas, 1)),
                            .eps = number_of(optim, "eps"),
                            .weight_decay = p->decay ? number_of(optim, "weight_decay") : 0,
                            .t = t};
        pf_adamw_update(NULL, &o, scale, p->rows * p->cols, p->data, p->grad, ps->m + p->offset,
                        ps->v + p->offset);
    }
    return norm;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Sums of squares of got - want and of want - minus; minus may be NULL. */
static inline void add_squares(const pf_real *got, const float *want, const pf_real *minus,
                               int64_t n, double *diff, double *size) {
    for (int64_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        double w = (double)want[i] - (minus == NULL ? 0 : (double)minus[i]);
        *diff += d * d;
        *size += w * w;
    }
}

static inline double check_tensors(const fixture *f, const char *prefix, const char *what,
                                   bool gradients, double tolerance) {
    const pf_params *ps = &f->adapter->params;
    double *diff = PF_NEW_ARRAY(&f->adapter->arena, double, ps->n), *size;
    double worst = 0, all = 0;
    size = PF_NEW_ARRAY(&f->adapter->arena, double, ps->n);
    for (int i = 0; i < ps->n; i++) {
        const pf_param *p = ps->items[i];
        const int64_t n = p->rows * p->cols;
        const char *name = pf_arena_printf(&f->adapter->arena, "%s%s", prefix, p->name);
        const float *want = tensor_of(&f->expected, name, n);
        add_squares(gradients ? p->grad : p->data, want, gradients ? NULL : f->before + p->offset,
                    n, &diff[i], &size[i]);
        all += size[i];
    }
    for (int i = 0; i < ps->n; i++) { /* a tensor may be nothing but rounding: biases of keys */
        const pf_param *p = ps->items[i];
        const double floor = NOISE * NOISE * all;
        const double d = sqrt(diff[i] / (size[i] > floor ? size[i] : floor));
        if (!(d <= tolerance)) fail_msg("%s: %s of %s differs by %g", f->name, what, p->name, d);
        if (d > worst) worst = d;
    }
    return worst;
}

static inline double check_loss(const fixture *f, int step, double got, double want) {
    double d = fabs(got - want) / fabs(want);
    if (!(d <= TOL_LOSS)) {
        fail_msg("%s: loss of step %d is %.8g, not %.8g", f->name, step + 1, got, want);
    }
    return d;
}

static inline void check_training(fixture *f, const how *h) {
    const json_t *steps = json_object_get(f->info, "steps");
    double worst_loss = 0, worst_grad = 0, worst_update = 0;
    int n_micro, most_micro = 0;
    runner r;
    open_runner(&r, f, h, true);
    for (int i = 0; i < f->n_steps; i++) {
        const json_t *want = json_array_get(steps, (size_t)i);
        double loss = run_step(&r, f, i, true, &n_micro);
        double d = check_loss(f, i, loss, number_of(want, "loss"));
        if (d > worst_loss) worst_loss = d;
        if (n_micro > most_micro) most_micro = n_micro;
        if (i == 0 && !is_real(f))
            worst_grad = check_tensors(f, "grad.", "gradient", true, TOL_GRAD);
        double norm = update(f, json_object_get(f->info, "optim"), number_of(want, "lr"), i + 1);
        d = fabs(norm - number_of(want, "grad_norm")) / number_of(want, "grad_norm");
        if (!(d <= TOL_GRAD)) fail_msg("%s: gradient norm of step %d is %g", f->name, i + 1, norm);
    }
    if (!is_real(f)) worst_update = check_tensors(f, "after.", "update", false, TOL_UPDATE);
    close_runner(&r);
    if (h->max_tokens == SMALL_CUT) assert_true(most_micro > 1);
    print_message("%-18s %-10s loss %.1e  gradient %.1e  update %.1e\n", f->name, h->name,
                  worst_loss, worst_grad, worst_update);
}

#endif

/* Every PEFT method against peft: for each folder of tests/golden/methods/ that has a case.json
 * (tools/make_method_fixtures.py), an adapter that peft made gives here the logits that it gives
 * there, ten optimizer steps have the same losses and end in the same file, merged rows give the
 * unmerged logits, and five steps, a checkpoint and five more are ten steps bit for bit. From a
 * source the adapter writes what peft writes.
 *
 *     build/release/tests/test_methods [--keep DIR] [case ...]
 *
 * --keep leaves what was saved, and the logits it gives here, for tools/check_methods_back.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "infer/generator.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

#include <unistd.h>

#define TOL_MERGED 1e-5 /* relative to the largest logit */
#define OFF_FACTOR 100

static pf_backend *backend;
static pf_arena names_arena;
static const char *tmp_dir;
static bool keep;
static int n_wanted;
static char **wanted;

typedef struct method_case {
    fixture f; /* its adapter is the one at hand */
    const char *base;
    pf_batch batch;            /* whole samples of the first step */
    const char *file, *config; /* its two files */
    double tol_logits, tol_loss, tol_update, tol_merged;
} method_case;

static const how usual = {"usual", true, PF_SAVE_MINIMAL, 0, PF_SHARE_NEVER};
static const how unfused = {"unfused", false, PF_SAVE_ALL, 0, PF_SHARE_NEVER};

/* ---- cases ----------------------------------------------------------------------------------- */

static double tolerance(const json_t *info, const char *key, double usual_one) {
    const json_t *t = json_object_get(info, "tolerance"), *v = json_object_get(t, key);
    if (v == NULL) return usual_one;
    assert_non_null(text_of(t, "why"));
    return json_number_value(v);
}

static void open_case(method_case *c, const char *name) {
    peft_error err = {0};
    const int32_t *ids[16], *sources[16];
    int32_t lengths[16], source_lengths[16];
    memset(c, 0, sizeof *c);
    fixture *f = &c->f;
    f->topic = "methods";
    f->name = name;
    f->backend = backend;
    pf_arena_init(&f->arena, "case");
    f->info = read_json(fixture_path(f, "case.json"));
    OK(pf_safetensors_open(&f->expected, fixture_path(f, "expected.safetensors"), &err));
    read_batches(f);
    c->base = pf_arena_printf(&f->arena, GOLDEN "/methods/%s", text_of(f->info, "base"));
    assert_true(f->n_samples[0] <= 16);
    for (int i = 0; i < f->n_samples[0]; i++) {
        ids[i] = f->steps[0][i].tokens;
        lengths[i] = f->steps[0][i].n_tokens;
        sources[i] = f->steps[0][i].source;
        source_lengths[i] = f->steps[0][i].n_source;
    }
    c->batch = whole_samples(&f->arena, ids, lengths, f->n_samples[0]);
    add_sources(&f->arena, &c->batch, sources, source_lengths, f->n_samples[0]);
    c->tol_logits = tolerance(f->info, "logits", TOL_LOGITS);
    c->tol_loss = tolerance(f->info, "loss", TOL_LOSS);
    c->tol_update = tolerance(f->info, "update", TOL_UPDATE);
    c->tol_merged = tolerance(f->info, "merged", TOL_MERGED);
}

static void close_case(method_case *c) {
    pf_safetensors_close(&c->f.expected);
    json_decref(c->f.info);
    pf_arena_release(&c->f.arena);
}

/* A fresh model with the adapter of this folder. */
static void open_adapter(method_case *c, const char *dir, bool with_training) {
    peft_error err = {0};
    OK(pf_model_open(&c->f.model, c->base, NULL, &err));
    OK(pf_adapter_open(&c->f.adapter, c->f.model, dir, with_training, &err));
    c->file = pf_method_weight_file(c->f.adapter->method);
    c->config = pf_method_config_file(c->f.adapter->method);
}

static void close_adapter(method_case *c) {
    pf_adapter_close(c->f.adapter);
    pf_model_close(c->f.model);
    c->f.adapter = NULL;
    c->f.model = NULL;
}

/* ---- logits ---------------------------------------------------------------------------------- */

/* Of every row, or of those whose class is told. */
static int64_t count_logits(const method_case *c) {
    int64_t rows = c->batch.n_labels;
    if (c->f.steps[0][0].classes == NULL) return rows * c->f.model->vocab;
    rows = 0;
    for (int i = 0; i < c->f.n_samples[0]; i++) {
        const pf_sample *s = &c->f.steps[0][i];
        for (int t = 0; t < s->n_tokens; t++) rows += s->classes[t] >= 0;
    }
    return rows * c->f.model->head->out_dim;
}

static const float *expected_logits(const method_case *c, const char *which) {
    const char *name = pf_arena_printf((pf_arena *)&c->f.arena, "logits.%s", which);
    return tensor_of(&c->f.expected, name, count_logits(c));
}

/* Logits of the classes that the first step tells. */
static void class_logits(method_case *c, bool adapters, bool fuse, float *out) {
    peft_error err = {0};
    const fixture *f = &c->f;
    pf_loss_graph g;
    pf_batch_builder *bb;
    pf_batch batch;
    pf_loss_sums unused = {0};
    int32_t n_micro;
    const pf_lead lead = pf_model_lead(f->model, adapters);
    const int32_t rows = rows_of(f) + lead.prompt;
    const pf_loss_graph_options go = {
        .adapters = adapters, .fuse = fuse, .logits = true, .max_tokens = rows, .max_labels = rows};
    const pf_batch_builder_options bo = {.max_tokens = rows,
                                         .max_samples = 16,
                                         .prompt_rows = lead.prompt,
                                         .prefix_rows = lead.prefix,
                                         .prefix_apart = lead.apart,
                                         .each_rows = lead.each,
                                         .share = PF_SHARE_NEVER};
    OK(pf_loss_graph_init(&g, f->model, backend, &go, &err));
    OK(pf_batch_builder_new(&bb, &bo, &err));
    OK(pf_batch_builder_begin(bb, f->steps[0], f->n_samples[0], 0, &n_micro, &err));
    assert_int_equal(n_micro, 1);
    pf_batch_builder_get(bb, 0, &batch);
    assert_int_equal(batch.n_labels * f->model->head->out_dim, count_logits(c));
    OK(pf_loss_graph_forward(&g, &batch, &unused, &err));
    const pf_real *got = pf_exec_data(g.exec, g.logits);
    for (int64_t i = 0; i < count_logits(c); i++) out[i] = (float)got[i];
    pf_batch_builder_free(bb);
    pf_loss_graph_release(&g);
}

static void case_logits(method_case *c, bool adapters, bool fuse, float *out) {
    if (c->f.steps[0][0].classes != NULL)
        class_logits(c, adapters, fuse, out);
    else
        compute_logits(c->f.model, backend, &c->batch, adapters, fuse, out);
}

static double differ(method_case *c, bool adapters, bool fuse, const float *want) {
    const int64_t n = count_logits(c);
    float *got = PF_NEW_ARRAY(&c->f.arena, float, n);
    double worst = 0;
    case_logits(c, adapters, fuse, got);
    for (int64_t i = 0; i < n; i++) {
        const double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* Greedy continuations of the sources of the first step. */
static void check_greedy(method_case *c) {
    enum { MOST = 16 };
    peft_error err = {0};
    const json_t *greedy = json_object_get(c->f.info, "greedy");
    const pf_generator_options ways[] = {
        {.max_sequences = 8, .max_length = 32, .adapters = true, .fuse = true},
        {.max_sequences = 1, .max_length = 32, .max_tokens = 1, .adapters = true}};
    for (size_t w = 0; greedy != NULL && w < PF_COUNT(ways); w++) {
        pf_generation items[16] = {0};
        int32_t ids[16][MOST];
        pf_generator *g;
        for (int i = 0; i < c->f.n_samples[0]; i++) {
            const pf_sample *s = &c->f.steps[0][i];
            items[i] = (pf_generation){.prompt = s->source, .n_prompt = s->n_source, .ids = ids[i]};
        }
        const pf_generate_options go = {.sampling = pf_sampling_greedy(), .max_new_tokens = MOST};
        OK(pf_generator_new(&g, c->f.model, backend, &ways[w], &err));
        OK(pf_generator_run(g, &go, items, c->f.n_samples[0], &err));
        for (int i = 0; i < c->f.n_samples[0]; i++) {
            const json_t *want = json_array_get(greedy, (size_t)i), *id;
            size_t k;
            json_array_foreach(want, k, id) {
                if (ids[i][k] != (int32_t)json_integer_value(id))
                    fail_msg("%s: token %zu of sequence %d is %d", c->f.name, k, i, ids[i][k]);
            }
        }
        pf_generator_free(g);
    }
}

static double check_logits_of(method_case *c, const char *dir) {
    open_adapter(c, fixture_path(&c->f, dir), false);
    const float *with = expected_logits(c, dir), *base = expected_logits(c, "base");
    const double plain = differ(c, true, false, with), fused = differ(c, true, true, with),
                 bare = differ(c, false, true, base), off = differ(c, false, true, with);
    if (!(plain <= c->tol_logits && fused <= c->tol_logits && bare <= TOL_LOGITS))
        fail_msg("%s/%s: logits differ by %g, fused %g, of the base %g", c->f.name, dir, plain,
                 fused, bare);
    if (!(off > OFF_FACTOR * c->tol_logits))
        fail_msg("%s/%s: the base alone passes: %g", c->f.name, dir, off);
    if (pf_streq(dir, "end")) check_greedy(c);
    close_adapter(c);
    return fused > plain ? fused : plain;
}

/* ---- training -------------------------------------------------------------------------------- */

static pf_optimizer_cfg optimizer_cfg(const method_case *c) {
    const json_t *o = json_object_get(c->f.info, "optim"), *betas = json_object_get(o, "betas");
    return (pf_optimizer_cfg){.beta1 = json_number_value(json_array_get(betas, 0)),
                              .beta2 = json_number_value(json_array_get(betas, 1)),
                              .eps = number_of(o, "eps"),
                              .weight_decay = number_of(o, "weight_decay"),
                              .max_grad_norm = number_of(o, "max_grad_norm")};
}

/* Steps [first, end) of the case; returns the largest difference of a loss. */
static double train_steps(method_case *c, const how *h, pf_optimizer *o, int first, int end) {
    peft_error err = {0};
    const json_t *steps = json_object_get(c->f.info, "steps");
    double worst = 0;
    runner r;
    open_runner(&r, &c->f, h, true);
    for (int i = first; i < end; i++) {
        const json_t *want = json_array_get(steps, (size_t)i);
        const double loss = run_step(&r, &c->f, i, true, NULL), expected = number_of(want, "loss");
        const double d = fabs(loss - expected) / fabs(expected);
        pf_optimizer_report report;
        if (!(d <= c->tol_loss))
            fail_msg("%s: loss of step %d is %.8g, not %.8g", c->f.name, i + 1, loss, expected);
        if (d > worst) worst = d;
        OK(pf_adapter_after_backward(c->f.adapter, &err));
        OK(pf_optimizer_step(o, NULL, number_of(want, "lr"), &report, &err));
        OK(pf_adapter_after_step(
            c->f.adapter,
            &(pf_step_done){.step = i + 1, .total_steps = c->f.n_steps, .clip = report.clip},
            &err));
        const double norm = number_of(want, "grad_norm");
        if (!(fabs(report.grad_norm - norm) <= TOL_GRAD * norm))
            fail_msg("%s: gradient norm of step %d is %g, not %g", c->f.name, i + 1,
                     report.grad_norm, norm);
    }
    close_runner(&r);
    return worst;
}

/* ---- the saved file -------------------------------------------------------------------------- */

/* Is the tensor one of this list of parts of names? */
static bool is_named(const method_case *c, const char *key, const char *name) {
    const json_t *patterns = json_object_get(c->f.info, key), *why;
    const char *part;
    json_object_foreach((json_t *)patterns, part, why) {
        if (strstr(name, part) != NULL) return true;
    }
    return false;
}

static bool same_shape(const pf_stored_tensor *a, const pf_stored_tensor *b) {
    if (a->n_dims != b->n_dims) return false;
    for (int i = 0; i < a->n_dims; i++) {
        if (a->shape[i] != b->shape[i]) return false;
    }
    return true;
}

/* |got - want| / |want - start|; what peft left as it was has to be so here. start NULL: the file
 * began with other sizes, so want counts. */
static double update_error(const float *got, const float *want, const float *start, int64_t n) {
    double diff = 0, moved = 0;
    for (int64_t i = 0; i < n; i++) {
        diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        const double w = start == NULL ? want[i] : (double)want[i] - start[i];
        moved += w * w;
    }
    return moved > 0 ? sqrt(diff / moved) : sqrt(diff);
}

static double check_saved_tensors(method_case *c, const char *dir, const char *file) {
    peft_error err = {0};
    pf_safetensors got, want, start;
    double worst = 0;
    OK(pf_safetensors_open(&got, pf_path_join(&c->f.arena, dir, file), &err));
    OK(pf_safetensors_open(&want, pf_path_join(&c->f.arena, fixture_path(&c->f, "end"), file),
                           &err));
    OK(pf_safetensors_open(&start, pf_path_join(&c->f.arena, fixture_path(&c->f, "start"), file),
                           &err));
    for (int i = 0; i < want.n_tensors; i++) {
        const pf_stored_tensor *w = &want.tensors[i], *g = pf_safetensors_find(&got, w->name);
        if (g == NULL && is_named(c, "not_written", w->name)) continue;
        if (g == NULL) fail_msg("%s: %s is not saved", c->f.name, w->name);
        if (!same_shape(g, w)) {
            char a[PF_SHAPE_TEXT], b[PF_SHAPE_TEXT];
            fail_msg("%s: %s is saved as %s, by peft as %s", c->f.name, w->name,
                     pf_shape_text(g, a, sizeof a), pf_shape_text(w, b, sizeof b));
        }
        /* rounding alone moves it, there and here */
        if (is_named(c, "no_gradient", w->name)) continue;
        const int64_t n = pf_stored_tensor_count(w);
        if (w->dtype == PF_DTYPE_I32) continue; /* places: the logits depend on them */
        const pf_stored_tensor *s = pf_safetensors_find(&start, w->name);
        if (s == NULL) fail_msg("%s: start has no %s", c->f.name, w->name);
        const double d = update_error(tensor_of(&got, w->name, n), tensor_of(&want, w->name, n),
                                      same_shape(s, w) ? tensor_of(&start, w->name, n) : NULL, n);
        if (!(d <= c->tol_update))
            fail_msg("%s: update of %s differs by %g", c->f.name, w->name, d);
        if (d > worst) worst = d;
    }
    for (int i = 0; i < got.n_tensors; i++) {
        if (pf_safetensors_find(&want, got.tensors[i].name) == NULL)
            fail_msg("%s: %s is saved, peft has none", c->f.name, got.tensors[i].name);
    }
    pf_safetensors_close(&got);
    pf_safetensors_close(&want);
    pf_safetensors_close(&start);
    return worst;
}

static bool holds(const json_t *list, const json_t *item) {
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v) {
        if (json_equal(v, item)) return true;
    }
    return false;
}

/* Lists are compared as sets (peft writes sets), numbers as numbers (1 is 1.0). */
static bool same_value(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    if (!json_is_array(a) || !json_is_array(b)) {
        if (!json_is_object(a) || !json_is_object(b)) return json_equal(a, b);
        const char *key;
        json_t *v;
        json_object_foreach((json_t *)a, key, v) {
            if (!same_value(v, json_object_get(b, key))) return false;
        }
        return json_object_size(a) == json_object_size(b);
    }
    const json_t *v;
    size_t i;
    json_array_foreach(a, i, v) {
        if (!holds(b, v)) return false;
    }
    return json_array_size(a) == json_array_size(b);
}

/* Every key that we write peft writes too, with this value; every key of peft's that differs from
 * its default we write. */
static void check_saved_config(method_case *c, const char *dir, const char *file,
                               const json_t *set) {
    const char *key;
    json_t *got = read_json(pf_path_join(&c->f.arena, dir, file)),
           *want = read_json(pf_path_join(&c->f.arena, fixture_path(&c->f, "end"), file)), *v;
    json_object_foreach((json_t *)set, key, v) {
        if (!same_value(v, json_object_get(got, key)))
            fail_msg("%s: %s: %s is not as peft writes it", c->f.name, file, key);
    }
    json_object_foreach(got, key, v) {
        const json_t *w = json_object_get(want, key);
        if (pf_streq(key, "id2label") || pf_streq(key, "label2id")) continue; /* ours: names */
        if (w == NULL) fail_msg("%s: %s: peft has no %s", c->f.name, file, key);
        if (!same_value(v, w) && !pf_streq(key, "inference_mode"))
            fail_msg("%s: %s: %s is another than peft's", c->f.name, file, key);
    }
    json_decref(got);
    json_decref(want);
}

/* A head for classes may have files of its own (AdapterHub). */
static double check_saved(method_case *c, const char *dir) {
    const double d = check_saved_tensors(c, dir, c->file);
    check_saved_config(c, dir, c->config, json_object_get(c->f.info, "config_set"));
    if (!pf_path_exists(fixture_path(&c->f, "end/head_config.json"))) return d;
    check_saved_config(c, dir, "head_config.json", NULL);
    return fmax(d, check_saved_tensors(c, dir, "model_head.safetensors"));
}

/* Logits of the adapter at hand, as raw floats beside its files. */
static void write_logits(method_case *c, const char *dir) {
    peft_error err = {0};
    const int64_t n = count_logits(c);
    float *z = PF_NEW_ARRAY(&c->f.arena, float, n);
    case_logits(c, true, true, z);
    OK(pf_write_file(pf_path_join(&c->f.arena, dir, "logits.f32"), z, (size_t)n * sizeof *z, &err));
}

/* ---- merging --------------------------------------------------------------------------------- */

/* A matrix of the model replaced by the merged one, which lives in the case's arena. */
static void merge_one(method_case *c, pf_site *site, bool bias) {
    peft_error err = {0};
    const pf_weight *w = bias ? site->bias : site->weight;
    if (w == NULL || !pf_adapter_touches(c->f.adapter, site, bias)) return;
    float *rows = PF_NEW_ARRAY(&c->f.arena, float, w->rows * w->cols);
    pf_weight *merged = PF_NEW(&c->f.arena, pf_weight);
    const int64_t first = w->rows / 3; /* in two parts */
    OK(pf_adapter_merged_rows(c->f.adapter, site, bias, 0, first, rows, &err));
    OK(pf_adapter_merged_rows(c->f.adapter, site, bias, first, w->rows - first,
                              rows + first * w->cols, &err));
    *merged = pf_weight_of(w->name, PF_DTYPE_F32, rows, w->rows, w->cols);
    *(bias ? &site->bias : &site->weight) = merged;
}

static double check_merged(method_case *c) {
    double largest = 0;
    open_adapter(c, fixture_path(&c->f, "end"), false);
    const int64_t n = count_logits(c);
    float *unmerged = PF_NEW_ARRAY(&c->f.arena, float, n);
    for (int64_t i = 0; i < n; i++) unmerged[i] = 0;
    case_logits(c, true, true, unmerged);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)unmerged[i]));
    for (int i = 0; i < c->f.model->n_sites; i++) {
        merge_one(c, c->f.model->sites[i], false);
        merge_one(c, c->f.model->sites[i], true);
    }
    double d = differ(c, false, true, unmerged) / largest;
    if (!(d <= c->tol_merged)) fail_msg("%s: merged logits differ by %g", c->f.name, d);
    close_adapter(c);
    return d;
}

/* ---- resuming -------------------------------------------------------------------------------- */

static peft_status save_adapter(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    const char *files[PF_ADAPTER_FILES], *path = NULL;
    pf_arena a;
    pf_arena_init(&a, "paths");
    const int n = pf_adapter_files(ctx, &a, files);
    for (int i = 0; i < n; i++) PF_TRY(pf_ckpt_file(w, files[i], &path, err));
    peft_status status = pf_adapter_save(ctx, pf_ckpt_dir(w), err);
    pf_arena_release(&a);
    return status;
}

/* Numbers and moments of all parameters, those that no file has too: as recipes/sft_state.c. */
static peft_status each_block(const pf_params *ps, pf_ckpt_writer *w, const pf_ckpt_reader *r,
                              peft_error *err) {
    static const char *const names[] = {"weight", "exp_avg", "exp_avg_sq"};
    pf_real *const blocks[] = {ps->data, ps->m, ps->v};
    for (int i = 0; i < 3 * ps->n; i++) {
        const pf_param *p = ps->items[i / 3];
        if (p->constant && i % 3 > 0) continue;
        pf_real *block = blocks[i % 3] + p->offset;
        char key[512];
        snprintf(key, sizeof key, "%s.%s", names[i % 3], p->name);
        if (w != NULL) PF_TRY(pf_ckpt_put_real_block(w, key, p->rows, p->cols, block, err));
        if (r != NULL) PF_TRY(pf_ckpt_get_real_block(r, key, p->rows, p->cols, block, err));
    }
    return PEFT_OK;
}

static peft_status save_params(void *ctx, pf_ckpt_writer *w, peft_error *err) {
    return each_block(&((const pf_adapter *)ctx)->params, w, NULL, err);
}

static peft_status load_params(void *ctx, const pf_ckpt_reader *r, peft_error *err) {
    const pf_params *ps = &((const pf_adapter *)ctx)->params;
    PF_TRY(each_block(ps, NULL, r, err));
    return pf_params_make(ps, -1, err);
}

/* Half of the steps, a checkpoint, everything closed, opened again, the checkpoint's numbers read,
 * the other half. The files of the checkpoint have to open, too. */
static void check_resume(method_case *c, const pf_real *ten, const char *run_dir) {
    peft_error err = {0};
    const pf_optimizer_cfg cfg = optimizer_cfg(c);
    const int half = c->f.n_steps / 2;
    pf_optimizer o;
    open_adapter(c, fixture_path(&c->f, "start"), true);
    OK(pf_optimizer_init(&o, &c->f.arena, &c->f.adapter->params, &cfg, &err));
    train_steps(c, &usual, &o, 0, half);
    const pf_section saved[] = {
        {.name = "adapter", .ctx = c->f.adapter, .save = save_adapter},
        {.name = "params", .ctx = c->f.adapter, .save = save_params, .load = load_params},
        pf_optimizer_section(&o)};
    OK(pf_make_dirs(run_dir, &err));
    OK(pf_checkpoint_save(&(pf_checkpoint_save_cfg){.run_dir = run_dir,
                                                    .step = half,
                                                    .sections = saved,
                                                    .n_sections = 3,
                                                    .params = &c->f.adapter->params,
                                                    .best_step = -1},
                          &err));
    close_adapter(c);

    const char *dir = pf_arena_printf(&c->f.arena, "%s/checkpoint-%d", run_dir, half);
    open_adapter(c, dir, false);
    close_adapter(c);
    open_adapter(c, fixture_path(&c->f, "start"), true);
    OK(pf_optimizer_init(&o, &c->f.arena, &c->f.adapter->params, &cfg, &err));
    const pf_section loaded[] = {
        {.name = "params", .ctx = c->f.adapter, .save = save_params, .load = load_params},
        pf_optimizer_section(&o)};
    OK(pf_checkpoint_load(dir, loaded, 2, &err));
    train_steps(c, &usual, &o, half, c->f.n_steps);
    const pf_params *ps = &c->f.adapter->params;
    if (memcmp(ps->data, ten, (size_t)ps->block_len * sizeof *ten) != 0)
        fail_msg("%s: a resumed run ends elsewhere", c->f.name);
    close_adapter(c);
}

/* ---- a case ---------------------------------------------------------------------------------- */

static void check_case(const char *name) {
    peft_error err = {0};
    method_case c;
    double merged = 0;
    open_case(&c, name);
    const pf_optimizer_cfg cfg = optimizer_cfg(&c);
    const double start = check_logits_of(&c, "start"), end = check_logits_of(&c, "end");

    pf_optimizer o;
    const char *dir = pf_arena_printf(&c.f.arena, "%s/%s", tmp_dir, name);
    OK(pf_make_dirs(dir, &err));
    open_adapter(&c, fixture_path(&c.f, "start"), true);
    OK(pf_optimizer_init(&o, &c.f.arena, &c.f.adapter->params, &cfg, &err));
    train_steps(&c, &unfused, &o, 0, c.f.n_steps);
    close_adapter(&c);
    open_adapter(&c, fixture_path(&c.f, "start"), true);
    OK(pf_optimizer_init(&o, &c.f.arena, &c.f.adapter->params, &cfg, &err));
    const double loss = train_steps(&c, &usual, &o, 0, c.f.n_steps);
    OK(pf_adapter_save(c.f.adapter, dir, &err));
    const size_t bytes = (size_t)c.f.adapter->params.block_len * sizeof(pf_real);
    pf_real *ten = pf_arena_alloc(&c.f.arena, bytes);
    memcpy(ten, c.f.adapter->params.data, bytes);
    if (keep) write_logits(&c, dir);
    close_adapter(&c);

    const double update = check_saved(&c, dir);
    if (json_is_true(json_object_get(c.f.info, "merges"))) merged = check_merged(&c);
    check_resume(&c, ten, pf_arena_printf(&c.f.arena, "%s/%s-run", tmp_dir, name));
    print_message("%-24s logits %.1e %.1e  loss %.1e  update %.1e  merged %.1e\n", name, start, end,
                  loss, update, merged);
    close_case(&c);
}

static bool is_wanted(const char *name) {
    for (int i = 0; i < n_wanted; i++) {
        if (pf_streq(wanted[i], name)) return true;
    }
    return n_wanted == 0;
}

static bool family_is_known(const char *architecture) {
    for (int i = 0; pf_model_families[i] != NULL; i++) {
        const char *const *a = pf_model_families[i]->architectures;
        for (; *a != NULL; a++) {
            if (pf_task_same_stem(*a, architecture)) return true;
        }
    }
    return false;
}

static void equals_peft(void **state) {
    (void)state;
    pf_strlist names = {0};
    int n = 0;
    assert_int_equal(pf_list_dir(&names, &names_arena, GOLDEN "/methods", NULL), PEFT_OK);
    for (int i = 0; i < names.n; i++) {
        const char *name = names.items[i],
                   *path = pf_arena_printf(&names_arena, GOLDEN "/methods/%s/case.json", name);
        if (!pf_path_exists(path) || !is_wanted(name)) continue;
        json_t *info = read_json(path);
        const char *architecture = text_of(info, "architecture");
        if (!family_is_known(architecture)) {
            print_message("%-24s left out: %s is not known\n", name, architecture);
        } else {
            check_case(name);
            n++;
        }
        json_decref(info);
    }
    assert_true(n > 0);
}

static int setup(void **state) {
    (void)state;
    pf_arena_init(&names_arena, "names");
    if (!keep)
        tmp_dir =
            pf_arena_printf(&names_arena, TEST_BINARY_DIR "/tests/methods-%ld", (long)getpid());
    return pf_backend_open_cpu(&backend, 2, NULL) == PEFT_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    pf_backend_close(backend);
    if (!keep) pf_remove_tree(tmp_dir, NULL);
    pf_arena_release(&names_arena);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_peft)};
    keep = argc > 2 && pf_streq(argv[1], "--keep");
    if (keep) tmp_dir = argv[2];
    n_wanted = argc - (keep ? 3 : 1);
    wanted = argv + (keep ? 3 : 1);
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* evaluator.c - see evaluator.h. */
#include "train/evaluator.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/json.h"
#include "ops/loss/target_loss.h"
#include "train/loss_graph.h"
#include "train/text_metrics.h"

#include <math.h>
#include <string.h>

struct pf_evaluator {
    pf_arena arena;
    pf_evaluator_options opt;
    int64_t n;
    pf_loss_graph loss;
    pf_batch_builder *builder;
    pf_sample *samples;
    pf_loss_sums *sums; /* of each */
    pf_generator *generator;
    pf_generation *items;
    pf_buf answer; /* decoded text of one continuation */
    pf_class_metrics classes;
    int32_t *told, *truth; /* classes of the entries of some samples, those of one together */
    pf_value_metrics values;
    double *sure;   /* how likely the class that is told is */
    int32_t *first; /* (batch_size + 1) entries of each sample */
};

static const pf_example *example_at(const pf_evaluator *ev, int64_t i) {
    return &ev->opt.view->set->examples[ev->opt.view->index[i]];
}

static const pf_dataset *set_of(const pf_evaluator *ev) {
    return ev->opt.view->set;
}

/* Room for the entries of a whole batch of samples, which may take several passes. */
static peft_status make_classes(pf_evaluator *ev, peft_error *err) {
    const pf_evaluator_options *o = &ev->opt;
    const bool words = o->model->task == PF_TASK_TOKEN_CLS;
    if (set_of(ev)->values != NULL)
        return pf_value_metrics_init(&ev->values, &ev->arena, o->model->problem, o->threshold,
                                     ev->n, o->model->head->out_dim, err);
    int64_t most = 1;
    for (int64_t i = 0; i < ev->n; i++)
        if (example_at(ev, i)->n_learned > most) most = example_at(ev, i)->n_learned;
    most *= o->batch_size;
    ev->told = PF_NEW_ARRAY(&ev->arena, int32_t, most);
    ev->truth = PF_NEW_ARRAY(&ev->arena, int32_t, most);
    ev->sure = PF_NEW_ARRAY(&ev->arena, double, most);
    ev->first = PF_NEW_ARRAY(&ev->arena, int32_t, o->batch_size + 1);
    if (ev->told == NULL || ev->truth == NULL || ev->sure == NULL || ev->first == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return pf_class_metrics_init(&ev->classes, &ev->arena, (int)o->model->head->out_dim,
                                 words ? &o->model->labels : NULL, err);
}

static peft_status make_loss(pf_evaluator *ev, peft_error *err) {
    const pf_evaluator_options *o = &ev->opt;
    const pf_lead lead = pf_model_lead(o->model, o->adapters);
    const int64_t rows = o->max_tokens + lead.prompt + lead.each;
    const pf_loss_graph_options lg = {.adapters = o->adapters,
                                      .fuse = o->fuse,
                                      .logits = set_of(ev)->classes != NULL,
                                      .max_tokens = rows,
                                      .max_labels = o->max_tokens,
                                      .max_source = o->model->encoder_decoder ? rows : 0,
                                      .lender = o->lender};
    PF_TRY(pf_loss_graph_init(&ev->loss, o->model, o->backend, &lg, err));
    const pf_batch_builder_options bb = {.max_tokens = (int32_t)rows,
                                         .max_labels = (int32_t)o->max_tokens,
                                         .prompt_rows = lead.prompt,
                                         .prefix_rows = lead.prefix,
                                         .prefix_apart = lead.apart,
                                         .each_rows = lead.each,
                                         .max_samples = o->batch_size,
                                         .share = o->share,
                                         .rope_original = pf_rope_original(&o->model->rope)};
    PF_TRY(pf_batch_builder_new(&ev->builder, &bb, err));
    ev->samples = PF_NEW_ARRAY(&ev->arena, pf_sample, o->batch_size);
    ev->sums = PF_NEW_ARRAY(&ev->arena, pf_loss_sums, o->batch_size);
    if (ev->samples == NULL || ev->sums == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    return set_of(ev)->classes != NULL ? make_classes(ev, err) : PEFT_OK;
}

/* Tokens that generation starts from. */
static int32_t prompt_of(const pf_example *e) {
    return e->n_source > 0 ? e->n_source : e->n_prompt;
}

static peft_status make_generator(pf_evaluator *ev, peft_error *err) {
    const pf_evaluator_options *o = &ev->opt;
    int64_t longest = 0;
    for (int64_t i = 0; i < ev->n; i++) {
        if (prompt_of(example_at(ev, i)) > longest) longest = prompt_of(example_at(ev, i));
    }
    /* the larger of the two arenas that rest while this one works */
    const pf_exec *lender = ev->loss.exec;
    if (o->lender != NULL && o->lender->arena.size > lender->arena.size) lender = o->lender;
    /* no more slots than there are rows: a KV cache that nobody fills would be planned for nothing
     */
    const pf_generator_options go = {
        .max_sequences = o->batch_size < ev->n ? o->batch_size : (int)ev->n,
        .max_length = (o->model->encoder_decoder ? 1 : longest) + o->max_new_tokens,
        .max_source = longest,
        .adapters = o->adapters,
        .fuse = o->fuse,
        .lender = lender};
    PF_TRY(pf_generator_new(&ev->generator, o->model, o->backend, &go, err));
    ev->items = PF_NEW_ARRAY(&ev->arena, pf_generation, ev->n);
    int32_t *ids = PF_NEW_ARRAY(&ev->arena, int32_t, ev->n * o->max_new_tokens);
    if (ev->items == NULL || ids == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    for (int64_t i = 0; i < ev->n; i++) ev->items[i].ids = ids + i * o->max_new_tokens;
    return PEFT_OK;
}

peft_status pf_evaluator_new(pf_evaluator **out, const pf_evaluator_options *opt, peft_error *err) {
    *out = NULL;
    pf_evaluator *ev = pf_calloc(1, sizeof *ev);
    PF_CHECK_ALLOC(ev, err);
    pf_arena_init(&ev->arena, "evaluation");
    ev->opt = *opt;
    ev->n =
        opt->max_samples > 0 && opt->max_samples < opt->view->n ? opt->max_samples : opt->view->n;
    peft_status status = make_loss(ev, err);
    if (status == PEFT_OK && opt->generate) status = make_generator(ev, err);
    if (status != PEFT_OK) {
        pf_evaluator_free(ev);
        return status;
    }
    *out = ev;
    return PEFT_OK;
}

void pf_evaluator_free(pf_evaluator *ev) {
    if (ev == NULL) return;
    pf_generator_free(ev->generator);
    pf_batch_builder_free(ev->builder);
    pf_loss_graph_release(&ev->loss);
    pf_buf_free(&ev->answer);
    pf_arena_release(&ev->arena);
    pf_free(ev);
}

pf_evaluator_bytes pf_evaluator_memory(const pf_evaluator *ev) {
    const pf_exec *x = ev->loss.exec;
    pf_evaluator_bytes b = {.loss_arena = x->plan.arena_bytes,
                            .other = (int64_t)(x->graph->arena.reserved + ev->arena.reserved)};
    if (ev->generator == NULL) return b;
    b.generate_arena = pf_generator_arena_bytes(ev->generator);
    b.cache = pf_generator_cache_bytes(ev->generator);
    b.other += pf_generator_other_bytes(ev->generator);
    return b;
}

/* Between two passes: has somebody asked to stop? */
static peft_status check_stop(const pf_evaluator *ev, peft_error *err) {
    if (ev->opt.stop_signal == NULL || *ev->opt.stop_signal == 0) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_INTERRUPTED, "the evaluation was interrupted");
}

/* The entries of the last pass, each to its sample. */
static void add_entries(pf_evaluator *ev, const pf_batch *b) {
    const pf_real *nll = pf_exec_data(ev->loss.exec, ev->loss.nll);
    const pf_real *correct = pf_exec_data(ev->loss.exec, ev->loss.correct);
    for (int32_t e = 0; e < b->n_labels; e++) {
        pf_loss_sums *s = &ev->sums[b->label_sample[e]];
        const double w = b->label_weight[e];
        s->nll += w * (double)nll[e];
        s->correct += w * (double)correct[e];
        s->weight += w;
    }
}

/* The logit of the target, or their mean by its smoothed share: what nll falls short of. */
static double target_logit(const pf_evaluator *ev, const pf_real *z, int64_t V, int32_t target) {
    const double e = ev->opt.smoothing;
    double sum = 0;
    if (e <= 0) return (double)z[target];
    for (int64_t k = 0; k < V; k++) sum += pf_smoothed_target(e, V, k == target) * (double)z[k];
    return sum;
}

/* The mean loss over the outputs of a row; z and y are kept as row i. */
static double add_row_of_values(pf_evaluator *ev, int64_t i, const pf_real *z, const float *y) {
    const pf_value_metrics *m = &ev->values;
    double loss = 0;
    for (int64_t k = 0; k < m->K; k++) {
        const double a = (double)z[k], b = (double)y[k];
        m->z[i * m->K + k] = a;
        m->y[i * m->K + k] = y[k];
        loss += m->problem == PF_PROBLEM_MULTI ? (a > 0 ? a : 0) - a * b + log1p(exp(-fabs(a)))
                                               : (a - b) * (a - b);
    }
    return loss / (double)m->K;
}

/* Texts whose targets are numbers have one entry each; samples of the pass begin at `first`. */
static void add_values(pf_evaluator *ev, const pf_batch *b, int64_t first) {
    const int64_t K = ev->values.K;
    for (int32_t e = 0; e < b->n_labels; e++) {
        const pf_real *z = pf_exec_data(ev->loss.exec, ev->loss.logits) + e * K;
        pf_loss_sums *s = &ev->sums[b->label_sample[e]];
        s->nll += add_row_of_values(ev, first + b->label_sample[e], z, b->label_values[e]);
        s->weight += 1;
    }
}

/* The entries of the last pass of logits, each to its place among those of its sample. */
static void add_classes(pf_evaluator *ev, const pf_batch *b) {
    const int64_t V = ev->classes.n;
    for (int32_t e = 0; e < b->n_labels; e++) {
        const pf_real *z = pf_exec_data(ev->loss.exec, ev->loss.logits) + e * V;
        pf_loss_sums *s = &ev->sums[b->label_sample[e]];
        const int32_t at = ev->first[b->label_sample[e]] + (int32_t)s->weight;
        int32_t best = 0;
        double sum = 0;
        for (int32_t k = 1; k < V; k++)
            if (z[k] > z[best]) best = k;
        for (int32_t k = 0; k < V; k++) sum += exp((double)z[k] - (double)z[best]);
        s->nll += log(sum) - (target_logit(ev, z, V, b->label_target[e]) - (double)z[best]);
        s->weight += 1;
        ev->told[at] = best;
        ev->truth[at] = b->label_target[e];
        ev->sure[at] = 1 / sum;
    }
}

/* {"prompt": ..., "target": ..., "prediction":  of example i */
static void begin_prediction(const pf_evaluator *ev, int64_t i, pf_buf *out) {
    const pf_str prompt = pf_dataset_prompt(set_of(ev), ev->opt.view->index[i]),
                 target = pf_dataset_target(set_of(ev), ev->opt.view->index[i]);
    pf_buf_adds(out, "{\"prompt\": ");
    pf_json_add_str(out, prompt.p, prompt.n, 0);
    pf_buf_adds(out, ", \"target\": ");
    pf_json_add_str(out, target.p, target.n, 0);
    pf_buf_adds(out, ", \"prediction\": ");
}

/* The classes that are told, and the probability of each; or the numbers. */
static void add_value_prediction(const pf_evaluator *ev, int64_t i, pf_buf *out) {
    const pf_value_metrics *m = &ev->values;
    const pf_strlist *names = &ev->opt.model->labels;
    const bool multi = m->problem == PF_PROBLEM_MULTI;
    const double *z = m->z + i * m->K;
    pf_buf told = {0};
    begin_prediction(ev, i, out);
    for (int64_t k = 0; k < m->K; k++) {
        const char *comma = told.len > 0 ? ", " : "";
        if (!multi)
            pf_buf_addf(&told, "%s%.7g", comma, z[k]);
        else if (pf_sigmoid(z[k]) > m->threshold)
            pf_buf_addf(&told, "%s%s", comma, names->items[k]);
    }
    pf_json_add_str(out, pf_buf_str(&told), told.len, 0);
    pf_buf_free(&told);
    if (multi) {
        pf_buf_adds(out, ", \"probability\": [");
        for (int64_t k = 0; k < m->K; k++)
            pf_buf_addf(out, "%s%.6f", k > 0 ? ", " : "", pf_sigmoid(z[k]));
        pf_buf_adds(out, "]");
    }
    pf_buf_adds(out, "}\n");
}

static void add_class_prediction(const pf_evaluator *ev, int64_t i, int32_t k, pf_buf *out) {
    const pf_strlist *names = &ev->opt.model->labels;
    begin_prediction(ev, i, out);
    pf_buf told = {0};
    for (int32_t e = ev->first[k]; e < ev->first[k + 1]; e++)
        pf_buf_addf(&told, "%s%s", e > ev->first[k] ? " " : "", names->items[ev->told[e]]);
    pf_json_add_str(out, pf_buf_str(&told), told.len, 0);
    pf_buf_free(&told);
    pf_buf_adds(out, ", \"probability\": [");
    for (int32_t e = ev->first[k]; e < ev->first[k + 1]; e++)
        pf_buf_addf(out, "%s%.6f", e > ev->first[k] ? ", " : "", ev->sure[e]);
    pf_buf_adds(out, "]}\n");
}

/* The samples from `first` on have been computed. */
static void take_classes(pf_evaluator *ev, int64_t first, int32_t n, pf_buf *predictions) {
    for (int32_t k = 0; k < n; k++) {
        const int32_t from = ev->first[k];
        pf_class_metrics_add(&ev->classes, ev->truth + from, ev->told + from,
                             ev->first[k + 1] - from);
        if (predictions != NULL) add_class_prediction(ev, first + k, k, predictions);
    }
}

static peft_status run_loss(pf_evaluator *ev, pf_evaluation *out, pf_buf *predictions,
                            peft_error *err) {
    const bool values = set_of(ev)->values != NULL,
               classes = set_of(ev)->classes != NULL && !values;
    pf_loss_sums sums = {0}, unused = {0};
    if (classes) pf_class_metrics_clear(&ev->classes);
    pf_exec_weights_stay(ev->loss.exec, true); /* in this run */
    for (int64_t first = 0; first < ev->n; first += ev->opt.batch_size) {
        int32_t n =
            (int32_t)(ev->n - first < ev->opt.batch_size ? ev->n - first : ev->opt.batch_size);
        for (int32_t i = 0; i < n; i++) {
            ev->samples[i] =
                pf_dataset_sample(ev->opt.view->set, ev->opt.view->index[first + i], i);
            ev->sums[i] = (pf_loss_sums){0};
            if (classes) ev->first[i + 1] = ev->first[i] + example_at(ev, first + i)->n_learned;
        }
        PF_TRY(check_stop(ev, err));
        int32_t n_micro;
        PF_TRY(pf_batch_builder_begin(ev->builder, ev->samples, n, 0, &n_micro, err));
        for (int32_t m = 0; m < n_micro; m++) {
            pf_batch batch;
            pf_batch_builder_get(ev->builder, m, &batch);
            PF_TRY(pf_loss_graph_forward(&ev->loss, &batch, &unused, err));
            if (values)
                add_values(ev, &batch, first);
            else
                (classes ? add_classes : add_entries)(ev, &batch);
        }
        for (int32_t i = 0; values && predictions != NULL && i < n; i++)
            add_value_prediction(ev, first + i, predictions);
        if (classes) take_classes(ev, first, n, predictions);
        for (int32_t i = 0; i < n; i++) {
            sums.nll += ev->sums[i].nll;
            sums.correct += ev->sums[i].correct;
            sums.weight += ev->sums[i].weight;
        }
    }
    out->n_tokens = (int64_t)sums.weight;
    out->loss = sums.nll / sums.weight;
    out->perplexity = exp(out->loss);
    out->token_accuracy = sums.correct / sums.weight;
    out->classes = classes;
    if (classes) out->scores = pf_class_metrics_result(&ev->classes);
    if (values) {
        out->problem = ev->values.problem;
        out->values = pf_value_metrics_result(&ev->values);
    }
    return PEFT_OK;
}

size_t pf_cut_at_stop(const char *text, size_t n, const char *const *stop, int n_stop) {
    for (int i = 0; i < n_stop; i++) {
        size_t m = strlen(stop[i]);
        for (size_t at = 0; m > 0 && at + m <= n; at++) {
            if (memcmp(text + at, stop[i], m) == 0) {
                n = at;
                break;
            }
        }
    }
    return n;
}

static void add_prediction(pf_buf *out, pf_str prompt, pf_str target, pf_str answer) {
    pf_buf_adds(out, "{\"prompt\": ");
    pf_json_add_str(out, prompt.p, prompt.n, 0);
    pf_buf_adds(out, ", \"target\": ");
    pf_json_add_str(out, target.p, target.n, 0);
    pf_buf_adds(out, ", \"prediction\": ");
    pf_json_add_str(out, answer.p, answer.n, 0);
    pf_buf_adds(out, "}\n");
}

static bool stop_reached(void *ctx, int sequence, int32_t id) {
    pf_evaluator *ev = ctx;
    (void)id;
    const pf_generation *it = &ev->items[sequence];
    pf_buf_clear(&ev->answer);
    if (pf_tokenizer_decode(ev->opt.tokenizer, it->ids, it->n_ids, true, &ev->answer, NULL) !=
        PEFT_OK)
        return false;
    size_t n = ev->answer.len;
    return pf_cut_at_stop(pf_buf_str(&ev->answer), n, ev->opt.stop, ev->opt.n_stop) < n;
}

static peft_status run_generation(pf_evaluator *ev, pf_evaluation *out, pf_buf *predictions,
                                  peft_error *err) {
    const pf_evaluator_options *o = &ev->opt;
    const pf_dataset *set = o->view->set;
    for (int64_t i = 0; i < ev->n; i++) {
        ev->items[i].prompt = set->tokens + example_at(ev, i)->first;
        ev->items[i].n_prompt = prompt_of(example_at(ev, i));
    }
    const pf_generate_options go = {.sampling = o->sampling,
                                    .max_new_tokens = o->max_new_tokens,
                                    .eos = o->eos,
                                    .n_eos = o->n_eos,
                                    .on_token = o->n_stop > 0 ? stop_reached : NULL,
                                    .ctx = ev,
                                    .stop_signal = o->stop_signal};
    PF_TRY(pf_generator_run(ev->generator, &go, ev->items, (int)ev->n, err));
    pf_text_metrics metrics = {0};
    for (int64_t i = 0; i < ev->n; i++) {
        pf_buf_clear(&ev->answer);
        PF_TRY(pf_tokenizer_decode(o->tokenizer, ev->items[i].ids, ev->items[i].n_ids, true,
                                   &ev->answer, err));
        size_t n = pf_cut_at_stop(pf_buf_str(&ev->answer), ev->answer.len, o->stop, o->n_stop);
        pf_str answer = {pf_buf_str(&ev->answer), n};
        pf_str target = pf_dataset_target(set, o->view->index[i]);
        /* the white space between prompt and answer belongs to neither */
        PF_TRY(pf_text_metrics_add(&metrics, pf_str_trim(answer), pf_str_trim(target), err));
        if (predictions != NULL)
            add_prediction(predictions, pf_dataset_prompt(set, o->view->index[i]), target, answer);
    }
    pf_text_scores scores = pf_text_metrics_result(&metrics);
    out->generated = true;
    out->exact_match = scores.exact_match;
    out->f1 = scores.f1;
    out->bleu = scores.bleu;
    return PEFT_OK;
}

peft_status pf_evaluator_run(pf_evaluator *ev, pf_evaluation *out, pf_buf *predictions,
                             peft_error *err) {
    double start = pf_now();
    *out = (pf_evaluation){.n_samples = ev->n};
    PF_TRY(run_loss(ev, out, predictions, err));
    if (ev->generator != NULL) PF_TRY(run_generation(ev, out, predictions, err));
    out->seconds = pf_now() - start;
    return PEFT_OK;
}

int pf_evaluation_figures(const pf_evaluation *e, pf_metric out[PF_MAX_FIGURES]) {
    const pf_class_scores *s = &e->scores;
    const pf_value_scores *v = &e->values;
    const bool multi = e->problem == PF_PROBLEM_MULTI,
               numbers = e->problem == PF_PROBLEM_REGRESSION, one = e->classes && !s->entities,
               text = !e->classes && !multi && !numbers;
    const struct {
        bool is_told;
        pf_metric figure;
    } all[] = {
        {true, {"eval_loss", e->loss, false}},
        {text, {"eval_perplexity", e->perplexity, false}},
        {text, {"eval_token_accuracy", e->token_accuracy, false}},
        {e->generated, {"eval_exact_match", e->exact_match, false}},
        {e->generated, {"eval_f1", e->f1, false}},
        {e->generated, {"eval_bleu", e->bleu, false}},
        {e->classes, {"eval_accuracy", s->accuracy, false}},
        {e->classes, {"eval_f1", s->f1, false}},
        {e->classes, {"eval_precision", s->precision, false}},
        {e->classes, {"eval_recall", s->recall, false}},
        {one, {"eval_f1_macro", s->f1_macro, false}},
        {one, {"eval_f1_micro", s->f1_micro, false}},
        {one, {"eval_f1_weighted", s->f1_weighted, false}},
        {one, {"eval_mcc", s->mcc, false}},
        {multi, {"eval_accuracy", v->accuracy, false}},
        {multi, {"eval_f1", v->f1, false}},
        {multi, {"eval_precision", v->precision, false}},
        {multi, {"eval_recall", v->recall, false}},
        {multi, {"eval_f1_macro", v->f1_macro, false}},
        {multi, {"eval_f1_micro", v->f1_micro, false}},
        {multi, {"eval_f1_weighted", v->f1_weighted, false}},
        {multi, {"eval_hamming_loss", v->hamming_loss, false}},
        {multi, {"eval_roc_auc", v->roc_auc, false}},
        {numbers, {"eval_mse", v->mse, false}},
        {numbers, {"eval_rmse", v->rmse, false}},
        {numbers, {"eval_mae", v->mae, false}},
        {numbers, {"eval_pearson", v->pearson, false}},
        {numbers, {"eval_spearmanr", v->spearmanr, false}},
        {numbers, {"eval_combined_score", v->combined_score, false}},
    };
    int n = 0;
    for (size_t i = 0; i < PF_COUNT(all); i++)
        if (all[i].is_told) out[n++] = all[i].figure;
    return n;
}

double pf_evaluation_figure(const pf_evaluation *e, const char *name) {
    pf_metric all[PF_MAX_FIGURES];
    const int n = pf_evaluation_figures(e, all);
    for (int i = 0; i < n; i++)
        if (pf_streq(all[i].name, name)) return all[i].value;
    return NAN;
}

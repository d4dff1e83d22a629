/* step_plan.c - see step_plan.h. */
#include "data/step_plan.h"

#include "base/mem.h"
#include "base/rng.h"
#include "data/bfd_pack.h"

#include <math.h>
#include <stdlib.h>

struct pf_step_plan {
    pf_arena arena;
    const pf_data_view *view;
    pf_step_plan_options opt;
    int64_t n_items, batches_per_epoch, steps_per_epoch;
    int64_t *members,
        *starts;       /* item i is members[starts[i]..starts[i + 1]); NULL: it is sample i */
    int64_t *order;    /* of the items in `epoch` */
    int64_t epoch;     /* -1: none yet */
    int64_t *examples; /* of the step that was asked for last */
    int32_t max_samples;
};

static int64_t item_start(const pf_step_plan *p, int64_t item) {
    return p->starts == NULL ? item : p->starts[item];
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b != 0);
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The most samples of any step: the sum of its items' largest counts. */
static peft_status find_max_samples(pf_step_plan *p, peft_error *err) {
    int64_t items = p->opt.batch_size * p->opt.accumulation, n = 0;
    if (items > p->n_items) items = p->n_items;
    if (p->starts == NULL) {
        n = items;
    } else {
        int64_t *counts = pf_calloc((size_t)p->n_items, sizeof *counts);
        PF_CHECK_ALLOC(counts, err);
        for (int64_t i = 0; i < p->n_items; i++) counts[i] = p->starts[i + 1] - p->starts[i];
        qsort(counts, (size_t)p->n_items, sizeof *counts, descending);
        for (int64_t i = 0; i < items; i++) n += counts[i];
        pf_free(counts);
    }
    if (n > INT32_MAX)
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "a step of training.per_device_train_batch_size x "
                       "gradient_accumulation_steps would have %lld samples",
                       (long long)n);
    p->max_samples = (int32_t)n;
    return PEFT_OK;
}

static peft_status pack(pf_step_plan *p, peft_error *err) {
    int64_t n = p->view->n;
    p->members = PF_NEW_ARRAY(&p->arena, int64_t, n);
    p->starts = PF_NEW_ARRAY(&p->arena, int64_t, n + 1);
    int32_t *lengths = pf_calloc((size_t)n, sizeof *lengths);
    if (p->members == NULL || p->starts == NULL || lengths == NULL) {
        pf_free(lengths);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for packing %lld samples", (long long)n);
    }
    for (int64_t i = 0; i < n; i++) lengths[i] = p->view->set->examples[p->view->index[i]].n_tokens;
    peft_status status =
        pf_bfd_pack(lengths, n, p->opt.pack_length, p->members, p->starts, &p->n_items, err);
    pf_free(lengths);
    return status;
}

static peft_status init(pf_step_plan *p, const pf_data_view *view, const pf_step_plan_options *opt,
                        peft_error *err) {
    if (view->n < 1 || opt->batch_size < 1 || opt->accumulation < 1 ||
        opt->accumulation > INT64_MAX / opt->batch_size)
        return PF_FAIL(
            err, PEFT_E_CONFIG,
            "steps of %lld x %lld samples from a data set of %lld: each must be positive",
            (long long)opt->batch_size, (long long)opt->accumulation, (long long)view->n);
    p->view = view;
    p->opt = *opt;
    p->epoch = -1;
    p->n_items = view->n;
    if (opt->packing) PF_TRY(pack(p, err));
    PF_TRY(find_max_samples(p, err));
    p->batches_per_epoch = ceil_div(p->n_items, opt->batch_size);
    p->steps_per_epoch = ceil_div(p->batches_per_epoch, opt->accumulation);
    p->order = PF_NEW_ARRAY(&p->arena, int64_t, p->n_items);
    p->examples = PF_NEW_ARRAY(&p->arena, int64_t, p->max_samples);
    if (p->order == NULL || p->examples == NULL)
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory for the order of %lld samples",
                       (long long)p->n_items);
    return PEFT_OK;
}

peft_status pf_step_plan_new(pf_step_plan **out, const pf_data_view *view,
                             const pf_step_plan_options *opt, peft_error *err) {
    *out = NULL;
    pf_step_plan *p = pf_calloc(1, sizeof *p);
    PF_CHECK_ALLOC(p, err);
    pf_arena_init(&p->arena, "step plan");
    peft_status status = init(p, view, opt, err);
    if (status != PEFT_OK) {
        pf_step_plan_free(p);
        return status;
    }
    *out = p;
    return PEFT_OK;
}

void pf_step_plan_free(pf_step_plan *plan) {
    if (plan == NULL) return;
    pf_arena_release(&plan->arena);
    pf_free(plan);
}

static void go_to_epoch(pf_step_plan *p, int64_t epoch) {
    if (p->epoch == epoch) return;
    p->epoch = epoch;
    if (p->opt.shuffle) {
        pf_rng_key key = pf_rng_make_key(p->opt.seed, PF_RNG_SHUFFLE, (uint64_t)epoch);
        pf_rng_permutation(key, p->n_items, p->order);
    } else {
        for (int64_t i = 0; i < p->n_items; i++) p->order[i] = i;
    }
}

void pf_step_plan_get(pf_step_plan *p, int64_t step, pf_step *out) {
    PF_ASSERT(step >= 0);
    *out = (pf_step){.step = step,
                     .epoch = step / p->steps_per_epoch,
                     .step_in_epoch = step % p->steps_per_epoch,
                     .examples = p->examples};
    go_to_epoch(p, out->epoch);
    int64_t per_step = p->opt.batch_size * p->opt.accumulation; /* items */
    int64_t begin = out->step_in_epoch * per_step;
    int64_t end = p->n_items - begin < per_step ? p->n_items : begin + per_step;
    for (int64_t i = begin; i < end; i++) {
        int64_t last = item_start(p, p->order[i] + 1);
        for (int64_t k = item_start(p, p->order[i]); k < last; k++) {
            int64_t example = p->view->index[p->members == NULL ? k : p->members[k]];
            const pf_example *e = &p->view->set->examples[example];
            p->examples[out->n++] = example;
            out->tokens += e->n_tokens;
            out->supervised += pf_example_supervised(e);
        }
    }
    int64_t batches = (out->step_in_epoch + 1) * p->opt.accumulation;
    if (batches > p->batches_per_epoch) batches = p->batches_per_epoch;
    out->epochs_done = (double)out->epoch + (double)batches / (double)p->batches_per_epoch;
}

int64_t pf_step_plan_items(const pf_step_plan *p) {
    return p->n_items;
}

int64_t pf_step_plan_steps_per_epoch(const pf_step_plan *p) {
    return p->steps_per_epoch;
}

int64_t pf_step_plan_total(const pf_step_plan *p, double epochs, int64_t max_steps) {
    if (max_steps > 0) return max_steps;
    double steps = ceil(epochs * (double)p->steps_per_epoch);
    return steps < 9e18 ? (int64_t)steps : INT64_MAX;
}

int32_t pf_step_plan_max_samples(const pf_step_plan *p) {
    return p->max_samples;
}

typedef struct density {
    int32_t rows, labels;
} density;

static int densest_first(const void *a, const void *b) {
    const density *x = a, *y = b;
    int64_t left = (int64_t)x->labels * y->rows, right = (int64_t)y->labels * x->rows;
    return left > right ? -1 : left < right;
}

int32_t pf_step_plan_max_labels(const pf_step_plan *p, int32_t max_tokens, bool keep_tail) {
    /* the densest samples that fill max_tokens rows, the last of them in part */
    density *all = pf_calloc((size_t)p->view->n, sizeof *all);
    if (all == NULL) return max_tokens; /* also a bound */
    int64_t n = 0, rows = 0, labels = 0, most = 1;
    for (int64_t i = 0; i < p->view->n; i++) {
        pf_sample s = pf_dataset_sample(p->view->set, p->view->index[i], 0);
        density d = {pf_sample_all_rows(&s, keep_tail),
                     pf_example_supervised(&p->view->set->examples[p->view->index[i]])};
        if (d.rows > 0) all[n++] = d;
        if (d.labels > most) most = d.labels;
    }
    qsort(all, (size_t)n, sizeof *all, densest_first);
    for (int64_t i = 0; i < n && i < p->max_samples && rows < max_tokens; i++) {
        int64_t room = max_tokens - rows;
        int64_t take = all[i].rows < room ? all[i].rows : room;
        labels += ceil_div(take * all[i].labels, all[i].rows);
        rows += take;
    }
    pf_free(all);
    if (labels < most) labels = most;
    return (int32_t)(labels < max_tokens ? labels : max_tokens);
}

/* Learned rows before every sample, in generation: a continuation from the cache, where the prompt
 * or prefix stands once for all sequences, is what computing the whole text anew for each token
 * gives, whatever the number of slots and the size of a pass; and the base alone has no such rows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "golden/parity_train.h"

#include "export/logits.h"
#include "infer/generator.h"

enum { MAX_NEW = 10, TEXTS = 5, LONGEST = 24 };

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

/* The most likely token behind a text, from a pass over all of it. */
static int32_t next_token(pf_logits *l, const pf_model *m, const int32_t *ids, int32_t n) {
    peft_error err = {0};
    const pf_real *z;
    int32_t best = 0;
    OK(pf_logits_run(l, ids, n, &z, &err));
    z += (n - 1) * m->vocab;
    for (int32_t i = 1; i < m->vocab; i++) {
        if (z[i] > z[best]) best = i;
    }
    return best;
}

/* Prompts of 1 to 9 tokens, the last two alike. */
static int32_t make_text(int i, int32_t *ids) {
    const int32_t n = i == TEXTS - 1 ? 7 : 1 + 2 * i;
    for (int32_t k = 0; k < n; k++) ids[k] = (7 * (i == TEXTS - 1 ? 3 : i) + 5 * k) % 61 + 3;
    return n;
}

static void check_way(pf_model *m, const pf_generator_options *opt, int *differ) {
    peft_error err = {0};
    pf_generator *gen;
    pf_logits full, base;
    pf_generation items[TEXTS];
    int32_t prompts[TEXTS][LONGEST], ids[TEXTS][MAX_NEW];
    OK(pf_generator_new(&gen, m, backend, opt, &err));
    OK(pf_logits_init(&full, m, backend, opt->adapters, LONGEST, &err));
    OK(pf_logits_init(&base, m, backend, false, LONGEST, &err));
    for (int i = 0; i < TEXTS; i++) {
        items[i] = (pf_generation){.prompt = prompts[i], .ids = ids[i]};
        items[i].n_prompt = make_text(i, prompts[i]);
    }
    const pf_generate_options go = {.sampling = pf_sampling_greedy(), .max_new_tokens = MAX_NEW};
    for (int again = 0; again < 2; again++) OK(pf_generator_run(gen, &go, items, TEXTS, &err));
    for (int i = 0; i < TEXTS; i++) {
        int32_t n = items[i].n_prompt, text[LONGEST];
        memcpy(text, prompts[i], (size_t)n * sizeof *text);
        assert_int_equal(items[i].n_ids, MAX_NEW);
        for (int k = 0; k < MAX_NEW; k++, n++) {
            assert_int_equal(items[i].ids[k], next_token(&full, m, text, n));
            *differ += items[i].ids[k] != next_token(&base, m, text, n);
            text[n] = items[i].ids[k];
        }
    }
    pf_logits_release(&full);
    pf_logits_release(&base);
    pf_generator_free(gen);
}

static void generation_equals_the_full_pass(void **state) {
    (void)state;
    static const char *const cases[] = {"prompt_tuning", "prefix_tuning"};
    static const pf_generator_options ways[] = {
        {.max_sequences = TEXTS, .max_length = 40, .adapters = true, .fuse = true},
        {.max_sequences = 2, .max_length = 40, .max_tokens = 3, .adapters = true},
        {.max_sequences = 1, .max_length = 40, .max_tokens = 1, .adapters = true, .fuse = true},
        {.max_sequences = 2, .max_length = 40, .max_tokens = 8, .adapters = false, .fuse = true},
    };
    for (size_t c = 0; c < PF_COUNT(cases); c++) {
        peft_error err = {0};
        pf_model *m;
        pf_adapter *ad;
        char path[512];
        snprintf(path, sizeof path, GOLDEN "/methods/%s/end", cases[c]);
        OK(pf_model_open(&m, GOLDEN "/methods/base_llama", NULL, &err));
        OK(pf_adapter_open(&ad, m, path, false, &err));
        for (size_t k = 0; k < PF_COUNT(ways); k++) {
            int differ = 0;
            check_way(m, &ways[k], &differ);
            if (ways[k].adapters ? differ == 0 : differ > 0)
                fail_msg("%s: %d tokens differ from the base's", cases[c], differ);
        }
        /* room for the text is what the virtual tokens leave */
        const pf_lead lead = pf_model_lead(m, true);
        assert_int_equal(pf_model_positions(m, true), m->max_positions - lead.prompt - lead.prefix);
        assert_true(lead.prompt + lead.prefix > 0);
        pf_adapter_close(ad);
        assert_int_equal(pf_model_positions(m, true), m->max_positions);
        pf_model_close(m);
    }
}

/* With an encoder: a text that both stacks read, behind the rows of either kind. */
static void logits_of_two_stacks(void **state) {
    (void)state;
    static const char *const cases[] = {"prompt_tuning_t5", "prefix_tuning_t5"};
    static const int32_t text[] = {9, 40, 3, 22, 17, 1};
    const int32_t n = PF_COUNT(text), *ids = text;
    for (size_t c = 0; c < PF_COUNT(cases); c++) {
        peft_error err = {0};
        pf_arena a;
        pf_model *m;
        pf_adapter *ad;
        pf_logits l;
        const pf_real *z;
        char path[512];
        double worst = 0, off = 0;
        pf_arena_init(&a, "texts");
        snprintf(path, sizeof path, GOLDEN "/methods/%s/end", cases[c]);
        OK(pf_model_open(&m, GOLDEN "/methods/base_t5_tied", NULL, &err));
        OK(pf_adapter_open(&ad, m, path, false, &err));
        pf_batch batch = whole_samples(&a, &ids, &n, 1);
        add_sources(&a, &batch, &ids, &n, 1);
        float *want = PF_NEW_ARRAY(&a, float, n * m->vocab),
              *base = PF_NEW_ARRAY(&a, float, n * m->vocab);
        compute_logits(m, backend, &batch, true, true, want);
        compute_logits(m, backend, &batch, false, true, base);
        OK(pf_logits_init(&l, m, backend, true, n, &err));
        for (int again = 0; again < 2; again++) OK(pf_logits_run(&l, text, n, &z, &err));
        for (int64_t i = 0; i < n * m->vocab; i++) {
            worst = fmax(worst, fabs((double)z[i] - (double)want[i]));
            off = fmax(off, fabs((double)z[i] - (double)base[i]));
        }
        assert_true(worst == 0 && off > 0.1);
        pf_logits_release(&l);
        pf_adapter_close(ad);
        pf_model_close(m);
        pf_arena_release(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(generation_equals_the_full_pass),
                                       cmocka_unit_test(logits_of_two_stacks)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

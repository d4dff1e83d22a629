/* prompt_tuning.c - prompt tuning: n learned rows stand before the embeddings of every sample, and
 * nothing else is trained (Lester et al. 2021, arXiv 2104.08691).
 *
 * They begin as normal numbers (RANDOM), as the embeddings of tokens drawn from the vocabulary
 * (SAMPLE_VOCAB), or as those of a text, cut or repeated to length (TEXT): peft's three. The first
 * token of a sample is no target, as everywhere here, although the prompt could predict it. */
#include "base/rng.h"
#include "peft/first_weights.h"
#include "peft/peft_json.h"
#include "peft/prompt/prompt.h"
#include "text/json.h"
#include "token/tokenizer.h"

#include <string.h>

typedef struct prompt_cfg {
    int64_t num_virtual_tokens;
    const char *prompt_tuning_init, *prompt_tuning_init_text, *tokenizer_name_or_path;
    pf_cfg_strings modules_to_save;
    int64_t submodules; /* as a folder says; 0: not at all */
} prompt_cfg;

// clang-format off
static const pf_cfg_row rows[] = {
    PF_CFG_INT(prompt_cfg, num_virtual_tokens, 20, 1, 100000, "learned rows before every sample", .aliases = "prompt_length"),
    PF_CFG_ENUM(prompt_cfg, prompt_tuning_init, "RANDOM", "RANDOM=random SAMPLE_VOCAB=sample_vocab TEXT=text", "they begin as normal numbers, as embeddings of tokens drawn from the vocabulary, or as those of a text"),
    PF_CFG_STR(prompt_cfg, prompt_tuning_init_text, NULL, "the text for prompt_tuning_init: TEXT, cut or repeated to num_virtual_tokens"),
    PF_CFG_STR(prompt_cfg, tokenizer_name_or_path, NULL, "the tokenizer for that text; default: the model's"),
    PF_CFG_STRLIST(prompt_cfg, modules_to_save, NULL, "modules trained whole and saved with the adapter"),
    PF_CFG_END};
// clang-format on

#define KEY "peft.prompt_tuning"

static void check_cfg(pf_cfg *c, const void *section) {
    const prompt_cfg *p = section;
    const bool text = pf_streq(p->prompt_tuning_init, "TEXT");
    if (text && p->prompt_tuning_init_text == NULL)
        pf_cfg_complain(c, KEY ".prompt_tuning_init",
                        "is TEXT; the text goes into prompt_tuning_init_text");
    if (!text && p->prompt_tuning_init_text != NULL)
        pf_cfg_complain(c, KEY ".prompt_tuning_init_text",
                        "is given, but prompt_tuning_init is %s, not TEXT", p->prompt_tuning_init);
}

static peft_status prompt_attach(pf_adapter *ad, peft_error *err) {
    const prompt_cfg *cfg = ad->cfg.method_cfg;
    pf_param *p;
    PF_TRY(pf_prompt_check(ad, KEY, cfg->num_virtual_tokens, true, err));
    PF_TRY(pf_adapter_add_param(ad, PF_PROMPT_TENSOR,
                                pf_prompt_rows_of(ad, cfg->num_virtual_tokens, cfg->submodules),
                                ad->model->embedding->in_dim, &p, err));
    ad->state = p;
    PF_TRY(pf_prompt_attach(ad, p, cfg->num_virtual_tokens, err));
    return pf_prompt_attach_saved(ad, KEY, "prompt tuning", &cfg->modules_to_save, err);
}

/* ---- first weights --------------------------------------------------------------------------- */

/* Row i becomes the embedding of a token, as the model's first block would see it. */
static void set_row(const pf_adapter *ad, pf_param *p, int64_t i, int32_t id) {
    const pf_site *e = ad->model->embedding;
    pf_real *row = p->data + i * p->cols;
    pf_weight_read_tile(e->weight, id, 1, 0, p->cols, row, p->cols);
    for (int64_t c = 0; e->scale != 0 && !e->scales_prompt && c < p->cols; c++)
        row[c] *= (pf_real)e->scale;
}

static void init_from_vocabulary(const pf_adapter *ad, pf_param *p, uint64_t seed) {
    const pf_rng_key key = pf_rng_make_key(seed, PF_RNG_INIT, 0);
    for (int64_t i = 0; i < p->rows; i++) {
        int64_t id = (int64_t)(pf_rng_uniform_at(key, (uint64_t)i) * (double)ad->model->vocab);
        if (id >= ad->model->vocab) id = ad->model->vocab - 1;
        set_row(ad, p, i, (int32_t)id);
    }
}

static peft_status init_from_tokens(const pf_adapter *ad, pf_param *p, const pf_encoding *e,
                                    peft_error *err) {
    const prompt_cfg *cfg = ad->cfg.method_cfg;
    if (e->n == 0) {
        return PF_FAIL(err, PEFT_E_CONFIG, KEY ".prompt_tuning_init_text: '%s' has no tokens",
                       cfg->prompt_tuning_init_text);
    }
    for (int64_t i = 0; i < p->rows; i++) {
        const int32_t id = e->ids[(size_t)i % e->n];
        if (id < 0 || id >= ad->model->vocab) {
            return PF_FAIL(err, PEFT_E_CONFIG,
                           KEY ".prompt_tuning_init_text: token %d is outside of the model's "
                               "vocabulary of %lld; is tokenizer_name_or_path this model's?",
                           (int)id, (long long)ad->model->vocab);
        }
        set_row(ad, p, i, id);
    }
    return PEFT_OK;
}

static peft_status init_from_text(const pf_adapter *ad, pf_param *p, peft_error *err) {
    const prompt_cfg *cfg = ad->cfg.method_cfg;
    const char *text = cfg->prompt_tuning_init_text;
    pf_tokenizer *tokenizer;
    pf_encoding e = {0};
    PF_TRY(pf_tokenizer_open(
        &tokenizer,
        cfg->tokenizer_name_or_path != NULL ? cfg->tokenizer_name_or_path : ad->model->path, err));
    peft_status status =
        pf_tokenizer_encode(tokenizer, text, strlen(text), PF_ENCODE_SPECIAL, &e, err);
    if (status == PEFT_OK) status = init_from_tokens(ad, p, &e, err);
    pf_encoding_release(&e);
    pf_tokenizer_close(tokenizer);
    return status;
}

static peft_status prompt_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    const prompt_cfg *cfg = ad->cfg.method_cfg;
    pf_param *p = ad->state;
    if (pf_streq(cfg->prompt_tuning_init, "TEXT")) return init_from_text(ad, p, err);
    if (pf_streq(cfg->prompt_tuning_init, "SAMPLE_VOCAB")) {
        init_from_vocabulary(ad, p, seed);
    } else {
        pf_fill_normal(p, seed, 1); /* torch's embedding */
    }
    return PEFT_OK;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

static peft_status prompt_read_config(pf_arena *a, const json_t *c, const char *where,
                                      const void **method_cfg, peft_error *err) {
    static const char *const inits[] = {"RANDOM", "SAMPLE_VOCAB", "TEXT", NULL};
    prompt_cfg *p = PF_NEW(a, prompt_cfg);
    PF_CHECK_ALLOC(p, err);
    PF_TRY(pf_json_get_int(c, where, "num_virtual_tokens", 1, 100000, &p->num_virtual_tokens, err));
    PF_TRY(pf_peft_get_word(c, where, "prompt_tuning_init", inits, "RANDOM", &p->prompt_tuning_init,
                            err));
    PF_TRY(pf_peft_get_text(a, c, where, "prompt_tuning_init_text", NULL,
                            &p->prompt_tuning_init_text, err));
    PF_TRY(pf_peft_get_text(a, c, where, "tokenizer_name_or_path", NULL, &p->tokenizer_name_or_path,
                            err));
    PF_TRY(pf_peft_get_strings(a, c, where, "modules_to_save", &p->modules_to_save, err));
    PF_TRY(pf_prompt_read_submodules(c, where, &p->submodules, err));
    *method_cfg = p;
    return PEFT_OK;
}

static peft_status prompt_write_config(const pf_adapter *ad, json_t *c, peft_error *err) {
    const prompt_cfg *p = ad->cfg.method_cfg;
    const pf_model *m = ad->model;
    int bad = pf_prompt_write_sizes(ad, p->num_virtual_tokens, p->submodules, m->embedding->in_dim,
                                    m->n_heads, c);
    bad |= json_object_set_new(c, "prompt_tuning_init", json_string(p->prompt_tuning_init));
    if (pf_streq(p->prompt_tuning_init, "TEXT")) {
        const char *tokenizer =
            p->tokenizer_name_or_path != NULL ? p->tokenizer_name_or_path : m->name;
        bad |= json_object_set_new(c, "prompt_tuning_init_text",
                                   json_string(p->prompt_tuning_init_text));
        bad |= json_object_set_new(c, "tokenizer_name_or_path", json_string(tokenizer));
    }
    if (p->modules_to_save.list.n > 0)
        bad |= json_object_set_new(c, "modules_to_save", pf_peft_strings(&p->modules_to_save));
    return bad == 0 ? PEFT_OK
                    : PF_FAIL(err, PEFT_E_NOMEM, "out of memory while writing adapter_config.json");
}

const pf_method pf_method_prompt_tuning = {
    .name = "prompt_tuning",
    .paper = "The Power of Scale for Parameter-Efficient Prompt Tuning, Lester et al. 2021, arXiv "
             "2104.08691",
    .help = "learned rows before the embeddings of every sample (prompt tuning, arXiv 2104.08691)",
    .cfg_rows = rows,
    .cfg_size = sizeof(prompt_cfg),
    .check_cfg = check_cfg,
    .peft_type = "PROMPT_TUNING",
    .whole_prefix = "base_model.",
    .note = PF_PROMPT_NOTE,
    .no_merge = "a learned prompt is rows before every text, not a change of weights",
    .attach = prompt_attach,
    .init = prompt_init,
    .read_config = prompt_read_config,
    .write_config = prompt_write_config,
};

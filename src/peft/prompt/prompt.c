/* prompt.c - learned rows before every sample; see prompt.h.
 *
 * The rows are one segment, the root of all samples of a micro-batch (graph/batch.h): computed
 * once, seen by every row, and in generation once in the cache. As in peft they take positions 0 to
 * n - 1 and the samples go on behind them.
 *
 * Where a row sees those behind it, what becomes of the prompt depends on the text: then every
 * source of an encoder-decoder model begins with its rows, or every text of an encoder, and a
 * text's class is told by the first of them, as peft does. (Nothing stands before the decoder's
 * rows.) */
#include "peft/prompt/prompt.h"

#include "ops/embed/prompt_rows.h"
#include "text/json.h"

peft_status pf_prompt_check(const pf_adapter *ad, const char *key, int64_t n, bool rows,
                            peft_error *err) {
    const pf_model *m = ad->model;
    if (m->max_positions > 0 && n > m->max_positions - 2) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "%s.num_virtual_tokens is %lld, but %s has %lld positions and samples need "
                       "some of them; 20 is usual",
                       key, (long long)n, m->name, (long long)m->max_positions);
    }
    if (rows && m->family->bidirectional && m->task == PF_TASK_TOKEN_CLS) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: with learned rows before a text, a model for %s tells a class of each "
                       "of them, too, and there are no labels for those (peft cannot train this "
                       "either); prefix_tuning and lora can",
                       key, pf_task_name(m->task));
    }
    if (m->lead.prompt + m->lead.prefix + m->lead.each > 0) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: another adapter of %s puts virtual tokens before every sample already",
                       key, m->name);
    }
    return PEFT_OK;
}

int64_t pf_prompt_rows_of(const pf_adapter *ad, int64_t n, int64_t submodules) {
    if (!ad->model->encoder_decoder) return n;
    return submodules == 1 ? n : 2 * n;
}

/* ---- in a build ------------------------------------------------------------------------------ */

typedef struct prompt_rows {
    pf_param *p;
    int32_t n;
    pf_space space; /* whose rows begin with them */
} prompt_rows;

static peft_status put_rows(pf_build *b, void *self, pf_site *site, pf_value **y, peft_error *err) {
    const prompt_rows *r = self;
    if ((*y)->space != (int)r->space) return PEFT_OK;
    pf_value *prompt = pf_graph_param(b->graph, r->p);
    PF_CHECK_ALLOC(prompt, err);
    return pf_prompt_rows(b->graph, site->name, *y, prompt, r->n, y, err);
}

static const pf_site_hooks prompt_hooks = {.prompt = put_rows};

peft_status pf_prompt_attach(pf_adapter *ad, pf_param *p, int64_t n, peft_error *err) {
    pf_model *m = ad->model;
    prompt_rows *r = PF_NEW(&ad->arena, prompt_rows);
    PF_CHECK_ALLOC(r, err);
    *r = (prompt_rows){p, (int32_t)n, m->encoder_decoder ? PF_SPACE_SOURCE : PF_SPACE_TOKENS};
    PF_TRY(pf_adapter_hook(ad, m->embedding, &prompt_hooks, r, err));
    if (m->encoder_decoder || m->family->bidirectional)
        m->lead.each = r->n;
    else
        m->lead.prompt = r->n;
    ad->leads = true;
    return PEFT_OK;
}

peft_status pf_prompt_attach_saved(pf_adapter *ad, const char *key, const char *what,
                                   const pf_cfg_strings *modules_to_save, peft_error *err) {
    pf_target *targets;
    const pf_target_rules rules = {.key = key, .what = what, .modules_to_save = *modules_to_save};
    PF_TRY(pf_find_targets(ad, &rules, &targets, err));
    for (int i = 0; i < ad->model->n_sites; i++) {
        if (targets[i].whole) PF_TRY(pf_attach_whole(ad, ad->model->sites[i], err));
    }
    return PEFT_OK;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

peft_status pf_prompt_read_submodules(const json_t *c, const char *where, int64_t *out,
                                      peft_error *err) {
    return pf_json_opt_int(c, where, "num_transformer_submodules", 0, 0, 2, out, err);
}

int pf_prompt_write_sizes(const pf_adapter *ad, int64_t n, int64_t submodules, int64_t token_dim,
                          int64_t heads, json_t *c) {
    const int64_t stacks = ad->model->encoder_decoder && submodules != 1 ? 2 : 1;
    int bad = json_object_set_new(c, "num_virtual_tokens", json_integer(n));
    bad |= json_object_set_new(c, "token_dim", json_integer(token_dim));
    bad |= json_object_set_new(c, "num_attention_heads", json_integer(heads));
    bad |= json_object_set_new(c, "num_layers", json_integer(ad->model->n_layers));
    return bad | json_object_set_new(c, "num_transformer_submodules", json_integer(stacks));
}

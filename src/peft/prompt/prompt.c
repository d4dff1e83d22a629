/* prompt.c - learned rows before every sample; see prompt.h.
 *
 * The rows are one segment, the root of all samples of a micro-batch (graph/batch.h): computed
 * once, seen by every row, and in generation once in the cache. As in peft they take positions 0 to
 * n - 1 and the samples go on behind them. */
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
    if (m->encoder_decoder) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: virtual tokens before an encoder (%s) are not supported yet; lora and "
                       "ia3 act there",
                       key, m->architecture);
    }
    if (rows && m->family->bidirectional) {
        return PF_FAIL(
            err, PEFT_E_UNSUPPORTED,
            "%s: in %s a token sees those behind it, so a learned prompt would not be one "
            "for all samples; prefix_tuning has learned keys and values instead",
            key, m->architecture);
    }
    if (m->lead.prompt + m->lead.prefix > 0) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: another adapter of %s puts virtual tokens before every sample already",
                       key, m->name);
    }
    return PEFT_OK;
}

static peft_status put_rows(pf_build *b, void *self, pf_site *site, pf_value **y, peft_error *err) {
    pf_value *prompt = pf_graph_param(b->graph, self);
    PF_CHECK_ALLOC(prompt, err);
    return pf_prompt_rows(b->graph, site->name, *y, prompt, y, err);
}

static const pf_site_hooks prompt_hooks = {.prompt = put_rows};

peft_status pf_prompt_attach(pf_adapter *ad, pf_param *p, peft_error *err) {
    PF_TRY(pf_adapter_hook(ad, ad->model->embedding, &prompt_hooks, p, err));
    ad->model->lead.prompt = (int32_t)p->rows;
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

int pf_prompt_write_sizes(const pf_adapter *ad, int64_t n, int64_t token_dim, int64_t heads,
                          json_t *c) {
    int bad = json_object_set_new(c, "num_virtual_tokens", json_integer(n));
    bad |= json_object_set_new(c, "token_dim", json_integer(token_dim));
    bad |= json_object_set_new(c, "num_attention_heads", json_integer(heads));
    bad |= json_object_set_new(c, "num_layers", json_integer(ad->model->n_layers));
    return bad | json_object_set_new(c, "num_transformer_submodules", json_integer(1));
}

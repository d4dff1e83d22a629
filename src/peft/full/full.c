/* full.c - every weight of the model is trained, as an f32 copy. Parameters have the base's own
 * tensor names, so that what is saved is a model, not an adapter. A matrix that embedding and head
 * share is one parameter at two sites. */
#include "peft/method.h"

static peft_status train(pf_adapter *ad, pf_site *site, bool bias, peft_error *err) {
    const char *name = pf_arena_strdup(&ad->arena, bias ? site->bias->name : site->weight->name);
    PF_CHECK_ALLOC(name, err);
    return pf_adapter_train_whole(ad, site, bias, name, false, err);
}

static peft_status full_attach(pf_adapter *ad, peft_error *err) {
    const pf_model *m = ad->model;
    for (int i = 0; i < m->n_sites; i++) {
        pf_site *site = m->sites[i];
        if (site->weight == NULL) continue;
        if (site->tied_to != NULL) {
            PF_ASSERT(site->tied_to->trained_weight != NULL);
            PF_TRY(pf_adapter_train_shared(ad, site, false, site->tied_to->trained_weight, err));
        } else {
            PF_TRY(train(ad, site, false, err));
        }
        if (site->bias != NULL) PF_TRY(train(ad, site, true, err));
    }
    return PEFT_OK;
}

static peft_status full_init(pf_adapter *ad, uint64_t seed, peft_error *err) {
    (void)ad, (void)seed, (void)err; /* the copies hold the base's numbers already */
    return PEFT_OK;
}

static const pf_cfg_row rows[] = {PF_CFG_END};

const pf_method pf_method_full = {
    .name = "full",
    .help = "all weights of the model; has no keys of its own",
    .cfg_rows = rows,
    .cfg_size = 1,
    .paper = "all weights, no adapter",
    .attach = full_attach,
    .init = full_init,
};

/* invertible.c - invertible adapters behind the embeddings (Pfeiffer et al. 2020, MAD-X, arXiv
 * 2005.00052, section 4.1.2), coupled as in NICE (Dinh et al. 2014, arXiv 1410.8516): with x = [x1,
 * x2],
 *
 *   y1 = x1 + F(x2),  y2 = x2 + G(y1),   F, G = up(f(down(x)))
 *
 * Before the head the inverse, x2 = y2 - G(y1), x1 = y1 - F(x2), is applied as AdapterHub does: on
 * models that it reaches through its interface (Qwen, Phi, ...), not on those it has classes of its
 * own for (`own_classes`), and not before heads of classes. GLOW blocks are not offered:
 * AdapterHub's cut a text's tokens in two, not its columns. */
#include "ops/activation/activation.h"
#include "ops/activation/scale.h"
#include "ops/shape/split.h"
#include "peft/bottleneck/bottleneck.h"
#include "peft/first_weights.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

/* model_type of the decoders that AdapterHub has classes of its own for */
static const char *const own_classes[] = {"llama", "mistral", "gpt2", "gptj"};

typedef struct subnet {
    pf_projection down, up;
} subnet;

struct pf_invertible {
    const pf_bottleneck_cfg *cfg;
    pf_split_args halves;
    subnet f, g;
};

static peft_status add_subnet(pf_adapter *ad, const pf_bottleneck_cfg *cfg, const char *prefix,
                              const char *name, int64_t in, int64_t out, subnet *s,
                              peft_error *err) {
    const double exact = floor((double)in / cfg->inv_adapter_reduction_factor);
    const int64_t width = exact <= 64 * (double)in ? (int64_t)exact : 0;
    pf_bottleneck_cfg plain = *cfg;
    const char *down = pf_arena_printf(&ad->arena, "%s.%s.0", prefix, name),
               *up = pf_arena_printf(&ad->arena, "%s.%s.2", prefix, name);
    PF_CHECK_ALLOC(down, err);
    PF_CHECK_ALLOC(up, err);
    if (width < 1) {
        return PF_FAIL(err, PEFT_E_CONFIG,
                       "inv_adapter_reduction_factor %g makes an inner width of %g out of %lld; 2 "
                       "is usual",
                       cfg->inv_adapter_reduction_factor, exact, (long long)in);
    }
    plain.phm_layer = false;
    PF_TRY(pf_projection_add(ad, &plain, NULL, down, false, in, width, &s->down, err));
    return pf_projection_add(ad, &plain, NULL, up, true, width, out, &s->up, err);
}

static peft_status build_subnet(pf_build *b, const pf_invertible *inv, const subnet *s,
                                const char *name, pf_value *x, pf_value **y, peft_error *err) {
    const pf_op *f = pf_activation_find(inv->cfg->non_linearity);
    PF_TRY(pf_projection_build(b, inv->cfg, &s->down, name, x, y, err));
    PF_TRY(pf_activation(b->graph, f, name, *y, y, err));
    return pf_projection_build(b, inv->cfg, &s->up, name, *y, y, err);
}

static peft_status output(pf_build *b, void *self, pf_site *site, pf_value *x, uint32_t mask_key,
                          pf_value **y, peft_error *err) {
    (void)x, (void)mask_key;
    const pf_invertible *inv = self;
    pf_value *half[2], *d;
    PF_TRY(pf_split(b->graph, site->name, *y, &inv->halves, half, err));
    PF_TRY(build_subnet(b, inv, &inv->f, site->name, half[1], &d, err));
    PF_TRY(pf_add(b->graph, site->name, half[0], d, &half[0], err));
    PF_TRY(build_subnet(b, inv, &inv->g, site->name, half[0], &d, err));
    PF_TRY(pf_add(b->graph, site->name, half[1], d, &half[1], err));
    return pf_join(b->graph, site->name, half, &inv->halves, y, err);
}

/* y - d */
static peft_status take_off(pf_build *b, const char *name, pf_value *d, pf_value **y,
                            peft_error *err) {
    PF_TRY(pf_scale(b->graph, name, d, -1, &d, err));
    return pf_add(b->graph, name, *y, d, y, err);
}

static peft_status head_input(pf_build *b, void *self, pf_site *site, pf_value **x,
                              peft_error *err) {
    const pf_invertible *inv = self;
    pf_value *half[2], *d;
    PF_TRY(pf_split(b->graph, site->name, *x, &inv->halves, half, err));
    PF_TRY(build_subnet(b, inv, &inv->g, site->name, half[0], &d, err));
    PF_TRY(take_off(b, site->name, d, &half[1], err));
    PF_TRY(build_subnet(b, inv, &inv->f, site->name, half[1], &d, err));
    PF_TRY(take_off(b, site->name, d, &half[0], err));
    return pf_join(b->graph, site->name, half, &inv->halves, x, err);
}

static const pf_site_hooks hooks = {.output = output}, head_hooks = {.input = head_input};

static const char *type_of(const pf_model *m) {
    return json_string_value(json_object_get(m->config, "model_type"));
}

/* Behind the embeddings: in Gemma 2 behind the table, whose rows are scaled after that. */
static pf_site *find_place(const pf_model *m) {
    if (pf_streq(type_of(m), "gemma2")) return m->embedding;
    for (int i = 0; i < m->n_sites; i++) {
        if (m->sites[i]->kind == PF_SITE_EMBEDDING_OUTPUT) return m->sites[i];
    }
    return NULL;
}

static bool inverts_before_head(const pf_model *m) {
    const char *type = type_of(m);
    if (m->task != PF_TASK_CAUSAL_LM) return false;
    for (size_t i = 0; i < PF_COUNT(own_classes); i++) {
        if (pf_streq(type, own_classes[i])) return false;
    }
    return true;
}

peft_status pf_invertible_attach(pf_adapter *ad, const pf_bottleneck_cfg *cfg, pf_invertible **out,
                                 peft_error *err) {
    const pf_model *m = ad->model;
    const int64_t first = m->hidden / 2, second = m->hidden - first;
    pf_site *const site = find_place(m);
    *out = NULL;
    if (pf_streq(cfg->inv_adapter, "none")) return PEFT_OK;
    if (site == NULL || first < 1) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s has no place for an invertible adapter behind its embeddings yet; leave "
                       "inv_adapter away (seq_bn, double_seq_bn)",
                       m->architecture);
    }
    pf_invertible *inv = PF_NEW(&ad->arena, pf_invertible);
    const char *prefix =
        pf_arena_printf(&ad->arena, "%.*s.invertible_adapters.%s", (int)strcspn(site->name, "."),
                        site->name, cfg->adapter_name);
    PF_CHECK_ALLOC(inv, err);
    PF_CHECK_ALLOC(prefix, err);
    inv->cfg = cfg;
    inv->halves = (pf_split_args){.periods = 1, .n = 2, .width = {first, second}};
    PF_TRY(add_subnet(ad, cfg, prefix, "F", second, first, &inv->f, err));
    PF_TRY(add_subnet(ad, cfg, prefix, "G", first, second, &inv->g, err));
    *out = inv;
    if (inverts_before_head(m)) PF_TRY(pf_adapter_hook(ad, m->head, &head_hooks, inv, err));
    return pf_adapter_hook(ad, site, &hooks, inv, err);
}

void pf_invertible_init(const pf_invertible *inv, uint64_t seed) {
    const pf_projection *const all[] = {&inv->f.down, &inv->f.up, &inv->g.down, &inv->g.up};
    for (size_t i = 0; i < PF_COUNT(all); i++) pf_fill_normal(all[i]->weight, seed, 0.02);
}

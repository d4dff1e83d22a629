/* bottleneck_kinds.c - the named kinds of bottleneck adapters, as AdapterHub has them: one set of
 * keys with other defaults each. A file is opened under the first name in methods.def whose mark it
 * bears: what it is comes from its keys, the name is for people. */
#include "peft/bottleneck/bottleneck.h"

#include "text/json.h"

/* clang-format off */
#define ROWS(mh, factor, function, before, after, init, parallel, scale, around, inverse, phm, depth) {                        \
    PF_CFG_BOOL(pf_bottleneck_cfg, mh_adapter, mh, "an adapter behind attention"),                                              \
    PF_CFG_BOOL(pf_bottleneck_cfg, output_adapter, true, "an adapter behind the MLP"),                                          \
    PF_CFG_BOOL(pf_bottleneck_cfg, cross_adapter, false, "an adapter behind a decoder's attention to the source (T5)"),         \
    PF_CFG_FLOAT(pf_bottleneck_cfg, reduction_factor, factor, 0, 1e6, "the bottleneck is the hidden size divided by this, cut to a whole number, at least 1", .flags = PF_CFG_ABOVE_MIN), \
    PF_CFG_NUMMAP(pf_bottleneck_cfg, reduction_factors, 0, 1e6, "other factors for some layers: {layer: factor, default: factor}"), \
    PF_CFG_INT(pf_bottleneck_cfg, bottleneck_size, 0, 0, 1 << 20, "the bottleneck itself, in place of reduction_factor", .flags = PF_CFG_UNSET), \
    PF_CFG_STR(pf_bottleneck_cfg, non_linearity, function, "function in the bottleneck: relu, gelu, gelu_new, silu, swish, tanh, leakyrelu and what else transformers knows"), \
    PF_CFG_BOOL(pf_bottleneck_cfg, original_ln_before, before, "the adapter reads the branch with the stream added, normed where the model norms it, else the branch alone"), \
    PF_CFG_BOOL(pf_bottleneck_cfg, original_ln_after, after, "the stream is added behind the adapter, and normed where the model norms it"),                         \
    PF_CFG_BOOL(pf_bottleneck_cfg, ln_before, false, "a new layer norm before the bottleneck"),                                 \
    PF_CFG_BOOL(pf_bottleneck_cfg, ln_after, false, "a new layer norm behind the bottleneck"),                                  \
    PF_CFG_ENUM(pf_bottleneck_cfg, init_weights, init, "bert mam_adapter houlsby", "first weights: normal (std 0.02), up zero and down uniform, or truncated normal (std 0.01)"), \
    PF_CFG_BOOL(pf_bottleneck_cfg, is_parallel, parallel, "the adapter reads the stream from before the branch"),               \
    PF_CFG_STR(pf_bottleneck_cfg, scaling, scale, "factor of what the adapter adds: a number, learned, or channel (one learned for each column)"), \
    PF_CFG_BOOL(pf_bottleneck_cfg, use_gating, false, "a gate learns how much of an adapter a text gets: the mean over its tokens, those to come too"), \
    PF_CFG_ENUM(pf_bottleneck_cfg, residual_before_ln, #around, "true=yes=on false=no=off post_add", "the residual around the adapter: the branch alone, what the adapter reads (false), or the sum before the model's norm (post_add)"), \
    PF_CFG_BOOL(pf_bottleneck_cfg, adapter_residual_before_ln, false, "with ln_after: that residual is added before the norm"), \
    PF_CFG_ENUM(pf_bottleneck_cfg, inv_adapter, inverse, "none nice", "an invertible adapter behind the embeddings"),           \
    PF_CFG_FLOAT(pf_bottleneck_cfg, inv_adapter_reduction_factor, 2, 0, 1e6, "its inner width is half of the hidden size divided by this", .flags = PF_CFG_ABOVE_MIN), \
    PF_CFG_INTLIST(pf_bottleneck_cfg, leave_out, 0, 100000, "layers without adapters, counted from 0, in a T5 over encoder and decoder"),                         \
    PF_CFG_FLOAT(pf_bottleneck_cfg, dropout, 0, 0, 1, "share of the adapter's output dropped, in training only", .flags = PF_CFG_BELOW_MAX), \
    PF_CFG_FLOAT(pf_bottleneck_cfg, stochastic_depth, depth, 0, 1, "share of samples for which an adapter is left out, in training only", .flags = PF_CFG_BELOW_MAX), \
    PF_CFG_BOOL(pf_bottleneck_cfg, phm_layer, phm, "the projections are sums of Kronecker products (Compacter)"),               \
    PF_CFG_INT(pf_bottleneck_cfg, phm_dim, 4, 1, 65536, "PHM: number and width of the matrices of the rule"),                   \
    PF_CFG_INT(pf_bottleneck_cfg, phm_rank, 1, 1, 65536, "PHM: rank of factorized matrices W"),                                 \
    PF_CFG_BOOL(pf_bottleneck_cfg, factorized_phm_W, true, "PHM: W is a product of two thin matrices"),                         \
    PF_CFG_BOOL(pf_bottleneck_cfg, shared_W_phm, false, "PHM: all layers share W"),                                             \
    PF_CFG_BOOL(pf_bottleneck_cfg, shared_phm_rule, true, "PHM: all layers share the rule"),                                    \
    PF_CFG_BOOL(pf_bottleneck_cfg, factorized_phm_rule, false, "PHM: the rule is a product of two vectors"),                    \
    PF_CFG_BOOL(pf_bottleneck_cfg, learn_phm, true, "PHM: the rule is trained"),                                                \
    PF_CFG_BOOL(pf_bottleneck_cfg, phm_bias, true, "PHM: the projections have a bias"),                                         \
    PF_CFG_ENUM(pf_bottleneck_cfg, phm_c_init, "normal", "normal uniform", "PHM: first distribution of the rule"),              \
    PF_CFG_FLOAT(pf_bottleneck_cfg, phm_init_range, 1e-4, 0, 1e3, "PHM: standard deviation of a shared rule at first"),         \
    PF_CFG_ENUM(pf_bottleneck_cfg, hypercomplex_nonlinearity, "glorot-uniform", "glorot-uniform glorot-normal normal phm", "PHM: a word of AdapterHub's file; W begins glorot-normal"), \
    PF_CFG_STR(pf_bottleneck_cfg, adapter_name, "default", "the adapter's name in its file, by which AdapterHub loads it"),     \
    PF_CFG_END}

static const char notes[] =
    "Where bottleneck adapters stand\n\n"
    "All kinds work on every family; parallel ones not where attention and MLP run side by side. With the stream r, a branch y, the "
    "model's norm N and what an adapter makes of rows, A:\n\n"
    "| block | families | it makes | with seq_bn | with adapter_plus |\n"
    "| --- | --- | --- | --- | --- |\n"
    "| norms before a branch | Llama, Qwen, GPT-2, T5, ... | r + y | r + y + A(r + y) | h + A(h), h = r + y |\n"
    "| norms the sum | BERT, RoBERTa, XLM-R, OPT-350m | N(r + y) | N(r + y + A(N(r + y))) | h + A(h), h = N(r + y) |\n"
    "| norms the branch | Gemma 2, Gemma 3, OLMo 2 | r + N(y) | r + N(y + A(N(r + y))) | h + A(h), h = r + N(y) |\n\n"
    "double_seq_bn and compacter read y alone, also behind attention; par_bn adds A(r) to y. This is AdapterHub's rule (adapters 1.3), and its "
    "files go both ways, heads for classes included (`head_config.json`, `model_head.safetensors`; flexible heads are read where the model's "
    "own head is the same). For Gemma 2 and 3 it hands every "
    "layer the last layer's norm for the inner N; so does this program. It does not know OLMo 2 and OPT, where each layer has its own.\n\n"
    "In a T5 blocks are counted over encoder and decoder (`leave_out`, `reduction_factors`), adapters stand behind self-attention and MLP of "
    "both stacks, and with `cross_adapter` behind the decoder's attention to the source. Invertible adapters stand behind the embeddings, in a "
    "T5 those of the encoder.";

#define KIND(id, text, mark, help_text, paper_text)                                                                             \
    const pf_method pf_method_##id = {                                                                                          \
        .name = text,                                                                                                           \
        .help = help_text,                                                                                                      \
        .paper = paper_text,                                                                                                    \
        .notes = notes,                                                                                                         \
        .cfg_rows = id##_rows,                                                                                                  \
        .cfg_size = sizeof(pf_bottleneck_cfg),                                                                                  \
        .check_cfg = pf_bottleneck_check_config,                                                                                \
        .is_adapterhub = mark,                                                                                                  \
        .no_merge = "a bottleneck has a function between its two matrices, so no weight can hold it",                           \
        .attach = pf_bottleneck_attach,                                                                                         \
        .init = pf_bottleneck_init,                                                                                             \
        .ready = pf_bottleneck_ready,                                                                                           \
        .has_dropout = pf_bottleneck_has_dropout,                                                                               \
        .repeats = pf_bottleneck_repeats,                                                                                       \
        .read_config = pf_bottleneck_read_config,                                                                               \
        .write_config = pf_bottleneck_write_config,                                                                             \
    };
/* clang-format on */

/* ---- marks ----------------------------------------------------------------------------------- */

static bool is_on(const json_t *c, const char *key) {
    return json_is_true(json_object_get(c, key));
}

static bool is_word(const json_t *c, const char *key, const char *word) {
    return pf_streq(json_string_value(json_object_get(c, key)), word);
}

static bool has_inverse(const json_t *c) {
    return json_is_string(json_object_get(c, "inv_adapter"));
}

static bool is_compacter(const json_t *c) {
    return pf_bottleneck_is_config(c) && is_on(c, "phm_layer") && is_on(c, "mh_adapter");
}
static bool is_compacterpp(const json_t *c) {
    return pf_bottleneck_is_config(c) && is_on(c, "phm_layer");
}
static bool is_parallel(const json_t *c) {
    return pf_bottleneck_is_config(c) && is_on(c, "is_parallel");
}
static bool is_scaled_parallel(const json_t *c) {
    return is_parallel(c) && is_word(c, "scaling", "learned");
}
static bool is_double_inverse(const json_t *c) {
    return pf_bottleneck_is_config(c) && has_inverse(c) && is_on(c, "mh_adapter");
}
static bool is_inverse(const json_t *c) {
    return pf_bottleneck_is_config(c) && has_inverse(c);
}
static bool is_plus(const json_t *c) {
    return pf_bottleneck_is_config(c) && is_word(c, "scaling", "channel") &&
           json_is_false(json_object_get(c, "original_ln_after"));
}
static bool is_double(const json_t *c) {
    return pf_bottleneck_is_config(c) && is_on(c, "mh_adapter");
}

/* ---- kinds ----------------------------------------------------------------------------------- */

/* clang-format off */
/*                                              mh     factor  function before after  init           parall scale      around inverse phm    depth */
static const pf_cfg_row seq_bn_rows[]         = ROWS(false,     16, "relu",  true,  true,  "bert",        false, "1.0",     true,  "none", false, 0);
static const pf_cfg_row double_seq_bn_rows[]  = ROWS(true,      16, "swish", false, true,  "bert",        false, "1.0",     true,  "none", false, 0);
static const pf_cfg_row par_bn_rows[]         = ROWS(false,      2, "relu",  false, true,  "mam_adapter", true,  "4.0",     true,  "none", false, 0);
static const pf_cfg_row scaled_par_bn_rows[]  = ROWS(false,      2, "relu",  false, true,  "mam_adapter", true,  "learned", true,  "none", false, 0);
static const pf_cfg_row seq_bn_inv_rows[]     = ROWS(false,     16, "relu",  true,  true,  "bert",        false, "1.0",     true,  "nice", false, 0);
static const pf_cfg_row double_seq_bn_inv_rows[] = ROWS(true,   16, "swish", false, true,  "bert",        false, "1.0",     true,  "nice", false, 0);
static const pf_cfg_row adapter_plus_rows[]   = ROWS(false,     96, "gelu",  true,  false, "houlsby",     false, "channel", false, "none", false, 0.1);
static const pf_cfg_row compacter_rows[]      = ROWS(true,      32, "gelu",  false, true,  "bert",        false, "1.0",     true,  "none", true,  0);
static const pf_cfg_row compacterpp_rows[]    = ROWS(false,     32, "gelu",  true,  true,  "bert",        false, "1.0",     true,  "none", true,  0);

#define HOULSBY "Parameter-Efficient Transfer Learning for NLP, Houlsby et al. 2019, arXiv 1902.00751"
#define PFEIFFER "AdapterFusion, Pfeiffer et al. 2020, arXiv 2005.00247"
#define PARALLEL "Towards a Unified View of Parameter-Efficient Transfer Learning, He et al. 2021, arXiv 2110.04366"
#define MADX "MAD-X, Pfeiffer et al. 2020, arXiv 2005.00052"
#define COMPACTER "Compacter, Mahabadi et al. 2021, arXiv 2106.04647"

KIND(seq_bn, "seq_bn", pf_bottleneck_is_config, "bottleneck adapters behind every MLP (Pfeiffer, arXiv 2005.00247)", PFEIFFER)
KIND(double_seq_bn, "double_seq_bn", is_double, "bottleneck adapters behind attention and MLP (Houlsby, arXiv 1902.00751)", HOULSBY)
KIND(par_bn, "par_bn", is_parallel, "bottleneck adapters beside every MLP (parallel, arXiv 2110.04366)", PARALLEL)
KIND(scaled_par_bn, "scaled_par_bn", is_scaled_parallel, "par_bn with a learned scale", PARALLEL)
KIND(seq_bn_inv, "seq_bn_inv", is_inverse, "seq_bn and an invertible adapter behind the embeddings (MAD-X, arXiv 2005.00052)", MADX)
KIND(double_seq_bn_inv, "double_seq_bn_inv", is_double_inverse, "double_seq_bn and an invertible adapter behind the embeddings (MAD-X, arXiv 2005.00052)", MADX)
KIND(adapter_plus, "adapter_plus", is_plus, "seq_bn with a scale per channel and stochastic depth (Adapter+, arXiv 2406.06820)", "Adapters Strike Back, Steitz & Roth 2024, arXiv 2406.06820")
KIND(compacter, "compacter", is_compacter, "double_seq_bn with Kronecker-factored projections (Compacter, arXiv 2106.04647)", COMPACTER)
KIND(compacterpp, "compacter++", is_compacterpp, "seq_bn with Kronecker-factored projections (Compacter++, arXiv 2106.04647)", COMPACTER)
/* clang-format on */

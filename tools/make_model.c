/* make_model.c - writes a model folder with random weights: toys for the tests that drive the
 * program from outside, and real shapes for measurements of speed and memory.
 *
 *   make_model DIR [hidden=32 layers=2 heads=4 kv_heads=2 ffn=48 vocab=264 positions=256 tie=1]
 *   make_model --shape smollm2-135m DIR [--dtype bf16] [--tokenizer DIR] [--seed 1] [--config-only]
 *
 * Sizes may follow a --shape and change it. The built-in tokenizer is byte-level BPE without
 * merges: 0 <unk>, 1 <s>, 2 </s>, then one token per byte; it has no padding token; `vocab` may be
 * larger, as it is in real models. --tokenizer copies the tokenizer files of another folder in its
 * place.
 *
 * The same arguments give the same bytes. Toys have uniform weights with the deviation
 * 1/sqrt(columns), so that two layers of 32 already tell features apart; shapes have the start that
 * transformers gives (normal, deviation 0.02, biases 0). Weights are written as they are drawn, a
 * block at a time. */
#include "base/file.h"
#include "base/rng.h"
#include "formats/hf_carry.h"
#include "formats/safetensors_write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 3 + 256 };

typedef struct shape {
    const char *name, *model_type, *architecture;
    int64_t hidden, layers, heads, kv_heads, ffn, vocab, positions, tie;
    double rope_theta, eps;
    int64_t bos, eos;
    bool qkv_bias;
} shape;

// clang-format off
static const shape shapes[] = {
    /* name            type     architecture       hidden layers heads kv  ffn    vocab   positions tie theta eps   bos     eos     bias */
    {"toy",            "llama", "LlamaForCausalLM",    32,  2,  4, 2,    48,    264,    256, 1, 1e4, 1e-5,      1,      2, false},
    {"smollm2-135m",   "llama", "LlamaForCausalLM",   576, 30,  9, 3,  1536,  49152,   8192, 1, 1e5, 1e-5,      0,      0, false},
    {"smollm2-360m",   "llama", "LlamaForCausalLM",   960, 32, 15, 5,  2560,  49152,   8192, 1, 1e5, 1e-5,      0,      0, false},
    {"qwen2.5-0.5b",   "qwen2", "Qwen2ForCausalLM",   896, 24, 14, 2,  4864, 151936,  32768, 1, 1e6, 1e-6, 151643, 151643, true},
    {"tinyllama-1.1b", "llama", "LlamaForCausalLM",  2048, 22, 32, 4,  5632,  32000,   2048, 0, 1e4, 1e-5,      1,      2, false},
    {"llama-2-7b",     "llama", "LlamaForCausalLM",  4096, 32, 32, 32, 11008, 32000,   4096, 0, 1e4, 1e-5,      1,      2, false},
    {"llama-3.1-8b",   "llama", "LlamaForCausalLM",  4096, 32, 32, 8, 14336, 128256, 131072, 0, 5e5, 1e-5, 128000, 128001, false},
    {"llama-3.1-70b",  "llama", "LlamaForCausalLM",  8192, 80, 64, 8, 28672, 128256, 131072, 0, 5e5, 1e-5, 128000, 128001, false},
};
// clang-format on

typedef struct request {
    shape shape;
    const char *dir, *tokenizer;
    pf_dtype dtype;
    int64_t seed;
    bool normal, config_only;
} request;

static peft_status read_size(shape *s, const char *arg, bool *known) {
    const struct {
        const char *name;
        int64_t *at;
    } numbers[] = {{"hidden", &s->hidden},       {"layers", &s->layers}, {"heads", &s->heads},
                   {"kv_heads", &s->kv_heads},   {"ffn", &s->ffn},       {"vocab", &s->vocab},
                   {"positions", &s->positions}, {"tie", &s->tie}};
    const char *equals = strchr(arg, '=');
    for (size_t k = 0; equals != NULL && k < PF_COUNT(numbers); k++) {
        size_t n = (size_t)(equals - arg);
        if (strncmp(arg, numbers[k].name, n) != 0 || numbers[k].name[n] != '\0') continue;
        *known = pf_parse_int(equals + 1, numbers[k].at) && *numbers[k].at >= 0;
    }
    return PEFT_OK;
}

static pf_dtype dtype_of(const char *name) {
    static const char *const names[][2] = {{"f32", "F32"}, {"bf16", "BF16"}, {"f16", "F16"}};
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_streq(name, names[i][0])) name = names[i][1];
    }
    return pf_dtype_by_name(name, strlen(name));
}

static peft_status read_shape(request *r, const char *name, peft_error *err) {
    for (size_t i = 0; i < PF_COUNT(shapes); i++) {
        if (!pf_streq(shapes[i].name, name)) continue;
        r->shape = shapes[i];
        r->normal = true;
        return PEFT_OK;
    }
    pf_buf known = {0};
    for (size_t i = 0; i < PF_COUNT(shapes); i++) pf_buf_addf(&known, " %s", shapes[i].name);
    peft_status status =
        PF_FAIL(err, PEFT_E_USAGE, "make_model: no shape is called '%s'; there are%s", name,
                pf_buf_str(&known));
    pf_buf_free(&known);
    return status;
}

static peft_status read_args(request *r, int argc, char **argv, peft_error *err) {
    for (int i = 1; i < argc; i++) /* sizes change the shape, wherever it stands */
        if (pf_streq(argv[i], "--shape") && i + 1 < argc) PF_TRY(read_shape(r, argv[i + 1], err));
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL, *dtype = NULL;
        bool known = false;
        if (pf_starts_with(arg, "--")) {
            known = true;
            if (pf_streq(arg, "--config-only")) {
                r->config_only = true;
                continue;
            }
            if (value == NULL)
                return PF_FAIL(err, PEFT_E_USAGE, "make_model: '%s' needs a value", arg);
            i++;
            if (pf_streq(arg, "--dtype"))
                dtype = value;
            else if (pf_streq(arg, "--tokenizer"))
                r->tokenizer = value;
            else if (pf_streq(arg, "--seed"))
                known = pf_parse_int(value, &r->seed);
            else
                known = pf_streq(arg, "--shape");
        } else if (strchr(arg, '=') == NULL && r->dir == NULL) {
            r->dir = arg;
            known = true;
        } else if (pf_starts_with(arg, "dtype=")) {
            dtype = arg + strlen("dtype=");
            known = true;
        } else if (pf_starts_with(arg, "seed=")) {
            known = pf_parse_int(arg + strlen("seed="), &r->seed);
        } else {
            PF_TRY(read_size(&r->shape, arg, &known));
        }
        if (dtype != NULL) {
            r->dtype = dtype_of(dtype);
            known = pf_dtype_writable(r->dtype);
        }
        if (!known) return PF_FAIL(err, PEFT_E_USAGE, "make_model: what is '%s'?", arg);
    }
    const shape *s = &r->shape;
    if (r->dir == NULL) return PF_FAIL(err, PEFT_E_USAGE, "make_model: name a folder");
    if (s->vocab < TOKENS || s->heads < 1 || s->kv_heads < 1 || s->hidden % s->heads != 0)
        return PF_FAIL(err, PEFT_E_USAGE, "make_model: these sizes do not fit together");
    return PEFT_OK;
}

/* ---- weights */

typedef struct weights {
    pf_arena arena;
    pf_stored_tensor *items;
    int n;
    const request *r;
} weights;

static peft_status add(weights *w, const char *name, int n_dims, int64_t rows, int64_t cols,
                       peft_error *err) {
    const int64_t dims[2] = {rows, cols};
    return pf_stored_tensor_set(&w->items[w->n++], name, w->r->dtype, n_dims, dims, NULL, err);
}

static peft_status list_weights(weights *w, peft_error *err) {
    const shape *s = &w->r->shape;
    const int64_t C = s->hidden, D = C / s->heads, KV = s->kv_heads * D, F = s->ffn;
    w->items = PF_NEW_ARRAY(&w->arena, pf_stored_tensor, 12 * s->layers + 3);
    PF_CHECK_ALLOC(w->items, err);
    PF_TRY(add(w, "model.embed_tokens.weight", 2, s->vocab, C, err));
    PF_TRY(add(w, "model.norm.weight", 1, C, 0, err));
    if (!s->tie) PF_TRY(add(w, "lm_head.weight", 2, s->vocab, C, err));
    const struct {
        const char *name;
        int64_t rows, cols; /* cols 0: a vector */
        bool bias;
    } parts[] = {{"input_layernorm", C, 0, false},
                 {"post_attention_layernorm", C, 0, false},
                 {"self_attn.q_proj", C, C, s->qkv_bias},
                 {"self_attn.k_proj", KV, C, s->qkv_bias},
                 {"self_attn.v_proj", KV, C, s->qkv_bias},
                 {"self_attn.o_proj", C, C, false},
                 {"mlp.gate_proj", F, C, false},
                 {"mlp.up_proj", F, C, false},
                 {"mlp.down_proj", C, F, false}};
    for (int64_t l = 0; l < s->layers; l++) {
        for (size_t i = 0; i < PF_COUNT(parts); i++) {
            const char *name =
                pf_arena_printf(&w->arena, "model.layers.%" PRId64 ".%s.weight", l, parts[i].name);
            PF_CHECK_ALLOC(name, err);
            PF_TRY(add(w, name, parts[i].cols > 0 ? 2 : 1, parts[i].rows, parts[i].cols, err));
            if (!parts[i].bias) continue;
            name = pf_arena_printf(&w->arena, "model.layers.%" PRId64 ".%s.bias", l, parts[i].name);
            PF_CHECK_ALLOC(name, err);
            PF_TRY(add(w, name, 1, parts[i].rows, 0, err));
        }
    }
    return PEFT_OK;
}

/* Four numbers of the stream of a tensor. In float, two normals per pair (Box-Muller): 1.1 G
 * weights are drawn in seconds. */
static void draw(float out[4], pf_rng_key key, uint64_t block, bool normal, float reach) {
    const pf_rng4 r = pf_philox(key, (uint32_t)block, (uint32_t)(block >> 32), 0, 0);
    if (!normal) {
        for (int k = 0; k < 4; k++) out[k] = reach * (2 * pf_rng_unit(r.v[k]) - 1);
        return;
    }
    for (int k = 0; k < 4; k += 2) {
        const float radius = reach * sqrtf(-2.0f * logf(1.0f - pf_rng_unit(r.v[k])));
        const float angle = 6.28318531f * pf_rng_unit(r.v[k + 1]);
        out[k] = radius * cosf(angle);
        out[k + 1] = radius * sinf(angle);
    }
}

static peft_status fill(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    const weights *w = ctx;
    const pf_rng_key key = pf_rng_make_key((uint64_t)w->r->seed, PF_RNG_DATA, (uint64_t)index);
    const bool vector = t->n_dims == 1;
    const float constant = pf_ends_with(t->name, ".bias") ? 0 : 1; /* norms are ones */
    const float reach = vector ? 0 : w->r->normal ? 0.02f : (float)sqrt(3.0 / (double)t->shape[1]);
    float block[4096];
    const int64_t n = pf_stored_tensor_count(t);
    for (int64_t at = 0; at < n; at += (int64_t)PF_COUNT(block)) {
        size_t part = PF_COUNT(block);
        if ((int64_t)part > n - at) part = (size_t)(n - at);
        for (size_t i = 0; i < part; i += 4) {
            if (vector)
                for (size_t k = 0; k < 4; k++) block[i + k] = constant;
            else
                draw(block + i, key, ((uint64_t)at + i) / 4, w->r->normal, reach);
        }
        PF_TRY(pf_tensor_sink_add_f32(sink, block, part, err));
    }
    return PEFT_OK;
}

/* ---- config and tokenizer */

static void config_text(pf_buf *b, const shape *s, pf_dtype dtype) {
    pf_buf_addf(b,
                "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\",\n"
                "  \"hidden_size\": %" PRId64 ",\n  \"num_hidden_layers\": %" PRId64 ",\n"
                "  \"num_attention_heads\": %" PRId64 ",\n  \"num_key_value_heads\": %" PRId64 ",\n"
                "  \"intermediate_size\": %" PRId64 ",\n  \"vocab_size\": %" PRId64 ",\n"
                "  \"max_position_embeddings\": %" PRId64 ",\n"
                "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": %.0e,\n"
                "  \"rope_theta\": %.1f,\n"
                "  \"tie_word_embeddings\": %s,\n  \"bos_token_id\": %" PRId64 ",\n"
                "  \"eos_token_id\": %" PRId64 ",\n  \"torch_dtype\": \"%s\"\n}\n",
                s->architecture, s->model_type, s->hidden, s->layers, s->heads, s->kv_heads, s->ffn,
                s->vocab, s->positions, s->eps, s->rope_theta, s->tie ? "true" : "false", s->bos,
                s->eos, pf_dtype_info(dtype)->torch_name);
}

/* The letter that stands for a byte in byte-level vocabularies (GPT-2's table). */
static uint32_t letter_of(int byte) {
    int others = 0;
    for (int b = 0; b <= byte; b++) {
        bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte) return itself ? (uint32_t)b : 256u + (uint32_t)others;
        others += !itself;
    }
    return 0;
}

static void tokenizer_text(pf_buf *b) {
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    pf_buf_adds(b, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                   "  \"added_tokens\": [\n");
    for (size_t i = 0; i < PF_COUNT(special); i++) {
        pf_buf_addf(b,
                    "    {\"id\": %zu, \"content\": \"%s\", \"single_word\": false, \"lstrip\": "
                    "false, \"rstrip\": false, \"normalized\": false, \"special\": true}%s\n",
                    i, special[i], i + 1 < PF_COUNT(special) ? "," : "");
    }
    pf_buf_adds(b, "  ],\n  \"normalizer\": null,\n"
                   "  \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                   "\"trim_offsets\": true, \"use_regex\": true},\n"
                   "  \"post_processor\": null,\n"
                   "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                   "\"trim_offsets\": true, \"use_regex\": true},\n"
                   "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                   "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                   "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
                   "    \"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2");
    for (int byte = 0; byte < 256; byte++) {
        char letter[4];
        int n = pf_utf8_encode(letter_of(byte), letter);
        bool escaped = byte == '"' || byte == '\\';
        pf_buf_addf(b, ", \"%s%.*s\": %d", escaped ? "\\" : "", n, letter, 3 + byte);
    }
    pf_buf_adds(b, "},\n    \"merges\": []}\n}\n");
}

static peft_status put(const char *dir, const char *name, const pf_buf *text, peft_error *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return pf_write_file(path, pf_buf_str(text), text->len, err);
}

static peft_status write_tokenizer(const request *r, pf_buf *b, peft_error *err) {
    if (r->tokenizer != NULL) return pf_hf_carry(r->tokenizer, r->dir, err);
    tokenizer_text(b);
    PF_TRY(put(r->dir, "tokenizer.json", b, err));
    pf_buf_clear(b);
    pf_buf_adds(b, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                   "  \"bos_token\": \"<s>\",\n  \"eos_token\": \"</s>\",\n"
                   "  \"unk_token\": \"<unk>\",\n  \"clean_up_tokenization_spaces\": false\n}\n");
    return put(r->dir, "tokenizer_config.json", b, err);
}

static peft_status write_weights(const request *r, peft_error *err) {
    weights w = {.r = r};
    pf_arena_init(&w.arena, "model");
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", r->dir);
    peft_status status = list_weights(&w, err);
    if (status == PEFT_OK) {
        status = pf_safetensors_write(path, w.items, w.n, &pf_safetensors_pt, 1, fill, &w, err);
    }
    pf_arena_release(&w.arena);
    return status;
}

static peft_status make(const request *r, peft_error *err) {
    PF_TRY(pf_make_dirs(r->dir, err));
    pf_buf b = {0};
    config_text(&b, &r->shape, r->dtype);
    peft_status status = put(r->dir, "config.json", &b, err);
    pf_buf_clear(&b);
    if (status == PEFT_OK && !r->config_only) status = write_tokenizer(r, &b, err);
    if (status == PEFT_OK && !r->config_only) status = write_weights(r, err);
    pf_buf_free(&b);
    return status;
}

int main(int argc, char **argv) {
    request r = {.shape = shapes[0], .seed = 1, .dtype = dtype_of("f32")};
    peft_error err = {0};
    peft_status status = read_args(&r, argc, argv, &err);
    if (status == PEFT_OK) status = make(&r, &err);
    if (status != PEFT_OK) fprintf(stderr, "%s\n", err.message);
    return peft_status_exit_code(status);
}

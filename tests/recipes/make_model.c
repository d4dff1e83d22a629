/* make_model.c - writes a small Llama folder with random weights, for the tests that drive the
 * program from outside.
 *
 *   make_model DIR [hidden=32 layers=2 heads=4 kv_heads=2 ffn=48 vocab=264 positions=256 tie=1
 *                   dtype=F32 seed=1]
 *
 * The tokenizer is byte-level BPE without merges: 0 <unk>, 1 <s>, 2 </s>, then one token per byte;
 * it has no padding token. The same arguments give the same bytes. `vocab` may be larger than the
 * tokenizer's, as it is in real models. */
#include "base/file.h"
#include "base/rng.h"
#include "formats/safetensors_write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 3 + 256 };

typedef struct shape {
    int64_t hidden, layers, heads, kv_heads, ffn, vocab, positions, tie, seed;
    const char *dtype;
} shape;

static peft_status read_args(shape *s, int argc, char **argv, peft_error *err) {
    const struct {
        const char *name;
        int64_t *at;
    } numbers[] = {{"hidden", &s->hidden},       {"layers", &s->layers}, {"heads", &s->heads},
                   {"kv_heads", &s->kv_heads},   {"ffn", &s->ffn},       {"vocab", &s->vocab},
                   {"positions", &s->positions}, {"tie", &s->tie},       {"seed", &s->seed}};
    for (int i = 2; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        bool known = false;
        for (size_t k = 0; equals != NULL && k < PF_COUNT(numbers); k++) {
            size_t n = (size_t)(equals - argv[i]);
            if (strncmp(argv[i], numbers[k].name, n) != 0 || numbers[k].name[n] != '\0') continue;
            known = pf_parse_int(equals + 1, numbers[k].at) && *numbers[k].at >= 0;
        }
        if (pf_starts_with(argv[i], "dtype=")) {
            s->dtype = equals + 1;
            known = pf_dtype_writable(pf_dtype_by_name(s->dtype, strlen(s->dtype)));
        }
        if (!known) return PF_FAIL(err, PEFT_E_USAGE, "make_model: what is '%s'?", argv[i]);
    }
    if (s->vocab < TOKENS || s->heads < 1 || s->kv_heads < 1 || s->hidden % s->heads != 0)
        return PF_FAIL(err, PEFT_E_USAGE, "make_model: these sizes do not fit together");
    return PEFT_OK;
}

/* ---- weights */

typedef struct weights {
    pf_arena arena;
    pf_stored_tensor *items;
    int n;
    pf_dtype dtype;
    uint64_t seed;
} weights;

static peft_status add(weights *w, const char *name, int n_dims, int64_t rows, int64_t cols,
                       peft_error *err) {
    const int64_t dims[2] = {rows, cols};
    return pf_stored_tensor_set(&w->items[w->n++], name, w->dtype, n_dims, dims, NULL, err);
}

static peft_status list_weights(weights *w, const shape *s, peft_error *err) {
    const int64_t C = s->hidden, D = C / s->heads, KV = s->kv_heads * D, F = s->ffn;
    w->items = PF_NEW_ARRAY(&w->arena, pf_stored_tensor, 9 * s->layers + 3);
    PF_CHECK_ALLOC(w->items, err);
    PF_TRY(add(w, "model.embed_tokens.weight", 2, s->vocab, C, err));
    PF_TRY(add(w, "model.norm.weight", 1, C, 0, err));
    if (!s->tie) PF_TRY(add(w, "lm_head.weight", 2, s->vocab, C, err));
    const struct {
        const char *name;
        int64_t rows, cols; /* cols 0: a vector */
    } parts[] = {{"input_layernorm", C, 0},   {"post_attention_layernorm", C, 0},
                 {"self_attn.q_proj", C, C},  {"self_attn.k_proj", KV, C},
                 {"self_attn.v_proj", KV, C}, {"self_attn.o_proj", C, C},
                 {"mlp.gate_proj", F, C},     {"mlp.up_proj", F, C},
                 {"mlp.down_proj", C, F}};
    for (int64_t l = 0; l < s->layers; l++) {
        for (size_t i = 0; i < PF_COUNT(parts); i++) {
            const char *name =
                pf_arena_printf(&w->arena, "model.layers.%" PRId64 ".%s.weight", l, parts[i].name);
            PF_CHECK_ALLOC(name, err);
            PF_TRY(add(w, name, parts[i].cols > 0 ? 2 : 1, parts[i].rows, parts[i].cols, err));
        }
    }
    return PEFT_OK;
}

/* Matrices are uniform with the deviation 1/sqrt(columns), so that activations keep their size;
 * norms are ones. */
static peft_status fill(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    const weights *w = ctx;
    const pf_rng_key key = pf_rng_make_key(w->seed, PF_RNG_DATA, (uint64_t)index);
    const float reach = t->n_dims == 2 ? (float)sqrt(3.0 / (double)t->shape[1]) : 0;
    float block[4096];
    const int64_t n = pf_stored_tensor_count(t);
    for (int64_t at = 0; at < n; at += (int64_t)PF_COUNT(block)) {
        size_t part = PF_COUNT(block);
        if ((int64_t)part > n - at) part = (size_t)(n - at);
        for (size_t i = 0; i < part; i += 4) {
            const uint64_t c = ((uint64_t)at + i) / 4;
            const pf_rng4 r = pf_philox(key, (uint32_t)c, (uint32_t)(c >> 32), 0, 0);
            for (size_t k = 0; k < 4; k++)
                block[i + k] = t->n_dims == 1 ? 1 : reach * (2 * pf_rng_unit(r.v[k]) - 1);
        }
        PF_TRY(pf_tensor_sink_add_f32(sink, block, part, err));
    }
    return PEFT_OK;
}

/* ---- config and tokenizer */

static void config_text(pf_buf *b, const shape *s) {
    const char *dtype = pf_dtype_info(pf_dtype_by_name(s->dtype, strlen(s->dtype)))->torch_name;
    pf_buf_addf(b,
                "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\",\n"
                "  \"hidden_size\": %" PRId64 ",\n  \"num_hidden_layers\": %" PRId64 ",\n"
                "  \"num_attention_heads\": %" PRId64 ",\n  \"num_key_value_heads\": %" PRId64 ",\n"
                "  \"intermediate_size\": %" PRId64 ",\n  \"vocab_size\": %" PRId64 ",\n"
                "  \"max_position_embeddings\": %" PRId64 ",\n"
                "  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": 1e-05,\n"
                "  \"rope_theta\": 10000.0,\n"
                "  \"tie_word_embeddings\": %s,\n  \"bos_token_id\": 1,\n"
                "  \"eos_token_id\": 2,\n  \"torch_dtype\": \"%s\"\n}\n",
                s->hidden, s->layers, s->heads, s->kv_heads, s->ffn, s->vocab, s->positions,
                s->tie ? "true" : "false", dtype);
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

static peft_status make(const char *dir, const shape *s, peft_error *err) {
    PF_TRY(pf_make_dirs(dir, err));
    weights w = {.dtype = pf_dtype_by_name(s->dtype, strlen(s->dtype)), .seed = (uint64_t)s->seed};
    pf_arena_init(&w.arena, "model");
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    peft_status status = list_weights(&w, s, err);
    if (status == PEFT_OK) {
        status = pf_safetensors_write(path, w.items, w.n, &pf_safetensors_pt, 1, fill, &w, err);
    }
    pf_arena_release(&w.arena);
    PF_TRY(status);
    pf_buf b = {0};
    config_text(&b, s);
    status = put(dir, "config.json", &b, err);
    pf_buf_clear(&b);
    tokenizer_text(&b);
    if (status == PEFT_OK) status = put(dir, "tokenizer.json", &b, err);
    pf_buf_clear(&b);
    pf_buf_adds(&b, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n"
                    "  \"bos_token\": \"<s>\",\n  \"eos_token\": \"</s>\",\n"
                    "  \"unk_token\": \"<unk>\",\n  \"clean_up_tokenization_spaces\": false\n}\n");
    if (status == PEFT_OK) status = put(dir, "tokenizer_config.json", &b, err);
    pf_buf_free(&b);
    return status;
}

int main(int argc, char **argv) {
    shape s = {.hidden = 32,
               .layers = 2,
               .heads = 4,
               .kv_heads = 2,
               .ffn = 48,
               .vocab = 264,
               .positions = 256,
               .tie = 1,
               .seed = 1,
               .dtype = "F32"};
    peft_error err = {0};
    peft_status status = argc < 2 ? PF_FAIL(&err, PEFT_E_USAGE, "make_model: name a folder")
                                  : read_args(&s, argc, argv, &err);
    if (status == PEFT_OK) status = make(argv[1], &s, &err);
    if (status != PEFT_OK) fprintf(stderr, "%s\n", err.message);
    return peft_status_exit_code(status);
}

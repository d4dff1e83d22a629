/* tiktoken_model.c - the source tiktoken: one line per token, base64 of its bytes, a space, its
 * rank, which is its id.
 *
 * Merges are not in the file: two tokens merge if their bytes together are a token, and rank as
 * that token does; the splits of one token go by the ranks of their parts (the recipe of Hugging
 * Face's TikTokenConverter). Neither are the pattern and the special tokens: tokenizer_config.json
 * names the latter, and for vocabularies of a known size a table here knows both. */
#include "base/mem.h"
#include "token/tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

typedef struct family {
    int32_t n; /* ranks in the file */
    const char *pattern;
    bool nfc, bos;
    const char *const *specials; /* in order of id, from n on */
    int n_named, n_total;        /* the rest is <|reserved_special_token_N|> */
} family;

/* As Meta's tokenizer.py lays them out; N of the reserved ones counts on across the named ones. */
static const char *const llama3_specials[] = {"<|begin_of_text|>",
                                              "<|end_of_text|>",
                                              "<|reserved_special_token_0|>",
                                              "<|reserved_special_token_1|>",
                                              "<|reserved_special_token_2|>",
                                              "<|reserved_special_token_3|>",
                                              "<|start_header_id|>",
                                              "<|end_header_id|>",
                                              "<|reserved_special_token_4|>",
                                              "<|eot_id|>"};
static const char *const qwen_specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

static const family families[] = {
    {128000, pf_llama3_pattern, false, true, llama3_specials, (int)PF_COUNT(llama3_specials), 256},
    {151643, pf_qwen_pattern, true, false, qwen_specials, (int)PF_COUNT(qwen_specials),
     (int)PF_COUNT(qwen_specials)},
};
static const family any_other = {0, pf_llama3_pattern, false, true, NULL, 0, 0};

static const family *find_family(int32_t n) {
    for (size_t i = 0; i < PF_COUNT(families); i++)
        if (families[i].n == n) return &families[i];
    return &any_other;
}

static int digit(char c) {
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

enum { TOKEN_MAX = 1024 };

/* One line: its token into out (TOKEN_MAX bytes), false if it is not of the form. */
static bool read_line(const char *p, size_t n, char *out, size_t *out_n, int64_t *rank) {
    size_t i = 0, len = 0;
    uint32_t bits = 0;
    int have = 0;
    for (; i < n && p[i] != ' ' && p[i] != '='; i++) {
        int d = digit(p[i]);
        if (d < 0 || len == TOKEN_MAX) return false;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[len++] = (char)(bits >> have);
        }
    }
    while (i < n && p[i] == '=') i++;
    if (i == n || p[i] != ' ' || len == 0 || n - i - 1 == 0 || n - i - 1 > 9) return false;
    *rank = 0;
    for (i++; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return false;
        *rank = *rank * 10 + (p[i] - '0');
    }
    *out_n = len;
    return true;
}

static peft_status read_ranks(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    size_t line = 0;
    for (size_t at = 0; at < in->n;) {
        const char *end = memchr(in->data + at, '\n', in->n - at);
        size_t n = end == NULL ? in->n - at : (size_t)(end - in->data) - at, token_n;
        const char *p = in->data + at;
        char token[TOKEN_MAX];
        int64_t rank;
        at += n + 1;
        line++;
        if (n > 0 && p[n - 1] == '\r') n--;
        if (n == 0) continue;
        if (!read_line(p, n, token, &token_n, &rank))
            return PF_FAIL(err, PEFT_E_FORMAT,
                           "%s:%zu: expected base64 of up to %d bytes, a space, and a rank",
                           in->file, line, TOKEN_MAX);
        if (pf_vocab_find(&t->vocab, token, token_n) >= 0)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s:%zu: this token was there before", in->file,
                           line);
        PF_TRY(pf_vocab_add_bytes(&t->vocab, token, token_n, rank, err));
    }
    peft_status status = pf_vocab_finish(&t->vocab, err);
    return status == PEFT_OK ? PEFT_OK : pf_fail_prefix(err, status, "%s", in->file);
}

typedef struct split {
    int32_t left, right;
    uint32_t at; /* bytes of the left part */
} split;

static int by_parts(const void *a, const void *b) {
    const split *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return x->right < y->right ? -1 : x->right > y->right;
}

static size_t splits_of(const pf_vocab *v, pf_str s, split out[TOKEN_MAX]) {
    size_t n = 0;
    for (size_t i = 1; i < s.n; i++) {
        int32_t a = pf_vocab_find(v, s.p, i), b = a < 0 ? -1 : pf_vocab_find(v, s.p + i, s.n - i);
        if (a >= 0 && b >= 0) out[n++] = (split){a, b, (uint32_t)i};
    }
    qsort(out, n, sizeof *out, by_parts);
    return n;
}

static peft_status make_merges(pf_tokenizer *t, peft_error *err) {
    split splits[TOKEN_MAX],
        *all = NULL; /* all: of every token in turn, each list with a mark behind it */
    uint32_t n_all = 0, cap = 0, rank = 0;
    peft_status status = PEFT_OK;
    for (int32_t id = 0; id < t->vocab.n_ids; id++) {
        pf_str s = pf_vocab_text(&t->vocab, id);
        size_t n = s.n > 1 ? splits_of(&t->vocab, s, splits) : 0;
        if (n_all + n + 1 > cap) {
            split *grown = pf_token_grown(all, &cap, n_all + n + 1, sizeof *all);
            if (grown == NULL) {
                status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory for merges");
                goto out;
            }
            all = grown;
        }
        memcpy(all + n_all, splits, n * sizeof *all);
        n_all += (uint32_t)n;
        all[n_all++] = (split){-1, -1, 0};
    }
    PF_TRY_OUT(pf_bpe_reserve(&t->bpe, n_all, err));
    for (uint32_t i = 0, id = 0; i < n_all; i++) {
        if (all[i].left < 0)
            id++;
        else
            PF_TRY_OUT(pf_bpe_merge(&t->bpe, rank++, all[i].left, all[i].right, (int32_t)id, err));
    }
out:
    pf_free(all);
    return status;
}

static void add_json_string(pf_buf *b, const char *s) {
    pf_buf_addc(b, '"');
    for (; *s != 0; s++) {
        if (*s == '\\' || *s == '"') pf_buf_addc(b, '\\');
        pf_buf_addc(b, *s);
    }
    pf_buf_addc(b, '"');
}

static peft_status pipelines(pf_tokenizer *t, const family *f, peft_error *err) {
    pf_buf b = {0};
    pf_buf_addf(&b,
                "{\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{"
                "\"type\":\"Split\","
                "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":",
                f->nfc ? "{\"type\":\"NFC\"}" : "null");
    add_json_string(&b, f->pattern);
    pf_buf_adds(&b, "}},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]},"
                    "\"decoder\":{\"type\":\"ByteLevel\"}}");
    peft_status status =
        pf_buf_ok(&b) ? pf_tokenizer_load_pipeline_text(t, pf_buf_str(&b), (pf_str){NULL, 0}, err)
                      : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&b);
    return status;
}

/* Special tokens of a known vocabulary, where no tokenizer_config.json lists them. */
static peft_status known_specials(pf_tokenizer *t, const family *f, peft_error *err) {
    int reserved = 5; /* Llama 3: 0..4 stand among the named ones */
    for (int i = 0; i < f->n_total; i++) {
        char name[64];
        if (i < f->n_named)
            snprintf(name, sizeof name, "%s", f->specials[i]);
        else
            snprintf(name, sizeof name, "<|reserved_special_token_%d|>", reserved++);
        pf_added_token token = {.content = pf_str_of(name), .special = true};
        PF_TRY(pf_added_tokens_add(&t->added, &t->arena, &t->vocab, token, f->n + i, true, err));
    }
    return PEFT_OK;
}

static peft_status tiktoken_load(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    pf_vocab_init(&t->vocab, true);
    PF_TRY(read_ranks(t, in, err));
    const family *f = find_family(t->vocab.n_ids);
    PF_TRY(pipelines(t, f, err));
    t->model = pf_token_model_find("BPE");
    pf_bpe_init(&t->bpe, &t->vocab);
    t->bpe.ignore_merges = true;
    PF_TRY(make_merges(t, err));
    PF_TRY(pf_bpe_finish(&t->bpe, err));
    pf_added_tokens_begin(&t->added, &t->vocab);
    bool listed = pf_tj_get(in->config->config, "added_tokens_decoder").v != NULL;
    if (!listed) PF_TRY(known_specials(t, f, err));
    if (!listed && f->n_named > 1) {
        t->special.bos = f->bos ? f->n : -1;
        t->special.eos = f->bos ? f->n + 1 : f->n;
    }
    if (f->bos)
        t->post.before[t->post.n_before++] =
            PF_POST_BOS; /* as Llama: whichever token that turns out to be */
    return PEFT_OK;
}

static bool tiktoken_probe(const char *data, size_t n) {
    const char *end = memchr(data, '\n', n < 4096 ? n : 4096);
    size_t line = end == NULL ? n : (size_t)(end - data), token_n;
    char token[TOKEN_MAX];
    int64_t rank;
    if (line > 0 && data[line - 1] == '\r') line--;
    return line < 4096 && read_line(data, line, token, &token_n, &rank);
}

static const char *const tiktoken_files[] = {"tokenizer.model", "tiktoken.model", "qwen.tiktoken",
                                             NULL};
const pf_token_source pf_token_source_tiktoken = {"tiktoken", tiktoken_files, tiktoken_probe,
                                                  tiktoken_load};

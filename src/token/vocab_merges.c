/* vocab_merges.c - the source vocab.json with merges.txt: GPT-2's, Qwen's and RoBERTa's older
 * files. Which of these it is says tokenizer_class in tokenizer_config.json; without it, GPT-2. */
#include "base/file.h"
#include "token/json_scan.h"
#include "token/tokenizer_impl.h"

#include <string.h>

#include "base/banned.h"

enum { MERGES_MAX = 256 << 20 };

static const char gpt2[] = "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":%s},"
                           "\"decoder\":{\"type\":\"ByteLevel\"}}";
static const char qwen[] =
    "{\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":"
    "[{\"type\":\"Split\","
    "\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^"
    "\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
    "\\\\p{N}| "
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"use_regex\":false}]},\"decoder\":{\"type\":"
    "\"ByteLevel\"}}";

/* RoBERTa puts <s> and </s> around every text. */
static peft_status roberta_ends(pf_tokenizer *t, const char *file, peft_error *err) {
    int32_t cls = pf_vocab_id(&t->vocab, "<s>", 3), sep = pf_vocab_id(&t->vocab, "</s>", 4);
    if (cls < 0 || sep < 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: a RoBERTa vocabulary without <s> or </s>", file);
    t->post.before[t->post.n_before++] = cls;
    t->post.after[t->post.n_after++] = sep;
    t->post.pair[0][t->post.n_pair[0]++] = cls;
    for (int i = 0; i < 2; i++) t->post.pair[1][t->post.n_pair[1]++] = sep;
    t->post.pair[2][t->post.n_pair[2]++] = sep;
    return PEFT_OK;
}

static peft_status vocab_merges_load(pf_tokenizer *t, const pf_token_input *in, peft_error *err) {
    const pf_token_config *c = in->config;
    bool is_qwen =
        pf_starts_with(c->tokenizer_class, "Qwen2") || pf_starts_with(c->tokenizer_class, "Qwen3");
    bool is_roberta = strcmp(c->tokenizer_class, "RobertaTokenizer") == 0 ||
                      strcmp(c->tokenizer_class, "LongformerTokenizer") == 0 ||
                      strcmp(c->tokenizer_class, "BartTokenizer") == 0;
    if (in->folder == NULL)
        return PF_FAIL(err, PEFT_E_MISSING, "%s: merges.txt should stand beside it", in->file);
    const char *steps = pf_arena_printf(&t->arena, is_qwen ? qwen : gpt2,
                                        c->add_prefix_space == 1 ? "true" : "false");
    const char *path = pf_path_join(&t->arena, in->folder, "merges.txt");
    if (steps == NULL || path == NULL) return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    PF_TRY(pf_tokenizer_load_pipeline_text(t, steps, (pf_str){NULL, 0}, err));
    pf_vocab_init(&t->vocab, true);
    t->model = pf_token_model_find("BPE");
    pf_bpe_init(&t->bpe, &t->vocab);
    PF_TRY(pf_load_vocab_object(t, (pf_str){in->data, in->n}, in->data, in->file, err));
    pf_buf merges = {0};
    peft_status status = pf_read_file(&merges, path, MERGES_MAX, err);
    if (status == PEFT_OK) {
        pf_sha256_add(in->hash, merges.data, merges.len);
        status = pf_load_merges_text(t, pf_buf_str(&merges), merges.len, path, err);
    }
    pf_buf_free(&merges);
    PF_TRY(status);
    PF_TRY(pf_bpe_finish(&t->bpe, err));
    pf_added_tokens_begin(&t->added, &t->vocab);
    return is_roberta ? roberta_ends(t, in->file, err) : PEFT_OK;
}

static bool vocab_merges_probe(const char *data, size_t n) {
    pf_json_scan s;
    pf_str token;
    int64_t id;
    pf_json_scan_init(&s, (pf_str){data, n}, data, "");
    bool ok = pf_json_scan_take(&s, '{') && pf_json_scan_string(&s, &token, NULL) == PEFT_OK &&
              pf_json_scan_take(&s, ':') && pf_json_scan_int(&s, &id, NULL) == PEFT_OK;
    pf_json_scan_release(&s);
    return ok;
}

static const char *const vocab_merges_files[] = {"vocab.json", NULL};
const pf_token_source pf_token_source_vocab_merges = {
    "vocab.json with merges.txt", vocab_merges_files, vocab_merges_probe, vocab_merges_load};

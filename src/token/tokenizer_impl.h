/* tokenizer_impl.h - what is inside a pf_tokenizer; for the files of token/ only.
 *
 * Reading one goes in three steps: a source (one row of tokenizers.def per file format) fills
 * vocabulary, model and the four pipelines; tokenizer_config.c adds what the files beside it say;
 * pf_tokenizer_finish makes the tables. */
#ifndef PF_TOKENIZER_IMPL_H
#define PF_TOKENIZER_IMPL_H

#include "token/added_tokens.h"
#include "token/bpe.h"
#include "token/decoder.h"
#include "token/normalizer.h"
#include "token/postprocessor.h"
#include "token/pretokenizer.h"
#include "token/tokenizer.h"
#include "token/unigram.h"
#include "token/wordpiece.h"

#include <pthread.h>

typedef struct pf_encode_scratch { /* everything one call of encode or decode works in; kept for the
                                      next call */
    struct pf_encode_scratch *next;
    pf_ntext text, piece, normal, spare[2];
    pf_cutting cutting;
    pf_pieces pieces;
    pf_model_scratch model;
    pf_tokens tokens;
    pf_strings strings[2];
} pf_encode_scratch;

typedef struct pf_token_model_kind {
    const char *name; /* "type" of the model in tokenizer.json */
    /* vocab and merges as cut out of the file (json_scan.h); json is the rest of the member
     * "model". */
    peft_status (*load)(pf_tokenizer *t, pf_tj json, pf_str vocab, pf_str merges, const char *text,
                        peft_error *err);
    peft_status (*encode)(const pf_tokenizer *t, pf_model_scratch *s, const char *p, uint32_t n,
                          pf_tokens *out, peft_error *err);
} pf_token_model_kind;

struct pf_tokenizer {
    pf_arena arena;
    const char *source; /* path or name of the main file */
    char fingerprint[PF_SHA256_HEX];
    const pf_token_model_kind *model;
    pf_vocab vocab;
    pf_bpe bpe;
    pf_unigram unigram;
    pf_wordpiece wordpiece;
    pf_normalizers normalizers;
    pf_pretokenizers pretokenizers;
    pf_postprocessor post;
    pf_decoders decoders;
    pf_added_tokens added;
    pf_special_ids special;
    const char *chat_template;
    int64_t max_length;
    pthread_mutex_t lock; /* of the list below */
    pf_encode_scratch *idle;
};

/* The files beside the main one. */
typedef struct pf_token_config {
    pf_tj config, map, added; /* tokenizer_config.json, special_tokens_map.json, added_tokens.json;
                                 v is NULL if absent */
    const char *tokenizer_class;                    /* "" if unknown; without the ending Fast */
    int legacy, add_bos, add_eos, add_prefix_space; /* -1: not said */
    json_t *documents[3];                           /* owned */
} pf_token_config;

typedef struct pf_token_input { /* the main file and what goes with it */
    const char *data;
    size_t n;
    const char *file;   /* its name, for messages */
    const char *folder; /* NULL: only the bytes are known */
    const pf_token_config *config;
    pf_sha256 *hash; /* every file read is added */
} pf_token_input;

typedef struct pf_token_source {
    const char *name;
    const char *const *files; /* names it has in a folder, the likeliest first; NULL ends */
    bool (*probe)(const char *data, size_t n);
    peft_status (*load)(pf_tokenizer *t, const pf_token_input *in, peft_error *err);
} pf_token_source;

void pf_encode_scratch_free(pf_encode_scratch *s); /* tokenizer.c */

/* ---- tokenizer_table.c ---- */
const pf_token_model_kind *pf_token_model_find(const char *name);
extern const pf_token_source *const pf_token_sources[];
extern const int pf_token_n_sources;

/* ---- tokenizer_json.c ---- */
/* The four pipelines from one JSON object with the members of a tokenizer.json. */
peft_status pf_tokenizer_load_pipelines(pf_tokenizer *t, pf_tj root, pf_str charsmap,
                                        peft_error *err);
/* The same from a text that the program itself wrote. */
peft_status pf_tokenizer_load_pipeline_text(pf_tokenizer *t, const char *json, pf_str charsmap,
                                            peft_error *err);
peft_status pf_added_token_parse(pf_tj json, pf_added_token *out,
                                 peft_error *err); /* {"content": ...} or a string */

/* ---- bpe_load.c ---- */
peft_status pf_load_vocab_object(pf_tokenizer *t, pf_str value, const char *text, const char *file,
                                 peft_error *err);
peft_status pf_load_merges_text(pf_tokenizer *t, const char *text, size_t n, const char *file,
                                peft_error *err);
/* The merge of two tokens as the model sees them. */
peft_status pf_load_merge(pf_tokenizer *t, uint32_t rank, pf_str left, pf_str right,
                          const char *file, peft_error *err);

/* ---- tokenizer_config.c ---- */
peft_status pf_token_config_load(pf_token_config *c, pf_arena *a, const char *folder,
                                 pf_sha256 *hash, peft_error *err);
void pf_token_config_release(pf_token_config *c);
/* Added tokens, special ids, chat template; bos and eos around the text where the config says so.
 */
peft_status pf_token_config_apply(pf_tokenizer *t, const pf_token_config *c, bool described,
                                  peft_error *err);
/* The content of bos_token and its like, p NULL if the files do not name one. */
peft_status pf_token_config_named(const pf_token_config *c, const char *key, pf_added_token *out,
                                  peft_error *err);

#endif

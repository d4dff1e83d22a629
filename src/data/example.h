/* example.h - a rendered row -> token ids, and where in them the target begins.
 *
 * The whole text is tokenized once; a token belongs to the target when its first byte lies at or
 * after the boundary between prompt and target. Where a token would straddle the boundary, the text
 * is split there: the prompt is tokenized alone and the target as its continuation, because
 * generation will start from exactly the prompt's tokens. What is learned goes by position; no
 * token is told apart by its id.
 *
 * For a model with an encoder the two are texts of their own, each tokenized as the tokenizer does
 * it, with the end of the sequence behind the prompt too: the prompt's tokens are the source, and
 * those of the decoder are its start and the target's. */
#ifndef PF_EXAMPLE_H
#define PF_EXAMPLE_H

#include "token/tokenizer.h"

typedef enum pf_add_bos { PF_BOS_AUTO, PF_BOS_NEVER, PF_BOS_ALWAYS } pf_add_bos;

typedef struct pf_encode_options {
    const pf_tokenizer *tokenizer;
    pf_add_bos add_bos; /* AUTO: as the tokenizer does */
    bool add_eos;       /* the end of the sequence is learned, too */
    bool encoder_decoder;
    int32_t decoder_start; /* what a decoder's tokens begin with */
} pf_encode_options;

typedef struct pf_encoded {
    int32_t n_tokens, n_prompt;
    int32_t n_source; /* leading tokens that are the encoder's; the decoder's start comes next */
    bool split;       /* at the boundary */
} pf_encoded;

/* Appends the ids (int32_t) of a text whose first n_prompt bytes are the prompt. Scratch: zeroed or
 * used. */
peft_status pf_example_encode(const pf_encode_options *opt, const char *text, size_t n,
                              size_t n_prompt, pf_encoding *scratch, pf_buf *ids, pf_encoded *out,
                              peft_error *err);
/* The tokens that generation starts from when there is only a prompt. */
peft_status pf_prompt_encode(const pf_encode_options *opt, const char *prompt, size_t n,
                             pf_encoding *scratch, pf_buf *ids, peft_error *err);

#endif

/* tokenizer_table.c - the rows of tokenizers.def as tables. Nothing else enumerates kinds. */
#include "token/tokenizer_impl.h"

#include <string.h>

#define PF_NORMALIZER(name)    extern const pf_normalizer_kind pf_normalizer_##name;
#define PF_PRETOKENIZER(name)  extern const pf_pretokenizer_kind pf_pretokenizer_##name;
#define PF_POSTPROCESSOR(name) extern const pf_postprocessor_kind pf_postprocessor_##name;
#define PF_DECODER(name)       extern const pf_decoder_kind pf_decoder_##name;
#define PF_TOKEN_MODEL(name)   extern const pf_token_model_kind pf_token_model_##name;
#define PF_TOKEN_SOURCE(name)  extern const pf_token_source pf_token_source_##name;
#include "token/tokenizers.def"
#undef PF_NORMALIZER
#undef PF_PRETOKENIZER
#undef PF_POSTPROCESSOR
#undef PF_DECODER
#undef PF_TOKEN_MODEL
#undef PF_TOKEN_SOURCE

#define PF_NORMALIZER(name) &pf_normalizer_##name,
#define PF_PRETOKENIZER(name)
#define PF_POSTPROCESSOR(name)
#define PF_DECODER(name)
#define PF_TOKEN_MODEL(name)
#define PF_TOKEN_SOURCE(name)
static const pf_normalizer_kind *const normalizers[] = {
#include "token/tokenizers.def"
};
#undef PF_NORMALIZER
#undef PF_PRETOKENIZER
#define PF_NORMALIZER(name)
#define PF_PRETOKENIZER(name) &pf_pretokenizer_##name,
static const pf_pretokenizer_kind *const pretokenizers[] = {
#include "token/tokenizers.def"
};
#undef PF_PRETOKENIZER
#undef PF_POSTPROCESSOR
#define PF_PRETOKENIZER(name)
#define PF_POSTPROCESSOR(name) &pf_postprocessor_##name,
static const pf_postprocessor_kind *const postprocessors[] = {
#include "token/tokenizers.def"
};
#undef PF_POSTPROCESSOR
#undef PF_DECODER
#define PF_POSTPROCESSOR(name)
#define PF_DECODER(name) &pf_decoder_##name,
static const pf_decoder_kind *const decoders[] = {
#include "token/tokenizers.def"
};
#undef PF_DECODER
#undef PF_TOKEN_MODEL
#define PF_DECODER(name)
#define PF_TOKEN_MODEL(name) &pf_token_model_##name,
static const pf_token_model_kind *const models[] = {
#include "token/tokenizers.def"
};
#undef PF_TOKEN_MODEL
#undef PF_TOKEN_SOURCE
#define PF_TOKEN_MODEL(name)
#define PF_TOKEN_SOURCE(name) &pf_token_source_##name,
const pf_token_source *const pf_token_sources[] = {
#include "token/tokenizers.def"
};
const int pf_token_n_sources = (int)PF_COUNT(pf_token_sources);

#define FIND(table)                                                                                \
    for (size_t i = 0; i < PF_COUNT(table); i++)                                                   \
        if (strcmp((table)[i]->name, name) == 0) return (table)[i];                                \
    return NULL

const pf_normalizer_kind *pf_normalizer_find(const char *name) {
    FIND(normalizers);
}
const pf_pretokenizer_kind *pf_pretokenizer_find(const char *name) {
    FIND(pretokenizers);
}
const pf_postprocessor_kind *pf_postprocessor_find(const char *name) {
    FIND(postprocessors);
}
const pf_decoder_kind *pf_decoder_find(const char *name) {
    FIND(decoders);
}
const pf_token_model_kind *pf_token_model_find(const char *name) {
    FIND(models);
}

/* charsmap.h - the replacement table inside a SentencePiece model (precompiled_charsmap).
 *
 * A 32-bit count of bytes, a double-array trie (Darts) of little-endian 32-bit units, and the
 * replacements as strings that end in NUL; the trie's values are places in that last part. Nobody
 * vouches for the bytes: every step is checked. */
#ifndef PF_CHARSMAP_H
#define PF_CHARSMAP_H

#include "base/status.h"
#include "base/str.h"
#include "token/ntext.h"

typedef struct pf_charsmap {
    const unsigned char *units; /* borrowed for the life of the map */
    size_t n_units;
    const char *strings;
    size_t strings_n;
} pf_charsmap;

peft_status pf_charsmap_init(pf_charsmap *m, const unsigned char *data, size_t n, peft_error *err);
/* The replacement for the shortest prefix of [p, p+n) that has one; false: none has. */
bool pf_charsmap_find(const pf_charsmap *m, const char *p, size_t n, pf_str *out);
/* Normalizer Precompiled: grapheme by grapheme if shorter than six bytes, else character by
 * character. */
peft_status pf_charsmap_apply(const pf_charsmap *m, const pf_ntext *in, pf_ntext *out,
                              peft_error *err);

#endif

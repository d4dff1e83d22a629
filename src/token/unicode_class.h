/* unicode_class.h - what a code point is: letter, number, white space, ...
 *
 * The table is generated (tools/make_unicode_classes.py) from the behaviour of Hugging Face's
 * `tokenizers`, whose parts follow different versions of Unicode; so the answers here are theirs,
 * flag by flag, and not those of the libraries installed on this machine. Text inside the tokenizer
 * is always valid UTF-8 (tokenizer.h says how that is ensured), so the decoder here does not check.
 */
#ifndef PF_UNICODE_CLASS_H
#define PF_UNICODE_CLASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PF_U_GC = 0x1f, /* general category, an index in pf_uclass_gc_names */
    PF_U_C = 1 << 5,
    PF_U_L = 1 << 6,
    PF_U_M = 1 << 7,
    PF_U_N = 1 << 8,
    PF_U_P = 1 << 9,
    PF_U_S = 1 << 10,
    PF_U_Z = 1 << 11,
    PF_U_SPACE = 1 << 12,     /* White_Space */
    PF_U_NUMERIC = 1 << 13,   /* pre-tokenizer Digits */
    PF_U_WORD = 1 << 14,      /* \w of pre-tokenizer Whitespace and of added tokens */
    PF_U_ONIG_WORD = 1 << 15, /* \w in a pattern */
    PF_U_PUNCT = 1 << 16,     /* pre-tokenizers Punctuation and BertPreTokenizer */
    PF_U_MARK = 1 << 17,      /* normalizer StripAccents */
    PF_U_NORMAL =
        1 << 18, /* known to the normal forms; all others neither decompose, reorder nor compose */
    PF_U_NEW = 1 << 19,          /* category newer than Unicode 14 */
    PF_U_NFC = 1 << 20,          /* NFC changes it, on its own */
    PF_U_BERT_CONTROL = 1 << 21, /* normalizer BertNormalizer drops it: clean_text */
    PF_U_BERT_MARK = 1 << 22     /* ... strip_accents */
};

#define PF_U_GC_COUNT 30
extern const char *const pf_uclass_gc_names[PF_U_GC_COUNT]; /* "Cn" .. "Zs" */

extern const uint32_t pf_uclass_props[];
extern const uint8_t pf_uclass_block[];
extern const uint8_t pf_uclass_of[][256];

static inline uint32_t pf_uclass(uint32_t cp) {
    return pf_uclass_props[pf_uclass_of[pf_uclass_block[cp >> 8]][cp & 255]];
}

/* The code point at p and its length in bytes; p stands at the first byte of a character of valid
 * UTF-8. */
static inline unsigned pf_u8_get(const char *text, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)text;
    if (p[0] < 0x80) {
        *cp = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *cp = (uint32_t)(p[0] & 0x1f) << 6 | (p[1] & 0x3f);
        return 2;
    }
    if (p[0] < 0xf0) {
        *cp = (uint32_t)(p[0] & 0x0f) << 12 | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
        return 3;
    }
    *cp = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3f) << 12 |
          (uint32_t)(p[2] & 0x3f) << 6 | (p[3] & 0x3f);
    return 4;
}

static inline unsigned pf_u8_len(const char *p) {
    unsigned char c = (unsigned char)*p;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static inline bool pf_u8_is_start(char c) {
    return ((unsigned char)c & 0xc0) != 0x80;
}

/* Length in bytes of the longest valid sequence or, when the first byte starts none, of the maximal
 * invalid one that Unicode's "substitution of maximal subparts" replaces by one U+FFFD; *valid says
 * which. n > 0. */
unsigned pf_u8_scan(const char *p, size_t n, bool *valid);

#endif

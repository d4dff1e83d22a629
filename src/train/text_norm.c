/* text_norm.c - see text_norm.h. */
#include "train/text_norm.h"

#include <utf8proc.h>

#define SIGMA       0x3A3u
#define SMALL_SIGMA 0x3C3u
#define FINAL_SIGMA 0x3C2u
#define NOT_UTF8    UINT32_MAX

size_t pf_text_char(pf_str s, uint32_t *cp) {
    int n = pf_utf8_decode(s.p, s.n, cp);
    if (n > 0) return (size_t)n;
    *cp = NOT_UTF8;
    return 1;
}

bool pf_text_is_space(uint32_t cp) {
    if (cp < 0x80) return (cp >= 0x09 && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x20);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

static utf8proc_category_t category(uint32_t cp) {
    return cp == NOT_UTF8 ? UTF8PROC_CATEGORY_CN : utf8proc_category((utf8proc_int32_t)cp);
}

bool pf_text_is_word(uint32_t cp) {
    if (cp == '_') return true;
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return true;
    default:
        return false;
    }
}

/* Unicode's Cased, less what is Case_Ignorable too: those are passed over before anybody asks. */
static bool is_cased(uint32_t cp) {
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
        return true;
    default:
        return cp == 0xAA || cp == 0xBA || (cp >= 0x2160 && cp <= 0x217F) ||
               (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
               (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
    }
}

/* Case_Ignorable: marks, formats, modifiers, and the punctuation that may stand inside a word. */
static bool is_case_ignorable(uint32_t cp) {
    static const uint16_t inside_words[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                            0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                            0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    for (size_t i = 0; i < PF_COUNT(inside_words); i++) {
        if (cp == inside_words[i]) return true;
    }
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return false;
    }
}

pf_str pf_text_strip(pf_str s) {
    uint32_t cp;
    while (s.n > 0) {
        size_t n = pf_text_char(s, &cp);
        if (!pf_text_is_space(cp)) break;
        s.p += n;
        s.n -= n;
    }
    size_t end = 0; /* behind the last character that is no space */
    for (size_t i = 0; i < s.n;) {
        size_t n = pf_text_char((pf_str){s.p + i, s.n - i}, &cp);
        i += n;
        if (!pf_text_is_space(cp)) end = i;
    }
    s.n = end;
    return s;
}

/* Does a sigma at `at` end a word? `before` says whether the last character before it that is not
 * case-ignorable is cased (Unicode 3.13, Final_Sigma). */
static bool ends_word(pf_str s, size_t after,
                      bool before) { /* looks as far as the next sigma at most */
    if (!before) return false;
    while (after < s.n) {
        uint32_t cp;
        after += pf_text_char((pf_str){s.p + after, s.n - after}, &cp);
        if (!is_case_ignorable(cp)) return !is_cased(cp);
    }
    return true;
}

static void add_char(pf_buf *out, uint32_t cp) {
    char bytes[4];
    pf_buf_add(out, bytes, (size_t)pf_utf8_encode(cp, bytes));
}

void pf_text_lower(pf_buf *out, pf_str s) {
    bool before = false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t n = pf_text_char((pf_str){s.p + i, s.n - i}, &cp);
        if (cp == NOT_UTF8) {
            pf_buf_add(out, s.p + i, n);
        } else if (cp < 0x80) {
            pf_buf_addc(out, (char)(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp));
        } else if (cp == 0x130) {
            add_char(out, 'i');
            add_char(out, 0x307);
        } else if (cp == SIGMA) {
            add_char(out, ends_word(s, i + n, before) ? FINAL_SIGMA : SMALL_SIGMA);
        } else {
            add_char(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
        }
        if (!is_case_ignorable(cp)) before = is_cased(cp);
        i += n;
    }
}

bool pf_text_next_word(pf_str *rest, pf_str *word) {
    uint32_t cp;
    while (rest->n > 0) {
        size_t n = pf_text_char(*rest, &cp);
        if (!pf_text_is_space(cp)) break;
        rest->p += n;
        rest->n -= n;
    }
    *word = (pf_str){rest->p, 0};
    while (rest->n > 0) {
        size_t n = pf_text_char(*rest, &cp);
        if (pf_text_is_space(cp)) break;
        rest->p += n;
        rest->n -= n;
        word->n += n;
    }
    return word->n > 0;
}

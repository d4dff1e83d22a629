/* split_pattern.c - GPT-2's and GPT-4's way of cutting text into words, as Llama 3 and Qwen use the
 * latter. */
#include "token/split_pattern.h"

#include "token/unicode_class.h"

#include <stdbool.h>
#include <string.h>

const char pf_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
#define GPT4_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define GPT4_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const char pf_llama3_pattern[] = GPT4_HEAD "\\p{N}{1,3}" GPT4_TAIL;
const char pf_qwen_pattern[] = GPT4_HEAD "\\p{N}" GPT4_TAIL;

typedef enum kind { OTHER, LETTER, NUMBER, SPACE, END } kind;

static kind kind_at(const char *text, uint32_t n, uint32_t at, uint32_t *len) {
    if (at >= n) {
        *len = 0;
        return END;
    }
    uint32_t cp;
    *len = pf_u8_get(text + at, &cp);
    uint32_t c = pf_uclass(cp);
    return c & PF_U_L ? LETTER : c & PF_U_N ? NUMBER : c & PF_U_SPACE ? SPACE : OTHER;
}

/* End of the run of `want` that starts at `at`, of at most `limit` characters. */
static uint32_t run(const char *text, uint32_t n, uint32_t at, kind want, uint32_t limit) {
    uint32_t len;
    while (limit-- > 0 && kind_at(text, n, at, &len) == want) at += len;
    return at;
}

/* \s+(?!\S)|\s+ : white space, but the last one is left to the word that follows it. */
static uint32_t spaces(const char *text, uint32_t n, uint32_t at) {
    uint32_t end = run(text, n, at, SPACE, UINT32_MAX);
    if (end == n) return end;
    uint32_t last = end - 1;
    while (!pf_u8_is_start(text[last])) last--;
    return last > at ? last : end;
}

uint32_t pf_split_gpt2(const char *text, uint32_t n, uint32_t at) {
    const char *p = text + at;
    uint32_t left = n - at, len;
    if (*p == '\'' && left > 1) {
        if (strchr("stmd", p[1]) != NULL && p[1] != 0) return at + 2;
        if (left > 2 && ((p[1] == 'r' && p[2] == 'e') || (p[1] == 'v' && p[2] == 'e') ||
                         (p[1] == 'l' && p[2] == 'l')))
            return at + 3;
    }
    uint32_t word = *p == ' ' ? at + 1 : at;
    kind k = kind_at(text, n, word, &len);
    if (k == LETTER || k == NUMBER || k == OTHER) return run(text, n, word + len, k, UINT32_MAX);
    return spaces(text, n, at);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) : its length, 0 if it is not here. U+017F is an s to a pattern that
 * ignores case. */
static uint32_t contraction(const char *p, uint32_t left) {
    if (*p != '\'' || left < 2) return 0;
    char a = (char)(p[1] | 0x20);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (left > 2) {
        char b = (char)(p[2] | 0x20);
        if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
        if (p[1] == '\xc5' && p[2] == '\xbf') return 3;
    }
    return 0;
}

static uint32_t gpt4(const char *text, uint32_t n, uint32_t at, uint32_t max_digits) {
    uint32_t len, next_len, c = contraction(text + at, n - at);
    if (c > 0) return at + c;
    kind k = kind_at(text, n, at, &len);
    char first = text[at];
    bool newline = first == '\n' || first == '\r';
    if (k == LETTER) return run(text, n, at + len, LETTER, UINT32_MAX);
    if (k == NUMBER) return run(text, n, at + len, NUMBER, max_digits - 1);
    if (!newline && kind_at(text, n, at + len, &next_len) == LETTER)
        return run(text, n, at + len + next_len, LETTER, UINT32_MAX);
    uint32_t word = first == ' ' ? at + 1 : at;
    if (kind_at(text, n, word, &len) == OTHER) {
        uint32_t end = run(text, n, word + len, OTHER, UINT32_MAX);
        while (end < n && (text[end] == '\r' || text[end] == '\n')) end++;
        return end;
    }
    /* white space from here on: up to and with its last newline if there is one */
    uint32_t end = run(text, n, at, SPACE, UINT32_MAX);
    for (uint32_t i = end; i > at; i--)
        if (text[i - 1] == '\r' || text[i - 1] == '\n') return i;
    return spaces(text, n, at);
}

static uint32_t llama3(const char *text, uint32_t n, uint32_t at) {
    return gpt4(text, n, at, 3);
}
static uint32_t qwen(const char *text, uint32_t n, uint32_t at) {
    return gpt4(text, n, at, 1);
}

pf_split_fn pf_split_pattern_find(const char *regex, size_t n) {
    static const struct {
        const char *regex;
        pf_split_fn fn;
    } known[] = {
        {pf_gpt2_pattern, pf_split_gpt2},
        {"'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
         pf_split_gpt2},
        {pf_llama3_pattern, llama3},
        {pf_qwen_pattern, qwen},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].regex) == n && memcmp(known[i].regex, regex, n) == 0)
            return known[i].fn;
    return NULL;
}

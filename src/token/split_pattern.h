/* split_pattern.h - the pre-tokenizer patterns that real models use, written by hand.
 *
 * They match at every position, so one function says where the match that begins here ends. They
 * give the same matches as the regular expression they stand for (the tests compare them with
 * PCRE2) in a fraction of the time. Patterns that are not known here go to token_regex.h. */
#ifndef PF_SPLIT_PATTERN_H
#define PF_SPLIT_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* End of the match that starts at byte `at` < n. */
typedef uint32_t (*pf_split_fn)(const char *text, uint32_t n, uint32_t at);

extern const char pf_gpt2_pattern[]; /* what pre-tokenizer ByteLevel splits by */
extern const char pf_llama3_pattern[];
extern const char pf_qwen_pattern[];

pf_split_fn pf_split_pattern_find(const char *regex, size_t n); /* NULL: not a known one */
uint32_t pf_split_gpt2(const char *text, uint32_t n, uint32_t at);

#endif

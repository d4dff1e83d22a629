/* text_norm.h - white space, lower case and words, as Python's str.strip, str.lower and str.split
 * have them, so that scores of generated text can be compared with those of Python tools.
 *
 * White space is what str.isspace says (the separators U+001C..U+001F and U+0085 too, the
 * zero-width space not). Lower case is the full mapping: U+0130 becomes two code points, a capital
 * sigma that ends a word becomes the final one. Everything else is the simple mapping of utf8proc's
 * Unicode version. A byte that is not UTF-8 stands for itself: no space, no letter, copied. */
#ifndef PF_TEXT_NORM_H
#define PF_TEXT_NORM_H

#include "base/buf.h"
#include "base/str.h"

/* One code point at the start of s (s.n > 0): its length in bytes; *cp is UINT32_MAX for a byte
 * that is not UTF-8. */
size_t pf_text_char(pf_str s, uint32_t *cp);
bool pf_text_is_space(uint32_t cp);
bool pf_text_is_word(uint32_t cp); /* a letter, a number or an underscore: \w of Python's re */

pf_str pf_text_strip(pf_str s);
/* Appends; failure is sticky in `out`. */
void pf_text_lower(pf_buf *out, pf_str s);
/* Takes the next word off the front of *rest; false at the end. */
bool pf_text_next_word(pf_str *rest, pf_str *word);

#endif

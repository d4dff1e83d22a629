/* byte_level.h - the 256 characters that stand for bytes in byte-level vocabularies (GPT-2's
 * bytes_to_unicode).
 *
 * Printable bytes stand for themselves, the others for U+0100 onwards: a space is "Ġ". */
#ifndef PF_BYTE_LEVEL_H
#define PF_BYTE_LEVEL_H

#include "base/buf.h"
#include "token/ntext.h"

uint32_t pf_byte_to_char(unsigned char byte);
int pf_char_to_byte(uint32_t cp); /* -1: stands for none */

/* Bytes [begin, end) of `in`, spelt out in `out`. */
peft_status pf_byte_level_apply(const pf_ntext *in, uint32_t begin, uint32_t end, pf_ntext *out,
                                peft_error *err);

/* The bytes that a spelt-out token (valid UTF-8) stands for, into out (room for n); their number,
 * or -1 when some character stands for none. */
int64_t pf_byte_level_bytes(const char *token, size_t n, char *out);
void pf_byte_level_spell(const char *bytes, size_t n, pf_buf *out);

#endif

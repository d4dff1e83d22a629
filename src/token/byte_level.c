/* byte_level.c - byte <-> character, both ways by arithmetic: the map is three identical ranges and
 * the rest in order. */
#include "token/byte_level.h"

#include "base/str.h"
#include "token/unicode_class.h"

uint32_t pf_byte_to_char(unsigned char b) {
    if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae) return b;
    if (b <= 0x20) return 0x100u + b;
    if (b == 0xad) return 0x143;
    return 0x121u + (b - 0x7fu); /* 0x7f .. 0xa0 */
}

int pf_char_to_byte(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120) return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142) return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

peft_status pf_byte_level_apply(const pf_ntext *in, uint32_t begin, uint32_t end, pf_ntext *out,
                                peft_error *err) {
    for (uint32_t i = begin; i < end; i++) {
        uint32_t from, to;
        char utf8[4];
        pf_ntext_range(in, i, i + 1, &from, &to);
        int n = pf_utf8_encode(pf_byte_to_char((unsigned char)in->text[i]), utf8);
        PF_TRY(pf_ntext_add(out, utf8, (uint32_t)n, from, to, err));
    }
    return PEFT_OK;
}

int64_t pf_byte_level_bytes(const char *token, size_t n, char *out) {
    int64_t len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        i += pf_u8_get(token + i, &cp);
        int byte = pf_char_to_byte(cp);
        if (byte < 0) return -1;
        out[len++] = (char)byte;
    }
    return len;
}

void pf_byte_level_spell(const char *bytes, size_t n, pf_buf *out) {
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        pf_buf_add(out, utf8,
                   (size_t)pf_utf8_encode(pf_byte_to_char((unsigned char)bytes[i]), utf8));
    }
}

/* unicode_class.c - names of the general categories and the one place that knows what invalid UTF-8
 * is. */
#include "token/unicode_class.h"

const char *const pf_uclass_gc_names[PF_U_GC_COUNT] = {
    "Cn", "Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl",
    "No", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"};

unsigned pf_u8_scan(const char *text, size_t n, bool *valid) {
    const unsigned char *p = (const unsigned char *)text;
    unsigned need, low = 0x80,
                   high = 0xbf; /* bounds of the second byte: no overlong forms, no surrogates */
    *valid = true;
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        need = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        need = 3;
        if (p[0] == 0xe0) low = 0xa0;
        if (p[0] == 0xed) high = 0x9f;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        need = 4;
        if (p[0] == 0xf0) low = 0x90;
        if (p[0] == 0xf4) high = 0x8f;
    } else {
        *valid = false;
        return 1;
    }
    for (unsigned i = 1; i < need; i++) {
        if (i >= n || p[i] < low || p[i] > high) {
            *valid = false;
            return i;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

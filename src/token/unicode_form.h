/* unicode_form.h - the normal forms NFC, NFD, NFKC and NFKD, with alignment.
 *
 * Decompositions and compositions come from utf8proc, but only for code points that the oracle's
 * tables know (they are Unicode 9's); newer ones pass unchanged, as they do there. Linear in the
 * length of the text, whatever it holds. */
#ifndef PF_UNICODE_FORM_H
#define PF_UNICODE_FORM_H

#include "token/ntext.h"

peft_status pf_unicode_form(const pf_ntext *in, pf_ntext *out, bool compatible, bool compose,
                            peft_error *err);

#endif

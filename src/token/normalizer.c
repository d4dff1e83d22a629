/* normalizer.c - the kinds of normalizers. The heavy ones stand in unicode_form.c and charsmap.c.
 */
#include "token/normalizer.h"

#include "token/byte_level.h"
#include "token/unicode_class.h"
#include "token/unicode_form.h"

#include <string.h>
#include <utf8proc.h>

#include "base/banned.h"

/* ---- Prepend ---- */

static peft_status prepend_parse(pf_normalizer *z, pf_tj json, peft_error *err) {
    return pf_tj_member(json, "prepend", &z->content, err);
}

static peft_status prepend_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out, bool bare,
                               peft_error *err) {
    if (in->n > 0 && !bare) { /* it stands for the same bytes as the first character */
        uint32_t from, to;
        pf_ntext_range(in, 0, 1, &from, &to);
        PF_TRY(pf_ntext_add(out, z->content.p, (uint32_t)z->content.n, from, to, err));
    }
    return pf_ntext_append(out, in, 0, in->n, err);
}

const pf_normalizer_kind pf_normalizer_prepend = {"Prepend", prepend_parse, prepend_run};

/* ---- Replace ---- */

static peft_status replace_parse(pf_normalizer *z, pf_tj json, peft_error *err) {
    PF_TRY(pf_tj_member(json, "content", &z->content, err));
    return pf_regex_from_json(&z->regex, pf_tj_get(json, "pattern"), err);
}

static peft_status replace_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out, bool bare,
                               peft_error *err) {
    (void)bare;
    pf_regex_iter it;
    uint32_t done = 0, begin, end;
    bool found = true;
    peft_status status = PEFT_OK;
    pf_regex_begin(&it, z->regex, in->text, in->n);
    for (;;) {
        PF_TRY_OUT(pf_regex_next(&it, &found, &begin, &end, err));
        if (!found) break;
        PF_TRY_OUT(pf_ntext_append(out, in, done, begin, err));
        uint32_t from, to; /* it stands for what the last replaced character stood for */
        if (end > 0)
            pf_ntext_range(in, end - 1, end, &from, &to);
        else
            pf_ntext_range(in, 0, 0, &from, &to);
        PF_TRY_OUT(pf_ntext_add(out, z->content.p, (uint32_t)z->content.n, from, to, err));
        done = end;
    }
    status = pf_ntext_append(out, in, done, in->n, err);
out:
    pf_regex_end(&it);
    return status;
}

const pf_normalizer_kind pf_normalizer_replace = {"Replace", replace_parse, replace_run};

/* ---- the normal forms ---- */

#define UNICODE_FORM(name, text, compatible, compose)                                              \
    static peft_status name##_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,       \
                                  bool bare, peft_error *err) {                                    \
        (void)z;                                                                                   \
        (void)bare;                                                                                \
        return pf_unicode_form(in, out, compatible, compose, err);                                 \
    }                                                                                              \
    const pf_normalizer_kind pf_normalizer_##name = {text, NULL, name##_run};
UNICODE_FORM(nfc, "NFC", false, true)
UNICODE_FORM(nfd, "NFD", false, false)
UNICODE_FORM(nfkc, "NFKC", true, true)
UNICODE_FORM(nfkd, "NFKD", true, false)

/* ---- Lowercase ---- */

/* Pairs newer than Unicode 15, which is what utf8proc may know: {first, last, distance to the small
 * letter}. */
static const struct {
    uint32_t first, last;
    int32_t distance;
} new_capitals[] = {{0x1c89, 0x1c89, 1},    {0xa7cb, 0xa7cb, 0x264 - 0xa7cb},
                    {0xa7cc, 0xa7cc, 1},    {0xa7ce, 0xa7ce, 1},
                    {0xa7d2, 0xa7d2, 1},    {0xa7d4, 0xa7d4, 1},
                    {0xa7da, 0xa7da, 1},    {0xa7dc, 0xa7dc, 0x19b - 0xa7dc},
                    {0x10d50, 0x10d65, 32}, {0x16ea0, 0x16eb8, 27}};

static uint32_t small_letter(uint32_t cp) {
    if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    for (size_t i = 0; i < PF_COUNT(new_capitals); i++)
        if (cp >= new_capitals[i].first && cp <= new_capitals[i].last)
            return (uint32_t)((int32_t)cp + new_capitals[i].distance);
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

static peft_status lowercase_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                 bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    pf_ncursor c = {in, out, 0};
    while (c.pos < in->n) {
        uint32_t cp;
        pf_u8_get(in->text + c.pos, &cp);
        if (cp == 0x130) { /* the one capital whose small letter is two code points */
            PF_TRY(pf_ncursor_put(&c, 'i', 0, err));
            PF_TRY(pf_ncursor_put(&c, 0x307, 1, err));
        } else {
            PF_TRY(pf_ncursor_put(&c, small_letter(cp), 0, err));
        }
    }
    return PEFT_OK;
}

const pf_normalizer_kind pf_normalizer_lowercase = {"Lowercase", NULL, lowercase_run};

/* ---- kinds that drop or exchange single characters ---- */

static peft_status filter(const pf_ntext *in, pf_ntext *out, bool (*keep)(uint32_t cp),
                          uint32_t (*map)(uint32_t cp), peft_error *err) {
    pf_ncursor c = {in, out, 0};
    while (c.pos < in->n) {
        uint32_t cp;
        pf_u8_get(in->text + c.pos, &cp);
        if (!keep(cp))
            pf_ncursor_skip(&c, 1);
        else
            PF_TRY(pf_ncursor_put(&c, map == NULL ? cp : map(cp), 0, err));
    }
    return PEFT_OK;
}

static bool not_mark(uint32_t cp) {
    return !(pf_uclass(cp) & PF_U_MARK);
}

static peft_status strip_accents_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                     bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    return filter(in, out, not_mark, NULL, err);
}

const pf_normalizer_kind pf_normalizer_strip_accents = {"StripAccents", NULL, strip_accents_run};

static bool nmt_keep(uint32_t cp) {
    return !((cp >= 1 && cp <= 8) || cp == 0xb || (cp >= 0xe && cp <= 0x1f) || cp == 0x7f ||
             cp == 0x8f || cp == 0x9f);
}

static uint32_t nmt_map(uint32_t cp) {
    static const uint32_t blanks[] = {9,      0xa,    0xc,    0xd,    0x1680,
                                      0x2028, 0x2029, 0x2581, 0xfeff, 0xfffd};
    if (cp >= 0x200b && cp <= 0x200f) return ' ';
    for (size_t i = 0; i < PF_COUNT(blanks); i++)
        if (cp == blanks[i]) return ' ';
    return cp;
}

static peft_status nmt_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out, bool bare,
                           peft_error *err) {
    (void)z;
    (void)bare;
    return filter(in, out, nmt_keep, nmt_map, err);
}

const pf_normalizer_kind pf_normalizer_nmt = {"Nmt", NULL, nmt_run};

static peft_status strip_parse(pf_normalizer *z, pf_tj json, peft_error *err) {
    z->left = z->right = true;
    PF_TRY(pf_tj_bool(json, "strip_left", &z->left, err));
    return pf_tj_bool(json, "strip_right", &z->right, err);
}

static peft_status strip_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out, bool bare,
                             peft_error *err) {
    (void)bare;
    uint32_t begin = 0, end = in->n, cp;
    while (z->left && begin < end) {
        unsigned len = pf_u8_get(in->text + begin, &cp);
        if (!(pf_uclass(cp) & PF_U_SPACE)) break;
        begin += len;
    }
    while (z->right && end > begin) {
        uint32_t last = end - 1;
        while (!pf_u8_is_start(in->text[last])) last--;
        pf_u8_get(in->text + last, &cp);
        if (!(pf_uclass(cp) & PF_U_SPACE)) break;
        end = last;
    }
    return pf_ntext_append(out, in, begin, end, err);
}

const pf_normalizer_kind pf_normalizer_strip = {"Strip", strip_parse, strip_run};

/* ---- ByteLevel, Precompiled ---- */

static peft_status byte_level_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                  bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    return pf_byte_level_apply(in, 0, in->n, out, err);
}

const pf_normalizer_kind pf_normalizer_byte_level = {"ByteLevel", NULL, byte_level_run};

static peft_status precompiled_parse(pf_normalizer *z, pf_tj json, peft_error *err) {
    pf_tj map = pf_tj_get(json, "precompiled_charsmap");
    pf_str text;
    if (map.v == NULL) return PEFT_OK; /* given as bytes, see pf_normalizers_load */
    PF_TRY(pf_tj_string(map, &text, err));
    unsigned char *bytes;
    size_t n;
    peft_status status = pf_base64_decode(text.p, text.n, json.arena, &bytes, &n, err);
    if (status == PEFT_OK) status = pf_charsmap_init(&z->charsmap, bytes, n, err);
    return status == PEFT_OK ? PEFT_OK : pf_fail_prefix(err, status, "%s", map.path);
}

static peft_status precompiled_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                   bool bare, peft_error *err) {
    (void)bare;
    return pf_charsmap_apply(&z->charsmap, in, out, err);
}

const pf_normalizer_kind pf_normalizer_precompiled = {"Precompiled", precompiled_parse,
                                                      precompiled_run};

/* ---- BertNormalizer: four steps in this order, each of them optional ---- */

static bool bert_keep(uint32_t cp) {
    return (pf_uclass(cp) & PF_U_BERT_CONTROL) == 0;
}

static uint32_t bert_blank(uint32_t cp) {
    return cp == '\t' || cp == '\n' || cp == '\r' || (pf_uclass(cp) & PF_U_SPACE) != 0 ? ' ' : cp;
}

static peft_status bert_clean_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                  bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    return filter(in, out, bert_keep, bert_blank, err);
}

static bool is_chinese(uint32_t cp) {
    return (cp >= 0x4e00 && cp <= 0x9fff) || (cp >= 0x3400 && cp <= 0x4dbf) ||
           (cp >= 0x20000 && cp <= 0x2a6df) || (cp >= 0x2a700 && cp <= 0x2b81f) ||
           (cp >= 0x2b920 && cp <= 0x2ceaf) || (cp >= 0xf900 && cp <= 0xfaff) ||
           (cp >= 0x2f800 && cp <= 0x2fa1f);
}

/* Blanks around each ideograph: a word of its own. */
static peft_status bert_chinese_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                    bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    pf_ncursor c = {in, out, 0};
    while (c.pos < in->n) {
        uint32_t cp;
        pf_u8_get(in->text + c.pos, &cp);
        if (!is_chinese(cp)) {
            PF_TRY(pf_ncursor_put(&c, cp, 0, err));
            continue;
        }
        PF_TRY(pf_ncursor_put(&c, ' ', 0, err));
        PF_TRY(pf_ncursor_put(&c, cp, 1, err));
        PF_TRY(pf_ncursor_put(&c, ' ', 1, err));
    }
    return PEFT_OK;
}

static bool not_bert_mark(uint32_t cp) {
    return (pf_uclass(cp) & PF_U_BERT_MARK) == 0;
}

static peft_status bert_marks_run(const pf_normalizer *z, const pf_ntext *in, pf_ntext *out,
                                  bool bare, peft_error *err) {
    (void)z;
    (void)bare;
    return filter(in, out, not_bert_mark, NULL, err);
}

static const pf_normalizer_kind bert_clean = {"clean_text", NULL, bert_clean_run},
                                bert_chinese = {"handle_chinese_chars", NULL, bert_chinese_run},
                                bert_marks = {"strip_accents", NULL, bert_marks_run};

const pf_normalizer_kind pf_normalizer_bert = {"BertNormalizer", NULL, NULL};

static peft_status bert_load(pf_normalizers *z, pf_tj json, int max, peft_error *err) {
    bool clean = true, chinese = true, lower = true, accents;
    PF_TRY(pf_tj_bool(json, "clean_text", &clean, err));
    PF_TRY(pf_tj_bool(json, "handle_chinese_chars", &chinese, err));
    PF_TRY(pf_tj_bool(json, "lowercase", &lower, err));
    accents = lower; /* null: as lowercase says */
    PF_TRY(pf_tj_bool(json, "strip_accents", &accents, err));
    const pf_normalizer_kind *const kinds[] = {
        clean ? &bert_clean : NULL, chinese ? &bert_chinese : NULL,
        accents ? &pf_normalizer_nfd : NULL, accents ? &bert_marks : NULL,
        lower ? &pf_normalizer_lowercase : NULL};
    for (size_t i = 0; i < PF_COUNT(kinds); i++) {
        if (kinds[i] == NULL) continue;
        if (z->n == max) return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "too many normalizers", err);
        z->steps[z->n++].kind = kinds[i];
    }
    return PEFT_OK;
}

/* ---- the chain ---- */

enum { MAX_STEPS = 64, MAX_DEPTH = 8 };

static peft_status load(pf_normalizers *z, pf_tj json, pf_str charsmap, int depth,
                        peft_error *err) {
    pf_str type;
    PF_TRY(pf_tj_member(json, "type", &type, err));
    if (strcmp(type.p, "Sequence") == 0) {
        pf_tj parts = pf_tj_get(json, "normalizers");
        if (depth == MAX_DEPTH)
            return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "sequences nest too deep", err);
        for (size_t i = 0; i < pf_tj_count(parts); i++)
            PF_TRY(load(z, pf_tj_at(parts, i), charsmap, depth + 1, err));
        return PEFT_OK;
    }
    const pf_normalizer_kind *kind = pf_normalizer_find(type.p);
    if (kind == NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: normalizer %s is not supported", json.path,
                       type.p);
    if (kind == &pf_normalizer_bert) return bert_load(z, json, MAX_STEPS, err);
    if (z->n == MAX_STEPS)
        return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "more than 64 normalizers", err);
    pf_normalizer *step = &z->steps[z->n++];
    step->kind = kind;
    if (kind->parse != NULL) PF_TRY(kind->parse(step, json, err));
    if (kind == &pf_normalizer_precompiled && step->charsmap.units == NULL) {
        if (charsmap.n == 0)
            return pf_tj_fail(json, PEFT_E_FORMAT, "precompiled_charsmap is missing", err);
        return pf_charsmap_init(&step->charsmap, (const unsigned char *)charsmap.p, charsmap.n,
                                err);
    }
    return PEFT_OK;
}

peft_status pf_normalizers_load(pf_normalizers *z, pf_tj json, pf_str charsmap, peft_error *err) {
    z->n = 0;
    if (json.v == NULL) return PEFT_OK;
    z->steps = PF_NEW_ARRAY(json.arena, pf_normalizer, MAX_STEPS);
    PF_CHECK_ALLOC(z->steps, err);
    return load(z, json, charsmap, 0, err);
}

void pf_normalizers_release(pf_normalizers *z) {
    for (int i = 0; i < z->n; i++) pf_regex_free(z->steps[i].regex);
    z->n = 0;
}

peft_status pf_normalizers_run(const pf_normalizers *z, const pf_ntext *in, pf_ntext scratch[2],
                               bool bare, const pf_ntext **out, peft_error *err) {
    *out = in;
    uint64_t limit = (uint64_t)in->n * 32 +
                     (1u << 20); /* against files that multiply; real ones stay below 18 */
    for (int i = 0; i < 2; i++)
        scratch[i].limit = limit < PF_NTEXT_MAX ? (uint32_t)limit : PF_NTEXT_MAX;
    for (int i = 0; i < z->n; i++) {
        pf_ntext *to = &scratch[i & 1];
        pf_ntext_clear(to);
        PF_TRY(z->steps[i].kind->run(&z->steps[i], *out, to, bare, err));
        *out = to;
    }
    return PEFT_OK;
}

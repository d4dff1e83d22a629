/* pretokenizer.c - the kinds of pre-tokenizers. Patterns written by hand stand in split_pattern.c,
 * others in token_regex.c. */
#include "token/pretokenizer.h"

#include "base/mem.h"
#include "token/byte_level.h"
#include "token/unicode_class.h"

#include <string.h>

#include "base/banned.h"

peft_status pf_pieces_add(pf_pieces *p, uint32_t begin, uint32_t end, int32_t id, peft_error *err) {
    if (begin == end) return PEFT_OK;
    PF_TOKEN_GROW(p->v, p->cap, (size_t)p->n + 1, err);
    p->v[p->n++] = (pf_piece){begin, end, id};
    return PEFT_OK;
}

void pf_cutting_release(pf_cutting *c) {
    if (c == NULL) return;
    pf_ntext_release(&c->scratch[0]);
    pf_ntext_release(&c->scratch[1]);
    pf_free(c->pieces.v);
    pf_free(c->next.v);
    memset(c, 0, sizeof *c);
}

/* ---- cutting one piece: spans that match and spans that do not, in order, become new pieces ----
 */

typedef struct sink {
    pf_pieces *out;
    pf_split_behavior behavior;
    bool invert, held, before; /* a span is held back; the span before was a match */
    uint32_t begin, end;       /* the one held back */
    peft_error *err;
} sink;

static peft_status flush(sink *s) {
    if (!s->held) return PEFT_OK;
    s->held = false;
    return pf_pieces_add(s->out, s->begin, s->end, -1, s->err);
}

static peft_status feed(sink *s, uint32_t begin, uint32_t end, bool match) {
    if (s->invert) match = !match;
    bool merge = false, before = s->before;
    s->before = match;
    switch (s->behavior) {
    case PF_SPLIT_REMOVED:
        return match ? PEFT_OK : pf_pieces_add(s->out, begin, end, -1, s->err);
    case PF_SPLIT_ISOLATED:
        return pf_pieces_add(s->out, begin, end, -1, s->err);
    case PF_SPLIT_CONTIGUOUS:
        merge = match == before;
        break;
    case PF_SPLIT_MERGED_WITH_PREVIOUS:
        merge = match && !before;
        break;
    case PF_SPLIT_MERGED_WITH_NEXT:
        merge = !match && before;
        break;
    }
    if (merge && s->held) {
        s->end = end;
        return PEFT_OK;
    }
    PF_TRY(flush(s));
    s->held = true;
    s->begin = begin;
    s->end = end;
    return PEFT_OK;
}

/* Every character for which `is` holds is a match of its own. */
static peft_status cut_chars(const pf_ntext *t, pf_piece p, uint32_t flag, sink *s) {
    uint32_t done = p.begin;
    for (uint32_t at = p.begin; at < p.end;) {
        uint32_t cp, len = pf_u8_get(t->text + at, &cp);
        if (pf_uclass(cp) & flag) {
            if (done < at) PF_TRY(feed(s, done, at, false));
            PF_TRY(feed(s, at, at + len, true));
            done = at + len;
        }
        at += len;
    }
    if (done < p.end) PF_TRY(feed(s, done, p.end, false));
    return flush(s);
}

static peft_status cut_pattern(const pf_ntext *t, pf_piece p, pf_split_fn fn, sink *s) {
    const char *text = t->text + p.begin;
    uint32_t n = p.end - p.begin;
    for (uint32_t at = 0; at < n;) {
        uint32_t end = fn(text, n, at);
        PF_TRY(feed(s, p.begin + at, p.begin + end, true));
        at = end;
    }
    return flush(s);
}

static peft_status cut_regex(const pf_ntext *t, pf_piece p, const pf_regex *r, sink *s) {
    pf_regex_iter it;
    uint32_t done = 0, begin, end, n = p.end - p.begin;
    bool found;
    peft_status status;
    pf_regex_begin(&it, r, t->text + p.begin, n);
    for (;;) {
        PF_TRY_OUT(pf_regex_next(&it, &found, &begin, &end, s->err));
        if (!found) break;
        if (done < begin) PF_TRY_OUT(feed(s, p.begin + done, p.begin + begin, false));
        PF_TRY_OUT(feed(s, p.begin + begin, p.begin + end, true));
        done = end;
    }
    if (done < n) PF_TRY_OUT(feed(s, p.begin + done, p.end, false));
    status = flush(s);
out:
    pf_regex_end(&it);
    return status;
}

typedef peft_status (*cut_fn)(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s);

/* One step that only cuts: every piece of text through `cut`. */
static peft_status cut_all(const pf_pretokenizer *z, pf_cutting *c, pf_split_behavior behavior,
                           cut_fn cut, peft_error *err) {
    c->next.n = 0;
    for (uint32_t i = 0; i < c->pieces.n; i++) {
        pf_piece p = c->pieces.v[i];
        if (p.id >= 0) {
            PF_TRY(pf_pieces_add(&c->next, p.begin, p.end, p.id, err));
        } else {
            sink s = {.out = &c->next, .behavior = behavior, .invert = z->invert, .err = err};
            PF_TRY(cut(z, c->text, p, &s));
        }
    }
    pf_pieces swap = c->pieces;
    c->pieces = c->next;
    c->next = swap;
    return PEFT_OK;
}

/* ---- Split and its relatives ---- */

static peft_status behavior_parse(pf_tj json, pf_split_behavior *out, peft_error *err) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    pf_str name = {0};
    PF_TRY(pf_tj_maybe(json, "behavior", &name, err));
    if (name.p == NULL) return PEFT_OK;
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (pf_str_eq(name, pf_str_of(names[i]))) {
            *out = (pf_split_behavior)i;
            return PEFT_OK;
        }
    }
    return PF_FAIL(err, PEFT_E_FORMAT,
                   "%s.behavior: \"%s\" is none of Removed, Isolated, MergedWithPrevious, "
                   "MergedWithNext, Contiguous",
                   json.path, name.p);
}

static peft_status split_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    pf_tj pattern = pf_tj_get(json, "pattern");
    pf_str text = {0};
    z->behavior = PF_SPLIT_ISOLATED;
    PF_TRY(behavior_parse(json, &z->behavior, err));
    PF_TRY(pf_tj_bool(json, "invert", &z->invert, err));
    if (pattern.v != NULL) PF_TRY(pf_tj_maybe(pattern, "Regex", &text, err));
    z->fn = pf_split_pattern_find(text.p == NULL ? "" : text.p, text.n);
    return z->fn != NULL ? PEFT_OK : pf_regex_from_json(&z->regex, pattern, err);
}

static peft_status split_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    return z->fn != NULL ? cut_pattern(t, p, z->fn, s) : cut_regex(t, p, z->regex, s);
}

static peft_status split_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    return cut_all(z, c, z->behavior, split_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_split = {"Split", split_parse, split_run};

static peft_status delimiter_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    pf_str text;
    PF_TRY(pf_tj_member(json, "delimiter", &text, err));
    z->behavior = PF_SPLIT_REMOVED;
    return pf_regex_new(&z->regex, text.p, text.n, true, json.path, err);
}

const pf_pretokenizer_kind pf_pretokenizer_char_delimiter_split = {"CharDelimiterSplit",
                                                                   delimiter_parse, split_run};

static peft_status digits_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    PF_TRY(pf_tj_bool(json, "individual_digits", &z->by_rule, err));
    z->behavior = z->by_rule ? PF_SPLIT_ISOLATED : PF_SPLIT_CONTIGUOUS;
    return PEFT_OK;
}

static peft_status digits_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    (void)z;
    return cut_chars(t, p, PF_U_NUMERIC, s);
}

static peft_status digits_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    return cut_all(z, c, z->behavior, digits_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_digits = {"Digits", digits_parse, digits_run};

static peft_status punctuation_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    z->behavior = PF_SPLIT_ISOLATED;
    return behavior_parse(json, &z->behavior, err);
}

static peft_status punctuation_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p,
                                   sink *s) {
    (void)z;
    return cut_chars(t, p, PF_U_PUNCT, s);
}

static peft_status punctuation_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    return cut_all(z, c, z->behavior, punctuation_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_punctuation = {"Punctuation", punctuation_parse,
                                                          punctuation_run};

static peft_status space_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    (void)z;
    return cut_chars(t, p, PF_U_SPACE, s);
}

static peft_status whitespace_split_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    return cut_all(z, c, PF_SPLIT_REMOVED, space_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_whitespace_split = {"WhitespaceSplit", NULL,
                                                               whitespace_split_run};

static peft_status bert_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    PF_TRY(cut_all(z, c, PF_SPLIT_REMOVED, space_cut, err));
    return cut_all(z, c, PF_SPLIT_ISOLATED, punctuation_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_bert = {"BertPreTokenizer", NULL, bert_run};

/* \w+|[^\w\s]+ are the pieces */
static peft_status word_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    (void)z;
    for (uint32_t at = p.begin, begin; at < p.end;) {
        uint32_t cp, first = UINT32_MAX;
        for (begin = at; at < p.end;) {
            unsigned len = pf_u8_get(t->text + at, &cp);
            uint32_t c = pf_uclass(cp) & (PF_U_WORD | PF_U_SPACE);
            if (first == UINT32_MAX) first = c;
            if (c != first) break;
            at += len;
        }
        if (!(first & PF_U_SPACE)) PF_TRY(feed(s, begin, at, false));
    }
    return PEFT_OK;
}

static peft_status whitespace_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    return cut_all(z, c, PF_SPLIT_ISOLATED, word_cut, err);
}

const pf_pretokenizer_kind pf_pretokenizer_whitespace = {"Whitespace", NULL, whitespace_run};

/* ---- steps that rewrite the text: all pieces, in order, are copied to the other scratch text ----
 */

static pf_ntext *other_text(pf_cutting *c) {
    pf_ntext *t = c->text == &c->scratch[0] ? &c->scratch[1] : &c->scratch[0];
    pf_ntext_clear(t);
    c->next.n = 0;
    return t;
}

static void use_text(pf_cutting *c, pf_ntext *t) {
    c->text = t;
    pf_pieces swap = c->pieces;
    c->pieces = c->next;
    c->next = swap;
}

static bool begins_with(const pf_ntext *t, pf_piece p, pf_str s) {
    return p.end - p.begin >= s.n && memcmp(t->text + p.begin, s.p, s.n) == 0;
}

/* Where piece i begins in the original text. */
static uint32_t origin(const pf_ntext *t, pf_piece p) {
    uint32_t from, to;
    pf_ntext_range(t, p.begin, p.begin + 1, &from, &to);
    return from;
}

static peft_status add_prefix(const pf_ntext *t, pf_piece p, pf_str prefix, pf_ntext *out,
                              peft_error *err) {
    uint32_t from, to; /* it stands for the same bytes as the first character */
    pf_ntext_range(t, p.begin, p.begin + 1, &from, &to);
    return pf_ntext_add(out, prefix.p, (uint32_t)prefix.n, from, to, err);
}

peft_status pf_prepend_scheme_parse(pf_tj json, pf_prepend_scheme *out, peft_error *err) {
    static const char *const names[] = {"always", "first", "never"};
    bool prefix = true;
    pf_str name = pf_str_of("always");
    PF_TRY(pf_tj_bool(json, "add_prefix_space", &prefix, err));
    PF_TRY(pf_tj_maybe(json, "prepend_scheme", &name, err));
    for (size_t i = 0; i < PF_COUNT(names); i++) {
        if (!pf_str_eq(name, pf_str_of(names[i]))) continue;
        *out = prefix ? (pf_prepend_scheme)i : PF_PREPEND_NEVER;
        return PEFT_OK;
    }
    return PF_FAIL(err, PEFT_E_FORMAT, "%s.prepend_scheme: \"%s\" is none of always, first, never",
                   json.path, name.p);
}

static peft_status metaspace_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    z->replacement = pf_str_of("\xe2\x96\x81");
    z->by_rule = true;
    PF_TRY(pf_tj_maybe(json, "replacement", &z->replacement, err));
    PF_TRY(pf_tj_bool(json, "split", &z->by_rule, err));
    if (z->replacement.n == 0 || z->replacement.n != pf_u8_len(z->replacement.p))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s.replacement: this should be one character",
                       json.path);
    PF_TRY(pf_prepend_scheme_parse(json, &z->scheme, err));
    return pf_regex_new(&z->regex, z->replacement.p, z->replacement.n, true, json.path, err);
}

static peft_status metaspace_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    return cut_regex(t, p, z->regex, s);
}

static peft_status metaspace_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    const pf_ntext *in = c->text;
    pf_ntext *out = other_text(c);
    pf_str r = z->replacement;
    for (uint32_t i = 0; i < c->pieces.n; i++) {
        pf_piece p = c->pieces.v[i];
        uint32_t begin = out->n;
        if (p.id >= 0) {
            PF_TRY(pf_ntext_append(out, in, p.begin, p.end, err));
        } else {
            uint32_t at = origin(in, p);
            bool prefix =
                z->scheme == PF_PREPEND_ALWAYS || (z->scheme == PF_PREPEND_FIRST && at == 0);
            if (in->text[p.begin] == ' ' || begins_with(in, p, r) || (c->bare && at == 0))
                prefix = false;
            if (prefix) PF_TRY(add_prefix(in, p, r, out, err));
            for (uint32_t done = p.begin; done < p.end;) {
                const char *blank = memchr(in->text + done, ' ', p.end - done);
                uint32_t stop = blank == NULL ? p.end : (uint32_t)(blank - in->text);
                PF_TRY(pf_ntext_append(out, in, done, stop, err));
                if (blank != NULL) {
                    uint32_t from, to;
                    pf_ntext_range(in, stop, stop + 1, &from, &to);
                    PF_TRY(pf_ntext_add(out, r.p, (uint32_t)r.n, from, to, err));
                    stop++;
                }
                done = stop;
            }
        }
        PF_TRY(pf_pieces_add(&c->next, begin, out->n, p.id, err));
    }
    use_text(c, out);
    return z->by_rule ? cut_all(z, c, PF_SPLIT_MERGED_WITH_NEXT, metaspace_cut, err) : PEFT_OK;
}

const pf_pretokenizer_kind pf_pretokenizer_metaspace = {"Metaspace", metaspace_parse,
                                                        metaspace_run};

static peft_status byte_level_parse(pf_pretokenizer *z, pf_tj json, peft_error *err) {
    z->prefix = z->by_rule = true;
    PF_TRY(pf_tj_bool(json, "add_prefix_space", &z->prefix, err));
    return pf_tj_bool(json, "use_regex", &z->by_rule, err);
}

static peft_status gpt2_cut(const pf_pretokenizer *z, const pf_ntext *t, pf_piece p, sink *s) {
    (void)z;
    return cut_pattern(t, p, pf_split_gpt2, s);
}

/* Copies the pieces, with a space before those that begin with none, or spelt out as characters. */
static peft_status rewrite(pf_cutting *c, bool spell, peft_error *err) {
    const pf_ntext *in = c->text;
    pf_ntext *out = other_text(c);
    for (uint32_t i = 0; i < c->pieces.n; i++) {
        pf_piece p = c->pieces.v[i];
        uint32_t begin = out->n;
        if (spell && p.id < 0) {
            PF_TRY(pf_byte_level_apply(in, p.begin, p.end, out, err));
        } else {
            bool prefix =
                !spell && p.id < 0 && in->text[p.begin] != ' ' && !(c->bare && origin(in, p) == 0);
            if (prefix) PF_TRY(add_prefix(in, p, pf_str_of(" "), out, err));
            PF_TRY(pf_ntext_append(out, in, p.begin, p.end, err));
        }
        PF_TRY(pf_pieces_add(&c->next, begin, out->n, p.id, err));
    }
    use_text(c, out);
    return PEFT_OK;
}

static peft_status byte_level_run(const pf_pretokenizer *z, pf_cutting *c, peft_error *err) {
    if (z->prefix) PF_TRY(rewrite(c, false, err));
    if (z->by_rule) PF_TRY(cut_all(z, c, PF_SPLIT_ISOLATED, gpt2_cut, err));
    return z->last ? PEFT_OK : rewrite(c, true, err);
}

const pf_pretokenizer_kind pf_pretokenizer_byte_level = {"ByteLevel", byte_level_parse,
                                                         byte_level_run};

/* ---- the chain ---- */

enum { MAX_STEPS = 64, MAX_DEPTH = 8 };

static peft_status load(pf_pretokenizers *z, pf_tj json, int depth, peft_error *err) {
    pf_str type;
    PF_TRY(pf_tj_member(json, "type", &type, err));
    if (strcmp(type.p, "Sequence") == 0) {
        pf_tj parts = pf_tj_get(json, "pretokenizers");
        if (depth == MAX_DEPTH)
            return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "sequences nest too deep", err);
        for (size_t i = 0; i < pf_tj_count(parts); i++)
            PF_TRY(load(z, pf_tj_at(parts, i), depth + 1, err));
        return PEFT_OK;
    }
    const pf_pretokenizer_kind *kind = pf_pretokenizer_find(type.p);
    if (kind == NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: pre-tokenizer %s is not supported", json.path,
                       type.p);
    if (z->n == MAX_STEPS)
        return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "more than 64 pre-tokenizers", err);
    pf_pretokenizer *step = &z->steps[z->n++];
    step->kind = kind;
    return kind->parse == NULL ? PEFT_OK : kind->parse(step, json, err);
}

peft_status pf_pretokenizers_load(pf_pretokenizers *z, pf_tj json, peft_error *err) {
    z->n = 0;
    z->bytes = false;
    if (json.v == NULL) return PEFT_OK;
    z->steps = PF_NEW_ARRAY(json.arena, pf_pretokenizer, MAX_STEPS);
    PF_CHECK_ALLOC(z->steps, err);
    PF_TRY(load(z, json, 0, err));
    if (z->n == 0) return PEFT_OK;
    pf_pretokenizer *last = &z->steps[z->n - 1];
    last->last = true;
    z->bytes = last->kind == &pf_pretokenizer_byte_level;
    return PEFT_OK;
}

void pf_pretokenizers_release(pf_pretokenizers *z) {
    for (int i = 0; i < z->n; i++) pf_regex_free(z->steps[i].regex);
    z->n = 0;
}

peft_status pf_pretokenizers_run(const pf_pretokenizers *z, pf_cutting *c, peft_error *err) {
    for (int i = 0; i < z->n; i++) PF_TRY(z->steps[i].kind->run(&z->steps[i], c, err));
    return PEFT_OK;
}

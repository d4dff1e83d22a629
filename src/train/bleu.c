/* bleu.c - see bleu.h. The tokenizer works on bytes: its patterns name ASCII characters only, and a
 * byte of a longer UTF-8 sequence is to them what the whole character is. */
#include "train/bleu.h"

#include "base/map.h"
#include "train/text_norm.h"

#include <math.h>
#include <string.h>

/* ---- mteval-v13a's words --------------------------------------------------------------------- */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_stop(char c) {
    return c == '.' || c == ',';
}

/* [\{-\~\[-\` -\&\(-\+\:-\@\/]: ASCII punctuation and space without ' , - and . */
static bool is_punct(char c) {
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

static void replace_all(pf_buf *out, const pf_buf *in, const char *what, const char *with) {
    size_t n = strlen(what);
    pf_buf_clear(out);
    for (size_t i = 0; i < in->len;) {
        if (in->len - i >= n && memcmp(in->data + i, what, n) == 0) {
            pf_buf_adds(out, with);
            i += n;
        } else {
            pf_buf_addc(out, in->data[i++]);
        }
    }
}

/* One of the four substitutions, as re.sub does them: from the left, matches never overlap. */
static void separate(pf_buf *out, const pf_buf *in, int rule) {
    pf_buf_clear(out);
    for (size_t i = 0; i < in->len;) {
        char c = in->data[i], next = i + 1 < in->len ? in->data[i + 1] : '\0';
        bool pair = i + 1 < in->len;
        if (rule == 0 && is_punct(c)) {
            pf_buf_addc(out, ' ');
            pf_buf_addc(out, c);
            pf_buf_addc(out, ' ');
            i++;
        } else if (rule == 1 && pair && !is_digit(c) && is_stop(next)) {
            pf_buf_addc(out, c); /* a stop that no digit stands before */
            pf_buf_addc(out, ' ');
            pf_buf_addc(out, next);
            pf_buf_addc(out, ' ');
            i += 2;
        } else if (rule == 2 && pair && is_stop(c) && !is_digit(next)) {
            pf_buf_addc(out, ' '); /* a stop that no digit follows */
            pf_buf_addc(out, c);
            pf_buf_addc(out, ' ');
            pf_buf_addc(out, next);
            i += 2;
        } else if (rule == 3 && pair && is_digit(c) && next == '-') {
            pf_buf_addc(out, c);
            pf_buf_addc(out, ' ');
            pf_buf_addc(out, next);
            pf_buf_addc(out, ' ');
            i += 2;
        } else {
            pf_buf_addc(out, c);
            i++;
        }
    }
}

void pf_bleu_tokenize(pf_buf *out, pf_str text) {
    static const char *const replaced[][2] = {{"<skipped>", ""}, {"-\n", ""},    {"\n", " "},
                                              {"&quot;", "\""},  {"&amp;", "&"}, {"&lt;", "<"},
                                              {"&gt;", ">"}};
    pf_buf a = {0}, b = {0};
    pf_str body = pf_text_strip(text); /* sacrebleu strips the right side only */
    if (body.n > 0) pf_buf_add(&a, text.p, (size_t)(body.p - text.p) + body.n);
    for (size_t i = 0; i < PF_COUNT(replaced); i++) {
        replace_all(&b, &a, replaced[i][0], replaced[i][1]);
        pf_buf t = a;
        a = b;
        b = t;
    }
    pf_buf_clear(&b);
    pf_buf_addc(&b, ' ');
    pf_buf_add(&b, a.data, a.len);
    pf_buf_addc(&b, ' ');
    for (int rule = 0; rule < 4; rule++) {
        separate(rule % 2 == 0 ? &a : &b, rule % 2 == 0 ? &b : &a, rule);
    }
    pf_buf_clear(out);
    pf_str rest = {b.data, b.len}, word;
    while (pf_text_next_word(&rest, &word)) {
        if (out->len > 0) pf_buf_addc(out, ' ');
        pf_buf_add(out, word.p, word.n);
    }
    if (a.failed || b.failed) out->failed = true;
    pf_buf_free(&a);
    pf_buf_free(&b);
}

/* ---- counts ---------------------------------------------------------------------------------- */

/* Walks the n-grams of a tokenized line. They are its substrings, and the blanks in them tell the
 * orders apart, so one map holds all four. */
typedef struct ngrams {
    pf_str line;
    size_t start;               /* of the current word */
    size_t ends[PF_BLEU_ORDER]; /* of the n-grams that begin there */
    int orders;
} ngrams;

static bool next_start(ngrams *g) {
    if (g->orders > 0) g->start = g->ends[0] + 1;
    g->orders = 0;
    if (g->start >= g->line.n) return false;
    size_t at = g->start;
    while (g->orders < PF_BLEU_ORDER && at < g->line.n) {
        const char *blank = memchr(g->line.p + at, ' ', g->line.n - at);
        at = blank != NULL ? (size_t)(blank - g->line.p) : g->line.n;
        g->ends[g->orders++] = at;
        at++;
    }
    return true;
}

static peft_status count_reference(pf_map *counts, pf_str line, int64_t *words, peft_error *err) {
    *words = 0;
    for (ngrams g = {.line = line}; next_start(&g);) {
        ++*words;
        for (int k = 0; k < g.orders; k++) {
            const char *key = line.p + g.start;
            size_t n = g.ends[k] - g.start;
            const pf_map_entry *seen = pf_map_find(counts, key, n);
            PF_TRY(pf_map_put(counts, key, n, seen != NULL ? seen->value + 1 : 1, NULL, NULL, err));
        }
    }
    return PEFT_OK;
}

/* Each match uses up one occurrence in the reference: that clips the counts. */
static peft_status count_hypothesis(pf_bleu *b, pf_map *left, pf_str line, int64_t *words,
                                    peft_error *err) {
    *words = 0;
    for (ngrams g = {.line = line}; next_start(&g);) {
        ++*words;
        for (int k = 0; k < g.orders; k++) {
            const char *key = line.p + g.start;
            size_t n = g.ends[k] - g.start;
            const pf_map_entry *e = pf_map_find(left, key, n);
            b->total[k]++;
            if (e == NULL || e->value == 0) continue;
            b->correct[k]++;
            PF_TRY(pf_map_put(left, key, n, e->value - 1, NULL, NULL, err));
        }
    }
    return PEFT_OK;
}

peft_status pf_bleu_add(pf_bleu *b, pf_str hypothesis, pf_str reference, peft_error *err) {
    pf_buf hyp = {0}, ref = {0};
    pf_map counts;
    pf_map_init(&counts);
    pf_bleu sum = *b;
    int64_t hyp_words, ref_words;
    peft_status status = PEFT_OK;
    pf_bleu_tokenize(&hyp, hypothesis);
    pf_bleu_tokenize(&ref, reference);
    if (!pf_buf_ok(&hyp) || !pf_buf_ok(&ref)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    PF_TRY_OUT(count_reference(&counts, (pf_str){ref.data, ref.len}, &ref_words, err));
    PF_TRY_OUT(count_hypothesis(&sum, &counts, (pf_str){hyp.data, hyp.len}, &hyp_words, err));
    sum.sys_len += hyp_words;
    sum.ref_len += ref_words;
    *b = sum;
out:
    pf_map_release(&counts);
    pf_buf_free(&hyp);
    pf_buf_free(&ref);
    return status;
}

/* ---- the score: sacrebleu's compute_bleu with smooth_method "exp" -----------------------------
 */

pf_bleu_score pf_bleu_result(const pf_bleu *b) {
    pf_bleu_score s = {.brevity_penalty = 1};
    if (b->sys_len < b->ref_len) {
        s.brevity_penalty = b->sys_len > 0 ? exp(1 - (double)b->ref_len / (double)b->sys_len) : 0.0;
    }
    bool any = false;
    for (int k = 0; k < PF_BLEU_ORDER; k++) any = any || b->correct[k] > 0;
    if (!any) return s;

    double smooth = 1, logs = 0;
    int k = 0;
    for (; k < PF_BLEU_ORDER && b->total[k] > 0; k++) {
        if (b->correct[k] > 0) {
            s.precisions[k] = 100.0 * (double)b->correct[k] / (double)b->total[k];
        } else {
            smooth *= 2; /* each empty order counts half of the one before */
            s.precisions[k] = 100.0 / (smooth * (double)b->total[k]);
        }
        logs += log(s.precisions[k]);
    }
    /* An order without any n-gram (no row has four words) has precision 0, and so has the whole. */
    if (k == PF_BLEU_ORDER) s.score = s.brevity_penalty * exp(logs / PF_BLEU_ORDER);
    return s;
}

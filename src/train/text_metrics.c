/* text_metrics.c - see text_metrics.h. */
#include "train/text_metrics.h"

#include "base/map.h"
#include "train/text_norm.h"

#include <math.h>
#include <string.h>

peft_status pf_exact_match(pf_str prediction, pf_str reference, bool *same, peft_error *err) {
    pf_buf a = {0}, b = {0};
    pf_text_lower(&a, pf_text_strip(prediction));
    pf_text_lower(&b, pf_text_strip(reference));
    bool ok = pf_buf_ok(&a) && pf_buf_ok(&b);
    *same = ok && a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
    pf_buf_free(&a);
    pf_buf_free(&b);
    return ok ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

static bool is_ascii_punct(char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

/* Length of the article at the start of s, or 0; \b(a|an|the)\b, the left \b is the caller's. */
static size_t article(pf_str s) {
    static const char *const words[] = {"a", "an", "the"};
    for (size_t i = 0; i < PF_COUNT(words); i++) {
        size_t n = strlen(words[i]);
        if (s.n < n || memcmp(s.p, words[i], n) != 0) continue;
        uint32_t next = ' ';
        if (s.n > n) pf_text_char((pf_str){s.p + n, s.n - n}, &next);
        if (!pf_text_is_word(next)) return n;
    }
    return 0;
}

/* normalize_answer of SQuAD's evaluate-v2.0.py, without the last joining of words. */
static void normalize(pf_buf *out, pf_str text) {
    pf_buf lower = {0};
    pf_text_lower(&lower, text);
    size_t n = 0;
    for (size_t i = 0; i < lower.len; i++) {
        if (!is_ascii_punct(lower.data[i])) lower.data[n++] = lower.data[i];
    }
    lower.len = n;
    bool inside = false; /* the character before is part of a word */
    for (size_t i = 0; i < n;) {
        pf_str rest = {lower.data + i, n - i};
        size_t skip = inside ? 0 : article(rest);
        if (skip > 0) {
            pf_buf_addc(out, ' ');
            i += skip;
            inside = true;
            continue;
        }
        uint32_t cp;
        size_t len = pf_text_char(rest, &cp);
        inside = pf_text_is_word(cp);
        pf_buf_add(out, rest.p, len);
        i += len;
    }
    if (lower.failed) out->failed = true;
    pf_buf_free(&lower);
}

peft_status pf_word_f1(pf_str prediction, pf_str reference, double *f1, peft_error *err) {
    *f1 = 0;
    pf_buf a = {0}, b = {0};
    pf_map left; /* words of the reference that are not used up */
    pf_map_init(&left);
    peft_status status = PEFT_OK;
    normalize(&a, prediction);
    normalize(&b, reference);
    if (!pf_buf_ok(&a) || !pf_buf_ok(&b)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
        goto out;
    }
    int64_t n_pred = 0, n_ref = 0, common = 0;
    pf_str rest = {b.data, b.len}, word;
    while (pf_text_next_word(&rest, &word)) {
        n_ref++;
        const pf_map_entry *e = pf_map_find(&left, word.p, word.n);
        PF_TRY_OUT(
            pf_map_put(&left, word.p, word.n, e != NULL ? e->value + 1 : 1, NULL, NULL, err));
    }
    rest = (pf_str){a.data, a.len};
    while (pf_text_next_word(&rest, &word)) {
        n_pred++;
        const pf_map_entry *e = pf_map_find(&left, word.p, word.n);
        if (e == NULL || e->value == 0) continue;
        common++;
        PF_TRY_OUT(pf_map_put(&left, word.p, word.n, e->value - 1, NULL, NULL, err));
    }
    if (n_pred == 0 || n_ref == 0) {
        *f1 = n_pred == n_ref ? 1 : 0;
    } else if (common > 0) {
        double precision = (double)common / (double)n_pred, recall = (double)common / (double)n_ref;
        *f1 = 2 * precision * recall / (precision + recall);
    }
out:
    pf_map_release(&left);
    pf_buf_free(&a);
    pf_buf_free(&b);
    return status;
}

peft_status pf_text_metrics_add(pf_text_metrics *m, pf_str prediction, pf_str reference,
                                peft_error *err) {
    bool same;
    double f1;
    PF_TRY(pf_exact_match(prediction, reference, &same, err));
    PF_TRY(pf_word_f1(prediction, reference, &f1, err));
    PF_TRY(pf_bleu_add(&m->bleu, prediction, reference, err));
    m->rows++;
    m->exact += same ? 1 : 0;
    m->f1_sum += f1;
    return PEFT_OK;
}

pf_text_scores pf_text_metrics_result(const pf_text_metrics *m) {
    if (m->rows == 0) return (pf_text_scores){.exact_match = NAN, .f1 = NAN, .bleu = NAN};
    return (pf_text_scores){.rows = m->rows,
                            .exact_match = 100.0 * (double)m->exact / (double)m->rows,
                            .f1 = 100.0 * m->f1_sum / (double)m->rows,
                            .bleu = pf_bleu_result(&m->bleu).score};
}

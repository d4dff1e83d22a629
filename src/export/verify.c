/* verify.c - see verify.h. */
#include "export/verify.h"

#include "base/file.h"
#include "export/logits.h"
#include "text/json.h"

#include <math.h>
#include <string.h>

#define TEXT_TOKENS 256 /* positions compared per text; the logits of a text are held twice */

typedef struct row_figures {
    double max_diff, max_value, kl;
    bool same_top;
} row_figures;

static row_figures compare_row(const pf_real *p, const pf_real *q, int64_t vocab) {
    row_figures f = {0};
    double top_p = (double)p[0], top_q = (double)q[0];
    int64_t at_p = 0, at_q = 0;
    for (int64_t i = 0; i < vocab; i++) {
        double diff = fabs((double)p[i] - (double)q[i]);
        /* written so that a NaN counts as the largest difference there is */
        if (!(diff <= f.max_diff)) f.max_diff = isnan(diff) ? INFINITY : diff;
        if (fabs((double)p[i]) > f.max_value) f.max_value = fabs((double)p[i]);
        if ((double)p[i] > top_p) top_p = (double)p[i], at_p = i;
        if ((double)q[i] > top_q) top_q = (double)q[i], at_q = i;
    }
    double sum_p = 0, sum_q = 0;
    for (int64_t i = 0; i < vocab; i++) {
        sum_p += exp((double)p[i] - top_p);
        sum_q += exp((double)q[i] - top_q);
    }
    double log_p = top_p + log(sum_p), log_q = top_q + log(sum_q);
    for (int64_t i = 0; i < vocab; i++) {
        double lp = (double)p[i] - log_p;
        f.kl += exp(lp) * (lp - ((double)q[i] - log_q));
    }
    if (f.kl < 0) f.kl = 0; /* rounding */
    f.same_top = at_p == at_q;
    return f;
}

static peft_status compare(pf_logits *a, pf_logits *b, int64_t vocab, const pf_verify_text *texts,
                           int n, pf_verify_report *out, peft_error *err) {
    int64_t agreed = 0;
    double kl = 0;
    for (int t = 0; t < n; t++) {
        int32_t len = texts[t].n < TEXT_TOKENS ? texts[t].n : TEXT_TOKENS;
        if (len < 1) continue;
        const pf_real *p, *q;
        PF_TRY(pf_logits_run(a, texts[t].ids, len, &p, err));
        PF_TRY(pf_logits_run(b, texts[t].ids, len, &q, err));
        for (int32_t i = 0; i < len; i++) {
            row_figures f = compare_row(p + i * vocab, q + i * vocab, vocab);
            if (f.max_diff > out->max_abs_logit) out->max_abs_logit = f.max_diff;
            if (f.max_value > out->max_abs_value) out->max_abs_value = f.max_value;
            if (f.kl > out->max_kl) out->max_kl = f.kl;
            kl += f.kl;
            agreed += f.same_top;
        }
        out->n_texts++;
        out->n_positions += len;
    }
    if (out->n_positions == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "there is no text to compare the models on");
    out->mean_kl = kl / (double)out->n_positions;
    out->token_agreement = (double)agreed / (double)out->n_positions;
    return PEFT_OK;
}

peft_status pf_verify_models(pf_model *reference, pf_model *made, pf_backend *be,
                             const pf_verify_text *texts, int n, pf_verify_report *out,
                             peft_error *err) {
    memset(out, 0, sizeof *out);
    if (reference->head->out_dim != made->head->out_dim || reference->task != made->task) {
        return PF_FAIL(err, PEFT_E_SHAPE, "the models have heads of %lld and %lld outputs",
                       (long long)reference->head->out_dim, (long long)made->head->out_dim);
    }
    pf_logits a, b;
    PF_TRY(pf_logits_init(&a, reference, be, true, TEXT_TOKENS, err));
    peft_status status = pf_logits_init(&b, made, be, false, TEXT_TOKENS, err);
    if (status == PEFT_OK) status = compare(&a, &b, reference->head->out_dim, texts, n, out, err);
    pf_logits_release(&a);
    pf_logits_release(&b);
    return status;
}

peft_status pf_verify_write(const pf_verify_report *r, const char *path, peft_error *err) {
    const struct {
        const char *key;
        double value;
    } rows[] = {
        {"max_abs_logit_difference", r->max_abs_logit},
        {"max_abs_logit", r->max_abs_value},
        {"mean_kl_nats", r->mean_kl},
        {"max_kl_nats", r->max_kl},
        {"token_agreement", r->token_agreement},
        {"texts", (double)r->n_texts},
        {"positions", (double)r->n_positions},
    };
    pf_buf text = {0};
    pf_buf_adds(&text, "{\n");
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_buf_addf(&text, "  \"%s\": ", rows[i].key);
        pf_json_add_real(&text, rows[i].value);
        pf_buf_adds(&text, i + 1 < PF_COUNT(rows) ? ",\n" : "\n}\n");
    }
    peft_status status = pf_buf_ok(&text) ? pf_write_file(path, text.data, text.len, err)
                                          : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    pf_buf_free(&text);
    return status;
}

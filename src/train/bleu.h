/* bleu.h - corpus BLEU with one reference per row, equal to sacrebleu's default
 * (nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp; Post 2018, "A Call for Clarity in Reporting BLEU
 * Scores"). Counts are summed over the rows; the score is made from the sums. A byte that is not
 * UTF-8 is a character of its own that is neither space nor punctuation. */
#ifndef PF_BLEU_H
#define PF_BLEU_H

#include "base/buf.h"
#include "base/str.h"

#include <stdint.h>

#define PF_BLEU_ORDER 4

typedef struct pf_bleu { /* zero to start */
    int64_t correct[PF_BLEU_ORDER], total[PF_BLEU_ORDER];
    int64_t sys_len, ref_len; /* in words of the 13a tokenizer */
} pf_bleu;

peft_status pf_bleu_add(pf_bleu *b, pf_str hypothesis, pf_str reference, peft_error *err);

typedef struct pf_bleu_score {
    double score; /* 0..100 */
    double precisions[PF_BLEU_ORDER], brevity_penalty;
} pf_bleu_score;
pf_bleu_score pf_bleu_result(const pf_bleu *b);

/* The 13a tokenizer: replaces *out with the words, one space between them. */
void pf_bleu_tokenize(pf_buf *out, pf_str text);

#endif

/* preview.h - what the model will see of a row: the rendered text, its tokens, and which of them
 * are learned. */
#ifndef PF_PREVIEW_H
#define PF_PREVIEW_H

#include "data/dataset.h"

/* Examples [first, first + n) of the view (as many of them as there are). Text is for people; JSON
 * gives one object per line: row, line, prompt, target, n_prompt, split, truncated, tokens [{id,
 * piece, label}]. */
peft_status pf_data_preview_text(const pf_data_view *view, const pf_tokenizer *t, int64_t first,
                                 int64_t n, pf_buf *out, peft_error *err);
peft_status pf_data_preview_json(const pf_data_view *view, const pf_tokenizer *t, int64_t first,
                                 int64_t n, pf_buf *out, peft_error *err);

/* Every example of the view as {"input_ids": [...], "labels": [...]}, one per line: labels are the
 * ids that are learned, -100 elsewhere. What data.input_ids reads, and other trainers too. */
peft_status pf_data_tokens_jsonl(const pf_data_view *view, pf_buf *out, peft_error *err);

#endif

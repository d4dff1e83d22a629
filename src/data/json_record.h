/* json_record.h - a JSON object -> a record, for the readers whose rows are objects. */
#ifndef PF_JSON_RECORD_H
#define PF_JSON_RECORD_H

#include "data/reader.h"
#include "text/json.h"

/* Fields go to f->row. The object is no longer needed afterwards. */
peft_status pf_json_to_record(pf_data_file *f, const json_t *row, int64_t line, pf_record *out,
                              peft_error *err);

/* Is this one JSON value with nothing but white space behind it? Looks at brackets and quotes only.
 */
bool pf_json_is_single(const char *text, size_t n);
/* End of the value that starts at `at`, by brackets and quotes; n when it does not end. *line is
 * moved on by the line ends inside. */
size_t pf_json_skip_value(const char *text, size_t n, size_t at, int64_t *line);
size_t pf_json_skip_space(const char *text, size_t n, size_t at, int64_t *line);

#endif

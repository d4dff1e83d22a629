/* line_file.h - a file of rows, one a line, that a run appends to and a resumed run takes up again.
 *
 * Opening to resume drops a torn last line (the process was killed inside a write) and the rows
 * that `keep` refuses. A line that cannot be written waits in memory and goes out before the next
 * one. */
#ifndef PF_LINE_FILE_H
#define PF_LINE_FILE_H

#include "base/buf.h"
#include "base/file.h"

typedef struct pf_line_file {
    const char *path; /* borrowed */
    pf_append file;
    pf_buf waiting; /* lines that are not written yet */
    bool lost;      /* some found no room to wait in */
} pf_line_file;

/* line: without its end. */
typedef bool (*pf_line_keep)(void *ctx, const char *line, size_t n);

/* keep NULL: a new file, whatever stood there before is gone. */
peft_status pf_line_file_open(pf_line_file *f, const char *path, pf_line_keep keep, void *ctx,
                              peft_error *err);
/* Adds a line end. */
peft_status pf_line_file_add(pf_line_file *f, const char *line, size_t n, peft_error *err);
/* The same without writing: it goes out with the next one. */
peft_status pf_line_file_wait(pf_line_file *f, const char *line, size_t n, peft_error *err);
peft_status pf_line_file_flush(pf_line_file *f, peft_error *err);
/* Fails while a line waits, and for good once one is lost. */
peft_status pf_line_file_sync(pf_line_file *f, peft_error *err);
peft_status pf_line_file_close(pf_line_file *f, peft_error *err); /* fails when lines are lost */

#endif

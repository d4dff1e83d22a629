/* gunzip.h - a gzip file, all of its members, into memory. */
#ifndef PF_GUNZIP_H
#define PF_GUNZIP_H

#include "base/buf.h"

#include <stddef.h>

/* Refuses what unpacks to more than this: a few kilobytes can claim a terabyte. */
#define PF_GUNZIP_MAX ((size_t)8 << 30)

peft_status pf_gunzip(pf_buf *out, const unsigned char *data, size_t n, const char *name,
                      peft_error *err);

#endif

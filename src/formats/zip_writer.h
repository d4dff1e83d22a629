/* zip_writer.h - writing a zip archive in one pass: members are stored (not compressed), their data
 * begin at multiples of 64 bytes as torch wants them, sizes and offsets are 64-bit where they must
 * be (zip64). The CRC follows the data in a descriptor, so nothing is written twice and members may
 * be streamed. The archive appears under its name complete or not at all.
 *
 * Life cycle: open -> (begin -> add* -> end)* -> commit -> close. */
#ifndef PF_ZIP_WRITER_H
#define PF_ZIP_WRITER_H

#include "base/file.h"

typedef struct pf_zip_member {
    const char *name;
    uint64_t offset, size; /* of the local header; of the data */
    uint32_t crc;
} pf_zip_member;

typedef struct pf_zip_writer {
    pf_file_writer file;
    pf_arena arena;
    const char *path;
    pf_zip_member *members; /* the last one is open between begin and end */
    int n_members, cap_members;
    uint64_t left;      /* bytes of the open member still to come */
    uint64_t largest32; /* values above it take 64-bit fields; 0xfffffffe, less in tests */
    int most_members16; /* likewise for their number; 0xfffe */
} pf_zip_writer;

peft_status pf_zip_writer_open(pf_zip_writer *z, const char *path, peft_error *err);
/* A member of exactly `size` bytes; name is UTF-8. */
peft_status pf_zip_writer_begin(pf_zip_writer *z, const char *name, uint64_t size, peft_error *err);
peft_status pf_zip_writer_add(pf_zip_writer *z, const void *data, size_t n, peft_error *err);
peft_status pf_zip_writer_end(pf_zip_writer *z, peft_error *err);
/* begin, add and end at once. */
peft_status pf_zip_writer_member(pf_zip_writer *z, const char *name, const void *data, size_t n,
                                 peft_error *err);
peft_status pf_zip_writer_commit(pf_zip_writer *z, peft_error *err);
void pf_zip_writer_close(pf_zip_writer *z); /* discards what was not committed; NULL is fine */

#endif

/* zip_writer.c - see zip_writer.h. Numbers of sections are those of PKWARE's APPNOTE.TXT 6.3.10. */
#include "formats/zip_writer.h"

#include "base/mem.h"

#include <string.h>
#include <zlib.h>

#include "base/banned.h"

enum {
    ALIGNMENT = 64,
    LOCAL_SIZE = 30, /* 4.3.7, without name and extra fields */
    FLAGS = 0x0808,  /* 4.4.4: sizes and CRC in a data descriptor; names are UTF-8 */
    DATE = 0x0021,   /* 1980-01-01, the earliest there is: the same tensors give the same file */
    VERSION = 20,    /* 4.4.3 */
    VERSION_64 = 45,
    EXTRA_ZIP64 = 1,       /* 4.5.3 */
    EXTRA_PADDING = 0x4246 /* "FB", as torch calls its filler */
};

/* Fields are little-endian; a record is put together here and written at once. */
typedef struct record {
    unsigned char bytes[256];
    size_t n;
} record;

static void put(record *r, uint64_t value, unsigned n_bytes) {
    PF_ASSERT(r->n + n_bytes <= sizeof r->bytes);
    for (unsigned i = 0; i < n_bytes; i++)
        r->bytes[r->n++] = (unsigned char)(value >> (8 * i) & 0xff);
}

static peft_status write_record(pf_zip_writer *z, const record *r, peft_error *err) {
    return pf_file_writer_add(&z->file, r->bytes, r->n, err);
}

peft_status pf_zip_writer_open(pf_zip_writer *z, const char *path, peft_error *err) {
    *z = (pf_zip_writer){.file = {.fd = -1}, .largest32 = 0xfffffffeu, .most_members16 = 0xfffe};
    pf_arena_init(&z->arena, "zip");
    z->path = pf_arena_strdup(&z->arena, path);
    peft_status status = z->path != NULL ? pf_file_writer_open(&z->file, path, err)
                                         : PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
    if (status != PEFT_OK) pf_zip_writer_close(z);
    return status;
}

void pf_zip_writer_close(pf_zip_writer *z) {
    if (z == NULL) return;
    pf_file_writer_close(&z->file);
    pf_free(z->members);
    pf_arena_release(&z->arena);
    *z = (pf_zip_writer){.file = {.fd = -1}};
}

static bool is_large(const pf_zip_writer *z, uint64_t value) {
    return value > z->largest32;
}

peft_status pf_zip_writer_begin(pf_zip_writer *z, const char *name, uint64_t size,
                                peft_error *err) {
    size_t name_size = strlen(name);
    PF_ASSERT(z->left == 0 && name_size <= UINT16_MAX);
    if (z->n_members == z->cap_members) {
        int cap = z->cap_members > 0 ? 2 * z->cap_members : 64;
        pf_zip_member *grown = pf_realloc(z->members, (size_t)cap * sizeof *grown);
        PF_CHECK_ALLOC(grown, err);
        z->members = grown;
        z->cap_members = cap;
    }
    const char *kept = pf_arena_strdup(&z->arena, name);
    PF_CHECK_ALLOC(kept, err);
    z->members[z->n_members++] =
        (pf_zip_member){.name = kept, .offset = z->file.written, .size = size};
    z->left = size;

    bool large = is_large(z, size);
    size_t extra64 = large ? 4 + 16 : 0;
    uint64_t data_at = z->file.written + LOCAL_SIZE + name_size + extra64 + 4;
    size_t padding = (size_t)((ALIGNMENT - data_at % ALIGNMENT) % ALIGNMENT);
    static const char filler[ALIGNMENT + 1] =
        "ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ";
    record r = {.n = 0};
    put(&r, 0x04034b50, 4);
    put(&r, large ? VERSION_64 : VERSION, 2);
    put(&r, FLAGS, 2);
    put(&r, 0, 2); /* stored */
    put(&r, 0, 2); /* midnight */
    put(&r, DATE, 2);
    put(&r, 0, 4); /* CRC: in the descriptor, as are the sizes */
    put(&r, large ? UINT32_MAX : 0, 4);
    put(&r, large ? UINT32_MAX : 0, 4);
    put(&r, name_size, 2);
    put(&r, extra64 + 4 + padding, 2);
    PF_TRY(write_record(z, &r, err));
    PF_TRY(pf_file_writer_add(&z->file, name, name_size, err));
    r.n = 0;
    if (large) { /* says that the descriptor has 64-bit sizes (4.3.9.2) */
        put(&r, EXTRA_ZIP64, 2);
        put(&r, 16, 2);
        put(&r, 0, 8);
        put(&r, 0, 8);
    }
    put(&r, EXTRA_PADDING, 2);
    put(&r, padding, 2);
    PF_TRY(write_record(z, &r, err));
    return pf_file_writer_add(&z->file, filler, padding, err);
}

peft_status pf_zip_writer_add(pf_zip_writer *z, const void *data, size_t n, peft_error *err) {
    PF_ASSERT(n <= z->left && z->n_members > 0);
    if (n == 0) return PEFT_OK;
    pf_zip_member *m = &z->members[z->n_members - 1];
    m->crc = (uint32_t)crc32_z(m->crc, data, n); /* 0 starts one */
    z->left -= n;
    return pf_file_writer_add(&z->file, data, n, err);
}

peft_status pf_zip_writer_end(pf_zip_writer *z, peft_error *err) {
    PF_ASSERT(z->left == 0 && z->n_members > 0);
    const pf_zip_member *m = &z->members[z->n_members - 1];
    unsigned width = is_large(z, m->size) ? 8 : 4;
    record r = {.n = 0};
    put(&r, 0x08074b50, 4);
    put(&r, m->crc, 4);
    put(&r, m->size, width);
    put(&r, m->size, width);
    return write_record(z, &r, err);
}

peft_status pf_zip_writer_member(pf_zip_writer *z, const char *name, const void *data, size_t n,
                                 peft_error *err) {
    PF_TRY(pf_zip_writer_begin(z, name, n, err));
    PF_TRY(pf_zip_writer_add(z, data, n, err));
    return pf_zip_writer_end(z, err);
}

/* 4.3.12: one entry of the central directory. */
static peft_status write_entry(pf_zip_writer *z, const pf_zip_member *m, peft_error *err) {
    bool large_size = is_large(z, m->size), large_offset = is_large(z, m->offset);
    unsigned n64 = (large_size ? 16u : 0u) + (large_offset ? 8u : 0u);
    unsigned version = n64 > 0 ? VERSION_64 : VERSION;
    record r = {.n = 0};
    put(&r, 0x02014b50, 4);
    put(&r, version, 2); /* made by; the upper byte 0: no attributes of a system */
    put(&r, version, 2);
    put(&r, FLAGS, 2);
    put(&r, 0, 2);
    put(&r, 0, 2);
    put(&r, DATE, 2);
    put(&r, m->crc, 4);
    put(&r, large_size ? UINT32_MAX : m->size, 4);
    put(&r, large_size ? UINT32_MAX : m->size, 4);
    put(&r, strlen(m->name), 2);
    put(&r, n64 > 0 ? n64 + 4 : 0, 2);
    put(&r, 0, 2); /* no comment, */
    put(&r, 0, 2); /* one disk, */
    put(&r, 0, 2); /* no attributes */
    put(&r, 0, 4);
    put(&r, large_offset ? UINT32_MAX : m->offset, 4);
    PF_TRY(write_record(z, &r, err));
    PF_TRY(pf_file_writer_add(&z->file, m->name, strlen(m->name), err));
    r.n = 0;
    if (n64 > 0) {
        put(&r, EXTRA_ZIP64, 2);
        put(&r, n64, 2);
    }
    if (large_size) {
        put(&r, m->size, 8);
        put(&r, m->size, 8);
    }
    if (large_offset) put(&r, m->offset, 8);
    return write_record(z, &r, err);
}

peft_status pf_zip_writer_commit(pf_zip_writer *z, peft_error *err) {
    PF_ASSERT(z->left == 0);
    uint64_t start = z->file.written, n = (uint64_t)z->n_members;
    for (int i = 0; i < z->n_members; i++) PF_TRY(write_entry(z, &z->members[i], err));
    uint64_t end = z->file.written, size = end - start;
    bool many = z->n_members > z->most_members16;
    record r = {.n = 0};
    if (many || is_large(z, start) || is_large(z, size)) {
        put(&r, 0x06064b50, 4); /* 4.3.14: the end in 64 bits */
        put(&r, 44, 8);
        put(&r, VERSION_64, 2);
        put(&r, VERSION_64, 2);
        put(&r, 0, 4);
        put(&r, 0, 4);
        put(&r, n, 8);
        put(&r, n, 8);
        put(&r, size, 8);
        put(&r, start, 8);
        put(&r, 0x07064b50, 4); /* 4.3.15: and where it is */
        put(&r, 0, 4);
        put(&r, end, 8);
        put(&r, 1, 4);
    }
    put(&r, 0x06054b50, 4); /* 4.3.16 */
    put(&r, 0, 2);
    put(&r, 0, 2);
    put(&r, many ? UINT16_MAX : n, 2);
    put(&r, many ? UINT16_MAX : n, 2);
    put(&r, is_large(z, size) ? UINT32_MAX : size, 4);
    put(&r, is_large(z, start) ? UINT32_MAX : start, 4);
    put(&r, 0, 2);
    PF_TRY(write_record(z, &r, err));
    return pf_file_writer_commit(&z->file, err);
}

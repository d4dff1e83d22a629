/* file_util.h - for tests of file formats: a safetensors file from its parts, and a folder that is
 * empty and goes away. */
#ifndef FILE_UTIL_H
#define FILE_UTIL_H

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* length, header, then n_data bytes 0, 1, 2, ...; the caller frees it. */
static inline unsigned char *make_safetensors(const char *header, size_t n_header, size_t n_data,
                                              size_t *size) {
    *size = 8 + n_header + n_data;
    unsigned char *p = malloc(*size);
    assert_non_null(p);
    for (unsigned i = 0; i < 8; i++) p[i] = (unsigned char)(n_header >> (8 * i));
    memcpy(p + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) p[8 + n_header + i] = (unsigned char)i;
    return p;
}

/* TEST_BINARY_DIR/tmp/NAME, emptied. */
static inline const char *fresh_dir(pf_arena *a, const char *name) {
    const char *path = pf_arena_printf(a, "%s/tmp/%s", TEST_BINARY_DIR, name);
    assert_non_null(path);
    assert_int_equal(pf_remove_tree(path, NULL), PEFT_OK);
    assert_int_equal(pf_make_dirs(path, NULL), PEFT_OK);
    return path;
}

static inline const char *put_file(pf_arena *a, const char *dir, const char *name, const void *data,
                                   size_t n) {
    const char *path = pf_path_join(a, dir, name);
    assert_non_null(path);
    assert_int_equal(pf_write_file(path, data, n, NULL), PEFT_OK);
    return path;
}

static inline const char *put_text(pf_arena *a, const char *dir, const char *name,
                                   const char *text) {
    return put_file(a, dir, name, text, strlen(text));
}

static inline void assert_same_file(const char *a, const char *b) {
    pf_mapping x, y;
    assert_int_equal(pf_map_file(&x, a, NULL), PEFT_OK);
    assert_int_equal(pf_map_file(&y, b, NULL), PEFT_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    pf_unmap_file(&x);
    pf_unmap_file(&y);
}

#endif

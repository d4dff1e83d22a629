/* safetensors.c: files of the reference library read right, every malformed class is refused with
 * its message, and no truncation or flipped byte of a small file does anything but that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "formats/file_util.h"
#include "base/mem.h"
#include "formats/safetensors.h"

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/"

static void test_reads_what_the_reference_wrote(void **state) {
    (void)state;
    pf_safetensors st;
    peft_error err;
    assert_int_equal(pf_safetensors_open(&st, GOLDEN "all_types.safetensors", &err), PEFT_OK);
    assert_int_equal(st.n_tensors, 22);
    assert_string_equal(pf_safetensors_metadata(&st, "format"), "pt");
    assert_null(pf_safetensors_metadata(&st, "other"));
    size_t at = 0;
    for (int i = 0; i < st.n_tensors; i++) { /* in order of their data, without gaps */
        assert_true(st.tensors[i].data ==
                    (const unsigned char *)st.map.data + 8 + st.header_size + at);
        at += st.tensors[i].bytes;
        assert_ptr_equal(pf_safetensors_find(&st, st.tensors[i].name), &st.tensors[i]);
    }
    assert_null(pf_safetensors_find(&st, "layer.f33"));

    /* the script's formula: (i + start) * 5 mod 37, minus 18, over 8 */
    const pf_stored_tensor *t = pf_safetensors_find(&st, "three.dims");
    assert_non_null(t);
    assert_int_equal(t->dtype, PF_DTYPE_BF16);
    assert_int_equal(t->n_dims, 3);
    assert_true(t->shape[0] == 2 && t->shape[1] == 1 && t->shape[2] == 5);
    float x[10];
    pf_dtype_to_f32(t->dtype, t->data, 10, x);
    for (int i = 0; i < 10; i++) assert_true(x[i] == (float)((i + 3) * 5 % 37 - 18) / 8.0f);
    t = pf_safetensors_find(&st, "quote \" backslash \\ newline \n bell \x07 é 日本 😀");
    assert_non_null(t);
    pf_dtype_to_f32(t->dtype, t->data, 3, x);
    assert_true(x[0] == 0 && x[1] == 5 && x[2] == 10);
    t = pf_safetensors_find(&st, "scalar");
    assert_true(t != NULL && t->n_dims == 0 && pf_stored_tensor_count(t) == 1);
    pf_dtype_to_f32(t->dtype, t->data, 1, x);
    assert_true(x[0] == -2.5f);
    t = pf_safetensors_find(&st, "empty");
    assert_true(t != NULL && t->bytes == 0 && t->shape[1] == 4 && pf_stored_tensor_count(t) == 0);
    pf_safetensors_close(&st);
    pf_safetensors_close(&st); /* again, and NULL, are fine */
    pf_safetensors_close(NULL);
}

static void test_views_of_tensors(void **state) {
    (void)state;
    pf_safetensors st;
    peft_error err;
    pf_weight w;
    assert_int_equal(pf_safetensors_open(&st, GOLDEN "all_types.safetensors", &err), PEFT_OK);
    assert_int_equal(pf_stored_weight(pf_safetensors_find(&st, "three.dims"), "f", &w, &err),
                     PEFT_OK);
    assert_true(w.rows == 2 && w.cols == 5 && w.dtype == PF_DTYPE_BF16);
    assert_int_equal(pf_stored_weight(pf_safetensors_find(&st, "scalar"), "f", &w, &err), PEFT_OK);
    assert_true(w.rows == 1 && w.cols == 1);
    assert_int_equal(pf_stored_weight(pf_safetensors_find(&st, "layer.f8_e4m3"), "f", &w, &err),
                     PEFT_E_UNSUPPORTED);
    assert_string_equal(
        err.message,
        "f: tensor 'layer.f8_e4m3' is stored as F8_E4M3, which cannot be computed with; "
        "convert the model to bfloat16, float16 or float32");
    pf_safetensors_close(&st);
}

/* Headers that are right in unusual ways. */
static void test_accepts(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        int n_tensors;
    } rows[] = {
        {"{}", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{ \t\r\n}  \n ", 0, 0},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, 1},
        {"{\"a\":{\"data_offsets\" : [0 , 3],\"shape\":[ 3 ],\n\"dtype\":\"I8\"} }   ", 3, 1},
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,3]},\"a\":{\"dtype\":\"U8\","
         "\"shape\":[2],"
         "\"data_offsets\":[0,2]}}",
         3, 2}, /* not in order of offsets */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807],\"data_offsets\":[0,0]},"
         "\"b\":{\"dtype\":"
         "\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"c\":{\"dtype\":\"F64\",\"shape\":[0],"
         "\"data_offsets\":[2,"
         "2]}}",
         2, 3}, /* empty ones at both ends */
        {"{\"\\u0061\\u00e9\\ud83d\\ude00\\/"
         "\":{\"\\u0064type\":\"F\\u0034\",\"shape\":[2,3],\"data_offsets\":[0,"
         "3]}}",
         3, 1},
        {"{\"\":{\"dtype\":\"BOOL\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, 1},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        size_t size;
        unsigned char *p =
            make_safetensors(rows[i].header, strlen(rows[i].header), rows[i].n_data, &size);
        pf_safetensors st;
        peft_error err = {0};
        if (pf_safetensors_parse(&st, p, size, "x", &err) != PEFT_OK)
            fail_msg("%zu: %s", i, err.message);
        assert_int_equal(st.n_tensors, rows[i].n_tensors);
        if (i == 5)
            assert_true(strcmp(st.tensors[0].name, "a") == 0 &&
                        *(const char *)st.tensors[1].data == 2);
        if (i == 7) assert_non_null(pf_safetensors_find(&st, "aé😀/"));
        pf_safetensors_close(&st);
        free(p);
    }
}

#define T1 "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]"
#define U8(name, from, to, n)                                                                      \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[" #from "," #to "]}"

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *message;
    } rows[] = {
        /* clang-format off */
        /* JSON */
        {"", 0, "x: header, byte 8: the header must begin with '{'"},
        {" {}", 0, "x: header, byte 8: the header must begin with '{'"},
        {"[]", 0, "x: header, byte 8: the header must begin with '{'"},
        {"{", 0, "x: header, byte 9: expected a tensor's name in quotes, but the header ends"},
        {"{a:1}", 0, "x: header, byte 9: expected a tensor's name in quotes"},
        {"{\"a\"", 0, "x: header, byte 12: expected ':' after a name, but the header ends"},
        {"{\"a\":1}", 0, "x: header, byte 13: expected '{' of a tensor's entry"},
        {"{\"a\":null}", 0, "x: header, byte 13: expected '{' of a tensor's entry"},
        {"{\"a\":[[[[[[[[[[", 0, "x: header, byte 13: expected '{' of a tensor's entry"},
        {"{\"a\":{" T1 "}", 1, "x: header, byte 60: expected ',' or '}' after an entry, but the header ends"},
        {"{\"a\":{" T1 "},}", 1, "x: header, byte 61: expected a tensor's name in quotes"},
        {"{\"a\":{" T1 ",}}", 1, "x: header, byte 60: expected a key in quotes"},
        {"{\"a\":{" T1 "]}", 1, "x: header, byte 59: expected ',' or '}' in a tensor's entry"},
        {"{}x", 0, "x: header, byte 10: something stands after the closing '}'; only white space may"},
        {"{}{}", 0, "x: header, byte 10: something stands after the closing '}'; only white space may"},
        {"{\"a", 0, "x: header, byte 9: text without a closing quote"},
        {"{\"a\\\"", 0, "x: header, byte 9: text without a closing quote"},
        {"{\"a\\", 0, "x: header, byte 9: text without a closing quote"},
        {"{\"a\nb\":{" T1 "}}", 1, "x: header, byte 11: a bare control character in text"},
        {"{\"\\q\":{" T1 "}}", 1, "x: header, byte 10: an unknown escape in text"},
        {"{\"\\u12g4\":{" T1 "}}", 1, "x: header, byte 10: \\u needs four hexadecimal digits"},
        {"{\"\\ud83d\":{" T1 "}}", 1, "x: header, byte 10: a \\u surrogate without its other half"},
        {"{\"\\ud83d\\u0041\":{" T1 "}}", 1, "x: header, byte 10: a \\u surrogate without its other half"},
        {"{\"\\ude00\":{" T1 "}}", 1, "x: header, byte 10: a \\u surrogate without its other half"},
        {"{\"\\u0000\":{" T1 "}}", 1, "x: header, byte 10: a NUL character in text"},
        {"{\"a\xff\":{" T1 "}}", 1, "x: header, byte 11: not valid UTF-8"},
        {"{\"a\xc0\xaf\":{" T1 "}}", 1, "x: header, byte 11: not valid UTF-8"},
        {"{}\xe2\x82", 0, "x: header, byte 10: not valid UTF-8"},
        /* entries */
        {"{\"a\":{}}", 0, "x: tensor 'a' has no dtype"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "x: tensor 'a' has no shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "x: tensor 'a' has no data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\"," T1 "}}", 1, "x: tensor 'a' has dtype twice"},
        {"{\"a\":{" T1 ",\"shape\":[1]}}", 1, "x: tensor 'a' has shape twice"},
        {"{\"a\":{" T1 ",\"data_off\\u0073ets\":[0,1]}}", 1, "x: tensor 'a' has data_offsets twice"},
        {"{\"a\":{" T1 ",\"strides\":[1]}}", 1, "x: tensor 'a' has an unknown key 'strides'"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "x: tensor 'a': unknown dtype 'F31'"},
        {"{\"a\":{\"dtype\":\"u8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "x: tensor 'a': unknown dtype 'u8'"},
        {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "x: header, byte 22: expected a dtype in quotes"},
        {"{\"a\":{\"shape\":1}}", 1, "x: header, byte 22: expected '[' of a shape"},
        {"{\"a\":{\"shape\":[1 2]}}", 1, "x: header, byte 25: expected ',' or ']' in a shape"},
        {"{\"a\":{\"shape\":[-1]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[1.0]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[1e2]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[01]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[\"1\"]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[9223372036854775808]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[18446744073709551617]}}", 1, "x: header, byte 23: a dimension must be a whole number from 0 to 2^63-1"},
        {"{\"a\":{\"shape\":[1,1,1,1,1,1,1,1,1]}}", 1, "x: tensor 'a' has more than 8 dimensions"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "x: tensor 'a': shape [4294967296,4294967296] is too large for any machine"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[9223372036854775807],\"data_offsets\":[0,0]}}", 0, "x: tensor 'a': shape [9223372036854775807] is too large for any machine"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,0,4294967296],\"data_offsets\":[0,0]}}", 0, "x: tensor 'a': shape [4294967296,0,4294967296] is too large for any machine"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "x: tensor 'a': shape [3] of F4 does not fill whole bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,20]}}", 20, "x: tensor 'a': [2,3] numbers of F32 need 24 bytes, data_offsets [0,20] give 20"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,1]}}", 1, "x: tensor 'a': [0] numbers of U8 need 0 bytes, data_offsets [0,1] give 1"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "x: tensor 'a': data_offsets [1,0] end before they begin"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "x: header, byte 56: expected ',' between two data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "x: header, byte 58: expected ']' after two data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", 1, "x: header, byte 57: the second of data_offsets must be a whole number from 0 to 2^63-1"},
        /* all together */
        {"{" U8("a", 0, 2, 2) "," U8("b", 1, 3, 2) "}", 3, "x: tensors 'a' and 'b' overlap: one ends at offset 2, the other begins at 1"},
        {"{" U8("a", 0, 2, 2) "," U8("b", 0, 2, 2) "}", 2, "x: tensors 'a' and 'b' overlap: one ends at offset 2, the other begins at 0"},
        {"{" U8("a", 0, 2, 2) "," U8("b", 1, 1, 0) "}", 2, "x: tensors 'a' and 'b' overlap: one ends at offset 2, the other begins at 1"},
        {"{" U8("a", 0, 2, 2) "," U8("b", 3, 5, 2) "}", 5, "x: offsets 2 to 3, before tensor 'b', belong to no tensor"},
        {"{" U8("a", 1, 2, 1) "}", 2, "x: offsets 0 to 1, before tensor 'a', belong to no tensor"},
        {"{" U8("a", 0, 2, 2) "}", 3, "x: 1 bytes after the last tensor belong to no tensor"},
        {"{}", 1, "x: 1 bytes after the last tensor belong to no tensor"},
        {"{" U8("a", 0, 2, 2) "," U8("b", 2, 9, 7) "}", 4, "x: the file has 117 bytes, its tensors need 122: it is truncated (was a download interrupted?)"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807],\"data_offsets\":[0,9223372036854775807]}}", 4, "x: the file has 101 bytes, its tensors need 9223372036854775904: it is truncated (was a download interrupted?)"},
        {"{" U8("a", 0, 1, 1) "," U8("b", 1, 2, 1) "," U8("\\u0061", 2, 3, 1) "}", 3, "x: tensor 'a' is there twice"},
        {"{" U8("a", 0, 1, 1) "," U8("a", 0, 1, 1) "}", 1, "x: tensor 'a' is there twice"},
        {"{" U8("a", 0, 0, 0) "," U8("a", 0, 0, 0) "}", 0, "x: tensor 'a' is there twice"},
        /* metadata */
        {"{\"__metadata__\":[]}", 0, "x: header, byte 24: expected '{' of __metadata__"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "x: header, byte 29: expected text in quotes: values of __metadata__ are text"},
        {"{\"__metadata__\":{\"a\":null}}", 0, "x: header, byte 29: expected text in quotes: values of __metadata__ are text"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "x: header, byte 29: expected text in quotes: values of __metadata__ are text"},
        {"{\"__metadata__\":{\"a\":\"b\",\"c\":\"d\",\"a\":\"e\"}}", 0, "x: __metadata__ has key 'a' twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "x: __metadata__ is there twice"},
        /* clang-format on */
    };
    int wrong = 0;
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        size_t size;
        unsigned char *p =
            make_safetensors(rows[i].header, strlen(rows[i].header), rows[i].n_data, &size);
        pf_safetensors st;
        peft_error err = {0};
        peft_status status = pf_safetensors_parse(&st, p, size, "x", &err);
        assert_true(status == PEFT_E_FORMAT || status == PEFT_E_UNSUPPORTED);
        if (strcmp(err.message, rows[i].message) != 0) {
            wrong++;
            print_error("%s\n    gave: %s\n    want: %s\n", rows[i].header, err.message,
                        rows[i].message);
        }
        assert_true(st.n_tensors == 0 && st.tensors == NULL && st.path == NULL);
        free(p);
    }
    assert_int_equal(wrong, 0);
}

static void test_starts(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } rows[] = {
        /* clang-format off */
        {"", 0, "x: the file has 0 bytes; a safetensors file begins with 8 that give the length of its header"},
        {"\2\0\0\0\0\0\0", 7, "x: the file has 7 bytes; a safetensors file begins with 8 that give the length of its header"},
        {"\0\0\0\0\0\0\0\0", 8, "x: header, byte 8: the header must begin with '{'"},
        {"\3\0\0\0\0\0\0\0{}", 10, "x: a header of 3 bytes, but only 2 follow; the file is truncated, or no safetensors file"},
        {"\1\xe1\xf5\5\0\0\0\0{}", 10, "x: a header of 100000001 bytes, at most 100000000 are allowed; the file is truncated, or no safetensors file"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "x: a header of 18446744073709551615 bytes, at most 100000000 are allowed; the file is truncated, or no safetensors file"},
        {"\0\xe1\xf5\5\0\0\0\0{}", 10, "x: a header of 100000000 bytes, but only 2 follow; the file is truncated, or no safetensors file"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, "x: a header of 2336927755350992246 bytes, at most 100000000 are allowed; the file is a Git LFS pointer, not the file itself: run `git lfs pull` there"},
        {"PK\3\4\0\0\10\10\0\0", 10, "x: a header of 578712552184433488 bytes, at most 100000000 are allowed; the file is a PyTorch file (zip and pickle): convert it to safetensors first"},
        {"<!DOCTYPE html>", 15, "x: a header of 5789751444030890300 bytes, at most 100000000 are allowed; the file is a web page, as a failed download leaves one"},
        /* clang-format on */
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        unsigned char *p = malloc(rows[i].n + 1);
        assert_non_null(p);
        memcpy(p, rows[i].bytes, rows[i].n);
        pf_safetensors st;
        peft_error err = {0};
        assert_int_equal(pf_safetensors_parse(&st, p, rows[i].n, "x", &err), PEFT_E_FORMAT);
        assert_string_equal(err.message, rows[i].message);
        free(p);
    }
    pf_safetensors st;
    peft_error err;
    assert_int_equal(pf_safetensors_open(&st, "/nonexistent/m.safetensors", &err), PEFT_E_MISSING);
    assert_non_null(strstr(err.message, "/nonexistent/m.safetensors"));
    assert_int_equal(pf_safetensors_open(&st, TEST_SOURCE_DIR, &err), PEFT_E_MISSING);
}

/* Every length short of the whole is refused; every single flipped bit is refused or gives a file
 * within its bounds (the sanitizer sees reads outside). Exact heap copies, so that one byte too far
 * is one byte too far. */
static void try_bytes(const unsigned char *bytes, size_t n, bool must_fail) {
    unsigned char *p = malloc(n > 0 ? n : 1);
    assert_non_null(p);
    memcpy(p, bytes, n);
    pf_safetensors st;
    peft_error err = {0};
    if (pf_safetensors_parse(&st, p, n, "x", &err) == PEFT_OK) {
        assert_false(must_fail);
        volatile unsigned sum = 0;
        size_t total = 0;
        for (int i = 0; i < st.n_tensors; i++) {
            const unsigned char *d = st.tensors[i].data;
            for (size_t k = 0; k < st.tensors[i].bytes; k++) sum += d[k];
            total += st.tensors[i].bytes;
            assert_ptr_equal(pf_safetensors_find(&st, st.tensors[i].name), &st.tensors[i]);
        }
        assert_int_equal(total, n - 8 - st.header_size);
        pf_safetensors_close(&st);
    } else {
        assert_true(strncmp(err.message, "x: ", 3) == 0 && strchr(err.message, '\n') == NULL);
    }
    free(p);
}

static void test_truncated_and_flipped(void **state) {
    (void)state;
    static const char *const files[] = {GOLDEN "adapter/adapter_model.safetensors",
                                        GOLDEN "all_types.safetensors",
                                        GOLDEN "unaligned.safetensors"};
    for (size_t f = 0; f < PF_COUNT(files); f++) {
        pf_mapping map;
        assert_int_equal(pf_map_file(&map, files[f], NULL), PEFT_OK);
        unsigned char *p = malloc(map.size);
        assert_non_null(p);
        memcpy(p, map.data, map.size);
        for (size_t n = 0; n < map.size; n++) try_bytes(p, n, true);
        try_bytes(p, map.size, false);
        for (size_t i = 0; i < map.size; i++) {
            static const unsigned char flips[] = {1, 2, 4, 8, 16, 32, 64, 128, 255};
            for (size_t k = 0; k < PF_COUNT(flips); k++) {
                p[i] ^= flips[k];
                try_bytes(p, map.size, false);
                p[i] ^= flips[k];
            }
        }
        free(p);
        pf_unmap_file(&map);
    }
}

/* A failing allocation at any point is an error, never a crash or a leak. */
static void test_out_of_memory(void **state) {
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"k\":\"v\"}," U8("a", 0, 2, 2) "}";
    size_t size;
    unsigned char *p = make_safetensors(header, sizeof header - 1, 2, &size);
    peft_status status = PEFT_E_NOMEM;
    int64_t n = 1;
    for (; status != PEFT_OK && n < 100; n++) {
        pf_safetensors st;
        pf_alloc_fail_at(n);
        status = pf_safetensors_parse(&st, p, size, "x", NULL);
        pf_alloc_fail_at(0);
        assert_true(status == PEFT_OK || status == PEFT_E_NOMEM);
        pf_safetensors_close(&st);
    }
    assert_true(n > 3 && status == PEFT_OK);
    free(p);
}

/* Names that would spoil a terminal or a log line are shown escaped and cut. */
static void test_names_in_messages(void **state) {
    (void)state;
    char out[PF_NAME_TEXT], longer[1000];
    assert_string_equal(pf_name_text("a\nb\x1b[31m\x7fé\xff", out, sizeof out),
                        "'a\\x0ab\\x1b[31m\\x7fé\\xff'");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    pf_name_text(longer, out, sizeof out);
    assert_true(strlen(out) < sizeof out && strcmp(out + strlen(out) - 4, "...'") == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_what_the_reference_wrote),
        cmocka_unit_test(test_views_of_tensors),
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_starts),
        cmocka_unit_test(test_truncated_and_flipped),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_names_in_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

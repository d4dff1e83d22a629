/* zip_pt.c, zip_writer.c: the pickle that torch.save writes, in an archive whose every field is
 * checked by a reader that is written here from the format's description; 64-bit fields forced on
 * small files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "formats/file_util.h"
#include "formats/safetensors.h"
#include "formats/zip_pt.h"
#include "formats/zip_writer.h"

#include <errno.h>
#include <zlib.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/formats/"

/* ---- a zip reader -------------------------------------------------------------------------- */

typedef struct member {
    char name[100];
    const unsigned char *data;
    uint64_t size, extra_size;
} member;

static uint64_t le(const unsigned char *p, unsigned n) {
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* All members in order of the directory; checks every field against every other. Returns their
 * number. */
static int read_zip(const pf_mapping *m, member *out, int room) {
    assert_true(m->size >= 22);
    const unsigned char *p = m->data, *end = p + m->size - 22;
    assert_int_equal(le(end, 4), 0x06054b50);
    assert_int_equal(le(end + 20, 2), 0);
    uint64_t n = le(end + 10, 2), size = le(end + 12, 4), start = le(end + 16, 4),
             stop = m->size - 22;
    assert_int_equal(le(end + 8, 2), n);
    if (m->size >= 42 && le(end - 20, 4) == 0x07064b50) {
        const unsigned char *e = p + le(end - 12, 8);
        stop = le(end - 12, 8);
        assert_int_equal(le(end - 4, 4), 1);
        assert_int_equal(le(e, 4), 0x06064b50);
        assert_int_equal(le(e + 4, 8), 44);
        assert_ptr_equal(e + 56, end - 20);
        assert_true(n == 0xffff || n == le(e + 32, 8));
        assert_true(size == 0xffffffff || size == le(e + 40, 8));
        assert_true(start == 0xffffffff || start == le(e + 48, 8));
        n = le(e + 32, 8);
        size = le(e + 40, 8);
        start = le(e + 48, 8);
    }
    assert_int_equal(start + size, stop);
    assert_true((int)n <= room);
    const unsigned char *c = p + start;
    uint64_t covered = 0; /* members follow each other without gaps */
    for (uint64_t i = 0; i < n; i++) {
        assert_int_equal(le(c, 4), 0x02014b50);
        uint64_t name_size = le(c + 28, 2), extra = le(c + 30, 2);
        uint64_t packed = le(c + 20, 4), full = le(c + 24, 4), at = le(c + 42, 4),
                 crc = le(c + 16, 4);
        const unsigned char *x = c + 46 + name_size;
        if (extra > 0) {
            assert_int_equal(le(x, 2), 1);
            assert_int_equal(le(x + 2, 2), extra - 4);
            x += 4;
            if (full == 0xffffffff) full = le(x, 8), x += 8;
            if (packed == 0xffffffff) packed = le(x, 8), x += 8;
            if (at == 0xffffffff) at = le(x, 8), x += 8;
            assert_ptr_equal(x, c + 46 + name_size + extra);
        }
        assert_int_equal(packed, full);
        assert_int_equal(at, covered);
        const unsigned char *l = p + at;
        assert_int_equal(le(l, 4), 0x04034b50);
        assert_int_equal(le(l + 6, 2), 0x0808);
        assert_int_equal(le(l + 8, 2), 0); /* stored */
        assert_int_equal(le(l + 14, 4), 0);
        assert_int_equal(le(l + 26, 2), name_size);
        assert_memory_equal(l + 30, c + 46, name_size);
        uint64_t local_extra = le(l + 28, 2);
        const unsigned char *data = l + 30 + name_size + local_extra, *d = data + full;
        assert_int_equal((uint64_t)(data - p) % 64, 0);
        assert_int_equal(crc32(0, data, (uInt)full), crc);
        bool large = le(l + 30 + name_size, 2) == 1;
        assert_int_equal(le(l + 18, 4), large ? 0xffffffff : 0);
        assert_int_equal(le(d, 4), 0x08074b50);
        assert_int_equal(le(d + 4, 4), crc);
        assert_int_equal(le(d + 8, large ? 8 : 4), full);
        assert_int_equal(le(d + (large ? 16 : 12), large ? 8 : 4), full);
        covered = (uint64_t)(d - p) + (large ? 24 : 16);
        assert_true(name_size < sizeof out[i].name);
        memcpy(out[i].name, c + 46, name_size);
        out[i].name[name_size] = 0;
        out[i].data = data;
        out[i].size = full;
        out[i].extra_size = extra;
        c += 46 + name_size + extra;
    }
    assert_int_equal(covered, start);
    assert_ptr_equal(c, p + stop);
    return (int)n;
}

/* ---- the archive --------------------------------------------------------------------------- */

static const char *const names[] = {
    "layer.0.float32",
    "layer.1.bfloat16",
    "layer.2.float16",
    "layer.3.float64",
    "layer.4.int64",
    "layer.5.int32",
    "layer.6.int16",
    "layer.7.int8",
    "layer.8.uint8",
    "layer.9.bool",
    "layer.10.complex64",
    "embed.weight",
    "conv",
    "scalar",
    "empty.é",
    "vector",
};
#define N ((int)PF_COUNT(names))

static peft_status feed(void *ctx, int index, const pf_stored_tensor *t, pf_tensor_sink *sink,
                        peft_error *err) {
    bool *asked = ctx;
    asked[index] = true;
    for (size_t i = 0; i < t->bytes; i++)
        PF_TRY(pf_tensor_sink_add(sink, (const char *)t->data + i, 1, err));
    return PEFT_OK;
}

static void test_same_pickle_as_torch(void **state) {
    (void)state;
    pf_arena a;
    pf_safetensors st;
    pf_mapping map, pickle;
    pf_stored_tensor list[N + 1];
    int same_as[N + 1];
    bool asked[N + 1] = {false};
    member members[N + 5];
    peft_error err;
    pf_arena_init(&a, "test");
    const char *path = pf_path_join(&a, fresh_dir(&a, "zip_pt"), "state.pt");
    assert_int_equal(pf_safetensors_open(&st, GOLDEN "state.safetensors", &err), PEFT_OK);
    for (int i = 0; i < N; i++) {
        list[i] = *pf_safetensors_find(&st, names[i]);
        same_as[i] = -1;
    }
    list[N] = *pf_safetensors_find(&st, "embed.weight");
    list[N].name = "head.weight";
    same_as[N] = 11;
    assert_int_equal(pf_pt_write(path, list, N + 1, same_as, feed, asked, NULL, &err), PEFT_OK);
    assert_int_equal(pf_map_file(&map, path, NULL), PEFT_OK);
    assert_int_equal(read_zip(&map, members, PF_COUNT(members)), N + 3);
    assert_string_equal(members[0].name, "state/data.pkl");
    assert_int_equal(pf_map_file(&pickle, GOLDEN "state.pkl", NULL), PEFT_OK);
    assert_int_equal(members[0].size, pickle.size);
    assert_memory_equal(members[0].data, pickle.data, pickle.size);
    assert_string_equal(members[1].name, "state/byteorder");
    assert_true(members[1].size == 6 && memcmp(members[1].data, "little", 6) == 0);
    for (int i = 0; i < N; i++) {
        char want[40];
        snprintf(want, sizeof want, "state/data/%d", i);
        assert_string_equal(members[2 + i].name, want);
        assert_int_equal(members[2 + i].size, list[i].bytes);
        assert_memory_equal(members[2 + i].data, list[i].data, list[i].bytes);
        assert_true(asked[i]);
    }
    assert_false(asked[N]); /* it shares the storage of another */
    assert_string_equal(members[N + 2].name, "state/version");
    assert_true(members[N + 2].size == 2 && memcmp(members[N + 2].data, "3\n", 2) == 0);
    pf_unmap_file(&pickle);
    pf_unmap_file(&map);

    /* one tensor takes another opcode than several; the folder in the archive is the file's name */
    const int64_t two[] = {2};
    const float ones[] = {1, 1};
    path = pf_path_join(&a, pf_path_dir(&a, path), "one.v2.pt");
    assert_int_equal(pf_stored_tensor_set(&list[0], "only", PF_DTYPE_F32, 1, two, ones, NULL),
                     PEFT_OK);
    assert_int_equal(pf_pt_write(path, list, 1, NULL, NULL, NULL, NULL, &err), PEFT_OK);
    assert_int_equal(pf_map_file(&map, path, NULL), PEFT_OK);
    assert_int_equal(read_zip(&map, members, PF_COUNT(members)), 4);
    assert_string_equal(members[0].name, "one.v2/data.pkl");
    assert_int_equal(pf_map_file(&pickle, GOLDEN "one.pkl", NULL), PEFT_OK);
    assert_int_equal(members[0].size, pickle.size);
    assert_memory_equal(members[0].data, pickle.data, pickle.size);
    pf_unmap_file(&pickle);
    pf_unmap_file(&map);
    pf_safetensors_close(&st);
    pf_arena_release(&a);
}

/* The 64-bit fields of sizes, offsets and counts, each alone and all together, on an archive of a
 * few bytes. */
static void test_wide_fields(void **state) {
    (void)state;
    pf_arena a;
    peft_error err;
    member members[300];
    unsigned char data[3000];
    pf_arena_init(&a, "test");
    const char *path = pf_path_join(&a, fresh_dir(&a, "zip_pt"), "wide.zip");
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7 >> 3);
    static const struct {
        uint64_t largest32;
        int most_members16;
        bool wide; /* entries have 64-bit fields */
    } rows[] = {{0xfffffffe, 0xfffe, false},
                {0xfffffffe, 3, false},
                {1500, 0xfffe, true},
                {20, 2, true},
                {0, 0, true}};
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        pf_zip_writer z;
        pf_mapping map;
        static const size_t sizes[] = {0, 1, 63, 64, 65, 3000, 20, 21};
        assert_int_equal(pf_zip_writer_open(&z, path, &err), PEFT_OK);
        z.largest32 = rows[i].largest32;
        z.most_members16 = rows[i].most_members16;
        for (size_t k = 0; k < PF_COUNT(sizes); k++) {
            char name[40];
            snprintf(name, sizeof name, "m/%zu%.*s", k, (int)k, "---------");
            assert_int_equal(pf_zip_writer_member(&z, name, data, sizes[k], &err), PEFT_OK);
        }
        assert_int_equal(pf_zip_writer_commit(&z, &err), PEFT_OK);
        pf_zip_writer_close(&z);
        assert_int_equal(pf_map_file(&map, path, NULL), PEFT_OK);
        assert_int_equal(read_zip(&map, members, 300), PF_COUNT(sizes));
        bool wide = false;
        for (size_t k = 0; k < PF_COUNT(sizes); k++) {
            assert_int_equal(members[k].size, sizes[k]);
            assert_memory_equal(members[k].data, data, sizes[k]);
            wide = wide || members[k].extra_size > 0;
        }
        assert_int_equal(wide, rows[i].wide);
        pf_unmap_file(&map);
    }
    pf_arena_release(&a);
}

static void test_refusals_and_faults(void **state) {
    (void)state;
    pf_arena a;
    peft_error err;
    pf_strlist left;
    pf_arena_init(&a, "test");
    const char *dir = fresh_dir(&a, "zip_pt"), *path = pf_path_join(&a, dir, "f.pt");
    const int64_t two[] = {2};
    const float data[] = {1, 2};
    pf_stored_tensor t[2];
    assert_int_equal(pf_stored_tensor_set(&t[0], "a", PF_DTYPE_F32, 1, two, data, NULL), PEFT_OK);
    assert_int_equal(pf_stored_tensor_set(&t[1], "b", PF_DTYPE_F8_E5M2, 1, two, data, NULL),
                     PEFT_OK);
    assert_int_equal(pf_pt_write(path, t, 2, NULL, NULL, NULL, NULL, &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(
        err.message, "f.pt: tensor 'b': F8_E5M2 cannot be stored in a .pt file; use safetensors"));
    t[1] = t[0];
    assert_int_equal(pf_pt_write(path, t, 2, NULL, NULL, NULL, NULL, &err), PEFT_E_FORMAT);
    assert_non_null(strstr(err.message, "f.pt: two tensors are called 'a'"));
    t[1].name = "\xff";
    assert_int_equal(pf_pt_write(path, t, 2, NULL, NULL, NULL, NULL, &err), PEFT_E_FORMAT);
    int failures = 0;
    for (int64_t n = 1; n < 50; n++, failures++) {
        pf_file_fault(n, ENOSPC, false);
        peft_status status = pf_pt_write(path, t, 1, NULL, NULL, NULL, NULL, &err);
        pf_file_fault(0, 0, false);
        if (status == PEFT_OK) break;
        assert_non_null(strstr(err.message, dir));
        assert_int_equal(pf_list_dir(&left, &a, dir, NULL), PEFT_OK);
        assert_true(left.n == 0 || (left.n == 1 && strcmp(left.items[0], "f.pt") == 0));
    }
    assert_true(failures >= 3);
    for (int64_t n = 1; n < 60; n++) {
        pf_alloc_fail_at(n);
        peft_status status = pf_pt_write(path, t, 1, NULL, NULL, NULL, NULL, &err);
        pf_alloc_fail_at(0);
        if (status == PEFT_OK) break;
        assert_int_equal(status, PEFT_E_NOMEM);
    }
    assert_true(pf_is_pickle_name("a/pytorch_model.bin") && pf_is_pickle_name("x.pt") &&
                !pf_is_pickle_name("pt"));
    assert_int_equal(pf_refuse_pickle("a/pytorch_model.bin", &err), PEFT_E_UNSUPPORTED);
    assert_non_null(strstr(
        err.message, "a/pytorch_model.bin is a PyTorch pickle; reading one can run whatever"));
    pf_arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_pickle_as_torch),
        cmocka_unit_test(test_wide_fields),
        cmocka_unit_test(test_refusals_and_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

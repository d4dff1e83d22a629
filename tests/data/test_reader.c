/* test_reader.c - every format gives the same records; every way to be wrong says where. */
#include "data/reader.h"

#include "data_test.h"

#include <zlib.h>

static void expect_rows(const char *path, const pf_reader_options *opt, const char *reader,
                        const int64_t *lines) {
    pf_data_file f;
    peft_error err = {0};
    if (pf_data_file_open(&f, path, opt, &err) != PEFT_OK) fail_msg("%s", err.message);
    assert_string_equal(f.reader->name, reader);
    static const char *const questions[] = {"Capital of France?", "Say \"hi\",\nplease"};
    static const char *const answers[] = {"Paris", "hi"};
    bool more = false;
    pf_record r;
    for (int i = 0; i < 2; i++) {
        if (pf_data_file_next(&f, &r, &more, &err) != PEFT_OK) fail_msg("%s", err.message);
        assert_true(more);
        assert_int_equal(r.row, i + 1);
        assert_int_equal(r.line, lines[i]);
        assert_int_equal(r.n, 2);
        assert_text(pf_record_find(&r, "question")->value, questions[i]);
        assert_text(pf_record_find(&r, "answer")->value, answers[i]);
        assert_null(pf_record_find(&r, "quest"));
    }
    assert_int_equal(pf_data_file_next(&f, &r, &more, &err), PEFT_OK);
    assert_false(more);
    assert_int_equal(pf_data_file_next(&f, &r, &more, &err), PEFT_OK);
    assert_false(more);
    assert_int_equal(f.rows, 2);
    pf_data_file_close(&f);
}

static const char csv_text[] = "question,answer\r\nCapital of France?,Paris\r\n\"Say \"\"hi\"\",\n"
                               "please\",hi\r\n";
static const char json_text[] =
    "\xef\xbb\xbf[\n {\"question\": \"Capital of France?\", \"answer\": \"Paris\"},\n\n"
    " {\"question\": \"Say \\\"hi\\\",\\nplease\",\n  \"answer\": \"hi\"}]\n";
static const char member_text[] =
    "{\"version\": [1], \"note\": {\"data\": []}, \"data\":\n [{\"question\": \"Capital of "
    "France?\", \"answer\": \"Paris\"}, {\"question\": \"Say \\\"hi\\\",\\nplease\","
    "  \"answer\": \"hi\"}], \"more\": 3}";
static const char jsonl_text[] =
    "{\"question\": \"Capital of France?\", \"answer\": \"Paris\"}\n\n"
    "{\"question\": \"Say \\\"hi\\\",\\nplease\",  \"answer\": \"hi\"}";

static void test_formats(void **state) {
    (void)state;
    expect_rows(write_text("a.csv", csv_text), NULL, "csv", (int64_t[]){2, 3});
    expect_rows(write_text("a.data", csv_text), NULL, "csv", (int64_t[]){2, 3});
    expect_rows(write_text("A.JSON", json_text), NULL, "json", (int64_t[]){2, 4});
    expect_rows(write_text("a.jsonl", json_text), NULL, "json", (int64_t[]){2, 4});
    expect_rows(write_text("b.json", member_text), NULL, "json", (int64_t[]){2, 2});
    expect_rows(write_text("a.jsonl", jsonl_text), NULL, "jsonl", (int64_t[]){1, 3});
    expect_rows(write_text("c.json", jsonl_text), NULL, "jsonl", (int64_t[]){1, 3});
    expect_rows(write_text("a", jsonl_text), NULL, "jsonl", (int64_t[]){1, 3});
    pf_reader_options opt = {.format = "csv"};
    expect_rows(write_text("a.txt", csv_text), &opt, "csv", (int64_t[]){2, 3});
    opt = (pf_reader_options){.field = "data"};
    expect_rows(write_text("b.json", member_text), &opt, "json", (int64_t[]){2, 2});
    expect_rows(write_text("a.tsv", "question\tanswer\nCapital of France?\tParis\n\"Say \"\"hi\"\","
                                    "\nplease\"\thi\n"),
                NULL, "csv", (int64_t[]){2, 3});
    const char *names[] = {"question", "answer"};
    pf_strlist columns = {names, 2};
    opt = (pf_reader_options){.columns = &columns};
    expect_rows(write_text("a.csv", csv_text + 17), &opt, "csv", (int64_t[]){1, 2});
}

static void test_gzip(void **state) {
    (void)state;
    unsigned char packed[1024];
    size_t n = 0;
    for (int member = 0; member < 2; member++) { /* two members, as cat a.gz b.gz gives */
        z_stream z = {0};
        assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        size_t half = sizeof csv_text / 2, from = member ? half : 0;
        z.next_in = (Bytef *)(csv_text + from);
        z.avail_in = (uInt)(member ? sizeof csv_text - 1 - half : half);
        z.next_out = packed + n;
        z.avail_out = (uInt)(sizeof packed - n);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        n += z.total_out;
        deflateEnd(&z);
    }
    expect_rows(write_bytes("a.csv.gz", packed, n), NULL, "csv", (int64_t[]){2, 3});
    expect_rows(write_bytes("a.csv", packed, n), NULL, "csv", (int64_t[]){2, 3});
    for (size_t cut = 2; cut < n; cut += 7) {
        pf_data_file f;
        peft_error err = {0};
        peft_status status =
            pf_data_file_open(&f, write_bytes("cut.csv.gz", packed, cut), NULL, &err);
        if (status == PEFT_OK)
            pf_data_file_close(&f); /* between the members */
        else
            assert_says(&err, "not valid gzip: the file ends too early");
    }
    packed[20] ^= 0x55;
    pf_data_file f;
    peft_error err = {0};
    assert_int_equal(pf_data_file_open(&f, write_bytes("bad.csv.gz", packed, n), NULL, &err),
                     PEFT_E_FORMAT);
    assert_says(&err, "not valid gzip");
}

static void test_values(void **state) {
    (void)state;
    const char *path = write_text(
        "values.jsonl",
        "{\"text\": \"a\\u0000b\", \"int\": 12345678901234567, \"real\": 0.1, \"yes\": true, "
        "\"none\": null, \"list\": [\"x\", 2, 1.5, false], \"hole\": [1, null], \"empty\": [], "
        "\"deep\": [1, [2]], \"object\": {\"b\": \"\xc3\xa9\", \"a\": [1]}}");
    pf_data_file f;
    pf_record r;
    bool more = false;
    assert_int_equal(pf_data_file_open(&f, path, NULL, NULL), PEFT_OK);
    assert_int_equal(pf_data_file_next(&f, &r, &more, NULL), PEFT_OK);
    assert_true(more);
    assert_int_equal(r.n, 10);
    assert_int_equal(r.fields[0].value.n, 3);
    assert_memory_equal(r.fields[0].value.p, "a\0b", 3);
    assert_text(pf_record_find(&r, "int")->value, "12345678901234567");
    assert_text(pf_record_find(&r, "real")->value, "0.1");
    assert_text(pf_record_find(&r, "yes")->value, "true");
    assert_null(pf_record_find(&r, "none")->value.p); /* not an empty text */
    assert_int_equal(pf_record_find(&r, "none")->value.n, 0);
    assert_text(pf_record_find(&r, "list")->value, "x, 2, 1.5, false");
    assert_text(pf_record_find(&r, "hole")->value, "[1, null]"); /* nothing is dropped unseen */
    assert_text(pf_record_find(&r, "empty")->value, "");
    assert_non_null(pf_record_find(&r, "empty")->value.p);
    assert_text(pf_record_find(&r, "deep")->value, "[1, [2]]");
    assert_text(pf_record_find(&r, "object")->value, "{\"b\": \"\xc3\xa9\", \"a\": [1]}");
    pf_data_file_close(&f);
}

static void test_plain_text(void **state) {
    (void)state;
    const char *path = write_text("plain.txt", "\xef\xbb\xbfOne, day.\r\n\n\nTwo\nThree");
    pf_data_file f;
    pf_record r;
    bool more = false;
    static const char *const texts[] = {"One, day.", "Two", "Three"};
    static const int64_t lines[] = {1, 4, 5};
    assert_int_equal(pf_data_file_open(&f, path, NULL, NULL), PEFT_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pf_data_file_next(&f, &r, &more, NULL), PEFT_OK);
        assert_true(more);
        assert_int_equal(r.line, lines[i]);
        assert_text(pf_record_find(&r, "text")->value, texts[i]);
    }
    assert_int_equal(pf_data_file_next(&f, &r, &more, NULL), PEFT_OK);
    assert_false(more);
    pf_data_file_close(&f);
}

/* Opens and reads to the end; the first error. */
static peft_status read_all(const char *path, const pf_reader_options *opt, peft_error *err) {
    pf_data_file f;
    PF_TRY(pf_data_file_open(&f, path, opt, err));
    peft_status status = PEFT_OK;
    pf_record r;
    for (bool more = true; more && status == PEFT_OK;)
        status = pf_data_file_next(&f, &r, &more, err);
    pf_data_file_close(&f);
    return status;
}

static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *says;
    } rows[] = {
        {"e.csv", "", "e.csv is empty"},
        {"e.json", " \n\t", "e.json is empty"},
        {"e.csv", "a,b\n1,2,3\n", "e.csv:2"},
        {"e.csv", "a,b\n1,\"2\n", "e.csv:2"},
        {"e.json", "[{\"a\": 1},\n {\"a\": }]", "e.json:2:8: not valid JSON"},
        {"e.json", "[{\"a\": 1},\n\n 7]",
         "e.json:3: row 2 is a whole number; it should be an object"},
        {"e.json", "[{\"a\": 1}\n {\"a\": 2}]", "e.json:2:"},
        {"e.json", "[{\"a\": 1}", "e.json:1:"},
        {"e.json", "[{\"a\": 1},]", "e.json:1:"},
        {"e.json", "{\"rows\": 3}", "has no list \"data\""},
        {"e.json", "{\"rows\": [], \"other\": []}", "it has: rows, other"},
        {"e.json", "{\"a\": [{}], \"b\" 3}", "e.json:1:"},
        {"e.json", "{\"a\": [{}], \"b\": 3x}", "e.json:1:"},
        {"e.json", "{\"a\": [{}]} {}", "e.json:1:"},
        {"e.json", "{\"a\": [{}]", "e.json:1:"},
        {"e.json", "[{}]\n]", "e.json:2:"},
        {"e.json", "\"text\"", "expected a list of objects"},
        {"e.jsonl", "{\"a\": 1}\n[1]\n", "e.jsonl:2: row 2 is a list"},
        {"e.jsonl", "{\"a\": 1}\n{\"a\": 1\n", "e.jsonl:2:"},
        {"e.jsonl", "{\"a\": 1, \"a\": 2}\n", "e.jsonl:1:"},
        {"e.parquet", "PAR1", ".parquet files are not read; convert it to JSONL"},
        {"e.xlsx", "PK", "save the sheet as CSV"},
        {"e.bin", "what is this", "set data.format to one of: csv, json, jsonl, text"},
        {"e.txt", "ok\n\xff\n", "e.txt:2: not UTF-8 text (byte 0xff)"},
    };
    for (size_t i = 0; i < PF_COUNT(rows); i++) {
        peft_error err = {0};
        if (read_all(write_text(rows[i].name, rows[i].text), NULL, &err) == PEFT_OK)
            fail_msg("accepted: %s", rows[i].text);
        assert_says(&err, rows[i].says);
    }
    peft_error err = {0};
    assert_int_equal(read_all(TEST_BINARY_DIR "/no/such.csv", NULL, &err), PEFT_E_MISSING);
    assert_says(&err, "such.csv");
    assert_int_equal(read_all(TEST_BINARY_DIR, NULL, &err), PEFT_E_FORMAT);
    assert_says(&err, "is a folder");
    pf_reader_options opt = {.format = "xml"};
    assert_int_equal(read_all(write_text("e.csv", "a\n1\n"), &opt, &err), PEFT_E_CONFIG);
    assert_says(&err, "no data format \"xml\"");
    opt = (pf_reader_options){.field = "train"};
    assert_int_equal(read_all(write_text("e.json", member_text), &opt, &err), PEFT_E_FORMAT);
    assert_says(&err, "has no list \"train\"");
}

/* Deep nesting and huge counts of brackets end in a message. */
static void test_hostile(void **state) {
    (void)state;
    static char deep[200002];
    memset(deep, '[', 200000);
    peft_error err = {0};
    assert_int_equal(read_all(write_bytes("deep.json", deep, 200000), NULL, &err), PEFT_E_FORMAT);
    memset(deep, '}', 200000);
    deep[0] = '{';
    assert_int_not_equal(read_all(write_bytes("deep.json", deep, 200000), NULL, &err), PEFT_OK);
    deep[0] = '[';
    deep[1] = '"';
    assert_int_not_equal(read_all(write_bytes("deep.json", deep, 200000), NULL, &err), PEFT_OK);
}

static void test_real_files(void **state) {
    (void)state;
    static const struct {
        const char *path;
        int64_t rows;
    } files[] = {
        {"qa-epic/train.csv", 1100},   {"gsm8k/train.jsonl", 7473},
        {"alpaca-en/train.json", 885}, {"english-quotes/train.jsonl", 0},
        {"sst2/train.tsv", 6920},      {"tinystories/test.txt", 0},
        {"kto/test.json", 0},
    };
    if (!pf_is_dir(TEST_SHARED_DIR "/data/datasets")) {
        print_message("no %s: skipped\n", TEST_SHARED_DIR);
        skip();
    }
    const char *names[] = {"sentence", "label"};
    pf_strlist columns = {names, 2};
    for (size_t i = 0; i < PF_COUNT(files); i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/data/datasets/%s", TEST_SHARED_DIR, files[i].path);
        pf_reader_options opt = {.columns = pf_ends_with(path, ".tsv") ? &columns : NULL};
        pf_data_file f;
        peft_error err = {0};
        if (pf_data_file_open(&f, path, &opt, &err) != PEFT_OK) fail_msg("%s", err.message);
        pf_record r;
        for (bool more = true; more;)
            if (pf_data_file_next(&f, &r, &more, &err) != PEFT_OK) fail_msg("%s", err.message);
        if (files[i].rows > 0) assert_int_equal(f.rows, files[i].rows);
        assert_true(f.rows > 10);
        pf_data_file_close(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),    cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_values),     cmocka_unit_test(test_plain_text),
        cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

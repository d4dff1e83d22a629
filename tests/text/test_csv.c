/* test_csv.c - RFC 4180 and its neighbours, row by row. */
#include "base/buf.h"
#include "text/csv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Everything read, as "line:[field|field]" rows, or the error. */
static void render(pf_buf *out, const char *text, size_t n, const pf_csv_options *opt) {
    pf_csv c;
    peft_error err = {0};
    if (pf_csv_open(&c, text, n, "t.csv", opt, &err) != PEFT_OK) {
        pf_buf_adds(out, err.message);
        return;
    }
    for (int i = 0; i < c.n_columns; i++)
        pf_buf_addf(out, "%s%.*s", i > 0 ? "|" : "", (int)c.columns[i].n, c.columns[i].p);
    for (bool more = true; more;) {
        if (pf_csv_next(&c, &more, &err) != PEFT_OK) {
            pf_buf_addf(out, " %s", err.message);
            break;
        }
        if (!more) break;
        pf_buf_addf(out, " %lld:[", (long long)c.line);
        for (int i = 0; i < c.n_columns; i++)
            pf_buf_addf(out, "%s%.*s", i > 0 ? "|" : "", (int)c.fields[i].n, c.fields[i].p);
        pf_buf_adds(out, "]");
    }
    pf_csv_close(&c);
}

static void check(const char *text, size_t n, const pf_csv_options *opt, const char *expected) {
    pf_buf out = {0};
    char *copy = malloc(n + 1); /* exact size, so that a sanitizer sees a byte too far */
    assert_non_null(copy);
    memcpy(copy, text, n);
    render(&out, copy, n, opt);
    assert_string_equal(pf_buf_str(&out), expected);
    free(copy);
    pf_buf_free(&out);
}

static void test_rows(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"q,a\n1,2\n", "q|a 2:[1|2]"},
        {"q,a\r\n1,2\r\n3,4", "q|a 2:[1|2] 3:[3|4]"},
        {"q,a\r1,2\r3,4\r", "q|a 2:[1|2] 3:[3|4]"},
        {"\xef\xbb\xbfq,a\n1,2\n", "q|a 2:[1|2]"},
        {" q , a \n 1 , 2 \n", "q|a 2:[ 1 | 2 ]"},
        {"q,a\n\"x, y\",\"say \"\"hi\"\"\"\n", "q|a 2:[x, y|say \"hi\"]"},
        {"q,a\n\"two\nlines\",1\n\"three\r\nlines\rhere\",2\nlast,3\n",
         "q|a 2:[two\nlines|1] 4:[three\r\nlines\rhere|2] 7:[last|3]"},
        {"q,a\n\"\",\n,\n", "q|a 2:[|] 3:[|]"},
        {"q,a\n\n1,2\n\r\n\n3,4\n\n", "q|a 3:[1|2] 6:[3|4]"},
        {"q,a\nit's 5\" long,2\n", "q|a 2:[it's 5\" long|2]"},
        {"q;a\n1,5;2\n", "q|a 2:[1,5|2]"},
        {"q\ta,b\tc\n1\t2\t3\n", "q|a,b|c 2:[1|2|3]"},
        {"\"a;b\",c\n1,2\n", "a;b|c 2:[1|2]"},
        {"only\nx\n\"\"\ny\n", "only 2:[x] 3:[] 4:[y]"},
        {"q,a", "q|a"},
        {",q\n0,1\n", "|q 2:[0|1]"},
        {",,q\n0,1,2\n", "||q 2:[0|1|2]"},
        /* errors */
        {"", "t.csv: is empty; its first row should hold the names of the columns"},
        {"\n\n", "t.csv: is empty; its first row should hold the names of the columns"},
        {"q,a,q\n", "t.csv:1: two columns have the name \"q\""},
        {"\xff\xfeq", "t.csv: is UTF-16; save it as UTF-8"},
        {"q,a\n1,2\n\n1\n", "q|a 2:[1|2] t.csv:4: this row has 1 field, the header has 2; a field "
                            "with the delimiter in it needs quotes"},
        {"q,a\n\"x\ny\",2,3\n",
         "q|a t.csv:2: this row has 3 fields, the header has 2; a field with "
         "the delimiter in it needs quotes"},
        {"q,a\n1,2\n\n1,\"open\n2,3\n4,5\n",
         "q|a 2:[1|2] t.csv:4: a quote (\") opens in this line and never closes"},
        {"q,a\n\"x\n\"y,2\n",
         "q|a t.csv:3: text follows a closing quote in field 1; a quote inside a "
         "quoted field is written twice (\"\")"},
        {"q,a\n1,\xe9t\xe9\n", "q|a t.csv:2: byte 0xe9 is not UTF-8"},
        {"q,a\n\"1\n2\n\xff\",3\n", "q|a t.csv:4: byte 0xff is not UTF-8"},
    };
    for (size_t i = 0; i < PF_COUNT(cases); i++)
        check(cases[i].text, strlen(cases[i].text), NULL, cases[i].expected);
    check("q,a\n1,\0\n", 8, NULL, "q|a t.csv:2: a NUL byte; is this a text file in UTF-8?");
}

static void test_options(void **state) {
    (void)state;
    const char *names[2] = {"text", "label"};
    const pf_strlist columns = {names, 2};
    const pf_csv_options tsv = {.delimiter = '\t', .columns = &columns};
    check("good, isn't it\t1\n", 17, &tsv, "text|label 1:[good, isn't it|1]");
    check("\"open\t1\n", 8, &tsv,
          "text|label t.csv:1: a quote (\") opens in this line and never closes");
    const pf_csv_options plain = {.delimiter = '\t', .columns = &columns, .no_quotes = true};
    check("\"open\t1\n", 8, &plain, "text|label 1:[\"open|1]");
    const pf_csv_options pipe = {.delimiter = '|'};
    check("a|b\n1,2|3\n", 10, &pipe, "a|b 2:[1,2|3]");
    const pf_csv_options bad = {.delimiter = '\n'};
    check("a\n", 2, &bad,
          "t.csv: the delimiter should be one ASCII character, no quote and no line end");
}

static void test_many_columns(void **state) {
    (void)state;
    pf_buf b = {0};
    for (int i = 0; i < PF_CSV_MAX_COLUMNS; i++) pf_buf_addf(&b, "%sc%d", i > 0 ? "," : "", i);
    pf_csv c;
    peft_error err = {0};
    assert_int_equal(pf_csv_open(&c, b.data, b.len, "t.csv", NULL, &err), PEFT_OK);
    assert_int_equal(c.n_columns, PF_CSV_MAX_COLUMNS);
    assert_int_equal(pf_csv_column(&c, "c777"), 777);
    assert_int_equal(pf_csv_column(&c, "C777"), -1);
    pf_csv_close(&c);
    pf_buf_adds(&b, ",x");
    assert_int_equal(pf_csv_open(&c, b.data, b.len, "t.csv", NULL, &err), PEFT_E_FORMAT);
    assert_string_equal(err.message,
                        "t.csv:1: more than 10000 fields in one row; is the delimiter right?");
    pf_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_many_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_cfg.c - rows to structs: types, bounds, sources and their order, origins, dump, unused keys;
 * on rows of its own. */
#include "config/cfg.h"
#include "text/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct inner_cfg {
    int r;
    float alpha;
    pf_cfg_strings names;
} inner_cfg;

typedef struct kind_cfg {
    bool given;
    int64_t patience;
} kind_cfg;

typedef struct kinds_cfg {
    kind_cfg stop, other;
} kinds_cfg;

typedef struct top_cfg {
    const char *method;
    int64_t big;
    double rate;
    bool flag;
    const char *text, *choice;
    uint64_t size;
    pf_cfg_ints layers;
    pf_cfg_map free, numbers;
    kinds_cfg kinds;
} top_cfg;

static const pf_cfg_row inner_rows[] = {
    PF_CFG_INT(inner_cfg, r, 8, 1, 1024, "rank", .aliases = "rank"),
    PF_CFG_FLOAT(inner_cfg, alpha, 16, 0, 1e4, "scale"),
    PF_CFG_STRLIST(inner_cfg, names, "a,b", "names"), PF_CFG_END};

static const pf_cfg_row kind_rows[] = {PF_CFG_INT(kind_cfg, patience, 3, 1, 100, "patience"),
                                       PF_CFG_END};

static const pf_cfg_row kinds_rows[] = {PF_CFG_OPTIONAL(kinds_cfg, stop, kind_rows, "stop"),
                                        PF_CFG_OPTIONAL(kinds_cfg, other, kind_rows, "other"),
                                        PF_CFG_END};

static const pf_cfg_row section_rows[] = {
    PF_CFG_ENUM(top_cfg, method, "lora", NULL, "method"),
    PF_CFG_INT(top_cfg, big, 0, -1e15, 1e15, "big"),
    PF_CFG_FLOAT(top_cfg, rate, 0.5, 0, 1, "rate", .flags = PF_CFG_ABOVE_MIN),
    PF_CFG_BOOL(top_cfg, flag, true, "flag", .note = "changes nothing"),
    PF_CFG_STR(top_cfg, text, NULL, "text"),
    PF_CFG_ENUM(top_cfg, choice, "auto", "auto float32=fp32 bfloat16=bf16", "choice"),
    PF_CFG_SIZE(top_cfg, size, "1M", "size"),
    PF_CFG_INTLIST(top_cfg, layers, 0, 99, "layers"),
    PF_CFG_MAP(top_cfg, free, "free"),
    PF_CFG_NUMMAP(top_cfg, numbers, 1, 10, "numbers", .flags = PF_CFG_WHOLE),
    PF_CFG_KINDS(top_cfg, kinds, kinds_rows, "kinds"),
    PF_CFG_END};

typedef struct root_cfg {
    top_cfg top;
    int64_t seed;
} root_cfg;

static const pf_cfg_row rows[] = {PF_CFG_SECTION(root_cfg, top, section_rows, "everything"),
                                  PF_CFG_INT(root_cfg, seed, 42, 0, 9e15, "seed"), PF_CFG_END};

static const pf_cfg_ext ext[] = {{"top", "lora", "low rank", inner_rows, sizeof(inner_cfg), NULL},
                                 {"top", "dora", "the other", inner_rows, sizeof(inner_cfg), NULL}};

typedef struct fixture {
    pf_arena arena;
    root_cfg root;
    pf_cfg cfg;
    peft_error err;
    peft_status status;
} fixture;

static void load(fixture *f, const char *text, const char *const *args, int n,
                 const char *const *env) {
    *f = (fixture){0};
    pf_arena_init(&f->arena, "test");
    assert_int_equal(pf_cfg_open(&f->cfg, &f->arena, rows, &f->root, ext, 2, &f->err), PEFT_OK);
    const pf_cfg_source source = {.text = text,
                                  .text_len = strlen(text),
                                  .text_name = "t.yaml",
                                  .overrides = args,
                                  .n_overrides = n,
                                  .env = env};
    f->status = pf_cfg_read(&f->cfg, &source, &f->err);
    if (f->status == PEFT_OK) f->status = pf_cfg_finish(&f->cfg, &f->err);
}

static void drop(fixture *f) {
    pf_arena_release(&f->arena);
}

static void test_defaults(void **state) {
    (void)state;
    fixture f;
    load(&f, "", NULL, 0, NULL);
    assert_int_equal(f.status, PEFT_OK);
    const top_cfg *t = &f.root.top;
    assert_string_equal(t->method, "lora");
    assert_true(t->rate == 0.5 && t->flag && t->text == NULL && t->size == 1 << 20);
    assert_string_equal(t->choice, "auto");
    assert_int_equal(t->layers.n + t->free.n + t->numbers.n, 0);
    assert_false(t->kinds.stop.given);
    assert_int_equal(t->kinds.stop.patience, 3);
    assert_int_equal(f.root.seed, 42);
    const inner_cfg *lora = pf_cfg_section(&f.cfg, "top.lora");
    assert_int_equal(lora->r, 8);
    assert_int_equal(lora->names.list.n, 2);
    assert_string_equal(lora->names.list.items[1], "b");
    assert_false(pf_cfg_given(&f.cfg, "top"));
    assert_null(pf_cfg_find(&f.cfg, "top.none"));
    assert_null(pf_cfg_section(&f.cfg, "seed"));
    drop(&f);
}

static void test_values(void **state) {
    (void)state;
    fixture f;
    load(&f,
         "top:\n"
         "  method: dora\n"
         "  big: 1_000_000_000_000\n"
         "  rate: 2e-4\n"
         "  flag: No\n"
         "  text: 007\n"
         "  choice: FP32\n"
         "  size: 1.5G\n"
         "  layers: [3, 1e1]\n"
         "  free: {a: x, b: 2e-3}\n"
         "  numbers: {q: 4}\n"
         "  dora:\n"
         "    rank: \"4\"\n"
         "    alpha: 0.1\n"
         "    names: .*_proj\n"
         "  kinds:\n"
         "    - stop\n"
         "    - other: {patience: 5}\n"
         "seed: null\n",
         NULL, 0, NULL);
    assert_string_equal(f.err.message, "");
    const top_cfg *t = &f.root.top;
    assert_string_equal(t->method, "dora");
    assert_true(t->big == 1000000000000);
    assert_true(t->rate == 2e-4 && !t->flag);
    assert_string_equal(t->text, "007");
    assert_string_equal(t->choice, "float32");
    assert_true(t->layers.n == 2 && t->layers.items[0] == 3 && t->layers.items[1] == 10);
    assert_int_equal(t->free.n, 2);
    assert_string_equal(t->free.items[0].key, "a");
    assert_false(t->free.items[0].is_number);
    assert_true(t->free.items[1].is_number && t->free.items[1].number == 2e-3);
    assert_true(t->numbers.n == 1 && t->numbers.items[0].number == 4);
    assert_true(t->kinds.stop.given && t->kinds.other.given);
    assert_int_equal(t->kinds.stop.patience, 3);
    assert_int_equal(t->kinds.other.patience, 5);
    const inner_cfg *dora = pf_cfg_section(&f.cfg, "top.dora");
    assert_true(dora->r == 4 && dora->alpha == 0.1f && dora->names.single);
    assert_string_equal(dora->names.list.items[0], ".*_proj");
    assert_int_equal(f.root.seed, 42); /* null: as if it were not there */
    assert_false(pf_cfg_given(&f.cfg, "seed"));
    assert_true(pf_cfg_given(&f.cfg, "top.kinds.other"));
    assert_string_equal(pf_cfg_find(&f.cfg, "top.dora.r")->where, "t.yaml:13:11");
    /* the note of a row, once, because the key was given */
    assert_int_equal(f.cfg.notes.n, 1);
    assert_string_equal(f.cfg.notes.items[0], "top.flag: changes nothing");
    drop(&f);
}

static void test_precedence(void **state) {
    (void)state;
    const char *const env[] = {"HOME=/",      "PEFT_TOP__RATE=0.3", "PEFT_TOP__BIG=2",
                               "PEFT_SEED=7", "PEFT_ISA=avx2",      NULL};
    const char *const args[] = {"top.big=3"};
    fixture f;
    load(&f, "top:\n  rate: 0.2\n  big: 1\n  text: file\n", args, 1, env);
    assert_int_equal(f.status, PEFT_OK);
    assert_true(f.root.top.rate == 0.3);
    assert_int_equal(f.root.top.big, 3);
    assert_int_equal(f.root.seed, 7);
    const pf_cfg_item *rate = pf_cfg_find(&f.cfg, "top.rate"),
                      *big = pf_cfg_find(&f.cfg, "top.big");
    assert_int_equal(rate->from, PF_CFG_FROM_ENV);
    assert_string_equal(rate->where, "environment PEFT_TOP__RATE");
    assert_int_equal(big->from, PF_CFG_FROM_CLI);
    assert_string_equal(big->where, "command line");
    assert_int_equal(pf_cfg_find(&f.cfg, "top.text")->from, PF_CFG_FROM_FILE);
    assert_int_equal(pf_cfg_find(&f.cfg, "top.choice")->from, PF_CFG_FROM_DEFAULT);

    pf_buf out = {0};
    pf_cfg_dump(&f.cfg, &out);
    json_t *v = NULL;
    assert_int_equal(pf_json_parse(&v, out.data, out.len, "dump", &f.err), PEFT_OK);
    const json_t *top = json_object_get(v, "top"), *item = json_object_get(top, "rate");
    assert_true(json_real_value(json_object_get(item, "value")) == 0.3);
    assert_string_equal(json_string_value(json_object_get(item, "origin")),
                        "environment PEFT_TOP__RATE");
    item = json_object_get(top, "text");
    assert_string_equal(json_string_value(json_object_get(item, "origin")), "t.yaml:4:9");
    item = json_object_get(json_object_get(top, "dora"), "alpha");
    assert_string_equal(json_string_value(json_object_get(item, "origin")), "default");
    json_decref(v);
    pf_buf_free(&out);
    drop(&f);
}

static void test_overrides(void **state) {
    (void)state;
    static const char file[] = "top:\n"
                               "  big: 1\n"
                               "  layers: [1, 2, 3]\n"
                               "  numbers: {a: 1, b: 2}\n"
                               "  dora: {rank: 2, names: [x, y]}\n"
                               "  kinds:\n"
                               "    - other: {patience: 5}\n"
                               "    - stop\n";
    const char *const args[] = {"top.dora.rank=3", /* in place of the alias in the file */
                                "top.dora.names=[p, \"q r\"]",
                                "top.dora.names.0=z",
                                "top.lora.names=k_proj,v_proj",
                                "top.layers.1=9",
                                "~top.layers.0",
                                "top.numbers.b=7",
                                "top.numbers.c.d=8",
                                "~top.numbers.a",
                                "top.kinds.stop.patience=6",
                                "top.kinds.0.other.patience=7",
                                "top.text=a: {b} # c",
                                "~top.big"};
    fixture f;
    load(&f, file, args, (int)PF_COUNT(args), NULL);
    assert_string_equal(f.err.message, "");
    const top_cfg *t = &f.root.top;
    const inner_cfg *dora = pf_cfg_section(&f.cfg, "top.dora"),
                    *lora = pf_cfg_section(&f.cfg, "top.lora");
    assert_int_equal(dora->r, 3);
    assert_true(dora->names.list.n == 2 && !dora->names.single);
    assert_string_equal(dora->names.list.items[0], "z");
    assert_string_equal(dora->names.list.items[1], "q r");
    assert_true(lora->names.list.n == 2 && !lora->names.single);
    assert_true(t->layers.n == 2 && t->layers.items[0] == 9 && t->layers.items[1] == 3);
    assert_int_equal(t->numbers.n, 2);
    assert_string_equal(t->numbers.items[0].key, "b");
    assert_true(t->numbers.items[0].number == 7);
    assert_string_equal(t->numbers.items[1].key, "c.d");
    assert_true(t->kinds.stop.given && t->kinds.stop.patience == 6);
    assert_int_equal(t->kinds.other.patience, 7);
    assert_string_equal(t->text, "a: {b} # c");
    assert_int_equal(t->big, 0);
    assert_false(pf_cfg_given(&f.cfg, "top.big"));
    drop(&f);

    /* taking away a kind, all kinds, or what is not there */
    const char *const away[] = {"~top.kinds.stop", "~top.lora.r", "~top.dora"};
    load(&f, file, away, 3, NULL);
    assert_int_equal(f.status, PEFT_OK);
    assert_false(f.root.top.kinds.stop.given);
    assert_true(f.root.top.kinds.other.given);
    assert_int_equal(((inner_cfg *)pf_cfg_section(&f.cfg, "top.dora"))->r, 8);
    drop(&f);
    const char *const all[] = {"~top.kinds"};
    load(&f, file, all, 1, NULL);
    assert_int_equal(f.status, PEFT_OK);
    assert_false(f.root.top.kinds.stop.given || f.root.top.kinds.other.given);
    drop(&f);

    /* without a file: sections come into being; values in quotes are YAML texts; a later one wins
     */
    const char *const fresh[] = {
        "top.kinds.stop.patience=4", "top.text=\"Q\\nA\"", "seed=1", "seed=2",
        "top.kinds.other=null",      "top.free={a: 1}"};
    load(&f, "", fresh, 6, NULL);
    assert_int_equal(f.status, PEFT_OK);
    assert_true(f.root.top.kinds.stop.given && f.root.top.kinds.stop.patience == 4);
    assert_false(f.root.top.kinds.other.given);
    assert_string_equal(f.root.top.text, "Q\nA");
    assert_int_equal(f.root.seed, 2);
    assert_int_equal(f.root.top.free.n, 1);
    drop(&f);
}

static void test_override_mistakes(void **state) {
    (void)state;
    const char *const args[] = {"top.rat=1",
                                "tpo.rate=1",
                                "top.rate",
                                "=3",
                                "~",
                                "top.rate.x=3",
                                "top.kinds.3.stop.patience=1",
                                "top.layers.7=1",
                                "top.layers=[1",
                                "top.choice=flot32",
                                "top.size=much",
                                "top.numbers={a: 1.5}"};
    const char *const env[] = {"PEFT_TOP__RAT=1", "PEFT_TOP__FLAG=maybe", "PEFT_SEEED=3", NULL};
    fixture f;
    load(&f, "top: {layers: [1]}\n", args, (int)PF_COUNT(args), env);
    assert_int_equal(f.status, PEFT_E_CONFIG);
    assert_string_equal(
        f.err.message,
        "environment PEFT_TOP__RAT: top.rat is not a known key; did you mean top.rate?\n"
        "command line: top.rat is not a known key; did you mean top.rate?\n"
        "command line: tpo.rate is not a known key; did you mean top.rate?\n"
        "command line: \"top.rate\" is neither key.path=value nor ~key.path\n"
        "command line: \"=3\" is neither key.path=value nor ~key.path\n"
        "command line: \"~\" is neither key.path=value nor ~key.path\n"
        "command line: top.rate.x: top.rate is one value and has no key \"x\"\n"
        "command line: top.kinds.3.stop.patience: item 3 of top.kinds is not stop\n"
        "command line: top.layers.7: top.layers has no item 7 in t.yaml\n"
        "command line: top.layers: while parsing a flow sequence, did not find expected ',' or "
        "']'\n"
        "environment PEFT_TOP__FLAG: top.flag is \"maybe\"; it should be true or false\n"
        "command line: top.choice is \"flot32\"; it should be one of auto, float32, bfloat16; did "
        "you "
        "mean float32?\n"
        "command line: top.size is \"much\"; it should be a size such as 7G or 512MiB\n"
        "command line: top.numbers.a is 1.5; it should be a whole number between 1 and 10");
    drop(&f);
}

static void test_bounds(void **state) {
    (void)state;
    fixture f;
    load(&f, "top:\n  rate: 0\n  lora: {r: 1025, alpha: -1}\n  layers: [100]\n", NULL, 0, NULL);
    assert_string_equal(
        f.err.message,
        "t.yaml:2:9: top.rate is 0; it should be above 0 and at most 1 (0.5 is usual)\n"
        "t.yaml:3:13: top.lora.r is 1025; it should be between 1 and 1024 (8 is usual)\n"
        "t.yaml:3:26: top.lora.alpha is -1; it should be between 0 and 10000 (16 is "
        "usual)\n"
        "t.yaml:4:12: top.layers is 100; it should be a list of whole numbers between 0 "
        "and 99");
    drop(&f);
    load(&f, "top: {rate: 1, lora: {r: 1024, alpha: 0}, layers: [0, 99], big: -1e15}\n", NULL, 0,
         NULL);
    assert_int_equal(f.status, PEFT_OK);
    drop(&f);
    load(&f, "top: {big: 1e15, rate: nan, lora: {r: 99999999999999999999}}\n", NULL, 0, NULL);
    assert_string_equal(
        f.err.message,
        "t.yaml:1:24: top.rate is \"nan\"; it should be a number above 0 and at most 1 "
        "(0.5 is usual)\n"
        "t.yaml:1:39: top.lora.r is 99999999999999999999; it should be a whole number "
        "between 1 and 1024 (8 is usual)");
    drop(&f);
}

static void test_used(void **state) {
    (void)state;
    fixture f;
    load(&f, "top: {rate: 1, big: 3, lora: {r: 4, alpha: 1}}\nseed: 3\n", NULL, 0, NULL);
    pf_cfg_use(&f.cfg, "top.rate");
    pf_cfg_use(&f.cfg, "top.lora");
    pf_cfg_use(&f.cfg, "top.text"); /* not given: nothing to complain about either way */
    pf_strlist unused = {0};
    assert_int_equal(pf_cfg_unused(&f.cfg, &unused, &f.err), PEFT_OK);
    assert_int_equal(unused.n, 2);
    assert_string_equal(unused.items[0], "top.big");
    assert_string_equal(unused.items[1], "seed");
    drop(&f);
}

/* A hundred mistakes are kept, as many as fit are shown, the rest is counted. */
static void test_many_mistakes(void **state) {
    (void)state;
    pf_buf text = {0};
    for (int i = 0; i < 5000; i++) pf_buf_addf(&text, "unknown_key_%d: 1\n", i);
    fixture f;
    load(&f, pf_buf_str(&text), NULL, 0, NULL);
    assert_int_equal(f.status, PEFT_E_CONFIG);
    int lines = 1;
    for (const char *p = f.err.message; (p = strchr(p, '\n')) != NULL; p++) lines++;
    char last[64];
    snprintf(last, sizeof last, "\n... and %d more", 5000 - (lines - 1));
    assert_true(pf_ends_with(f.err.message, last));
    assert_true(pf_starts_with(f.err.message, "t.yaml:1:1: unknown_key_0 is not a known key; known "
                                              "sections: top, seed\nt.yaml:2:1: "));
    pf_buf_free(&text);
    drop(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_values),
        cmocka_unit_test(test_precedence), cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_bounds),     cmocka_unit_test(test_override_mistakes),
        cmocka_unit_test(test_used),       cmocka_unit_test(test_many_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

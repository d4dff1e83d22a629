/* reader.c - opens a data file with the reader that fits it; see reader.h. */
#include "data/reader.h"

#include "data/gunzip.h"

#include <string.h>
#include <strings.h>

#define PF_READER(name) extern const pf_reader pf_reader_##name;
#include "data/readers.def"
#undef PF_READER

const pf_reader *const pf_readers[] = {
#define PF_READER(name) &pf_reader_##name,
#include "data/readers.def"
#undef PF_READER
    NULL};

/* Extension of the name with ".gz" taken off, "" if there is none; borrowed from path or from the
 * arena. */
static const char *extension(pf_arena *a, const char *path, bool packed) {
    const char *base = pf_path_base(path);
    if (packed && pf_ends_with(base, ".gz"))
        base = pf_arena_strndup(a, base, strlen(base) - strlen(".gz"));
    const char *dot = base == NULL ? NULL : strrchr(base, '.');
    return dot == NULL ? "" : dot;
}

/* Files people have that are not text; what to do with each. */
static peft_status refuse_known(const char *path, const char *ext, peft_error *err) {
    static const struct {
        const char *ext, *advice;
    } known[] = {
        {".parquet", "convert it to JSONL (pandas: read_parquet(f).to_json(g, orient=\"records\", "
                     "lines=True))"},
        {".arrow", "convert it to JSONL (datasets: Dataset.to_json)"},
        {".xlsx", "save the sheet as CSV"},
        {".xls", "save the sheet as CSV"},
        {".zst", "unpack it first (zstd -d)"},
        {".bz2", "unpack it first (bunzip2)"},
        {".xz", "unpack it first (unxz)"},
        {".zip", "unpack it first (unzip)"},
    };
    for (size_t i = 0; i < PF_COUNT(known); i++)
        if (strcasecmp(ext, known[i].ext) == 0)
            return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: %s files are not read; %s", path,
                           known[i].ext, known[i].advice);
    return PEFT_OK;
}

static peft_status choose(pf_data_file *f, peft_error *err) {
    const char *format = f->opt.format;
    if (pf_streq(format, "tsv")) {
        format = "csv";
        if (f->opt.delimiter == 0) f->opt.delimiter = '\t';
    }
    if (format != NULL && !pf_streq(format, "auto")) {
        for (int i = 0; pf_readers[i] != NULL; i++)
            if (pf_streq(pf_readers[i]->name, format)) f->reader = pf_readers[i];
        if (f->reader == NULL)
            return PF_FAIL(err, PEFT_E_CONFIG, "%s: there is no data format \"%s\"", f->path,
                           format);
        return PEFT_OK;
    }
    const char *ext = extension(&f->arena, f->path, f->unpacked.data != NULL);
    PF_TRY(refuse_known(f->path, ext, err));
    for (int pass = 0; pass < 2; pass++) { /* by extension, then by content */
        for (int i = 0; pf_readers[i] != NULL; i++) {
            const pf_reader *r = pf_readers[i];
            bool ours = false;
            for (int k = 0; r->extensions[k] != NULL; k++)
                ours = ours || strcasecmp(ext, r->extensions[k]) == 0;
            if (ours == (pass == 0) && r->probe(f->text, f->n, ours)) {
                f->reader = r;
                return PEFT_OK;
            }
        }
    }
    pf_buf names = {0};
    for (int i = 0; pf_readers[i] != NULL; i++)
        pf_buf_addf(&names, "%s%s", i > 0 ? ", " : "", pf_readers[i]->name);
    pf_fail(err, PEFT_E_FORMAT,
            "%s: neither its name nor its content says what it is; set data.format to one of: %s",
            f->path, pf_buf_str(&names));
    pf_buf_free(&names);
    return PEFT_E_FORMAT;
}

char pf_data_first_char(const char *text, size_t n) {
    size_t i = n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n')) i++;
    return i < n ? text[i] : 0;
}

/* The bytes of the file are known: unpack, choose a reader, begin. */
static peft_status start(pf_data_file *f, const void *data, size_t n, peft_error *err) {
    pf_sha256_of(data, n, f->sha256);
    f->text = data;
    f->n = n;
    if (n >= 2 && memcmp(data, "\x1f\x8b", 2) == 0) {
        PF_TRY(pf_gunzip(&f->unpacked, data, n, f->path, err));
        f->text = pf_buf_str(&f->unpacked);
        f->n = f->unpacked.len;
    }
    if (pf_data_first_char(f->text, f->n) == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s is empty", f->path);
    PF_TRY(choose(f, err));
    peft_status status = f->reader->open(f, err);
    if (status != PEFT_OK) f->reader = NULL; /* open has undone its own */
    return status;
}

static peft_status begin(pf_data_file *f, const char *path, const pf_reader_options *opt,
                         peft_error *err) {
    memset(f, 0, sizeof *f);
    pf_arena_init(&f->arena, "data file");
    pf_arena_init(&f->row, "data row");
    f->path = pf_arena_strdup(&f->arena, path);
    PF_CHECK_ALLOC(f->path, err);
    if (opt != NULL) f->opt = *opt;
    if (f->opt.columns != NULL && f->opt.columns->n == 0) f->opt.columns = NULL;
    return PEFT_OK;
}

static peft_status map(pf_data_file *f, peft_error *err) {
    if (pf_is_dir(f->path))
        return PF_FAIL(err, PEFT_E_FORMAT, "%s is a folder; data.train and data.test name files",
                       f->path);
    return pf_map_file(&f->map, f->path, err);
}

peft_status pf_data_file_open(pf_data_file *f, const char *path, const pf_reader_options *opt,
                              peft_error *err) {
    peft_status status = begin(f, path, opt, err);
    if (status == PEFT_OK) status = map(f, err);
    if (status == PEFT_OK) status = start(f, f->map.data, f->map.size, err);
    if (status != PEFT_OK) pf_data_file_close(f);
    return status;
}

peft_status pf_data_text_open(pf_data_file *f, const char *path, const void *data, size_t n,
                              const pf_reader_options *opt, peft_error *err) {
    peft_status status = begin(f, path, opt, err);
    if (status == PEFT_OK) status = start(f, data, n, err);
    if (status != PEFT_OK) pf_data_file_close(f);
    return status;
}

peft_status pf_data_file_next(pf_data_file *f, pf_record *out, bool *more, peft_error *err) {
    pf_arena_reset(&f->row);
    *out = (pf_record){.path = f->path, .row = f->rows + 1};
    *more = false;
    PF_TRY(f->reader->next(f, out, more, err));
    if (*more) f->rows++;
    return PEFT_OK;
}

void pf_data_file_close(pf_data_file *f) {
    if (f == NULL) return;
    if (f->reader != NULL) f->reader->close(f);
    pf_buf_free(&f->unpacked);
    pf_unmap_file(&f->map);
    pf_arena_release(&f->row);
    pf_arena_release(&f->arena);
    memset(f, 0, sizeof *f);
}

const pf_field *pf_record_find(const pf_record *r, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; i < r->n; i++)
        if (r->fields[i].name.n == n && memcmp(r->fields[i].name.p, name, n) == 0)
            return &r->fields[i];
    return NULL;
}

char *pf_record_columns(const pf_record *r, char *out, size_t n) {
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < r->n; i++) {
        pf_str name = r->fields[i].name;
        if (at + name.n + sizeof ", , ..." > n) {
            if (at + sizeof " ..." <= n) memcpy(out + at, " ...", sizeof " ...");
            break;
        }
        if (i > 0) {
            memcpy(out + at, ", ", 2);
            at += 2;
        }
        if (name.n > 0) memcpy(out + at, name.p, name.n);
        at += name.n;
        out[at] = 0;
    }
    return out;
}

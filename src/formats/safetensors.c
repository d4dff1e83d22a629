/* safetensors.c - reading bytes that nobody vouches for.
 *
 * The file is taken in four steps, each of which relies only on what the ones before it have shown:
 *   1. the length in the first 8 bytes fits the limit and the file;
 *   2. the header is UTF-8 and is read by a scanner of just the JSON that the format allows
 * (json_scan.c): an object of objects, so there is no depth to limit;
 *   3. each entry is complete, and its shape and type need exactly the bytes that its offsets give
 * (checked products);
 *   4. names are unique, and the offsets in order cover the data from its first byte to its last.
 * Why so strict: a hole can hide a second file, an overlap can make a small file claim any amount
 * of memory, and a name given twice is read differently by different programs. An unknown key in an
 * entry is refused too: it would say something about the numbers that we do not understand.
 *
 * Messages name the file, the byte or the tensor, and the figures that do not agree. */
#include "formats/safetensors.h"

#include "base/mem.h"
#include "base/str.h"
#include "formats/json_scan.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

#define LENGTH_BYTES 8u

_Static_assert(sizeof(size_t) >= sizeof(int64_t), "offsets in mapped files need 64 bits");

/* ---- entries of the header --------------------------------------------------------- */

typedef struct entry {
    pf_stored_tensor tensor;
    size_t begin; /* where the data starts; it ends tensor.bytes later, at most at 2^63-1 */
} entry;

typedef struct entry_list {
    entry *items;
    int n, cap;
} entry_list;

static peft_status add_entry(entry_list *list, const entry *e, peft_error *err) {
    if (list->n == list->cap) {
        int cap = list->cap > 0 ? 2 * list->cap : 64;
        entry *grown = pf_realloc(list->items, (size_t)cap * sizeof *grown);
        PF_CHECK_ALLOC(grown, err);
        list->items = grown;
        list->cap = cap;
    }
    list->items[list->n++] = *e;
    return PEFT_OK;
}

static peft_status scan_dtype(pf_scan *s, pf_stored_tensor *t) {
    char name[PF_NAME_TEXT], given[PF_NAME_TEXT];
    const char *text;
    PF_TRY(pf_scan_text(s, "a dtype in quotes", &text));
    t->dtype = pf_dtype_by_name(text, strlen(text));
    if (t->dtype != PF_DTYPE_NONE) return PEFT_OK;
    return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: tensor %s: unknown dtype %s", s->path,
                   pf_name_text(t->name, name, sizeof name),
                   pf_name_text(text, given, sizeof given));
}

static peft_status scan_shape(pf_scan *s, pf_stored_tensor *t) {
    char name[PF_NAME_TEXT];
    bool more;
    PF_TRY(pf_scan_begin(s, '[', ']', "'[' of a shape", &more));
    while (more) {
        int64_t d;
        PF_TRY(pf_scan_size(s, "a dimension", &d));
        if (t->n_dims == PF_STORED_DIMS) {
            return PF_FAIL(s->err, PEFT_E_UNSUPPORTED, "%s: tensor %s has more than %d dimensions",
                           s->path, pf_name_text(t->name, name, sizeof name), PF_STORED_DIMS);
        }
        t->shape[t->n_dims++] = d;
        PF_TRY(pf_scan_another(s, ']', "',' or ']' in a shape", &more));
    }
    return PEFT_OK;
}

static peft_status scan_offsets(pf_scan *s, int64_t *begin, int64_t *end) {
    PF_TRY(pf_scan_expect(s, '[', "'[' of data_offsets"));
    PF_TRY(pf_scan_size(s, "the first of data_offsets", begin));
    PF_TRY(pf_scan_expect(s, ',', "',' between two data_offsets"));
    PF_TRY(pf_scan_size(s, "the second of data_offsets", end));
    return pf_scan_expect(s, ']', "']' after two data_offsets");
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order, each exactly once. e->tensor.name
 * is set. */
static peft_status scan_entry(pf_scan *s, entry *e) {
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    char name[PF_NAME_TEXT], other[PF_SHAPE_TEXT];
    pf_stored_tensor *t = &e->tensor;
    bool seen[PF_COUNT(keys)] = {false}, more;
    int64_t begin = 0, end = 0;
    pf_arena_mark mark = pf_arena_get_mark(s->arena); /* keys and dtype are not kept */
    pf_name_text(t->name, name, sizeof name);
    PF_TRY(pf_scan_begin(s, '{', '}', "'{' of a tensor's entry", &more));
    while (more) {
        const char *key;
        size_t k = 0;
        PF_TRY(pf_scan_text(s, "a key in quotes", &key));
        while (k < PF_COUNT(keys) && !pf_streq(key, keys[k])) k++;
        if (k == PF_COUNT(keys)) {
            return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: tensor %s has an unknown key %s", s->path,
                           name, pf_name_text(key, other, sizeof other));
        }
        if (seen[k])
            return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: tensor %s has %s twice", s->path, name,
                           keys[k]);
        seen[k] = true;
        PF_TRY(pf_scan_expect(s, ':', "':' after a key"));
        if (k == 0)
            PF_TRY(scan_dtype(s, t));
        else if (k == 1)
            PF_TRY(scan_shape(s, t));
        else
            PF_TRY(scan_offsets(s, &begin, &end));
        PF_TRY(pf_scan_another(s, '}', "',' or '}' in a tensor's entry", &more));
    }
    pf_arena_rewind(s->arena, mark);
    for (size_t k = 0; k < PF_COUNT(keys); k++) {
        if (!seen[k])
            return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: tensor %s has no %s", s->path, name,
                           keys[k]);
    }
    if (begin > end) {
        return PF_FAIL(s->err, PEFT_E_FORMAT,
                       "%s: tensor %s: data_offsets [%lld,%lld] end before they begin", s->path,
                       name, (long long)begin, (long long)end);
    }
    PF_TRY(pf_stored_tensor_measure(t, s->path, s->err));
    if ((uint64_t)(end - begin) != t->bytes) {
        return PF_FAIL(
            s->err, PEFT_E_FORMAT,
            "%s: tensor %s: %s numbers of %s need %zu bytes, data_offsets [%lld,%lld] give %lld",
            s->path, name, pf_shape_text(t, other, sizeof other), pf_dtype_info(t->dtype)->name,
            t->bytes, (long long)begin, (long long)end, (long long)(end - begin));
    }
    e->begin = (size_t)begin;
    return PEFT_OK;
}

static peft_status scan_metadata(pf_scan *s, pf_safetensors *st) {
    bool more;
    int cap = 0;
    PF_TRY(pf_scan_begin(s, '{', '}', "'{' of __metadata__", &more));
    while (more) {
        pf_metadata m;
        PF_TRY(pf_scan_text(s, "a key of __metadata__ in quotes", &m.key));
        PF_TRY(pf_scan_expect(s, ':', "':' after a key"));
        PF_TRY(pf_scan_text(s, "text in quotes: values of __metadata__ are text", &m.value));
        if (st->n_metadata == cap) {
            /* an arena keeps the outgrown ones, together at most as much again */
            cap = cap > 0 ? 2 * cap : 8;
            pf_metadata *grown = PF_NEW_ARRAY(s->arena, pf_metadata, cap);
            PF_CHECK_ALLOC(grown, s->err);
            if (st->n_metadata > 0)
                memcpy(grown, st->metadata, (size_t)st->n_metadata * sizeof *grown);
            st->metadata = grown;
        }
        st->metadata[st->n_metadata++] = m;
        PF_TRY(pf_scan_another(s, '}', "',' or '}' in __metadata__", &more));
    }
    return PEFT_OK;
}

static peft_status scan_header(pf_scan *s, pf_safetensors *st, entry_list *list) {
    bool more, metadata_seen = false;
    /* no white space before it: the first byte tells the format from others */
    if (s->n == 0 || s->text[0] != '{') return pf_scan_fail(s, 0, "the header must begin with '{'");
    PF_TRY(pf_scan_begin(s, '{', '}', "'{'", &more));
    while (more) {
        entry e = {.begin = 0};
        PF_TRY(pf_scan_text(s, "a tensor's name in quotes", &e.tensor.name));
        PF_TRY(pf_scan_expect(s, ':', "':' after a name"));
        if (!pf_streq(e.tensor.name, "__metadata__")) {
            PF_TRY(scan_entry(s, &e));
            PF_TRY(add_entry(list, &e, s->err));
        } else if (metadata_seen) {
            return PF_FAIL(s->err, PEFT_E_FORMAT, "%s: __metadata__ is there twice", s->path);
        } else {
            metadata_seen = true;
            PF_TRY(scan_metadata(s, st));
        }
        PF_TRY(pf_scan_another(s, '}', "',' or '}' after an entry", &more));
    }
    return pf_scan_end(s);
}

/* ---- all entries together ---------------------------------------------------------- */

/* By place; an empty tensor before the one that begins where it stands; equal ones by name. */
static int compare_places(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->tensor.bytes != y->tensor.bytes) return x->tensor.bytes < y->tensor.bytes ? -1 : 1;
    return strcmp(x->tensor.name, y->tensor.name);
}

/* The tensors in order of their data, and findable by name. */
static peft_status order_tensors(pf_safetensors *st, entry_list *list, peft_error *err) {
    if (list->n > 1) qsort(list->items, (size_t)list->n, sizeof *list->items, compare_places);
    st->tensors = PF_NEW_ARRAY(&st->arena, pf_stored_tensor, list->n);
    st->by_name = PF_NEW_ARRAY(&st->arena, int, list->n);
    PF_CHECK_ALLOC(st->tensors, err);
    PF_CHECK_ALLOC(st->by_name, err);
    for (int i = 0; i < list->n; i++) st->tensors[i] = list->items[i].tensor;
    st->n_tensors = list->n;
    return pf_stored_tensor_sort(st->tensors, st->n_tensors, st->by_name, err);
}

static int compare_keys(const void *a, const void *b) {
    return strcmp(((const pf_metadata *)a)->key, ((const pf_metadata *)b)->key);
}

/* Sorting finds what is there twice, however the text of a hostile header is chosen. */
static peft_status check_names(pf_safetensors *st, peft_error *err) {
    char name[PF_NAME_TEXT];
    for (int i = 1; i < st->n_tensors; i++) {
        const char *a = st->tensors[st->by_name[i - 1]].name, *b = st->tensors[st->by_name[i]].name;
        if (pf_streq(a, b)) {
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: tensor %s is there twice", st->path,
                           pf_name_text(a, name, sizeof name));
        }
    }
    size_t n = (size_t)st->n_metadata;
    if (n > 1) qsort(st->metadata, n, sizeof *st->metadata, compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (pf_streq(st->metadata[i - 1].key, st->metadata[i].key)) {
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: __metadata__ has key %s twice", st->path,
                           pf_name_text(st->metadata[i].key, name, sizeof name));
        }
    }
    return PEFT_OK;
}

/* Shows that the tensors cover the data, each byte once, and gives them their addresses. */
static peft_status place_tensors(pf_safetensors *st, const entry_list *list,
                                 const unsigned char *data, size_t data_size, peft_error *err) {
    char name[PF_NAME_TEXT], before[PF_NAME_TEXT];
    size_t covered = 0;
    for (int i = 0; i < list->n; i++) {
        const entry *e = &list->items[i];
        if (e->begin < covered) {
            return PF_FAIL(
                err, PEFT_E_FORMAT,
                "%s: tensors %s and %s overlap: one ends at offset %zu, the other begins at %zu",
                st->path, pf_name_text(e[-1].tensor.name, before, sizeof before),
                pf_name_text(e->tensor.name, name, sizeof name), covered, e->begin);
        }
        if (e->begin > covered) {
            return PF_FAIL(
                err, PEFT_E_FORMAT, "%s: offsets %zu to %zu, before tensor %s, belong to no tensor",
                st->path, covered, e->begin, pf_name_text(e->tensor.name, name, sizeof name));
        }
        if (e->tensor.bytes > data_size - covered) {
            const entry *last = &list->items[list->n - 1];
            return PF_FAIL(
                err, PEFT_E_FORMAT,
                "%s: the file has %zu bytes, its tensors need %zu: it is truncated (was a "
                "download interrupted?)",
                st->path, st->size, st->size - data_size + last->begin + last->tensor.bytes);
        }
        st->tensors[i].data = data + covered;
        covered += e->tensor.bytes;
    }
    if (covered < data_size) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: %zu bytes after the last tensor belong to no tensor", st->path,
                       data_size - covered);
    }
    return PEFT_OK;
}

/* ---- the file ---------------------------------------------------------------------- */

/* What a file is that does not start like ours, for the end of the message. */
static const char *looks_like(const unsigned char *p, size_t n) {
    static const struct {
        const char *start, *what;
    } kinds[] = {
        {"version https://git-lfs",
         "a Git LFS pointer, not the file itself: run `git lfs pull` there"},
        {"PK\x03\x04", "a PyTorch file (zip and pickle): convert it to safetensors first"},
        {"\x80\x02", "a pickle: convert it to safetensors first"},
        {"GGUF", "a GGUF file"},
        {"<!DOCTYPE", "a web page, as a failed download leaves one"},
        {"<!doctype", "a web page, as a failed download leaves one"},
        {"<html", "a web page, as a failed download leaves one"},
    };
    for (size_t i = 0; i < PF_COUNT(kinds); i++) {
        size_t k = strlen(kinds[i].start);
        if (n >= k && memcmp(p, kinds[i].start, k) == 0) return kinds[i].what;
    }
    return "truncated, or no safetensors file";
}

static peft_status read_all(pf_safetensors *st, entry_list *list, const unsigned char *p,
                            peft_error *err) {
    uint64_t length = 0;
    if (st->size < LENGTH_BYTES) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: the file has %zu bytes; a safetensors file begins with 8 that give the "
                       "length of its header",
                       st->path, st->size);
    }
    size_t follow = st->size - LENGTH_BYTES;
    for (unsigned i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)p[i] << (8 * i);
    if (length > PF_SAFETENSORS_MAX_HEADER) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: a header of %llu bytes, at most %u are allowed; the file is %s",
                       st->path, (unsigned long long)length, PF_SAFETENSORS_MAX_HEADER,
                       looks_like(p, st->size));
    }
    if (length > follow) {
        return PF_FAIL(err, PEFT_E_FORMAT,
                       "%s: a header of %llu bytes, but only %zu follow; the file is %s", st->path,
                       (unsigned long long)length, follow, looks_like(p, st->size));
    }
    st->header_size = (size_t)length;
    pf_scan s;
    const unsigned char *data = p + LENGTH_BYTES + st->header_size;
    PF_TRY(pf_scan_init(&s, (const char *)p + LENGTH_BYTES, st->header_size, LENGTH_BYTES, st->path,
                        &st->arena, err));
    PF_TRY(scan_header(&s, st, list));
    PF_TRY(order_tensors(st, list, err));
    PF_TRY(check_names(st, err));
    return place_tensors(st, list, data, follow - st->header_size, err);
}

peft_status pf_safetensors_parse(pf_safetensors *st, const void *bytes, size_t size,
                                 const char *path, peft_error *err) {
    entry_list list = {0};
    *st = (pf_safetensors){.size = size};
    pf_arena_init(&st->arena, "safetensors");
    st->path = pf_arena_strdup(&st->arena, path);
    peft_status status = st->path != NULL ? read_all(st, &list, bytes, err)
                                          : PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
    pf_free(list.items);
    if (status != PEFT_OK) pf_safetensors_close(st);
    return status;
}

peft_status pf_safetensors_open(pf_safetensors *st, const char *path, peft_error *err) {
    pf_mapping map = {0};
    *st = (pf_safetensors){0};
    PF_TRY(pf_map_file(&map, path, err));
    peft_status status = pf_safetensors_parse(st, map.data, map.size, path, err);
    if (status == PEFT_OK)
        st->map = map;
    else
        pf_unmap_file(&map);
    return status;
}

void pf_safetensors_close(pf_safetensors *st) {
    if (st == NULL) return;
    pf_unmap_file(&st->map);
    pf_arena_release(&st->arena);
    *st = (pf_safetensors){0};
}

const pf_stored_tensor *pf_safetensors_find(const pf_safetensors *st, const char *name) {
    int i = pf_stored_tensor_find(st->tensors, st->n_tensors, st->by_name, name);
    return i >= 0 ? &st->tensors[i] : NULL;
}

const char *pf_safetensors_metadata(const pf_safetensors *st, const char *key) {
    for (int i = 0; i < st->n_metadata; i++) {
        if (pf_streq(st->metadata[i].key, key)) return st->metadata[i].value;
    }
    return NULL;
}

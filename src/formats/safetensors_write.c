/* safetensors_write.c - header first, then the tensors in the order in which the reference library
 * writes them. */
#include "formats/safetensors_write.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "formats/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

const pf_metadata pf_safetensors_pt = {"format", "pt"};

typedef struct place {
    const pf_stored_tensor *tensor;
    int index;
} place;

static int compare_places(const void *a, const void *b) {
    const place *x = a, *y = b;
    int p = pf_dtype_info(x->tensor->dtype)->order, q = pf_dtype_info(y->tensor->dtype)->order;
    return p != q ? q - p : strcmp(x->tensor->name, y->tensor->name);
}

/* As serde_json writes text: only what must be escaped is. */
static void add_text(pf_buf *out, const char *s) {
    static const char escapes[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    pf_buf_addc(out, '"');
    for (; *s != '\0'; s++) {
        const char *known = strchr(escapes, *s);
        if (known != NULL) {
            pf_buf_addc(out, '\\');
            pf_buf_addc(out, letters[known - escapes]);
        } else if ((unsigned char)*s < 0x20) {
            pf_buf_addf(out, "\\u%04x", (unsigned)*s);
        } else {
            pf_buf_addc(out, *s);
        }
    }
    pf_buf_addc(out, '"');
}

static peft_status check_text(const char *path, const char *what, const char *s, peft_error *err) {
    char shown[PF_NAME_TEXT];
    size_t bad;
    if (pf_utf8_valid(s, strlen(s), &bad)) return PEFT_OK;
    return PF_FAIL(err, PEFT_E_FORMAT, "%s: %s %s is not valid UTF-8", path, what,
                   pf_name_text(s, shown, sizeof shown));
}

static peft_status check(const char *path, const place *order, int n, const pf_metadata *metadata,
                         int n_metadata, peft_error *err) {
    char name[PF_NAME_TEXT];
    for (int i = 0; i < n; i++) {
        const pf_stored_tensor *t = order[i].tensor;
        pf_stored_tensor measured = *t;
        PF_TRY(check_text(path, "tensor", t->name, err));
        PF_TRY(pf_stored_tensor_measure(&measured, path, err));
        PF_ASSERT(measured.bytes == t->bytes);
        if (strcmp(t->name, "__metadata__") == 0) {
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: no tensor may be called '__metadata__'", path);
        }
    }
    for (int i = 0; i < n_metadata; i++) {
        PF_TRY(check_text(path, "metadata", metadata[i].key, err));
        PF_TRY(check_text(path, "metadata", metadata[i].value, err));
    }
    /* equal names need not be neighbours, as types come first in the order */
    int *by_name = pf_calloc((size_t)n + 1, sizeof *by_name);
    pf_stored_tensor *list = pf_calloc((size_t)n + 1, sizeof *list);
    peft_status status = PEFT_OK;
    if (by_name == NULL || list == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    for (int i = 0; i < n; i++) list[i] = *order[i].tensor;
    PF_TRY_OUT(pf_stored_tensor_sort(list, n, by_name, err));
    for (int i = 1; i < n; i++) {
        const char *a = list[by_name[i - 1]].name;
        if (strcmp(a, list[by_name[i]].name) != 0) continue;
        status = PF_FAIL(err, PEFT_E_FORMAT, "%s: two tensors are called %s", path,
                         pf_name_text(a, name, sizeof name));
        break;
    }
out:
    pf_free(by_name);
    pf_free(list);
    return status;
}

/* Length, header and padding, as they stand at the start of the file. */
static peft_status make_header(pf_buf *out, const char *path, const place *order, int n,
                               const pf_metadata *metadata, int n_metadata, peft_error *err) {
    uint64_t at = 0;
    char shape[PF_SHAPE_TEXT];
    pf_buf_add(out, "\0\0\0\0\0\0\0\0", 8);
    pf_buf_addc(out, '{');
    if (n_metadata > 0) pf_buf_adds(out, "\"__metadata__\":{");
    for (int i = 0; i < n_metadata; i++) {
        if (i > 0) pf_buf_addc(out, ',');
        add_text(out, metadata[i].key);
        pf_buf_addc(out, ':');
        add_text(out, metadata[i].value);
    }
    if (n_metadata > 0) pf_buf_adds(out, n > 0 ? "}," : "}");
    for (int i = 0; i < n; i++) {
        const pf_stored_tensor *t = order[i].tensor;
        if (i > 0) pf_buf_addc(out, ',');
        add_text(out, t->name);
        pf_buf_addf(out, ":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%llu,%llu]}",
                    pf_dtype_info(t->dtype)->name, pf_shape_text(t, shape, sizeof shape),
                    (unsigned long long)at, (unsigned long long)(at + t->bytes));
        at += t->bytes;
    }
    pf_buf_addc(out, '}');
    while (pf_buf_ok(out) && out->len % 8 != 0) pf_buf_addc(out, ' ');
    if (!pf_buf_ok(out)) return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
    uint64_t length = out->len - 8;
    if (length > PF_SAFETENSORS_MAX_HEADER) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s: the header would have %llu bytes; readers allow %u", path,
                       (unsigned long long)length, PF_SAFETENSORS_MAX_HEADER);
    }
    for (unsigned i = 0; i < 8; i++) out->data[i] = (char)(length >> (8 * i) & 0xff);
    return PEFT_OK;
}

static peft_status write_piece(void *ctx, const void *data, size_t n, peft_error *err) {
    return pf_file_writer_add(ctx, data, n, err);
}

peft_status pf_safetensors_write(const char *path, const pf_stored_tensor *tensors, int n_tensors,
                                 const pf_metadata *metadata, int n_metadata, pf_tensor_fill fill,
                                 void *fill_ctx, peft_error *err) {
    pf_file_writer file = {.fd = -1};
    pf_buf header;
    pf_buf_init(&header);
    peft_status status = PEFT_OK;
    place *order = pf_calloc((size_t)n_tensors + 1, sizeof *order);
    PF_CHECK_ALLOC(order, err);
    for (int i = 0; i < n_tensors; i++) order[i] = (place){&tensors[i], i};
    qsort(order, (size_t)n_tensors, sizeof *order, compare_places);
    PF_TRY_OUT(check(path, order, n_tensors, metadata, n_metadata, err));
    PF_TRY_OUT(make_header(&header, path, order, n_tensors, metadata, n_metadata, err));
    PF_TRY_OUT(pf_file_writer_open(&file, path, err));
    PF_TRY_OUT(pf_file_writer_add(&file, header.data, header.len, err));
    for (int i = 0; i < n_tensors; i++) {
        pf_tensor_sink sink = {.tensor = order[i].tensor, .write = write_piece, .ctx = &file};
        PF_TRY_OUT(pf_tensor_sink_run(&sink, path, order[i].index, fill, fill_ctx, err));
    }
    PF_TRY_OUT(pf_file_writer_commit(&file, err));
out:
    pf_file_writer_close(&file);
    pf_buf_free(&header);
    pf_free(order);
    return status;
}

/* zip_pt.c - the pickle of a state dict, and the archive around it.
 *
 * The pickle is written opcode by opcode. Pickle keeps a memo of what was written before, so that a
 * thing occurring again is fetched by number; we count as Python's pickler does. What occurs again
 * in a state dict are the names of functions and classes, two words, and the numbers of storages.
 */
#include "formats/zip_pt.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"
#include "formats/zip_writer.h"

#include <stdio.h>
#include <string.h>

#include "base/banned.h"

/* Dict items between a MARK and a SETITEMS, as in Python. */
#define BATCH 1000

enum { NOT_YET = -1 };

typedef struct pickler {
    pf_buf out;
    int memo;                  /* the next number */
    int rebuild, ordered_dict; /* numbers of what was written, or NOT_YET */
    int word_storage, word_cpu;
    int classes[PF_DTYPE_COUNT];
} pickler;

static const char *storage_class(pf_dtype dtype) {
    switch (dtype) {
    case PF_DTYPE_F64:
        return "DoubleStorage";
    case PF_DTYPE_F32:
        return "FloatStorage";
    case PF_DTYPE_F16:
        return "HalfStorage";
    case PF_DTYPE_BF16:
        return "BFloat16Storage";
    case PF_DTYPE_I64:
        return "LongStorage";
    case PF_DTYPE_I32:
        return "IntStorage";
    case PF_DTYPE_I16:
        return "ShortStorage";
    case PF_DTYPE_I8:
        return "CharStorage";
    case PF_DTYPE_U8:
        return "ByteStorage";
    case PF_DTYPE_BOOL:
        return "BoolStorage";
    case PF_DTYPE_C64:
        return "ComplexFloatStorage";
    default:
        return NULL; /* torch has newer ways to save these; not every reader knows them */
    }
}

static void put_le(pf_buf *out, uint64_t v, unsigned n) {
    for (unsigned i = 0; i < n; i++) pf_buf_addc(out, (char)(v >> (8 * i) & 0xff));
}

static void op(pickler *p, char code) {
    pf_buf_addc(&p->out, code);
}

/* BINPUT or LONG_BINPUT: the thing just written has this number from now on. */
static int put_memo(pickler *p) {
    op(p, p->memo < 256 ? 'q' : 'r');
    put_le(&p->out, (uint64_t)p->memo, p->memo < 256 ? 1 : 4);
    return p->memo++;
}

static void get_memo(pickler *p, int number) {
    op(p, number < 256 ? 'h' : 'j');
    put_le(&p->out, (uint64_t)number, number < 256 ? 1 : 4);
}

static int put_text(pickler *p, const char *s) {
    size_t n = strlen(s);
    op(p, 'X'); /* BINUNICODE */
    put_le(&p->out, n, 4);
    pf_buf_add(&p->out, s, n);
    return put_memo(p);
}

static void text_once(pickler *p, const char *s, int *number) {
    if (*number != NOT_YET)
        get_memo(p, *number);
    else
        *number = put_text(p, s);
}

static void global_once(pickler *p, const char *module, const char *name, int *number) {
    if (*number != NOT_YET) {
        get_memo(p, *number);
        return;
    }
    pf_buf_addf(&p->out, "c%s\n%s\n", module, name);
    *number = put_memo(p);
}

static void put_int(pickler *p, int64_t v) {
    PF_ASSERT(v >= 0); /* sizes */
    if (v < 256) {
        op(p, 'K');
        put_le(&p->out, (uint64_t)v, 1);
    } else if (v < 65536) {
        op(p, 'M');
        put_le(&p->out, (uint64_t)v, 2);
    } else if (v <= INT32_MAX) {
        op(p, 'J');
        put_le(&p->out, (uint64_t)v, 4);
    } else { /* LONG1: as many bytes as leave the sign clear */
        unsigned n = 4;
        while (n < 8 && v >> (8 * n - 1) != 0) n++;
        op(p, '\x8a');
        put_le(&p->out, n, 1);
        put_le(&p->out, (uint64_t)v, n);
    }
}

static void put_tuple(pickler *p, const int64_t *v, int n) {
    static const char short_ones[] = {')', '\x85', '\x86', '\x87'};
    if (n > 3) op(p, '(');
    for (int i = 0; i < n; i++) put_int(p, v[i]);
    op(p, n > 3 ? 't' : short_ones[n]);
    if (n > 0) put_memo(p);
}

/* torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, requires_grad=False, hooks), where
 * storage is the persistent id ("storage", class, number, "cpu", elements). */
static void put_tensor(pickler *p, const pf_stored_tensor *t, int storage, int *storage_text) {
    int64_t strides[PF_STORED_DIMS], step = 1;
    char number[16];
    for (int i = t->n_dims - 1; i >= 0; i--) {
        strides[i] = step;
        step *= t->shape[i] > 0 ? t->shape[i] : 1; /* fits: pf_stored_tensor_measure */
    }
    snprintf(number, sizeof number, "%d", storage);
    global_once(p, "torch._utils", "_rebuild_tensor_v2", &p->rebuild);
    op(p, '(');
    op(p, '(');
    text_once(p, "storage", &p->word_storage);
    global_once(p, "torch", storage_class(t->dtype), &p->classes[t->dtype]);
    text_once(p, number, storage_text);
    text_once(p, "cpu", &p->word_cpu);
    put_int(p, pf_stored_tensor_count(t));
    op(p, 't');
    put_memo(p);
    op(p, 'Q'); /* BINPERSID */
    put_int(p, 0);
    put_tuple(p, t->shape, t->n_dims);
    put_tuple(p, strides, t->n_dims);
    op(p, '\x89'); /* False */
    global_once(p, "collections", "OrderedDict", &p->ordered_dict);
    op(p, ')');
    op(p, 'R');
    put_memo(p);
    op(p, 't');
    put_memo(p);
    op(p, 'R');
    put_memo(p);
}

static void put_dict(pickler *p, const pf_stored_tensor *tensors, int n, const int *storages,
                     int *storage_texts) {
    pf_buf_addf(&p->out, "\x80\x02}");
    put_memo(p);
    for (int i = 0; i < n; i++) {
        if (n > 1 && i % BATCH == 0) op(p, '(');
        put_text(p, tensors[i].name);
        put_tensor(p, &tensors[i], storages[i], &storage_texts[storages[i]]);
        if (n > 1 && (i % BATCH == BATCH - 1 || i == n - 1)) op(p, 'u');
    }
    if (n == 1) op(p, 's');
    op(p, '.');
}

static peft_status check(const char *path, const pf_stored_tensor *tensors, int n,
                         const int *same_as, int *by_name, peft_error *err) {
    char name[PF_NAME_TEXT];
    for (int i = 0; i < n; i++) {
        const pf_stored_tensor *t = &tensors[i];
        size_t bad;
        pf_name_text(t->name, name, sizeof name);
        if (storage_class(t->dtype) == NULL) {
            return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                           "%s: tensor %s: %s cannot be stored in a .pt file; use safetensors",
                           path, name, pf_dtype_info(t->dtype)->name);
        }
        if (!pf_utf8_valid(t->name, strlen(t->name), &bad)) {
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: tensor %s is not valid UTF-8", path, name);
        }
        if (same_as != NULL && same_as[i] >= 0) {
            PF_ASSERT(same_as[i] < i && tensors[same_as[i]].dtype == t->dtype &&
                      tensors[same_as[i]].bytes == t->bytes);
        }
    }
    PF_TRY(pf_stored_tensor_sort(tensors, n, by_name, err));
    for (int i = 1; i < n; i++) {
        if (!pf_streq(tensors[by_name[i - 1]].name, tensors[by_name[i]].name)) continue;
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: two tensors are called %s", path,
                       pf_name_text(tensors[by_name[i]].name, name, sizeof name));
    }
    return PEFT_OK;
}

static peft_status add_piece(void *ctx, const void *data, size_t n, peft_error *err) {
    return pf_zip_writer_add(ctx, data, n, err);
}

/* The archive's folder: the file's name without its ending. */
static const char *stem_of(pf_arena *a, const char *path) {
    const char *base = pf_path_base(path), *dot = strrchr(base, '.');
    size_t n = dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base);
    return n > 0 && n < 1000 ? pf_arena_strndup(a, base, n) : pf_arena_strdup(a, "archive");
}

static peft_status write_archive(pf_zip_writer *z, pf_arena *a, const char *path,
                                 const pf_stored_tensor *tensors, int n, const int *storages,
                                 const pf_buf *pickle, pf_tensor_fill fill, void *fill_ctx,
                                 uint64_t *offsets, peft_error *err) {
    const char *stem = stem_of(a, path);
    PF_CHECK_ALLOC(stem, err);
    char *name = pf_arena_alloc(a, strlen(stem) + 32);
    PF_CHECK_ALLOC(name, err);
    size_t room = strlen(stem) + 32;
    int written = 0;
    snprintf(name, room, "%s/data.pkl", stem);
    PF_TRY(pf_zip_writer_member(z, name, pickle->data, pickle->len, err));
    snprintf(name, room, "%s/byteorder", stem);
    PF_TRY(pf_zip_writer_member(z, name, "little", 6, err));
    for (int i = 0; i < n; i++) {
        if (storages[i] < written) continue; /* shared with an earlier one */
        snprintf(name, room, "%s/data/%d", stem, written++);
        pf_tensor_sink sink = {.tensor = &tensors[i], .write = add_piece, .ctx = z};
        PF_TRY(pf_zip_writer_begin(z, name, tensors[i].bytes, err));
        for (int k = i; offsets != NULL && k < n; k++) {
            if (storages[k] == storages[i]) offsets[k] = z->file.written;
        }
        PF_TRY(pf_tensor_sink_run(&sink, path, i, fill, fill_ctx, err));
        PF_TRY(pf_zip_writer_end(z, err));
    }
    snprintf(name, room, "%s/version", stem);
    PF_TRY(pf_zip_writer_member(z, name, "3\n", 2, err));
    return pf_zip_writer_commit(z, err);
}

peft_status pf_pt_write(const char *path, const pf_stored_tensor *tensors, int n_tensors,
                        const int *same_as, pf_tensor_fill fill, void *fill_ctx, uint64_t *offsets,
                        peft_error *err) {
    pf_arena a;
    pickler p = {
        .rebuild = NOT_YET, .ordered_dict = NOT_YET, .word_storage = NOT_YET, .word_cpu = NOT_YET};
    pf_zip_writer z = {.file = {.fd = -1}};
    peft_status status = PEFT_OK;
    pf_arena_init(&a, "pt");
    pf_buf_init(&p.out);
    for (int i = 0; i < PF_DTYPE_COUNT; i++) p.classes[i] = NOT_YET;
    int *storages = PF_NEW_ARRAY(&a, int, n_tensors), *texts = PF_NEW_ARRAY(&a, int, n_tensors);
    int *by_name = PF_NEW_ARRAY(&a, int, n_tensors), n_storages = 0;
    if (storages == NULL || texts == NULL || by_name == NULL) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    PF_TRY_OUT(check(path, tensors, n_tensors, same_as, by_name, err));
    for (int i = 0; i < n_tensors; i++) {
        bool shared = same_as != NULL && same_as[i] >= 0;
        storages[i] = shared ? storages[same_as[i]] : n_storages++;
        texts[i] = NOT_YET;
    }
    put_dict(&p, tensors, n_tensors, storages, texts);
    if (!pf_buf_ok(&p.out)) {
        status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
        goto out;
    }
    PF_TRY_OUT(pf_zip_writer_open(&z, path, err));
    PF_TRY_OUT(write_archive(&z, &a, path, tensors, n_tensors, storages, &p.out, fill, fill_ctx,
                             offsets, err));
out:
    pf_zip_writer_close(&z);
    pf_buf_free(&p.out);
    pf_arena_release(&a);
    return status;
}

bool pf_is_pickle_name(const char *path) {
    static const char *const endings[] = {".pt", ".pth", ".bin", ".ckpt", ".pkl"};
    for (size_t i = 0; i < PF_COUNT(endings); i++) {
        if (pf_ends_with(path, endings[i])) return true;
    }
    return false;
}

peft_status pf_refuse_pickle(const char *path, peft_error *err) {
    /* FILE and not the path: a command to be pasted must not hold text from outside */
    return PF_FAIL(
        err, PEFT_E_UNSUPPORTED,
        "%s is a PyTorch pickle; reading one can run whatever program it holds, so it is "
        "not opened. Convert it once, where you trust it:\n"
        "  python -c \"import sys, torch; from safetensors.torch import save_file; "
        "save_file({k: v.contiguous().clone() for k, v in torch.load(sys.argv[1], "
        "weights_only=True).items()}, 'model.safetensors', {'format': 'pt'})\" FILE",
        path);
}

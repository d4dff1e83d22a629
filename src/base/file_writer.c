/* file_writer.c - writing so that a final name never holds half a file; see file.h.
 *
 * Order of a commit: write everything to a temporary name beside the final one, sync it, rename it,
 * sync the folder. A crash before the rename leaves the old file, a crash after it the new one. */
#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK ((size_t)1 << 20)

static _Atomic int64_t operations;
static _Atomic int64_t fault_at; /* operation that fails; 0: none */
static _Atomic int fault_errno;  /* -1: kill the process */
static _Atomic bool fault_forever;
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

void pf_file_fault(int64_t n, int errnum, bool forever) {
    atomic_store(&fault_errno, errnum);
    atomic_store(&fault_forever, forever);
    atomic_store(&fault_at, n > 0 ? atomic_load(&operations) + n : 0);
}

int64_t pf_file_ops(void) {
    return atomic_load(&operations);
}

static void read_environment(void) {
    const char *text = getenv("PEFT_FILE_FAULT"); /* "n:errno" or "n:kill", then ":forever" */
    if (text == NULL) return;
    char *end;
    long long n = strtoll(text, &end, 10);
    if (n <= 0 || *end != ':') return;
    end++;
    bool forever = strstr(end, ":forever") != NULL;
    pf_file_fault(n, strncmp(end, "kill", 4) == 0 ? -1 : (int)strtol(end, NULL, 10), forever);
}

/* Counts one write, sync or rename; returns the errno it is to fail with, or 0. */
static int fault(void) {
    pthread_once(&fault_once, read_environment);
    int64_t n = atomic_fetch_add(&operations, 1) + 1;
    int64_t at = atomic_load(&fault_at);
    if (at == 0 || n < at || (n > at && !atomic_load(&fault_forever))) return 0;
    int e = atomic_load(&fault_errno);
    if (e == -1) raise(SIGKILL);
    return e;
}

static int sync_fd(int fd) {
    int e = fault();
    if (e != 0) return e;
    while (fsync(fd) != 0) {
        if (errno != EINTR) return errno;
    }
    return 0;
}

static int sync_path(const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) return errno;
    int e = sync_fd(fd);
    close(fd);
    /* Some file systems refuse to sync a folder; there is nothing more to ask of them. */
    return e == EINVAL ? 0 : e;
}

peft_status pf_sync_dir(const char *path, peft_error *err) {
    int e = sync_path(path, O_RDONLY | O_DIRECTORY);
    return e == 0 ? PEFT_OK : pf_fail_errno(err, PEFT_E_IO, e, "cannot sync the folder %s", path);
}

peft_status pf_sync_file(const char *path, peft_error *err) {
    int e = sync_path(path, O_RDONLY);
    return e == 0 ? PEFT_OK : pf_fail_errno(err, PEFT_E_IO, e, "cannot sync %s", path);
}

peft_status pf_rename(const char *from, const char *to, peft_error *err) {
    int e = fault();
    if (e == 0 && rename(from, to) != 0) e = errno;
    return e == 0 ? PEFT_OK : pf_fail_errno(err, PEFT_E_IO, e, "cannot rename %s to %s", from, to);
}

static int write_all(int fd, const unsigned char *p, size_t n) {
    int e = fault();
    if (e != 0) return e;
    while (n > 0) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return errno;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

peft_status pf_file_writer_open(pf_file_writer *w, const char *path, peft_error *err) {
    static _Atomic unsigned serial;
    *w = (pf_file_writer){.fd = -1};
    const char *base = pf_path_base(path);
    size_t n = strlen(path), dir = (size_t)(base - path);
    w->path = pf_malloc(n + 1);
    w->tmp_path = pf_malloc(n + 64);
    w->block = pf_malloc(BLOCK);
    if (w->path == NULL || w->tmp_path == NULL || w->block == NULL) {
        pf_file_writer_close(w);
        return PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    memcpy(w->path, path, n + 1);
    snprintf(w->tmp_path, n + 64, "%.*s.%s.tmp-%ld-%u", (int)dir, path, base, (long)getpid(),
             atomic_fetch_add(&serial, 1));
    w->fd = open(w->tmp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        int e = errno;
        pf_file_writer_close(w);
        return pf_fail_errno(err, PEFT_E_CREATE, e, "cannot create %s", path);
    }
    return PEFT_OK;
}

/* After a failed write part of the block may be in the file: the temporary file goes at once, and
 * later calls fail too, so that nobody commits what is left. */
static peft_status flush(pf_file_writer *w, peft_error *err) {
    if (w->fd < 0) return PF_FAIL(err, PEFT_E_STATE, "%s could not be written before", w->path);
    if (w->fill == 0) return PEFT_OK;
    int e = write_all(w->fd, w->block, w->fill);
    if (e != 0) {
        close(w->fd);
        w->fd = -1;
        unlink(w->tmp_path);
        return pf_fail_errno(err, PEFT_E_IO, e, "cannot write %s", w->path);
    }
    w->fill = 0;
    return PEFT_OK;
}

peft_status pf_file_writer_add(pf_file_writer *w, const void *data, size_t n, peft_error *err) {
    const unsigned char *p = data;
    w->written += n;
    while (n > 0) {
        size_t part = BLOCK - w->fill < n ? BLOCK - w->fill : n;
        memcpy(w->block + w->fill, p, part);
        w->fill += part;
        p += part;
        n -= part;
        if (w->fill == BLOCK) PF_TRY(flush(w, err));
    }
    return PEFT_OK;
}

peft_status pf_file_writer_commit(pf_file_writer *w, peft_error *err) {
    peft_status status = flush(w, err);
    if (status == PEFT_OK) {
        int e = sync_fd(w->fd);
        if (e == 0 && close(w->fd) != 0) e = errno;
        w->fd = -1;
        if (e != 0) {
            status = pf_fail_errno(err, PEFT_E_IO, e, "cannot write %s", w->path);
            unlink(w->tmp_path);
        }
    }
    if (status == PEFT_OK && (status = pf_rename(w->tmp_path, w->path, err)) != PEFT_OK)
        unlink(w->tmp_path);
    if (status == PEFT_OK) {
        char *slash = strrchr(w->path, '/');
        const char *dir = slash == NULL ? "." : w->path;
        if (slash == w->path)
            dir = "/";
        else if (slash != NULL)
            *slash = '\0';
        status = pf_sync_dir(dir, err);
    }
    pf_file_writer_close(w);
    return status;
}

void pf_file_writer_close(pf_file_writer *w) {
    if (w == NULL) return;
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->tmp_path);
    }
    pf_free(w->path);
    pf_free(w->tmp_path);
    pf_free(w->block);
    *w = (pf_file_writer){.fd = -1};
}

peft_status pf_write_file(const char *path, const void *data, size_t n, peft_error *err) {
    pf_file_writer w;
    PF_TRY(pf_file_writer_open(&w, path, err));
    peft_status status = pf_file_writer_add(&w, data, n, err);
    if (status == PEFT_OK) return pf_file_writer_commit(&w, err);
    pf_file_writer_close(&w);
    return status;
}

/* ---- appending ---------------------------------------------------------------------------------
 */

peft_status pf_append_open(pf_append *f, const char *path, peft_error *err) {
    *f = (pf_append){.fd = -1};
    size_t n = strlen(path) + 1;
    f->path = pf_malloc(n);
    PF_CHECK_ALLOC(f->path, err);
    memcpy(f->path, path, n);
    f->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st) != 0) {
        int e = errno;
        pf_append_close(f);
        return pf_fail_errno(err, PEFT_E_CREATE, e, "cannot open %s", path);
    }
    f->size = (uint64_t)st.st_size;
    return PEFT_OK;
}

peft_status pf_append_add(pf_append *f, const void *data, size_t n, peft_error *err) {
    int e = write_all(f->fd, data, n);
    if (e == 0) {
        f->size += n;
        return PEFT_OK;
    }
    if (ftruncate(f->fd, (off_t)f->size) != 0) {
        return pf_fail_errno(err, PEFT_E_IO, e, "cannot write %s, nor take back a piece of a line",
                             f->path);
    }
    return pf_fail_errno(err, PEFT_E_IO, e, "cannot write %s", f->path);
}

peft_status pf_append_sync(pf_append *f, peft_error *err) {
    int e = sync_fd(f->fd);
    return e == 0 || e == EINVAL ? PEFT_OK
                                 : pf_fail_errno(err, PEFT_E_IO, e, "cannot sync %s", f->path);
}

void pf_append_close(pf_append *f) {
    if (f == NULL) return;
    if (f->path != NULL && f->fd >= 0) close(f->fd);
    pf_free(f->path);
    *f = (pf_append){.fd = -1};
}

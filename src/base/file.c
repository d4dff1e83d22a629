/* file.c - reading, mapping, folders and locks; writing stands in file_writer.c. See file.h. */
#include "base/file.h"

#include "base/map_guard.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_retry(const char *path, int flags, mode_t mode) {
    int fd;
    do fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

peft_status pf_map_file(pf_mapping *m, const char *path, peft_error *err) {
    *m = (pf_mapping){0};
    int fd =
        open_retry(path, O_RDONLY | O_NONBLOCK, 0); /* opening a pipe would wait for a writer */
    if (fd < 0) return pf_fail_errno(err, PEFT_E_IO, errno, "cannot open %s", path);
    struct stat st;
    peft_status status = PEFT_OK;
    if (fstat(fd, &st) != 0) {
        status = pf_fail_errno(err, PEFT_E_IO, errno, "cannot look at %s", path);
    } else if (!S_ISREG(st.st_mode)) {
        status = PF_FAIL(err, PEFT_E_MISSING, "%s is %s, not a file", path,
                         S_ISDIR(st.st_mode) ? "a folder" : "a device or pipe");
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            status = pf_fail_errno(err, PEFT_E_IO, errno, "cannot map %s", path);
        } else {
            *m = (pf_mapping){.data = p, .size = (size_t)st.st_size, .mapped = true};
            pf_map_guard_add(m->data, m->size, path);
        }
    }
    close(fd);
    return status;
}

void pf_unmap_file(pf_mapping *m) {
    if (m == NULL) return;
    if (m->mapped) pf_map_guard_remove(m->data);
    if (m->mapped) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (pf_mapping){0};
}

peft_status pf_read_file(pf_buf *out, const char *path, size_t max_size, peft_error *err) {
    pf_buf_clear(out);
    int fd = open_retry(path, O_RDONLY, 0);
    if (fd < 0) return pf_fail_errno(err, PEFT_E_IO, errno, "cannot open %s", path);
    peft_status status = PEFT_OK;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        status = PF_FAIL(err, PEFT_E_MISSING, "%s is a folder, not a file", path);
    }
    char *block = status == PEFT_OK ? pf_malloc(1 << 16) : NULL;
    if (status == PEFT_OK && block == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    while (status == PEFT_OK) {
        ssize_t n = read(fd, block, 1 << 16);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = pf_fail_errno(err, PEFT_E_IO, errno, "cannot read %s", path);
        if (n <= 0) break;
        if (out->len + (size_t)n > max_size) {
            char limit[32];
            status = PF_FAIL(err, PEFT_E_FORMAT, "%s is larger than %s, the limit for such a file",
                             path, pf_format_bytes((double)max_size, limit, sizeof limit));
            break;
        }
        pf_buf_add(out, block, (size_t)n);
        if (!pf_buf_ok(out))
            status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory while reading %s", path);
    }
    pf_free(block);
    close(fd);
    return status;
}

bool pf_path_exists(const char *path) {
    return access(path, F_OK) == 0;
}

bool pf_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

peft_status pf_file_size(const char *path, uint64_t *size, peft_error *err) {
    struct stat st;
    if (stat(path, &st) != 0)
        return pf_fail_errno(err, PEFT_E_IO, errno, "cannot look at %s", path);
    *size = (uint64_t)st.st_size;
    return PEFT_OK;
}

peft_status pf_make_dirs(const char *path, peft_error *err) {
    size_t n = strlen(path);
    char *part = pf_malloc(n + 1);
    PF_CHECK_ALLOC(part, err);
    memcpy(part, path, n + 1);
    peft_status status = PEFT_OK;
    for (size_t i = 1; i <= n && status == PEFT_OK; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        char was = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            int e = errno;
            if (!pf_is_dir(part))
                status = pf_fail_errno(err, PEFT_E_CREATE, e, "cannot create the folder %s", path);
        } else if (!pf_is_dir(part)) {
            status = PF_FAIL(err, PEFT_E_CREATE, "cannot create the folder %s: %s is a file", path,
                             part);
        }
        part[i] = was;
    }
    pf_free(part);
    return status;
}

/* fd is an open folder named `path`; empties it. Depth is limited by the descriptors a process may
 * hold. */
static peft_status empty_dir(int fd, const char *path, int depth, peft_error *err) {
    if (depth > 64) {
        close(fd);
        return PF_FAIL(err, PEFT_E_IO, "%s is nested too deeply to be removed", path);
    }
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return pf_fail_errno(err, PEFT_E_IO, errno, "cannot list %s", path);
    }
    peft_status status = PEFT_OK;
    for (struct dirent *e; status == PEFT_OK && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(fd, e->d_name, 0) == 0) continue;
        int sub = openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (sub < 0) {
            status = pf_fail_errno(err, PEFT_E_IO, errno, "cannot remove %s/%s", path, e->d_name);
            break;
        }
        status = empty_dir(sub, path, depth + 1, err);
        if (status == PEFT_OK && unlinkat(fd, e->d_name, AT_REMOVEDIR) != 0) {
            status = pf_fail_errno(err, PEFT_E_IO, errno, "cannot remove %s/%s", path, e->d_name);
        }
    }
    closedir(dir);
    return status;
}

peft_status pf_remove_tree(const char *path, peft_error *err) {
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0) {
        if (errno == ENOENT) return PEFT_OK;
        if (errno == ENOTDIR || errno == ELOOP) return pf_remove_file(path, err);
        return pf_fail_errno(err, PEFT_E_IO, errno, "cannot remove %s", path);
    }
    PF_TRY(empty_dir(fd, path, 0, err));
    if (rmdir(path) != 0) return pf_fail_errno(err, PEFT_E_IO, errno, "cannot remove %s", path);
    return PEFT_OK;
}

peft_status pf_remove_file(const char *path, peft_error *err) {
    if (unlink(path) != 0 && errno != ENOENT)
        return pf_fail_errno(err, PEFT_E_IO, errno, "cannot remove %s", path);
    return PEFT_OK;
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

peft_status pf_list_dir(pf_strlist *out, pf_arena *a, const char *path, peft_error *err) {
    *out = (pf_strlist){0};
    DIR *dir = opendir(path);
    if (dir == NULL) return pf_fail_errno(err, PEFT_E_IO, errno, "cannot list %s", path);
    peft_status status = PEFT_OK;
    for (struct dirent *e; status == PEFT_OK && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        status = pf_strlist_add(out, a, e->d_name, err);
    }
    closedir(dir);
    if (status == PEFT_OK && out->n > 1)
        qsort(out->items, (size_t)out->n, sizeof *out->items, by_bytes);
    return status;
}

char *pf_path_join(pf_arena *a, const char *dir, const char *name) {
    if (name[0] == '/' || dir[0] == '\0') return pf_arena_strdup(a, name);
    return pf_arena_printf(a, "%s%s%s", dir, pf_ends_with(dir, "/") ? "" : "/", name);
}

const char *pf_path_base(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

char *pf_path_dir(pf_arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) return pf_arena_strdup(a, ".");
    if (slash == path) return pf_arena_strdup(a, "/");
    return pf_arena_strndup(a, path, (size_t)(slash - path));
}

peft_status pf_lock_file(pf_file_lock *l, const char *path, peft_error *err) {
    l->fd = open_retry(path, O_RDWR | O_CREAT, 0666);
    if (l->fd < 0)
        return pf_fail_errno(err, PEFT_E_CREATE, errno, "cannot create the lock %s", path);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(l->fd, F_OFD_SETLK, &whole) != 0) {
        int e = errno;
        char owner[32] = "";
        ssize_t n = pread(l->fd, owner, sizeof owner - 1, 0);
        owner[n > 0 ? n : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        close(l->fd);
        l->fd = -1;
        if (e == EAGAIN || e == EACCES) {
            return PF_FAIL(err, PEFT_E_BUSY, "%s is held by another process%s%s", path,
                           owner[0] != '\0' ? ", pid " : "", owner);
        }
        return pf_fail_errno(err, PEFT_E_IO, e, "cannot lock %s", path);
    }
    char pid[32];
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    /* The pid is a courtesy to whoever finds the lock taken; the lock holds without it. */
    if (ftruncate(l->fd, 0) == 0 && pwrite(l->fd, pid, (size_t)n, 0) < 0) errno = 0;
    return PEFT_OK;
}

void pf_unlock_file(pf_file_lock *l) {
    if (l == NULL || l->fd < 0) return;
    close(l->fd);
    l->fd = -1;
}

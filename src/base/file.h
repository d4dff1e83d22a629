/* file.h - files: mapped, read whole, and written so that a final name never holds half a file.
 *
 * Writing: pf_file_writer writes to a temporary name in the same folder; commit syncs the file,
 * renames it over the final name and syncs the folder; close without commit removes the temporary
 * file. Messages name the path and the system's reason. Every write, sync and rename passes
 * pf_file_fault, so that tests can fail each one in turn. */
#ifndef PF_FILE_H
#define PF_FILE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

#include <stdbool.h>

typedef struct pf_mapping {
    const unsigned char *data; /* NULL for an empty file */
    size_t size;
    bool mapped; /* else heap */
} pf_mapping;

peft_status pf_map_file(pf_mapping *m, const char *path, peft_error *err); /* read-only, private */
void pf_unmap_file(pf_mapping *m);

/* The whole file with a NUL after it. Refuses files above max_size. Reads pipes too. */
peft_status pf_read_file(pf_buf *out, const char *path, size_t max_size, peft_error *err);
/* Atomic: temporary name, fsync, rename, fsync of the folder. */
peft_status pf_write_file(const char *path, const void *data, size_t n, peft_error *err);

typedef struct pf_file_writer {
    int fd; /* -1 when closed */
    char *path, *tmp_path;
    unsigned char *block; /* write buffer */
    size_t fill;
    uint64_t written; /* bytes so far, buffered ones included */
} pf_file_writer;

peft_status pf_file_writer_open(pf_file_writer *w, const char *path, peft_error *err);
peft_status pf_file_writer_add(pf_file_writer *w, const void *data, size_t n, peft_error *err);
peft_status pf_file_writer_commit(pf_file_writer *w, peft_error *err); /* and close */
void pf_file_writer_close(pf_file_writer *w); /* discards what was not committed */

/* Appending whole lines: each add is one write. One that fails, or is cut short by a full disk, is
 * taken back, so the file never ends inside of what one call added (a killed process may leave
 * that; whoever opens a file to go on looks for it). */
typedef struct pf_append {
    int fd; /* -1 when closed */
    char *path;
    uint64_t size;
} pf_append;

peft_status pf_append_open(pf_append *f, const char *path, peft_error *err); /* made when missing */
peft_status pf_append_add(pf_append *f, const void *data, size_t n, peft_error *err);
peft_status pf_append_sync(pf_append *f, peft_error *err);
void pf_append_close(pf_append *f); /* NULL and closed ones are fine */

bool pf_path_exists(const char *path);
bool pf_is_dir(const char *path);
peft_status pf_file_size(const char *path, uint64_t *size, peft_error *err);
peft_status pf_make_dirs(const char *path, peft_error *err); /* as mkdir -p */
peft_status pf_rename(const char *from, const char *to, peft_error *err);
peft_status pf_sync_dir(const char *path, peft_error *err);
peft_status pf_sync_file(const char *path, peft_error *err);
peft_status pf_remove_file(const char *path, peft_error *err); /* missing is fine */
peft_status pf_remove_tree(const char *path,
                           peft_error *err); /* missing is fine; follows no link */
/* Names in a folder, sorted by bytes, without . and .. */
peft_status pf_list_dir(pf_strlist *out, pf_arena *a, const char *path, peft_error *err);
char *pf_path_join(pf_arena *a, const char *dir, const char *name);
const char *pf_path_base(const char *path); /* after the last slash */
char *pf_path_dir(pf_arena *a, const char *path);

/* One exclusive lock per path for the life of the process or until unlocked (advisory lock plus the
 * pid in the file). PEFT_E_BUSY names the owner. */
typedef struct pf_file_lock {
    int fd;
} pf_file_lock;
peft_status pf_lock_file(pf_file_lock *l, const char *path, peft_error *err);
void pf_unlock_file(pf_file_lock *l);

/* Fault injection for tests: the n-th write/sync/rename from now fails with errno `errnum` (n = 1
 * is the next); `forever` keeps failing. In the program it is set by the environment variable
 * PEFT_FILE_FAULT="n:errno[:forever]". "kill" in place of the errno ends the process there with
 * SIGKILL. */
void pf_file_fault(int64_t n, int errnum, bool forever);
int64_t pf_file_ops(void); /* how many such operations so far */

#endif

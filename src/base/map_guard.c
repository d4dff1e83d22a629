/* map_guard.c - see map_guard.h. The table is read inside of a signal handler: entries are
 * published by their address, last, and taken back by it, first; no lock is held. */
#include "base/map_guard.h"

#include "base/mem.h"
#include "base/status.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define TAKEN ((uintptr_t)1) /* an entry that is being written; no address */

typedef struct entry {
    _Atomic uintptr_t begin; /* 0: free */
    uintptr_t end;
    char *path;
} entry;

static entry entries[PF_MAP_GUARD_FILES];

void pf_map_guard_add(const void *data, size_t size, const char *path) {
    const size_t n = strlen(path) + 1;
    char *copy = pf_malloc(n);
    if (copy == NULL) return; /* unwatched, no more than that */
    memcpy(copy, path, n);
    for (int i = 0; i < PF_MAP_GUARD_FILES; i++) {
        uintptr_t none = 0;
        entry *e = &entries[i];
        if (!atomic_compare_exchange_strong(&e->begin, &none, TAKEN)) continue;
        e->end = (uintptr_t)data + size;
        e->path = copy;
        atomic_store(&e->begin, (uintptr_t)data);
        return;
    }
    pf_free(copy);
}

void pf_map_guard_remove(const void *data) {
    for (int i = 0; i < PF_MAP_GUARD_FILES; i++) {
        uintptr_t begin = (uintptr_t)data;
        entry *e = &entries[i];
        if (!atomic_compare_exchange_strong(&e->begin, &begin, TAKEN)) continue;
        pf_free(e->path);
        e->path = NULL;
        atomic_store(&e->begin, 0);
        return;
    }
}

static void say(const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        const ssize_t k = write(STDERR_FILENO, text, n);
        if (k <= 0) return;
        text += k;
        n -= (size_t)k;
    }
}

static void on_bus_error(int sig, siginfo_t *info, void *context) {
    (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    for (int i = 0; i < PF_MAP_GUARD_FILES; i++) {
        const entry *e = &entries[i];
        const uintptr_t begin = atomic_load(&e->begin);
        if (begin <= TAKEN || at < begin || at >= e->end) continue;
        say("error: ");
        say(e->path);
        say(" became shorter while it was in use: another program truncated or rewrote it, or its "
            "disk cannot be read. Put the file back (replace files by renaming a new one over "
            "them, never by writing into them), then go on with --resume\n");
        _exit(peft_status_exit_code(PEFT_E_IO));
    }
    signal(sig, SIG_DFL); /* not ours: end as anyone would */
    raise(sig);
}

void pf_map_guard_install(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

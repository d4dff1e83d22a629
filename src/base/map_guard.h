/* map_guard.h - a mapped file that another program truncates.
 *
 * Reading a page of a mapping that the file no longer has is a SIGBUS: the process would end
 * without a word. The guard knows every file that pf_map_file has mapped; with its handler in place
 * such a read ends the process with one line that names the file and the exit code of PEFT_E_IO.
 * There is nothing to go on with: the weights are gone in the middle of a product. Checkpoints on
 * disk are whole, and --resume takes them.
 *
 * The program installs it; the library leaves the signals of its host alone. */
#ifndef PF_MAP_GUARD_H
#define PF_MAP_GUARD_H

#include <stddef.h>

void pf_map_guard_install(void);

/* For file.c. Beyond PF_MAP_GUARD_FILES files at once the rest goes unwatched. */
enum { PF_MAP_GUARD_FILES = 1024 };
void pf_map_guard_add(const void *data, size_t size, const char *path);
void pf_map_guard_remove(const void *data);

#endif

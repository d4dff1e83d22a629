/* git_head.h - which commit a folder is at, read from .git without running git.
 *
 * Looks for .git in the folder and upwards; understands work trees (.git as a file, commondir),
 * packed refs and detached heads. What it cannot read (no repository, a reftable, no commit yet) is
 * no commit, not an error: this is for the record of a run. */
#ifndef PF_GIT_HEAD_H
#define PF_GIT_HEAD_H

#include "base/arena.h"

#define PF_GIT_SHA 65 /* 40 or 64 digits and a NUL */

/* *root: the folder that holds .git, in the arena; NULL, and sha empty, when there is no commit. */
peft_status pf_git_head(const char *dir, pf_arena *a, char sha[PF_GIT_SHA], const char **root,
                        peft_error *err);

#endif

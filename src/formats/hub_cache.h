/* hub_cache.h - from a model's name to a folder on this machine. Nothing is ever downloaded here.
 *
 * A name is a path of a folder, or the name of a model on the Hugging Face hub ("org/name", or just
 * "gpt2") that was downloaded before and lies in the local cache:
 *
 *   CACHE/models--org--name/refs/main             a file with the commit that "main" stood for
 *   CACHE/models--org--name/snapshots/<commit>/   the files, mostly links into ../../blobs
 *
 * CACHE is where the Python libraries have it: $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE, else
 * $HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub. A folder of
 * that name in the working directory comes before the cache, as it does there. */
#ifndef PF_HUB_CACHE_H
#define PF_HUB_CACHE_H

#include "base/arena.h"

/* The folder of `name` at `revision` (a branch, a tag or a commit; NULL: "main"). *commit (may be
 * NULL) becomes the snapshot's commit, or NULL for a plain folder. Texts are the arena's. A failure
 * lists the places looked at and what to do. */
peft_status pf_hub_resolve(pf_arena *a, const char *name, const char *revision, const char **path,
                           const char **commit, peft_error *err);
/* The cache folder, and in *origin what decided it ("HF_HOME", ...); NULL when memory is out. */
const char *pf_hub_cache_dir(pf_arena *a, const char **origin);

#endif

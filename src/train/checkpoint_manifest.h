/* checkpoint_manifest.h - manifest.json: what a checkpoint consists of, and the proof.
 *
 *   {"files": {"<name>": {"sha256": "...", "size": n}, ...}, "format": 1, "program": "...",
 *    "sections": [...], "step": n,
 *    "manifest_sha256": "<sha256 of all bytes of this file before these 64 digits>"}
 *
 * The last member always stands last, so a change of any byte of the manifest shows. */
#ifndef PF_CHECKPOINT_MANIFEST_H
#define PF_CHECKPOINT_MANIFEST_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/hash.h"
#include "base/str.h"

#include <stdint.h>

#define PF_MANIFEST_NAME   "manifest.json"
#define PF_MANIFEST_FORMAT 1
#define PF_STATE_NAME      "state.safetensors"

typedef struct pf_manifest_file {
    const char *name;
    uint64_t size;
    char sha256[PF_SHA256_HEX];
} pf_manifest_file;

typedef struct pf_manifest {
    int64_t step;
    const char *program;
    pf_strlist sections;
    pf_manifest_file *files;
    int n_files;
} pf_manifest;

/* A name that a file of a checkpoint may have: in its folder or in a folder of that, not hidden,
 * not the manifest. */
bool pf_manifest_name_ok(const char *name);
peft_status pf_manifest_text(pf_buf *out, const pf_manifest *m, peft_error *err);
/* `path` is read and everything in it checked; files are not looked at. */
peft_status pf_manifest_read(pf_manifest *m, pf_arena *a, const char *path, peft_error *err);

#endif

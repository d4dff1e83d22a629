/* environment.h - the record of where a run was made: environment.json and requirements.txt. */
#ifndef PF_ENVIRONMENT_H
#define PF_ENVIRONMENT_H

#include "base/arena.h"
#include "base/buf.h"

typedef struct pf_named_text {
    const char *name, *value;
} pf_named_text;

typedef struct pf_environment_cfg {
    int threads;                 /* that compute; 0: all usable cores */
    const char *command;         /* the command line, or NULL */
    const char *started;         /* in UTC; NULL: now */
    const char *work_dir;        /* whose commit is recorded; NULL: the working directory */
    const pf_named_text *hashes; /* "base", "data.train", "tokenizer": sha256 */
    int n_hashes;
    const pf_named_text *more; /* what else the caller wants kept: the plan's choices, the device */
    int n_more;
} pf_environment_cfg;

/* The libraries that are linked, at the versions that run now. */
peft_status pf_environment_libraries(pf_arena *a, const pf_named_text **out, int *n,
                                     peft_error *err);
peft_status pf_environment_json(pf_buf *out, const pf_environment_cfg *cfg, peft_error *err);
/* "name==version" lines: this program first, then the libraries. */
peft_status pf_requirements_text(pf_buf *out, peft_error *err);

#endif

/* A shard index from anywhere: refused, or every tensor has a file, and no file leads out of the
 * folder. */
#include "base/str.h"
#include "formats/safetensors_index.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    pf_shard_index ix;
    peft_error err = {0};
    if (pf_shard_index_parse(&ix, (const char *)data, size, "fuzz", &err) != PEFT_OK) {
        PF_ASSERT(strncmp(err.message, "fuzz:", 5) == 0);
        pf_shard_index_close(&ix);
        return 0;
    }
    PF_ASSERT(ix.n_entries > 0 && ix.n_files > 0 && ix.n_files <= ix.n_entries);
    for (int i = 0; i < ix.n_entries; i++) {
        const char *file = ix.files[ix.entries[i].file];
        PF_ASSERT(pf_shard_index_find(&ix, ix.entries[i].tensor) == ix.entries[i].file);
        PF_ASSERT(file[0] != '/' && file[0] != '\0' && strncmp(file, "../", 3) != 0);
        PF_ASSERT(strcmp(file, "..") != 0 && strstr(file, "/../") == NULL &&
                  !pf_ends_with(file, "/.."));
    }
    pf_shard_index_close(&ix);
    return 0;
}

/* hub_cache.c - see hub_cache.h. The rules for names are those of huggingface_hub: they keep a name
 * from leading out of the cache, so nothing else has to. */
#include "formats/hub_cache.h"

#include "base/file.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

#include "base/banned.h"

enum { MAX_REF_BYTES = 4096, MAX_NAME = 96, MAX_LISTED = 8 };

static bool word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* [A-Za-z0-9_.-]+ that neither begins nor ends with '.' or '-' and has no ".." in it. */
static bool is_plain_name(const char *s, size_t n) {
    if (n == 0 || n > MAX_NAME || !word_char(s[0]) || !word_char(s[n - 1])) return false;
    for (size_t i = 0; i < n; i++) {
        if (!word_char(s[i]) && s[i] != '.' && s[i] != '-') return false;
        if (i > 0 && s[i] == '.' && s[i - 1] == '.') return false;
    }
    return true;
}

static bool is_hub_name(const char *s) {
    const char *slash = strchr(s, '/');
    if (strstr(s, "--") != NULL || pf_ends_with(s, ".git")) return false;
    if (slash == NULL) return is_plain_name(s, strlen(s));
    return is_plain_name(s, (size_t)(slash - s)) && is_plain_name(slash + 1, strlen(slash + 1));
}

/* Branches and tags may have slashes ("refs/pr/1"). */
static bool is_revision(const char *s) {
    for (const char *part = s;; part++) {
        size_t n = strcspn(part, "/");
        if (!is_plain_name(part, n)) return false;
        part += n;
        if (*part == '\0') return true;
    }
}

static const char *with_home(pf_arena *a, const char *path) {
    const char *home = getenv("HOME");
    if (home == NULL || (path[0] != '~' || (path[1] != '/' && path[1] != '\0'))) return path;
    return pf_arena_printf(a, "%s%s", home, path + 1);
}

const char *pf_hub_cache_dir(pf_arena *a, const char **origin) {
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"HF_HUB_CACHE", ""},
        {"HUGGINGFACE_HUB_CACHE", ""},
        {"HF_HOME", "/hub"},
        {"XDG_CACHE_HOME", "/huggingface/hub"},
        {"HOME", "/.cache/huggingface/hub"},
    };
    for (size_t i = 0; i < PF_COUNT(places); i++) {
        const char *value = getenv(places[i].variable);
        if (value == NULL || value[0] == '\0') continue;
        *origin = places[i].variable;
        value = with_home(a, value);
        return value != NULL ? pf_arena_printf(a, "%s%s", value, places[i].below) : NULL;
    }
    *origin = "no HOME";
    return pf_arena_strdup(a, ".cache/huggingface/hub");
}

/* models--org--name */
static const char *cached_dir(pf_arena *a, const char *cache, const char *name) {
    const char *slash = strchr(name, '/');
    if (slash == NULL) return pf_arena_printf(a, "%s/models--%s", cache, name);
    return pf_arena_printf(a, "%s/models--%.*s--%s", cache, (int)(slash - name), name, slash + 1);
}

/* "abc, def" of a folder's names, at most MAX_LISTED; "none" when there are none. */
static const char *list_names(pf_arena *a, const char *dir) {
    pf_strlist names;
    pf_buf text;
    if (pf_list_dir(&names, a, dir, NULL) != PEFT_OK || names.n == 0) return "none";
    pf_buf_init(&text);
    for (int i = 0; i < names.n && i < MAX_LISTED; i++) {
        pf_buf_addf(&text, "%s%s", i > 0 ? ", " : "", names.items[i]);
    }
    if (names.n > MAX_LISTED) pf_buf_addf(&text, " and %d more", names.n - MAX_LISTED);
    const char *kept = pf_arena_strdup(a, pf_buf_str(&text));
    pf_buf_free(&text);
    return kept != NULL ? kept : "none";
}

static peft_status read_ref(pf_arena *a, const char *path, const char **commit, peft_error *err) {
    pf_buf text;
    pf_buf_init(&text);
    peft_status status = pf_read_file(&text, path, MAX_REF_BYTES, err);
    if (status == PEFT_OK) {
        pf_str s = pf_str_trim((pf_str){pf_buf_str(&text), text.len});
        if (!is_plain_name(s.p, s.n)) {
            status = PF_FAIL(err, PEFT_E_FORMAT, "%s does not hold the name of a commit", path);
        } else {
            *commit = pf_arena_strndup(a, s.p, s.n);
            if (*commit == NULL) status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", path);
        }
    }
    pf_buf_free(&text);
    return status;
}

static peft_status find_snapshot(pf_arena *a, const char *model_dir, const char *name,
                                 const char *revision, const char **path, const char **commit,
                                 peft_error *err) {
    const char *ref = pf_arena_printf(a, "%s/refs/%s", model_dir, revision);
    const char *direct = pf_arena_printf(a, "%s/snapshots/%s", model_dir, revision);
    PF_CHECK_ALLOC(ref, err);
    PF_CHECK_ALLOC(direct, err);
    if (pf_is_dir(direct)) { /* a commit */
        *path = direct;
        *commit = pf_path_base(direct);
        return PEFT_OK;
    }
    if (!pf_path_exists(ref)) {
        const char *snapshots = pf_arena_printf(a, "%s/snapshots", model_dir);
        PF_CHECK_ALLOC(snapshots, err);
        return PF_FAIL(err, PEFT_E_MISSING,
                       "%s has no revision '%s' (snapshots: %s); name one of them as the revision, "
                       "or download it: "
                       "hf download %s --revision %s",
                       model_dir, revision, list_names(a, snapshots), name, revision);
    }
    PF_TRY(read_ref(a, ref, commit, err));
    *path = pf_arena_printf(a, "%s/snapshots/%s", model_dir, *commit);
    PF_CHECK_ALLOC(*path, err);
    if (!pf_is_dir(*path)) {
        return PF_FAIL(
            err, PEFT_E_MISSING,
            "%s names a snapshot that is not there: %s; download it again: hf download %s", ref,
            *path, name);
    }
    return PEFT_OK;
}

static peft_status resolve(pf_arena *a, const char *name, const char *revision, const char **path,
                           const char **commit, peft_error *err) {
    const char *origin, *local = with_home(a, name);
    PF_CHECK_ALLOC(local, err);
    if (pf_is_dir(local)) {
        *path = pf_arena_strdup(a, local);
        PF_CHECK_ALLOC(*path, err);
        return PEFT_OK;
    }
    if (pf_path_exists(local)) {
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s is a file; a model is named by the folder that holds its files", local);
    }
    if (!is_hub_name(name)) {
        return PF_FAIL(err, PEFT_E_MISSING,
                       "there is no folder %s (a model on the hub is called org/name)", local);
    }
    if (!is_revision(revision)) {
        return PF_FAIL(err, PEFT_E_CONFIG, "'%s' cannot be a revision of %s", revision, name);
    }
    const char *cache = pf_hub_cache_dir(a, &origin);
    PF_CHECK_ALLOC(cache, err);
    const char *model_dir = cached_dir(a, cache, name);
    PF_CHECK_ALLOC(model_dir, err);
    if (pf_is_dir(model_dir)) return find_snapshot(a, model_dir, name, revision, path, commit, err);
    return PF_FAIL(
        err, PEFT_E_MISSING,
        "no model '%s' on this machine; looked for\n  the folder ./%s\n  %s (the Hugging Face "
        "cache, from %s)\n"
        "Download it where there is internet (hf download %s), or give the path of its folder",
        name, name, model_dir, origin, name);
}

peft_status pf_hub_resolve(pf_arena *a, const char *name, const char *revision, const char **path,
                           const char **commit, peft_error *err) {
    const char *found_path = NULL, *found_commit = NULL;
    *path = NULL;
    if (commit != NULL) *commit = NULL;
    PF_TRY(resolve(a, name, revision != NULL ? revision : "main", &found_path, &found_commit, err));
    *path = found_path;
    if (commit != NULL) *commit = found_commit;
    return PEFT_OK;
}

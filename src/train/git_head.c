/* git_head.c - see git_head.h; gitrepository-layout(5). */
#include "train/git_head.h"

#include "base/buf.h"
#include "base/file.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_REF    ((size_t)64 << 10)
#define MAX_PACKED ((size_t)256 << 20)
#define MAX_LINKS  5 /* a ref that names a ref that names ... */

/* A small file's text without white space at its end; NULL when it cannot be read. */
static char *small_file(pf_arena *a, const char *dir, const char *name, size_t max) {
    const char *path = pf_path_join(a, dir, name);
    if (path == NULL || !pf_path_exists(path) || pf_is_dir(path)) return NULL;
    pf_buf text = {0};
    char *out = NULL;
    if (pf_read_file(&text, path, max, NULL) == PEFT_OK && text.len > 0) {
        pf_str s = pf_str_trim((pf_str){text.data, text.len});
        out = pf_arena_strndup(a, s.p, s.n);
    }
    pf_buf_free(&text);
    return out;
}

static bool is_sha(const char *s, size_t n) {
    if (n != 40 && n != 64) return false;
    for (size_t i = 0; i < n; i++) {
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    }
    return true;
}

/* A ref may be a path below the repository and nothing else. */
static bool is_ref(const char *s) {
    return pf_starts_with(s, "refs/") && strstr(s, "..") == NULL && strchr(s, '\n') == NULL;
}

/* Lines of packed-refs: "<sha> <ref>"; comments begin with #, peeled tags with ^. */
static bool find_packed(const char *text, const char *ref, char *sha) {
    size_t n = strlen(ref);
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');
        size_t len = end != NULL ? (size_t)(end - line) : strlen(line);
        const char *blank = memchr(line, ' ', len);
        if (blank != NULL && is_sha(line, (size_t)(blank - line)) &&
            len - (size_t)(blank - line) - 1 == n && memcmp(blank + 1, ref, n) == 0) {
            memcpy(sha, line, (size_t)(blank - line));
            sha[blank - line] = '\0';
            return true;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return false;
}

static void resolve(pf_arena *a, const char *git_dir, char *sha) {
    const char *common = git_dir, *named = small_file(a, git_dir, "commondir", MAX_REF);
    if (named != NULL) common = pf_path_join(a, git_dir, named);
    const char *text = small_file(a, git_dir, "HEAD", MAX_REF);
    for (int links = 0; text != NULL && common != NULL && links < MAX_LINKS; links++) {
        if (is_sha(text, strlen(text))) {
            memcpy(sha, text, strlen(text) + 1);
            return;
        }
        if (!pf_starts_with(text, "ref: ") || !is_ref(text + 5)) return;
        const char *ref = text + 5;
        text = small_file(a, git_dir, ref, MAX_REF);
        if (text == NULL) text = small_file(a, common, ref, MAX_REF);
        if (text == NULL) {
            const char *packed = small_file(a, common, "packed-refs", MAX_PACKED);
            if (packed != NULL) find_packed(packed, ref, sha);
            return;
        }
    }
}

/* The repository of `root`, or NULL: a folder .git, or a file that says where it is. */
static const char *git_dir_of(pf_arena *a, const char *root) {
    const char *dot_git = pf_path_join(a, root, ".git");
    if (dot_git == NULL || pf_is_dir(dot_git)) return dot_git;
    const char *text = small_file(a, root, ".git", MAX_REF);
    if (text == NULL || !pf_starts_with(text, "gitdir: ")) return NULL;
    return pf_path_join(a, root, text + 8);
}

peft_status pf_git_head(const char *dir, pf_arena *a, char sha[PF_GIT_SHA], const char **root,
                        peft_error *err) {
    sha[0] = '\0';
    *root = NULL;
    char here[PATH_MAX];
    if (realpath(dir, here) == NULL) return PEFT_OK;
    char *at = pf_arena_strdup(a, here);
    PF_CHECK_ALLOC(at, err);
    for (;;) {
        const char *git_dir = git_dir_of(a, at);
        if (git_dir != NULL) resolve(a, git_dir, sha);
        if (sha[0] != '\0') *root = at;
        if (git_dir != NULL) return PEFT_OK;
        char *slash = strrchr(at, '/');
        if (slash == NULL || at[1] == '\0') return PEFT_OK;
        if (slash == at)
            at[1] = '\0';
        else
            *slash = '\0';
    }
}

/* str.c - text helpers; see str.h. */
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pf_str pf_str_of(const char *s) {
    return (pf_str){s, strlen(s)};
}

bool pf_str_eq(pf_str a, pf_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool pf_streq(const char *a, const char *b) {
    if (a == NULL || b == NULL) return a == b;
    return strcmp(a, b) == 0;
}

bool pf_starts_with(const char *s, const char *prefix) {
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool pf_ends_with(const char *s, const char *suffix) {
    size_t n = strlen(s), m = strlen(suffix);
    return m <= n && memcmp(s + n - m, suffix, m) == 0;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

pf_str pf_str_trim(pf_str s) {
    while (s.n > 0 && is_space(s.p[0])) s.p++, s.n--;
    while (s.n > 0 && is_space(s.p[s.n - 1])) s.n--;
    return s;
}

peft_status pf_strlist_add(pf_strlist *l, pf_arena *a, const char *s, peft_error *err) {
    /* Lengths that are powers of two are the moments to grow: the list needs no capacity of its
     * own. */
    if ((l->n & (l->n - 1)) == 0) {
        const char **items = PF_NEW_ARRAY(a, const char *, l->n == 0 ? 1 : 2 * l->n);
        PF_CHECK_ALLOC(items, err);
        if (l->n > 0) memcpy(items, l->items, (size_t)l->n * sizeof *items);
        l->items = items;
    }
    const char *copy = pf_arena_strdup(a, s);
    PF_CHECK_ALLOC(copy, err);
    l->items[l->n++] = copy;
    return PEFT_OK;
}

bool pf_strlist_has(const pf_strlist *l, const char *s) {
    for (int i = 0; i < l->n; i++) {
        if (strcmp(l->items[i], s) == 0) return true;
    }
    return false;
}

#define NEAREST_MAX 96 /* longer names are compared by their ends */

/* Optimal string alignment distance, case folded. */
static int distance(const char *a, int n, const char *b, int m) {
    int rows[3][NEAREST_MAX + 1];
    for (int j = 0; j <= m; j++) rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *cur = rows[i % 3], *prev = rows[(i + 2) % 3], *prev2 = rows[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= m; j++) {
            int ca = tolower((unsigned char)a[i - 1]), cb = tolower((unsigned char)b[j - 1]);
            int best = prev[j - 1] + (ca != cb);
            if (prev[j] + 1 < best) best = prev[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == cb && prev2[j - 2] + 1 < best) {
                best = prev2[j - 2] + 1;
            }
            cur[j] = best;
        }
    }
    return rows[n % 3][m];
}

#define WORD_BREAKS "_-. "

/* Is every word of `a` a word of `b`, and are there two or more? Then "num_epochs" meant
 * "num_train_epochs". */
static bool words_contained(const char *a, const char *b) {
    int words = 0;
    for (const char *w = a + strspn(a, WORD_BREAKS); *w != '\0'; words++) {
        size_t n = strcspn(w, WORD_BREAKS);
        bool found = false;
        for (const char *v = b; !found && *v != '\0';) {
            size_t m = strcspn(v, WORD_BREAKS);
            found = m == n && strncasecmp(v, w, n) == 0;
            v += m + (v[m] != '\0');
        }
        if (!found) return false;
        w += n + strspn(w + n, WORD_BREAKS);
    }
    return words >= 2;
}

int pf_nearest(const char *name, const char *const *candidates, int n_candidates) {
    int n = (int)strnlen(name, 4096);
    if (n > NEAREST_MAX) {
        name += n - NEAREST_MAX;
        n = NEAREST_MAX;
    }
    int best = -1, best_cost = INT_MAX;
    for (int i = 0; i < n_candidates; i++) {
        const char *c = candidates[i];
        if (c == NULL) continue;
        int m = (int)strnlen(c, 4096);
        if (m > NEAREST_MAX) {
            c += m - NEAREST_MAX;
            m = NEAREST_MAX;
        }
        int longer = n > m ? n : m;
        int cost = distance(name, n, c, m);
        int allowed = longer / 3 > 2 ? longer / 3 : 2;
        bool contained = n >= 3 && m >= 3 &&
                         (strcasestr(c, name) != NULL || strcasestr(name, c) != NULL ||
                          words_contained(name, c) || words_contained(c, name));
        if (cost >= longer || (cost > allowed && !contained)) continue;
        if (contained && cost > allowed) cost = allowed; /* a part of the name counts as near */
        if (cost < best_cost) {
            best_cost = cost;
            best = i;
        }
    }
    return best;
}

/* Copies without '_' between digits ("1_000"); false when it does not fit or an underscore stands
 * elsewhere. */
static bool without_underscores(const char *s, char *out, size_t size) {
    size_t n = 0;
    for (size_t i = 0; s[i] != '\0'; i++) {
        if (s[i] == '_') {
            if (i == 0 || !isdigit((unsigned char)s[i - 1]) || !isdigit((unsigned char)s[i + 1]))
                return false;
            continue;
        }
        if (n + 1 >= size) return false;
        out[n++] = s[i];
    }
    out[n] = '\0';
    return n > 0;
}

bool pf_parse_int(const char *s, int64_t *out) {
    char text[64];
    if (!without_underscores(s, text, sizeof text)) return false;
    const char *p = text + (text[0] == '-' || text[0] == '+');
    if (!isdigit((unsigned char)*p)) return false;
    for (; *p != '\0'; p++) {
        if (!isdigit((unsigned char)*p)) return false;
    }
    errno = 0;
    long long v = strtoll(text, NULL, 10);
    if (errno != 0) return false;
    *out = v;
    return true;
}

/* Numbers in files have a point, whatever the user's language has. */
static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void) {
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

bool pf_parse_float(const char *s, double *out) {
    char text[128];
    if (!without_underscores(s, text, sizeof text)) return false;
    for (const char *p = text; *p != '\0'; p++) { /* no hex, no names of numbers, no blanks */
        if (!isdigit((unsigned char)*p) && strchr("+-.eE", *p) == NULL) return false;
    }
    pthread_once(&c_locale_once, make_c_locale);
    char *end;
    double v = c_locale != (locale_t)0 ? strtod_l(text, &end, c_locale) : strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(v)) return false;
    *out = v;
    return true;
}

bool pf_parse_size(const char *s, uint64_t *out) {
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {
        {"", 1},
        {"b", 1},
        {"k", 1024.},
        {"kib", 1024.},
        {"kb", 1e3},
        {"m", 1048576.},
        {"mib", 1048576.},
        {"mb", 1e6},
        {"g", 1073741824.},
        {"gib", 1073741824.},
        {"gb", 1e9},
        {"t", 1099511627776.},
        {"tib", 1099511627776.},
        {"tb", 1e12},
    };
    char number[64];
    size_t n = 0;
    while (s[n] != '\0' && (isdigit((unsigned char)s[n]) || s[n] == '.' || s[n] == '_')) {
        if (n + 1 >= sizeof number) return false;
        number[n] = s[n];
        n++;
    }
    number[n] = '\0';
    while (s[n] == ' ') n++;
    double v;
    if (!pf_parse_float(number, &v) || v < 0) return false;
    for (size_t i = 0; i < PF_COUNT(units); i++) {
        if (strcasecmp(s + n, units[i].unit) != 0) continue;
        v *= units[i].bytes;
        if (v >= 1.8e19) return false;
        *out = (uint64_t)v;
        return true;
    }
    return false;
}

char *pf_format_duration(double seconds, char *out, size_t n) {
    if (!(seconds < 1e12))
        snprintf(out, n, "forever");
    else if (seconds < 60)
        snprintf(out, n, "%.3g s", seconds);
    else if (seconds < 3600)
        snprintf(out, n, "%d min %d s", (int)(seconds / 60), (int)fmod(seconds, 60));
    else if (seconds < 48 * 3600.0)
        snprintf(out, n, "%d h %d min", (int)(seconds / 3600), (int)(fmod(seconds, 3600) / 60));
    else
        snprintf(out, n, "%.1f days", seconds / 86400);
    return out;
}

char *pf_format_bytes(double bytes, char *out, size_t n) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t u = 0;
    while (bytes >= 1023.95 && u + 1 < PF_COUNT(units)) {
        bytes /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(out, n, "%.0f B", bytes);
    else
        snprintf(out, n, bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}

int pf_utf8_decode(const char *p, size_t n, uint32_t *cp) {
    if (n == 0) return 0;
    const unsigned char *s = (const unsigned char *)p;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    int len = s[0] >= 0xC2 && s[0] < 0xE0   ? 2
              : (s[0] & 0xF0) == 0xE0       ? 3
              : s[0] >= 0xF0 && s[0] < 0xF5 ? 4
                                            : 0;
    if (len == 0 || (size_t)len > n) return 0;
    uint32_t v = s[0] & (0xFFu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        v = v << 6 | (s[i] & 0x3Fu);
    }
    if ((len == 3 && v < 0x800) || (len == 4 && (v < 0x10000 || v > 0x10FFFF)) ||
        (v >= 0xD800 && v < 0xE000)) {
        return 0;
    }
    *cp = v;
    return len;
}

int pf_utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool pf_utf8_valid(const char *p, size_t n, size_t *bad_offset) {
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        int len = pf_utf8_decode(p + i, n - i, &cp);
        if (len == 0) {
            if (bad_offset != NULL) *bad_offset = i;
            return false;
        }
        i += (size_t)len;
    }
    return true;
}

/* clock.c - see clock.h. */
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double pf_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Field 22 of /proc/self/stat is the start in clock ticks since boot; the second field is a name
 * in parentheses that may hold anything. */
double pf_process_age(void) {
    FILE *f = fopen("/proc/self/stat", "re");
    if (f == NULL) return 0;
    char text[1024];
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at, ' ');
        if (at != NULL) at++;
    }
    long ticks = sysconf(_SC_CLK_TCK);
    struct timespec now;
    if (at == NULL || ticks <= 0 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
    double age = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 -
                 (double)strtoull(at, NULL, 10) / (double)ticks;
    return age > 0 ? age : 0;
}

double pf_wall(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

char *pf_wall_iso(char *out, size_t n) {
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    if (strftime(out, n, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0 && n > 0) out[0] = '\0';
    return out;
}

char *pf_format_seconds(double s, char *out, size_t n) {
    if (!(s >= 0) || s > 1e9) {
        snprintf(out, n, "?");
        return out;
    }
    long long t = (long long)(s + 0.5);
    if (t >= 3600)
        snprintf(out, n, "%lld:%02lld:%02lld", t / 3600, t / 60 % 60, t % 60);
    else
        snprintf(out, n, "%02lld:%02lld", t / 60, t % 60);
    return out;
}

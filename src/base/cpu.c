/* cpu.c - processor features and memory figures; see cpu.h. */
#include "base/cpu.h"

#include "base/log.h"
#include "base/str.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static pf_isa level;
static bool bf16, vnni, avx_vnni;
static char model[128] = "unknown CPU";
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_model(void) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL) return;
    char line[512];
    while (fgets(line, sizeof line, f) != NULL) {
        if (!pf_starts_with(line, "model name")) continue;
        const char *colon = strchr(line, ':');
        if (colon == NULL) break;
        pf_str name = pf_str_trim(pf_str_of(colon + 1));
        snprintf(model, sizeof model, "%.*s", (int)name.n, name.p);
        break;
    }
    fclose(f);
}

#if defined(__x86_64__)
/* clang 14's __builtin_cpu_supports does not know this one */
static bool has_f16c(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx_vnni(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0;
}
#endif

static void detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init(); /* includes whether the system saves the wide registers */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        level = PF_ISA_AVX2;
        avx_vnni = has_avx_vnni();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512cd")) {
            level = PF_ISA_AVX512;
            bf16 = __builtin_cpu_supports("avx512bf16");
            vnni = __builtin_cpu_supports("avx512vnni");
        }
    }
#endif
    const char *wish = getenv("PEFT_ISA");
    if (wish != NULL && wish[0] != '\0') {
        bool known = false;
        for (pf_isa isa = PF_ISA_SCALAR; isa <= PF_ISA_AVX512; isa++) {
            if (strcmp(wish, pf_isa_name(isa)) != 0) continue;
            known = true;
            if (isa < level) level = isa;
        }
        if (!known) PF_WARN("PEFT_ISA is '%s'; it should be scalar, avx2 or avx512", wish);
    }
    read_model();
}

pf_isa pf_cpu_level(void) {
    pthread_once(&once, detect);
    return level;
}

void pf_cpu_force(pf_isa at_most) {
    static pf_isa own = PF_ISA_SCALAR;
    static bool known;
    pthread_once(&once, detect);
    if (!known) { /* forcing a lower level and back again must give the CPU's own */
        own = level;
        known = true;
    }
    level = at_most < own ? at_most : own;
}

const char *pf_isa_name(pf_isa isa) {
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    return names[isa];
}

bool pf_cpu_has_avx512_bf16(void) {
    return pf_cpu_level() == PF_ISA_AVX512 && bf16;
}
bool pf_cpu_has_avx512_vnni(void) {
    return pf_cpu_level() == PF_ISA_AVX512 && vnni;
}

bool pf_cpu_has_avx_vnni(void) {
    return pf_cpu_level() >= PF_ISA_AVX2 && avx_vnni;
}

const char *pf_cpu_model(void) {
    pthread_once(&once, detect);
    return model;
}

size_t pf_cpu_l2_bytes(void) {
    long n = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return n > 0 ? (size_t)n : (size_t)1 << 20;
}

/* The number of kilobytes that follows `key` in a file of /proc, in bytes. */
static uint64_t proc_kilobytes(const char *path, const char *key) {
    FILE *f = fopen(path, "re");
    if (f == NULL) return 0;
    char line[256];
    unsigned long long kb = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        if (pf_starts_with(line, key) && sscanf(line + strlen(key), "%llu", &kb) == 1) break;
    }
    fclose(f);
    return (uint64_t)kb * 1024;
}

/* A number of bytes in a file; UINT64_MAX where there is none ("max"). */
static uint64_t limit_of(const char *path) {
    FILE *f = fopen(path, "re");
    if (f == NULL) return UINT64_MAX;
    unsigned long long bytes;
    const bool any = fscanf(f, "%llu", &bytes) == 1;
    fclose(f);
    return any ? bytes : UINT64_MAX;
}

uint64_t pf_memory_total(void) {
    uint64_t bytes = proc_kilobytes("/proc/meminfo", "MemTotal:");
    static const char *const cgroups[] = {"/sys/fs/cgroup/memory.max",
                                          "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < PF_COUNT(cgroups); i++) {
        const uint64_t limit = limit_of(cgroups[i]);
        if (limit < bytes) bytes = limit;
    }
    return bytes;
}
uint64_t pf_memory_available(void) {
    return proc_kilobytes("/proc/meminfo", "MemAvailable:");
}
uint64_t pf_memory_anon(void) {
    return proc_kilobytes("/proc/self/status", "RssAnon:");
}
uint64_t pf_memory_peak_rss(void) {
    return proc_kilobytes("/proc/self/status", "VmHWM:");
}

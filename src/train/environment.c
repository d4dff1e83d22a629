/* environment.c - see environment.h. */
#include "train/environment.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/pool.h"
#include "text/json.h"
#include "train/git_head.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <gnu/libc-version.h>
#include <openssl/crypto.h>
#include <pcre2.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <utf8proc.h>
#include <yaml.h>
#include <zlib.h>
#ifdef PEFT_HAVE_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

#define MAX_LIBRARIES 16

/* "10.42 2022-12-11" -> "10.42" */
static const char *first_word(pf_arena *a, const char *s) {
    size_t n = 0;
    while (s[n] != '\0' && s[n] != ' ') n++;
    return pf_arena_strndup(a, s, n);
}

peft_status pf_environment_libraries(pf_arena *a, const pf_named_text **out, int *n,
                                     peft_error *err) {
    pf_named_text *l = PF_NEW_ARRAY(a, pf_named_text, MAX_LIBRARIES);
    PF_CHECK_ALLOC(l, err);
    char pcre[64] = "unknown";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    int k = 0;
    l[k++] = (pf_named_text){"glibc", gnu_get_libc_version()};
    l[k++] = (pf_named_text){"jansson", jansson_version_str()};
    l[k++] = (pf_named_text){"libyaml", yaml_get_version_string()};
    l[k++] = (pf_named_text){"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)};
    l[k++] = (pf_named_text){"pcre2", first_word(a, pcre)};
    l[k++] = (pf_named_text){"utf8proc", utf8proc_version()};
    l[k++] = (pf_named_text){"zlib", zlibVersion()};
#ifdef PEFT_HAVE_ONEDNN
    const dnnl_version_t *v = dnnl_version();
    l[k++] =
        (pf_named_text){"onednn", pf_arena_printf(a, "%d.%d.%d", v->major, v->minor, v->patch)};
#endif
    for (int i = 0; i < k; i++) PF_CHECK_ALLOC(l[i].value, err);
    *out = l;
    *n = k;
    return PEFT_OK;
}

static void add_texts(pf_buf *out, const char *key, const pf_named_text *items, int n) {
    pf_buf_addf(out, "  \"%s\": {", key);
    for (int i = 0; i < n; i++) {
        pf_buf_adds(out, i > 0 ? ",\n    " : "\n    ");
        pf_json_add_cstr(out, items[i].name);
        pf_buf_adds(out, ": ");
        if (items[i].value != NULL)
            pf_json_add_cstr(out, items[i].value);
        else
            pf_buf_adds(out, "null");
    }
    pf_buf_adds(out, n > 0 ? "\n  }" : "}");
}

static void add_text(pf_buf *out, const char *key, const char *value) {
    pf_buf_addf(out, "  \"%s\": ", key);
    if (value != NULL)
        pf_json_add_cstr(out, value);
    else
        pf_buf_adds(out, "null");
    pf_buf_adds(out, ",\n");
}

static peft_status add_all(pf_buf *out, pf_arena *a, const pf_environment_cfg *cfg,
                           peft_error *err) {
    char sha[PF_GIT_SHA], when[32];
    const char *root;
    const pf_named_text *libraries;
    int n_libraries;
    struct utsname os = {0};
    PF_TRY(pf_git_head(cfg->work_dir != NULL ? cfg->work_dir : ".", a, sha, &root, err));
    PF_TRY(pf_environment_libraries(a, &libraries, &n_libraries, err));
    uname(&os);
    int cores = pf_usable_cores();
    pf_buf_adds(out, "{\n");
    add_text(out, "program", "peft-toolkit " PEFT_VERSION);
    add_text(out, "compiler", __VERSION__);
    add_text(out, "command", cfg->command);
    add_text(out, "started", cfg->started != NULL ? cfg->started : pf_wall_iso(when, sizeof when));
    add_text(out, "git_sha", root != NULL ? sha : NULL);
    add_text(out, "git_root", root);
    add_text(out, "host", os.nodename);
    pf_buf_adds(out, "  \"os\": ");
    char system[256];
    snprintf(system, sizeof system, "%s %s %s", os.sysname, os.release, os.machine);
    pf_json_add_cstr(out, system);
    pf_buf_adds(out, ",\n");
    add_text(out, "cpu", pf_cpu_model());
    add_text(out, "isa", pf_isa_name(pf_cpu_level()));
    pf_buf_addf(out, "  \"cores\": %d,\n  \"threads\": %d,\n  \"memory_bytes\": %llu,\n", cores,
                cfg->threads > 0 ? cfg->threads : cores, (unsigned long long)pf_memory_total());
    add_texts(out, "libraries", libraries, n_libraries);
    pf_buf_adds(out, ",\n");
    add_texts(out, "sha256", cfg->hashes, cfg->n_hashes);
    pf_buf_adds(out, ",\n");
    add_texts(out, "more", cfg->more, cfg->n_more);
    pf_buf_adds(out, "\n}\n");
    return pf_buf_ok(out) ? PEFT_OK : PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
}

peft_status pf_environment_json(pf_buf *out, const pf_environment_cfg *cfg, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "environment");
    peft_status status = add_all(out, &a, cfg, err);
    pf_arena_release(&a);
    return status;
}

peft_status pf_requirements_text(pf_buf *out, peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "environment");
    const pf_named_text *l;
    int n;
    peft_status status = pf_environment_libraries(&a, &l, &n, err);
    if (status == PEFT_OK) {
        pf_buf_adds(out, "peft-toolkit==" PEFT_VERSION "\n");
        for (int i = 0; i < n; i++) pf_buf_addf(out, "%s==%s\n", l[i].name, l[i].value);
        if (!pf_buf_ok(out)) status = PF_FAIL(err, PEFT_E_NOMEM, "out of memory");
    }
    pf_arena_release(&a);
    return status;
}

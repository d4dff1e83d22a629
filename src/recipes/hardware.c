/* hardware.c - see hardware.h. A device holds a run when the memory plan made under its memory as
 * the limit exists; the time is the plan's operations at an assumed share of the device's rate. */
#include "recipes/hardware.h"

#include "base/cpu.h"
#include "base/file.h"
#include "text/json.h"
#include "text/yaml.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_DEVICES = 256 };
#define GPU_SHARE 0.92 /* of a GPU's memory that a run gets; the rest is the driver's */
#define CPU_SHARE 0.90

typedef struct device {
    const char *name;
    bool gpu, measured;
    uint64_t memory;
    double rate, efficiency, price; /* operations a second of the type that is used */
    const char *type;
    /* what comes of it */
    bool fits;
    int64_t need; /* least memory, weights included */
    const char *how;
    double tokens_per_second, hours, cost;
} device;

/* ---- the table ------------------------------------------------------------------------------- */

static peft_status wrong(const pf_yaml_node *n, const char *what, peft_error *err) {
    return PF_FAIL(err, PEFT_E_FORMAT, "%s:%d:%d: %s", n->source, n->line, n->column, what);
}

static peft_status number_of(const pf_yaml_node *map, const char *key, double lo, double hi,
                             double *out, peft_error *err) {
    const pf_yaml_node *n = pf_yaml_find(map, key);
    if (n == NULL) return PEFT_OK;
    if (n->kind == PF_YAML_SCALAR && pf_parse_float(n->text, out) && *out >= lo && *out <= hi)
        return PEFT_OK;
    char what[128];
    snprintf(what, sizeof what, "%s should be a number between %g and %g", key, lo, hi);
    return wrong(n, what, err);
}

/* The rate of the type that training would use: what `compute` says where the device has it, else
 * the first that is given. */
static peft_status read_rate(device *d, const pf_yaml_node *rates, const char *compute,
                             peft_error *err) {
    if (rates == NULL || rates->kind != PF_YAML_MAP || rates->first == NULL)
        return wrong(rates, "rates should be a mapping such as {bf16: 312}", err);
    const pf_yaml_node *n = pf_yaml_find(rates, compute);
    if (n == NULL || d->gpu) n = rates->first;
    double rate = 0;
    PF_TRY(number_of(rates, n->key->text, 1e-6, 1e9, &rate, err));
    d->rate = rate * 1e12;
    d->type = n->key->text;
    return PEFT_OK;
}

static peft_status read_device(device *d, const pf_yaml_node *n, const char *compute,
                               peft_error *err) {
    static const char *const keys[] = {"name", "kind", "memory", "rates", "efficiency", "price"};
    if (n->kind != PF_YAML_MAP) return wrong(n, "a device is a mapping", err);
    for (const pf_yaml_node *c = n->first; c != NULL; c = c->next) {
        bool known = false;
        for (size_t i = 0; i < PF_COUNT(keys); i++) known |= pf_streq(c->key->text, keys[i]);
        if (!known)
            return wrong(c->key, "a device has name, kind, memory, rates, efficiency and price",
                         err);
    }
    const pf_yaml_node *name = pf_yaml_find(n, "name"), *kind = pf_yaml_find(n, "kind"),
                       *memory = pf_yaml_find(n, "memory"), *rates = pf_yaml_find(n, "rates");
    if (name == NULL || name->kind != PF_YAML_SCALAR) return wrong(n, "a device needs a name", err);
    d->name = name->text;
    if (kind == NULL || kind->kind != PF_YAML_SCALAR ||
        (!pf_streq(kind->text, "gpu") && !pf_streq(kind->text, "cpu")))
        return wrong(kind != NULL ? kind : n, "kind should be gpu or cpu", err);
    d->gpu = pf_streq(kind->text, "gpu");
    if (memory == NULL || memory->kind != PF_YAML_SCALAR ||
        !pf_parse_size(memory->text, &d->memory) || d->memory == 0)
        return wrong(memory != NULL ? memory : n, "memory should be a size such as 24GB", err);
    d->efficiency = d->gpu ? 0.3 : 0.6;
    PF_TRY(number_of(n, "efficiency", 0.001, 1, &d->efficiency, err));
    PF_TRY(number_of(n, "price", 0, 1e6, &d->price, err));
    return read_rate(d, rates != NULL ? rates : n, compute, err);
}

static peft_status read_table(device *devices, int *n, pf_arena *a, const char *path,
                              const char *compute, peft_error *err) {
    pf_yaml_node *root;
    PF_TRY(pf_yaml_load(&root, a, path, err));
    if (root == NULL || root->kind != PF_YAML_SEQ)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s: it should hold a list of devices", path);
    for (const pf_yaml_node *c = root->first; c != NULL; c = c->next) {
        if (*n == MAX_DEVICES)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s: more than %d devices", path, MAX_DEVICES - 1);
        PF_TRY(read_device(&devices[(*n)++], c, compute, err));
    }
    return PEFT_OK;
}

/* --hardware, $PEFT_HARDWARE, beside the program, installed, in the source tree. */
static peft_status find_table(const char **out, pf_arena *a, const char *path, peft_error *err) {
    if (path == NULL) path = getenv("PEFT_HARDWARE");
    *out = path;
    if (path != NULL) return PEFT_OK;
    char own[4096];
    const ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
    if (n > 0) own[n] = '\0';
    const char *dir = n > 0 ? pf_path_dir(a, own) : ".";
    PF_CHECK_ALLOC(dir, err);
    static const char *const places[] = {"hardware.yaml", "../share/peft-toolkit/hardware.yaml",
                                         "../../share/hardware.yaml", "../share/hardware.yaml"};
    for (size_t i = 0; i < PF_COUNT(places); i++) {
        const char *file = pf_path_join(a, dir, places[i]);
        PF_CHECK_ALLOC(file, err);
        if (!pf_path_exists(file)) continue;
        *out = file;
        return PEFT_OK;
    }
    return PF_FAIL(err, PEFT_E_MISSING,
                   "there is no table of hardware beside the program (%s/hardware.yaml); name one "
                   "with --hardware FILE",
                   dir);
}

/* Steps of the run; of a million tokens where there are no data. */
static double run_steps(const pf_prepared *p) {
    const pf_step_cut *c = &p->memory.cut;
    if (p->assumed[0] == '\0') return (double)p->total_steps;
    return 1e6 / ((double)c->tokens / (double)c->steps);
}

/* ---- each device ----------------------------------------------------------------------------- */

static peft_status estimate(device *d, const pf_prepared *p, peft_error *err) {
    pf_memory_request rq = p->request;
    pf_memory_plan plan = p->memory;
    const int64_t weights = p->memory.mapped_bytes;
    const int64_t room = (int64_t)((d->gpu ? GPU_SHARE : CPU_SHARE) * (double)d->memory) - weights;
    d->need = weights + plan.total;
    d->how = "as configured";
    d->fits = room >= plan.total;
    if (!d->fits && room > 0) {
        peft_error ignored; /* that it does not fit is an answer, not a failure */
        rq.limit = room;
        const peft_status status = pf_memory_plan_make(&plan, &rq, &ignored);
        if (status != PEFT_OK && status != PEFT_E_NOMEM)
            return PF_FAIL(err, status, "%s", ignored.message);
        d->fits = status == PEFT_OK;
        d->need = weights + plan.total;
        d->how = plan.policy == p->memory.policy          ? "smaller micro-batches"
                 : plan.max_tokens < p->memory.max_tokens ? "recomputing, smaller micro-batches"
                                                          : "recomputing";
    }
    if (!d->fits) return PEFT_OK;
    const double step = d->measured ? p->speed.step : plan.step_flops / (d->rate * d->efficiency);
    d->tokens_per_second = (double)plan.cut.tokens / (double)plan.cut.steps / step;
    d->hours = step * run_steps(p) / 3600;
    d->cost = d->hours * d->price;
    return PEFT_OK;
}

static int by_price(const void *a, const void *b) {
    const device *x = a, *y = b;
    if (x->fits != y->fits) return x->fits ? -1 : 1;
    if (!x->fits) return x->memory != y->memory ? (x->memory < y->memory ? -1 : 1) : 0;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    return x->hours < y->hours ? -1 : x->hours > y->hours;
}

/* ---- words ----------------------------------------------------------------------------------- */

static void add_text(const pf_prepared *p, const device *devices, int n, const char *path,
                     pf_buf *out) {
    char line[256], size[32], time[32];
    const bool assumed = p->assumed[0] != '\0';
    pf_adapter_describe(p->loaded.adapter, line, sizeof line);
    pf_buf_addf(out, "%s\n", line);
    if (assumed)
        pf_buf_addf(out,
                    "%s\ntimes and prices are those of a million tokens; %.3g operations a step\n",
                    p->assumed, p->memory.step_flops);
    else
        pf_buf_addf(out, "%lld steps, %.3g operations a step\n", (long long)p->total_steps,
                    p->memory.step_flops);
    pf_buf_addf(out, "%-32s %9s %9s %11s %10s %10s  %s\n", "hardware", "memory", "needs",
                "tokens/s", "time", "price", "how");
    for (int i = 0; i < n; i++) {
        const device *d = &devices[i];
        pf_buf_addf(out, "%-32s %9s ", d->name,
                    pf_format_bytes((double)d->memory, size, sizeof size));
        pf_buf_addf(out, "%9s ", pf_format_bytes((double)d->need, size, sizeof size));
        if (!d->fits) {
            pf_buf_addf(out, "%11s %10s %10s  does not fit\n", "-", "-", "-");
            continue;
        }
        pf_buf_addf(out, "%11.*f %10s ", d->tokens_per_second < 100 ? 1 : 0, d->tokens_per_second,
                    pf_format_duration(d->hours * 3600, time, sizeof time));
        if (d->price > 0)
            pf_buf_addf(out, "%9.2f$", d->cost);
        else
            pf_buf_addf(out, "%10s", "-");
        if (d->measured)
            pf_buf_addf(out, "  %s; calibrated\n", d->how);
        else
            pf_buf_addf(out, "  %s; %s at %.0f %%\n", d->how, d->type, 100 * d->efficiency);
    }
    pf_buf_addf(
        out,
        "An estimate, not a measurement: operations of the plan divided by an assumed share "
        "of each device's rate, memory by this program's own plan (weights as stored, "
        "activations in f32), prices as in %s, which is yours to edit. GPUs: for comparison; "
        "this program computes on CPUs.\n",
        path);
}

static void add_json(const pf_prepared *p, const device *devices, int n, const char *path,
                     pf_buf *out) {
    pf_buf_addf(out, "{\"estimate\": true, \"steps\": %.0f, \"step_flops\": %.0f, \"table\": ",
                run_steps(p), p->memory.step_flops);
    pf_json_add_str(out, path, strlen(path), 0);
    pf_buf_addf(out, ", \"data_assumed\": %s, \"hardware\": [",
                p->assumed[0] != '\0' ? "true" : "false");
    for (int i = 0; i < n; i++) {
        const device *d = &devices[i];
        pf_buf_adds(out, i > 0 ? ", {\"name\": " : "{\"name\": ");
        pf_json_add_str(out, d->name, strlen(d->name), 0);
        pf_buf_addf(out, ", \"memory_bytes\": %llu, \"need_bytes\": %lld, \"fits\": %s",
                    (unsigned long long)d->memory, (long long)d->need, d->fits ? "true" : "false");
        if (d->fits)
            pf_buf_addf(out,
                        ", \"how\": \"%s\", \"tokens_per_second\": %.6g, \"hours\": %.6g, "
                        "\"price\": %.6g, \"efficiency\": %.3g",
                        d->how, d->tokens_per_second, d->hours, d->cost,
                        d->measured ? 1.0 : d->efficiency);
        pf_buf_addc(out, '}');
    }
    pf_buf_adds(out, "]}\n");
}

static peft_status recommend(const pf_prepared *p, const char *path, bool json, pf_arena *a,
                             pf_buf *out, peft_error *err) {
    device *devices = PF_NEW_ARRAY(a, device, MAX_DEVICES);
    PF_CHECK_ALLOC(devices, err);
    int n = 0;
    if (p->speed.step > 0) {
        devices[n++] = (device){.name = "this machine",
                                .measured = true,
                                .memory = pf_memory_total(),
                                .type = pf_compute_name(p->compute.type)};
    }
    PF_TRY(find_table(&path, a, path, err));
    PF_TRY(read_table(devices, &n, a, path, pf_compute_name(p->compute.type), err));
    for (int i = 0; i < n; i++) PF_TRY(estimate(&devices[i], p, err));
    qsort(devices, (size_t)n, sizeof *devices, by_price);
    (json ? add_json : add_text)(p, devices, n, path, out);
    return PEFT_OK;
}

peft_status pf_hardware_recommend(const pf_prepared *p, const char *path, bool json, pf_buf *out,
                                  peft_error *err) {
    pf_arena a;
    pf_arena_init(&a, "hardware");
    peft_status status = recommend(p, path, json, &a, out, err);
    pf_arena_release(&a);
    return status;
}

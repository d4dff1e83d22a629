/* profile.c - see profile.h. */
#include "train/profile.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ops/matmul/gemm.h"

#include <string.h>

/* --- the machine ------------------------------------------------------------------------------ */

enum {
    SIDE = 1008,      /* of the square product; whole tiles of every instruction set */
    STREAM = 8 << 20, /* bytes of each of the two streams of a worker */
    STREAM_TASKS = 64,
    TRIES = 5
};

typedef struct streams {
    const char *from;
    char *to;
    size_t bytes; /* of a task */
} streams;

static void copy_task(void *ctx, int task, int worker) {
    (void)worker;
    const streams *s = ctx;
    memcpy(s->to + (size_t)task * s->bytes, s->from + (size_t)task * s->bytes, s->bytes);
}

peft_status pf_profile_begin(pf_profile *p, pf_backend *be, peft_error *err) {
    memset(p, 0, sizeof *p);
    const size_t matrix = (size_t)SIDE * SIDE * sizeof(pf_real);
    const size_t stream = (size_t)STREAM * (size_t)be->n_workers;
    pf_buffer room = {0}, scratch = {0};
    peft_status status =
        be->alloc(be, &room, 3 * matrix > 2 * stream ? 3 * matrix : 2 * stream, "profile", err);
    if (status == PEFT_OK)
        status = be->alloc(be, &scratch, (size_t)pf_gemm_workspace(be->n_workers), "profile", err);
    if (status == PEFT_OK) {
        char *data = room.data;
        const pf_weight b =
            pf_gemm_dense((const pf_real *)(void *)(data + matrix), SIDE, SIDE, SIDE);
        const pf_gemm g = {.form = PF_GEMM_NN,
                           .m = SIDE,
                           .n = SIDE,
                           .k = SIDE,
                           .a = (const pf_real *)(void *)data,
                           .lda = SIDE,
                           .b = &b,
                           .c = (pf_real *)(void *)(data + 2 * matrix),
                           .ldc = SIDE,
                           .alpha = 1};
        streams s = {data, data + stream, stream / STREAM_TASKS};
        for (int i = 0; i < TRIES; i++) { /* the best: other work can only add to the time */
            const double start = pf_now();
            pf_gemm_run(be->pool, pf_gemm_best(), &g, scratch.data);
            const double mid = pf_now();
            pf_pool_run(be->pool, STREAM_TASKS, copy_task, &s);
            const double end = pf_now(), n = SIDE;
            p->flops = fmax(p->flops, 2 * n * n * n / (mid - start));
            p->bytes = fmax(p->bytes, 2 * (double)stream / (end - mid));
        }
    }
    be->free(be, &scratch);
    be->free(be, &room);
    return status;
}

void pf_profile_step(pf_profile *p, double start, double reached, double busy) {
    const double now = pf_now();
    p->steps += now - start;
    p->optimizer += now - reached;
    p->busy += busy;
    p->n_steps++;
}

/* --- the tables ------------------------------------------------------------------------------- */

typedef struct kind {
    const char *name;
    const char *prefixes[3]; /* of op names */
    double seconds, busy;
} kind;

static kind *kind_of(kind *kinds, int n, const char *op) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < 3 && kinds[i].prefixes[k] != NULL; k++) {
            if (strncmp(op, kinds[i].prefixes[k], strlen(kinds[i].prefixes[k])) == 0)
                return &kinds[i];
        }
    }
    return &kinds[n - 1];
}

static void say_op(const pf_profile *p, const pf_op *op, const char *kernel,
                   const pf_profile_row *row, double total) {
    const double flops = row->flops / row->seconds, bytes = row->bytes / row->seconds;
    PF_INFO("%-20s %-10s %10lld %10.3f %6.1f%% %9.1f %6.1f%% %8.1f %6.1f%%", op->name, kernel,
            (long long)row->calls, row->seconds, 100 * row->seconds / total, flops * 1e-9,
            100 * flops / p->flops, bytes * 1e-9, 100 * bytes / p->bytes);
}

static void say_kind(const char *name, double seconds, double busy, double threads, double total) {
    if (seconds <= 0) return;
    if (busy >= 0)
        PF_INFO("%-20s %10.3f %6.1f%% %6.1f%%", name, seconds, 100 * seconds / total,
                100 * fmax(0, 1 - busy / (seconds * threads)));
    else
        PF_INFO("%-20s %10.3f %6.1f%%", name, seconds, 100 * seconds / total);
}

void pf_profile_say(const pf_profile *p, const pf_exec *x, double outside) {
    const pf_graph *g = x->graph;
    const double threads = x->backend->n_workers;
    kind kinds[] = {
        {.name = "dense products", .prefixes = {"linear"}},
        {.name = "adapters", .prefixes = {"lowrank", "embed_lowrank"}},
        {.name = "attention", .prefixes = {"attention"}},
        {.name = "head and loss", .prefixes = {"head_ce"}},
        {.name = "elementwise"},
    };
    double in_graph = 0;
    for (int i = 0; i < g->n_nodes; i++) in_graph += x->profile[i].seconds;
    PF_INFO("this machine, %d threads: %.0f GFLOP/s in a large f32 product, %.1f GB/s through "
            "memory",
            x->backend->n_workers, p->flops * 1e-9, p->bytes * 1e-9);
    PF_INFO("%-20s %-10s %10s %10s %7s %9s %7s %8s %7s", "op", "kernel", "calls", "seconds",
            "share", "GFLOP/s", "of it", "GB/s", "of it");
    for (const pf_op *const *op = g->ops; *op != NULL; op++) {
        pf_profile_row sum = {0};
        const char *kernel = "";
        for (int i = 0; i < g->n_nodes; i++) {
            if (g->nodes[i]->op != *op) continue;
            sum.calls += x->profile[i].calls;
            sum.seconds += x->profile[i].seconds;
            sum.busy += x->profile[i].busy;
            sum.flops += x->profile[i].flops;
            sum.bytes += x->profile[i].bytes;
            kernel = g->nodes[i]->kernel->name;
        }
        if (sum.calls == 0) continue;
        say_op(p, *op, kernel, &sum, in_graph);
        kind *k = kind_of(kinds, (int)PF_COUNT(kinds), (*op)->name);
        k->seconds += sum.seconds;
        k->busy += sum.busy;
    }
    const double total = p->steps + outside;
    PF_INFO("%-20s %10s %7s %7s", "where", "seconds", "share", "idle");
    for (size_t i = 0; i < PF_COUNT(kinds); i++)
        say_kind(kinds[i].name, kinds[i].seconds, kinds[i].busy, threads, total);
    say_kind("optimizer", p->optimizer, -1, threads, total);
    say_kind("batches, the rest", p->steps - in_graph - p->optimizer, -1, threads, total);
    say_kind("between steps", outside, -1, threads, total);
    PF_INFO("threads waited or worked alone for %.1f%% of the time in steps (%lld steps, %.3f s "
            "each)",
            100 * fmax(0, 1 - p->busy / (p->steps * threads)), (long long)p->n_steps,
            p->steps / (double)p->n_steps);
}

/* gemm.c - splits a product into tiles, packs panels of B, and hands tiles to an instruction set;
 * see gemm.h for the order of operations that every path keeps.
 *
 * A task owns a rectangle of C and walks k in blocks: it packs its strip of B (at most STRIP_COLS
 * columns, about 400 KB, stays in L2) once per block and passes it by every panel of A rows. Those
 * are read where they stand, unless the lines of a tile's rows would fall into one set of the first
 * cache. The rectangles depend on the shape of the product and on how many share it; the bits
 * depend on neither. */
#include "ops/matmul/gemm.h"

#include <string.h>

#ifdef PF_DOUBLE
static const pf_dtype REAL = PF_DTYPE_F64;
#else
static const pf_dtype REAL = PF_DTYPE_F32;
#endif

enum {
    STRIP_COLS = 256,    /* most columns of C in a task */
    STRIP_MIN = 96,      /* fewest, unless n is smaller: below, packing A costs too much */
    TASK_ROWS = 504,     /* most rows of C in a task: 36 panels of 14, 84 of 6 */
    TASK_ROWS_MIN = 126, /* fewest when rows are split for the sake of more tasks */
    TASKS_WANTED = 12,   /* fewest, if the product is large enough: a handful of threads ... */
    TASKS_A_WORKER = 2,  /* ... and with more threads these for each */
    PACK_ROWS = 512,     /* most rows for which a B that lies right is not packed */
    STREAM_COLS = 64,    /* columns of C in a streaming task */
    CACHE_PERIOD = 4096, /* bytes after which a first cache begins again with its first set */
    FIRST_CACHE_WAYS = 8,
    A_ROOM = PF_GEMM_MAX_MR * (PF_GEMM_MAX_BLOCK + 16),
    STAGE_ROOM = PF_GEMM_MAX_NR * PF_GEMM_MAX_BLOCK,
    B_ROOM = STRIP_COLS * PF_GEMM_MAX_BLOCK,
    WORKER_ROOM = A_ROOM + STAGE_ROOM + B_ROOM
};

typedef struct job {
    const pf_gemm *g;
    const pf_gemm_isa *isa;
    int64_t block; /* terms of k */
    int64_t task_rows, n_row_tasks, task_cols, n_col_tasks;
    bool pack_a, pack_b;
    pf_real *workspace;
} job;

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

int64_t pf_gemm_block(int64_t k) {
    if (k <= PF_GEMM_MAX_BLOCK) return k < 1 ? 1 : k;
    int64_t n_blocks = ceil_div(k, PF_GEMM_MAX_BLOCK);
    return ceil_div(ceil_div(k, n_blocks), 32) * 32; /* of even length, so that none is short */
}

int64_t pf_gemm_workspace(int n_workers) {
    return (int64_t)n_workers * WORKER_ROOM * (int64_t)sizeof(pf_real);
}

pf_weight pf_gemm_dense(const pf_real *data, int64_t rows, int64_t cols, int64_t stride) {
    pf_weight w = pf_weight_of(NULL, REAL, data, rows, cols);
    w.stride = stride;
    return w;
}

const pf_gemm_isa *pf_gemm_best(void) {
#ifndef PF_DOUBLE
    if (pf_cpu_level() >= PF_ISA_AVX512) return &pf_gemm_avx512;
    if (pf_cpu_level() >= PF_ISA_AVX2) return &pf_gemm_avx2;
#endif
    return &pf_gemm_plain;
}

/* --- B ------------------------------------------------------------------------------------- */

/* Storage that the instruction set reads itself; everything else goes through read_tile. */
static bool is_direct(const pf_weight *w) {
    if (w->dtype == REAL) return true;
    return sizeof(pf_real) == sizeof(float) &&
           (w->dtype == PF_DTYPE_BF16 || w->dtype == PF_DTYPE_F16);
}

/* Element (row, col) as stored, of a direct type. */
static const void *stored_at(const pf_weight *w, int64_t row, int64_t col) {
    if (w->row_perm != NULL) row = w->row_perm[row];
    size_t size = w->dtype == REAL ? sizeof(pf_real) : sizeof(uint16_t);
    return (const char *)w->data + (size_t)(row * w->stride + col) * size;
}

/* Packs terms [k0, k0 + kc) and columns [n0, n1) of C into panels of nr columns: element (k, j) at
 * strip[j / nr * (nr * kc) + k * nr + j % nr]. */
static void pack(const job *j, int64_t k0, int64_t kc, int64_t n0, int64_t n1, pf_real *stage,
                 pf_real *strip) {
    const pf_weight *w = j->g->b;
    const int64_t nr = j->isa->nr;
    const bool by_row = (j->g->form == PF_GEMM_NT) != w->transposed; /* stored rows: columns of C */
    if (is_direct(w) && !by_row) {
        for (int64_t k = 0; k < kc; k++)
            j->isa->spread_row(w->dtype, stored_at(w, k0 + k, n0), n1 - n0, strip + k * nr,
                               nr * kc);
        return;
    }
    for (; n0 < n1; n0 += nr, strip += nr * kc) {
        const int n = (int)min64(nr, n1 - n0);
        const void *rows[PF_GEMM_MAX_NR];
        if (is_direct(w)) {
            for (int c = 0; c < n; c++) rows[c] = stored_at(w, n0 + c, k0);
            j->isa->pack_rows(w->dtype, rows, n, kc, strip);
        } else if (j->g->form == PF_GEMM_NT) {
            pf_weight_read_tile(w, n0, n, k0, kc, stage, kc);
            for (int c = 0; c < n; c++) rows[c] = stage + c * kc;
            j->isa->pack_rows(REAL, rows, n, kc, strip);
        } else {
            pf_weight_read_tile(w, k0, kc, n0, n, strip, nr);
            for (int64_t k = 0; n < nr && k < kc; k++)
                memset(strip + k * nr + n, 0, (size_t)(nr - n) * sizeof *strip);
        }
    }
}

/* --- a task -------------------------------------------------------------------------------- */

/* Rows [i0, i0 + m) and terms [k0, k0 + kc) of op(A), packed or in place. */
static const pf_real *rows_of_a(const job *j, int64_t i0, int m, int64_t k0, int64_t kc,
                                pf_real *room, int64_t *lda) {
    const pf_gemm *g = j->g;
    if (g->form == PF_GEMM_TN) {
        const pf_real *a = g->a + k0 * g->lda + i0;
        for (int64_t k = 0; k < kc; k++)
            memcpy(room + k * m, a + k * g->lda, (size_t)m * sizeof *a);
        *lda = m;
        return room;
    }
    const pf_real *a = g->a + i0 * g->lda + k0;
    if (!j->pack_a) {
        *lda = g->lda;
        return a;
    }
    for (int i = 0; i < m; i++)
        memcpy(room + i * (kc + 16), a + i * g->lda, (size_t)kc * sizeof *a);
    *lda = kc + 16;
    return room;
}

/* A rectangle of memory that tiles are asked to bring near, line by line: see pf_gemm_tile. */
typedef struct ahead {
    const char *at;
    int64_t run, step, left, lines;
} ahead;

static ahead ahead_of(const void *first, int64_t runs, int64_t run_bytes, int64_t step) {
    int64_t run = ceil_div(run_bytes, 64) * 64;
    return (ahead){first, run, step, run, runs * run / 64};
}

/* The next n lines of the first rectangle that has some left. */
static void give_ahead(ahead *list, int n_list, int64_t n, pf_gemm_tile *t) {
    while (n_list > 1 && list->lines <= 0) list++, n_list--;
    if (list->lines <= 0) { /* nothing left: a line that is near already */
        t->ahead = (const char *)t->a;
        t->ahead_left = t->ahead_run = 64;
        t->ahead_step = 0;
        return;
    }
    t->ahead = list->at;
    t->ahead_left = list->left;
    t->ahead_run = list->run;
    t->ahead_step = list->step;
    const int64_t done = list->run - list->left + n * 64; /* bytes of runs after this tile */
    list->at += done / list->run * list->step + done % list->run - (list->run - list->left);
    list->left = list->run - done % list->run;
    list->lines -= n;
}

/* Terms [k0, k1) of the strip of B as stored, and rows of A. */
static ahead ahead_in_b(const job *j, int64_t k0, int64_t k1, int64_t n0, int64_t n1) {
    const pf_weight *w = j->g->b;
    if (!is_direct(w) || w->row_perm != NULL || k0 >= k1) return (ahead){0};
    const int64_t size = w->dtype == REAL ? (int64_t)sizeof(pf_real) : 2;
    if ((j->g->form == PF_GEMM_NT) != w->transposed)
        return ahead_of(stored_at(w, n0, k0), n1 - n0, (k1 - k0) * size, w->stride * size);
    return ahead_of(stored_at(w, k0, n0), k1 - k0, (n1 - n0) * size, w->stride * size);
}

static ahead ahead_in_a(const pf_gemm *g, int64_t k0, int64_t kc, int64_t i0, int64_t m) {
    const int64_t size = (int64_t)sizeof(pf_real);
    if (kc <= 0 || m <= 0) return (ahead){0};
    if (g->form == PF_GEMM_TN)
        return ahead_of(g->a + k0 * g->lda + i0, kc, m * size, g->lda * size);
    return ahead_of(g->a + i0 * g->lda + k0, m, kc * size, g->lda * size);
}

static void run_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_gemm *g = j->g;
    const int mr = j->isa->mr, nr = j->isa->nr;
    const int64_t i_begin = task % j->n_row_tasks * j->task_rows;
    const int64_t i_end = min64(g->m, i_begin + j->task_rows);
    const int64_t n_begin = task / j->n_row_tasks * j->task_cols;
    const int64_t n_end = min64(g->n, n_begin + j->task_cols);
    pf_real *a_room = j->workspace + (int64_t)worker * WORKER_ROOM;
    pf_real *stage = a_room + A_ROOM, *strip = stage + STAGE_ROOM;
    const int64_t rows = i_end - i_begin, n_panels = ceil_div(rows, mr);

    for (int64_t k0 = 0; k0 < g->k; k0 += j->block) {
        const int64_t kc = min64(j->block, g->k - k0), k1 = k0 + kc;
        if (j->pack_b) pack(j, k0, kc, n_begin, n_end, stage, strip);
        ahead next[2] = {{0}, ahead_in_b(j, k1, min64(k1 + j->block, g->k), n_begin, n_end)};
        for (int64_t p = 0; p < n_panels; p++) { /* panels of even height */
            const int64_t i0 = i_begin + rows * p / n_panels;
            const int64_t i1 = i_begin + rows * (p + 1) / n_panels;
            const int64_t i2 = i_begin + rows * (p + 2) / n_panels;
            if (p + 1 < n_panels)
                next[0] = ahead_in_a(g, k0, kc, i1, i2 - i1);
            else
                next[0] = ahead_in_a(g, k1, min64(j->block, g->k - k1), i_begin, mr);
            pf_gemm_tile t = {.m = (int)(i1 - i0),
                              .kc = kc,
                              .a_by_k = g->form == PF_GEMM_TN,
                              .ldb = j->pack_b ? nr : g->b->stride,
                              .b_padded = j->pack_b,
                              .ldc = g->ldc,
                              .alpha = g->alpha,
                              .first = k0 == 0 && !g->accumulate};
            t.a = rows_of_a(j, i0, t.m, k0, kc, a_room, &t.lda);
            for (int64_t n0 = n_begin; n0 < n_end; n0 += nr) {
                t.n = (int)min64(nr, n_end - n0);
                t.b = j->pack_b ? strip + (n0 - n_begin) * kc : stored_at(g->b, k0, n0);
                t.c = g->c + i0 * g->ldc + n0;
                t.bias = g->bias != NULL && k1 == g->k ? g->bias + n0 : NULL;
                give_ahead(next, 2, kc, &t);
                j->isa->tile(&t);
            }
        }
    }
}

static void run_stream_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_gemm *g = j->g;
    const int64_t n0 = (int64_t)task * STREAM_COLS;
    pf_gemm_stream s = {.n = min64(STREAM_COLS, g->n - n0),
                        .k = g->k,
                        .lda = g->lda,
                        .dtype = g->b->dtype,
                        .ldb = g->b->stride,
                        .ldc = g->ldc,
                        .alpha = g->alpha,
                        .accumulate = g->accumulate};
    s.b = g->b->row_perm != NULL ? g->b->data : stored_at(g->b, n0, 0);
    s.perm = g->b->row_perm != NULL ? g->b->row_perm + n0 : NULL;
    s.bias = g->bias != NULL ? g->bias + n0 : NULL;
    for (int64_t i = 0; i < g->m; i += s.m) {
        s.m = (int)min64(j->isa->stream_rows, g->m - i);
        s.a = g->a + i * g->lda;
        s.c = g->c + i * g->ldc + n0;
        j->isa->stream(&s);
    }
}

/* --- the split ----------------------------------------------------------------------------- */

static void split(job *j, int n_workers) {
    const int64_t wanted = max64(TASKS_WANTED, (int64_t)TASKS_A_WORKER * n_workers);
    const pf_gemm *g = j->g;
    const int64_t nr = j->isa->nr;
    const int64_t by_rows =
        ceil_div(g->m, TASK_ROWS); /* fewer rows only if strips do not suffice */
    int64_t strips = ceil_div(g->n, STRIP_COLS), parts = by_rows;
    if (strips * parts < wanted)
        strips = max64(strips, min64(ceil_div(g->n, STRIP_MIN), ceil_div(wanted, parts)));
    if (strips * parts < wanted)
        parts = max64(parts, min64(g->m / TASK_ROWS_MIN, ceil_div(wanted, strips)));
    j->task_cols = ceil_div(ceil_div(g->n, strips), nr) * nr;
    j->n_col_tasks = ceil_div(g->n, j->task_cols);
    j->task_rows = ceil_div(ceil_div(g->m, parts), j->isa->mr) * j->isa->mr;
    j->n_row_tasks = ceil_div(g->m, j->task_rows);
}

static void clear(const pf_gemm *g) {
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t c = 0; c < g->n; c++) {
            pf_real v = g->accumulate ? g->c[i * g->ldc + c] : 0;
            g->c[i * g->ldc + c] = g->bias != NULL ? v + g->bias[c] : v;
        }
    }
}

static bool streams(const pf_gemm *g, const pf_gemm_isa *isa) {
    return g->form == PF_GEMM_NT && g->m <= isa->stream_rows && !g->b->transposed &&
           is_direct(g->b);
}

/* A tile walks its rows of A in step, one line of each at a time: lines that fall into one set.
 * Moving the rows together costs 5 % of a product, so it is done for distances of whole pages only.
 */
static int64_t lines_in_a_set(int64_t row_bytes, int64_t rows) {
    int64_t sets = CACHE_PERIOD / 64;
    for (int64_t d = row_bytes / 64; sets > 1 && d % 2 == 0; d /= 2) sets /= 2;
    return ceil_div(rows, sets);
}

static job job_of(const pf_gemm_isa *isa, const pf_gemm *g, int n_workers, void *workspace) {
    job j = {.g = g, .isa = isa, .block = pf_gemm_block(g->k), .workspace = workspace};
    split(&j, n_workers);
    j.pack_a = lines_in_a_set(g->lda * (int64_t)sizeof(pf_real), isa->mr) > FIRST_CACHE_WAYS;
    /* few rows: B is used too seldom to be worth moving, if it can be read where it stands */
    j.pack_b = g->m > PACK_ROWS || g->b->dtype != REAL || g->b->row_perm != NULL ||
               (g->form == PF_GEMM_NT) != g->b->transposed;
    return j;
}

void pf_gemm_run(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, void *workspace) {
    if (g->m <= 0 || g->n <= 0) return;
    if (g->k <= 0) {
        clear(g);
        return;
    }
    if (streams(g, isa)) {
        job j = {.g = g, .isa = isa, .workspace = workspace};
        pf_pool_run(pool, (int)ceil_div(g->n, STREAM_COLS), run_stream_task, &j);
        return;
    }
    job j = job_of(isa, g, pf_pool_workers(pool), workspace);
    pf_pool_run(pool, (int)(j.n_row_tasks * j.n_col_tasks), run_task, &j);
}

typedef struct set {
    job jobs[PF_GEMM_SET];
    int first[PF_GEMM_SET + 1]; /* task of each job */
    int n;
} set;

static void run_set_task(void *ctx, int task, int worker) {
    set *s = ctx;
    int i = 0;
    while (task >= s->first[i + 1]) i++;
    run_task(&s->jobs[i], task - s->first[i], worker);
}

/* The split depends on the shape of C, so a task has the same rectangle in every product. */
static void run_sum_task(void *ctx, int task, int worker) {
    set *s = ctx;
    for (int i = 0; i < s->n; i++) run_task(&s->jobs[i], task, worker);
}

/* Fails where a product takes another path than through tiles. */
static bool make_set(set *s, const pf_gemm_isa *isa, const pf_gemm *g, int n, int n_workers,
                     void *workspace) {
    *s = (set){.n = n};
    for (int i = 0; i < n; i++) {
        if (g[i].m <= 0 || g[i].n <= 0 || g[i].k <= 0 || streams(&g[i], isa)) return false;
        s->jobs[i] = job_of(isa, &g[i], n_workers, workspace);
        s->first[i + 1] = s->first[i] + (int)(s->jobs[i].n_row_tasks * s->jobs[i].n_col_tasks);
    }
    return n > 1;
}

void pf_gemm_run_set(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, int n,
                     void *workspace) {
    set s;
    if (n <= PF_GEMM_SET && make_set(&s, isa, g, n, pf_pool_workers(pool), workspace)) {
        pf_pool_run(pool, s.first[n], run_set_task, &s);
        return;
    }
    for (int i = 0; i < n; i++) pf_gemm_run(pool, isa, &g[i], workspace);
}

void pf_gemm_run_sum(pf_pool *pool, const pf_gemm_isa *isa, const pf_gemm *g, int n,
                     void *workspace) {
    set s;
    if (n <= PF_GEMM_SET && make_set(&s, isa, g, n, pf_pool_workers(pool), workspace)) {
        pf_pool_run(pool, s.first[1], run_sum_task, &s);
        return;
    }
    for (int i = 0; i < n; i++) pf_gemm_run(pool, isa, &g[i], workspace);
}

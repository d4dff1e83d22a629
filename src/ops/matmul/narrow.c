/* narrow.c - narrows rows of A, packs panels of B, and hands tiles to an instruction set; narrow.h
 * has the formulas and the order of operations.
 *
 * PF_NARROW_ROWS rows of A are narrowed at a time. A task then owns a strip of columns of C, with
 * a run of those rows: per block of k it packs its strip of B (it stays in L2) and passes it by
 * the first rows, then by the second ones, which are few and stand together. */
#include "ops/matmul/narrow.h"

#include <string.h>

enum {
    STRIP_COLS = 256,  /* most columns of C in a task */
    STRIP_MIN = 96,    /* fewest, unless there are not so many */
    TASKS_WANTED = 12, /* as in gemm.c */
    TASKS_A_WORKER = 2,
    STRIPS_A_WORKER = 3,
    ROWS_MIN = 252,   /* fewest rows of a task when rows are split for the sake of more tasks */
    ROWS_A_TASK = 16, /* rows of A in a task that narrows */
    STAGE_TERMS = 384,
    ROWS_AHEAD = 12, /* stored rows that are asked for before they are packed */
    STAGE_ROOM = PF_NARROW_MAX_NR * STAGE_TERMS,
    STRIP_ROOM = STRIP_COLS * PF_NARROW_BLOCK,
    WORKER_ROOM = STAGE_ROOM + STRIP_ROOM /* words */
};

typedef struct job {
    const pf_gemm *g;
    const pf_narrow_isa *isa;
    int lanes;        /* terms in a word */
    int64_t words;    /* of a row of A */
    int64_t lda;      /* distance between its rows */
    int64_t n_blocks; /* of k */
    int64_t i0, m;    /* rows of A at hand */
    int64_t task_rows, n_row_tasks, task_cols, n_col_tasks;
    uint32_t *a, *rest;        /* (m, lda) first rows; (n_rest, lda) second ones */
    int32_t *sums, *rest_sums; /* (m, n_blocks) */
    pf_narrow_row *info;       /* (m) */
    int32_t *rest_row;         /* (n_rest) the row of A, ascending */
    int64_t n_rest;
    uint32_t *workers; /* WORKER_ROOM each */
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

static int64_t align64(int64_t bytes) {
    return ceil_div(bytes, 64) * 64;
}

/* An odd number of cache lines, so that rows do not share cache sets. */
static int64_t row_stride(int64_t words) {
    const int64_t lines = ceil_div(words, 16);
    return (lines % 2 == 0 ? lines + 1 : lines) * 16;
}

const pf_narrow_isa *pf_narrow_reference(pf_compute type) {
    return type == PF_COMPUTE_INT8 ? &pf_narrow_int8_plain : &pf_narrow_bf16_plain;
}

const pf_narrow_isa *pf_narrow_best(pf_compute type) {
    if (type == PF_COMPUTE_INT8 && pf_cpu_has_avx512_vnni()) return &pf_narrow_int8_avx512;
    if (type == PF_COMPUTE_BF16 && pf_cpu_has_avx512_bf16()) return &pf_narrow_bf16_avx512;
    if (type == PF_COMPUTE_INT8 && pf_cpu_has_avx_vnni()) return &pf_narrow_int8_avxvnni;
    if (type == PF_COMPUTE_INT8 && pf_cpu_level() >= PF_ISA_AVX2) return &pf_narrow_int8_avx2;
    return NULL;
}

const pf_narrow_isa *pf_narrow_isa_for(pf_compute type) {
    const pf_narrow_isa *best = pf_narrow_best(type);
    return best != NULL ? best : pf_narrow_reference(type);
}

const char *pf_narrow_name(const pf_narrow_isa *isa) {
    return isa->name;
}

/* --- A ------------------------------------------------------------------------------------- */

static void narrow_task(void *ctx, int task, int worker) {
    (void)worker;
    const job *j = ctx;
    const pf_gemm *g = j->g;
    const bool int8 = j->isa->type == PF_COMPUTE_INT8;
    const float *fold = int8 && g->form == PF_GEMM_NN ? g->b->row_scale : NULL;
    const int64_t from = (int64_t)task * ROWS_A_TASK, to = min64(j->m, from + ROWS_A_TASK);
    for (int64_t i = from; i < to; i++) {
        j->isa->row(g->a + (j->i0 + i) * g->lda, fold, g->k, j->a + i * j->lda,
                    int8 ? j->rest + i * j->lda : NULL, j->sums + i * j->n_blocks,
                    j->rest_sums + i * j->n_blocks, &j->info[i]);
    }
}

/* Second rows move together, in order. */
static void gather_rest(job *j) {
    j->n_rest = 0;
    if (j->isa->type != PF_COMPUTE_INT8) return;
    for (int64_t i = 0; i < j->m; i++) {
        if (j->info[i].rest_scale == 0) continue;
        const int64_t to = j->n_rest++;
        j->rest_row[to] = (int32_t)i;
        if (to == i) continue;
        memcpy(j->rest + to * j->lda, j->rest + i * j->lda, (size_t)j->words * sizeof *j->rest);
        memcpy(j->rest_sums + to * j->n_blocks, j->rest_sums + i * j->n_blocks,
               (size_t)j->n_blocks * sizeof *j->rest_sums);
    }
}

/* The first second row that belongs to row i of A or to a later one. */
static int64_t first_rest(const job *j, int64_t i) {
    int64_t lo = 0, hi = j->n_rest;
    while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        if (j->rest_row[mid] < i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* --- B ------------------------------------------------------------------------------------- */

static bool is_direct(const pf_weight *w) {
    return w->dtype == PF_DTYPE_F32 || w->dtype == PF_DTYPE_BF16 || w->dtype == PF_DTYPE_F16;
}

static const void *stored_at(const pf_weight *w, int64_t row, int64_t col) {
    if (w->row_perm != NULL) row = w->row_perm[row];
    const size_t size = w->dtype == PF_DTYPE_F32 ? 4 : 2;
    return (const char *)w->data + (size_t)(row * w->stride + col) * size;
}

void pf_narrow_scales(const pf_weight *w, int64_t first, int64_t n, float *scale) {
    const pf_narrow_isa *isa = pf_narrow_best(PF_COMPUTE_INT8);
    if (isa == NULL || isa->largest == NULL || !is_direct(w) || w->transposed) {
        pf_weight_row_scales(w, first, n, scale);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        scale[i] = isa->largest(w->dtype, stored_at(w, first + i, 0), w->cols) / 127;
}

static float inverse(const float *scale, int64_t i) {
    return scale == NULL ? 1 : scale[i] > PF_NARROW_TINY ? 1 / scale[i] : 0;
}

/* Terms [k0, k0 + kc), columns [n0, n1) of C -> panels of nr columns: word (k, j) at
 * strip[j / nr * (nr * kw) + k * nr + j % nr]. */
static void pack_nt(const job *j, int64_t k0, int64_t kc, int64_t n0, int64_t n1, float *stage,
                    uint32_t *strip) {
    const pf_weight *w = j->g->b;
    const int nr = j->isa->nr;
    const int64_t kw = ceil_div(kc, j->lanes);
    for (; n0 < n1; n0 += nr, strip += nr * kw) {
        const int n = (int)min64(nr, n1 - n0);
        const void *rows[PF_NARROW_MAX_NR];
        float factor[PF_NARROW_MAX_NR];
        for (int c = 0; c < n; c++) factor[c] = inverse(w->row_scale, n0 + c);
        if (is_direct(w) && !w->transposed) {
            for (int c = 0; c < n; c++) rows[c] = stored_at(w, n0 + c, k0);
            j->isa->pack_rows(w->dtype, rows, factor, n, kc, strip);
            continue;
        }
        for (int64_t k = 0; k < kc; k += STAGE_TERMS) { /* a multiple of every word */
            const int64_t terms = min64(STAGE_TERMS, kc - k);
            pf_weight_read_tile(w, n0, n, k0 + k, terms, stage, STAGE_TERMS);
            for (int c = 0; c < n; c++) rows[c] = stage + c * STAGE_TERMS;
            j->isa->pack_rows(PF_DTYPE_F32, rows, factor, n, terms, strip + k / j->lanes * nr);
        }
    }
}

/* Rows so far apart that the processor does not foresee them. */
static void ask_for(const pf_weight *w, int64_t row, int64_t end, int64_t n0, int64_t n1) {
    const int64_t bytes = (n1 - n0) * (w->dtype == PF_DTYPE_F32 ? 4 : 2);
    for (; row < end; row++) {
        const char *p = stored_at(w, row, n0);
        for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at);
    }
}

static void pack_nn(const job *j, int64_t k0, int64_t kc, int64_t n0, int64_t n1, float *stage,
                    uint32_t *strip) {
    const pf_weight *w = j->g->b;
    const int nr = j->isa->nr;
    const int64_t kw = ceil_div(kc, j->lanes);
    for (int64_t k = 0; k < kc; k += j->lanes, strip += nr) {
        const int n = (int)min64(j->lanes, kc - k);
        const void *rows[4];
        float factor[4];
        pf_dtype type = w->dtype;
        for (int r = 0; r < n; r++) factor[r] = inverse(w->row_scale, k0 + k + r);
        if (is_direct(w) && !w->transposed) {
            for (int r = 0; r < n; r++) rows[r] = stored_at(w, k0 + k + r, n0);
            ask_for(w, k0 + k + ROWS_AHEAD, min64(k0 + kc, k0 + k + ROWS_AHEAD + j->lanes), n0, n1);
        } else {
            type = PF_DTYPE_F32;
            pf_weight_read_tile(w, k0 + k, n, n0, n1 - n0, stage, STRIP_COLS);
            for (int r = 0; r < n; r++) rows[r] = stage + r * STRIP_COLS;
        }
        j->isa->pack_terms(type, rows, n, factor, n1 - n0, strip, nr * kw);
    }
}

/* --- a task -------------------------------------------------------------------------------- */

/* Passes rows [from, to) of `a` by the strip. rest: they are second rows. */
static void pass(const job *j, bool rest, int64_t from, int64_t to, int64_t block, int64_t n_begin,
                 int64_t n_end, const uint32_t *strip) {
    const pf_gemm *g = j->g;
    const int nr = j->isa->nr;
    const bool int8 = j->isa->type == PF_COMPUTE_INT8;
    const int64_t k0 = block * PF_NARROW_BLOCK, kw = min64(PF_NARROW_BLOCK, j->words - k0);
    const uint32_t *a = rest ? j->rest : j->a;
    const int32_t *sums = rest ? j->rest_sums : j->sums;
    const int64_t rows = to - from, n_panels = ceil_div(rows, j->isa->mr);
    for (int64_t p = 0; p < n_panels; p++) { /* panels of even height */
        const int64_t r0 = from + rows * p / n_panels, r1 = from + rows * (p + 1) / n_panels;
        pf_narrow_tile t = {.m = (int)(r1 - r0),
                            .kw = kw,
                            .a = a + r0 * j->lda + k0,
                            .lda = j->lda,
                            .first = block == 0 && !rest && !g->accumulate};
        float *c[PF_NARROW_MAX_MR];
        for (int i = 0; i < t.m; i++) {
            const int64_t row = rest ? j->rest_row[r0 + i] : r0 + i;
            c[i] = g->c + (j->i0 + row) * g->ldc;
            if (!int8) continue;
            t.scale[i] = rest ? j->info[row].rest_scale : j->info[row].scale;
            t.start[i] = -128 * sums[(r0 + i) * j->n_blocks + block];
        }
        const uint32_t *b = strip;
        for (int64_t n0 = n_begin; n0 < n_end; n0 += nr, b += nr * kw) {
            t.n = (int)min64(nr, n_end - n0);
            t.b = b;
            for (int i = 0; i < t.m; i++) t.c[i] = c[i] + n0;
            t.col_scale = int8 && g->form == PF_GEMM_NT ? g->b->row_scale + n0 : NULL;
            j->isa->tile(&t);
        }
    }
}

static void run_task(void *ctx, int task, int worker) {
    const job *j = ctx;
    const pf_gemm *g = j->g;
    const int64_t i_begin = task % j->n_row_tasks * j->task_rows;
    const int64_t i_end = min64(j->m, i_begin + j->task_rows);
    const int64_t n_begin = task / j->n_row_tasks * j->task_cols;
    const int64_t n_end = min64(g->n, n_begin + j->task_cols);
    float *stage = (float *)(void *)(j->workers + (int64_t)worker * WORKER_ROOM);
    uint32_t *strip = j->workers + (int64_t)worker * WORKER_ROOM + STAGE_ROOM;
    const int64_t rest_begin = first_rest(j, i_begin), rest_end = first_rest(j, i_end);
    for (int64_t block = 0; block < j->n_blocks; block++) {
        const int64_t k0 = block * PF_NARROW_BLOCK * j->lanes;
        const int64_t kc = min64((int64_t)PF_NARROW_BLOCK * j->lanes, g->k - k0);
        if (g->form == PF_GEMM_NT)
            pack_nt(j, k0, kc, n_begin, n_end, stage, strip);
        else
            pack_nn(j, k0, kc, n_begin, n_end, stage, strip);
        pass(j, false, i_begin, i_end, block, n_begin, n_end, strip);
        pass(j, true, rest_begin, rest_end, block, n_begin, n_end, strip);
    }
    for (int64_t i = i_begin; g->bias != NULL && i < i_end; i++) {
        float *c = g->c + (j->i0 + i) * g->ldc;
        for (int64_t n = n_begin; n < n_end; n++) c[n] += g->bias[n];
    }
}

/* --- the split ----------------------------------------------------------------------------- */

static void split(job *j, int n_workers) {
    const int64_t wanted = max64(TASKS_WANTED, (int64_t)TASKS_A_WORKER * n_workers);
    const pf_gemm *g = j->g;
    const int64_t nr = j->isa->nr;
    int64_t strips = max64(1, ceil_div(g->n, STRIP_COLS)), parts = 1;
    if (strips < wanted) strips = max64(strips, min64(ceil_div(g->n, STRIP_MIN), wanted));
    const int64_t enough = (int64_t)STRIPS_A_WORKER * n_workers; /* rows apart pack B again */
    if (strips < enough) parts = max64(1, min64(j->m / ROWS_MIN, ceil_div(enough, strips)));
    j->task_cols = ceil_div(ceil_div(g->n, strips), nr) * nr;
    j->n_col_tasks = ceil_div(g->n, j->task_cols);
    j->task_rows = ceil_div(ceil_div(j->m, parts), j->isa->mr) * j->isa->mr;
    j->n_row_tasks = ceil_div(j->m, j->task_rows);
}

typedef struct room { /* offsets of the parts of the workspace, in bytes */
    int64_t workers, a, rest, sums, rest_sums, info, rest_row, end;
} room;

static room layout(int64_t m, int64_t k, int n_workers) {
    /* for the type that needs more of each */
    m = min64(m, PF_NARROW_ROWS);
    const int64_t row = row_stride(ceil_div(k, 2)) * 4, row8 = row_stride(ceil_div(k, 4)) * 4;
    const int64_t blocks = ceil_div(ceil_div(k, 4), PF_NARROW_BLOCK) + 1;
    room r = {0};
    r.a = align64((int64_t)n_workers * WORKER_ROOM * 4);
    r.rest = r.a + m * (row > row8 ? row8 : row);
    r.sums = r.a + m * max64(row, 2 * row8);
    r.rest_sums = r.sums + align64(m * blocks * 4);
    r.info = r.rest_sums + align64(m * blocks * 4);
    r.rest_row = r.info + align64(m * (int64_t)sizeof(pf_narrow_row));
    r.end = r.rest_row + align64(m * 4);
    return r;
}

int64_t pf_narrow_workspace(int64_t m, int64_t k, int n_workers) {
    return layout(m, k, n_workers).end;
}

typedef struct set { /* products of one A */
    job jobs[PF_GEMM_SET];
    int first[PF_GEMM_SET + 1]; /* task of each job */
} set;

static void run_set_task(void *ctx, int task, int worker) {
    set *s = ctx;
    int i = 0;
    while (task >= s->first[i + 1]) i++;
    run_task(&s->jobs[i], task - s->first[i], worker);
}

static job job_of(const pf_narrow_isa *isa, const pf_gemm *g, int n_workers, void *workspace) {
    job j = {.g = g, .isa = isa, .lanes = pf_narrow_lanes(isa->type)};
    const room r = layout(g->m, g->k, n_workers);
    unsigned char *at = workspace;
    j.workers = (uint32_t *)(void *)at;
    j.a = (uint32_t *)(void *)(at + r.a);
    j.rest = (uint32_t *)(void *)(at + r.rest);
    j.sums = (int32_t *)(void *)(at + r.sums);
    j.rest_sums = (int32_t *)(void *)(at + r.rest_sums);
    j.info = (pf_narrow_row *)(void *)(at + r.info);
    j.rest_row = (int32_t *)(void *)(at + r.rest_row);
    j.words = ceil_div(g->k, j.lanes);
    j.lda = row_stride(j.words);
    j.n_blocks = ceil_div(j.words, PF_NARROW_BLOCK);
    return j;
}

void pf_narrow_run_set(pf_pool *pool, const pf_narrow_isa *isa, const pf_gemm *g, int n,
                       void *workspace) {
    if (g->m <= 0 || g->k <= 0) return;
    for (int i = 0; i < n; i++)
        PF_ASSERT(isa->type != PF_COMPUTE_INT8 || g[i].b->row_scale != NULL);
    set s;
    job shared = job_of(isa, g, pf_pool_workers(pool), workspace);
    for (shared.i0 = 0; shared.i0 < g->m; shared.i0 += shared.m) {
        shared.m = min64(PF_NARROW_ROWS, g->m - shared.i0);
        pf_pool_run(pool, (int)ceil_div(shared.m, ROWS_A_TASK), narrow_task, &shared);
        gather_rest(&shared);
        s.first[0] = 0;
        for (int i = 0; i < n; i++) {
            s.jobs[i] = shared;
            s.jobs[i].g = &g[i];
            split(&s.jobs[i], pf_pool_workers(pool));
            s.first[i + 1] = s.first[i] + (int)(s.jobs[i].n_row_tasks * s.jobs[i].n_col_tasks);
        }
        pf_pool_run(pool, s.first[n], run_set_task, &s);
    }
}

void pf_narrow_run(pf_pool *pool, const pf_narrow_isa *isa, const pf_gemm *g, void *workspace) {
    pf_narrow_run_set(pool, isa, g, 1, workspace);
}

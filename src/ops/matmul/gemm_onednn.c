/* gemm_onednn.c - products through oneDNN's dnnl_sgemm, for comparison and for machines where it
 * wins. Off unless the environment says PEFT_ONEDNN=1 when a graph is planned: oneDNN allocates
 * inside each call, and picks its arithmetic by shape, so that neither "the loop allocates nothing"
 * nor "a row has the same bits in any batch" (gemm.h) can be promised with it. The same bits on any
 * number of threads can: the tiles are fixed and each is one call on one thread of our pool.
 *
 * Both forms with rows of A as they stand, NT and NN; the C API is that of versions 2 and 3. */
#include "ops/matmul/gemm_onednn.h"

#include "base/str.h"

#include <stdlib.h>

#ifdef PEFT_HAVE_ONEDNN

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>

enum { ROWS = 512, COLS = 256, TERMS = 1024, ROOM = COLS * TERMS };

typedef struct job {
    const pf_gemm *g;
    int64_t n_row_tasks;
    float *workspace;
    peft_status status; /* any failing call's; all write the same value */
} job;

/* oneDNN would start threads of its own; libgomp keeps the number per thread. */
static void one_thread_here(void) {
    static _Thread_local bool done;
    if (done) return;
    union { /* a function pointer out of a data pointer, as POSIX has it */
        void *data;
        void (*fn)(int);
    } set = {dlsym(RTLD_DEFAULT, "omp_set_num_threads")};
    if (set.data != NULL) set.fn(1);
    done = true;
}

static int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void run_task(void *ctx, int task, int worker) {
    job *j = ctx;
    const pf_gemm *g = j->g;
    const bool by_row = g->form == PF_GEMM_NT; /* rows of B are columns of C */
    const int64_t i0 = task % j->n_row_tasks * ROWS, m = min64(ROWS, g->m - i0);
    const int64_t n0 = task / j->n_row_tasks * COLS, n = min64(COLS, g->n - n0);
    float *room = j->workspace + (int64_t)worker * ROOM, *c = g->c + i0 * g->ldc + n0;
    const float *plain;
    one_thread_here();
    for (int64_t k0 = 0; k0 < g->k; k0 += TERMS) {
        const int64_t kc = min64(TERMS, g->k - k0);
        const float *b = room;
        int64_t ldb = by_row ? kc : n;
        if (pf_weight_is_plain_f32(g->b, &plain)) {
            ldb = g->b->stride;
            b = by_row ? plain + n0 * ldb + k0 : plain + k0 * ldb + n0;
        } else if (by_row) {
            pf_weight_read_tile(g->b, n0, n, k0, kc, room, kc);
        } else {
            pf_weight_read_tile(g->b, k0, kc, n0, n, room, n);
        }
        const float beta = k0 > 0 || g->accumulate ? 1 : 0;
        if (dnnl_sgemm('N', by_row ? 'T' : 'N', m, n, kc, g->alpha, g->a + i0 * g->lda + k0, g->lda,
                       b, ldb, beta, c, g->ldc) != dnnl_success)
            j->status = PEFT_E_DEVICE;
    }
    for (int64_t i = 0; g->bias != NULL && i < m; i++) {
        for (int64_t col = 0; col < n; col++) c[i * g->ldc + col] += g->bias[n0 + col];
    }
}

bool pf_gemm_onednn_wanted(void) {
    return pf_streq(getenv("PEFT_ONEDNN"), "1");
}

int64_t pf_gemm_onednn_workspace(int n_workers) {
    return (int64_t)n_workers * ROOM * (int64_t)sizeof(float);
}

peft_status pf_gemm_onednn_run(pf_pool *pool, const pf_gemm *g, void *workspace, peft_error *err) {
    if (g->m <= 0 || g->n <= 0) return PEFT_OK;
    job j = {.g = g, .n_row_tasks = (g->m + ROWS - 1) / ROWS, .workspace = workspace};
    const int64_t n_col_tasks = (g->n + COLS - 1) / COLS;
    pf_pool_run(pool, (int)(j.n_row_tasks * n_col_tasks), run_task, &j);
    if (j.status == PEFT_OK) return PEFT_OK;
    return PF_FAIL(err, j.status,
                   "oneDNN refused a product of %lld x %lld x %lld; unset "
                   "PEFT_ONEDNN to do without it",
                   (long long)g->m, (long long)g->n, (long long)g->k);
}

#else

bool pf_gemm_onednn_wanted(void) {
    return false;
}

int64_t pf_gemm_onednn_workspace(int n_workers) {
    (void)n_workers;
    return 0;
}

peft_status pf_gemm_onednn_run(pf_pool *pool, const pf_gemm *g, void *workspace, peft_error *err) {
    (void)pool, (void)g, (void)workspace;
    return PF_FAIL(err, PEFT_E_UNSUPPORTED, "this program was built without oneDNN");
}

#endif

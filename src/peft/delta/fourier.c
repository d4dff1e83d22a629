/* fourier.c - rows times a matrix that is given by few Fourier coefficients; see delta_maps.h.
 *
 *   D[o, i] = alpha sum over k of p_k cos(2 pi (u_k o / out + v_k i / in))
 * so with X = the transform of x (length in) and G = that of dy (length out)
 *   y  = alpha Re of the transform of Y,  Y[u] = sum over k with u_k = u of p_k X[v_k]
 *   dx = alpha Re of the transform of H,  H[v] = sum over k with v_k = v of p_k G[u_k]
 *   dp_k = alpha Re(X[v_k] G[u_k]), summed over rows
 * Two transforms a row in place of a product of (in, out); D is never formed. Rows go in groups of
 * PF_FFT_LANES, one task each; sums over groups are made in order. */
#include "peft/delta/delta_maps.h"

#include "ops/op_util.h"
#include "peft/delta/delta_loops.h"

#include <string.h>

enum { L = PF_FFT_LANES, W = 2 * PF_FFT_LANES };

static int64_t columns(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_fourier_args *a = args;
    return in_cols == a->in->n && p[0].rows == 1 ? a->out->n : 0;
}

static int64_t groups_of(int64_t R) {
    return (R + L - 1) / L;
}

/* Of a worker: a buffer of each length to fill, one of each for the result, room for a factor. */
static int64_t room_a_worker(const pf_fourier_args *a) {
    return 2 * pf_fft_reals(a->in->n) + 2 * pf_fft_reals(a->out->n) +
           pf_max_i64(pf_fft_part(a->in), pf_fft_part(a->out));
}

static int64_t scratch(const void *args, int64_t R, int64_t in_cols, const pf_mat *p,
                       int n_workers) {
    const pf_fourier_args *a = args;
    (void)in_cols;
    return n_workers * room_a_worker(a) + groups_of(R) * p[0].cols;
}

static double flops(const void *args, int64_t in_cols, const pf_mat *p) {
    const pf_fourier_args *a = args;
    double sum = 8 * (double)p[0].cols;
    (void)in_cols;
    for (int i = 0; i < a->in->n_factors; i++)
        sum += 8 * (double)a->in->n * (double)(a->in->factor[i] - 1);
    for (int i = 0; i < a->out->n_factors; i++)
        sum += 8 * (double)a->out->n * (double)(a->out->factor[i] - 1);
    return sum;
}

typedef struct buffers {
    pf_real *in, *in_done, *out, *out_done, *part;
} buffers;

static buffers buffers_of(const pf_fourier_args *a, pf_real *room) {
    const int64_t n = pf_fft_reals(a->in->n), m = pf_fft_reals(a->out->n);
    return (buffers){room, room + n, room + 2 * n, room + 2 * n + m, room + 2 * (n + m)};
}

/* ---- groups of rows -------------------------------------------------------------------------- */

static void store(const pf_real *from, int64_t n_rows, int64_t cols, double alpha, pf_real *y) {
    for (int64_t l = 0; l < n_rows; l++) {
        for (int64_t c = 0; c < cols; c++) y[l * cols + c] = (pf_real)alpha * from[c * W + l];
    }
}

/* to[at[k]] = sum of p_k from[of[k]] */
static void scatter(const pf_delta_loops *loops, const pf_mat *p, const pf_real *from,
                    const int32_t *of, pf_real *to, const int32_t *at, int64_t cols) {
    memset(to, 0, (size_t)pf_fft_reals(cols) * sizeof *to);
    loops->scatter(p->data, p->cols, from, of, to, at);
}

static void forward_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const pf_fourier_args *a = r->args;
    const pf_delta_loops *loops = pf_delta_loops_of(r->isa);
    const buffers b = buffers_of(a, r->scratch + worker * room_a_worker(a));
    const int64_t first = (int64_t)task * L, n = pf_min_i64(L, r->R - first);
    loops->load(r->x + first * r->in_cols, n, r->in_cols, b.in);
    loops->fft(a->in, b.in, b.in_done, b.part);
    scatter(loops, &r->p[0], b.in_done, a->v, b.out, a->u, a->out->n);
    loops->fft(a->out, b.out, b.out_done, b.part);
    store(b.out_done, n, r->out_cols, a->alpha, r->y + first * r->out_cols);
}

static pf_real *sums_of(const pf_rowmap_run *r) {
    return r->scratch + pf_pool_workers(r->pool) * room_a_worker(r->args);
}

static void backward_task(void *ctx, int task, int worker) {
    const pf_rowmap_run *r = ctx;
    const pf_fourier_args *a = r->args;
    const pf_delta_loops *loops = pf_delta_loops_of(r->isa);
    const buffers b = buffers_of(a, r->scratch + worker * room_a_worker(a));
    const int64_t first = (int64_t)task * L, n = pf_min_i64(L, r->R - first), K = r->p[0].cols;
    loops->load(r->dy + first * r->out_cols, n, r->out_cols, b.out);
    loops->fft(a->out, b.out, b.out_done, b.part);
    if (r->d_p[0].data != NULL) {
        pf_real *sums = sums_of(r) + task * K;
        loops->load(r->x + first * r->in_cols, n, r->in_cols, b.in);
        loops->fft(a->in, b.in, b.in_done, b.part);
        loops->match(K, b.in_done, a->v, b.out_done, a->u, sums);
    }
    if (r->dx == NULL) return;
    scatter(loops, &r->p[0], b.out_done, a->u, b.in, a->v, a->in->n);
    loops->fft(a->in, b.in, b.in_done, b.part);
    store(b.in_done, n, r->in_cols, a->alpha, r->dx + first * r->in_cols);
}

static void forward(const pf_rowmap_run *r) {
    pf_pool_run(r->pool, (int)groups_of(r->R), forward_task, (void *)r);
}

static void backward(const pf_rowmap_run *r) {
    const pf_fourier_args *a = r->args;
    const int64_t groups = groups_of(r->R), K = r->p[0].cols;
    pf_pool_run(r->pool, (int)groups, backward_task, (void *)r);
    for (int64_t k = 0; r->d_p[0].data != NULL && k < K; k++) {
        double sum = 0;
        for (int64_t g = 0; g < groups; g++) sum += (double)sums_of(r)[g * K + k];
        r->d_p[0].data[k] += (pf_real)(a->alpha * sum);
    }
}

const pf_rowmap pf_fourier = {.name = "Fourier coefficients",
                              .columns = columns,
                              .scratch = scratch,
                              .flops = flops,
                              .forward = forward,
                              .backward = backward};

/* ---- the matrix itself ----------------------------------------------------------------------- */

int64_t pf_fourier_room(const pf_fourier_args *a) {
    return room_a_worker(a);
}

/* Row o: the transform of what has p_k e^(2 pi i u_k o / out) at v_k; as many rows as lanes. */
void pf_fourier_add(const pf_fourier_args *a, const pf_mat *p, int64_t row0, int64_t n, float *rows,
                    pf_real *room) {
    const pf_delta_loops *loops = pf_delta_loops_of(pf_gemm_best());
    const buffers b = buffers_of(a, room);
    const int64_t C = a->in->n;
    for (int64_t first = 0; first < n; first += L) {
        const int64_t count = pf_min_i64(L, n - first);
        memset(b.in, 0, (size_t)pf_fft_reals(C) * sizeof *b.in);
        for (int64_t k = 0; k < p->cols; k++) {
            for (int64_t l = 0; l < count; l++) {
                const int64_t at = a->u[k] * (row0 + first + l) % a->out->n;
                b.in[a->v[k] * W + l] += p->data[k] * a->out->root[2 * at];
                b.in[a->v[k] * W + L + l] += p->data[k] * a->out->root[2 * at + 1];
            }
        }
        loops->fft(a->in, b.in, b.in_done, b.part);
        for (int64_t l = 0; l < count; l++) {
            for (int64_t c = 0; c < C; c++) {
                float *to = rows + (first + l) * C + c;
                *to = (float)((double)*to + a->alpha * (double)b.in_done[c * W + l]);
            }
        }
    }
}

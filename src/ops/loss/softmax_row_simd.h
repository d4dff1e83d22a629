/* softmax_row_simd.h - softmax_row.h in vectors; compiled by softmax_row_avx2.c and
 * softmax_row_avx512.c. The sum runs in PF_VN chains, added at the end. */
#include "ops/loss/softmax_row.h"
#include "ops/simd.h"

static pf_softmax_row look(const float *z, int64_t n) {
    pf_softmax_row r = {.max = z[0]};
    pf_vf most = pf_v_set(z[0]);
    int64_t i = 0;
    for (; i + PF_VN <= n; i += PF_VN) most = pf_v_max(pf_v_load(z + i), most);
    r.max = pf_v_hmax(most);
    for (; i < n; i++) {
        if (z[i] > r.max) r.max = z[i];
    }
    while (r.top < n - 1 && z[r.top] != r.max) r.top++;
    const pf_vf shift = pf_v_set(r.max);
    pf_vf sum = pf_v_zero();
    for (i = 0; i + PF_VN <= n; i += PF_VN) {
        sum = pf_v_add(sum, pf_v_exp(pf_v_sub(pf_v_load(z + i), shift)));
    }
    r.sum = pf_v_sum(sum);
    if (i < n) {
        float tail[PF_VN];
        pf_v_store(tail, pf_v_exp(pf_v_sub(pf_v_load_first(z + i, (int)(n - i)), shift)));
        for (int64_t k = 0; k < n - i; k++) r.sum += tail[k];
    }
    return r;
}

static void finish(float *z, int64_t n, float max, float factor) {
    const pf_vf shift = pf_v_set(max), scale = pf_v_set(factor);
    for (int64_t i = 0; i < n; i += PF_VN) {
        pf_vf e = pf_v_exp(pf_v_sub(pf_v_load_n(z + i, n - i), shift));
        pf_v_store_n(z + i, pf_v_mul(e, scale), n - i);
    }
}

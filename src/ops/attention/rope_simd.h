/* rope_simd.h - rope_kernels.h's kernel in vectors (simd.h). Products and sums are rounded one by
 * one, as the reference does: both give the same bits. */
#include "ops/attention/rope_kernels.h"

#include "ops/simd.h"

#include <string.h>

void PF_SIMD(pf_rope_rows)(const pf_rope_rows *k) {
    const int64_t half = k->D / 2;
    const pf_vf sign = pf_v_set(k->inverse ? -1.0f : 1.0f);
    for (int64_t i = 0; i < k->R; i++) {
        const float *cosine = k->table + i * k->D, *sine = cosine + half;
        for (int64_t h = 0; h < k->H; h++) {
            const float *x = k->x + (i * k->H + h) * k->W;
            float *y = k->y + (i * k->H + h) * k->W;
            for (int64_t j = 0; j < half; j += PF_VN) {
                int64_t m = half - j;
                pf_vf x1 = pf_v_load_n(x + j, m), x2 = pf_v_load_n(x + half + j, m);
                pf_vf c = pf_v_load_n(cosine + j, m), s = pf_v_mul(sign, pf_v_load_n(sine + j, m));
                pf_v_store_n(y + j, pf_v_sub(pf_v_mul(x1, c), pf_v_mul(x2, s)), m);
                pf_v_store_n(y + half + j, pf_v_add(pf_v_mul(x2, c), pf_v_mul(x1, s)), m);
            }
            if (y != x) memcpy(y + k->D, x + k->D, (size_t)(k->W - k->D) * sizeof *y);
        }
    }
}

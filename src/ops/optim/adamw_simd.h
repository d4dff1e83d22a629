/* adamw_simd.h - the step of adamw_kernels.h in vectors (simd.h). */
#include "ops/optim/adamw_kernels.h"

#include "ops/simd.h"

void PF_SIMD(pf_adamw_step)(const pf_adamw_step *k) {
    const pf_vf grad_scale = pf_v_set(k->grad_scale), decay = pf_v_set(k->decay);
    const pf_vf one_minus_b1 = pf_v_set(k->one_minus_b1), one_minus_b2 = pf_v_set(k->one_minus_b2);
    const pf_vf b2 = pf_v_set(k->b2), minus_step = pf_v_set(k->minus_step);
    const pf_vf root_bias2 = pf_v_set(k->root_bias2), eps = pf_v_set(k->eps);
    for (int64_t i = 0; i < k->n; i += PF_VN) {
        const int64_t left = k->n - i;
        pf_vf g = pf_v_mul(pf_v_load_n(k->g + i, left), grad_scale);
        pf_vf m = pf_v_load_n(k->m + i, left);
        m = pf_v_add(m, pf_v_mul(pf_v_sub(g, m), one_minus_b1));
        pf_vf v = pf_v_mul(pf_v_load_n(k->v + i, left), b2);
        v = pf_v_add(v, pf_v_mul(pf_v_mul(one_minus_b2, g), g));
        pf_vf denominator = pf_v_add(pf_v_div(pf_v_sqrt(v), root_bias2), eps);
        pf_vf p = pf_v_mul(pf_v_load_n(k->p + i, left), decay);
        p = pf_v_add(p, pf_v_div(pf_v_mul(minus_step, m), denominator));
        pf_v_store_n(k->m + i, m, left);
        pf_v_store_n(k->v + i, v, left);
        pf_v_store_n(k->p + i, p, left);
    }
}

/* row_mask_simd.h - dropout of one row in vectors (simd.h): the masks of dropout.h, 512 columns at
 * a time. */
#include "ops/activation/row_mask_kernels.h"
#include "ops/simd.h"

void PF_SIMD(pf_drop_row)(const pf_dropout *d, uint32_t sample, uint32_t pos, const float *x,
                          float *y, int64_t n) {
    enum { CALLS = 64, COLUMNS = 8 * CALLS };
    uint32_t octet[CALLS], at[CALLS], of[CALLS], key[CALLS];
    uint8_t bits[CALLS];
    const pf_vf scale = pf_v_set((float)d->scale);
    for (int l = 0; l < CALLS; l++) {
        at[l] = pos;
        of[l] = sample;
        key[l] = d->mask_key;
    }
    for (int64_t from = 0; from < n; from += COLUMNS) {
        const int64_t columns = n - from < COLUMNS ? n - from : COLUMNS;
        for (int l = 0; l < CALLS; l++) octet[l] = (uint32_t)(from / 8 + l);
        PF_SIMD(pf_dropout_lanes)(d, octet, at, of, key, (columns + 127) / 128 * 16, bits);
        for (int64_t c = 0; c < columns; c += PF_VN) {
            const uint8_t *b = bits + c / 8;
            const uint32_t keep = PF_VN == 16 ? (uint32_t)(b[0] | b[1] << 8) : b[0];
            const pf_vf v = pf_v_mul(pf_v_load_n(x + from + c, columns - c), scale);
            pf_v_store_n(y + from + c, pf_v_keep_bits(keep, v), columns - c);
        }
    }
}

/* hash.c - SHA-256 over libcrypto, and a small mixing hash for tables. */
#include "base/hash.h"

#include "base/file.h"
#include "base/mem.h"

#include <openssl/evp.h>
#include <string.h>

struct pf_sha256 {
    EVP_MD_CTX *ctx;
};

pf_sha256 *pf_sha256_new(void) {
    pf_sha256 *h = pf_calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    h->ctx = EVP_MD_CTX_new();
    if (h->ctx == NULL || EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1) {
        pf_sha256_free(h);
        return NULL;
    }
    return h;
}

void pf_sha256_add(pf_sha256 *h, const void *data, size_t n) {
    if (n > 0) EVP_DigestUpdate(h->ctx, data, n);
}

static void to_hex(const unsigned char *bytes, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

void pf_sha256_hex(pf_sha256 *h, char out[PF_SHA256_HEX]) {
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    EVP_DigestFinal_ex(h->ctx, digest, NULL);
    to_hex(digest, 32, out);
}

void pf_sha256_free(pf_sha256 *h) {
    if (h == NULL) return;
    EVP_MD_CTX_free(h->ctx);
    pf_free(h);
}

void pf_sha256_of(const void *data, size_t n, char out[PF_SHA256_HEX]) {
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    EVP_Digest(data, n, digest, NULL, EVP_sha256(), NULL);
    to_hex(digest, 32, out);
}

peft_status pf_sha256_file(const char *path, char out[PF_SHA256_HEX], peft_error *err) {
    pf_mapping m;
    PF_TRY(pf_map_file(&m, path, err));
    pf_sha256_of(m.data != NULL ? m.data : (const void *)"", m.size, out);
    pf_unmap_file(&m);
    return PEFT_OK;
}

static uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ typedef unsigned __int128 wide;
    wide p = (wide)a * b;
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

uint64_t pf_hash64(const void *data, size_t n, uint64_t seed) {
    const unsigned char *p = data;
    uint64_t h = seed ^ 0x9E3779B97F4A7C15u;
    size_t left = n;
    while (left >= 16) {
        uint64_t a, b;
        memcpy(&a, p, 8);
        memcpy(&b, p + 8, 8);
        h = mix(a ^ 0xA0761D6478BD642Fu ^ h, b ^ 0xE7037ED1A0B428DBu);
        p += 16;
        left -= 16;
    }
    uint64_t a = 0, b = 0;
    if (left > 0) memcpy(&a, p, left < 8 ? left : 8);
    if (left > 8) memcpy(&b, p + 8, left - 8);
    h = mix(a ^ 0x8EBC6AF09C88C6E3u ^ h, b ^ 0x589965CC75374CC3u ^ n);
    return mix(h ^ 0x1D8E4E27C47D124Fu, h >> 32 | 1u);
}

/* gunzip.c - see gunzip.h; the format is RFC 1952, the work is zlib's. */
#include "data/gunzip.h"

#include <limits.h>
#include <zlib.h>

peft_status pf_gunzip(pf_buf *out, const unsigned char *data, size_t n, const char *name,
                      peft_error *err) {
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) /* the largest window, gzip's header */
        return PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory", name);
    peft_status status = PEFT_OK;
    unsigned char block[1 << 15];
    size_t at = 0;
    for (bool done = false; !done && status == PEFT_OK;) {
        size_t chunk = n - at < INT_MAX ? n - at : INT_MAX;
        z.next_in = (Bytef *)(data + at);
        z.avail_in = (uInt)chunk;
        z.next_out = block;
        z.avail_out = sizeof block;
        int code = inflate(&z, Z_NO_FLUSH);
        at += chunk - z.avail_in;
        size_t got = sizeof block - z.avail_out;
        if (out->len > PF_GUNZIP_MAX - got) {
            status = PF_FAIL(err, PEFT_E_FORMAT, "%s: unpacks to more than %zu GiB", name,
                             PF_GUNZIP_MAX >> 30);
            break;
        }
        pf_buf_add(out, block, got);
        if (!pf_buf_ok(out)) {
            status = PF_FAIL(err, PEFT_E_NOMEM, "%s: out of memory after unpacking %zu bytes", name,
                             out->len);
        } else if (code == Z_STREAM_END) {
            /* another member, or padding that gzip itself ignores */
            done = n - at < 2 || data[at] != 0x1f || data[at + 1] != 0x8b;
            if (!done) inflateReset(&z);
        } else if (code != Z_OK) {
            bool cut = code == Z_BUF_ERROR && at == n;
            status = PF_FAIL(err, PEFT_E_FORMAT, "%s: not valid gzip: %s", name,
                             cut             ? "the file ends too early"
                             : z.msg != NULL ? z.msg
                                             : "broken stream");
        }
    }
    inflateEnd(&z);
    return status;
}

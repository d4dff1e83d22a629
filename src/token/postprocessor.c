/* postprocessor.c - the kinds of post-processors. */
#include "token/postprocessor.h"

#include <string.h>

#include "base/banned.h"

static peft_status put_before(pf_postprocessor *z, int32_t id, pf_tj at, peft_error *err) {
    if (z->n_before == PF_POST_MAX)
        return pf_tj_fail(at, PEFT_E_UNSUPPORTED, "more than 16 special tokens", err);
    z->before[z->n_before++] = id;
    return PEFT_OK;
}

static peft_status put_after(pf_postprocessor *z, int32_t id, pf_tj at, peft_error *err) {
    if (z->n_after == PF_POST_MAX)
        return pf_tj_fail(at, PEFT_E_UNSUPPORTED, "more than 16 special tokens", err);
    z->after[z->n_after++] = id;
    return PEFT_OK;
}

/* Ids read in order that go before what is there already. */
static void rotate(pf_postprocessor *z, int n_old) {
    int32_t copy[PF_POST_MAX];
    int n_new = z->n_before - n_old;
    memcpy(copy, z->before, (size_t)z->n_before * sizeof *copy);
    memcpy(z->before, copy + n_old, (size_t)n_new * sizeof *copy);
    memcpy(z->before + n_new, copy, (size_t)n_old * sizeof *copy);
}

static peft_status template_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    pf_tj single = pf_tj_get(json, "single"), specials = pf_tj_get(json, "special_tokens");
    int sequences = 0, n_old = z->n_before;
    for (size_t i = 0; i < pf_tj_count(single); i++) {
        pf_tj item = pf_tj_at(single, i), special = pf_tj_get(item, "SpecialToken");
        if (pf_tj_get(item, "Sequence").v != NULL) {
            sequences++;
            continue;
        }
        pf_str name;
        PF_TRY(pf_tj_member(special, "id", &name, err));
        pf_tj ids = pf_tj_get(pf_tj_get(specials, name.p), "ids");
        if (pf_tj_count(ids) == 0)
            return PF_FAIL(err, PEFT_E_FORMAT, "%s.special_tokens: no ids for %s", json.path,
                           name.p);
        for (size_t k = 0; k < pf_tj_count(ids); k++) {
            const json_t *id = json_array_get(ids.v, k);
            int64_t v = json_is_integer(id) ? json_integer_value(id) : -1;
            if (v < 0 || v > INT32_MAX)
                return pf_tj_fail(ids, PEFT_E_FORMAT, "these should be token ids", err);
            PF_TRY(sequences == 0 ? put_before(z, (int32_t)v, json, err)
                                  : put_after(z, (int32_t)v, json, err));
        }
    }
    if (sequences != 1)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s.single: the text should stand in it once, not %d times", json.path,
                       sequences);
    rotate(z, n_old);
    return PEFT_OK;
}

const pf_postprocessor_kind pf_postprocessor_template = {"TemplateProcessing", template_parse};

static peft_status byte_level_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    bool trim = true, keep = true;
    PF_TRY(pf_tj_bool(json, "trim_offsets", &trim, err));
    PF_TRY(pf_tj_bool(json, "add_prefix_space", &keep, err));
    if (trim) {
        z->trim = true;
        z->keep_first = keep;
    }
    return PEFT_OK;
}

const pf_postprocessor_kind pf_postprocessor_byte_level = {"ByteLevel", byte_level_parse};

static peft_status named_id(pf_tj json, const char *key, int32_t *id, peft_error *err) {
    pf_tj pair = pf_tj_get(json, key); /* ["</s>", 2] */
    const json_t *v = pf_tj_count(pair) == 2 ? json_array_get(pair.v, 1) : NULL;
    int64_t n = json_is_integer(v) ? json_integer_value(v) : -1;
    if (n < 0 || n > INT32_MAX)
        return pf_tj_fail(pair, PEFT_E_FORMAT, "this should be [token, id]", err);
    *id = (int32_t)n;
    return PEFT_OK;
}

static peft_status bert_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    int32_t cls, sep;
    int n_old = z->n_before;
    PF_TRY(named_id(json, "cls", &cls, err));
    PF_TRY(named_id(json, "sep", &sep, err));
    PF_TRY(put_before(z, cls, json, err));
    rotate(z, n_old);
    return put_after(z, sep, json, err);
}

const pf_postprocessor_kind pf_postprocessor_bert = {"BertProcessing", bert_parse};

static peft_status roberta_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    PF_TRY(byte_level_parse(z, json, err));
    return bert_parse(z, json, err);
}

const pf_postprocessor_kind pf_postprocessor_roberta = {"RobertaProcessing", roberta_parse};

static peft_status load(pf_postprocessor *z, pf_tj json, int depth, peft_error *err) {
    pf_str type;
    PF_TRY(pf_tj_member(json, "type", &type, err));
    if (strcmp(type.p, "Sequence") == 0) {
        pf_tj parts = pf_tj_get(json, "processors");
        if (depth == 8) return pf_tj_fail(json, PEFT_E_UNSUPPORTED, "sequences nest too deep", err);
        for (size_t i = 0; i < pf_tj_count(parts); i++)
            PF_TRY(load(z, pf_tj_at(parts, i), depth + 1, err));
        return PEFT_OK;
    }
    const pf_postprocessor_kind *kind = pf_postprocessor_find(type.p);
    if (kind == NULL)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED, "%s: post-processor %s is not supported", json.path,
                       type.p);
    return kind->parse(z, json, err);
}

peft_status pf_postprocessor_load(pf_postprocessor *z, pf_tj json, peft_error *err) {
    memset(z, 0, sizeof *z);
    return json.v == NULL ? PEFT_OK : load(z, json, 0, err);
}

/* postprocessor.c - the kinds of post-processors. */
#include "token/postprocessor.h"

#include <string.h>

#include "base/banned.h"

static peft_status put(int32_t *list, int *n, int32_t id, pf_tj at, peft_error *err) {
    if (*n == PF_POST_MAX)
        return pf_tj_fail(at, PEFT_E_UNSUPPORTED, "more than 16 special tokens", err);
    list[(*n)++] = id;
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

/* The ids of an item of a template; *sequence: it is a text. */
static peft_status template_ids(pf_tj json, pf_tj item, pf_tj *ids, bool *sequence,
                                peft_error *err) {
    pf_tj special = pf_tj_get(item, "SpecialToken"), specials = pf_tj_get(json, "special_tokens");
    *sequence = pf_tj_get(item, "Sequence").v != NULL;
    if (*sequence) return PEFT_OK;
    pf_str name;
    PF_TRY(pf_tj_member(special, "id", &name, err));
    *ids = pf_tj_get(pf_tj_get(specials, name.p), "ids");
    if (pf_tj_count(*ids) == 0)
        return PF_FAIL(err, PEFT_E_FORMAT, "%s.special_tokens: no ids for %s", json.path, name.p);
    return PEFT_OK;
}

static peft_status template_id(pf_tj ids, size_t k, int32_t *out, peft_error *err) {
    const json_t *id = json_array_get(ids.v, k);
    int64_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v > INT32_MAX)
        return pf_tj_fail(ids, PEFT_E_FORMAT, "these should be token ids", err);
    *out = (int32_t)v;
    return PEFT_OK;
}

static peft_status template_pair(pf_postprocessor *z, pf_tj json, peft_error *err) {
    pf_tj pair = pf_tj_get(json, "pair"), ids;
    int part = 0;
    bool sequence;
    for (size_t i = 0; i < pf_tj_count(pair); i++) {
        PF_TRY(template_ids(json, pf_tj_at(pair, i), &ids, &sequence, err));
        part += sequence;
        for (size_t k = 0; !sequence && part < 3 && k < pf_tj_count(ids); k++) {
            int32_t id;
            PF_TRY(template_id(ids, k, &id, err));
            PF_TRY(put(z->pair[part], &z->n_pair[part], id, json, err));
        }
    }
    if (part != 2) memset(z->n_pair, 0, sizeof z->n_pair); /* texts side by side, as they are */
    return PEFT_OK;
}

static peft_status template_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    pf_tj single = pf_tj_get(json, "single"), ids;
    int sequences = 0, n_old = z->n_before;
    bool sequence;
    for (size_t i = 0; i < pf_tj_count(single); i++) {
        PF_TRY(template_ids(json, pf_tj_at(single, i), &ids, &sequence, err));
        sequences += sequence;
        for (size_t k = 0; !sequence && k < pf_tj_count(ids); k++) {
            int32_t id;
            PF_TRY(template_id(ids, k, &id, err));
            PF_TRY(sequences == 0 ? put(z->before, &z->n_before, id, json, err)
                                  : put(z->after, &z->n_after, id, json, err));
        }
    }
    if (sequences != 1)
        return PF_FAIL(err, PEFT_E_UNSUPPORTED,
                       "%s.single: the text should stand in it once, not %d times", json.path,
                       sequences);
    rotate(z, n_old);
    return template_pair(z, json, err);
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

/* <cls> text <sep>; of two texts <cls> a <sep> b <sep>, with `between` <sep> in the middle. */
static peft_status cls_and_sep(pf_postprocessor *z, pf_tj json, int between, peft_error *err) {
    int32_t cls, sep;
    int n_old = z->n_before;
    PF_TRY(named_id(json, "cls", &cls, err));
    PF_TRY(named_id(json, "sep", &sep, err));
    PF_TRY(put(z->before, &z->n_before, cls, json, err));
    rotate(z, n_old);
    PF_TRY(put(z->pair[0], &z->n_pair[0], cls, json, err));
    for (int i = 0; i < between; i++) PF_TRY(put(z->pair[1], &z->n_pair[1], sep, json, err));
    PF_TRY(put(z->pair[2], &z->n_pair[2], sep, json, err));
    return put(z->after, &z->n_after, sep, json, err);
}

static peft_status bert_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    return cls_and_sep(z, json, 1, err);
}

const pf_postprocessor_kind pf_postprocessor_bert = {"BertProcessing", bert_parse};

static peft_status roberta_parse(pf_postprocessor *z, pf_tj json, peft_error *err) {
    PF_TRY(byte_level_parse(z, json, err));
    return cls_and_sep(z, json, 2, err);
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

/* peft_json.h - what the adapter_config.json of many methods has in common: lists of names, maps,
 * and the keys of target rules (targets.h). */
#ifndef PF_PEFT_JSON_H
#define PF_PEFT_JSON_H

#include "peft/targets.h"

struct json_t; /* jansson */

/* A list of texts, or one text (out->single); missing and null are an empty list. Copied into the
 * arena, as all below. */
peft_status pf_peft_get_strings(pf_arena *a, const struct json_t *c, const char *where,
                                const char *key, pf_cfg_strings *out, peft_error *err);
/* A list of whole numbers, or one. */
peft_status pf_peft_get_ints(pf_arena *a, const struct json_t *c, const char *where,
                             const char *key, pf_cfg_ints *out, peft_error *err);
peft_status pf_peft_get_map(pf_arena *a, const struct json_t *c, const char *where, const char *key,
                            pf_cfg_map *out, peft_error *err);
/* A text, copied; `def` (borrowed) when it is missing. */
peft_status pf_peft_get_text(pf_arena *a, const struct json_t *c, const char *where,
                             const char *key, const char *def, const char **out, peft_error *err);
/* One of the words of `choices` ("none all lora_only"). */
peft_status pf_peft_get_word(const struct json_t *c, const char *where, const char *key,
                             const char *const *choices, const char *def, const char **out,
                             peft_error *err);

/* All keys of target rules that a file may have, into the lists of *out. */
peft_status pf_targets_from_json(pf_arena *a, const struct json_t *c, const char *where,
                                 pf_target_rules *out, peft_error *err);

/* Is a key not set: missing, null, false, 0, "none" or empty? */
bool pf_peft_is_off(const struct json_t *v);
/* Warns of every key that is set and that nobody knows (peft_keys.c). */
void pf_peft_warn_unknown(const struct json_t *c, const char *where);

/* --- writing: 0, or not 0 when memory is out --- */
struct json_t *pf_peft_number(double v); /* whole numbers without a point: peft's ints */
struct json_t *pf_peft_map(const pf_cfg_map *m);
struct json_t *pf_peft_strings(const pf_cfg_strings *l);
/* target_modules as the file should name them, and whatever else of the rules is not empty. */
peft_status pf_targets_to_json(const pf_adapter *ad, const pf_target_rules *rules, struct json_t *c,
                               peft_error *err);
/* The same for classes of peft that know no layers_to_transform: where layers are chosen,
 * target_modules are the whole paths of the sites for which `acts` says so. */
peft_status pf_targets_to_json_by_path(const pf_adapter *ad, const pf_target_rules *rules,
                                       bool (*acts)(const pf_adapter *ad, const pf_site *site),
                                       struct json_t *c, peft_error *err);

#endif

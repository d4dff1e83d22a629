/* several.h - more than one adapter on one model: methods that train side by side (peft.also), and
 * adapters that stand on frozen ones (model.create_new_adapter).
 *
 * Side by side: one pf_adapter, whose parts are adapters of one method each. Their parameters stand
 * in its blocks, so optimizer, clipping and checkpoints see one set; each part keeps its own names,
 * and its own folder: <dir>/lora/adapter_config.json, as PEFT reads it with subfolder="lora".
 * AdapterHub's methods under one name are saved in one folder instead, its union
 * (adapterhub_union.c).
 * On top of others: the adapters below act first and are not trained.
 *
 * Both stand in adapters.json of the folder:
 *   {"parts": ["lora", "ia3"], "on_top_of": ["/path/of/the/first"]}
 * so that whoever opens the folder has all of it, or is told what is missing. */
#ifndef PF_SEVERAL_H
#define PF_SEVERAL_H

#include "peft/method.h"

#define PF_SEVERAL_FILE "adapters.json"
enum { PF_SEVERAL_MOST = PF_PEFT_ALSO + 1 };

/* The method of an adapter that has parts; not one of the table. */
extern const pf_method pf_method_several;

typedef struct pf_several_list { /* adapters.json */
    const char *parts[PF_SEVERAL_MOST], *below[PF_SEVERAL_MOST];
    int n_parts, n_below;
} pf_several_list;

/* Empty where the folder has no adapters.json. */
peft_status pf_several_read(pf_several_list *out, pf_arena *a, const char *dir, peft_error *err);
/* Writes adapters.json, where there is something to say. */
peft_status pf_several_write(const pf_adapter *ad, const char *dir, peft_error *err);
/* The parts of a folder, as one adapter. *out may be set when it fails. */
peft_status pf_several_open_parts(pf_adapter **out, pf_model *model, const pf_several_list *list,
                                  const char *dir, pf_arena *a, bool with_training,
                                  peft_error *err);
/* What the folder stands on, frozen; *chain may be set when it fails. */
peft_status pf_several_open_below(pf_adapter **chain, pf_model *model, const pf_several_list *list,
                                  const char *dir, pf_arena *a, int depth, peft_error *err);
/* Takes over an adapter that is attached and not sealed, as the next part of `ad`; closes it when
 * that fails. */
peft_status pf_several_add(pf_adapter *ad, pf_adapter *part, peft_error *err);

#endif

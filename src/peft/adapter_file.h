/* adapter_file.h - the parts of reading and writing an adapter's folder that stand in files of
 * their own. */
#ifndef PF_ADAPTER_FILE_H
#define PF_ADAPTER_FILE_H

#include "formats/safetensors.h"
#include "formats/stored_tensor.h"
#include "peft/method.h"

/* The adapter (of one method) that a folder holds, attached and not sealed. *out may be set when it
 * fails. */
peft_status pf_adapter_attach_folder(pf_adapter **out, pf_model *model, const char *dir,
                                     pf_arena *a, peft_error *err);
/* Its numbers, from the same folder. */
peft_status pf_adapter_load_weights(pf_adapter *ad, pf_arena *a, const char *dir,
                                    bool with_training, peft_error *err);
/* pf_adapter_open; `depth` adapters stand on this one already. */
peft_status pf_adapter_open_at(pf_adapter **out, pf_model *model, const char *path,
                               bool with_training, int depth, peft_error *err);
/* Looks whether the tensors of a file (and of the head's, where that is one of its own; NULL: none)
 * are those of the adapter, one for one; then makes room for the weights and reads them. */
peft_status pf_adapter_load_tensors(pf_adapter *ad, const char *path, const char *head,
                                    bool with_training, peft_error *err);
/* Writes all parameters as f32; head: of those in the head's own file, else of all others. */
peft_status pf_adapter_write_tensors(const pf_adapter *ad, const char *path, bool head,
                                     peft_error *err);
/* AdapterHub has the head that tells classes apart in files of its own. Does this adapter? */
#define PF_HEAD_FILE   "model_head.safetensors"
#define PF_HEAD_CONFIG "head_config.json"
bool pf_adapter_has_head_file(const pf_adapter *ad);
peft_status pf_adapterhub_write_head_config(const pf_adapter *ad, const char *path,
                                            peft_error *err);
/* What adapter and head say of the model; 0: done. */
int pf_adapterhub_add_base(const pf_adapter *ad, struct json_t *c);
/* The folder's head file, in the arena, looked at: whatever it has is going to be trained whole.
 * NULL: it has none. */
peft_status pf_adapterhub_find_head(pf_adapter *ad, pf_arena *a, const char *dir, const char **path,
                                    peft_error *err);
/* The model's own name for a tensor of AdapterHub's flexible heads ("heads.sst.4.bias"), in `out`;
 * NULL: it is none. */
const char *pf_adapterhub_head_tensor(const pf_model *m, const pf_safetensors *file,
                                      const char *name, char *out, size_t n);
/* What the folder's head, if it has one, was made for. */
peft_status pf_adapterhub_task_of(pf_adapter_task *out, pf_arena *a, const char *dir,
                                  peft_error *err);
/* AdapterHub's folder: is this adapter_config.json one, what opens it, and what stands in it. */
bool pf_adapterhub_is(const struct json_t *config);
peft_status pf_adapterhub_open(pf_adapter **out, pf_model *model, const char *dir,
                               const struct json_t *config, const char *where, pf_arena *a,
                               peft_error *err);
peft_status pf_adapterhub_write_config(const pf_adapter *ad, struct json_t *config,
                                       peft_error *err);
/* The method of one `config` of AdapterHub's. */
peft_status pf_adapterhub_method(const struct json_t *config, const char *where,
                                 const pf_method **out, peft_error *err);
/* Several of its methods in one folder (adapterhub_union.c): is an adapter with parts saved so, its
 * `config`, and the adapter of such a file (*out may be set when it fails). */
bool pf_adapterhub_is_union(const pf_adapter *ad);
peft_status pf_adapterhub_write_union(const pf_adapter *ad, struct json_t *file, peft_error *err);
peft_status pf_adapterhub_open_union(pf_adapter **out, pf_model *model, const struct json_t *file,
                                     const char *where, pf_arena *a, peft_error *err);
/* A folder with adapter_setup.json holds adapters in folders of their own: *dir becomes the one to
 * open, which has to be a fusion's. Others stay as they are. */
peft_status pf_adapterhub_setup(const char **dir, pf_arena *a, peft_error *err);
#define PF_FUSION_CONFIG "adapter_fusion_config.json"
/* The same in the words of adapters 1.3, whatever version wrote it (adapterhub_legacy.c); tensors:
 * the path of its weight file. And the parameter that a tensor of its file is, NULL: none. */
peft_status pf_adapterhub_renew(struct json_t *config, const char *where, const char *tensors,
                                peft_error *err);
pf_param *pf_adapterhub_param(const pf_adapter *ad, const char *name);
/* README.md of the folder. */
peft_status pf_adapter_write_card(const pf_adapter *ad, const char *path, peft_error *err);

#endif

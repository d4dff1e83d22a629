/* open_model.h - what stands behind a peft_model, for the files of api/. Graphs are built for the
 * adapter that acts: whoever lets another act forgets them. */
#ifndef PF_OPEN_MODEL_H
#define PF_OPEN_MODEL_H

#include "peft/model.h"
#include "recipes/classify.h"
#include "train/loss_graph.h"

typedef struct pf_named_adapter {
    char *name;
    pf_adapter *adapter;
} pf_named_adapter;

struct peft_model {
    pf_loaded loaded; /* its adapter is the one that acts */
    pf_named_adapter *adapters;
    int n_adapters, cap_adapters;
    int64_t max_length;
    int max_sequences;
    pf_generator *generator; /* made when first asked for */
    pf_loss_graph scores;    /* likewise */
    pf_classifier *classifier;
    int64_t scores_room;
    pf_encoding encoding;
};

/* Takes the adapter over, also when it fails. */
peft_status pf_open_model_add(peft_model *m, const char *name, pf_adapter *ad, peft_error *err);
void pf_open_model_close_adapters(peft_model *m);
void pf_open_model_forget_graphs(peft_model *m);

#endif

/* gemm_onednn.h - products through oneDNN, off by default; see gemm_onednn.c for why. */
#ifndef PF_GEMM_ONEDNN_H
#define PF_GEMM_ONEDNN_H

#include "base/status.h"
#include "ops/matmul/gemm.h"

bool pf_gemm_onednn_wanted(void); /* built in, and PEFT_ONEDNN=1 in the environment */
int64_t pf_gemm_onednn_workspace(int n_workers);
/* Forms NT and NN. */
peft_status pf_gemm_onednn_run(pf_pool *pool, const pf_gemm *g, void *workspace, peft_error *err);

#endif

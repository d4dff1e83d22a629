/* side_job.c - see side_job.h. */
#include "base/side_job.h"

#include "base/arena.h"
#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pf_side_job {
    pthread_t thread;
    bool joined;
    _Atomic bool cancelled;
    pf_side_fn fn;
    void *ctx;
    int niceness;
    peft_status status;
    peft_error err;
};

static void *run(void *arg) {
    pf_side_job *j = arg;
    if (j->niceness > 0) /* of this thread alone */
        (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), j->niceness);
    j->status = j->fn(j->ctx, j, &j->err);
    return NULL;
}

peft_status pf_side_job_start(pf_side_job **out, pf_side_fn fn, void *ctx, int niceness,
                              peft_error *err) {
    *out = NULL;
    pf_side_job *j = pf_calloc(1, sizeof *j);
    PF_CHECK_ALLOC(j, err);
    j->fn = fn;
    j->ctx = ctx;
    j->niceness = niceness;
    sigset_t all, before; /* signals are for the thread that steers */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&j->thread, NULL, run, j);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0) {
        pf_free(j);
        return PF_FAIL(err, PEFT_E_NOMEM, "cannot start a thread: %s", strerror(e));
    }
    *out = j;
    return PEFT_OK;
}

bool pf_side_job_cancelled(const pf_side_job *job) {
    return atomic_load(&job->cancelled);
}

peft_status pf_side_job_wait(pf_side_job *job, peft_error *err) {
    if (!job->joined) pthread_join(job->thread, NULL);
    job->joined = true;
    if (job->status != PEFT_OK && err != NULL) *err = job->err;
    return job->status;
}

void pf_side_job_free(pf_side_job *job) {
    if (job == NULL) return;
    atomic_store(&job->cancelled, true);
    (void)pf_side_job_wait(job, NULL);
    pf_free(job);
}

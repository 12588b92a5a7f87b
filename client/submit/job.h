// SPDX-License-Identifier: Apache-2.0
// One job: the rows of one input file (or of one file for each input) through one model into one
// output file for each output.
#ifndef SONIC_CLIENT_SUBMIT_JOB_H
#define SONIC_CLIENT_SUBMIT_JOB_H

#include <signal.h>

#include "client/sonic.h"
#include "client/submit/options.h"

struct job_files {
    const char *inputs[SONIC_MAX_TENSORS]; // by the model's inputs
    char outputs[SONIC_MAX_TENSORS][4096]; // by the model's outputs
    const char *title;                     // for the report
};

// Runs it. An exit status; for all but 0, 6 and 130 `why` holds the one line to print. `stop` is
// set by a signal: the job then ends in good order and can be resumed. A job that stops early
// closes *s.
int job_run(sonic_t **s, const struct options *o, const sonic_model_t *model,
            const struct job_files *files, const volatile sig_atomic_t *stop, char *why,
            size_t size);

#endif

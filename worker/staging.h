// SPDX-License-Identifier: Apache-2.0
// From a batch of requests to the dense input tensors of an execution. One request, or several
// whose bytes happen to lie one after another in their frame, feed the executor as they are; a
// mixed batch is copied once, into the job's buffers.
#ifndef SONIC_WORKER_STAGING_H
#define SONIC_WORKER_STAGING_H

#include "common/model_config.h"
#include "worker/job.h"

// Fills in j->x (rows, inputs) from j->batch. False: out of memory, words in j->text.
bool staging_fill(struct job *j, const struct model_config *model);

#endif

// SPDX-License-Identifier: Apache-2.0
// From a batch of requests to the dense input tensors of an execution. One request, or several
// whose bytes happen to lie one after another in their frame, feed the executor as they are; a
// mixed batch is copied once, into the job's buffers. A device that has memory of its own kind for
// inputs (executor.h, input_room) gets all of them there, by that one copy.
#ifndef SONIC_WORKER_STAGING_H
#define SONIC_WORKER_STAGING_H

#include "worker/fleet.h"
#include "worker/job.h"

// Fills in j->x (rows, inputs) from j->batch, for an execution on `slot`, whose thread this is.
// False: out of memory, words in j->text.
bool staging_fill(struct job *j, const struct executor *executor, const struct loaded_model *model,
                  uint32_t slot);

#endif

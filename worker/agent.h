// SPDX-License-Identifier: Apache-2.0
// The worker's main loop: one DEALER to the broker, the finished executions, the signals, a timer.
// Receives leases and stages them, answers what is finished, beats, joins again when it must.
#ifndef SONIC_WORKER_AGENT_H
#define SONIC_WORKER_AGENT_H

#include "worker/fleet.h"
#include "worker/options.h"

// Runs until it is asked to stop, or the device is lost. Returns an exit status, with words in
// `why` when it is not 0.
int agent_run(const struct worker_options *options, const struct fleet *fleet, char *why,
              size_t size);

#endif

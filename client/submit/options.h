// SPDX-License-Identifier: Apache-2.0
// sonic-submit's command line.
#ifndef SONIC_CLIENT_SUBMIT_OPTIONS_H
#define SONIC_CLIENT_SUBMIT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/submit/plan.h"

enum command { COMMAND_JOB, COMMAND_MODELS, COMMAND_STATUS, COMMAND_PLACEMENT };

// A file, with the tensor it is for when it was given as NAME=FILE ("" otherwise).
struct file_option {
    char tensor[65];
    const char *path;
};

struct options {
    enum command command;
    const char *model, *endpoint, *tenant;
    uint32_t version;
    struct file_option *inputs, *outputs;
    size_t ninputs, noutputs;
    uint32_t batch;  // 0: the model's default
    uint32_t window; // 0: the library's default
    uint32_t priority;
    uint64_t deadline_us;
    uint64_t timeout_ms; // 0: never give up
    struct shard shard;
    bool json, quiet, resume, restart, force;
};

// Parses. True: go on; otherwise *exit_status is what to end with (help and version were printed;
// for an error `why` says what is wrong).
bool options_parse(int argc, char **argv, struct options *o, int *exit_status, char *why,
                   size_t size);
void options_deinit(struct options *o);

#endif

// SPDX-License-Identifier: Apache-2.0
// sonic-worker's command line.
#ifndef SONIC_WORKER_OPTIONS_H
#define SONIC_WORKER_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

struct worker_options {
    const char *broker, *device, *models;
    const char *names[SONIC_MODELS_MAX]; // --model
    size_t nnames;
    char name[SONIC_NAME_MAX + 1];
    const char *redis_url, *farm;
    uint32_t room_requests;
    uint64_t room_bytes;
};

// 0: go on. -1: leave with *status (0 after --help); for a bad one, words are in `why`.
// Points into argv.
int options_parse(int argc, char **argv, struct worker_options *o, int *status, char *why,
                  size_t size);

#endif

// SPDX-License-Identifier: Apache-2.0
#ifndef SONIC_DEPLOY_FARM_OPTIONS_H
#define SONIC_DEPLOY_FARM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#define FARM_DEVICES_MAX 16

struct farm_options {
    char dir[96]; // a unix socket's path has 107 characters, and it is in here
    char models[4096];
    const char *devices[FARM_DEVICES_MAX];
    size_t ndevices;
    const char *listen, *memory, *redis, *log, *farm;
    bool insecure;
    char **command; // --exec: what to run when the farm is ready, NULL-terminated
};

// Parses. True: go on; otherwise *exit_status is what to end with.
bool farm_options_parse(int argc, char **argv, struct farm_options *o, int *exit_status, char *why,
                        size_t size);
// The path of a sibling program: $SONIC_BINDIR, next to this one, in the build folder, else by
// PATH.
void farm_program(char *buf, size_t size, const char *name, const char *build_folder);

#endif

// SPDX-License-Identifier: Apache-2.0
// Exit statuses of every program of the farm, the same everywhere (man pages list them).
#ifndef SONIC_COMMON_EXITCODE_H
#define SONIC_COMMON_EXITCODE_H

enum exitcode {
    EXIT_OK = 0,
    EXIT_INTERNAL = 1,     // a fault of ours
    EXIT_USAGE = 2,        // options that make no sense
    EXIT_BAD_INPUT = 3,    // an input file or configuration that cannot be used
    EXIT_NOT_REACHED = 4,  // no broker there, or lost for too long
    EXIT_MODEL = 5,        // unknown or unusable model, or a device error
    EXIT_JOB_FAILED = 6,   // the job ended, some requests failed
    EXIT_OUTPUT = 7,       // output not writable, or the disk is full
    EXIT_REFUSED = 8,      // the broker refused this client for good (protocol version)
    EXIT_INTERRUPTED = 130 // stopped by the user
};

#endif

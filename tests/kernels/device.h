// SPDX-License-Identifier: Apache-2.0
// One OpenCL device with the overlay's program, and launches whose buffers have canaries on both
// sides.
#ifndef SONIC_TESTS_KERNELS_DEVICE_H
#define SONIC_TESTS_KERNELS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;

enum arg_kind { ARG_IN, ARG_OUT, ARG_INT, ARG_FLOAT };

struct arg {
    enum arg_kind kind;
    union {
        const void *in;
        void *out;
        int32_t integer;
        float real;
    } is;
    size_t bytes; // of IN and OUT
};

#define IN(p, n) ((struct arg){.kind = ARG_IN, .is.in = (p), .bytes = (n)})
#define OUT(p, n) ((struct arg){.kind = ARG_OUT, .is.out = (p), .bytes = (n)})
#define INT(x) ((struct arg){.kind = ARG_INT, .is.integer = (x)})
#define FLOAT(x) ((struct arg){.kind = ARG_FLOAT, .is.real = (x)})

// The first device of the first platform whose name has `platform` in it, with the program built
// of all `sources` (NULL ends them), or NULL with the reason in words; *absent: there is no such
// platform. `exact`: buffers without canaries, so that Oclgrind sees what leaves them.
struct device *device_open(const char *platform, char **sources, const char *options, bool exact,
                           bool *absent, char *why, size_t size);
void device_close(struct device *d);
const char *device_name(const struct device *d);

// Launches a kernel and waits. OUT buffers begin as their host bytes and come back in them. False
// with the reason in words: an OpenCL error, or a canary or an input that was written.
bool device_launch(struct device *d, const char *kernel, const struct arg *args, uint32_t nargs,
                   size_t groups, char *why, size_t size);
// The seconds of the quickest of `repeats` launches, without transfers; negative on failure.
double device_time(struct device *d, const char *kernel, const struct arg *args, uint32_t nargs,
                   size_t groups, int repeats);

#endif

// SPDX-License-Identifier: Apache-2.0
// One output file in the making: a hidden part file beside it that results are written into at
// their offset, in any order, and that takes the final name only when it is whole.
#ifndef SONIC_CLIENT_SUBMIT_SINK_H
#define SONIC_CLIENT_SUBMIT_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

struct sink {
    char path[4096]; // final name, "-" for standard output
    char part[4200];
    int fd;
    bool continued; // an interrupted job's bytes were there when it was opened
    size_t data_at;
    uint64_t row_bytes, bytes;
};

// ".NAME" + suffix beside `path`.
void sink_hidden(char *out, size_t size, const char *path, const char *suffix);
// Opens the part file and locks it against a second job; nothing in it is changed unless `restart`.
// 0, or a negative errno with words (-EEXIST: an interrupted job's part is there and neither resume
// nor restart was asked; -EWOULDBLOCK: another job is at it).
int sink_open(struct sink *s, const char *path, bool resume, bool restart, char *why, size_t size);
// Writes the header and reserves the space for rows of this shape. 0, or a negative errno with
// words (-ENOSPC: how much is missing).
int sink_prepare(struct sink *s, unsigned dtype, unsigned ndim, const uint64_t *shape, char *why,
                 size_t size);
// Writes rows at their place. 0 or a negative errno.
int sink_write(struct sink *s, uint64_t row, const void *data, size_t bytes);
int sink_sync(struct sink *s);
// Gives the file its name (or copies it to standard output). 0, or a negative errno with words.
int sink_finish(struct sink *s, char *why, size_t size);
// Closes; `remove`: the part goes, too.
void sink_close(struct sink *s, bool remove);

#endif

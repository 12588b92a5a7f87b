// SPDX-License-Identifier: Apache-2.0
// The device process from the worker's side: it is started, asked, watched, ended when it does not
// answer, and started again.
#ifndef SONIC_WORKER_DEVICE_CHILD_H
#define SONIC_WORKER_DEVICE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/model_repository.h"
#include "worker/device/pipe.h"

struct child;

struct child_kind {
    const char *program; // its file's name; it lies beside this program
    const char *absent;  // why it may not be there, in words
};

struct device_usage;

enum child_outcome {
    CHILD_FAULT, // it was ended and started again; what ran on it is to be tried anew
    CHILD_LOST,  // it failed too often, or does not start any more
};

// Starts the program with `words` (ends with NULL; three at most) and the number of slots. NULL
// with words; *rc says which kind of error. `kind` must outlive the child.
struct child *child_start(const struct child_kind *kind, const char *const *words, uint32_t slots,
                          int *rc, char *why, size_t size);
void child_end(struct child *c);
const char *child_name(const struct child *c); // of the device
uint64_t child_memory_bytes(const struct child *c);

// Loads a model, now and each time the process is started again, as this model number; `memory` is
// the descriptor of the shared memory and stays the caller's, as long as the child is. 0 with the
// process's answer, or an errno. Not while anything runs.
int child_load(struct child *c, uint32_t model, const struct model_entry *entry, int memory,
               struct pipe_ready *ready, char *why, size_t size);
// Sums of what the runs said, over all processes.
void child_usage(struct child *c, struct device_usage *usage);
// One thread a slot holds the process while its rows are in the shared memory, before the run and
// after it: a process that is started anew writes there. Returns which process it is.
uint64_t child_hold(struct child *c);
void child_release(struct child *c);
// Runs rows on a slot and waits, as long as `limit_ms`; it is held. True: done->outcome is PIPE_OK
// or PIPE_REFUSED. False: release it, then child_fault with the same `done`.
bool child_run(struct child *c, uint32_t slot, const struct pipe_run *run, int limit_ms,
               struct pipe_done *done);
// Ends the process of that number and starts another, where nobody has. Words in done->text.
enum child_outcome child_fault(struct child *c, uint64_t generation, struct pipe_done *done);

#endif

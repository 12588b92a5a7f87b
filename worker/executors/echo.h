// SPDX-License-Identifier: Apache-2.0
// What the simulated devices have in common: outputs are the inputs, by position, not copied.
#ifndef SONIC_WORKER_EXECUTORS_ECHO_H
#define SONIC_WORKER_EXECUTORS_ECHO_H

#include "worker/executor.h"

// 0, or -EINVAL with words when the model's outputs are not declared like its inputs.
int echo_check(const struct model_entry *entry, char *why, size_t size);
void echo_execute(struct execution *x);
// Up to `max` numbers "N,N,..." (each < 2^32) of a device's argument; those not given stay. The
// number read, or -EINVAL with words.
int echo_numbers(const char *argument, uint32_t *numbers, int max, char *why, size_t size);

#endif

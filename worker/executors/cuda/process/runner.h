// SPDX-License-Identifier: Apache-2.0
// A thread that does what others ask of it, one thing after another: for libraries that keep by
// thread what should serve all.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_RUNNER_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_RUNNER_H

#include <pthread.h>

struct runner {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    void (*work)(void *user); // NULL: there is nothing to do
    void *user;
};

// Starts the thread, which lives as long as the process. 0, or a positive errno.
int runner_start(struct runner *r);
// Has the thread call `work` and waits until it has. One caller at a time.
void runner_call(struct runner *r, void (*work)(void *user), void *user);

#endif

// SPDX-License-Identifier: Apache-2.0
// What the load generators share: K client processes that report one line of figures each through a
// pipe, and the sum of them as JSON.
#ifndef SONIC_TESTS_BENCH_CLIENTS_H
#define SONIC_TESTS_BENCH_CLIENTS_H

#include <stdint.h>

struct client_figures {
    uint64_t answers, failed;
    double seconds;
    uint32_t p50_us, p99_us;
};

// What one client does; runs in a process of its own. Fills in its figures; 0 when it went well.
typedef int (*client_fn)(unsigned index, void *user, struct client_figures *f);

// Runs K of them and prints {"requests_per_s": ..., "p50_us": ..., ...}. 0 when all went well.
int clients_run(unsigned k, client_fn run, void *user);

// Latencies of a client: a reservoir that keeps every one up to a million.
void latency_add(uint32_t us);
void latency_percentiles(struct client_figures *f);

#endif

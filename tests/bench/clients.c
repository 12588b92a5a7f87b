// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/clients.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define LATENCIES_MAX (1u << 20)

static uint32_t latencies[LATENCIES_MAX];
static uint64_t nlatencies;

void latency_add(uint32_t us)
{
    latencies[nlatencies++ % LATENCIES_MAX] = us;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void latency_percentiles(struct client_figures *f)
{
    size_t n = nlatencies < LATENCIES_MAX ? (size_t)nlatencies : LATENCIES_MAX;
    if (n == 0)
        return;
    qsort(latencies, n, sizeof(latencies[0]), by_value);
    f->p50_us = latencies[n / 2];
    f->p99_us = latencies[n - 1 - n / 100];
}

int clients_run(unsigned k, client_fn run, void *user)
{
    int fds[2], rc = 0;
    struct client_figures sum = {0}, one;
    double rate = 0, p50 = 0, p99 = 0;
    if (pipe(fds) != 0)
        return 1;
    for (unsigned i = 0; i < k; i++) {
        if (fork() == 0) {
            struct client_figures f = {0};
            int failed = run(i, user, &f);
            failed |= write(fds[1], &f, sizeof(f)) != sizeof(f);
            _exit(failed);
        }
    }
    close(fds[1]);
    while (read(fds[0], &one, sizeof(one)) == sizeof(one)) {
        sum.answers += one.answers;
        sum.failed += one.failed;
        rate += one.seconds > 0 ? (double)one.answers / one.seconds : 0;
        p50 += one.p50_us;
        p99 = one.p99_us > p99 ? one.p99_us : p99;
    }
    for (unsigned i = 0; i < k; i++) {
        int status;
        wait(&status);
        rc |= status != 0;
    }
    printf("{\"requests_per_s\": %.1f, \"answers\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           rate, sum.answers, sum.failed, p50 / k, p99);
    return rc;
}

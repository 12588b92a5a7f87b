// SPDX-License-Identifier: Apache-2.0
// The figures of a job, gathered a result at a time, and what is said of them at the end.
#ifndef SONIC_CLIENT_SUBMIT_REPORT_H
#define SONIC_CLIENT_SUBMIT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/sonic.h"

#define REPORT_EXAMPLES 10

struct report {
    uint64_t items, failed_items; // rows answered OK in this run; rows whose request failed
    uint64_t requests, retried, input_bytes, output_bytes;
    uint64_t resumed_items; // rows that an earlier run had finished
    uint64_t by_status[32];
    double executions; // shares of executions: a request's rows / its execution's rows
    uint32_t *latency_us;
    size_t nlatencies, latencies_size;
    uint64_t start_us, end_us;
    size_t nexamples;
    char examples[REPORT_EXAMPLES][768];
};

void report_open(struct report *r, uint64_t now_us);
void report_result(struct report *r, const sonic_result_t *result, uint64_t first_row,
                   uint32_t rows, uint64_t bytes_in);
// One line for people on standard error, and those that failed with their reasons. `outputs` are
// NULL when they are not written.
void report_print(struct report *r, const char *model, const char (*outputs)[4096], unsigned n);
// One JSON line on standard output.
void report_json(struct report *r, const char *model, const char (*outputs)[4096], unsigned n,
                 const char *state);
void report_deinit(struct report *r);

#endif

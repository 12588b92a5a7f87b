// SPDX-License-Identifier: Apache-2.0
// How far a job is: a bar with rate and ETA on a terminal, a plain line every few seconds
// elsewhere.
#ifndef SONIC_CLIENT_SUBMIT_PROGRESS_H
#define SONIC_CLIENT_SUBMIT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *name;
    uint64_t total, begun_with; // rows; begun_with: done before this run
    uint64_t start_us, shown_us, shown_rows;
    double rate; // rows per second, smoothed
    bool terminal, quiet, open;
};

void progress_open(struct progress *p, const char *name, uint64_t total, uint64_t done,
                   uint64_t now_us, bool quiet);
// Shows the state when it is time to.
void progress_show(struct progress *p, uint64_t done, uint64_t now_us);
// Ends the bar's line, so that what follows begins on a line of its own.
void progress_close(struct progress *p, uint64_t done, uint64_t now_us);
// "1.23 M", "45.6 k", "789".
void progress_count(char *buf, unsigned size, double n);

#endif

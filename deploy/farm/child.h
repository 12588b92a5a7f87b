// SPDX-License-Identifier: Apache-2.0
// A process of the farm: started with its output in a log file, started again with back-off when it
// dies, ended in good order. It dies with its parent, whatever happens to that.
#ifndef SONIC_DEPLOY_FARM_CHILD_H
#define SONIC_DEPLOY_FARM_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CHILD_ARGS_MAX 40

struct child {
    char name[80];
    char log[192];                    // path; empty: the farm's own output
    const char *argv[CHILD_ARGS_MAX]; // NULL at the end; strings outlive the child
    pid_t pid;                        // 0: not running
    int status;                       // of waitpid, when it has ended
    unsigned deaths;                  // in a row
    uint64_t started_us, again_us;    // when it is started again
};

// Starts it. False with errno when it cannot even be forked.
bool child_start(struct child *c, uint64_t now_us);
// Takes note of its end; returns how it ended in words ("exit status 5", "killed by signal 9").
const char *child_ended(struct child *c, int status, uint64_t now_us);
// Ends it: SIGTERM, after grace_ms SIGKILL. Returns when it is gone.
void child_stop(struct child *c, unsigned grace_ms);
// Prints the last lines of its log to standard error.
void child_print_log(const struct child *c);

#endif

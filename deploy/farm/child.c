// SPDX-License-Identifier: Apache-2.0
#include "deploy/farm/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BACKOFF_US 200000u
#define BACKOFF_MOST_US 10000000u
// A child that lived so long has proved that it can: its back-off begins anew.
#define STEADY_US 30000000u
#define LOG_TAIL 2000

// In the child, between fork and exec.
static void become(const struct child *c, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    // A farm that is killed takes its children along. It may be gone already.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    if (c->log[0]) {
        int in = open("/dev/null", O_RDONLY);
        int out = open(c->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (in >= 0)
            dup2(in, STDIN_FILENO);
        if (out >= 0) {
            dup2(out, STDOUT_FILENO);
            dup2(out, STDERR_FILENO);
        }
        // A Ctrl-C on the terminal is for the farm, which ends its children in order.
        setpgid(0, 0);
    }
    execvp(c->argv[0], (char *const *)c->argv);
    fprintf(stderr, "%s: cannot be started: %s\n", c->argv[0], strerror(errno));
    _exit(127);
}

bool child_start(struct child *c, uint64_t now_us)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return false;
    if (pid == 0)
        become(c, parent);
    c->pid = pid;
    c->started_us = now_us;
    return true;
}

const char *child_ended(struct child *c, int status, uint64_t now_us)
{
    static char how[64];
    if (WIFSIGNALED(status))
        snprintf(how, sizeof(how), "killed by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof(how), "exit status %d", WEXITSTATUS(status));
    c->pid = 0;
    c->status = status;
    c->deaths = now_us - c->started_us > STEADY_US ? 1 : c->deaths + 1;
    uint64_t wait_us = (uint64_t)BACKOFF_US << (c->deaths < 8 ? c->deaths - 1 : 7);
    c->again_us = now_us + (wait_us < BACKOFF_MOST_US ? wait_us : BACKOFF_MOST_US);
    return how;
}

void child_stop(struct child *c, unsigned grace_ms)
{
    struct timespec nap = {.tv_nsec = 10000000};
    if (c->pid == 0)
        return;
    kill(c->pid, SIGTERM);
    for (unsigned ms = 0; ms < grace_ms; ms += 10) {
        if (waitpid(c->pid, &c->status, WNOHANG) == c->pid) {
            c->pid = 0;
            return;
        }
        nanosleep(&nap, NULL);
    }
    kill(c->pid, SIGKILL);
    waitpid(c->pid, &c->status, 0);
    c->pid = 0;
}

void child_print_log(const struct child *c)
{
    char tail[LOG_TAIL + 1];
    FILE *log = c->log[0] ? fopen(c->log, "r") : NULL;
    if (!log)
        return;
    if (fseek(log, -LOG_TAIL, SEEK_END) != 0)
        rewind(log);
    size_t n = fread(tail, 1, LOG_TAIL, log);
    fclose(log);
    tail[n] = '\0';
    fprintf(stderr, "--- the end of %s\n%s", c->log, tail);
}

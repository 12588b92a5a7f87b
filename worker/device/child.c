// SPDX-License-Identifier: Apache-2.0
#include "worker/device/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "worker/executor.h"

#define WORDS_MAX 3u // before the number of slots
// Opening a device and building a program take seconds; a reconfiguration of a board more.
#define START_MS 120000
#define LOAD_MS 600000
// So many faults in so long are no accident any more.
#define FAULTS_MAX 5u
#define FAULTS_WITHIN_US 600000000u
// What sensors said is no news after so long: the driver hangs, or the process.
#define SENSED_WITHIN_US 5000000u
// Sockets beside the slots'.
#define OTHERS ((uint32_t)(PIPE_SLOT - PIPE_CONTROL))

struct loaded {
    struct pipe_load load;
    int memory;
};

struct child {
    const struct child_kind *kind;
    char program[4096], words[WORDS_MAX][128], name[128], slots_text[16];
    uint32_t nwords;
    uint32_t slots, nloaded;
    uint64_t memory_bytes;
    // Whoever runs something holds it shared; whoever starts the process again, alone.
    pthread_rwlock_t life;
    uint64_t generation; // of the process; changed under `lock` too
    int control, sensors_fd, fds[PIPE_SLOTS_MAX];
    bool lost;
    uint64_t faults_us[FAULTS_MAX]; // the last ones, a ring
    pthread_mutex_t lock;           // of what is below
    uint32_t nfaults;
    pid_t pid;
    bool ended; // killed; the rest follows under `life`
    uint64_t write_ns, kernel_ns, read_ns, idle_ns;
    struct device_sensors sensors;
    uint64_t sensed_us;
    char reason[PIPE_TEXT];
    struct loaded loaded[]; // of PIPE_MODELS_MAX
};

// ---- the process --------------------------------------------------------------------------------

// Beside this program.
static bool find_program(const char *name, char *path, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", path, size - strlen(name) - 2);
    if (n <= 0)
        return false;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    strcpy(slash + 1, name);
    return access(path, X_OK) == 0;
}

// In the new process, between fork and exec, where only system calls are safe: the sockets to their
// places, by way of numbers above all of them.
static void become_device(const struct child *c, const int *theirs, char *const *args)
{
    int high[PIPE_SLOTS_MAX + OTHERS];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t i = 0; i < c->slots + OTHERS; i++)
        high[i] = fcntl(theirs[i], F_DUPFD_CLOEXEC, 256);
    for (uint32_t i = 0; i < c->slots + OTHERS; i++)
        if (high[i] < 0 || dup2(high[i], PIPE_CONTROL + (int)i) < 0)
            _exit(127);
    execv(c->program, args);
    _exit(127);
}

static void close_all(int *fds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

// The pairs' first ends are ours: control, sensors, then slots.
static bool make_pairs(uint32_t n, int *ours, int *theirs)
{
    for (uint32_t i = 0; i < n; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
            close_all(ours, i);
            close_all(theirs, i);
            return false;
        }
        ours[i] = pair[0];
        theirs[i] = pair[1];
    }
    return true;
}

// Waits for a packet of this size. False: none in time, or the process is gone.
static bool receive(int fd, void *packet, size_t size, int limit_ms)
{
    uint64_t until_us = clock_now_us() + (uint64_t)limit_ms * 1000, now_us;
    struct pollfd p = {fd, POLLIN, 0};
    int rc = -1;
    while ((now_us = clock_now_us()) < until_us &&
           (rc = poll(&p, 1, (int)((until_us - now_us + 999) / 1000))) < 0 && errno == EINTR)
        ;
    return rc > 0 && recv(fd, packet, size, MSG_DONTWAIT) == (ssize_t)size;
}

static int spawn(struct child *c, char *why, size_t size)
{
    int ours[PIPE_SLOTS_MAX + OTHERS], theirs[PIPE_SLOTS_MAX + OTHERS];
    char *args[WORDS_MAX + 3] = {c->program};
    struct pipe_ready ready;
    for (uint32_t i = 0; i < c->nwords; i++)
        args[1 + i] = c->words[i];
    args[1 + c->nwords] = c->slots_text;
    if (!make_pairs(c->slots + OTHERS, ours, theirs)) {
        snprintf(why, size, "cannot open sockets: %s", strerror(errno));
        return -EMFILE;
    }
    pid_t pid = fork();
    if (pid == 0)
        become_device(c, theirs, args);
    close_all(theirs, c->slots + OTHERS);
    c->control = ours[0];
    c->sensors_fd = ours[PIPE_SENSORS - PIPE_CONTROL];
    memcpy(c->fds, ours + OTHERS, c->slots * sizeof(int));
    pthread_mutex_lock(&c->lock);
    c->pid = pid;
    c->ended = false;
    pthread_mutex_unlock(&c->lock);
    if (pid < 0 || !receive(c->control, &ready, sizeof(ready), START_MS)) {
        snprintf(why, size, "the device process %s",
                 pid < 0 ? "cannot be started"
                         : "ended while it opened the device, or hangs there");
        return -EIO;
    }
    snprintf(c->name, sizeof(c->name), "%s", ready.name);
    c->memory_bytes = ready.memory_bytes;
    if (ready.status != 0)
        snprintf(why, size, "%s", ready.text);
    return ready.status;
}

// Whether the process has ended by itself. Its sockets close a little before that can be seen.
static bool has_ended(pid_t pid, int *status)
{
    for (int i = 0; i < 100; i++) {
        if (waitpid(pid, status, WNOHANG) == pid)
            return true;
        usleep(5000);
    }
    return false;
}

// Ends the process for good; `how` (may be NULL) says in words how it had ended.
static void reap(struct child *c, char *how, size_t size)
{
    int status = 0;
    pthread_mutex_lock(&c->lock);
    bool killed = c->ended;
    pid_t pid = c->pid;
    c->pid = -1;
    if (pid > 0 && (killed || !how || !has_ended(pid, &status))) {
        kill(pid, SIGKILL);
        killed = true;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&c->lock);
    if (how && pid > 0 && !killed && WIFSIGNALED(status))
        snprintf(how, size, "it died of signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else if (how && pid > 0 && !killed)
        snprintf(how, size, "it left with status %d", WEXITSTATUS(status));
    close_all(&c->control, 1);
    close_all(&c->sensors_fd, 1);
    close_all(c->fds, c->slots);
    c->control = c->sensors_fd = -1;
    memset(c->fds, 0xff, sizeof(c->fds));
}

// ---- loading ------------------------------------------------------------------------------------

static bool send_load(const struct child *c, const struct loaded *l)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec io = {(void *)(uintptr_t)&l->load, sizeof(l->load)};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control.room)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &l->memory, sizeof(int));
    return sendmsg(c->control, &m, MSG_NOSIGNAL) == (ssize_t)sizeof(l->load);
}

static int load_now(struct child *c, const struct loaded *l, struct pipe_ready *ready, char *why,
                    size_t size)
{
    if (!send_load(c, l) || !receive(c->control, ready, sizeof(*ready), LOAD_MS)) {
        char how[128] = "it does not answer";
        reap(c, how, sizeof(how));
        snprintf(why, size, "%s: the device process failed while it loaded %s: %s", c->name,
                 l->load.version_dir, how);
        return -EIO;
    }
    if (ready->status != 0)
        snprintf(why, size, "%s", ready->text);
    return ready->status;
}

// Starts the process anew with all that was loaded.
static int start_again(struct child *c, char *why, size_t size)
{
    struct pipe_ready ready;
    int rc = spawn(c, why, size);
    for (uint32_t i = 0; i < c->nloaded && rc == 0; i++)
        rc = load_now(c, &c->loaded[i], &ready, why, size);
    return rc;
}

int child_load(struct child *c, uint32_t model, const struct model_entry *entry, int memory,
               struct pipe_ready *ready, char *why, size_t size)
{
    struct loaded *l = &c->loaded[c->nloaded];
    char again[PIPE_TEXT];
    if (c->nloaded == PIPE_MODELS_MAX) {
        snprintf(why, size, "more than %u models on one device", PIPE_MODELS_MAX);
        return -ENOSPC;
    }
    l->load.model = model;
    l->load.config = entry->config;
    snprintf(l->load.version_dir, sizeof(l->load.version_dir), "%s", entry->dir);
    l->memory = memory;
    int rc = load_now(c, l, ready, why, size);
    if (rc == 0) {
        c->nloaded++;
        return 0;
    }
    // What a failed load has left on the device goes with the process.
    reap(c, NULL, 0);
    if (start_again(c, again, sizeof(again)) != 0)
        log_error("device_not_started", "why=\"%s\"", again);
    return rc;
}

// ---- faults -------------------------------------------------------------------------------------

static bool too_often(struct child *c, uint64_t now_us)
{
    pthread_mutex_lock(&c->lock);
    c->faults_us[c->nfaults++ % FAULTS_MAX] = now_us;
    uint32_t n = c->nfaults;
    pthread_mutex_unlock(&c->lock);
    uint64_t oldest_us = c->faults_us[n % FAULTS_MAX]; // of those in the ring
    return n >= FAULTS_MAX && now_us - oldest_us < FAULTS_WITHIN_US;
}

// With `life` held alone.
static void recover(struct child *c)
{
    char how[128] = "it was ended", why[PIPE_TEXT];
    reap(c, how, sizeof(how));
    pthread_mutex_lock(&c->lock);
    c->generation++; // before the next process is there: whoever comes late must not end that one
    pthread_mutex_unlock(&c->lock);
    if (!c->reason[0])
        snprintf(c->reason, sizeof(c->reason), "%s: the device process is gone: %s", c->name, how);
    log_warn("device_fault", "why=\"%s\"", c->reason);
    c->lost = too_often(c, clock_now_us());
    if (c->lost) {
        char last[PIPE_TEXT];
        snprintf(last, sizeof(last), "%.400s (%u faults in ten minutes)", c->reason, FAULTS_MAX);
        memcpy(c->reason, last, sizeof(last));
    } else if (start_again(c, why, sizeof(why)) != 0) {
        c->lost = true;
        snprintf(c->reason, sizeof(c->reason), "%s", why);
    } else {
        c->reason[0] = '\0';
    }
}

enum child_outcome child_fault(struct child *c, uint64_t generation, struct pipe_done *done)
{
    pthread_mutex_lock(&c->lock);
    // Without words it has gone by itself.
    if (c->pid > 0 && !c->ended && c->generation == generation && done->text[0]) {
        c->ended = true;
        snprintf(c->reason, sizeof(c->reason), "%s", done->text);
        kill(c->pid, SIGKILL); // all slots' sockets close: nobody waits any more
    }
    pthread_mutex_unlock(&c->lock);
    pthread_rwlock_wrlock(&c->life);
    if (c->generation == generation && !c->lost)
        recover(c);
    bool lost = c->lost;
    if (lost)
        snprintf(done->text, sizeof(done->text), "%s", c->reason);
    pthread_rwlock_unlock(&c->life);
    return lost ? CHILD_LOST : CHILD_FAULT;
}

// ---- running ------------------------------------------------------------------------------------

static void account(struct child *c, const struct pipe_done *done)
{
    pthread_mutex_lock(&c->lock);
    c->write_ns += done->write_ns;
    c->kernel_ns += done->kernel_ns;
    c->read_ns += done->read_ns;
    c->idle_ns += done->idle_ns;
    pthread_mutex_unlock(&c->lock);
}

// The newest of what has come. Not while the process is started again, which takes long.
static void take_sensors(struct child *c)
{
    struct device_sensors s;
    if (pthread_rwlock_tryrdlock(&c->life) != 0)
        return;
    while (c->sensors_fd >= 0 &&
           recv(c->sensors_fd, &s, sizeof(s), MSG_DONTWAIT) == (ssize_t)sizeof(s)) {
        c->sensors = s;
        c->sensed_us = clock_now_us();
    }
    pthread_rwlock_unlock(&c->life);
}

void child_usage(struct child *c, struct device_usage *usage)
{
    pthread_mutex_lock(&c->lock);
    take_sensors(c);
    if (clock_now_us() - c->sensed_us > SENSED_WITHIN_US)
        c->sensors.known = 0;
    *usage = (struct device_usage){.write_us = c->write_ns / 1000,
                                   .kernel_us = c->kernel_ns / 1000,
                                   .read_us = c->read_ns / 1000,
                                   .idle_us = c->idle_ns / 1000,
                                   .faults = c->nfaults,
                                   .sensors = c->sensors};
    pthread_mutex_unlock(&c->lock);
}

uint64_t child_hold(struct child *c)
{
    pthread_rwlock_rdlock(&c->life);
    return c->generation;
}

void child_release(struct child *c)
{
    pthread_rwlock_unlock(&c->life);
}

bool child_run(struct child *c, uint32_t slot, const struct pipe_run *run, int limit_ms,
               struct pipe_done *done)
{
    memset(done, 0, sizeof(*done));
    if (c->lost)
        return false;
    uint64_t start_us = clock_now_us();
    bool answered = send(c->fds[slot], run, sizeof(*run), MSG_NOSIGNAL) == sizeof(*run) &&
                    receive(c->fds[slot], done, sizeof(*done), limit_ms);
    uint64_t took_us = clock_now_us() - start_us;
    if (answered && done->outcome != PIPE_FAILED) {
        account(c, done);
        return true;
    }
    if (!answered && took_us / 1000 >= (uint64_t)limit_ms)
        snprintf(done->text, sizeof(done->text),
                 "%s: a run has not ended after %d ms (sonic_device_timeout_ms in config.pbtxt)",
                 c->name, limit_ms);
    return false;
}

// ---- life ---------------------------------------------------------------------------------------

struct child *child_start(const struct child_kind *kind, const char *const *words, uint32_t slots,
                          int *rc, char *why, size_t size)
{
    struct child *c = calloc(1, sizeof(*c) + PIPE_MODELS_MAX * sizeof(c->loaded[0]));
    *rc = -ENOMEM;
    if (!c) {
        snprintf(why, size, "out of memory");
        return NULL;
    }
    c->control = c->sensors_fd = -1;
    memset(c->fds, 0xff, sizeof(c->fds));
    pthread_mutex_init(&c->lock, NULL);
    pthread_rwlock_init(&c->life, NULL);
    c->kind = kind;
    for (; c->nwords < WORDS_MAX && words[c->nwords]; c->nwords++)
        snprintf(c->words[c->nwords], sizeof(c->words[0]), "%s", words[c->nwords]);
    snprintf(c->slots_text, sizeof(c->slots_text), "%u", slots);
    c->slots = slots;
    if (find_program(kind->program, c->program, sizeof(c->program))) {
        *rc = spawn(c, why, size);
    } else {
        *rc = -ENOENT;
        snprintf(why, size, "%s is not beside this program: %s", kind->program, kind->absent);
    }
    if (*rc == 0)
        return c;
    child_end(c);
    return NULL;
}

void child_end(struct child *c)
{
    if (!c)
        return;
    reap(c, NULL, 0);
    pthread_rwlock_destroy(&c->life);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

const char *child_name(const struct child *c)
{
    return c->name;
}

uint64_t child_memory_bytes(const struct child *c)
{
    return c->memory_bytes;
}

// SPDX-License-Identifier: Apache-2.0
// sonic-farm: one command for one machine. Starts Redis, broker and workers in order, waits until
// they serve, starts again what dies, and ends all in the opposite order.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/endpoints.h"
#include "common/exitcode.h"
#include "deploy/farm/child.h"
#include "deploy/farm/options.h"

#define START_US 180000000u // models may take long to load
#define PROBE_US 200000u
#define CHILDREN_MAX (2 + FARM_DEVICES_MAX)

struct farm_run {
    struct farm_options o;
    struct child children[CHILDREN_MAX]; // in the order in which they are started
    size_t n;
    struct child command; // --exec
    int signals, lock;
    bool stopping;
    char client[128], worker[128], redis_socket[108], redis_url[128];
    char broker_path[4400], worker_path[4400], submit_path[4400];
    char names[FARM_DEVICES_MAX][64];
};

static int fail(const char *text, const char *detail)
{
    fprintf(stderr, "sonic-farm: %s%s%s\n", text, detail[0] ? ": " : "", detail);
    return EXIT_MODEL;
}

// ---- the run folder -----------------------------------------------------------------------------

static int open_dir(struct farm_run *f)
{
    char path[128];
    struct stat st;
    if (mkdir(f->o.dir, 0700) != 0 && errno != EEXIST) {
        fprintf(stderr, "sonic-farm: %s: cannot be made: %s\n", f->o.dir, strerror(errno));
        return EXIT_OUTPUT;
    }
    // Whoever can write there could answer in the farm's name.
    if (lstat(f->o.dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != getuid() ||
        (st.st_mode & 022)) {
        fprintf(stderr,
                "sonic-farm: %s: must be a folder of yours that nobody else can write to; "
                "name another with --dir\n",
                f->o.dir);
        return EXIT_USAGE;
    }
    snprintf(path, sizeof(path), "%s/farm.lock", f->o.dir);
    f->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->lock < 0 || flock(f->lock, LOCK_EX | LOCK_NB) != 0) {
        fprintf(stderr, "sonic-farm: %s: %s\n", f->o.dir,
                f->lock < 0 ? strerror(errno)
                            : "a farm is running here already; name another folder with --dir");
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

// ---- the children -------------------------------------------------------------------------------

static struct child *add_child(struct farm_run *f, const char *name)
{
    struct child *c = &f->children[f->n++];
    memset(c, 0, sizeof(*c));
    snprintf(c->name, sizeof(c->name), "%s", name);
    char log[sizeof(c->log)];
    snprintf(log, sizeof(log), "%s/%s.log", f->o.dir, name);
    memcpy(c->log, log, sizeof(log));
    unlink(c->log);
    return c;
}

static void add_args(struct child *c, size_t n, const char *const *args)
{
    size_t at = 0;
    while (c->argv[at])
        at++;
    for (size_t i = 0; i < n && at + 1 < CHILD_ARGS_MAX; i++)
        c->argv[at++] = args[i];
    c->argv[at] = NULL;
}

#define ADD_ARGS(c, ...)                                                                           \
    do {                                                                                           \
        const char *const args[] = {__VA_ARGS__};                                                  \
        add_args((c), sizeof(args) / sizeof(args[0]), args);                                       \
    } while (0)

static void describe_redis(struct farm_run *f)
{
    snprintf(f->redis_socket, sizeof(f->redis_socket), "%s/redis.sock", f->o.dir);
    snprintf(f->redis_url, sizeof(f->redis_url), "unix://%s", f->redis_socket);
    if (f->o.redis)
        return;
    unlink(f->redis_socket);
    struct child *c = add_child(f, "redis");
    ADD_ARGS(c, "redis-server", "--port", "0", "--unixsocket", f->redis_socket, "--unixsocketperm",
             "700", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", f->o.dir);
}

static void describe_common(struct farm_run *f, struct child *c)
{
    ADD_ARGS(c, "--models", f->o.models, "--redis", f->o.redis ? f->o.redis : f->redis_url);
    if (f->o.farm)
        ADD_ARGS(c, "--farm", f->o.farm);
    if (f->o.log)
        ADD_ARGS(c, "--log", f->o.log);
}

static void describe_broker(struct farm_run *f)
{
    struct child *c = add_child(f, "broker");
    farm_program(f->broker_path, sizeof(f->broker_path), "sonic-broker", "broker");
    snprintf(f->client, sizeof(f->client), "ipc://%s/client.sock", f->o.dir);
    snprintf(f->worker, sizeof(f->worker), "ipc://%s/worker.sock", f->o.dir);
    ADD_ARGS(c, f->broker_path, "--client", f->client, "--worker", f->worker);
    if (f->o.listen)
        ADD_ARGS(c, "--client", f->o.listen);
    if (f->o.insecure)
        ADD_ARGS(c, "--insecure");
    if (f->o.memory)
        ADD_ARGS(c, "--memory", f->o.memory);
    describe_common(f, c);
}

// "cpu:4" is named cpu0, a second one cpu1.
static void describe_workers(struct farm_run *f)
{
    farm_program(f->worker_path, sizeof(f->worker_path), "sonic-worker", "worker");
    for (size_t i = 0; i < f->o.ndevices; i++) {
        int kind = (int)strcspn(f->o.devices[i], ":"), same = 0;
        for (size_t k = 0; k < i; k++)
            same += strncmp(f->o.devices[k], f->o.devices[i], (size_t)kind) == 0;
        snprintf(f->names[i], sizeof(f->names[i]), "%.*s%d", kind, f->o.devices[i], same);
        struct child *c = add_child(f, f->names[i]);
        ADD_ARGS(c, f->worker_path, "--broker", f->worker, "--device", f->o.devices[i], "--name",
                 f->names[i]);
        describe_common(f, c);
    }
}

// ---- watching -----------------------------------------------------------------------------------

static int open_signals(struct farm_run *f)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    f->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return f->signals >= 0 ? EXIT_OK : fail("signalfd", strerror(errno));
}

// Waits up to ms for a signal and takes note of all that came.
static void wait_signals(struct farm_run *f, int ms)
{
    struct pollfd fd = {.fd = f->signals, .events = POLLIN};
    struct signalfd_siginfo info;
    poll(&fd, 1, ms);
    while (read(f->signals, &info, sizeof(info)) == sizeof(info))
        if (info.ssi_signo != SIGCHLD)
            f->stopping = true;
}

// Takes note of children that ended; the first one of them is returned.
static struct child *reap(struct farm_run *f)
{
    struct child *first = NULL;
    int status;
    for (size_t i = 0; i <= f->n; i++) {
        struct child *c = i < f->n ? &f->children[i] : &f->command;
        if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
            continue;
        const char *how = child_ended(c, status, clock_now_us());
        if (c != &f->command && !f->stopping)
            fprintf(stderr, "sonic-farm: %s ended (%s); its log is %s\n", c->name, how, c->log);
        if (!first)
            first = c;
    }
    return first;
}

static void start_again(struct farm_run *f)
{
    uint64_t now_us = clock_now_us();
    for (size_t i = 0; i < f->n; i++) {
        struct child *c = &f->children[i];
        if (c->pid || now_us < c->again_us)
            continue;
        fprintf(stderr, "sonic-farm: starting %s again\n", c->name);
        child_start(c, now_us);
    }
}

// ---- starting -----------------------------------------------------------------------------------

static bool redis_answers(const struct farm_run *f)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->redis_socket);
    bool answers = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (fd >= 0)
        close(fd);
    return answers;
}

// The broker's own word, through the tool that users have: how many workers have joined; -1: none
// answers yet.
static int workers_joined(const struct farm_run *f)
{
    char command[9200], line[256];
    int workers = -1, n;
    snprintf(command, sizeof(command), "'%s' status --broker '%s' --timeout 1 2>/dev/null",
             f->submit_path, f->client);
    FILE *status = popen(command, "re");
    if (!status)
        return -1;
    while (fgets(line, sizeof(line), status))
        if (sscanf(line, "workers %d", &n) == 1)
            workers = n;
    pclose(status);
    return workers;
}

// Starts one child and waits until it serves.
static int start_child(struct farm_run *f, size_t i, uint64_t deadline_us)
{
    struct child *c = &f->children[i];
    int before_workers = (int)(f->o.redis ? 1 : 2);
    if (!child_start(c, clock_now_us()))
        return fail("cannot start a process", strerror(errno));
    for (;;) {
        bool is_redis = strcmp(c->name, "redis") == 0;
        int joined = is_redis ? 0 : workers_joined(f);
        if (is_redis ? redis_answers(f)
                     : joined >= ((int)i < before_workers ? 0 : (int)i - before_workers + 1))
            return EXIT_OK;
        wait_signals(f, PROBE_US / 1000);
        struct child *ended = reap(f);
        if (f->stopping)
            return EXIT_INTERRUPTED;
        if (ended || clock_now_us() > deadline_us) {
            fail(ended ? ended->name : c->name,
                 ended ? "ended before the farm was ready" : "does not get ready");
            child_print_log(ended ? ended : c);
            return EXIT_MODEL;
        }
    }
}

static int start_all(struct farm_run *f)
{
    uint64_t deadline_us = clock_now_us() + START_US;
    for (size_t i = 0; i < f->n; i++) {
        int rc = start_child(f, i, deadline_us);
        if (rc != EXIT_OK)
            return rc;
    }
    return EXIT_OK;
}

// What a broker that was killed leaves behind.
static void unlink_endpoint(const char *endpoint)
{
    char side[sizeof(((struct farm_run *)0)->client) + 8];
    const char *path = endpoint + strlen("ipc://");
    unlink(path);
    snprintf(side, sizeof(side), "%s.slabs", path);
    unlink(side);
}

static void stop_all(struct farm_run *f)
{
    f->stopping = true;
    child_stop(&f->command, 5000);
    while (f->n > 0) {
        struct child *c = &f->children[--f->n];
        child_stop(c, strcmp(c->name, "redis") == 0 ? 3000 : 12000);
    }
    unlink(f->redis_socket);
    unlink_endpoint(f->client);
    unlink_endpoint(f->worker);
}

// ---- serving ------------------------------------------------------------------------------------

static void announce(const struct farm_run *f)
{
    char usual[4200];
    endpoint_client(usual, sizeof(usual));
    bool is_usual = strcmp(usual, f->client) == 0;
    printf("sonic-farm: ready at %s with", f->client);
    for (size_t i = 0; i < f->o.ndevices; i++)
        printf(" %s", f->names[i]);
    printf(
        "; models from %s\nsubmit with: sonic-submit %s%s%s--model MODEL --input IN.npy --output "
        "OUT.npy\n",
        f->o.models, is_usual ? "" : "--broker ", is_usual ? "" : f->client, is_usual ? "" : " ");
    fflush(stdout);
}

static int serve(struct farm_run *f)
{
    if (f->o.command) {
        snprintf(f->command.name, sizeof(f->command.name), "%s", f->o.command[0]);
        for (size_t i = 0; f->o.command[i] && i + 1 < CHILD_ARGS_MAX; i++)
            f->command.argv[i] = f->o.command[i];
        setenv("SONIC_BROKER", f->client, 1);
        if (!child_start(&f->command, clock_now_us()))
            return fail("cannot start a process", strerror(errno));
    } else {
        announce(f);
    }
    while (!f->stopping) {
        wait_signals(f, PROBE_US / 1000);
        reap(f);
        if (f->o.command && f->command.pid == 0)
            return WIFSIGNALED(f->command.status) ? 128 + WTERMSIG(f->command.status)
                                                  : WEXITSTATUS(f->command.status);
        if (!f->stopping)
            start_again(f);
    }
    return f->o.command ? EXIT_INTERRUPTED : EXIT_OK;
}

int main(int argc, char **argv)
{
    static struct farm_run f;
    char why[4600];
    int status;
    if (!farm_options_parse(argc, argv, &f.o, &status, why, sizeof(why))) {
        if (status != EXIT_OK)
            fprintf(stderr, "sonic-farm: %s\n", why);
        return status;
    }
    status = open_dir(&f);
    if (status == EXIT_OK)
        status = open_signals(&f);
    if (status != EXIT_OK)
        return status;
    farm_program(f.submit_path, sizeof(f.submit_path), "sonic-submit", "client/submit");
    describe_redis(&f);
    describe_broker(&f);
    describe_workers(&f);
    status = start_all(&f);
    if (status == EXIT_OK)
        status = serve(&f);
    stop_all(&f);
    return status;
}

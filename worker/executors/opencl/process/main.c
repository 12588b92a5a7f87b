// SPDX-License-Identifier: Apache-2.0
// sonic-device-opencl: started by sonic-worker, talks to it alone (pipe.h). The main thread takes
// what is to be loaded; each slot's thread runs what its socket brings.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/exitcode.h"
#include "worker/executors/opencl/process/device.h"

static struct device device;

struct slot_thread {
    pthread_t thread;
    uint32_t index;
};

static void *slot_main(void *user)
{
    const struct slot_thread *t = user;
    int fd = PIPE_SLOT + (int)t->index;
    struct pipe_run run;
    struct pipe_done done;
    while (recv(fd, &run, sizeof(run), 0) == sizeof(run)) {
        device_run(&device, t->index, &run, &done);
        if (send(fd, &done, sizeof(done), MSG_NOSIGNAL) != sizeof(done))
            break;
    }
    return NULL; // the worker has gone: so does the process, by the control socket
}

// A LOAD and its descriptor; false: the worker has gone.
static bool receive_load(struct pipe_load *load, int *memory)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = {load, sizeof(*load)};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(PIPE_CONTROL, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n == (ssize_t)sizeof(*load) ? CMSG_FIRSTHDR(&m) : NULL;
    if (!c || c->cmsg_type != SCM_RIGHTS)
        return false;
    memcpy(memory, CMSG_DATA(c), sizeof(int));
    return load->model < PIPE_MODELS_MAX;
}

static bool answer(const struct pipe_ready *ready)
{
    return send(PIPE_CONTROL, ready, sizeof(*ready), MSG_NOSIGNAL) == sizeof(*ready);
}

static bool start_threads(uint32_t n)
{
    static struct slot_thread threads[PIPE_SLOTS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        threads[i].index = i;
        if (pthread_create(&threads[i].thread, NULL, slot_main, &threads[i]) != 0)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct pipe_load load;
    struct pipe_ready ready = {0};
    int memory;
    if (argc != 4) {
        fprintf(stderr, "sonic-device-opencl: is started by sonic-worker --device opencl\n");
        return EXIT_USAGE;
    }
    // Interrupts are meant for the worker, which then ends this process.
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    prctl(PR_SET_NAME, "sonic-device");
    device_describe_machine();
    uint32_t slots = (uint32_t)atoi(argv[3]);
    ready.status = device_open(&device, argv[1], argv[2], slots, ready.text, sizeof(ready.text));
    snprintf(ready.name, sizeof(ready.name), "%.*s, %.*s", 62, device.platform_name, 62,
             device.name);
    ready.memory_bytes = device.memory_bytes;
    if (ready.status == 0 && !start_threads(slots)) {
        ready.status = -EAGAIN;
        snprintf(ready.text, sizeof(ready.text), "cannot start %u threads", slots);
    }
    bool go_on = answer(&ready) && ready.status == 0;
    while (go_on && receive_load(&load, &memory)) {
        memset(&ready, 0, sizeof(ready));
        ready.status = device_load(&device, &load, memory, &ready.memory_bytes, ready.text,
                                   sizeof(ready.text));
        if (ready.status == 0)
            device_describe(&device, load.model, &ready);
        go_on = answer(&ready);
    }
    _exit(EXIT_OK); // without the libraries' own ends, which may hang
}

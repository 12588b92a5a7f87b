// SPDX-License-Identifier: Apache-2.0
#include "worker/device/serve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/exitcode.h"

struct slot_thread {
    const struct serve_device *device;
    uint32_t index;
};

static void *slot_main(void *user)
{
    const struct slot_thread *t = user;
    int fd = PIPE_SLOT + (int)t->index;
    struct pipe_run run;
    struct pipe_done done;
    if (t->device->enter)
        t->device->enter(t->index);
    while (recv(fd, &run, sizeof(run), 0) == sizeof(run)) {
        t->device->run(t->index, &run, &done);
        if (send(fd, &done, sizeof(done), MSG_NOSIGNAL) != sizeof(done))
            break;
    }
    return NULL; // the worker has gone: so does the process, by the control socket
}

// What the worker does not take in time is lost: the next is newer.
static void *sensors_main(void *user)
{
    const struct serve_device *d = user;
    struct device_sensors s;
    bool go_on = true;
    while (go_on) {
        sleep(1); // first of all: a process that only looks what is there says nothing
        s = (struct device_sensors){.known = 0};
        go_on = d->sense(&s);
        send(PIPE_SENSORS, &s, sizeof(s), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return NULL;
}

static bool start_threads(const struct serve_device *d, uint32_t n)
{
    static struct slot_thread slots[PIPE_SLOTS_MAX];
    pthread_t thread;
    if (d->sense && pthread_create(&thread, NULL, sensors_main, (void *)(uintptr_t)d) != 0)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        slots[i] = (struct slot_thread){d, i};
        if (pthread_create(&thread, NULL, slot_main, &slots[i]) != 0)
            return false;
    }
    return true;
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

void serve_begin(void)
{
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    prctl(PR_SET_NAME, "sonic-device");
}

void serve(const struct serve_device *d, uint32_t slots, struct pipe_ready *opened)
{
    static struct pipe_load load;
    int memory;
    if (opened->status == 0 && !start_threads(d, slots)) {
        opened->status = -EAGAIN;
        snprintf(opened->text, sizeof(opened->text), "cannot start %u threads", slots);
    }
    bool go_on = answer(opened) && opened->status == 0;
    while (go_on && receive_load(&load, &memory)) {
        struct pipe_ready ready = {0};
        d->load(&load, memory, &ready);
        go_on = answer(&ready);
    }
    _exit(EXIT_OK);
}

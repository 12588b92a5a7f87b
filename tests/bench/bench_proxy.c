// SPDX-License-Identifier: Apache-2.0
// The yardstick for messages: DEALER - ROUTER zmq_proxy DEALER - echo worker, raw libzmq, a message
// of B bytes a request each way. Proxy, worker and K clients are processes, as in a farm.
//   bench_proxy FRONT BACK CLIENTS WINDOW BYTES SECONDS
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "tests/bench/clients.h"

struct proxy {
    const char *front, *back;
    unsigned clients, window, bytes;
    double seconds;
};

static void *open_socket(void *ctx, int type, const char *endpoint, int bound)
{
    int none = 0;
    void *s = zmq_socket(ctx, type);
    // No high-water mark: at the default of 1,000 the proxy drops replies and hangs.
    zmq_setsockopt(s, ZMQ_SNDHWM, &none, sizeof(none));
    zmq_setsockopt(s, ZMQ_RCVHWM, &none, sizeof(none));
    zmq_setsockopt(s, ZMQ_LINGER, &none, sizeof(none));
    if ((bound ? zmq_bind(s, endpoint) : zmq_connect(s, endpoint)) != 0) {
        fprintf(stderr, "bench_proxy: %s: %s\n", endpoint, zmq_strerror(zmq_errno()));
        exit(1);
    }
    return s;
}

static void run_proxy(const struct proxy *p)
{
    void *ctx = zmq_ctx_new();
    void *front = open_socket(ctx, ZMQ_ROUTER, p->front, 1);
    void *back = open_socket(ctx, ZMQ_DEALER, p->back, 1);
    zmq_proxy(front, back, NULL);
}

// Sends back what comes, with the frames that the proxy put before it.
static void run_worker(const struct proxy *p)
{
    void *ctx = zmq_ctx_new();
    void *s = open_socket(ctx, ZMQ_DEALER, p->back, 0);
    for (;;) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, s, 0) < 0)
            return;
        zmq_msg_send(&m, s, zmq_msg_more(&m) ? ZMQ_SNDMORE : 0);
    }
}

static pid_t start(void (*run)(const struct proxy *), const struct proxy *p)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(p);
        _exit(0);
    }
    return pid;
}

static int run_client(unsigned index, void *user, struct client_figures *f)
{
    const struct proxy *p = user;
    void *ctx = zmq_ctx_new();
    void *s = open_socket(ctx, ZMQ_DEALER, p->front, 0);
    char *data = calloc(1, p->bytes < 8 ? 8 : p->bytes);
    uint64_t now_us = clock_now_us(), span_us = (uint64_t)(p->seconds * 1e6);
    uint64_t from_us = now_us + span_us / 5, until_us = from_us + span_us;
    int patience_ms = 20000;
    (void)index;
    zmq_setsockopt(s, ZMQ_RCVTIMEO, &patience_ms, sizeof(patience_ms));
    for (unsigned i = 0; i < p->window; i++) {
        memcpy(data, &now_us, sizeof(now_us));
        zmq_send(s, data, p->bytes, 0);
    }
    while (now_us < until_us) {
        uint64_t sent_us;
        if (zmq_recv(s, data, p->bytes, 0) < 0)
            return 1;
        now_us = clock_now_us();
        memcpy(&sent_us, data, sizeof(sent_us));
        if (now_us >= from_us && now_us < until_us) {
            f->answers++;
            latency_add((uint32_t)(now_us - sent_us));
        }
        memcpy(data, &now_us, sizeof(now_us));
        zmq_send(s, data, p->bytes, 0);
    }
    f->seconds = p->seconds;
    latency_percentiles(f);
    zmq_close(s);
    zmq_ctx_term(ctx);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: bench_proxy FRONT BACK CLIENTS WINDOW BYTES SECONDS\n");
        return 2;
    }
    struct proxy p = {argv[1],
                      argv[2],
                      (unsigned)atoi(argv[3]),
                      (unsigned)atoi(argv[4]),
                      (unsigned)atoi(argv[5]),
                      atof(argv[6])};
    pid_t proxy = start(run_proxy, &p);
    usleep(200000);
    pid_t worker = start(run_worker, &p);
    usleep(200000);
    // In a process of its own, whose only children are the clients it waits for.
    pid_t clients = fork();
    if (clients == 0)
        _exit(clients_run(p.clients, run_client, &p) | fflush(stdout));
    int status = 1;
    waitpid(clients, &status, 0);
    kill(worker, SIGKILL);
    kill(proxy, SIGKILL);
    return status != 0;
}

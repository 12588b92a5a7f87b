// SPDX-License-Identifier: Apache-2.0
// What the files of libsonic share: the handle, and each request's part that the pure window does
// not know (the caller's tensors, the frames that libzmq still holds).
#ifndef SONIC_CLIENT_HANDLE_H
#define SONIC_CLIENT_HANDLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/sonic.h"
#include "client/window.h"
#include "common/message.h"
#include "common/wire.h"

struct sonic;

// An answer that had to be kept: libzmq still held a frame of the caller's data when it came.
struct kept_answer {
    struct call *next;
    sonic_tensor_t outputs[SONIC_TENSORS_MAX];
    unsigned noutputs;
    char text[SONIC_TEXT_MAX + 1];
    uint32_t queue_us, exec_us, exec_rows;
    sonic_status_t status;
    void *bytes; // of the outputs
};

// The shell's part of a request.
struct call {
    struct sonic *owner;
    struct window_request *request;
    sonic_callback_t callback;
    void *user;
    // Frames made of the caller's data that libzmq has not released. Counted down on its I/O
    // thread.
    atomic_uint frames;
    struct kept_answer *kept;
    unsigned ninputs;
    uint16_t shared; // a bit for each input that lies in the slab
    struct call *next_spare;
    uint64_t offsets[SONIC_TENSORS_MAX]; // there
    sonic_tensor_t inputs[];             // of SONIC_TENSORS_MAX
};

// A question to the broker that somebody waits for.
struct question {
    uint64_t id;
    bool sent, done;
    uint8_t what;
    char *text;            // REPLY
    sonic_status_t status; // REPLY
    sonic_model_t *models; // CATALOG
    size_t nmodels;
};

enum link_state {
    LINK_DOWN,   // no connection
    LINK_HELLO,  // connected, HELLO is out or due
    LINK_OPEN,   // WELCOME is in
    LINK_REFUSED // for good
};

struct sonic {
    void *ctx, *socket, *monitor;
    int epoll, wake, timer;
    bool woken, in_callback, in_process, closing;
    atomic_bool released; // libzmq's thread wrote to `wake`
    struct window *window;
    struct wire_decoder *decoder;
    struct wire_header *header;
    struct payload *payload;
    struct message *message;
    bool unsent; // header and payload hold a message that the socket would not take

    struct slab *slab;               // NULL until there is something large to send
    struct extents *room;            // in it
    struct wire_header *side_header; // `header` holds a SUBMIT while a slab is offered
    uint64_t slab_bytes_max;         // from WELCOME; 0: none
    uint32_t slab_number;            // from TAKEN; 0: not (yet)
    uint64_t slab_offer_us;          // not before that

    enum link_state link;
    uint64_t session, epoch;
    uint64_t request_bytes_max; // from WELCOME
    uint64_t now_us, heard_us, hello_us, probe_us;
    uint64_t timer_us;     // when the timer fires; UINT64_MAX: not
    uint64_t wanted_us;    // when the window was last asked for
    uint64_t want_not_us;  // the broker has none to give before that
    uint64_t acknowledged; // `received` as last sent, and when
    uint64_t acknowledged_us;
    uint64_t idle_since_us;    // nothing pending since then; 0: something is
    uint64_t pending_since_us; // the oldest of what is pending was not submitted before that
    uint64_t lost_us;          // the broker is taken for lost then; 0: there is no sign of it
    bool shrunk;               // the window was given back
    uint32_t window_requests;
    uint64_t window_bytes, lost_after_us;
    char endpoint[4096], tenant[SONIC_NAME_MAX + 1], software[SONIC_NAME_MAX + 1];

    struct call *spare;
    struct call *kept; // calls whose answer waits for libzmq, by kept->next
    atomic_uint nkept;
    size_t ncalls; // callbacks run in this sonic_process
    struct question *question;
    uint64_t next_question;
    char error[SONIC_TEXT_MAX + 128];
};

// Sets sonic_error and returns the errno, negative.
int handle_fail(struct sonic *s, int e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Whether the request can be sent at all: 0 or a negative errno.
int handle_check(struct sonic *s, const sonic_request_t *request);
// Makes sonic_fd readable.
void handle_wake(struct sonic *s);

// ---- link.c: the socket, the session, what comes in
// Reads what is there and acts on it; returns the number of messages.
unsigned link_receive(struct sonic *s);
// Looks at the connection's own events, sends HELLO, probes, WANTs: whatever is due.
void link_tend(struct sonic *s);
// When link_tend has something to do by time alone.
uint64_t link_wake(const struct sonic *s);

// ---- share.c: large inputs by shared memory
void share_open(struct sonic *s, uint64_t slab_bytes_max); // after WELCOME
void share_taken(struct sonic *s, const struct wire_taken *m);
// Lays input i into the slab and describes where. False: it has to travel in a frame.
bool share_input(struct sonic *s, struct call *c, unsigned i, struct tensor *t);
void share_return(struct sonic *s, struct call *c); // the request is done
void share_close(struct sonic *s);

// ---- flight.c: requests out, answers to callbacks
// Sends what the window allows.
void flight_send(struct sonic *s);
void flight_cancel(struct sonic *s, uint64_t seq);
// One item of an ANSWER.
void flight_answer(struct sonic *s, const struct wire_answer_item *item, bool current_epoch);
// Ends requests that are done without an answer, and those whose kept answer may go out.
void flight_due(struct sonic *s);
// Ends everything that is pending now with this status.
void flight_end(struct sonic *s, enum sonic_status status);
struct call *flight_call(struct sonic *s);
void flight_recycle(struct sonic *s, struct call *c);

#endif

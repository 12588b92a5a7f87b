// SPDX-License-Identifier: Apache-2.0
// The client's half of the promise that no request is lost: it keeps every request until its answer
// is in, and decides what may be sent, what must be sent again, and when. Pure: events and `now_us`
// come in, requests to send and requests that are done come out. No socket, no clock, no random.
//
// A request is queued (waiting for window), sent, or waiting (told BUSY, to be sent again at a
// time). A request that is done is handed out once and then given back with window_release.
#ifndef SONIC_CLIENT_WINDOW_H
#define SONIC_CLIENT_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"

struct window;

enum window_state { WINDOW_FREE, WINDOW_QUEUED, WINDOW_SENT, WINDOW_WAITING, WINDOW_DONE };

// One request. The upper part is the caller's, the lower part the window's.
struct window_request {
    char model[SONIC_NAME_MAX + 1];
    uint32_t version;
    uint8_t priority;
    uint64_t bytes;       // of the inputs, what the window is charged
    uint64_t deadline_us; // absolute, 0 = none
    void *user;           // the shell's part of the request

    uint64_t seq;
    uint64_t submitted_us;
    uint64_t retry_us; // when waiting
    uint32_t attempts; // times sent
    enum window_state state;
    bool cancelled;           // asked for; answered CANCELLED when it would be sent again
    enum sonic_status status; // when done
    struct window_request *next, *prev;
    struct window_request *chain; // in its hash bucket
};

// `jitter_seed` spreads retries of many clients; any number will do. NULL: out of memory.
struct window *window_new(uint64_t jitter_seed);
void window_free(struct window *w);

// Queues a request (model, version, priority, bytes, deadline_us and user are taken from *r) and
// gives it the next seq. NULL: out of memory.
struct window_request *window_submit(struct window *w, uint64_t now_us,
                                     const struct window_request *r);
// By seq; NULL when it is done or was never there.
struct window_request *window_find(const struct window *w, uint64_t seq);

// The broker's grant. It bounds what is sent and unanswered.
void window_grant(struct window *w, uint32_t requests, uint64_t bytes);
// A request with more bytes than this is never granted: it ends as BAD_REQUEST (from window_due).
void window_limit(struct window *w, uint64_t request_bytes_max);
// The session was opened (again): everything without an answer is queued again, oldest first, and
// the count of received answers starts anew.
void window_reopen(struct window *w);

// The next request that may be sent now, NULL when there is none (nothing queued, or no window).
struct window_request *window_next(struct window *w);
// The next one to the same model behind r, which is about to be sent, if the window has room for
// both: they can share a message. Passes over a bounded number of requests to other models.
struct window_request *window_also(const struct window *w, const struct window_request *r);
// It was put into a message: it counts against the window from now on.
void window_sent(struct window *w, struct window_request *r);

// An answer. Returns the request when it is done (to be handed out, then released), NULL when the
// answer is a duplicate or the request will be sent again.
struct window_request *window_answer(struct window *w, uint64_t now_us, uint64_t seq,
                                     enum sonic_status status, uint64_t retry_after_us,
                                     bool acknowledge);
// Asks for a request to be forgotten. 1: the broker must be told; 0: it will come out of
// window_due; -1: no such request.
int window_cancel(struct window *w, uint64_t seq);

// Requests that are done without an answer: cancelled before they were sent, over the limit, or
// past their deadline (a sent one is left to the broker for WINDOW_LATE_US more, whose answer says
// what became of it). One a call, status set; NULL when there is none at this time.
#define WINDOW_LATE_US 1000000u
struct window_request *window_due(struct window *w, uint64_t now_us);
// Ends any one request with this status (all are lost, or the handle is closed); NULL when none is
// left.
struct window_request *window_give_up(struct window *w, enum sonic_status status);
// When window_due or window_next may have something new by time alone; UINT64_MAX: never.
uint64_t window_wake(const struct window *w);
// Gives a done request's memory back.
void window_release(struct window *w, struct window_request *r);

struct window_counts {
    size_t pending;   // submitted, not done
    size_t queued;    // not sent (waiting ones included)
    size_t in_flight; // sent, not answered
    uint64_t in_flight_bytes;
    uint64_t received;       // answers to acknowledge, cumulative in this session
    uint64_t needed_bytes;   // of the largest request queued since the window was last empty
    uint32_t grant_requests; // as granted
    uint64_t grant_bytes;
    uint64_t retried, duplicates;
};
void window_counts(const struct window *w, struct window_counts *c);

#endif

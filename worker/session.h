// SPDX-License-Identifier: Apache-2.0
// What a worker knows of its broker, and what follows from it: when to JOIN, when to JOIN again,
// when a beat is due, when it may leave. Pure: the agent reports events with the time and does what
// session_due says.
//
//   joining --ACCEPT--> joined --asked to stop, BYE sent--> leaving --broker forgot us--> gone
//      ^                  |
//      +--- REGISTER_AGAIN, silence ---+
#ifndef SONIC_WORKER_SESSION_H
#define SONIC_WORKER_SESSION_H

#include <stdbool.h>
#include <stdint.h>

enum session_state { SESSION_JOINING, SESSION_JOINED, SESSION_LEAVING, SESSION_GONE };

struct session {
    enum session_state state;
    uint64_t number; // rises with each ACCEPT: what belongs to an older one is void
    uint64_t epoch;
    uint64_t beat_us;
    uint64_t heard_us;     // last message from the broker
    uint64_t join_us;      // when to send JOIN (again)
    uint64_t next_beat_us; // when to send HEARTBEAT (or BYE) next
    uint64_t leave_us;     // leaving with nothing left: not later than this
    bool said_bye, empty;  // leaving
};

void session_init(struct session *s, uint64_t now_us);

enum session_action { SESSION_NOTHING, SESSION_JOIN, SESSION_BEAT, SESSION_BYE, SESSION_LOST };
// What to do now; call until SESSION_NOTHING. LOST: nothing was heard for five beats, all leases
// are void, a JOIN follows.
enum session_action session_due(struct session *s, uint64_t now_us);
// When session_due will have something.
uint64_t session_wake_us(const struct session *s);

void session_heard(struct session *s, uint64_t now_us);
void session_accepted(struct session *s, uint64_t now_us, uint64_t epoch, uint32_t beat_ms);
// The broker does not know us (any more). True: all leases are void and a JOIN follows; false: it
// was to be expected (a JOIN is under way, or we are leaving and it has forgotten us).
bool session_unknown(struct session *s, uint64_t now_us);
// The broker refused the JOIN: try again after this time.
void session_refused(struct session *s, uint64_t now_us, uint32_t retry_after_ms);
// Asked to stop: BYE now, beats while there is work, and BYE again when there is none: a broker
// that has nothing of ours under way either does not know us any more.
void session_leave(struct session *s, uint64_t now_us);
// Whether nothing is staged, executing or unsent. Call each turn while leaving.
void session_empty(struct session *s, uint64_t now_us, bool empty);

#endif

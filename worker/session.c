// SPDX-License-Identifier: Apache-2.0
#include "worker/session.h"

#define BEAT_US 500000u // until the broker says another
#define BEAT_MIN_US 10000u
#define BEAT_MAX_US 60000000u
#define SILENT_BEATS 5
// A JOIN that nobody answers is sent again: it may have gone down with a link. Not sooner than a
// broker that is only slow would take, because each one starts the session anew.
#define JOIN_AGAIN_US 2500000u
// Leaving: longest wait, after the last result, for the broker to say that nothing is left.
#define LEAVE_US 3000000u

void session_init(struct session *s, uint64_t now_us)
{
    *s = (struct session){
        .state = SESSION_JOINING, .beat_us = BEAT_US, .heard_us = now_us, .join_us = now_us};
}

static void join_again(struct session *s, uint64_t now_us)
{
    s->state = SESSION_JOINING;
    s->join_us = now_us;
}

static bool silent(const struct session *s, uint64_t now_us)
{
    return now_us - s->heard_us >= SILENT_BEATS * s->beat_us;
}

static enum session_action beat(struct session *s, uint64_t now_us)
{
    if (now_us < s->next_beat_us)
        return SESSION_NOTHING;
    s->next_beat_us = now_us + s->beat_us;
    if (s->state == SESSION_JOINED || (s->said_bye && !s->empty))
        return SESSION_BEAT;
    s->said_bye = true;
    return SESSION_BYE;
}

enum session_action session_due(struct session *s, uint64_t now_us)
{
    switch (s->state) {
    case SESSION_JOINING:
        if (now_us < s->join_us)
            return SESSION_NOTHING;
        s->join_us = now_us + JOIN_AGAIN_US;
        return SESSION_JOIN;
    case SESSION_JOINED:
        if (!silent(s, now_us))
            return beat(s, now_us);
        join_again(s, now_us);
        return SESSION_LOST;
    case SESSION_LEAVING:
        if (now_us < s->leave_us && !silent(s, now_us))
            return beat(s, now_us);
        s->state = SESSION_GONE;
        break;
    case SESSION_GONE:
        break;
    }
    return SESSION_NOTHING;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t session_wake_us(const struct session *s)
{
    uint64_t silent_us = s->heard_us + SILENT_BEATS * s->beat_us;
    switch (s->state) {
    case SESSION_JOINING:
        return s->join_us;
    case SESSION_JOINED:
        return sooner(s->next_beat_us, silent_us);
    case SESSION_LEAVING:
        return sooner(sooner(s->next_beat_us, silent_us), s->leave_us);
    case SESSION_GONE:
        break;
    }
    return UINT64_MAX;
}

void session_heard(struct session *s, uint64_t now_us)
{
    s->heard_us = now_us;
}

void session_accepted(struct session *s, uint64_t now_us, uint64_t epoch, uint32_t beat_ms)
{
    uint64_t beat_us = (uint64_t)beat_ms * 1000;
    s->state = SESSION_JOINED;
    s->number++;
    s->epoch = epoch;
    s->beat_us = beat_us < BEAT_MIN_US ? BEAT_MIN_US : sooner(beat_us, BEAT_MAX_US);
    s->next_beat_us = now_us + s->beat_us;
}

bool session_unknown(struct session *s, uint64_t now_us)
{
    if (s->state == SESSION_LEAVING)
        s->state = SESSION_GONE;
    if (s->state != SESSION_JOINED)
        return false;
    join_again(s, now_us);
    return true;
}

void session_refused(struct session *s, uint64_t now_us, uint32_t retry_after_ms)
{
    uint64_t wait_us = (uint64_t)retry_after_ms * 1000;
    if (s->state == SESSION_JOINING)
        s->join_us = now_us + (wait_us > JOIN_AGAIN_US ? wait_us : JOIN_AGAIN_US);
}

void session_leave(struct session *s, uint64_t now_us)
{
    if (s->state != SESSION_JOINED) {
        s->state = SESSION_GONE;
        return;
    }
    s->state = SESSION_LEAVING;
    s->next_beat_us = now_us;
    s->leave_us = UINT64_MAX;
    s->said_bye = s->empty = false;
}

void session_empty(struct session *s, uint64_t now_us, bool empty)
{
    if (s->state != SESSION_LEAVING || s->empty == empty)
        return;
    s->empty = empty;
    s->leave_us = empty ? now_us + LEAVE_US : UINT64_MAX;
    if (empty)
        s->next_beat_us = now_us;
}

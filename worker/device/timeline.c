// SPDX-License-Identifier: Apache-2.0
#include "worker/device/timeline.h"

#include <string.h>

static uint64_t between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? to_ns - from_ns : 0;
}

// The gaps of the spans that are known.
static uint64_t gaps(const struct timeline *t)
{
    uint64_t ns = 0;
    for (uint32_t i = 1; i < t->n; i++)
        ns += between(t->busy[i - 1].to_ns, t->busy[i].from_ns);
    return ns;
}

static void drop(struct timeline *t, uint32_t from, uint32_t n)
{
    memmove(&t->busy[from], &t->busy[from + n], (t->n - from - n) * sizeof(t->busy[0]));
    t->n -= n;
}

uint64_t timeline_add(struct timeline *t, uint64_t from_ns, uint64_t to_ns)
{
    uint32_t at = 0, over = 0;
    if (t->n == TIMELINE_SPANS && to_ns < t->busy[0].from_ns)
        return 0; // whether that time is counted is not known any more
    if (t->n == TIMELINE_SPANS)
        drop(t, 0, 1); // its gap is counted already
    uint64_t before = gaps(t), now;
    while (at < t->n && t->busy[at].to_ns < from_ns)
        at++;
    for (; at + over < t->n && t->busy[at + over].from_ns <= to_ns; over++) {
        const struct timeline_span *s = &t->busy[at + over];
        from_ns = s->from_ns < from_ns ? s->from_ns : from_ns;
        to_ns = s->to_ns > to_ns ? s->to_ns : to_ns;
    }
    drop(t, at, over);
    memmove(&t->busy[at + 1], &t->busy[at], (t->n - at) * sizeof(t->busy[0]));
    t->busy[at] = (struct timeline_span){from_ns, to_ns};
    t->n++;
    now = gaps(t);
    t->idle_ns += now; // modulo 2^64, like all of this: the sum never is below 0
    t->idle_ns -= before;
    uint64_t more = between(t->told_ns, t->idle_ns);
    t->told_ns += more;
    return more;
}

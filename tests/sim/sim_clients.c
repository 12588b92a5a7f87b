// SPDX-License-Identifier: Apache-2.0
// Clients: some keep to their window and some do not; they cancel, change their mind, stop reading,
// lie about what they received, and die.
#include <stdlib.h>

#include "tests/sim/sim.h"

// Accepted, and neither cancelled nor orphaned: the farm owes it an answer.
bool sim_request_open(const struct sim *s, const struct sim_request *r)
{
    const struct sim_client *c = &s->clients[r->client];
    return !r->answered && !r->cancelled && c->id != FARM_NONE && c->life == r->client_life;
}

static void client_open(struct sim *s, struct sim_client *c)
{
    struct farm_want want = {.requests = (uint32_t)sim_random(s, 200),
                             .bytes = sim_random(s, 200000),
                             .need_bytes = sim_chance(s, 4) ? sim_random(s, 100000) : 0};
    char tenant = (char)('a' + sim_random(s, 5));
    enum sonic_status status =
        farm_client_open(s->f, s->now_us, &tenant, 1, &want, c, &c->id, &c->grant);
    if (status != SONIC_STATUS_OK) {
        if (status != SONIC_STATUS_BUSY || c->grant.retry_after_us == 0)
            sim_fail(s, "a client was refused without being told when to try again");
        c->id = FARM_NONE;
        return;
    }
    if (c->grant.bytes < want.need_bytes && want.need_bytes <= farm_request_bytes_max(s->f))
        sim_fail(s, "a client was granted less than it needs");
    c->life++;
    c->obeys = !sim_chance(s, 4);
    c->reads = !sim_chance(s, 10);
    c->doubles = sim_chance(s, 8);
    c->next_seq = sim_random(s, 1000);
    c->last = 0;
    c->accepted = c->answered = c->received = c->bytes = 0;
    c->nsent = 0;
}

void sim_client_close(struct sim *s, struct sim_client *c)
{
    farm_client_close(s->f, s->now_us, c->id);
    farm_client_id gone = c->id;
    c->id = FARM_NONE;
    farm_cancel(s->f, s->now_us, gone, c->next_seq - 1); // late words of the dead
    farm_client_close(s->f, s->now_us, gone);
}

static void client_submit(struct sim *s, struct sim_client *c)
{
    uint32_t m = (uint32_t)sim_random(s, s->o.models);
    uint32_t batch = s->model_configs[m].batch_max;
    uint64_t bytes = sim_chance(s, 50) ? sim_random(s, 300000) : sim_random(s, 2000);
    bool fits = c->accepted - c->received < c->grant.requests && c->bytes + bytes <= c->grant.bytes;
    if (c->obeys && !fits)
        return;
    s->requests = sim_grow(s->requests, &s->requests_size, s->nrequests + 1, sizeof *s->requests);
    struct sim_request *r = &s->requests[s->nrequests];
    *r = (struct sim_request){.seq = c->doubles && sim_chance(s, 20) ? c->next_seq : c->next_seq++,
                              .bytes = bytes,
                              .client = (uint32_t)(c - s->clients),
                              .client_life = c->life,
                              .model = m,
                              .rows = sim_chance(s, 3) ? 1 + (uint32_t)sim_random(s, batch) : 1};
    struct farm_submit submit = {.seq = r->seq,
                                 .model = s->models[m],
                                 .rows = r->rows,
                                 .bytes = bytes,
                                 .priority = (uint8_t)sim_random(s, 4),
                                 .deadline_us = sim_chance(s, 10) ? 1 + sim_random(s, 100000) : 0,
                                 .payload = sim_payload_new(s, s->nrequests, false)};
    r->deadline_us = submit.deadline_us ? s->now_us + submit.deadline_us : 0;
    uint64_t retry_us;
    enum sonic_status status = farm_submit(s->f, s->now_us, c->id, &submit, &retry_us);
    if (status != SONIC_STATUS_OK) {
        sim_payload_free(submit.payload, s);
        if ((status == SONIC_STATUS_BUSY) != (retry_us > 0))
            sim_fail(s, "a refusal and its retry_after do not agree");
        if (status != SONIC_STATUS_BUSY && status != SONIC_STATUS_QUEUE_FULL)
            sim_fail(s, "a request was refused for no good reason");
        return;
    }
    if (!fits && !c->doubles)
        sim_fail(s, "a client got beyond its window");
    r->before = c->last;
    c->last = ++s->nrequests;
    c->accepted++;
    c->bytes += bytes;
}

static void client_acknowledge(struct sim *s, struct sim_client *c)
{
    if (farm_client_received(s->f, c->id, c->answered + 1 + sim_random(s, 100)))
        sim_fail(s, "a client acknowledged what it never got");
    uint64_t upto = c->received + sim_random(s, c->answered - c->received + 1);
    if (s->calm)
        upto = c->answered;
    if (!farm_client_received(s->f, c->id, upto))
        sim_fail(s, "a client's acknowledgement was refused");
    for (; c->received < upto; c->received++)
        c->bytes -= c->sent_bytes[c->received];
}

static void client_want(struct sim *s, struct sim_client *c)
{
    struct farm_want want = {.requests = (uint32_t)sim_random(s, 300),
                             .bytes = sim_random(s, 400000),
                             .need_bytes = sim_chance(s, 4) ? sim_random(s, 100000) : 0};
    farm_client_want(s->f, s->now_us, c->id, &want, &c->grant);
    if ((c->grant.bytes < c->bytes && !c->doubles) || c->grant.requests < c->accepted - c->received)
        sim_fail(s, "a running client was cut off");
    if (c->grant.bytes < want.need_bytes && want.need_bytes <= farm_request_bytes_max(s->f) &&
        c->grant.retry_after_us == 0)
        sim_fail(s, "a client needs more and is not told when to ask again");
}

static void client_cancel(struct sim *s, struct sim_client *c)
{
    if (s->nrequests == 0)
        return;
    uint32_t back = 1 + (uint32_t)sim_random(s, s->nrequests < 500 ? s->nrequests : 500);
    const struct sim_request *r = &s->requests[s->nrequests - back];
    if (&s->clients[r->client] != c || r->client_life != c->life)
        return;
    // A number used twice names either: both may be the one that is meant.
    for (uint32_t i = s->nrequests; i-- > 0 && s->nrequests - i < 2000;) {
        struct sim_request *other = &s->requests[i];
        if (other->client == r->client && other->client_life == c->life && other->seq == r->seq)
            other->cancelled = true;
    }
    farm_cancel(s->f, s->now_us, c->id, r->seq);
}

void sim_clients_act(struct sim *s)
{
    for (uint32_t i = 0; i < s->o.clients; i++) {
        struct sim_client *c = &s->clients[i];
        if (c->id != FARM_NONE && sim_chance(s, 3))
            client_acknowledge(s, c);
        if (s->calm)
            continue;
        if (c->id == FARM_NONE) {
            if (sim_chance(s, 4))
                client_open(s, c);
            continue;
        }
        if (sim_chance(s, 2))
            for (uint64_t n = sim_random(s, 12); n > 0; n--)
                client_submit(s, c);
        if (sim_chance(s, 20))
            client_want(s, c);
        if (sim_chance(s, 10))
            client_cancel(s, c);
        if (sim_chance(s, 50))
            c->reads = !c->reads || sim_chance(s, 2);
        if (sim_chance(s, 300))
            sim_client_close(s, c);
    }
}

// ---- answers -----------------------------------------------------------------------------------

// What is wrong with this answer to this request; NULL: nothing.
static const char *complaint(const struct sim *s, const struct sim_request *r,
                             const struct farm_answer *a)
{
    if (a->status == SONIC_STATUS_OK && !a->payload)
        return "an OK answer without its result";
    if (a->text && a->payload)
        return "an answer of the farm's own has a payload";
    if (a->status == SONIC_STATUS_DEADLINE && (!r->deadline_us || r->deadline_us > s->now_us))
        return "a deadline was missed before its time";
    if (a->status == SONIC_STATUS_POISON && r->deaths < s->config.poison_deaths)
        return "an innocent request was called poison";
    if (a->status == SONIC_STATUS_CANCELLED && !r->cancelled)
        return "a request was cancelled that nobody cancelled";
    if (a->status == SONIC_STATUS_EXEC_FAILED && !r->lied)
        return "a request failed though its worker did not say so";
    return NULL;
}

// An answer of the farm's own says only the number; of several requests with this number it is for
// one that it fits.
static uint32_t find_request(const struct sim *s, const struct sim_client *c,
                             const struct farm_answer *a)
{
    const char *what = "an answer to a request that waits for none";
    uint32_t any = UINT32_MAX;
    for (uint32_t i = c->last; i > 0; i = s->requests[i - 1].before) {
        const struct sim_request *r = &s->requests[i - 1];
        if (r->seq != a->seq || r->answered)
            continue;
        what = complaint(s, r, a);
        if (!what)
            return i - 1;
        any = i - 1;
    }
    if (c->doubles && any != UINT32_MAX)
        return any; // an earlier answer was taken for its double's
    sim_fail(s, what);
}

static void take_answer(struct sim *s, struct sim_client *c, const struct farm_answer *a)
{
    const struct sim_payload *p = a->payload;
    uint32_t i = p ? p->request : find_request(s, c, a);
    if (s->requests[i].answered && c->doubles)
        i = find_request(s, c, a); // its double's answer was taken for its own
    struct sim_request *r = &s->requests[i];
    if (&s->clients[r->client] != c || r->client_life != c->life || r->seq != a->seq)
        sim_fail(s, "a client got another's answer");
    if (r->answered)
        sim_fail(s, "a request was answered twice");
    if (p && !p->is_result)
        sim_fail(s, "an input came back as a result");
    if (complaint(s, r, a) && !c->doubles)
        sim_fail(s, complaint(s, r, a));
    r->answered = true;
    c->sent_bytes = sim_grow(c->sent_bytes, &c->sent_size, c->nsent + 1, sizeof *c->sent_bytes);
    c->sent_bytes[c->nsent++] = r->bytes;
    c->answered++;
    s->by_status[a->status]++;
    sim_digest(s, a->seq * 31 + a->status);
    if (a->payload)
        sim_payload_free(a->payload, s);
}

void sim_clients_read(struct sim *s)
{
    void *user;
    farm_client_id id;
    while ((id = farm_next_client(s->f, &user))) {
        struct sim_client *c = user;
        struct farm_answer a;
        if (c->id != id)
            sim_fail(s, "an outbox of a client that is gone");
        while (farm_answer_peek(s->f, id, &a)) {
            if (!s->calm && (!c->reads || sim_chance(s, 40))) {
                farm_client_later(s->f, id);
                break;
            }
            farm_answer_pop(s->f, id);
            take_answer(s, c, &a);
        }
    }
}

bool sim_clients_done(const struct sim *s)
{
    for (uint32_t i = 0; i < s->o.clients; i++) {
        const struct sim_client *c = &s->clients[i];
        if (c->id != FARM_NONE && c->received < c->accepted)
            return false;
    }
    return true;
}

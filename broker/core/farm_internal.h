// SPDX-License-Identifier: Apache-2.0
// What the files of the core share. One record per request, in exactly one place at a time:
//
//   REQUEST_QUEUED    a flow's FIFO, the flow's heap of returned ones, or the model's suspects
//   REQUEST_LEASED    a worker's outbox: bound, not sent yet
//   REQUEST_HELD      a worker's held list: sent, no result yet
//   REQUEST_ANSWERED  its client's outbox
//   REQUEST_SENT      its client's list of answers to be acknowledged
//
// A flow is one tenant's queue at one priority level of one model. A service is one model on one
// worker. Pointers into these are stable: records live in chunks, the rest is allocated singly.
#ifndef SONIC_BROKER_CORE_FARM_INTERNAL_H
#define SONIC_BROKER_CORE_FARM_INTERNAL_H

#include "broker/core/farm.h"
#include "broker/core/heap.h"
#include "broker/core/list.h"

#define RECORDS_PER_CHUNK 1024u
#define TENANT_BUCKETS 512u
#define SHARE_ONE (1ull << 32) // one full batch, in a worker's load

enum request_state {
    REQUEST_FREE,
    REQUEST_QUEUED,
    REQUEST_LEASED,
    REQUEST_HELD,
    REQUEST_ANSWERED,
    REQUEST_SENT,
};

struct request {
    union {
        struct link link;
        struct heap_node returned; // in a heap by `order`, while queued again
    } at;
    uint8_t state; // enum request_state
    uint8_t status;
    bool was_returned;
    bool in_seqs;
    uint32_t rows;
    uint32_t index;
    uint32_t generation; // of the lease: rises with each dispatch
    struct flow *flow;
    struct client *client;
    struct service *service; // where it is leased
    void *payload;           // the input until it is answered, then the result
    uint64_t seq;
    uint64_t bytes;
    uint64_t order; // of arrival, over the whole farm
    uint64_t submitted_us;
    struct request *seq_next, **seq_prev;
    struct heap_node deadline; // key: absolute, 0 = none; in the heap while queued
    uint64_t result_bytes;
    const char *text;
    uint32_t queue_us, exec_us, exec_rows;
    uint32_t deaths; // workers that died holding it
};

struct tenant {
    char name[SONIC_NAME_MAX + 1];
    uint32_t clients;
    uint32_t place; // in farm.tenants
    uint32_t number;
    struct tenant *next; // in its bucket
    uint64_t accepted, answered, queued;
};

struct flow {
    struct link ring; // in its model's level, while something is queued in `fifo` or `returned`
    struct link fifo;
    struct heap returned; // came back from a lost worker: older than anything in the FIFO
    uint64_t deficit;     // rows it may still take in its turn
    uint32_t queued;
    uint32_t requests; // that point here, queued or leased: the flow lives as long
    struct model *model;
    struct tenant *tenant;
    uint32_t level;
    struct flow *next; // in its bucket, or in the list of spare ones
};

// Service time of one model on one worker: fixed + per row, from running moments of (rows, us).
struct estimate {
    double weight, x, y, xx, xy;
    double fixed_us, row_us;
    uint32_t exec_us, exec_rows, seen_rows; // the execution whose results come in now
    bool known;
};

struct service {
    struct worker *worker;
    struct model *model;
    struct link on_worker;
    uint32_t place; // in model.services, while on
    uint32_t instances;
    bool on; // false: taken off, kept until its last lease is back
    uint32_t requests;
    uint64_t rows;    // leased
    uint64_t work_ns; // estimated, of those rows
    struct estimate estimate;
    double rate;       // rows per us, 0 while unknown; part of model.rate
    uint64_t finished; // virtual time (fair share of the worker among models)
};

struct service_ref {
    struct service *service;
    uint32_t worker; // index: lets a scan skip full workers without touching them
};

struct model {
    struct farm_model_config config;
    farm_model_id id;
    uint64_t share_row; // of one row, in SHARE_ONE
    struct link active; // in farm.active, while something is queued
    struct link levels[SONIC_PRIORITY_LEVELS_MAX];
    uint32_t levels_used; // bit per level with a flow in it
    uint32_t ready;       // queued in flows
    uint64_t ready_rows;
    struct heap suspects; // queued, were on a worker that died
    uint32_t nsuspects;
    uint64_t suspect_rows;
    uint32_t nisolated;      // suspects leased
    struct worker *reserved; // drains for a suspect
    bool held;               // waits for its queue delay
    uint64_t wake_us;        // when `held`, or a slow worker left empty, is to be looked at again
    uint64_t left_since_us;  // slow workers are left empty since; 0: they are not
    struct service_ref *services;
    uint32_t nservices, services_size;
    double rate; // rows per us of all services that are on and known
    uint64_t leased, leased_rows;
    uint64_t accepted, answered;
    double batch_rows, row_us; // running means
};

// Whether and where a peer waits to be visited by the shell.
enum peer_list { PEER_IDLE, PEER_READY, PEER_LATER };

struct client {
    farm_client_id id;
    void *user;
    struct tenant *tenant;
    struct link peer;
    enum peer_list listed;
    struct link answers, sent;
    uint64_t nsent, nreceived; // answers, cumulative
    uint32_t grant_requests;
    uint32_t requests; // accepted, not acknowledged
    uint64_t grant_bytes;
    uint64_t bytes;        // of their inputs
    uint64_t result_bytes; // of their outputs
    struct request **seqs; // open ones by seq, for cancel
    uint32_t seqs_size, nseqs;
};

struct worker {
    farm_worker_id id;
    char name[SONIC_NAME_MAX + 1];
    void *user;
    uint32_t place; // in farm.workers
    uint32_t slots;
    uint32_t room_requests;
    uint64_t room_bytes;
    struct link peer;
    enum peer_list listed;
    struct link outbox, held;
    uint32_t requests; // in both
    uint64_t rows, bytes;
    uint64_t share;   // load in batches, in SHARE_ONE
    uint64_t work_ns; // estimated, over all services
    uint64_t busy_since_us;
    uint64_t clock; // virtual time of its fair share
    struct link services;
    struct model *reserved; // drains for a suspect of this model
    bool isolated;          // holds a suspect
    bool draining;
    struct heap_node timer;
    uint64_t heard_us, moved_us; // last message; last progress, result or first lease
    uint64_t progress;
    uint64_t *revokes;
    uint32_t nrevokes, revokes_size;
    uint64_t answered;
};

// A table of handles: slot -> object, with a generation for each slot.
struct table_slot {
    void *object;
    uint32_t generation;
    uint32_t next_free;
};
struct table {
    struct table_slot *slots;
    uint32_t size, free; // free: slot + 1
};

struct candidate {
    uint64_t finish_ns;
    struct service *service;
};

struct farm {
    struct farm_config config;
    struct farm_stats stats;
    char poison_text[128];
    // records
    struct request **chunks;
    uint32_t nchunks, chunks_size;
    struct link free_requests;
    uint64_t order;
    // models
    struct model *models[SONIC_MODELS_MAX];
    uint32_t nmodels;
    struct link active;
    uint32_t nactive;
    struct flow **flows; // buckets
    uint32_t flows_size, nflows;
    struct flow *spare_flows;
    struct heap deadlines;
    // peers
    struct table clients, worker_table;
    struct tenant *buckets[TENANT_BUCKETS];
    struct tenant **tenants;
    uint32_t ntenants, tenants_size, tenant_number;
    struct worker **workers; // dense
    uint32_t nworkers, workers_size;
    uint8_t *open; // by slot of worker_table: has room for more
    uint32_t nopen;
    struct heap timers;
    void **dead;
    uint32_t ndead, dead_size;
    struct candidate *candidates;
    uint32_t candidates_size;
    struct link ready_clients, later_clients;
    struct link ready_workers, later_workers;
};

// ---- records.c: the slab, and memory that only grows
#define RECORD_COST (sizeof(struct request) + sizeof(struct flow) + 4 * sizeof(void *))
struct request *record_new(struct farm *f);
void record_free(struct farm *f, struct request *r);
struct request *record_at(const struct farm *f, uint32_t index);
// Makes room for `need` items; false and unchanged when out of memory or over UINT32_MAX.
bool array_reserve(void *array, uint32_t *size, uint64_t need, size_t item_bytes);
// 0 when no memory. An id is slot + 1 in the low half and a generation in the high.
uint64_t table_add(struct table *t, void *object);
void *table_get(const struct table *t, uint64_t id);
void table_remove(struct table *t, uint64_t id);
static inline uint32_t table_slot_of(uint64_t id)
{
    return (uint32_t)id - 1;
}

// ---- request.c: what happens to one request
void request_answer(struct farm *f, uint64_t now_us, struct request *r, enum sonic_status status,
                    const char *text);
void request_drop(struct farm *f, struct request *r);    // its client is gone
void request_unlease(struct farm *f, struct request *r); // out of its worker
static inline uint64_t request_lease(const struct request *r)
{
    return r->index | (uint64_t)r->generation << 32;
}
static inline void payload_drop(struct farm *f, struct request *r)
{
    if (r->payload)
        f->config.payload_free(r->payload, f->config.user);
    r->payload = NULL;
}

// ---- queue.c: models, flows, deficit round robin
struct model *model_get(const struct farm *f, farm_model_id id);
struct flow *flow_ref(struct farm *f, struct model *m, uint32_t level, struct tenant *t);
void flow_unref(struct farm *f, struct flow *flow);
void queue_push(struct farm *f, struct request *r);   // a new one
void queue_return(struct farm *f, struct request *r); // one that was leased, to its old place
void queue_remove(struct farm *f, struct request *r);
struct request *queue_next(struct model *m); // whose turn it is; stays queued
struct request *flow_head(const struct flow *flow);
uint64_t queue_oldest_us(const struct model *m); // submission time; UINT64_MAX when empty

// ---- client.c
struct tenant *tenant_ref(struct farm *f, const char *name, size_t len);
void tenant_unref(struct farm *f, struct tenant *t);
void client_ready(struct farm *f, struct client *c);
void client_free(struct farm *f, struct client *c);

// ---- worker.c
struct worker *worker_get(const struct farm *f, farm_worker_id id);
void worker_lease(struct farm *f, uint64_t now_us, struct service *s, struct request *r);
void worker_revoke(struct farm *f, struct worker *w, uint64_t lease);
// Its load or standing changed: is it open for more?
void worker_settle(struct farm *f, struct worker *w);
void worker_unreserve(struct farm *f, struct model *m);
void worker_expire(struct farm *f, uint64_t now_us);
void worker_free(struct farm *f, struct worker *w);
static inline bool worker_takes(const struct worker *w)
{
    return !w->draining && !w->isolated && !w->reserved;
}

// ---- service.c: a model on a worker, and its estimates
struct service *service_on(struct farm *f, struct worker *w, struct model *m, uint32_t instances);
// Takes the model off its worker; s is freed now or with its last lease.
void service_off(struct farm *f, struct service *s);
void service_free(struct service *s);
void service_learn(struct service *s, uint32_t rows, uint32_t exec_us, uint32_t exec_rows);
void service_settle(struct service *s); // recomputes work_ns after rows or estimate changed
uint64_t service_cost_ns(const struct service *s, uint64_t rows);
void service_rate(struct service *s, bool counts);
uint64_t worker_backlog_ns(const struct worker *w, uint64_t now_us);

// ---- outbox.c
void outbox_again(struct farm *f); // puts those that were put off back on the ready lists

// ---- schedule.c
// Binds what can be bound; returns when a held queue must be looked at again.
uint64_t schedule(struct farm *f, uint64_t now_us);

#endif

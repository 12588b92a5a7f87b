// SPDX-License-Identifier: Apache-2.0
// The hand-over between the main loop and the executing threads, with simulated devices: nothing is
// lost, nothing is answered twice, what comes out is what went in. For the thread sanitizer too.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>

#include "common/clock.h"
#include "worker/slots.h"

#define PATIENCE_US 60000000u
#define VALUES 4

struct fx {
    struct fleet fleet;
    struct loaded_model model;
    struct model_entry entry;
    struct job_pool *pool;
    struct slots *slots;
    uint32_t staged, answered, late;
};

static void open_fx(struct fx *f, const char *kind, const char *argument, uint32_t batch_max)
{
    char why[512] = "";
    uint64_t memory;
    memset(f, 0, sizeof(*f));
    struct model_config *c = &f->entry.config;
    strcpy(c->name, "echo");
    c->batch_max = batch_max;
    c->ninputs = c->noutputs = 1;
    c->inputs[0] = (struct tensor_spec){"x", SONIC_UINT32, 1, {VALUES}};
    c->outputs[0] = c->inputs[0];
    f->fleet.executor = executor_find(kind);
    assert_non_null(f->fleet.executor);
    assert_int_equal(f->fleet.executor->probe(argument, &f->fleet.info, why, sizeof(why)), 0);
    assert_int_equal(f->fleet.executor->open(argument, &f->fleet.device, why, sizeof(why)), 0);
    assert_int_equal(f->fleet.executor->load(f->fleet.device, &f->entry, &f->model.handle, &memory,
                                             why, sizeof(why)),
                     0);
    f->model.config = *c;
    f->model.instances = f->fleet.info.slots;
    f->fleet.models = &f->model;
    f->fleet.nmodels = 1;
    f->pool = job_pool_new(1, 4);
    f->slots = slots_new(&f->fleet, f->pool, 100000, 1 << 30);
    assert_non_null(f->slots);
}

static void close_fx(struct fx *f)
{
    slots_free(f->slots);
    job_pool_free(f->pool);
    f->fleet.executor->unload(f->model.handle);
    f->fleet.executor->close(f->fleet.device);
}

// A request of one row that says its lease, in a message of its own.
static struct request *make(struct fx *f, uint64_t lease, uint64_t deadline_us)
{
    struct parcel *p = parcel_new();
    struct message *m = parcel_message(p);
    uint32_t values[VALUES] = {(uint32_t)lease, 1, 2, 3};
    zmq_msg_init_size(&m->frames[0], sizeof(values) + 64);
    memset(zmq_msg_data(&m->frames[0]), 0, sizeof(values) + 64);
    memcpy(zmq_msg_data(&m->frames[0]), values, sizeof(values));
    m->nframes = 1;
    struct request *r = request_new(f->pool);
    r->item.lease = lease;
    r->item.rows = 1;
    r->item.bytes = sizeof(values);
    r->item.deadline_us = deadline_us;
    r->parcel = p; // takes over the reference
    r->ninputs = 1;
    r->inputs[0] = (struct request_input){
        .data = zmq_msg_data(&m->frames[0]), .bytes = sizeof(values), .ndim = 2};
    r->inputs[0].dims[0] = 1;
    r->inputs[0].dims[1] = VALUES;
    parcel_ref_frame(p, 0);
    return r;
}

static void stage(struct fx *f, uint64_t first, uint32_t n, uint64_t deadline_us)
{
    struct batch_item *chain = NULL;
    for (uint32_t i = n; i-- > 0;) {
        struct request *r = make(f, first + i, deadline_us);
        r->item.next = chain;
        chain = &r->item;
    }
    assert_null(slots_put(f->slots, chain));
    f->staged += n;
}

// Every row of the job says the lease of its request.
static void check_job(struct fx *f, struct job *j, bool *seen)
{
    const uint32_t *at = j->status == SONIC_STATUS_OK ? j->x.outputs[0].data : NULL;
    for (struct batch_item *i = j->batch.items; i; i = i->next) {
        assert_false(seen[i->lease]);
        seen[i->lease] = true;
        f->answered++;
        if (at) {
            assert_int_equal(at[0], i->lease);
            at += VALUES;
        } else {
            assert_int_equal(j->status, SONIC_STATUS_DEADLINE);
            f->late++;
        }
    }
    job_unref(j);
}

// Takes what is finished; waits for something first.
static void collect(struct fx *f, bool *seen)
{
    struct pollfd fd = {slots_fd(f->slots), POLLIN, 0};
    assert_true(poll(&fd, 1, PATIENCE_US / 1000) == 1);
    for (struct job *j = slots_finished(f->slots), *next; j; j = next) {
        next = j->next;
        check_job(f, j, seen);
    }
}

static void run(struct fx *f, uint32_t n, uint32_t at_once)
{
    bool *seen = calloc(n, sizeof(*seen));
    for (uint32_t next = 0; f->answered < n;) {
        if (next < n && f->staged - f->answered < 4 * at_once) {
            stage(f, next, at_once, 0);
            next += at_once;
        } else {
            collect(f, seen);
        }
    }
    free(seen);
}

static void test_every_request_comes_back_once(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, "delay", "0,0,4", 16);
    run(&f, 40000, 100);
    close_fx(&f);
}

static void test_an_immediate_executor_needs_no_thread(void **state)
{
    struct fx f;
    bool seen[200] = {false};
    (void)state;
    open_fx(&f, "null", "", 16);
    stage(&f, 0, 100, 0);
    stage(&f, 100, 100, 1); // late
    for (struct job *j = slots_finished(f.slots), *next; j; j = next) {
        next = j->next;
        check_job(&f, j, seen);
    }
    assert_int_equal(f.answered, 200);
    assert_int_equal(f.late, 100);
    assert_null(slots_finished(f.slots));
    close_fx(&f);
}

static void test_slots_work_side_by_side(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, "delay", "200,0,8", 4);
    run(&f, 2000, 50);
    struct slots_load load;
    slots_load(f.slots, &load);
    assert_int_equal(load.rows, 2000);
    assert_true(load.executions >= 500);
    assert_int_equal(load.now.requests, 0);
    close_fx(&f);
}

static void test_late_and_revoked_requests_are_not_executed(void **state)
{
    struct fx f;
    bool seen[300] = {false};
    (void)state;
    open_fx(&f, "delay", "50000", 1);
    stage(&f, 0, 1, 0); // keeps the slot busy
    stage(&f, 100, 50, 1);
    stage(&f, 200, 50, 0);
    for (uint64_t lease = 200; lease < 250; lease++)
        slots_revoke(f.slots, lease);
    struct job *late = slots_expire(f.slots);
    if (late)
        check_job(&f, late, seen);
    while (f.answered < 51)
        collect(&f, seen);
    assert_int_equal(f.late, 50);
    close_fx(&f);
}

static void test_a_new_session_voids_what_is_staged(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, "delay", "20000", 1);
    slots_new_session(f.slots, 1);
    stage(&f, 0, 20, 0);
    uint64_t until_us = clock_now_us() + PATIENCE_US;
    struct slots_load load;
    do { // until one has started
        slots_load(f.slots, &load);
        assert_true(clock_now_us() < until_us);
    } while (load.now.busy == 0);
    slots_new_session(f.slots, 2);
    struct pollfd fd = {slots_fd(f.slots), POLLIN, 0};
    assert_int_equal(poll(&fd, 1, PATIENCE_US / 1000), 1);
    struct job *j = slots_finished(f.slots);
    assert_non_null(j);
    assert_int_equal(j->session, 1); // to be discarded
    assert_null(j->next);
    job_unref(j);
    slots_load(f.slots, &load);
    assert_int_equal(load.now.requests, 0);
    close_fx(&f);
}

static void test_progress_stands_still_while_a_slot_hangs(void **state)
{
    struct fx f;
    struct slots_load load;
    (void)state;
    open_fx(&f, "delay", "300000,0,2", 1);
    uint64_t idle = slots_beat(f.slots).count;
    assert_true(slots_beat(f.slots).count > idle); // idle counts as progress
    stage(&f, 0, 1, 0);
    uint64_t until_us = clock_now_us() + PATIENCE_US;
    do {
        slots_load(f.slots, &load);
        assert_true(clock_now_us() < until_us);
    } while (load.now.busy == 0);
    slots_beat(f.slots); // may still rise: idle since the last one
    struct slots_progress stuck = slots_beat(f.slots), later = slots_beat(f.slots);
    slots_load(f.slots, &load);
    if (load.now.busy) { // not so slow a machine that it is over
        assert_int_equal(later.count, stuck.count);
        assert_int_equal(later.still_beats, stuck.still_beats + 1);
    }
    bool seen[1] = {false};
    collect(&f, seen);
    struct slots_progress over = slots_beat(f.slots);
    assert_true(over.count > later.count);
    assert_int_equal(over.still_beats, 0);
    close_fx(&f);
}

static void test_giving_up_hands_everything_back(void **state)
{
    struct fx f;
    (void)state;
    open_fx(&f, "delay", "20000", 1);
    stage(&f, 0, 20, 0);
    struct job *j = slots_give_up(f.slots, true);
    assert_non_null(j);
    assert_int_equal(j->status, SONIC_STATUS_NOT_LOADED);
    assert_true(j->batch.n >= 19); // one may have started
    job_unref(j);
    close_fx(&f); // waits for that one
}

// ---- an executor's own memory for inputs --------------------------------------------------------

static struct {
    _Alignas(64) uint32_t memory[2 * VALUES];
    uint32_t asked, executed;
} room;

static void *give_room(struct executor_model *m, uint32_t slot, uint32_t input, uint64_t bytes)
{
    (void)m;
    assert_true(slot == 0 && input == 0);
    room.asked++;
    return bytes <= sizeof(room.memory) ? room.memory : NULL;
}

static enum executor_outcome execute_in_room(struct executor_model *m, uint32_t slot,
                                             struct execution *x)
{
    bool fits = x->inputs[0].bytes <= sizeof(room.memory);
    assert_int_equal(x->inputs[0].data == room.memory, fits);
    room.executed++;
    return executor_find("null")->execute(m, slot, x);
}

// One request or several, those that lie side by side as well: all are copied there, once, and what
// does not fit is laid elsewhere.
static void test_inputs_are_laid_where_the_executor_wants_them(void **state)
{
    (void)state;
    struct fx f;
    bool seen[6] = {false};
    open_fx(&f, "null", "", 3);
    struct executor executor = *f.fleet.executor;
    executor.input_room = give_room;
    executor.execute = execute_in_room;
    f.fleet.executor = &executor;
    memset(&room, 0, sizeof(room));
    for (uint32_t n = 1, first = 0; n <= 3; first += n++) {
        stage(&f, first, n, 0);
        struct job *j = slots_finished(f.slots);
        assert_non_null(j);
        assert_null(j->next);
        check_job(&f, j, seen);
    }
    assert_int_equal(f.answered, 6);
    assert_int_equal(room.asked, 3);
    assert_int_equal(room.executed, 3);
    close_fx(&f);
}

// ---- copies -------------------------------------------------------------------------------------

static const void *frame; // of the request that was made last
static uint32_t in_place, elsewhere;

static enum executor_outcome execute_noting_where(struct executor_model *m, uint32_t slot,
                                                  struct execution *x)
{
    if (x->inputs[0].data == frame)
        in_place++;
    else
        elsewhere++;
    return executor_find("null")->execute(m, slot, x);
}

// Nothing is copied between the frame and the executor; what an executor makes of it is the one
// copy, as an OpenCL device's conversion into the memory that the device reads.
static void test_a_request_alone_is_executed_from_its_frame(void **state)
{
    (void)state;
    struct fx f;
    bool seen[12] = {false};
    open_fx(&f, "null", "", 4);
    struct executor executor = *f.fleet.executor;
    executor.execute = execute_noting_where;
    f.fleet.executor = &executor;
    in_place = elsewhere = 0;
    for (uint32_t i = 0; i < 10; i++) {
        struct request *r = make(&f, i, 0);
        frame = r->inputs[0].data;
        assert_null(slots_put(f.slots, &r->item));
        check_job(&f, slots_finished(f.slots), seen);
    }
    assert_int_equal(in_place, 10);
    stage(&f, 10, 2, 0); // from two messages: gathered
    check_job(&f, slots_finished(f.slots), seen);
    assert_int_equal(in_place, 10);
    assert_int_equal(elsewhere, 1);
    close_fx(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_request_comes_back_once),
        cmocka_unit_test(test_an_immediate_executor_needs_no_thread),
        cmocka_unit_test(test_slots_work_side_by_side),
        cmocka_unit_test(test_late_and_revoked_requests_are_not_executed),
        cmocka_unit_test(test_a_new_session_voids_what_is_staged),
        cmocka_unit_test(test_progress_stands_still_while_a_slot_hangs),
        cmocka_unit_test(test_giving_up_hands_everything_back),
        cmocka_unit_test(test_inputs_are_laid_where_the_executor_wants_them),
        cmocka_unit_test(test_a_request_alone_is_executed_from_its_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

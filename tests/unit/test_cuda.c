// SPDX-License-Identifier: Apache-2.0
// The GPU's part of a worker on the tests' own CUDA (tests/gpu/stub_cuda.h): lanes, row counts,
// memory's layout, and the schedule of consecutive batches on the stub's virtual timeline.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/model_repository.h"
#include "tests/gpu/stub_cuda.h"
#include "worker/executors/cuda/process/onnx.h"

#define SLOTS 4u
#define ROWS 64u

static char why[1024];

static struct model_config config(const char *extra)
{
    static const char model[] = "name: \"affine\" backend: \"onnxruntime\" max_batch_size: 64\n"
                                "input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 3 ] } ]\n"
                                "output [ { name: \"y\" data_type: TYPE_FP32 dims: [ 3 ] } ]\n";
    char text[1024];
    struct model_config c;
    snprintf(text, sizeof(text), "%s%s", model, extra);
    if (model_config_parse(text, strlen(text), "config.pbtxt", &c, NULL, NULL, why, sizeof(why)) !=
        0)
        fail_msg("%s", why);
    return c;
}

// ---- pure ---------------------------------------------------------------------------------------

static void lanes_share_the_batches(void **state)
{
    struct lanes l = {.n = 3};
    uint32_t seen[3] = {0};
    (void)state;
    for (int i = 0; i < 6; i++)
        seen[lanes_take(&l)]++;
    for (int i = 0; i < 3; i++)
        assert_int_equal(seen[i], 2);
    lanes_give(&l, 1);
    assert_int_equal(lanes_take(&l), 1); // the one that has less to do
}

static void buckets_hold_every_number_of_rows(void **state)
{
    struct model_config c =
        config("parameters { key: \"sonic_default_batch\" value { string_value: \"50\" } }");
    static const uint32_t wanted[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 50, 64};
    struct buckets b;
    (void)state;
    assert_int_equal(buckets_make(&b, &c, why, sizeof(why)), 0);
    assert_int_equal(b.n, 13);
    assert_memory_equal(b.rows, wanted, sizeof(wanted));
    for (uint32_t rows = 1; rows <= 64; rows++) {
        uint32_t i = buckets_find(&b, rows);
        assert_true(b.rows[i] >= rows && (i == 0 || b.rows[i - 1] < rows));
    }
}

static void named_buckets_are_the_only_ones(void **state)
{
    struct model_config c =
        config("parameters { key: \"sonic_cuda_buckets\" value { string_value: \"32,8,8\" } }");
    struct buckets b;
    (void)state;
    assert_int_equal(buckets_make(&b, &c, why, sizeof(why)), 0);
    assert_int_equal(b.n, 3); // and the largest that there can be
    assert_int_equal(b.rows[0], 8);
    assert_int_equal(b.rows[1], 32);
    assert_int_equal(b.rows[2], 64);
    assert_int_equal(buckets_find(&b, 9), 1);
}

static void no_two_tensors_meet_in_memory(void **state)
{
    struct model_config c = config("");
    struct cuda_layout l;
    (void)state;
    assert_int_equal(cuda_layout_make(&l, &c, SLOTS, why, sizeof(why)), 0);
    assert_int_equal(l.input_row[0], 12);
    assert_true(l.places > l.slots);
    for (uint32_t i = 0; i < l.slots; i++)
        assert_int_equal(cuda_layout_input(&l, i, 0) % 4096, 0);
    assert_true(cuda_layout_input(&l, 1, 0) >= cuda_layout_input(&l, 0, 0) + 12 * ROWS);
    assert_true(cuda_layout_output(&l, 0, 0) >= cuda_layout_input(&l, SLOTS - 1, 0) + 12 * ROWS);
    assert_true(cuda_layout_output(&l, l.places - 1, 0) + 12 * ROWS <= l.bytes);
}

// In the words of ONNX Runtime, cuBLAS and cuDNN.
static void a_lack_of_memory_is_told_from_other_failures(void **state)
{
    static const char *const lacks[] = {
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc(&p, size);",
        "BFCArena: Failed to allocate memory for requested buffer of size 256",
        "BFCArena: Available memory of 0 is smaller than requested bytes of 256",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "CUDNN failure 4008: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    };
    static const char *const others[] = {
        "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
        "Non-zero status code returned while running Gemm node",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(lacks) / sizeof(lacks[0]); i++)
        assert_true(onnx_is_no_memory(lacks[i]));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        assert_false(onnx_is_no_memory(others[i]));
}

// ---- a device -----------------------------------------------------------------------------------

struct bench {
    struct device device;
    struct device_model *model;
    uint8_t *memory; // as the worker maps it
};

static void open_bench(struct bench *b, const char *extra)
{
    static struct pipe_load load;
    struct cuda_layout l;
    uint64_t bytes;
    memset(b, 0, sizeof(*b));
    load = (struct pipe_load){.config = config(extra)};
    snprintf(load.version_dir, sizeof(load.version_dir), "%s/affine/1", TEST_MODELS);
    assert_int_equal(cuda_layout_make(&l, &load.config, SLOTS, why, sizeof(why)), 0);
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)l.bytes), 0);
    b->memory = mmap(NULL, l.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (device_open(&b->device, "", SLOTS, why, sizeof(why)) != 0 ||
        device_load(&b->device, &load, fd, &bytes, why, sizeof(why)) != 0)
        fail_msg("%s", why);
    b->model = b->device.models[0];
}

static void close_bench(struct bench *b)
{
    munmap(b->memory, b->model->layout.bytes);
}

static float *input(const struct bench *b, uint32_t slot)
{
    return (float *)(void *)(b->memory + cuda_layout_input(&b->model->layout, slot, 0));
}

static const float *output(const struct bench *b, uint32_t place)
{
    return (const float *)(const void *)(b->memory +
                                         cuda_layout_output(&b->model->layout, place, 0));
}

static void begin(struct bench *b, uint32_t k)
{
    uint32_t slot = k % SLOTS;
    for (uint32_t i = 0; i < 3 * ROWS; i++)
        input(b, slot)[i] = (float)(k * 1000 + i);
    if (device_begin(&b->device, slot, b->model, 0, ROWS, slot, why, sizeof(why)) != DEVICE_OK)
        fail_msg("%s", why);
}

static void end(struct bench *b, uint32_t k)
{
    struct pipe_done done = {0};
    if (device_end(&b->device, k % SLOTS, &done) != DEVICE_OK)
        fail_msg("%s", done.text);
    for (uint32_t i = 0; i < 3 * ROWS; i++)
        assert_true(output(b, k % SLOTS)[i] == 2 * (float)(k * 1000 + i) + 1);
}

// Consecutive batches, each slot's next as soon as its last is done.
static void run_batches(struct bench *b, uint32_t n)
{
    for (uint32_t k = 0; k < n + SLOTS; k++) {
        if (k >= SLOTS)
            end(b, k - SLOTS);
        if (k < n)
            begin(b, k);
    }
}

static void check_schedule(struct bench *b, uint64_t row_ns)
{
    uint64_t busy[STUB_NO_ENGINE], longest = 0, base = stub_timeline_end_ns();
    for (int i = 0; i < STUB_NO_ENGINE; i++)
        busy[i] = stub_timeline_busy_ns(i);
    uint32_t slow = stub_slow_calls(), allocations = stub_allocations();
    stub_timeline_begin(1, row_ns);
    run_batches(b, 200);
    uint64_t took = stub_timeline_end_ns() - base;
    for (int i = 0; i < STUB_NO_ENGINE; i++) {
        busy[i] = stub_timeline_busy_ns(i) - busy[i];
        longest = busy[i] > longest ? busy[i] : longest;
    }
    print_message(
        "row_ns=%llu: in %.1f ms, out %.1f ms, compute %.1f ms, makespan %.1f ms, %.3f of "
        "the longest\n",
        (unsigned long long)row_ns, (double)busy[STUB_COPY_IN] / 1e6,
        (double)busy[STUB_COPY_OUT] / 1e6, (double)busy[STUB_COMPUTE] / 1e6, (double)took / 1e6,
        (double)took / (double)longest);
    assert_true(took >= longest);
    assert_true(took * 100 <= longest * 105);
    assert_int_equal(stub_slow_calls(), slow);
    assert_int_equal(stub_allocations(), allocations);
}

// 64 rows of 12 bytes at a byte a microsecond: 768 us each way, beside 64, 768 and 2,304 us.
static void copies_hide_behind_computing(void **state)
{
    static struct bench b;
    (void)state;
    open_bench(&b, "");
    check_schedule(&b, 1000);
    check_schedule(&b, 12000);
    check_schedule(&b, 36000);
    close_bench(&b);
}

static void lanes_share_the_copy_engines(void **state)
{
    static struct bench b;
    (void)state;
    open_bench(&b, "instance_group [ { kind: KIND_GPU count: 2 } ]");
    assert_int_equal(b.model->lanes.n, 2);
    check_schedule(&b, 1000);
    check_schedule(&b, 36000);
    close_bench(&b);
}

// Each GPU has the count of the groups that name it, or none by name.
static void lanes_are_of_the_groups_that_name_this_gpu(void **state)
{
    static struct bench b;
    (void)state;
    open_bench(&b, "instance_group [ { kind: KIND_GPU count: 1 gpus: [ 0 ] },\n"
                   "  { kind: KIND_GPU count: 3 gpus: [ 1 ] }, { kind: KIND_CPU count: 5 } ]");
    assert_int_equal(b.model->lanes.n, 1);
    close_bench(&b);
}

static void every_number_of_rows_gives_its_results(void **state)
{
    static struct bench b;
    (void)state;
    open_bench(&b, "");
    for (uint32_t i = 0; i < 3 * ROWS; i++)
        input(&b, 2)[i] = (float)i;
    for (uint32_t rows = 1; rows <= ROWS; rows++) {
        struct pipe_run run = {0, rows, SLOTS + 1};
        struct pipe_done done;
        device_run(&b.device, 2, &run, &done);
        assert_int_equal(done.outcome, PIPE_OK);
        for (uint32_t i = 0; i < 3 * rows; i++)
            assert_true(output(&b, SLOTS + 1)[i] == 2 * (float)i + 1);
    }
    close_bench(&b);
}

// As the process's threads do: each has a slot, all share the lanes.
struct user {
    struct bench *bench;
    uint32_t slot, wrong;
    pthread_t thread;
};

static void *use_slot(void *user)
{
    struct user *u = user;
    struct bench *b = u->bench;
    for (uint32_t k = 1; k <= ROWS; k++) {
        struct pipe_run run = {0, k, u->slot};
        struct pipe_done done;
        for (uint32_t i = 0; i < 3 * k; i++)
            input(b, u->slot)[i] = (float)(u->slot * 1000 + k + i);
        device_run(&b->device, u->slot, &run, &done);
        for (uint32_t i = 0; i < 3 * k; i++)
            u->wrong += output(b, u->slot)[i] != 2 * (float)(u->slot * 1000 + k + i) + 1;
        u->wrong += done.outcome != PIPE_OK;
    }
    return NULL;
}

static void check_threads(const char *extra)
{
    // A process never unloads; what a test leaves must stay in reach, or it would be taken for a
    // leak.
    static struct bench benches[2];
    static unsigned used;
    assert_true(used < 2);
    struct bench *b = &benches[used++];
    struct user users[SLOTS];
    open_bench(b, extra);
    uint32_t slow = stub_slow_calls();
    for (uint32_t i = 0; i < SLOTS; i++) {
        users[i] = (struct user){b, i, 0, 0};
        assert_int_equal(pthread_create(&users[i].thread, NULL, use_slot, &users[i]), 0);
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        pthread_join(users[i].thread, NULL);
        assert_int_equal(users[i].wrong, 0);
    }
    assert_int_equal(stub_slow_calls(), slow);
    close_bench(b);
}

static void slots_run_at_once(void **state)
{
    (void)state;
    check_threads("instance_group [ { kind: KIND_GPU count: 2 } ]");
}

static void graphs_are_one_threads_alone(void **state)
{
    (void)state;
    check_threads("instance_group [ { kind: KIND_GPU count: 2 } ]\n"
                  "parameters { key: \"sonic_cuda_graphs\" value { string_value: \"1\" } }");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_share_the_batches),
        cmocka_unit_test(buckets_hold_every_number_of_rows),
        cmocka_unit_test(named_buckets_are_the_only_ones),
        cmocka_unit_test(no_two_tensors_meet_in_memory),
        cmocka_unit_test(a_lack_of_memory_is_told_from_other_failures),
        cmocka_unit_test(copies_hide_behind_computing),
        cmocka_unit_test(lanes_share_the_copy_engines),
        cmocka_unit_test(lanes_are_of_the_groups_that_name_this_gpu),
        cmocka_unit_test(every_number_of_rows_gives_its_results),
        cmocka_unit_test(slots_run_at_once),
        cmocka_unit_test(graphs_are_one_threads_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

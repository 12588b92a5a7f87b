// SPDX-License-Identifier: Apache-2.0
#include "tests/gpu/stub_cuda.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gpu/stub_engine.h"
#include "tests/stub_faults.h"
#include "worker/kernels/facile_launch.h"

// The prototypes that the device process finds by name.
#define DECLARE(name, args) STUB_API int name args;
CUDART_FUNCTIONS(DECLARE)
LIBCUDA_FUNCTIONS(DECLARE)
STUB_API const char *cudaGetErrorName(int e);
STUB_API const char *cudaGetErrorString(int e);

#define RETURN_FAULT()                                                                             \
    do {                                                                                           \
        int fault_ = stub_fault(__func__);                                                         \
        fault_ = fault_ ? fault_ : engine_sticky();                                                \
        if (fault_)                                                                                \
            return fault_;                                                                         \
    } while (0)

static atomic_uint slow_calls, allocations;
static atomic_ullong used_bytes;
static uint64_t copy_bytes_per_us = 10000, computed_row_ns = 10;

static unsigned long number(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text && text[0] ? strtoul(text, NULL, 10) : otherwise;
}

void stub_slow(const char *what)
{
    const char *path = getenv("SONIC_STUB_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;
    atomic_fetch_add(&slow_calls, 1);
    if (file) {
        fprintf(file, "%s\n", what);
        fclose(file);
    }
}

uint32_t stub_slow_calls(void)
{
    return atomic_load(&slow_calls);
}

uint32_t stub_allocations(void)
{
    return atomic_load(&allocations);
}

void stub_timeline_begin(uint64_t bytes_per_us, uint64_t row_ns)
{
    copy_bytes_per_us = bytes_per_us;
    computed_row_ns = row_ns;
}

uint64_t stub_row_ns(void)
{
    return computed_row_ns;
}

static int gpus(void)
{
    const char *gone = getenv("SONIC_STUB_GONE"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible && !visible[0])
        return 0;
    return gone && access(gone, F_OK) == 0 ? 0 : (int)number("SONIC_STUB_GPUS", 1);
}

// ---- the machine --------------------------------------------------------------------------------

int cudaDriverGetVersion(int *version)
{
    *version = (int)number("SONIC_STUB_DRIVER", 13000);
    return stub_fault(__func__);
}

int cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return stub_fault(__func__);
}

int cudaGetDeviceCount(int *n)
{
    RETURN_FAULT();
    *n = gpus();
    return *n ? 0 : 100;
}

int cudaDeviceGetPCIBusId(char *bus, int size, int device)
{
    RETURN_FAULT();
    snprintf(bus, (size_t)size, "0000:%02x:00.0", 0x65 + device);
    return 0;
}

int cudaSetDevice(int device)
{
    RETURN_FAULT();
    return device < gpus() ? 0 : 101;
}

static _Thread_local int last_error;

void stub_leave_error(int e)
{
    last_error = e;
}

int stub_peek_error(void)
{
    return last_error;
}

int cudaGetLastError(void)
{
    int e = engine_sticky();
    e = e ? e : last_error;
    last_error = 0;
    return e;
}

const char *cudaGetErrorName(int e)
{
    return e == 0     ? "cudaSuccess"
           : e == 2   ? "cudaErrorMemoryAllocation"
           : e == 46  ? "cudaErrorDevicesUnavailable"
           : e == 700 ? "cudaErrorIllegalAddress"
                      : "cudaErrorOfTheStub";
}

const char *cudaGetErrorString(int e)
{
    return e == 2 ? "out of memory" : "in the stub's words";
}

int cuInit(unsigned flags)
{
    (void)flags;
    return stub_fault(__func__);
}

int cuDeviceGet(int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}

int cuDeviceGetName(char *name, int size, int device)
{
    (void)device;
    snprintf(name, (size_t)size, "Stub GPU");
    return 0;
}

int cuDeviceGetUuid_v2(unsigned char *uuid, int device)
{
    for (int i = 0; i < 16; i++)
        uuid[i] = (unsigned char)(i * 0x11 + device);
    return stub_fault(__func__);
}

int cuGetErrorName(int error, const char **name)
{
    *name = cudaGetErrorName(error);
    return 0;
}

// ---- memory -------------------------------------------------------------------------------------

// Each allocation's size lies before it.
#define FRONT 256u

int cudaMemGetInfo(size_t *left, size_t *all)
{
    RETURN_FAULT();
    *all = number("SONIC_STUB_MIB", 1024) << 20;
    *left = *all - atomic_load(&used_bytes);
    return 0;
}

int cudaMalloc(void **memory, size_t bytes)
{
    RETURN_FAULT();
    stub_slow(__func__);
    size_t left, all;
    cudaMemGetInfo(&left, &all);
    char *at =
        bytes <= left ? aligned_alloc(FRONT, FRONT + (bytes + FRONT - 1) / FRONT * FRONT) : NULL;
    if (!at)
        return 2;
    // What nobody has written is not zeros.
    memset(at + FRONT, 0xab, bytes);
    memcpy(at, &bytes, sizeof(bytes));
    atomic_fetch_add(&used_bytes, bytes);
    atomic_fetch_add(&allocations, 1);
    *memory = at + FRONT;
    return 0;
}

int cudaFree(void *memory)
{
    RETURN_FAULT();
    stub_slow(__func__);
    if (!memory)
        return 0;
    size_t bytes;
    memcpy(&bytes, (char *)memory - FRONT, sizeof(bytes));
    atomic_fetch_sub(&used_bytes, bytes);
    atomic_fetch_sub(&allocations, 1);
    free((char *)memory - FRONT);
    return 0;
}

#define PINNED_MAX 64u

static struct range {
    const char *from, *to;
} pinned[PINNED_MAX];
static uint32_t npinned;
static pthread_mutex_t pinned_lock = PTHREAD_MUTEX_INITIALIZER;

int cudaHostRegister(void *memory, size_t bytes, unsigned flags)
{
    RETURN_FAULT();
    stub_slow(__func__);
    if (((uintptr_t)memory | bytes) % 4096 != 0 || flags != CUDA_HOST_PORTABLE)
        return 1;
    pthread_mutex_lock(&pinned_lock);
    if (npinned == PINNED_MAX)
        abort();
    pinned[npinned++] = (struct range){memory, (char *)memory + bytes};
    pthread_mutex_unlock(&pinned_lock);
    return 0;
}

int cudaHostUnregister(void *memory)
{
    RETURN_FAULT();
    stub_slow(__func__);
    pthread_mutex_lock(&pinned_lock);
    uint32_t i = 0;
    while (i < npinned && pinned[i].from != memory)
        i++;
    bool known = i < npinned;
    if (known)
        pinned[i] = pinned[--npinned];
    pthread_mutex_unlock(&pinned_lock);
    return known ? 0 : 1;
}

static bool is_pinned(const char *at, size_t bytes)
{
    bool inside = false;
    pthread_mutex_lock(&pinned_lock);
    for (uint32_t i = 0; i < npinned && !inside; i++)
        inside = pinned[i].from <= at && at + bytes <= pinned[i].to;
    pthread_mutex_unlock(&pinned_lock);
    return inside;
}

struct move {
    void *to;
    const void *from; // NULL: set to `byte`
    size_t bytes;
    int byte;
};

static int move(void *user)
{
    struct move *m = user;
    int e = stub_fault("copy");
    if (!e && m->from)
        memcpy(m->to, m->from, m->bytes);
    else if (!e)
        memset(m->to, m->byte, m->bytes);
    free(m);
    return e;
}

static int submit_move(struct move value, cuda_stream stream, enum stub_engine engine)
{
    struct stub_access all[] = {{value.to, value.bytes, true, engine == STUB_COPY_OUT},
                                {value.from, value.bytes, false, engine == STUB_COPY_IN}};
    struct move *m = malloc(sizeof(*m));
    if (!m)
        abort();
    *m = value;
    return engine_submit(stream, move, m, all, value.from ? 2 : 1, engine,
                         value.bytes * 1000 / copy_bytes_per_us);
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, cuda_stream stream)
{
    RETURN_FAULT();
    if (!is_pinned(kind == CUDA_TO_DEVICE ? from : to, bytes))
        stub_slow("cudaMemcpyAsync of memory that is not pinned"); // CUDA waits for it
    return submit_move((struct move){to, from, bytes, 0}, stream,
                       kind == CUDA_TO_DEVICE ? STUB_COPY_IN : STUB_COPY_OUT);
}

int cudaMemsetAsync(void *memory, int byte, size_t bytes, cuda_stream stream)
{
    RETURN_FAULT();
    return submit_move((struct move){memory, NULL, bytes, byte}, stream, STUB_NO_ENGINE);
}

// ---- streams and events -------------------------------------------------------------------------

int cudaStreamCreateWithFlags(cuda_stream *stream, unsigned flags)
{
    RETURN_FAULT();
    stub_slow(__func__);
    return flags == CUDA_STREAM_NON_BLOCKING ? engine_stream_new(stream) : 1;
}

int cudaStreamDestroy(cuda_stream stream)
{
    RETURN_FAULT();
    stub_slow(__func__);
    return stream ? 0 : 1;
}

int cudaStreamWaitEvent(cuda_stream stream, cuda_event event, unsigned flags)
{
    RETURN_FAULT();
    return flags ? 1 : engine_wait(stream, event);
}

int cudaStreamSynchronize(cuda_stream stream)
{
    RETURN_FAULT();
    stub_slow(__func__);
    return engine_drain(stream);
}

int cudaEventCreateWithFlags(cuda_event *event, unsigned flags)
{
    RETURN_FAULT();
    stub_slow(__func__);
    return flags == CUDA_EVENT_BLOCKING_SYNC ? engine_event_new(event) : 1;
}

int cudaEventDestroy(cuda_event event)
{
    RETURN_FAULT();
    stub_slow(__func__);
    free(event);
    return 0;
}

int cudaEventRecord(cuda_event event, cuda_stream stream)
{
    RETURN_FAULT();
    return engine_record(event, stream);
}

int cudaEventSynchronize(cuda_event event)
{
    RETURN_FAULT();
    return engine_synchronize(event);
}

int cudaEventElapsedTime(float *ms, cuda_event from, cuda_event to)
{
    RETURN_FAULT();
    return engine_elapsed_ms(ms, from, to);
}

// ---- computing ----------------------------------------------------------------------------------

struct computation {
    stub_work work;
    void *user;
};

static int compute(void *user)
{
    struct computation *c = user;
    int e = stub_fault("kernel");
    e = e ? e : c->work(c->user);
    free(c);
    return e;
}

int stub_compute(cuda_stream stream, stub_work work, void *user, const struct stub_access *accesses,
                 size_t n, uint64_t virtual_ns)
{
    struct computation *c = malloc(sizeof(*c));
    if (!c)
        abort();
    *c = (struct computation){work, user};
    return engine_submit(stream, compute, c, accesses, n, STUB_COMPUTE, virtual_ns);
}

static char the_module, the_facile;

int cuModuleLoadData(void **module, const void *image)
{
    RETURN_FAULT();
    *module = &the_module;
    return image ? 0 : 1;
}

int cuModuleUnload(void *module)
{
    return module == &the_module ? 0 : 1;
}

int cuModuleGetFunction(void **function, void *module, const char *name)
{
    RETURN_FAULT();
    *function = &the_facile;
    return module == &the_module && strcmp(name, FACILE_KERNEL) == 0 ? 0 : 500; // not found
}

// Arguments are taken when it is launched, as CUDA does.
struct facile {
    const float *rows, *weights;
    float *energy;
    unsigned n;
};

static int facile(void *user)
{
    struct facile *f = user;
    for (unsigned i = 0; i < f->n; i++)
        f->energy[i] = facile_row(f->rows + (size_t)i * FACILE_INPUTS, f->weights);
    free(f);
    return 0;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   cuda_stream stream, void **args, void **extra)
{
    RETURN_FAULT();
    unsigned n, grid, block, shared;
    struct facile *f = malloc(sizeof(*f));
    if (!f)
        abort();
    memcpy(&n, args[3], sizeof(n));
    facile_launch(n, &grid, &block, &shared);
    if (function != &the_facile || extra || grid_x != grid || block_x != block ||
        shared_bytes != shared || grid_y * grid_z * block_y * block_z != 1) {
        free(f);
        return 1;
    }
    *f = (struct facile){*(const float **)args[0], *(const float **)args[2], *(float **)args[1], n};
    const struct stub_access accesses[] = {
        {f->rows, n * FACILE_INPUTS * sizeof(float), false, false},
        {f->weights, FACILE_WEIGHTS * sizeof(float), false, false},
        {f->energy, n * sizeof(float), true, false},
    };
    return stub_compute(stream, facile, f, accesses, 3, n * computed_row_ns);
}

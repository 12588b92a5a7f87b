// SPDX-License-Identifier: Apache-2.0
// Bare OpenCL: the kernels of a bundle in a loop over memory of their own, nothing else: no
// process, no wire, no watch. It shares the manifest's reader and the conversion with the worker,
// and nothing of how the worker runs a device: this is the yardstick that the farm is held against.
// One JSON line for each number of slots and kind of queue.
//
//   bench_opencl --models DIR --model NAME --input FP32-FILE [--platform PART] [--rows N]
//                [--seconds S] [--slots 1,2,4] [--convert]
//
// --convert: each run's rows are also brought from FP32 and its results back, by the slot's thread.
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/exitcode.h"
#include "common/model_repository.h"
#include "worker/executors/opencl/bundle.h"
#include "worker/executors/opencl/convert.h"

#define SLOTS_MAX 16
#define PAGE 4096u

static struct model_entry entry;
static struct bundle bundle;
static cl_device_id device;
static cl_context context;
static cl_program program;
static float *rows_in; // of the first input, as a client sends them

struct slot {
    pthread_t thread;
    cl_command_queue queue;
    cl_kernel kernel;
    cl_mem *buffers;
    void **host;
    float *rows_out;
    uint32_t rows;
    bool convert;
    uint64_t runs;
    double busy_us;
    atomic_bool *stop;
};

static void must(cl_int e, const char *what)
{
    if (e == CL_SUCCESS)
        return;
    fprintf(stderr, "bench_opencl: %s: OpenCL error %d\n", what, (int)e);
    exit(EXIT_MODEL);
}

static void give_up(const char *what)
{
    fprintf(stderr, "bench_opencl: %s\n", what);
    exit(EXIT_MODEL);
}

// ---- the device and its program -----------------------------------------------------------------

static void open_device(const char *wanted)
{
    cl_platform_id ids[16];
    cl_uint n = 0;
    char name[200];
    cl_int e;
    must(clGetPlatformIDs(16, ids, &n), "platforms");
    for (cl_uint i = 0; i < n && i < 16 && !device; i++) {
        must(clGetPlatformInfo(ids[i], CL_PLATFORM_NAME, sizeof(name), name, NULL), "platform");
        if (strstr(name, wanted))
            must(clGetDeviceIDs(ids[i], CL_DEVICE_TYPE_ALL, 1, &device, NULL), name);
    }
    if (!device)
        give_up("there is no such platform");
    context = clCreateContext(NULL, 1, &device, NULL, NULL, &e);
    must(e, "context");
}

static void build_program(void)
{
    static char text[1 << 20];
    const char *source = text;
    const struct bundle_program *p = &bundle.programs[0];
    char path[4400];
    cl_int e;
    snprintf(path, sizeof(path), "%s/%s", bundle.dir, p->file);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof(text), f) : 0;
    if (f)
        fclose(f);
    if (n == 0 || n == sizeof(text) || !p->source)
        give_up("the bundle's first program is no source of less than a MiB");
    program = clCreateProgramWithSource(context, 1, &source, &n, &e);
    must(e, path);
    must(clBuildProgram(program, 1, &device, p->options, NULL, NULL), path);
}

// ---- a slot -------------------------------------------------------------------------------------

static void set_args(struct slot *s)
{
    const struct bundle_launch *launch = &bundle.launches[0];
    cl_int rows = (cl_int)s->rows;
    for (uint32_t k = 0; k < launch->nargs; k++)
        switch (launch->args[k].kind) {
        case BUNDLE_ARG_BUFFER:
            must(clSetKernelArg(s->kernel, k, sizeof(cl_mem),
                                &s->buffers[launch->args[k].is.buffer]),
                 "argument");
            break;
        case BUNDLE_ARG_ROWS:
            must(clSetKernelArg(s->kernel, k, sizeof(rows), &rows), "argument");
            break;
        default:
            give_up("only buffers and rows are arguments here");
        }
}

static void make_slot(struct slot *s, cl_command_queue queue)
{
    cl_int e;
    s->queue = queue;
    s->buffers = calloc(bundle.nbuffers, sizeof(cl_mem));
    s->host = calloc(bundle.nbuffers, sizeof(void *));
    s->rows_out = calloc(s->rows, bundle.outputs[0].elements * sizeof(float));
    for (uint32_t i = 0; i < bundle.nbuffers; i++) {
        const struct bundle_buffer *b = &bundle.buffers[i];
        bool in = b->use == BUNDLE_INPUT;
        s->host[i] = aligned_alloc(PAGE, (b->bytes + PAGE - 1) / PAGE * PAGE);
        if (!s->host[i] || (!in && b->use != BUNDLE_OUTPUT))
            give_up("only INPUT and OUTPUT buffers are possible here");
        s->buffers[i] = clCreateBuffer(
            context, CL_MEM_USE_HOST_PTR | (in ? CL_MEM_READ_ONLY : CL_MEM_WRITE_ONLY), b->bytes,
            s->host[i], &e);
        must(e, b->name);
        clEnqueueMapBuffer(queue, s->buffers[i], CL_TRUE, in ? CL_MAP_WRITE : CL_MAP_READ, 0,
                           b->bytes, 0, NULL, NULL, &e);
        must(e, b->name);
    }
    s->kernel = clCreateKernel(program, bundle.launches[0].kernel, &e);
    must(e, bundle.launches[0].kernel);
    set_args(s);
}

static void free_slot(struct slot *s)
{
    for (uint32_t i = 0; i < bundle.nbuffers; i++) {
        clReleaseMemObject(s->buffers[i]);
        free(s->host[i]);
    }
    clReleaseKernel(s->kernel);
    free(s->buffers);
    free(s->host);
    free(s->rows_out);
}

static void bring_in(const struct slot *s)
{
    const struct bundle_io *io = &bundle.inputs[0];
    char why[200];
    if (!convert_input(io, rows_in, s->rows, s->host[io->buffer], bundle.buffers[io->buffer].bytes,
                       why, sizeof(why)))
        give_up(why);
}

// Buffers over, the kernel, buffers back; by events, whatever the queue's order is.
static void run_once(struct slot *s)
{
    cl_event over[BUNDLE_BUFFERS_MAX], back[BUNDLE_BUFFERS_MAX], ran;
    cl_int e;
    for (uint32_t i = 0; i < bundle.nbuffers; i++)
        must(clEnqueueUnmapMemObject(s->queue, s->buffers[i], s->host[i], 0, NULL, &over[i]),
             "unmap");
    must(clEnqueueTask(s->queue, s->kernel, bundle.nbuffers, over, &ran), "kernel");
    for (uint32_t i = 0; i < bundle.nbuffers; i++) {
        bool in = bundle.buffers[i].use == BUNDLE_INPUT;
        clEnqueueMapBuffer(s->queue, s->buffers[i], CL_FALSE,
                           in ? CL_MAP_WRITE_INVALIDATE_REGION : CL_MAP_READ, 0,
                           bundle.buffers[i].bytes, 1, &ran, &back[i], &e);
        must(e, "map");
    }
    must(clWaitForEvents(bundle.nbuffers, back), "wait");
    clReleaseEvent(ran);
    for (uint32_t i = 0; i < bundle.nbuffers; i++) {
        clReleaseEvent(over[i]);
        clReleaseEvent(back[i]);
    }
}

static void *run(void *user)
{
    struct slot *s = user;
    const struct bundle_io *out = &bundle.outputs[0];
    uint64_t start_us = clock_now_us();
    bring_in(s);
    while (!atomic_load_explicit(s->stop, memory_order_relaxed)) {
        if (s->convert)
            bring_in(s);
        run_once(s);
        if (s->convert)
            convert_output(out, s->host[out->buffer], s->rows, s->rows_out);
        s->runs++;
    }
    s->busy_us = (double)(clock_now_us() - start_us);
    return NULL;
}

// ---- measuring ----------------------------------------------------------------------------------

struct setting {
    uint32_t slots, rows;
    bool out_of_order, convert;
    double seconds;
};

// Rows per second over all slots, each over the time that it ran. A fifth of a second warms up.
static double measure(const struct setting *x)
{
    static struct slot slots[SLOTS_MAX];
    cl_command_queue queues[SLOTS_MAX];
    double rate = 0;
    cl_int e;
    memset(slots, 0, sizeof(slots));
    for (uint32_t i = 0; i < x->slots; i++) {
        queues[i] = x->out_of_order && i > 0
                        ? queues[0]
                        : clCreateCommandQueue(
                              context, device,
                              x->out_of_order ? CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE : 0, &e);
        if (i == 0 || !x->out_of_order)
            must(e, "queue");
        slots[i].rows = x->rows;
        slots[i].convert = x->convert;
        make_slot(&slots[i], queues[i]);
    }
    for (int phase = 0; phase < 2; phase++) {
        atomic_bool stop = false;
        uint64_t us = (uint64_t)((phase ? x->seconds : 0.2) * 1e6);
        for (uint32_t i = 0; i < x->slots; i++) {
            slots[i].stop = &stop;
            slots[i].runs = 0;
            if (pthread_create(&slots[i].thread, NULL, run, &slots[i]) != 0)
                exit(EXIT_INTERNAL);
        }
        struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
        nanosleep(&t, NULL);
        atomic_store(&stop, true);
        rate = 0;
        for (uint32_t i = 0; i < x->slots; i++) {
            pthread_join(slots[i].thread, NULL);
            rate += (double)slots[i].runs * x->rows * 1e6 / slots[i].busy_us;
        }
    }
    for (uint32_t i = 0; i < x->slots; i++) {
        free_slot(&slots[i]);
        if (i == 0 || !x->out_of_order)
            clReleaseCommandQueue(queues[i]);
    }
    return rate;
}

static void measure_all(char *slots, struct setting x)
{
    for (char *at = strtok(slots, ","); at; at = strtok(NULL, ",")) {
        x.slots = (uint32_t)atoi(at);
        for (int kind = 0; kind < 2 && x.slots >= 1 && x.slots <= SLOTS_MAX; kind++) {
            x.out_of_order = kind;
            printf("{\"bench\": \"opencl\", \"slots\": %u, \"out_of_order\": %s, \"convert\": %s, "
                   "\"items_per_s\": %.1f}\n",
                   x.slots, kind ? "true" : "false", x.convert ? "true" : "false", measure(&x));
            fflush(stdout);
        }
    }
}

static void read_input(const char *path, uint32_t rows)
{
    size_t n = (size_t)rows * bundle.inputs[0].elements;
    FILE *f = fopen(path, "rb");
    rows_in = malloc(n * sizeof(float));
    if (!f || !rows_in || fread(rows_in, sizeof(float), n, f) != n)
        give_up("the input is no file of so many rows of FP32");
    fclose(f);
}

static int usage(void)
{
    fputs("usage: bench_opencl --models DIR --model NAME --input FILE [--platform PART] [--rows N] "
          "[--seconds S] [--slots N,N,...] [--convert]\n",
          stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"models", required_argument, NULL, 'd'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"platform", required_argument, NULL, 'p'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"rows", required_argument, NULL, 'r'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {"slots", required_argument, NULL, 'n'},
                                            {"convert", no_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    const char *models = NULL, *model = NULL, *platform = "", *input = NULL;
    char all[] = "1,2,4", *slots = all, why[1024];
    struct setting x = {.seconds = 2};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'd':
            models = optarg;
            break;
        case 'm':
            model = optarg;
            break;
        case 'p':
            platform = optarg;
            break;
        case 'i':
            input = optarg;
            break;
        case 'r':
            x.rows = (uint32_t)atoi(optarg);
            break;
        case 's':
            x.seconds = atof(optarg);
            break;
        case 'n':
            slots = optarg;
            break;
        case 'c':
            x.convert = true;
            break;
        default:
            return usage();
        }
    if (!models || !model || !input || !(x.seconds > 0))
        return usage();
    if (model_repository_read(models, model, &entry, NULL, NULL, why, sizeof(why)) != 0 ||
        bundle_read(&bundle, entry.dir, &entry.config, why, sizeof(why)) != 0)
        give_up(why);
    if (x.rows == 0)
        x.rows = bundle.rows;
    if (x.rows > bundle.rows || bundle.nlaunches != 1 || bundle.launches[0].nglobal != 0)
        give_up("only bundles of one single-task kernel are measured, with their rows at most");
    open_device(platform);
    build_program();
    read_input(input, x.rows);
    measure_all(slots, x);
    return EXIT_OK;
}

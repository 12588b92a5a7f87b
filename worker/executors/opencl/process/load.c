// SPDX-License-Identifier: Apache-2.0
// A bundle onto the device: weights once, and for each slot its buffers and its kernels, with every
// argument that does not change set.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/executors/opencl/process/device.h"
#include "worker/executors/opencl/process/xilinx.h"

struct loading {
    struct device *device;
    struct device_model *model;
    char *why;
    size_t size;
};

static int fail(struct loading *l, cl_int e, const char *what, const char *name)
{
    char text[4600];
    snprintf(text, sizeof(text), "%s/" BUNDLE_FILE ": %s \"%s\"", l->model->bundle.dir, what, name);
    return device_fail(l->device, e, text, l->why, l->size);
}

static cl_mem make_buffer(struct loading *l, uint32_t unit, uint32_t i, cl_mem_flags flags,
                          void *host, cl_int *e)
{
    const struct device_model *m = l->model;
    uint64_t bytes = m->bundle.buffers[i].bytes;
    l->model->device_bytes += bytes;
    if (!m->banks)
        return clCreateBuffer(l->device->context, flags, bytes, host, e);
    return xilinx_buffer(l->device->context, flags, bytes, host,
                         m->banks[unit * m->bundle.nbuffers + i], e);
}

// ---- weights ------------------------------------------------------------------------------------

// Units whose banks are the same share a buffer.
static cl_int share_weight(struct loading *l, uint32_t i, void *bytes)
{
    struct device_model *m = l->model;
    const uint32_t n = m->bundle.nbuffers, nunits = device_units(m);
    cl_int e = CL_SUCCESS;
    for (uint32_t u = 0; u < nunits && e == CL_SUCCESS; u++) {
        uint32_t k = 0;
        while (k < u && m->banks && m->banks[k * n + i] != m->banks[u * n + i])
            k++;
        m->weights[u * n + i] =
            k < u ? m->weights[k * n + i]
                  : make_buffer(l, u, i, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR, bytes, &e);
    }
    return e;
}

static int load_weight(struct loading *l, FILE *file, uint32_t i)
{
    const struct bundle_buffer *x = &l->model->bundle.buffers[i];
    void *bytes = malloc(x->bytes);
    bool whole = bytes && fseek(file, (long)x->offset, SEEK_SET) == 0 &&
                 fread(bytes, 1, x->bytes, file) == x->bytes;
    if (!whole) {
        free(bytes);
        snprintf(l->why, l->size, "%s/%s: %s: buffer \"%s\" is bytes %llu to %llu of it",
                 l->model->bundle.dir, l->model->bundle.weights,
                 bytes ? "the file ends early" : "out of memory", x->name,
                 (unsigned long long)x->offset, (unsigned long long)(x->offset + x->bytes));
        return -EINVAL;
    }
    cl_int e = share_weight(l, i, bytes);
    free(bytes);
    return e == CL_SUCCESS ? 0 : fail(l, e, "no device memory for buffer", x->name);
}

static int make_weights(struct loading *l)
{
    const struct bundle *b = &l->model->bundle;
    char path[4400];
    int rc = 0;
    l->model->weights = calloc((size_t)device_units(l->model) * b->nbuffers + 1, sizeof(cl_mem));
    if (!l->model->weights) {
        snprintf(l->why, l->size, "out of memory");
        return -ENOMEM;
    }
    if (!b->weights[0])
        return 0;
    snprintf(path, sizeof(path), "%s/%s", b->dir, b->weights);
    FILE *file = fopen(path, "rb");
    if (!file) {
        snprintf(l->why, l->size, "%s: %s", path, strerror(errno));
        return -errno;
    }
    for (uint32_t i = 0; i < b->nbuffers && rc == 0; i++)
        if (b->buffers[i].use == BUNDLE_WEIGHTS)
            rc = load_weight(l, file, i);
    fclose(file);
    return rc;
}

// ---- a slot -------------------------------------------------------------------------------------

// INPUT and OUTPUT lie in the memory that the worker shares; it is the host's until a run.
static int make_shared(struct loading *l, uint32_t slot, uint32_t i)
{
    const uint32_t unit = slot % device_units(l->model);
    struct device_model *m = l->model;
    const struct bundle_buffer *x = &m->bundle.buffers[i];
    struct device_slot *s = &m->slots[slot];
    uint8_t *host = (uint8_t *)m->memory + slot * bundle_slot_bytes(&m->bundle) +
                    bundle_slot_offset(&m->bundle, i);
    bool in = x->use == BUNDLE_INPUT;
    cl_int e;
    s->buffers[i] = make_buffer(
        l, unit, i, CL_MEM_USE_HOST_PTR | (in ? CL_MEM_READ_ONLY : CL_MEM_WRITE_ONLY), host, &e);
    if (e != CL_SUCCESS)
        return fail(l, e, "no device memory for buffer", x->name);
    s->mapped[i] = clEnqueueMapBuffer(l->device->queues[slot], s->buffers[i], CL_TRUE,
                                      device_map_flags(m, i), 0, x->bytes, 0, NULL, NULL, &e);
    if (e != CL_SUCCESS)
        return fail(l, e, "cannot map buffer", x->name);
    if (s->mapped[i] != host) {
        snprintf(l->why, l->size, "%s, %s: buffer \"%s\" is mapped elsewhere than asked for",
                 l->device->platform_name, l->device->name, x->name);
        return -EIO;
    }
    return 0;
}

static int make_buffers(struct loading *l, uint32_t slot)
{
    struct device_model *m = l->model;
    struct device_slot *s = &m->slots[slot];
    const uint32_t unit = slot % device_units(m);
    int rc = 0;
    for (uint32_t i = 0; i < m->bundle.nbuffers && rc == 0; i++) {
        const struct bundle_buffer *x = &m->bundle.buffers[i];
        cl_int e = CL_SUCCESS;
        if (x->use == BUNDLE_WEIGHTS) {
            s->buffers[i] = m->weights[unit * m->bundle.nbuffers + i];
            continue;
        }
        if (x->use != BUNDLE_SCRATCH)
            rc = make_shared(l, slot, i);
        else
            s->buffers[i] = make_buffer(l, unit, i, CL_MEM_READ_WRITE, NULL, &e);
        if (e != CL_SUCCESS)
            rc = fail(l, e, "no device memory for buffer", x->name);
    }
    return rc;
}

static cl_int set_arg(cl_kernel kernel, uint32_t i, const struct bundle_arg *a,
                      const cl_mem *buffers)
{
    cl_int rows = 0;
    switch (a->kind) {
    case BUNDLE_ARG_BUFFER:
        return clSetKernelArg(kernel, i, sizeof(cl_mem), &buffers[a->is.buffer]);
    case BUNDLE_ARG_INT:
        return clSetKernelArg(kernel, i, sizeof(cl_int), &a->is.integer);
    case BUNDLE_ARG_FLOAT:
        return clSetKernelArg(kernel, i, sizeof(cl_float), &a->is.real);
    case BUNDLE_ARG_LOCAL:
        return clSetKernelArg(kernel, i, a->is.local_bytes, NULL);
    default: // set again for each run
        return clSetKernelArg(kernel, i, sizeof(cl_int), &rows);
    }
}

// On Xilinx a compute unit is part of the kernel's name; elsewhere there are none.
static void kernel_name(const struct loading *l, const struct bundle_launch *launch, uint32_t slot,
                        char *name, size_t size)
{
    const struct bundle_program *p = l->model->chosen;
    if (p->nunits == 0)
        snprintf(name, size, "%s", launch->kernel);
    else
        snprintf(name, size, "%s:{%s}", launch->kernel, p->units[slot % p->nunits]);
}

// What a compiler for a board refuses, some runtimes take, and fail at the first run.
static int kernel_fits(struct loading *l, cl_kernel kernel, const char *name,
                       const struct bundle_launch *launch)
{
    const struct device *d = l->device;
    cl_ulong takes = 0, has = UINT64_MAX;
    size_t group = 1, most = SIZE_MAX;
    for (uint32_t k = 0; k < launch->nlocal; k++)
        group *= launch->local[k]; // at most 2^20 each
    clGetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof(takes), &takes, NULL);
    clGetDeviceInfo(d->id, CL_DEVICE_LOCAL_MEM_SIZE, sizeof(has), &has, NULL);
    clGetKernelWorkGroupInfo(kernel, d->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof(most), &most, NULL);
    has = has ? has : UINT64_MAX; // not told
    most = most ? most : SIZE_MAX;
    if (takes <= has && group <= most)
        return 0;
    if (takes > has)
        snprintf(l->why, l->size,
                 "%s, %s: %s/%s: kernel \"%s\" takes %llu bytes of local memory, the device has "
                 "%llu",
                 d->platform_name, d->name, l->model->bundle.dir, l->model->chosen->file, name,
                 (unsigned long long)takes, (unsigned long long)has);
    else
        snprintf(l->why, l->size,
                 "%s, %s: %s/" BUNDLE_FILE ": kernel \"%s\" runs in groups of %zu at most; local "
                 "makes it %zu",
                 d->platform_name, d->name, l->model->bundle.dir, name, most, group);
    return -ENOSPC;
}

static int make_kernel(struct loading *l, uint32_t slot, uint32_t i)
{
    struct device_model *m = l->model;
    const struct bundle_launch *launch = &m->bundle.launches[i];
    char name[2 * BUNDLE_NAME_MAX + 8];
    cl_uint nargs = 0;
    cl_int e;
    kernel_name(l, launch, slot, name, sizeof(name));
    cl_kernel kernel = m->slots[slot].kernels[i] = clCreateKernel(m->program, name, &e);
    if (e != CL_SUCCESS)
        return fail(l, e, "its program has no kernel", name);
    // Some runtimes know no arguments after a load from a binary: then the device is asked.
    if (clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, sizeof(nargs), &nargs, NULL) == CL_SUCCESS &&
        nargs != launch->nargs) {
        snprintf(l->why, l->size,
                 "%s/" BUNDLE_FILE ": launch %u gives %u args, kernel \"%s\" has %u", m->bundle.dir,
                 i + 1, launch->nargs, name, nargs);
        return -EINVAL;
    }
    for (uint32_t k = 0; k < launch->nargs; k++) {
        e = set_arg(kernel, k, &launch->args[k], m->slots[slot].buffers);
        if (e != CL_SUCCESS) {
            char what[80];
            snprintf(what, sizeof(what), "launch %u: arg %u does not fit kernel", i + 1, k + 1);
            return fail(l, e, what, name);
        }
    }
    return kernel_fits(l, kernel, name, launch);
}

static int make_slot(struct loading *l, uint32_t slot)
{
    const struct bundle *b = &l->model->bundle;
    struct device_slot *s = &l->model->slots[slot];
    s->buffers = calloc(b->nbuffers + 1, sizeof(cl_mem));
    s->mapped = calloc(b->nbuffers + 1, sizeof(void *));
    s->kernels = calloc(b->nlaunches, sizeof(cl_kernel));
    if (!s->buffers || !s->mapped || !s->kernels) {
        snprintf(l->why, l->size, "out of memory");
        return -ENOMEM;
    }
    int rc = make_buffers(l, slot);
    for (uint32_t i = 0; i < b->nlaunches && rc == 0; i++)
        rc = make_kernel(l, slot, i);
    return rc;
}

// ---- a model ------------------------------------------------------------------------------------

// Some runtimes take what they cannot hold, and fail at the first run.
int device_fits(const struct device *d, const struct bundle *b, char *why, size_t size)
{
    uint64_t all = 0; // no overflow: the manifest's bounds keep far below
    for (uint32_t i = 0; i < b->nbuffers; i++) {
        const struct bundle_buffer *x = &b->buffers[i];
        all += x->bytes * (x->use == BUNDLE_WEIGHTS ? 1 : d->nslots);
        if (d->buffer_bytes_max == 0 || x->bytes <= d->buffer_bytes_max)
            continue;
        snprintf(why, size,
                 "%s/" BUNDLE_FILE
                 ": buffer \"%s\" has %llu bytes; %s, %s takes %llu at most: lower "
                 "rows",
                 b->dir, x->name, (unsigned long long)x->bytes, d->platform_name, d->name,
                 (unsigned long long)d->buffer_bytes_max);
        return -ENOSPC;
    }
    if (d->memory_bytes == 0 || all <= d->memory_bytes)
        return 0;
    snprintf(why, size,
             "%s/" BUNDLE_FILE ": its buffers take %llu bytes in %u slots; %s, %s has %llu: lower "
             "rows, or name fewer slots (--device opencl:PLATFORM:DEVICE:SLOTS)",
             b->dir, (unsigned long long)all, d->nslots, d->platform_name, d->name,
             (unsigned long long)d->memory_bytes);
    return -ENOSPC;
}

static int open_lanes(struct loading *l)
{
    struct device_model *m = l->model;
    cl_int e = CL_SUCCESS;
    pthread_mutex_init(&m->lanes_lock, NULL);
    for (uint32_t i = 0; i < m->bundle.nlanes && e == CL_SUCCESS; i++)
        m->lanes[i] =
            clCreateCommandQueue(l->device->context, l->device->id, CL_QUEUE_PROFILING_ENABLE, &e);
    return e == CL_SUCCESS ? 0 : fail(l, e, "no queue for the launches of", m->bundle.dir);
}

static int map_memory(struct loading *l, int fd)
{
    struct device_model *m = l->model;
    struct stat st;
    m->memory_bytes = bundle_slot_bytes(&m->bundle) * l->device->nslots;
    bool large = fstat(fd, &st) == 0 && (uint64_t)st.st_size >= m->memory_bytes;
    m->memory =
        large ? mmap(NULL, m->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (m->memory != MAP_FAILED)
        return 0;
    snprintf(l->why, l->size, "cannot map %llu bytes of shared memory",
             (unsigned long long)m->memory_bytes);
    return -ENOMEM;
}

int device_load(struct device *d, const struct pipe_load *load, int memory, uint64_t *bytes,
                char *why, size_t size)
{
    struct device_model *m = calloc(1, sizeof(*m));
    struct loading l = {d, m, why, size};
    int rc = m ? bundle_read(&m->bundle, load->version_dir, NULL, why, size) : -ENOMEM;
    if (rc != 0) {
        close(memory);
        return rc;
    }
    m->device = d;
    rc = map_memory(&l, memory);
    if (rc == 0)
        rc = device_fits(d, &m->bundle, why, size);
    if (rc == 0)
        rc = device_program(d, m, why, size);
    if (rc == 0 && d->card)
        rc = xilinx_place(d, m, why, size);
    if (rc == 0)
        rc = make_weights(&l);
    if (rc == 0)
        rc = open_lanes(&l);
    for (uint32_t i = 0; i < d->nslots && rc == 0; i++)
        rc = make_slot(&l, i);
    // What a failure leaves behind goes with the process, which the worker ends then.
    if (rc == 0) {
        *bytes = m->device_bytes;
        atomic_store(&d->models[load->model], m);
    }
    return rc;
}

// Under XRT every event of a kernel that has ended says COMPLETE, also of one that was aborted or
// timed out: nothing but its output tells.
static bool guarded(const struct device *d, const struct device_model *m)
{
    return xilinx_card(d) && !m->chosen->unchecked;
}

void device_describe(const struct device *d, uint32_t model, struct pipe_ready *ready)
{
    const struct device_model *m = atomic_load(&d->models[model]);
    ready->reconfigured = m->reconfigured;
    ready->guarded = guarded(d, m);
}

// The worker writes all of an INPUT: what the device has of it need not be fetched. What it leaves
// in a guarded OUTPUT is to be seen on the device.
cl_map_flags device_map_flags(const struct device_model *m, uint32_t buffer)
{
    if (m->bundle.buffers[buffer].use == BUNDLE_INPUT)
        return CL_MAP_WRITE_INVALIDATE_REGION;
    return guarded(m->device, m) ? CL_MAP_READ | CL_MAP_WRITE : CL_MAP_READ;
}

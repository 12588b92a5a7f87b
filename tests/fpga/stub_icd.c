// SPDX-License-Identifier: Apache-2.0
// The stub's functions, as the ICD loader calls them: what the executor uses of OpenCL 1.2.
#include "tests/fpga/stub_icd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define BINARY "STUB program\n" // what a built program begins with

static struct _cl_platform_id platform = {&stub_dispatch};
static struct _cl_device_id device = {&stub_dispatch};

static cl_int put(const void *value, size_t n, size_t size, void *to, size_t *size_ret)
{
    if (size_ret)
        *size_ret = n;
    if (to && size < n)
        return CL_INVALID_VALUE;
    if (to)
        memcpy(to, value, n);
    return CL_SUCCESS;
}

#define PUT(value, size, to, size_ret) put(&(value), sizeof(value), size, to, size_ret)
#define PUT_TEXT(text, size, to, size_ret) put(text, strlen(text) + 1, size, to, size_ret)

static void *make(size_t size, cl_int fault, cl_int *e)
{
    const cl_icd_dispatch **object = fault == CL_SUCCESS ? calloc(1, size) : NULL;
    if (object)
        *object = &stub_dispatch;
    if (e)
        *e = object ? CL_SUCCESS : fault ? fault : CL_OUT_OF_HOST_MEMORY;
    return object;
}

// ---- platform and device ------------------------------------------------------------------------

static cl_int CL_API_CALL icd_platforms(cl_uint n, cl_platform_id *to, cl_uint *n_ret)
{
    if (to && n)
        *to = &platform;
    if (n_ret)
        *n_ret = 1;
    return stub_fault("clGetPlatformIDs");
}

static cl_int CL_API_CALL platform_info(cl_platform_id p, cl_platform_info what, size_t size,
                                        void *to, size_t *size_ret)
{
    (void)p;
    switch (what) {
    case CL_PLATFORM_NAME:
        return PUT_TEXT("SONIC stub", size, to, size_ret);
    case CL_PLATFORM_EXTENSIONS:
        return PUT_TEXT("cl_khr_icd", size, to, size_ret);
    case CL_PLATFORM_ICD_SUFFIX_KHR:
        return PUT_TEXT("STUB", size, to, size_ret);
    case CL_PLATFORM_VERSION:
        return PUT_TEXT("OpenCL 1.2 stub", size, to, size_ret);
    case CL_PLATFORM_PROFILE:
        return PUT_TEXT("FULL_PROFILE", size, to, size_ret);
    default:
        return PUT_TEXT("stub", size, to, size_ret);
    }
}

static cl_int CL_API_CALL device_ids(cl_platform_id p, cl_device_type type, cl_uint n,
                                     cl_device_id *to, cl_uint *n_ret)
{
    const char *kind = getenv("SONIC_STUB_DEVICE");
    (void)p, (void)type;
    if (kind && strcmp(kind, "none") == 0)
        return CL_DEVICE_NOT_FOUND;
    if (to && n)
        *to = &device;
    if (n_ret)
        *n_ret = 1;
    return stub_fault("clGetDeviceIDs");
}

static cl_int CL_API_CALL device_info(cl_device_id d, cl_device_info what, size_t size, void *to,
                                      size_t *size_ret)
{
    const char *kind = getenv("SONIC_STUB_DEVICE"), *mib = getenv("SONIC_STUB_MIB");
    cl_ulong bytes = (mib ? strtoull(mib, NULL, 10) : 1024) << 20;
    cl_command_queue_properties queues = CL_QUEUE_PROFILING_ENABLE;
    cl_device_type type = CL_DEVICE_TYPE_ACCELERATOR;
    cl_bool yes = CL_TRUE;
    size_t many = 1024;
    cl_uint bits = 4096;
    (void)d;
    if (!kind || strcmp(kind, "in-order") != 0)
        queues |= CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE;
    switch (what) {
    case CL_DEVICE_NAME:
        return PUT_TEXT("stub board", size, to, size_ret);
    case CL_DRIVER_VERSION:
        return PUT_TEXT("1", size, to, size_ret);
    case CL_DEVICE_TYPE:
        return PUT(type, size, to, size_ret);
    case CL_DEVICE_QUEUE_PROPERTIES:
        return PUT(queues, size, to, size_ret);
    case CL_DEVICE_GLOBAL_MEM_SIZE:
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE:
        return PUT(bytes, size, to, size_ret);
    case CL_DEVICE_AVAILABLE:
    case CL_DEVICE_COMPILER_AVAILABLE:
        return PUT(yes, size, to, size_ret);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE:
        return PUT(many, size, to, size_ret);
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN:
        return PUT(bits, size, to, size_ret);
    default:
        return PUT_TEXT("", size, to, size_ret);
    }
}

static cl_context CL_API_CALL create_context(
    const cl_context_properties *properties, cl_uint n, const cl_device_id *devices,
    void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *e)
{
    (void)properties, (void)n, (void)devices, (void)notify, (void)user;
    return make(sizeof(struct _cl_context), stub_fault("clCreateContext"), e);
}

static cl_command_queue CL_API_CALL create_queue(cl_context c, cl_device_id d,
                                                 cl_command_queue_properties properties, cl_int *e)
{
    cl_command_queue q =
        make(sizeof(struct _cl_command_queue), stub_fault("clCreateCommandQueue"), e);
    (void)c, (void)d;
    if (q)
        q->in_order = !(properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE);
    return q;
}

// ---- memory -------------------------------------------------------------------------------------

static cl_mem CL_API_CALL create_buffer(cl_context c, cl_mem_flags flags, size_t bytes, void *host,
                                        cl_int *e)
{
    cl_mem m = make(sizeof(struct _cl_mem), stub_fault("clCreateBuffer"), e);
    (void)c;
    if (!m)
        return NULL;
    m->bytes = bytes;
    m->device = malloc(bytes);
    m->host = flags & CL_MEM_USE_HOST_PTR ? host : NULL;
    if (!m->device) {
        free(m);
        return make(0, CL_MEM_OBJECT_ALLOCATION_FAILURE, e);
    }
    memset(m->device, 0xa5, bytes); // whoever reads what nobody wrote will notice
    if (flags & CL_MEM_COPY_HOST_PTR)
        memcpy(m->device, host, bytes);
    return m;
}

static cl_int copy(cl_command_queue q, const char *step, void *to, const void *from, size_t bytes,
                   cl_bool blocking, cl_uint n, const cl_event *waits, cl_event *event)
{
    struct stub_command c = {.kind = STUB_COPY, .to = to, .from = from, .bytes = bytes};
    cl_event own;
    cl_int e = stub_fault(step);
    if (e == CL_SUCCESS)
        e = stub_submit(q, c, n, waits, &own);
    if (e != CL_SUCCESS)
        return e;
    if (event)
        *event = own;
    if (blocking)
        stub_wait(own);
    return CL_SUCCESS;
}

static cl_int CL_API_CALL write_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t at,
                                       size_t bytes, const void *from, cl_uint n,
                                       const cl_event *waits, cl_event *event)
{
    return copy(q, "clEnqueueWriteBuffer", m->device + at, from, bytes, blocking, n, waits, event);
}

static cl_int CL_API_CALL read_buffer(cl_command_queue q, cl_mem m, cl_bool blocking, size_t at,
                                      size_t bytes, void *to, cl_uint n, const cl_event *waits,
                                      cl_event *event)
{
    return copy(q, "clEnqueueReadBuffer", to, m->device + at, bytes, blocking, n, waits, event);
}

static void *CL_API_CALL map_buffer(cl_command_queue q, cl_mem m, cl_bool blocking,
                                    cl_map_flags flags, size_t at, size_t bytes, cl_uint n,
                                    const cl_event *waits, cl_event *event, cl_int *e)
{
    (void)flags;
    if (!m->host)
        m->host = malloc(m->bytes);
    *e = copy(q, "clEnqueueMapBuffer", m->host + at, m->device + at, bytes, blocking, n, waits,
              event);
    return *e == CL_SUCCESS ? m->host + at : NULL;
}

static cl_int CL_API_CALL unmap(cl_command_queue q, cl_mem m, void *mapped, cl_uint n,
                                const cl_event *waits, cl_event *event)
{
    size_t at = (size_t)((char *)mapped - m->host);
    return copy(q, "clEnqueueUnmapMemObject", m->device + at, mapped, m->bytes - at, CL_FALSE, n,
                waits, event);
}

// ---- programs -----------------------------------------------------------------------------------

static cl_program program_of(const char *text, size_t len, cl_int fault, cl_int *e)
{
    cl_program p = make(sizeof(struct _cl_program), fault, e);
    if (p)
        p->source = strndup(text, len);
    return p;
}

static cl_program CL_API_CALL with_source(cl_context c, cl_uint n, const char **texts,
                                          const size_t *lens, cl_int *e)
{
    (void)c, (void)n;
    return program_of(texts[0], lens && lens[0] ? lens[0] : strlen(texts[0]),
                      stub_fault("clCreateProgramWithSource"), e);
}

static cl_program CL_API_CALL with_binary(cl_context c, cl_uint n, const cl_device_id *devices,
                                          const size_t *lens, const unsigned char **binaries,
                                          cl_int *status, cl_int *e)
{
    const char *text = (const char *)binaries[0];
    size_t head = strlen(BINARY);
    (void)c, (void)n, (void)devices;
    cl_int fault = stub_fault("clCreateProgramWithBinary");
    if (fault == CL_SUCCESS && (lens[0] < head || memcmp(text, BINARY, head) != 0))
        fault = CL_INVALID_BINARY;
    if (status)
        *status = fault;
    return program_of(text + head, lens[0] - (fault ? 0 : head), fault, e);
}

static cl_int CL_API_CALL build(cl_program p, cl_uint n, const cl_device_id *devices,
                                const char *options, void(CL_CALLBACK *notify)(cl_program, void *),
                                void *user)
{
    (void)p, (void)n, (void)devices, (void)options, (void)notify, (void)user;
    return stub_fault("clBuildProgram");
}

static cl_int CL_API_CALL build_info(cl_program p, cl_device_id d, cl_program_build_info what,
                                     size_t size, void *to, size_t *size_ret)
{
    (void)p, (void)d, (void)what;
    return PUT_TEXT("stub.cl:7: it needs 105 % of the board\nerror: does not fit", size, to,
                    size_ret);
}

static cl_int CL_API_CALL program_info(cl_program p, cl_program_info what, size_t size, void *to,
                                       size_t *size_ret)
{
    size_t len = strlen(BINARY) + strlen(p->source);
    if (what == CL_PROGRAM_BINARY_SIZES)
        return PUT(len, size, to, size_ret);
    if (what != CL_PROGRAM_BINARIES)
        return CL_INVALID_VALUE;
    char *binary = *(char **)to;
    memcpy(binary, BINARY, strlen(BINARY));
    memcpy(binary + strlen(BINARY), p->source, strlen(p->source));
    return CL_SUCCESS;
}

static cl_kernel CL_API_CALL create_kernel(cl_program p, const char *name, cl_int *e)
{
    cl_int fault = stub_fault("clCreateKernel");
    bool twice = strcmp(name, "twice") == 0, known = twice || strcmp(name, "copy") == 0;
    if (fault == CL_SUCCESS && !(known && strstr(p->source, name)))
        fault = CL_INVALID_KERNEL_NAME;
    cl_kernel k = make(sizeof(struct _cl_kernel), fault, e);
    if (k)
        k->factor = twice ? 2 : 1;
    return k;
}

static cl_int CL_API_CALL kernel_info(cl_kernel k, cl_kernel_info what, size_t size, void *to,
                                      size_t *size_ret)
{
    cl_uint two = 2;
    (void)k;
    return what == CL_KERNEL_NUM_ARGS ? PUT(two, size, to, size_ret) : CL_INVALID_VALUE;
}

static cl_int CL_API_CALL work_group_info(cl_kernel k, cl_device_id d,
                                          cl_kernel_work_group_info what, size_t size, void *to,
                                          size_t *size_ret)
{
    cl_ulong none = 0;
    size_t many = 1024;
    (void)k, (void)d;
    return what == CL_KERNEL_WORK_GROUP_SIZE ? PUT(many, size, to, size_ret)
                                             : PUT(none, size, to, size_ret);
}

static cl_int CL_API_CALL set_arg(cl_kernel k, cl_uint i, size_t size, const void *value)
{
    if (i >= 2)
        return CL_INVALID_ARG_INDEX;
    if (size != sizeof(cl_mem))
        return CL_INVALID_ARG_SIZE;
    memcpy(&k->args[i], value, size);
    return stub_fault("clSetKernelArg");
}

// ---- commands and events ------------------------------------------------------------------------

static cl_int launch(cl_command_queue q, cl_kernel k, size_t items, cl_uint n,
                     const cl_event *waits, cl_event *event, const char *step)
{
    cl_int e = stub_fault(step);
    if (e != CL_SUCCESS)
        return e;
    size_t bytes = k->args[0]->bytes < k->args[1]->bytes ? k->args[0]->bytes : k->args[1]->bytes;
    if (items < bytes / sizeof(float))
        bytes = items * sizeof(float);
    struct stub_command c = {.kind = STUB_KERNEL,
                             .to = k->args[1]->device,
                             .from = k->args[0]->device,
                             .bytes = bytes,
                             .factor = k->factor};
    return stub_submit(q, c, n, waits, event);
}

static cl_int CL_API_CALL ndrange(cl_command_queue q, cl_kernel k, cl_uint dims,
                                  const size_t *offset, const size_t *global, const size_t *local,
                                  cl_uint n, const cl_event *waits, cl_event *event)
{
    size_t items = 1;
    (void)offset, (void)local;
    for (cl_uint i = 0; i < dims; i++)
        items *= global[i];
    return launch(q, k, items, n, waits, event, "clEnqueueNDRangeKernel");
}

static cl_int CL_API_CALL task(cl_command_queue q, cl_kernel k, cl_uint n, const cl_event *waits,
                               cl_event *event)
{
    return launch(q, k, SIZE_MAX, n, waits, event, "clEnqueueTask");
}

// As one vendor's library does, it says that all went well when a command has failed.
static cl_int CL_API_CALL wait_for(cl_uint n, const cl_event *events)
{
    cl_int e = stub_fault("clWaitForEvents");
    for (cl_uint i = 0; i < n && e == CL_SUCCESS; i++)
        stub_wait(events[i]);
    return e;
}

static cl_int CL_API_CALL event_info(cl_event event, cl_event_info what, size_t size, void *to,
                                     size_t *size_ret)
{
    cl_int status = stub_status(event);
    return what == CL_EVENT_COMMAND_EXECUTION_STATUS ? PUT(status, size, to, size_ret)
                                                     : CL_INVALID_VALUE;
}

static cl_int CL_API_CALL profiling(cl_event event, cl_profiling_info what, size_t size, void *to,
                                    size_t *size_ret)
{
    cl_ulong ns = what == CL_PROFILING_COMMAND_START ? event->start_ns
                  : what == CL_PROFILING_COMMAND_END ? event->end_ns
                                                     : event->queued_ns;
    if (!stub_profiles())
        ns = 0;
    return PUT(ns, size, to, size_ret);
}

static cl_int CL_API_CALL finish(cl_command_queue q)
{
    cl_int e = stub_fault("clFinish");
    (void)q;
    if (e == CL_SUCCESS)
        stub_drain();
    return e;
}

static cl_int CL_API_CALL flush(cl_command_queue q)
{
    (void)q;
    return stub_fault("clFlush");
}

// What is released is kept: the process is short-lived.
#define RELEASE(name, type)                                                                        \
    static cl_int CL_API_CALL name(type object)                                                    \
    {                                                                                              \
        (void)object;                                                                              \
        return CL_SUCCESS;                                                                         \
    }
RELEASE(release_context, cl_context)
RELEASE(release_queue, cl_command_queue)
RELEASE(release_mem, cl_mem)
RELEASE(release_program, cl_program)
RELEASE(release_kernel, cl_kernel)
RELEASE(release_event, cl_event)

const cl_icd_dispatch stub_dispatch = {
    .clGetPlatformIDs = icd_platforms,
    .clGetPlatformInfo = platform_info,
    .clGetDeviceIDs = device_ids,
    .clGetDeviceInfo = device_info,
    .clCreateContext = create_context,
    .clReleaseContext = release_context,
    .clCreateCommandQueue = create_queue,
    .clReleaseCommandQueue = release_queue,
    .clCreateBuffer = create_buffer,
    .clReleaseMemObject = release_mem,
    .clCreateProgramWithSource = with_source,
    .clCreateProgramWithBinary = with_binary,
    .clReleaseProgram = release_program,
    .clBuildProgram = build,
    .clGetProgramInfo = program_info,
    .clGetProgramBuildInfo = build_info,
    .clCreateKernel = create_kernel,
    .clReleaseKernel = release_kernel,
    .clSetKernelArg = set_arg,
    .clGetKernelInfo = kernel_info,
    .clGetKernelWorkGroupInfo = work_group_info,
    .clWaitForEvents = wait_for,
    .clGetEventInfo = event_info,
    .clReleaseEvent = release_event,
    .clGetEventProfilingInfo = profiling,
    .clFlush = flush,
    .clFinish = finish,
    .clEnqueueReadBuffer = read_buffer,
    .clEnqueueWriteBuffer = write_buffer,
    .clEnqueueMapBuffer = map_buffer,
    .clEnqueueUnmapMemObject = unmap,
    .clEnqueueNDRangeKernel = ndrange,
    .clEnqueueTask = task,
};

// The loader looks for these by name. The table has none of them: the loader's own are of the same
// names, and would be taken for ours.
EXPORT cl_int CL_API_CALL clGetPlatformInfo(cl_platform_id p, cl_platform_info what, size_t size,
                                            void *to, size_t *size_ret)
{
    return platform_info(p, what, size, to, size_ret);
}

EXPORT void *CL_API_CALL clGetExtensionFunctionAddress(const char *name)
{
    return strcmp(name, "clIcdGetPlatformIDsKHR") == 0 ? (void *)(uintptr_t)icd_platforms : NULL;
}

// SPDX-License-Identifier: Apache-2.0
// A vendor's OpenCL library of the tests' own, with a device that computes on a thread, and that
// fails when it is asked to. Its memory is apart from the host's, as a board's is: what nobody
// brought to it is not there.
//
// The steps of SONIC_STUB_FAULTS (stub_faults.h) are OpenCL functions and
//     kernel, copy    a command of that kind, on the device's thread: the number is its event's
//     status profiling       asking for an event's times: zero
// SONIC_STUB_DEVICE: "none" (the platform has no device) or "in-order" (no other queues).
// SONIC_STUB_MIB: the device's memory.
#ifndef SONIC_TESTS_FPGA_STUB_ICD_H
#define SONIC_TESTS_FPGA_STUB_ICD_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <CL/cl_icd.h>
#include <pthread.h>
#include <stdbool.h>

#include "tests/stub_faults.h"

#define STUB_WAITS_MAX 64u
#define STUB_ARGS_MAX 8u

// The loader wants its table first in each object.
struct _cl_platform_id {
    const cl_icd_dispatch *dispatch;
};
struct _cl_device_id {
    const cl_icd_dispatch *dispatch;
};
struct _cl_context {
    const cl_icd_dispatch *dispatch;
};
struct _cl_command_queue {
    const cl_icd_dispatch *dispatch;
    bool in_order;
    cl_event last; // in order: the next command waits for it
};
struct _cl_mem {
    const cl_icd_dispatch *dispatch;
    size_t bytes;
    char *device, *host; // host: of CL_MEM_USE_HOST_PTR
};
struct _cl_program {
    const cl_icd_dispatch *dispatch;
    char *source;
};
struct _cl_kernel {
    const cl_icd_dispatch *dispatch;
    float factor; // y[i] = factor * x[i]
    cl_mem args[STUB_ARGS_MAX];
};
struct _cl_event {
    const cl_icd_dispatch *dispatch;
    cl_int status;
    cl_ulong queued_ns, start_ns, end_ns;
};

enum stub_kind { STUB_KERNEL, STUB_COPY };

struct stub_command {
    struct stub_command *next;
    enum stub_kind kind;
    cl_event event, waits[STUB_WAITS_MAX];
    cl_uint nwaits;
    char *to;
    const char *from;
    size_t bytes; // of a kernel: of floats
    float factor;
};

extern const cl_icd_dispatch stub_dispatch;

bool stub_profiles(void);
// Puts a command into a queue; its event lives for ever. An error frees nothing.
cl_int stub_submit(cl_command_queue queue, struct stub_command command, cl_uint nwaits,
                   const cl_event *waits, cl_event *event);
// Waits until the event is complete or has failed.
void stub_wait(cl_event event);
cl_int stub_status(cl_event event);
// Waits until the device has nothing left.
void stub_drain(void);

#endif

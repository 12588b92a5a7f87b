// SPDX-License-Identifier: Apache-2.0
// CUDA as the device process uses it: the functions of the runtime (libcudart) and of the driver
// (libcuda), declared here and loaded when they are asked for, so that a build needs no CUDA and a
// program starts without a GPU. Each takes and returns what NVIDIA's reference says of the function
// of that name; error numbers are cudaError_t's and CUresult's.
#ifndef SONIC_WORKER_EXECUTORS_CUDA_PROCESS_RUNTIME_H
#define SONIC_WORKER_EXECUTORS_CUDA_PROCESS_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

struct CUstream_st; // NVIDIA's own tags: libraries that take a stream take these
struct CUevent_st;
typedef struct CUstream_st *cuda_stream;
typedef struct CUevent_st *cuda_event;

// X(name, arguments): all return an error number.
#define CUDART_FUNCTIONS(X)                                                                        \
    X(cudaDriverGetVersion, (int *version))                                                        \
    X(cudaRuntimeGetVersion, (int *version))                                                       \
    X(cudaGetDeviceCount, (int *n))                                                                \
    X(cudaDeviceGetPCIBusId, (char *bus, int size, int device))                                    \
    X(cudaSetDevice, (int device))                                                                 \
    X(cudaGetLastError, (void))                                                                    \
    X(cudaMemGetInfo, (size_t * free, size_t * total))                                             \
    X(cudaMalloc, (void **memory, size_t bytes))                                                   \
    X(cudaFree, (void *memory))                                                                    \
    X(cudaHostRegister, (void *memory, size_t bytes, unsigned flags))                              \
    X(cudaHostUnregister, (void *memory))                                                          \
    X(cudaMemcpyAsync, (void *to, const void *from, size_t bytes, int kind, cuda_stream stream))   \
    X(cudaMemsetAsync, (void *memory, int byte, size_t bytes, cuda_stream stream))                 \
    X(cudaStreamCreateWithFlags, (cuda_stream * stream, unsigned flags))                           \
    X(cudaStreamDestroy, (cuda_stream stream))                                                     \
    X(cudaStreamWaitEvent, (cuda_stream stream, cuda_event event, unsigned flags))                 \
    X(cudaStreamSynchronize, (cuda_stream stream))                                                 \
    X(cudaEventCreateWithFlags, (cuda_event * event, unsigned flags))                              \
    X(cudaEventDestroy, (cuda_event event))                                                        \
    X(cudaEventRecord, (cuda_event event, cuda_stream stream))                                     \
    X(cudaEventSynchronize, (cuda_event event))                                                    \
    X(cudaEventElapsedTime, (float *ms, cuda_event from, cuda_event to))

#define LIBCUDA_FUNCTIONS(X)                                                                       \
    X(cuInit, (unsigned flags))                                                                    \
    X(cuDeviceGet, (int *device, int ordinal))                                                     \
    X(cuDeviceGetName, (char *name, int size, int device))                                         \
    X(cuDeviceGetUuid_v2, (unsigned char *uuid, int device))                                       \
    X(cuGetErrorName, (int error, const char **name))                                              \
    X(cuModuleLoadData, (void **module, const void *image))                                        \
    X(cuModuleUnload, (void *module))                                                              \
    X(cuModuleGetFunction, (void **function, void *module, const char *name))                      \
    X(cuLaunchKernel, (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,          \
                       unsigned block_x, unsigned block_y, unsigned block_z,                       \
                       unsigned shared_bytes, cuda_stream stream, void **args, void **extra))

struct cuda_runtime {
#define MEMBER(name, args) int(*name) args;
    CUDART_FUNCTIONS(MEMBER)
    LIBCUDA_FUNCTIONS(MEMBER)
#undef MEMBER
    const char *(*cudaGetErrorName)(int error);
    const char *(*cudaGetErrorString)(int error);
};

enum {
    CUDA_OK = 0,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_INSUFFICIENT_DRIVER = 35,
    CUDA_DEVICES_UNAVAILABLE = 46,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,

    CUDA_TO_DEVICE = 1, // of a copy
    CUDA_FROM_DEVICE = 2,

    CUDA_STREAM_NON_BLOCKING = 1,
    CUDA_EVENT_BLOCKING_SYNC = 1,
    CUDA_HOST_PORTABLE = 1,
};

// Filled in by cuda_load.
extern struct cuda_runtime cuda;

// Loads both libraries. 0, or -ENOENT with words: which library is missing, and the way out.
int cuda_load(char *why, size_t size);

// A library that set-up brings: by `name` (of an environment variable, or NULL) alone where it is
// set, else by the first soname that the linker finds, else in set-up's folder. NULL with words.
void *cuda_open_library(const char *name, const char *const *sonames, bool global, char *why,
                        size_t size);

// "cudaErrorMemoryAllocation (2): out of memory", for people. Never NULL; one buffer a thread.
const char *cuda_error(int e);
const char *cuda_driver_error(int e);

#endif

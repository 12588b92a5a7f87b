// SPDX-License-Identifier: Apache-2.0
#include "worker/executors/cuda/process/runtime.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cuda_runtime cuda;

// Where deploy/setup.sh --cuda puts libraries; the build names the place.
static const char *libraries(void)
{
    const char *place = getenv("SONIC_CUDA_LIBS");
    return place && place[0] ? place : SONIC_CUDA_LIBS;
}

void *cuda_open_library(const char *name, const char *const *sonames, bool global, char *why,
                        size_t size)
{
    const char *only = name ? getenv(name) : NULL;
    int how = RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL);
    char path[4096];
    void *library = only && only[0] ? dlopen(only, how) : NULL;
    if (!library && only && only[0]) {
        snprintf(why, size, "%s names a library that cannot be loaded: %s", name, dlerror());
        return NULL;
    }
    for (size_t i = 0; !library && sonames[i]; i++)
        library = dlopen(sonames[i], how);
    for (size_t i = 0; !library && sonames[i]; i++) {
        snprintf(path, sizeof(path), "%s/%s", libraries(), sonames[i]);
        library = dlopen(path, how);
    }
    if (!library)
        snprintf(why, size, "%s is neither among the system's libraries nor in %s: %s", sonames[0],
                 libraries(), dlerror());
    return library;
}

static bool take_all(void *library, const char *const *names, void *const *into, size_t n,
                     const char **missing)
{
    for (size_t i = 0; i < n; i++) {
        void *found = dlsym(library, names[i]);
        *missing = names[i];
        if (!found)
            return false;
        memcpy(into[i], &found, sizeof(found));
    }
    return true;
}

static int load_cudart(char *why, size_t size)
{
    static const char *const sonames[] = {"libcudart.so.13", "libcudart.so.12", NULL};
#define NAME(name, args) #name,
#define PLACE(name, args) &cuda.name,
    static const char *const names[] = {CUDART_FUNCTIONS(NAME) "cudaGetErrorName",
                                        "cudaGetErrorString"};
    static void *const places[] = {CUDART_FUNCTIONS(PLACE) & cuda.cudaGetErrorName,
                                   &cuda.cudaGetErrorString};
    char reason[512];
    const char *missing;
    void *library = cuda_open_library("SONIC_CUDART", sonames, false, reason, sizeof(reason));
    if (!library) {
        snprintf(why, size,
                 "the CUDA runtime cannot be loaded: %s (deploy/setup.sh --cuda installs it)",
                 reason);
        return -ENOENT;
    }
    if (take_all(library, names, places, sizeof(names) / sizeof(names[0]), &missing))
        return 0;
    snprintf(why, size, "the CUDA runtime here has no %s: 12 or 13 is wanted", missing);
    return -ENOENT;
}

static int load_driver(char *why, size_t size)
{
    static const char *const sonames[] = {"libcuda.so.1", NULL};
    static const char *const names[] = {LIBCUDA_FUNCTIONS(NAME)};
    static void *const places[] = {LIBCUDA_FUNCTIONS(PLACE)};
#undef NAME
#undef PLACE
    char reason[512];
    const char *missing;
    void *library = cuda_open_library("SONIC_LIBCUDA", sonames, false, reason, sizeof(reason));
    if (!library) {
        snprintf(why, size,
                 "there is no NVIDIA driver on this machine: %s (install the driver, and in a "
                 "container pass the GPU through)",
                 reason);
        return -ENOENT;
    }
    if (take_all(library, names, places, sizeof(names) / sizeof(names[0]), &missing))
        return 0;
    snprintf(why, size, "the NVIDIA driver here has no %s: install a newer one", missing);
    return -ENOENT;
}

int cuda_load(char *why, size_t size)
{
    int rc = load_cudart(why, size);
    return rc == 0 ? load_driver(why, size) : rc;
}

const char *cuda_error(int e)
{
    static _Thread_local char text[200];
    snprintf(text, sizeof(text), "%s (%d): %s", cuda.cudaGetErrorName(e), e,
             cuda.cudaGetErrorString(e));
    return text;
}

const char *cuda_driver_error(int e)
{
    static _Thread_local char text[100];
    const char *name = NULL;
    cuda.cuGetErrorName(e, &name);
    snprintf(text, sizeof(text), "%s (%d)", name ? name : "unknown error", e);
    return text;
}

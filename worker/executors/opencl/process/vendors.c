// SPDX-License-Identifier: Apache-2.0
// What vendors' libraries need told, and why a vendor's platform is not there. The ICD loader
// passes over a library that it cannot load without a word: this asks again, in words.
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/executors/opencl/process/device.h"

#define VENDORS "/etc/OpenCL/vendors"

struct complaint {
    char *words;
    size_t size;
    uint32_t nfiles;
};

// "Its library cannot be loaded" with the linker's own reason, which names what is missing.
static void try_library(struct complaint *c, const char *file, const char *library)
{
    size_t used = strlen(c->words);
    c->nfiles++;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle) // stays: the loader has it too
        return;
    const char *reason = dlerror();
    if (used + 1 < c->size)
        snprintf(c->words + used, c->size - used, "; %s%s cannot be loaded: %s", file,
                 file[0] ? " names a library that" : library, reason ? reason : "?");
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void try_file(struct complaint *c, const char *path)
{
    char library[1024] = "";
    FILE *f = fopen(path, "r");
    bool read = f && fgets(library, sizeof(library), f);
    if (f)
        fclose(f);
    library[strcspn(library, "\r\n")] = '\0';
    if (read && library[0])
        try_library(c, path, library);
}

static void try_folder(struct complaint *c, const char *path)
{
    char file[1024];
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        if (ends_with(e->d_name, ".icd"))
            try_file(c, file);
    }
    if (dir)
        closedir(dir);
}

uint32_t device_vendors(char *words, size_t size)
{
    struct complaint c = {words, size, 0};
    const char *place = getenv("OCL_ICD_VENDORS");
    if (!place || !place[0])
        place = getenv("OPENCL_VENDOR_PATH");
    if (!place || !place[0])
        place = VENDORS;
    words[0] = '\0';
    if (ends_with(place, ".icd"))
        try_file(&c, place);
    else if (strstr(place, ".so"))
        try_library(&c, "", place);
    else
        try_folder(&c, place);
    return c.nfiles;
}

void device_describe_machine(void)
{
    char text[96];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    if (access("/sys/devices/system/cpu", R_OK) == 0 || cpus < 1 || pages < 1)
        return;
    snprintf(text, sizeof(text), "numa:1(memory=%lldMB) pu:%ld",
             (long long)pages * sysconf(_SC_PAGESIZE) >> 20, cpus);
    setenv("HWLOC_SYNTHETIC", text, 0);
}

// SPDX-License-Identifier: Apache-2.0
#include "tests/stub_faults.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS_MAX 64u

static struct {
    char name[64];
    unsigned long n;
} steps[STEPS_MAX];

static unsigned long count(const char *step)
{
    static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;
    unsigned long n = 0;
    pthread_mutex_lock(&counting);
    for (size_t i = 0; i < STEPS_MAX; i++) {
        if (!steps[i].name[0])
            strncpy(steps[i].name, step, sizeof(steps[i].name) - 1);
        if (strcmp(steps[i].name, step) == 0) {
            n = ++steps[i].n;
            break;
        }
    }
    pthread_mutex_unlock(&counting);
    return n;
}

// False: another process had the one fault that there is to be.
static bool allowed(void)
{
    const char *path = getenv("SONIC_STUB_ONCE");
    if (!path)
        return true;
    int fd = open(path, O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int act(const char *what)
{
    if (strcmp(what, "hang") == 0)
        for (;;)
            pause();
    if (strcmp(what, "exit") == 0)
        exit(3);
    if (strcmp(what, "abort") == 0)
        abort();
    if (strcmp(what, "segv") == 0)
        raise(SIGSEGV);
    return strcmp(what, "zero") == 0 ? 1 : atoi(what);
}

int stub_fault(const char *step)
{
    const char *all = getenv("SONIC_STUB_FAULTS");
    unsigned long n = count(step);
    char text[512], *rest = text, *one;
    strncpy(text, all ? all : "", sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    while ((one = strsep(&rest, ","))) {
        char *what = strchr(one, '=');
        if (!what)
            continue;
        *what++ = '\0';
        char *at = strchr(one, '@');
        if (at)
            *at++ = '\0';
        if (strcmp(one, step) != 0)
            continue;
        unsigned long from = at ? strtoul(at, &at, 10) : 1;
        if ((n == from || (n > from && (!at || *at == '+'))) && allowed())
            return act(what);
    }
    return 0;
}

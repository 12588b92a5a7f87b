// SPDX-License-Identifier: Apache-2.0
// File descriptors. Each connection takes one, each slab another; libzmq 4.3 ends the process
// (errno_assert in ipc_listener.cpp) when accept finds none left. So connections over a bound are
// closed as they come, by an accept4 of ours, which this program's definition puts before the C
// library's: for libzmq they have gone again before they were accepted.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "broker/broker.h"

// For as many clients and workers as a broker takes, with their slabs and side connections. More
// would only let strangers take 28 KiB of memory for each.
#define DESCRIPTORS_WANTED 32768u
// For all that is not a connection: slabs, files, the registry.
#define RESERVE_MAX 2048
// While there is none at all, the pending connection is asked for again in a moment.
#define NONE_LEFT_US 1000u

// Connections get numbers below this one; the kernel gives the lowest that is free.
static atomic_int connections_end = INT_MAX;
static atomic_ullong turned_away;

void limits_raise(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        return;
    if (r.rlim_cur < DESCRIPTORS_WANTED) {
        r.rlim_cur = r.rlim_max < DESCRIPTORS_WANTED ? r.rlim_max : DESCRIPTORS_WANTED;
        setrlimit(RLIMIT_NOFILE, &r);
        getrlimit(RLIMIT_NOFILE, &r); // failing, it is what it was
    }
    int limit = r.rlim_cur < INT_MAX ? (int)r.rlim_cur : INT_MAX;
    atomic_store(&connections_end, limit - (limit / 4 < RESERVE_MAX ? limit / 4 : RESERVE_MAX));
}

uint64_t limits_turned_away(void)
{
    return atomic_load(&turned_away);
}

bool limits_short(void)
{
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
    return fd < 0 || fd >= atomic_load(&connections_end);
}

// Without <sys/socket.h>, whose unions for addresses only glibc itself may define a function with.
__attribute__((visibility("default"), used)) int accept4(int fd, void *address, void *len,
                                                         int flags);

int accept4(int fd, void *address, void *len, int flags)
{
    int got = (int)syscall(SYS_accept4, fd, address, len, flags);
    if (got < 0 && (errno == EMFILE || errno == ENFILE)) {
        usleep(NONE_LEFT_US);
        errno = EAGAIN;
    } else if (got >= atomic_load(&connections_end)) {
        close(got);
        atomic_fetch_add(&turned_away, 1);
        got = -1;
        errno = EAGAIN;
    }
    return got;
}

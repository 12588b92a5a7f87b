// SPDX-License-Identifier: Apache-2.0
#include "common/side.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 256

// Abstract names and the wildcard have no path to be beside of.
static bool side_address(const char *endpoint, struct sockaddr_un *address)
{
    static const char SCHEME[] = "ipc://";
    const char *path = endpoint + sizeof(SCHEME) - 1;
    if (strncmp(endpoint, SCHEME, sizeof(SCHEME) - 1) != 0 || path[0] == '@' || path[0] == '*')
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(address->sun_path, sizeof(address->sun_path), "%s.slabs", path);
    return n > 0 && (size_t)n < sizeof(address->sun_path);
}

static int side_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int side_listen(const char *endpoint)
{
    struct sockaddr_un address;
    if (!side_address(endpoint, &address))
        return -ENOTSUP;
    int fd = side_socket();
    if (fd < 0)
        return -errno;
    // Whoever bound the endpoint itself has made sure that no other broker is alive there.
    unlink(address.sun_path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, BACKLOG) != 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
}

void side_close(int fd, const char *endpoint)
{
    struct sockaddr_un address;
    close(fd);
    if (side_address(endpoint, &address))
        unlink(address.sun_path);
}

int side_accept(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int side_connect(const char *endpoint)
{
    struct sockaddr_un address;
    if (!side_address(endpoint, &address))
        return -ENOTSUP;
    int fd = side_socket();
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
}

// Room for one descriptor, aligned as the kernel wants it.
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

bool side_send(int fd, struct wire_header *h, int passed)
{
    union control control = {0};
    struct iovec io;
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    io.iov_base = (void *)(uintptr_t)wire_finish(h, &io.iov_len);
    if (passed >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &passed, sizeof(int));
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)io.iov_len;
}

// The descriptor that came along, -1 when there is none. False when there are several: all closed.
static bool passed_in(struct msghdr *m, int *passed)
{
    int fds[2]; // the alignment makes room for two
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    *passed = -1;
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        return true;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(c), n * sizeof(int));
    for (size_t i = 0; n > 1 && i < n; i++)
        close(fds[i]);
    if (n == 1)
        *passed = fds[0];
    return n <= 1;
}

int side_receive(int fd, void *packet, size_t size, size_t *len, int *passed)
{
    union control control;
    struct iovec io = {packet, size};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof(control.bytes)};
    ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    *passed = -1;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    // What is over the room for descriptors the kernel closes, and says so.
    if (passed_in(&m, passed) && n > 0 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        *len = (size_t)n;
        return 1;
    }
    if (*passed >= 0)
        close(*passed);
    *passed = -1;
    return -1;
}

// SPDX-License-Identifier: Apache-2.0
// Shared memory and the socket that its descriptors travel over: what is no slab is not mapped, and
// no packet leaves a descriptor behind.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/side.h"
#include "common/slab.h"

#define PAGE 4096u

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int descriptors_before(void **state)
{
    static unsigned before;
    before = open_descriptors();
    *state = &before;
    return 0;
}

static int descriptors_after(void **state)
{
    const unsigned *before = *state;
    assert_int_equal(open_descriptors(), *before);
    return 0;
}

// ---- memory -------------------------------------------------------------------------------------

static void test_what_one_writes_the_other_reads(void **state)
{
    char why[256];
    (void)state;
    struct slab *mine = slab_new(3 * PAGE - 5);
    assert_non_null(mine);
    assert_int_equal(slab_bytes(mine), 3 * PAGE);
    struct slab *theirs = slab_map(dup(slab_fd(mine)), 3 * PAGE, why, sizeof(why));
    assert_non_null(theirs);
    strcpy((char *)slab_data(mine) + PAGE, "energy");
    const struct tensor t = {
        .dtype = SONIC_FP32, .ndim = 1, .offset = PAGE, .bytes = 8, .dims = {2}};
    assert_string_equal(slab_tensor(theirs, &t), "energy");
    slab_unref(mine);
    assert_string_equal(slab_tensor(theirs, &t), "energy"); // it lives as long as it is used
    slab_unref(theirs);
}

static void test_nobody_can_cut_or_write_what_is_shared(void **state)
{
    (void)state;
    struct slab *s = slab_new(PAGE);
    assert_int_equal(ftruncate(slab_fd(s), 0), -1);
    assert_int_equal(ftruncate(slab_fd(s), 2 * PAGE), -1);
    assert_int_equal(write(slab_fd(s), "x", 1), -1);
    assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, slab_fd(s), 0),
                     MAP_FAILED);
    slab_unref(s);
}

static void assert_no_slab(int fd, uint64_t bytes, const char *words)
{
    char why[256] = "";
    assert_true(fd >= 0);
    assert_null(slab_map(fd, bytes, why, sizeof(why)));
    if (!strstr(why, words))
        fail_msg("\"%s\" does not say \"%s\"", why, words);
}

static int memory(unsigned flags, off_t bytes, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | flags);
    if (fd >= 0 && (ftruncate(fd, bytes) != 0 || (seals && fcntl(fd, F_ADD_SEALS, seals) != 0)))
        fail_msg("memfd: %s", strerror(errno));
    return fd;
}

static void test_what_is_no_slab_is_not_mapped(void **state)
{
    int ends[2];
    const int both = F_SEAL_SHRINK | F_SEAL_GROW;
    (void)state;
    assert_no_slab(open("/dev/zero", O_RDONLY | O_CLOEXEC), PAGE, "sealed");
    assert_no_slab(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), PAGE, "sealed");
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_no_slab(ends[0], PAGE, "sealed");
    assert_no_slab(ends[1], PAGE, "sealed");
    assert_no_slab(memory(MFD_ALLOW_SEALING, PAGE, 0), PAGE, "sealed");
    assert_no_slab(memory(MFD_ALLOW_SEALING, PAGE, F_SEAL_GROW), PAGE, "sealed");
    assert_no_slab(memory(0, PAGE, 0), PAGE, "sealed");
    assert_no_slab(memory(MFD_ALLOW_SEALING, PAGE, both), 2 * PAGE, "size");
    assert_no_slab(memory(MFD_ALLOW_SEALING, 2 * PAGE, both), PAGE, "size");
    assert_no_slab(memory(MFD_ALLOW_SEALING, 0, both), 0, "size");
    assert_no_slab(memory(MFD_ALLOW_SEALING, 100, both), 100, "size");
    assert_null(slab_new(0));
    assert_null(slab_new(UINT64_MAX));
}

static void test_only_what_lies_inside_is_found(void **state)
{
    (void)state;
    struct slab *s = slab_new(PAGE);
    struct tensor t = {.dtype = SONIC_FP32, .ndim = 1, .bytes = PAGE, .dims = {PAGE / 4}};
    assert_ptr_equal(slab_tensor(s, &t), slab_data(s));
    t.offset = 64;
    assert_null(slab_tensor(s, &t));
    t.bytes = PAGE - 64;
    assert_non_null(slab_tensor(s, &t));
    t.offset = 32; // not on the boundary
    assert_null(slab_tensor(s, &t));
    t.offset = UINT64_MAX - 63;
    assert_null(slab_tensor(s, &t));
    t.offset = 0;
    t.bytes = UINT64_MAX;
    assert_null(slab_tensor(s, &t));
    t.bytes = 64;
    // An index may not change between the check and the use of it.
    for (unsigned dtype = 0; dtype < 32; dtype++) {
        t.dtype = (uint8_t)dtype;
        bool floating = dtype == SONIC_FP64 || dtype == SONIC_FP32 || dtype == SONIC_FP16 ||
                        dtype == SONIC_BF16;
        assert_int_equal(slab_tensor(s, &t) != NULL, floating);
    }
    slab_unref(s);
}

// ---- the side socket ----------------------------------------------------------------------------

static int receive(int fd, int *passed)
{
    char packet[SIDE_PACKET_MAX];
    size_t len;
    return side_receive(fd, packet, sizeof(packet), &len, passed);
}

static void test_a_descriptor_arrives(void **state)
{
    char folder[] = "/tmp/sonic-u-XXXXXX", endpoint[64];
    char packet[SIDE_PACKET_MAX];
    size_t len;
    int passed;
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(endpoint, sizeof(endpoint), "ipc://%s/b", folder);
    assert_true(side_connect(endpoint) < 0);
    int listener = side_listen(endpoint);
    assert_true(listener >= 0);
    assert_int_equal(side_accept(listener), -1);
    int from = side_connect(endpoint);
    int to = side_accept(listener);
    assert_true(from >= 0 && to >= 0);
    assert_int_equal(receive(to, &passed), 0);

    struct slab *s = slab_new(PAGE);
    struct wire_header *h = wire_header_new();
    struct wire_decoder *d = wire_decoder_new();
    struct wire_message *m;
    wire_begin_share(h, &(struct wire_share){.epoch = 5, .slab = 7, .bytes = PAGE});
    assert_true(side_send(from, h, slab_fd(s)));
    close(from); // what was sent is read all the same
    assert_int_equal(side_receive(to, packet, sizeof(packet), &len, &passed), 1);
    assert_int_equal(wire_decode(d, packet, len, WIRE_FROM_BROKER, &m), WIRE_OK);
    assert_int_equal(m->fields.share.slab, 7);
    struct slab *mapped = slab_map(passed, PAGE, packet, sizeof(packet));
    assert_non_null(mapped);
    assert_int_equal(receive(to, &passed), -1);
    slab_unref(mapped);
    slab_unref(s);
    wire_header_free(h);
    wire_decoder_free(d);
    close(to);
    side_close(listener, endpoint);
    assert_int_equal(rmdir(folder), 0); // the socket is gone too
}

static void send_bytes(int fd, size_t n, const int *fds, size_t nfds)
{
    static char bytes[2 * SIDE_PACKET_MAX];
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(8 * sizeof(int))];
    } control = {0};
    struct iovec io = {bytes, n};
    struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};
    if (nfds > 0) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &m, 0), n);
}

static void test_odd_packets_leave_no_descriptor_behind(void **state)
{
    const int fds[8] = {0, 1, 2, 0, 1, 2, 0, 1};
    int ends[2], passed;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends),
                     0);
    for (size_t n = 2; n <= 8; n++) {
        send_bytes(ends[0], 10, fds, n);
        assert_int_equal(receive(ends[1], &passed), -1);
        assert_int_equal(passed, -1);
    }
    send_bytes(ends[0], SIDE_PACKET_MAX + 1, fds, 1); // too long
    assert_int_equal(receive(ends[1], &passed), -1);
    assert_int_equal(passed, -1);
    send_bytes(ends[0], 10, NULL, 0);
    assert_int_equal(receive(ends[1], &passed), 1);
    assert_int_equal(passed, -1);
    close(ends[0]);
    close(ends[1]);
}

static void test_endpoints_without_a_side(void **state)
{
    char longest[200] = "ipc:///tmp/";
    (void)state;
    memset(longest + strlen(longest), 'x', 150);
    const char *const none[] = {"tcp://127.0.0.1:1", "inproc://x", "ipc://*", "ipc://@abstract",
                                longest};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        assert_int_equal(side_listen(none[i]), -ENOTSUP);
        assert_int_equal(side_connect(none[i]), -ENOTSUP);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, descriptors_before, descriptors_after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_one_writes_the_other_reads),
        TEST(test_nobody_can_cut_or_write_what_is_shared),
        TEST(test_what_is_no_slab_is_not_mapped),
        TEST(test_only_what_lies_inside_is_found),
        TEST(test_a_descriptor_arrives),
        TEST(test_odd_packets_leave_no_descriptor_behind),
        TEST(test_endpoints_without_a_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
